//! A typeface that is drawn with a pen: every letter is a few strokes on a grid, so weight, width, slant and spacing are
//! free.

use rand::RngExt;
use tiny_skia::{Path, PathBuilder, PathStroker, Transform};

use super::canvas::round;
use crate::{Draw, Split};

/// Height of capitals on the grid of [`STROKES`].
const CAPITAL: f32 = 9.0;

/// How a line is written.
pub(crate) struct Hand {
    /// Width of the pen, of 9 for the height of a capital.
    weight: f32,
    /// Columns a row: positive leans to the right.
    slant: f32,
    /// Width of a column, of 1 for the height of a row.
    width: f32,
    /// Between two letters.
    gap: f32,
    /// How far points may stray.
    wobble: f32,
}

impl Hand {
    /// Letters that lean backwards are held out.
    pub(crate) fn of(split: Split, draw: &mut Draw) -> Self {
        let slant = match split {
            Split::Train => draw.random_range(-0.08..0.3),
            Split::HeldOut => draw.random_range(-0.25..-0.12),
        };
        Self {
            weight: draw.random_range(0.8..1.9),
            slant,
            width: draw.random_range(0.75..1.15),
            gap: draw.random_range(1.2..2.4),
            wobble: if draw.random_bool(0.5) { draw.random_range(0.0..0.35) } else { 0.0 },
        }
    }

    /// The outline of `text`: baseline at 0, capitals of height 1.
    pub(crate) fn line(&self, text: &str, draw: &mut Draw) -> Option<Path> {
        let mut pen = PathBuilder::new();
        let mut left = 0.0;
        for letter in text.chars() {
            let Some(&(_, strokes)) = STROKES.iter().find(|(known, _)| *known == letter) else {
                left += 3.0 * self.width + self.gap;
                continue;
            };
            let mut width: f32 = 0.0;
            for stroke in strokes.split(' ') {
                let points: Vec<_> = grid(stroke).map(|(x, y)| self.placed((x, y), draw)).collect();
                width = grid(stroke).fold(width, |width, (x, _)| width.max(x * self.width));
                write(&mut pen, stroke, &points.iter().map(|&(x, y)| (x + left, y)).collect::<Vec<_>>());
            }
            left += width + self.gap + self.weight;
        }
        let outline = PathStroker::new().stroke(&pen.finish()?, &round(self.weight), 4.0)?;
        outline.transform(Transform::from_scale(1.0 / CAPITAL, 1.0 / CAPITAL))
    }

    fn placed(&self, (x, y): (f32, f32), draw: &mut Draw) -> (f32, f32) {
        let mut stray = || if self.wobble > 0.0 { draw.random_range(-self.wobble..self.wobble) } else { 0.0 };
        let rise = CAPITAL - y;
        (x * self.width + rise * self.slant + stray(), -rise + stray())
    }
}

/// The points of a stroke: pairs of hexadecimal digits, column and row, row 0 at the top of capitals.
fn grid(stroke: &str) -> impl Iterator<Item = (f32, f32)> + '_ {
    let mut digits = stroke.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as f32);
    std::iter::from_fn(move || Some((digits.next()?, digits.next()?)))
}

/// Straight from point to point; after `~` a curve that the points pull at; after `@` the same, closed.
fn write(pen: &mut PathBuilder, stroke: &str, points: &[(f32, f32)]) {
    let (Some(&first), Some(&last)) = (points.first(), points.last()) else { return };
    let middle = |a: (f32, f32), b: (f32, f32)| ((a.0 + b.0) / 2.0, (a.1 + b.1) / 2.0);
    match stroke.chars().next() {
        Some('@') => {
            let start = middle(last, first);
            pen.move_to(start.0, start.1);
            for (i, &by) in points.iter().enumerate() {
                let to = middle(by, points[(i + 1) % points.len()]);
                pen.quad_to(by.0, by.1, to.0, to.1);
            }
            pen.close();
        }
        Some('~') => {
            pen.move_to(first.0, first.1);
            for (i, &by) in points.iter().enumerate().skip(1).take(points.len().saturating_sub(2)) {
                let next = points[i + 1];
                let to = if i + 2 == points.len() { next } else { middle(by, next) };
                pen.quad_to(by.0, by.1, to.0, to.1);
            }
        }
        _ => {
            pen.move_to(first.0, first.1);
            for &(x, y) in &points[1..] {
                pen.line_to(x, y);
            }
        }
    }
}

/// Capitals stand in rows 0 to 9, small letters in rows 3 to 9, tails reach row 12.
#[rustfmt::skip]
const STROKES: [(char, &str); 75] = [
    ('A', "093069 1656"), ('B', "0009 ~00505404 ~04646909"), ('C', "~615000095968"), ('D', "0009 ~00606909"),
    ('E', "50000959 0444"), ('F', "500009 0444"), ('G', "~615000096965 6535"), ('H', "0009 6069 0464"),
    ('I', "0040 2029 0949"), ('J', "5056 ~56590907"), ('K', "0009 6006 2469"), ('L', "000959"), ('M', "0900356069"),
    ('N', "09006960"), ('O', "@00606909"), ('P', "0009 ~00606505"), ('Q', "@00606909 466a"), ('R', "0009 ~00606505 3569"),
    ('S', "~6150000465691908"), ('T', "0060 3039"), ('U', "0005 ~05096965 6560"), ('V', "003960"), ('W', "0019335960"),
    ('X', "0069 6009"), ('Y', "003460 3439"), ('Z', "00600969"),
    ('a', "@03434909 4349"), ('b', "0009 @03535909"), ('c', "~544303094958"), ('d', "5059 @03535909"),
    ('e', "0656 ~565303094958"), ('f', "~401014 1419 0343"), ('g', "@03535909 535a ~5a5c1c0b"), ('h', "0009 ~05035356 5659"),
    ('i', "0309 0001"), ('j', "232a ~2a2c0c 2021"), ('k', "0009 4307 2549"), ('l', "0007 ~070929"),
    ('m', "0309 ~05033336 3639 ~35336366 6669"), ('n', "0309 ~05035356 5659"), ('o', "@03535909"), ('p', "030c @03535909"),
    ('q', "535c @03535909"), ('r', "0309 ~06034344"), ('s', "~4433030646491908"), ('t', "2127 ~272949 0343"),
    ('u', "0306 ~06095956 5359"), ('v', "032943"), ('w', "0319345963"), ('x', "0349 4309"), ('y', "0329 431c"), ('z', "03430949"),
    ('0', "@00505909"), ('1', "123039 1959"), ('2', "~0200505409 0959"), ('3', "~0110505424 ~2454591908"), ('4', "49400666"),
    ('5', "501004 ~0453591908"), ('6', "~500006 @04545909"), ('7', "005029"), ('8', "@00505404 @04545909"),
    ('9', "@00505505 ~535909"),
    ('.', "0809"), (',', "180b"), ('!', "0006 0809"), ('?', "~020040432526 2829"), ('-', "0545"), ('+', "0646 2428"),
    ('=', "0444 0747"), ('%', "6009 @00202202 @47676949"), (':', "0405 0809"), ('/', "4009"), ('\'', "0002"),
    ('(', "~200239"), (')', "~002209"),
];
