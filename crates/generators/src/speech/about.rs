//! Pictures that somebody speaks about, and text tasks that are spoken.

use std::sync::Arc;

use rand::RngExt;

use super::Voice;
use crate::asked;
use crate::choose::one_of;
use crate::pictures::describe::phrase;
use crate::pictures::scene::{PLACES, SIZES, Scene, Thing, index_of};
use crate::pictures::shapes;
use crate::{Draw, Generator, Part, Role, Sample, Split};

/// A picture of shapes and a spoken question about it.
pub(super) struct AskedAloud {
    pub(super) voice: Arc<Voice>,
    pub(super) side: usize,
}

impl Generator for AskedAloud {
    fn name(&self) -> &'static str {
        "picture_asked_aloud"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let (scene, question, answer) = shapes::any_question(draw);
        let Some(sound) = self.voice.say(&question, split, draw) else { return super::silence(self.name(), draw) };
        let image = scene.image(self.side, draw);
        let wordings = [
            "Answer the spoken question.",
            "Listen to the question about the picture and answer it.",
            "What is the answer to the question?",
        ];
        let wording = one_of(draw, &wordings);
        asked::sample(draw, self.name(), vec![Part::Image(image), Part::Sound(sound)], *wording, answer)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        shapes::chance()
    }
}

/// A picture of one thing and a spoken caption that may be wrong in one word.
pub(super) struct CaptionedAloud {
    pub(super) voice: Arc<Voice>,
    pub(super) side: usize,
}

impl Generator for CaptionedAloud {
    fn name(&self) -> &'static str {
        "picture_captioned_aloud"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let it = Thing::any(draw);
        let is_true = draw.random_bool(0.5);
        let mut said = it;
        while !is_true && said == it {
            let other = Thing::any(draw);
            match draw.random_range(0..4) {
                0 => said.shape = other.shape,
                1 => said.colour = other.colour,
                2 => said.size = index_of(draw, &SIZES),
                _ => said.cell = index_of(draw, &PLACES),
            }
        }
        let Some(sound) = self.voice.say(&phrase(&said), split, draw) else { return super::silence(self.name(), draw) };
        let image = Scene { things: vec![it] }.image(self.side, draw);
        let wordings = ["Is what is said about the picture true?", "Does the caption that is spoken fit the picture?"];
        let wording = one_of(draw, &wordings);
        let media = vec![Part::Image(image), Part::Sound(sound)];
        asked::sample(draw, self.name(), media, *wording, if is_true { "yes" } else { "no" })
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

/// Bytes of a question that is spoken, at most: about eight seconds.
const LONGEST: usize = 100;

/// The samples of another task that are one short question, spoken.
pub(super) struct Spoken {
    pub(super) voice: Arc<Voice>,
    pub(super) name: &'static str,
    pub(super) inner: Box<dyn Generator>,
}

impl Generator for Spoken {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let mut sample = loop {
            let sample = self.inner.sample(split, draw);
            if sample.turns.len() == 2 && sample.question().len() <= LONGEST {
                break sample;
            }
        };
        sample.task = self.name;
        let question = sample.turns.iter_mut().rfind(|turn| turn.role == Role::User);
        let Some(turn) = question else { return sample };
        for part in &mut turn.content {
            if let Part::Text(text) = part
                && let Some(sound) = self.voice.say(text, split, draw)
            {
                *part = Part::Sound(sound);
            }
        }
        sample
    }

    /// The text that the task reads its question from is sound now, so the answer is its own.
    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(&sample.answer(), answer)
    }

    fn chance(&self) -> f64 {
        self.inner.chance()
    }
}
