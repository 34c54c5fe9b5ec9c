//! Bar charts: the highest, the lowest, a value, a comparison, how many.

use std::sync::Arc;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::Options;
use super::chart::{Frame, TOP};
use crate::asked::{self, worded};
use crate::choose::one_of;
use crate::{Draw, Generator, Image, Part, Sample, Split};

/// The task.
pub(super) struct Bars(pub(super) Arc<Options>);

const NAMES: [&str; 5] = ["A", "B", "C", "D", "E"];

impl Generator for Bars {
    fn name(&self) -> &'static str {
        "bars"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let kind = draw.random_range(0..5);
        // the number of bars is known where a blind guess would be better with fewer of them
        let n = if kind == 4 { draw.random_range(2..=5) } else { NAMES.len() };
        let values = values(n, draw);
        let (question, answer) = ask(kind, &values, draw);
        let image = self.image(split, &values, draw);
        asked::sample(draw, self.name(), vec![Part::Image(image)], question, answer)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        (1.0 / 5.0 + 1.0 / 5.0 + 1.0 / 10.0 + 1.0 / 2.0 + 1.0 / 4.0) / 5.0
    }
}

impl Bars {
    fn image(&self, split: Split, values: &[u32], draw: &mut Draw) -> Image {
        let names: Vec<_> = NAMES[..values.len()].iter().map(|name| (*name).to_owned()).collect();
        let mut frame = Frame::new(&self.0, split, &names, draw);
        let half = frame.step() * draw.random_range(0.25..0.42);
        let one_colour = draw.random_bool(0.5).then(|| frame.colour(draw));
        for (i, value) in values.iter().enumerate() {
            let colour = one_colour.unwrap_or_else(|| frame.colour(draw));
            let (x, top, bottom) = (frame.x(i as f32), frame.y(*value as f32), frame.y(0.0));
            frame.canvas.rectangle((x - half, top), (x + half, bottom), colour);
        }
        frame.canvas.into_image(draw)
    }
}

/// Different heights from 1 to [`TOP`].
fn values(n: usize, draw: &mut Draw) -> Vec<u32> {
    let mut heights: Vec<u32> = (1..=TOP).collect();
    heights.shuffle(draw);
    heights.truncate(n);
    heights
}

fn ask(kind: usize, values: &[u32], draw: &mut Draw) -> (String, String) {
    let order =
        |value: Option<&u32>| value.and_then(|value| values.iter().position(|other| other == value)).unwrap_or(0);
    let bar = draw.random_range(0..values.len());
    let other = (bar + draw.random_range(1..values.len())) % values.len();
    match kind {
        0 => {
            let wordings =
                ["Which bar is the highest?", "Which bar is the tallest?", "Which letter has the largest value?"];
            ((*one_of(draw, &wordings)).into(), NAMES[order(values.iter().max())].into())
        }
        1 => {
            let wordings =
                ["Which bar is the lowest?", "Which bar is the shortest?", "Which letter has the smallest value?"];
            ((*one_of(draw, &wordings)).into(), NAMES[order(values.iter().min())].into())
        }
        2 => {
            let wordings = ["What is the value of *?", "How high is bar *?", "Which value does * have?"];
            (worded(draw, &wordings, NAMES[bar]), values[bar].to_string())
        }
        3 => {
            let wordings =
                ["Is * higher than +?", "Is bar * taller than bar +?", "Is the value of * larger than that of +?"];
            let question = worded(draw, &wordings, NAMES[bar]).replace('+', NAMES[other]);
            (question, if values[bar] > values[other] { "yes" } else { "no" }.into())
        }
        _ => {
            let wordings = ["How many bars are there?", "Count the bars.", "What is the number of bars?"];
            ((*one_of(draw, &wordings)).into(), values.len().to_string())
        }
    }
}
