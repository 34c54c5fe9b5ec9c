//! "Describe the picture", in a fixed plain grammar.

use std::sync::Arc;

use rand::RngExt;

use super::Options;
use super::scene::{PLACES, SIZES, Scene, Thing};
use crate::asked::{self, words_of};
use crate::choose::one_of;
use crate::{Draw, Generator, Part, Sample, Split};

/// The task.
pub(super) struct Describe(pub(super) Arc<Options>);

impl Generator for Describe {
    fn name(&self) -> &'static str {
        "describe"
    }

    fn sample(&self, _split: Split, draw: &mut Draw) -> Sample {
        let n = draw.random_range(1..=3);
        let mut scene = Scene::around(draw, &[], n, |_| true);
        let image = scene.image(self.0.side, draw);
        scene.things.sort_by_key(|thing| thing.cell);
        let answer: Vec<_> = scene.things.iter().map(phrase).collect();
        let question = one_of(
            draw,
            &[
                "Describe the picture.",
                "What does the picture show?",
                "What do you see?",
                "Say what is in the picture.",
            ],
        );
        asked::sample(draw, self.name(), vec![Part::Image(image)], *question, format!("{}.", answer.join(", ")))
    }

    /// In any order.
    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        phrases(asked::expected(sample)) == phrases(answer)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}

/// "a large red circle at the top left".
pub(crate) fn phrase(thing: &Thing) -> String {
    let place = match PLACES[thing.cell] {
        "middle" => "in the middle".to_owned(),
        place => format!("at the {place}"),
    };
    format!("a {} {} {} {place}", SIZES[thing.size], thing.colour_name(), thing.shape_name())
}

fn phrases(text: &str) -> Vec<Vec<String>> {
    let mut phrases: Vec<_> = text.split(',').map(words_of).collect();
    phrases.sort();
    phrases
}
