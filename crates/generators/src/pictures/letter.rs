//! One large letter or digit, or a few in a line. Who reads these is ready for words.

use std::sync::Arc;

use rand::RngExt;

use super::Options;
use super::printed;
use crate::asked;
use crate::choose::one_of;
use crate::{Draw, Generator, Part, Sample, Split};

/// "Which letter is this?"
pub(super) struct Letter(pub(super) Arc<Options>);

/// "Read the letters."
pub(super) struct LineOfLetters(pub(super) Arc<Options>);

/// Letters in a line at most.
const MOST: usize = 10;

/// Those that no typeface draws like another, at any size.
pub(super) const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789abdefghkmnqrty";

impl Generator for Letter {
    fn name(&self) -> &'static str {
        "letter"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let letter = char::from(*one_of(draw, LETTERS)).to_string();
        let side = self.0.side as f32;
        let (mut canvas, ink) = printed::blank([self.0.side; 2], draw);
        let height = side * draw.random_range(0.2..0.6);
        let room = (side - height * 1.3) / 2.0;
        let centre = [(); 2].map(|()| side / 2.0 + draw.random_range(-room..=room));
        if let Some(path) = self.0.fonts.choose(split, draw).line(&letter, draw) {
            canvas.text(&path, centre.into(), height, ink);
        }
        let image = canvas.into_image(draw);
        let question =
            one_of(draw, &["Which letter is this?", "What is the letter?", "Which letter or digit do you see?"]);
        asked::sample(draw, self.name(), vec![Part::Image(image)], *question, letter)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::expected(sample) == answer.trim()
    }

    fn chance(&self) -> f64 {
        1.0 / LETTERS.len() as f64
    }
}

impl Generator for LineOfLetters {
    fn name(&self) -> &'static str {
        "line_of_letters"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        // Short ones more often: the first letter is found before the tenth.
        let n = draw.random_range(2..=MOST).min(draw.random_range(2..=MOST));
        let letters: String = (0..n).map(|_| char::from(*one_of(draw, LETTERS))).collect();
        let spelled: Vec<String> = letters.chars().map(String::from).collect();
        let image = printed::page(&self.0, split, &[letters], draw);
        let question = one_of(draw, &["Read the letters.", "Which letters are these?", "Spell the text."]);
        asked::sample(draw, self.name(), vec![Part::Image(image)], *question, spelled.join(" "))
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_read(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}
