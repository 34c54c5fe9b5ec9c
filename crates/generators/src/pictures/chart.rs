//! What bar and line charts share: a frame with a scale from 0 to 10, names below it, inks.

use rand::RngExt;
use tiny_skia::Path;

use super::Options;
use super::canvas::{Canvas, Rgb, background_for, contrast, jittered};
use super::font::Face;
use super::scene::COLOURS;
use crate::choose::one_of;
use crate::{Draw, Split};

/// Highest value of the scale.
pub(super) const TOP: u32 = 10;

/// A frame that is drawn and the places in it.
pub(super) struct Frame<'a> {
    pub(super) canvas: Canvas,
    pub(super) ink: Rgb,
    pub(super) background: Rgb,
    face: Face<'a>,
    side: f32,
    n: usize,
}

impl<'a> Frame<'a> {
    /// Axes, a scale in twos with lines across, and `names` below.
    pub(super) fn new(options: &'a Options, split: Split, names: &[String], draw: &mut Draw) -> Self {
        let ink = if draw.random_bool(0.8) { [draw.random_range(0..40); 3] } else { [draw.random_range(225..=255); 3] };
        let background = background_for(draw, &[ink], 480.0);
        let face = options.fonts.choose(split, draw);
        let canvas = Canvas::new(options.side, background);
        let mut frame = Self { canvas, ink, background, face, side: options.side as f32, n: names.len() };
        let grid = [0, 1, 2].map(|i| ((u32::from(background[i]) * 3 + u32::from(ink[i])) / 4) as u8);
        for value in (0..=TOP).step_by(2) {
            let y = frame.y(value as f32);
            let (left, right) = (frame.x(-0.5), frame.x(frame.n as f32 - 0.5));
            frame.canvas.lines(&[(left, y), (right, y)], frame.side * 0.006, grid);
            frame.write(&value.to_string(), (left - frame.side * 0.07, y), draw);
        }
        let corner = (frame.x(-0.5), frame.y(0.0));
        let ends = [(corner.0, frame.y(TOP as f32)), corner, (frame.x(frame.n as f32 - 0.5), corner.1)];
        frame.canvas.lines(&ends, frame.side * 0.012, ink);
        for (i, name) in names.iter().enumerate() {
            let at = (frame.x(i as f32), frame.side * 0.93);
            frame.write(name, at, draw);
        }
        frame
    }

    /// The middle of place `index`.
    pub(super) fn x(&self, index: f32) -> f32 {
        self.side * (0.16 + 0.8 * (index + 0.5) / self.n as f32)
    }

    /// The height of `value`.
    pub(super) fn y(&self, value: f32) -> f32 {
        self.side * (0.86 - 0.8 * value / TOP as f32)
    }

    /// Width of a place.
    pub(super) fn step(&self) -> f32 {
        self.side * 0.8 / self.n as f32
    }

    /// A colour to draw data in.
    pub(super) fn colour(&self, draw: &mut Draw) -> Rgb {
        let seen: Vec<_> =
            COLOURS.iter().map(|colour| colour.1).filter(|colour| contrast(*colour, self.background) > 200.0).collect();
        let colour = *one_of(draw, &seen);
        jittered(draw, colour, 12)
    }

    fn write(&mut self, text: &str, at: (f32, f32), draw: &mut Draw) {
        let path: Option<Path> = self.face.line(text, draw);
        if let Some(path) = path {
            self.canvas.text(&path, at, self.side * 0.072, self.ink);
        }
    }
}
