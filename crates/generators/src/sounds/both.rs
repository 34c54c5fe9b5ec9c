//! A picture and a clip in one prompt: the question cannot be answered from either alone.

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::events::EVENTS;
use super::room::record;
use super::said::spoken;
use super::words::{self, is_pair_of};
use crate::asked;
use crate::choose::one_of;
use crate::pictures::scene::{COLOURS, SHAPES, Scene, Thing, company, counted};
use crate::{Draw, Generator, Part, Sample, Sound, Split};

/// The task.
pub(super) struct PictureAndClip {
    /// Width and height of the picture.
    pub(super) side: usize,
}

/// What is said or heard, what is seen, the question, the answer.
type Asked = (Heard, Scene, &'static str, String);

type Ask = fn(Split, &mut Draw) -> Asked;

/// Content of the clip.
enum Heard {
    /// Indices of words.
    Words(Vec<usize>),
    /// Index of an event.
    Event(usize),
}

/// Kinds of questions, and the share of each that a blind guess answers.
const KINDS: [(Ask, f64); 5] = [
    (shape_of_spoken_colour, 1.0 / SHAPES.len() as f64),
    (colour_of_spoken_shape, 1.0 / COLOURS.len() as f64),
    (count_of_spoken_colour, 1.0 / 5.0),
    (spoken_caption, 1.0 / 2.0),
    (seen_and_heard, 1.0 / (SHAPES.len() * EVENTS.len()) as f64),
];

impl Generator for PictureAndClip {
    fn name(&self) -> &'static str {
        "picture_and_clip"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let (heard, scene, question, answer) = one_of(draw, &KINDS).0(split, draw);
        let sound = heard.sound(split, draw);
        let image = scene.image(self.side, draw);
        let mut media = vec![Part::Image(image), Part::Sound(sound)];
        if draw.random_bool(0.5) {
            media.reverse();
        }
        asked::sample(draw, self.name(), media, question, answer)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        KINDS.iter().map(|(_, share)| share).sum::<f64>() / KINDS.len() as f64
    }
}

impl Heard {
    fn sound(&self, split: Split, draw: &mut Draw) -> Sound {
        match self {
            Self::Words(words) => spoken(split, words, draw),
            Self::Event(event) => {
                let clip = EVENTS[*event].1(draw);
                record(&clip, split, draw)
            }
        }
    }
}

fn shape_of_spoken_colour(_: Split, draw: &mut Draw) -> Asked {
    let (colour, word) = sayable(draw, COLOURS.map(|colour| colour.0));
    let it = Thing { colour, ..Thing::any(draw) };
    let n = company(draw);
    let scene = Scene::around(draw, &[it], n, |thing| thing.colour != colour);
    let wordings = ["Which shape has the colour that is said?", "What shape is it that has the spoken colour?"];
    (Heard::Words(vec![word]), scene, *one_of(draw, &wordings), it.shape_name().into())
}

fn colour_of_spoken_shape(_: Split, draw: &mut Draw) -> Asked {
    let (shape, word) = sayable(draw, SHAPES.map(|shape| shape.1));
    let it = Thing { shape, ..Thing::any(draw) };
    let n = company(draw);
    let scene = Scene::around(draw, &[it], n, |thing| thing.shape != shape);
    let wordings = ["What colour is the shape that is said?", "Which colour does the spoken shape have?"];
    (Heard::Words(vec![word]), scene, *one_of(draw, &wordings), it.colour_name().into())
}

fn count_of_spoken_colour(_: Split, draw: &mut Draw) -> Asked {
    let (colour, word) = sayable(draw, COLOURS.map(|colour| colour.0));
    let (n, others) = (draw.random_range(0..=4), draw.random_range(1..=3));
    let scene = counted(draw, n, others, |thing| thing.colour == colour);
    let wordings = ["How many shapes have the colour that is said?", "Count the shapes of the spoken colour."];
    (Heard::Words(vec![word]), scene, *one_of(draw, &wordings), n.to_string())
}

/// A colour and a shape; where they are not together, each is there with another.
fn spoken_caption(split: Split, draw: &mut Draw) -> Asked {
    let mut pairs = std::iter::repeat_with(|| {
        (sayable(draw, COLOURS.map(|colour| colour.0)), sayable(draw, SHAPES.map(|shape| shape.1)))
    });
    let pair = pairs.find(|(colour, shape)| is_pair_of(split, colour.1, shape.1));
    let ((colour, colour_word), (shape, shape_word)) = pair.expect("both splits have pairs of a colour and a shape");
    let is_true = draw.random_bool(0.5);
    let differs = |thing: &Thing| thing.shape != shape || thing.colour != colour;
    let first = if is_true {
        vec![Thing { shape, colour, ..Thing::any(draw) }]
    } else {
        let same_colour = Scene::around(draw, &[], 1, |thing| thing.colour == colour && thing.shape != shape).things;
        Scene::around(draw, &same_colour, 1, |thing| thing.colour != colour && thing.shape == shape).things
    };
    let n = draw.random_range(1..=2);
    let scene = Scene::around(draw, &first, n, differs);
    let wordings = ["Does the picture show what is said?", "Is what is said in the picture?"];
    let answer = if is_true { "yes" } else { "no" };
    (Heard::Words(vec![colour_word, shape_word]), scene, *one_of(draw, &wordings), answer.into())
}

fn seen_and_heard(_: Split, draw: &mut Draw) -> Asked {
    let it = Thing::any(draw);
    let event = draw.random_range(0..EVENTS.len());
    let wordings = ["Name the shape and the sound.", "What shape do you see, and what do you hear?"];
    let answer = format!("{}, {}", it.shape_name(), EVENTS[event].0);
    (Heard::Event(event), Scene { things: vec![it] }, *one_of(draw, &wordings), answer)
}

/// One of `names` that a synthetic voice can say: its index, and that of the word.
fn sayable<const N: usize>(draw: &mut Draw, names: [&str; N]) -> (usize, usize) {
    let sayable: Vec<_> = names.iter().enumerate().filter_map(|(i, name)| Some((i, words::index_of(name)?))).collect();
    *sayable.choose(draw).expect("colours and shapes are among the words")
}
