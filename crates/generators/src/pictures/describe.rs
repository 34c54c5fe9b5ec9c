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

/// Things in a picture at most.
pub(crate) const MOST: usize = 3;

/// What asks for a description.
pub(crate) const WORDINGS: &[&str] =
    &["Describe the picture.", "What does the picture show?", "What do you see?", "Say what is in the picture."];

impl Generator for Describe {
    fn name(&self) -> &'static str {
        "describe"
    }

    fn sample(&self, _split: Split, draw: &mut Draw) -> Sample {
        let n = draw.random_range(1..=MOST);
        let scene = Scene::around(draw, &[], n, |_| true);
        let image = scene.image(self.0.side, draw);
        let question = *one_of(draw, WORDINGS);
        asked::sample(draw, self.name(), vec![Part::Image(image)], question, description(&scene))
    }

    /// In any order.
    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        phrases(asked::expected(sample)) == phrases(answer)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}

/// All things, row by row.
pub(crate) fn description(scene: &Scene) -> String {
    let mut things = scene.things.clone();
    things.sort_by_key(|thing| thing.cell);
    format!("{}.", things.iter().map(phrase).collect::<Vec<_>>().join(", "))
}

/// "a large red circle at the top left".
pub(crate) fn phrase(thing: &Thing) -> String {
    format!("{} {}", named(thing), place(thing.cell))
}

/// "a large red circle".
pub(crate) fn named(thing: &Thing) -> String {
    format!("a {} {} {}", SIZES[thing.size], thing.colour_name(), thing.shape_name())
}

/// "at the top left".
pub(crate) fn place(cell: usize) -> String {
    match PLACES[cell] {
        "middle" => "in the middle".to_owned(),
        place => format!("at the {place}"),
    }
}

fn phrases(text: &str) -> Vec<Vec<String>> {
    let mut phrases: Vec<_> = text.split(',').map(words_of).collect();
    phrases.sort();
    phrases
}
