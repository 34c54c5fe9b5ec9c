//! What fills a whole picture: a colour, two halves, or one shape. The first things that there are to be seen.

use std::sync::Arc;

use rand::RngExt;
use tiny_skia::Transform;

use super::Options;
use super::canvas::{Canvas, background_for, jittered};
use super::scene::{COLOURS, SHAPES, index_of, outline};
use crate::asked::{self, worded};
use crate::choose::one_of;
use crate::{Draw, Generator, Image, Part, Sample, Split};

/// The task.
pub(super) struct CloseUp(pub(super) Arc<Options>);

/// Names of halves, with where each begins and ends in a picture of side 1.
const HALVES: [(&str, [(f32, f32); 2]); 4] = [
    ("left", [(0.0, 0.0), (0.5, 1.0)]),
    ("right", [(0.5, 0.0), (1.0, 1.0)]),
    ("top", [(0.0, 0.0), (1.0, 0.5)]),
    ("bottom", [(0.0, 0.5), (1.0, 1.0)]),
];

impl CloseUp {
    /// All of one colour.
    fn plain(&self, draw: &mut Draw) -> (Image, String, String) {
        let (name, colour) = *one_of(draw, &COLOURS);
        let image = Canvas::new(self.0.side, jittered(draw, colour, 9)).into_image(draw);
        let question = one_of(draw, &["What colour is the picture?", "Which colour do you see?", "Name the colour."]);
        (image, (*question).to_owned(), name.to_owned())
    }

    /// Two halves of different colours.
    fn halves(&self, draw: &mut Draw) -> (Image, String, String) {
        let colour = index_of(draw, &COLOURS);
        let other = (colour + draw.random_range(1..COLOURS.len())) % COLOURS.len();
        let (half, [first, last]) = *one_of(draw, &HALVES);
        let (mine, rest) = (jittered(draw, COLOURS[colour].1, 9), jittered(draw, COLOURS[other].1, 9));
        let side = self.0.side as f32;
        let mut canvas = Canvas::new(self.0.side, rest);
        canvas.rectangle((first.0 * side, first.1 * side), (last.0 * side, last.1 * side), mine);
        let image = canvas.into_image(draw);
        let wordings = ["What colour is the * half?", "Which colour is at the *?", "Name the colour of the * half."];
        (image, worded(draw, &wordings, half), COLOURS[colour].0.to_owned())
    }

    /// One shape from edge to edge.
    fn shape(&self, draw: &mut Draw) -> (Image, String, String) {
        let (shape, colour) = (index_of(draw, &SHAPES), index_of(draw, &COLOURS));
        let paint = jittered(draw, COLOURS[colour].1, 9);
        let mut canvas = Canvas::new(self.0.side, background_for(draw, &[paint], 170.0));
        let side = self.0.side as f32;
        let radius = side * draw.random_range(0.36..0.46);
        let mut at = || side * draw.random_range(0.47..0.53);
        let place = Transform::from_scale(radius, radius).post_translate(at(), at());
        if let Some(path) = outline(SHAPES[shape].0) {
            canvas.fill(&path, place, paint);
        }
        let image = canvas.into_image(draw);
        let (shape, colour) = (SHAPES[shape].1, COLOURS[colour].0);
        let (question, answer) = match draw.random_range(0..3) {
            0 => (worded(draw, &["What colour is the *?", "Name the colour of the *."], shape), colour.to_owned()),
            1 => {
                let wordings = ["Which shape is this?", "What shape do you see?", "What is the * thing?"];
                (worded(draw, &wordings, colour), shape.to_owned())
            }
            _ => {
                let article = if colour.starts_with('o') { "an" } else { "a" };
                let wordings = ["What is this?", "Say what you see."];
                ((*one_of(draw, &wordings)).to_owned(), format!("{article} {colour} {shape}"))
            }
        };
        (image, question, answer)
    }
}

impl Generator for CloseUp {
    fn name(&self) -> &'static str {
        "close_up"
    }

    fn sample(&self, _split: Split, draw: &mut Draw) -> Sample {
        let (image, question, answer) = match draw.random_range(0..4) {
            0 => self.plain(draw),
            1 => self.halves(draw),
            _ => self.shape(draw),
        };
        asked::sample(draw, self.name(), vec![Part::Image(image)], question, answer)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    /// Of a colour, of a shape, of both, as often as each is asked for.
    fn chance(&self) -> f64 {
        let (colours, shapes) = (COLOURS.len() as f64, SHAPES.len() as f64);
        0.5 / colours + (1.0 / colours + 1.0 / shapes + 1.0 / (colours * shapes)) / 6.0
    }
}
