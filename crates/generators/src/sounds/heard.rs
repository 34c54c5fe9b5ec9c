//! Questions about sounds that are not speech, and about which of two comes first.

use rand::RngExt;

use super::events::EVENTS;
use super::room::record;
use super::said::{row, spelled, spoken};
use super::voice::samples;
use crate::asked;
use crate::choose::one_of;
use crate::{Draw, Generator, Part, Sample, Split};

/// "What do you hear?"
pub(super) struct NameEvent;

impl Generator for NameEvent {
    fn name(&self) -> &'static str {
        "sound_event"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let (name, make) = one_of(draw, &EVENTS);
        let clip = make(draw);
        let sound = record(&clip, split, draw);
        let question = one_of(
            draw,
            &["What do you hear?", "Which sound is this?", "Name the sound.", "What sound is in the clip?"],
        );
        asked::sample(draw, self.name(), vec![Part::Sound(sound)], *question, *name)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        1.0 / EVENTS.len() as f64
    }
}

/// "Which comes first, … or …?", of two words or two sounds.
pub(super) struct Order;

impl Generator for Order {
    fn name(&self) -> &'static str {
        "which_first"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let (sound, names, kind) = if draw.random_bool(0.5) {
            let words = row(split, 2, draw);
            let names = [spelled(&words[..1]), spelled(&words[1..])];
            (spoken(split, &words, draw), names, "word")
        } else {
            let first = draw.random_range(0..EVENTS.len());
            let second = (first + draw.random_range(1..EVENTS.len())) % EVENTS.len();
            let mut clip = level(EVENTS[first].1(draw));
            clip.resize(clip.len() + samples(draw.random_range(0.1..0.4)), 0.0);
            clip.extend(level(EVENTS[second].1(draw)));
            (record(&clip, split, draw), [first, second].map(|event| EVENTS[event].0.to_owned()), "sound")
        };
        let [a, b] = if draw.random_bool(0.5) { [&names[0], &names[1]] } else { [&names[1], &names[0]] };
        let question = match draw.random_range(0..3) {
            0 => format!("Which {kind} comes first, {a} or {b}?"),
            1 => format!("Is {a} or {b} heard first?"),
            _ => format!("Which {kind} is the first, {a} or {b}?"),
        };
        asked::sample(draw, self.name(), vec![Part::Sound(sound)], question, names[0].clone())
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

/// At a power that sounds as loud as any other.
fn level(clip: Vec<f32>) -> Vec<f32> {
    let power = clip.iter().map(|sample| sample * sample).sum::<f32>() / clip.len().max(1) as f32;
    clip.iter().map(|sample| sample * 0.1 / power.max(1e-12).sqrt()).collect()
}
