//! Line charts: where the line is highest or lowest, its value at a place, whether it rises.

use std::sync::Arc;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::Options;
use super::chart::{Frame, TOP};
use crate::asked::{self, worded};
use crate::choose::one_of;
use crate::{Draw, Generator, Image, Part, Sample, Split};

/// The task.
pub(super) struct Lines(pub(super) Arc<Options>);

/// Points of a line.
const N: usize = 5;

impl Generator for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let mut values: Vec<u32> = (0..=TOP).collect();
        values.shuffle(draw);
        values.truncate(N);
        let (question, answer) = ask(&values, draw);
        let image = self.image(split, &values, draw);
        asked::sample(draw, self.name(), vec![Part::Image(image)], question, answer)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        (1.0 / 5.0 + 1.0 / 5.0 + 1.0 / 11.0 + 1.0 / 2.0) / 4.0
    }
}

impl Lines {
    fn image(&self, split: Split, values: &[u32], draw: &mut Draw) -> Image {
        let names: Vec<_> = (1..=N).map(|place| place.to_string()).collect();
        let mut frame = Frame::new(&self.0, split, &names, draw);
        let colour = frame.colour(draw);
        let width = self.0.side as f32 * draw.random_range(0.015..0.03);
        let points: Vec<_> =
            values.iter().enumerate().map(|(i, value)| (frame.x(i as f32), frame.y(*value as f32))).collect();
        frame.canvas.lines(&points, width, colour);
        let dots = if draw.random_bool(0.7) { draw.random_range(1.0..1.5) } else { 0.5 };
        for point in points {
            frame.canvas.disc(point, width * dots, colour);
        }
        frame.canvas.into_image(draw)
    }
}

fn ask(values: &[u32], draw: &mut Draw) -> (String, String) {
    let place_of = |value: Option<&u32>| {
        let place = value.and_then(|value| values.iter().position(|other| other == value)).unwrap_or(0);
        (place + 1).to_string()
    };
    let place = draw.random_range(0..N);
    match draw.random_range(0..4) {
        0 => {
            let wordings = [
                "Where is the line highest?",
                "At which place is the highest point?",
                "At which place does the line have its maximum?",
            ];
            ((*one_of(draw, &wordings)).into(), place_of(values.iter().max()))
        }
        1 => {
            let wordings = [
                "Where is the line lowest?",
                "At which place is the lowest point?",
                "At which place does the line have its minimum?",
            ];
            ((*one_of(draw, &wordings)).into(), place_of(values.iter().min()))
        }
        2 => {
            let wordings =
                ["What is the value at *?", "How high is the line at *?", "Which value does the line have at *?"];
            (worded(draw, &wordings, &(place + 1).to_string()), values[place].to_string())
        }
        _ => {
            let place = place.min(N - 2);
            let wordings = ["Does the line rise or fall between * and +?", "From * to +, does the line rise or fall?"];
            let question = worded(draw, &wordings, &(place + 1).to_string()).replace('+', &(place + 2).to_string());
            (question, if values[place] < values[place + 1] { "rise" } else { "fall" }.into())
        }
    }
}
