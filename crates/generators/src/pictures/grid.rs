//! Letters or coloured shapes in rows and columns, to be read off one by one. No picture of its size says more, so who learns
//! to see learns it here first.

use std::sync::Arc;

use rand::RngExt;

use super::Options;
use super::canvas::{Canvas, background_for, jittered};
use super::letter::LETTERS;
use super::printed;
use super::scene::{self, COLOURS, SHAPES, index_of};
use crate::asked::{self, words_of};
use crate::choose::one_of;
use crate::{Draw, Generator, Part, Sample, Split};

/// Columns, and as many rows.
const COLUMNS: [usize; 3] = [2, 3, 4];

/// "Read the letters, row by row."
pub(super) struct GridOfLetters(pub(super) Arc<Options>);

/// "Name the shapes, row by row."
pub(super) struct GridOfShapes(pub(super) Arc<Options>);

/// The middle of each cell of a grid with `n` columns, row by row, moved by up to `stray` of a cell's side.
fn cells(side: usize, n: usize, stray: f32, draw: &mut Draw) -> Vec<(f32, f32)> {
    let cell = side as f32 / n as f32;
    let mut at = |index: usize| (index as f32 + 0.5 + draw.random_range(-stray..=stray)) * cell;
    (0..n * n).map(|i| (at(i % n), at(i / n))).collect()
}

/// What is in the cells, a line for each row.
fn lines(names: &[String], n: usize) -> String {
    names.chunks(n).map(|row| row.join(" ")).collect::<Vec<_>>().join("\n")
}

impl Generator for GridOfLetters {
    fn name(&self) -> &'static str {
        "grid_of_letters"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let side = self.0.side;
        let (mut canvas, ink) = printed::blank([side; 2], draw);
        let (n, face) = (*one_of(draw, &COLUMNS), self.0.fonts.choose(split, draw));
        let height = side as f32 / n as f32 * draw.random_range(0.4..0.7);
        let mut letters = Vec::new();
        for cell in cells(side, n, 0.08, draw) {
            let letter = char::from(*one_of(draw, LETTERS)).to_string();
            if let Some(path) = face.line(&letter, draw) {
                canvas.text(&path, cell, height, ink);
            }
            letters.push(letter);
        }
        let image = canvas.into_image(draw);
        let question = one_of(draw, &["Read the letters, row by row.", "Which letters are there, row by row?"]);
        asked::sample(draw, self.name(), vec![Part::Image(image)], *question, lines(&letters, n))
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_read(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}

impl Generator for GridOfShapes {
    fn name(&self) -> &'static str {
        "grid_of_shapes"
    }

    fn sample(&self, _split: Split, draw: &mut Draw) -> Sample {
        let (side, n) = (self.0.side, *one_of(draw, &COLUMNS));
        let things: Vec<[usize; 2]> = (0..n * n).map(|_| [index_of(draw, &SHAPES), index_of(draw, &COLOURS)]).collect();
        let paints: Vec<_> = things.iter().map(|[_, colour]| jittered(draw, COLOURS[*colour].1, 9)).collect();
        let mut canvas = Canvas::new(side, background_for(draw, &paints, 170.0));
        for ((cell, [shape, _]), paint) in cells(side, n, 0.05, draw).into_iter().zip(&things).zip(&paints) {
            let radius = side as f32 / n as f32 * draw.random_range(0.28..0.44);
            scene::paint(&mut canvas, *shape, (cell, radius), *paint, draw);
        }
        let image = canvas.into_image(draw);
        let (asked, what) = *one_of(draw, &[("shapes", 0), ("colours", 1), ("colours and shapes", 2)]);
        let named = |[shape, colour]: &[usize; 2]| match what {
            0 => SHAPES[*shape].1.to_owned(),
            1 => COLOURS[*colour].0.to_owned(),
            _ => format!("{} {}", COLOURS[*colour].0, SHAPES[*shape].1),
        };
        let question = asked::worded(draw, &["Name the *, row by row.", "Which * are there, row by row?"], asked);
        let names: Vec<String> = things.iter().map(named).collect();
        asked::sample(draw, self.name(), vec![Part::Image(image)], question, lines(&names, n))
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        words_of(asked::expected(sample)) == words_of(answer)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}
