//! Printed words, numbers and short lines to read out.

use std::sync::Arc;

use rand::RngExt;
use rand::seq::IndexedRandom;
use tiny_skia::{Path, Transform};

use super::Options;
use super::canvas::{Canvas, Rgb, background_for};
use super::words::WORDS;
use crate::asked;
use crate::choose::one_of;
use crate::{Draw, Generator, Image, Part, Sample, Split};

/// The task.
pub(super) struct Printed(pub(super) Arc<Options>);

/// What asks for all of it.
pub(crate) const WORDINGS: &[&str] = &[
    "What does it say?",
    "Read the text.",
    "What is written here?",
    "Which text is in the picture?",
    "Read this out.",
];

/// Letters that a picture as wide as it is high has room for at most; a strip is some such pictures wide.
const LETTERS_OF_A_SIDE: usize = 4;

/// A strip is so many times as wide as high at most.
const MOST_SIDES: usize = 3;

/// Letters that no typeface draws like another.
const CODE: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

impl Generator for Printed {
    fn name(&self) -> &'static str {
        "printed"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let lines = text(draw);
        let image = page(&self.0, split, &lines, draw);
        let question = one_of(draw, WORDINGS);
        asked::sample(draw, self.name(), vec![Part::Image(image)], *question, lines.join(" "))
    }

    /// Letter by letter, capitals and signs too; how many spaces there are between words is not seen.
    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_read(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}

/// `lines`, one below the other, in a typeface of `split`: a square, or a strip as wide as the print needs.
pub(crate) fn page(options: &Options, split: Split, lines: &[String], draw: &mut Draw) -> Image {
    let longest = lines.iter().map(String::len).max().unwrap_or(0);
    let n_sides = longest.div_ceil(LETTERS_OF_A_SIDE).clamp(1, MOST_SIDES);
    let is_high = n_sides == 1 || lines.len() > 1;
    let height = if is_high { options.side } else { draw.random_range(options.side * 6 / 10..=options.side) };
    let size = [n_sides * options.side, height];
    let (mut canvas, ink) = blank(size, draw);
    let [width, height] = size.map(|length| length as f32);
    let face = options.fonts.choose(split, draw);
    let paths: Vec<Path> = lines.iter().filter_map(|line| face.line(line, draw)).collect();
    let widest = paths.iter().map(|path| path.bounds().width()).fold(0.1, f32::max);
    let most = (width * 0.92 / widest).min(height * if lines.len() > 1 { 0.26 } else { 0.45 });
    let capital = draw.random_range(most * 0.55..=most);
    let pitch = capital * draw.random_range(1.7..2.1);
    let spare = (width * 0.97 - widest * capital).max(0.0) / 2.0 * 0.85;
    let block = pitch * (paths.len() as f32 - 1.0) + capital * 1.5;
    let room = ((height - block) / 2.0).max(0.0) * 0.85;
    let (x, y) = (width / 2.0 + draw.random_range(-spare..=spare), height / 2.0 + draw.random_range(-room..=room));
    let turn = Transform::from_rotate(if draw.random_bool(0.5) { draw.random_range(-3.0..3.0) } else { 0.0 });
    for (i, path) in paths.iter().enumerate() {
        if let Some(path) = path.clone().transform(turn) {
            canvas.text(&path, (x, y + (i as f32 - (paths.len() as f32 - 1.0) / 2.0) * pitch), capital, ink);
        }
    }
    canvas.into_image(draw)
}

/// A page without print, and an ink that stands out on it: any two colours, or black on white and nearly, as most print is.
pub(super) fn blank(size: [usize; 2], draw: &mut Draw) -> (Canvas, Rgb) {
    let ink = draw.random::<[u8; 3]>();
    let paper = background_for(draw, &[ink], 260.0);
    if draw.random_bool(0.5) {
        return (Canvas::of(size, [draw.random_range(215..=255); 3]), [draw.random_range(0..50); 3]);
    }
    (Canvas::of(size, paper), ink)
}

/// One or two lines of at most 12 letters.
pub(crate) fn text(draw: &mut Draw) -> Vec<String> {
    match draw.random_range(0..8) {
        0 | 1 => vec![cased(draw, word)],
        2 => vec![cased(draw, made_up)],
        3 => vec![number(draw)],
        4 => vec![(0..draw.random_range(2..=5)).map(|_| char::from(*one_of(draw, CODE))).collect()],
        5 | 6 => vec![line(draw)],
        _ => vec![line(draw), line(draw)],
    }
}

/// Two or three words that fit, the second sometimes a number.
fn line(draw: &mut Draw) -> String {
    let mut line = cased(draw, word);
    for _ in 0..2 {
        let next = if draw.random_bool(0.2) { draw.random_range(0..100u32).to_string() } else { word(draw) };
        if line.len() + 1 + next.len() <= 12 {
            line = format!("{line} {next}");
        }
    }
    line
}

fn word(draw: &mut Draw) -> String {
    WORDS.choose(draw).map_or_else(String::new, |word| (*word).to_owned())
}

/// Syllables that no dictionary has, so that reading is not guessing.
fn made_up(draw: &mut Draw) -> String {
    let n = draw.random_range(2..=4);
    (0..n)
        .map(|_| {
            format!(
                "{}{}",
                one_of(draw, &["b", "d", "f", "g", "k", "m", "n", "p", "r", "s", "t", "v", "w", "z", "tr", "sh", "qu"]),
                one_of(draw, &["a", "e", "i", "o", "u", "ay"])
            )
        })
        .collect()
}

fn cased(draw: &mut Draw, make: fn(&mut Draw) -> String) -> String {
    let word = make(draw);
    match draw.random_range(0..4) {
        0 => word.to_uppercase(),
        1 => word[..1].to_uppercase() + &word[1..],
        _ => word,
    }
}

fn number(draw: &mut Draw) -> String {
    let digits = draw.random_range(1..=6);
    let number = draw.random_range(0..10u32.pow(digits));
    match draw.random_range(0..5) {
        0 => format!("{}.{:02}", number % 1000, draw.random_range(0..100)),
        1 => format!("{}%", number % 101),
        2 => format!("{}:{:02}", number % 24, draw.random_range(0..60)),
        _ => number.to_string(),
    }
}
