//! Clock faces.

use std::sync::Arc;

use rand::RngExt;

use super::Options;
use super::canvas::{Canvas, background_for, contrast, jittered};
use super::scene::COLOURS;
use crate::asked;
use crate::choose::one_of;
use crate::{Draw, Generator, Image, Part, Sample, Split};

/// The task.
pub(super) struct Clock(pub(super) Arc<Options>);

impl Generator for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let (hour, minute) = (draw.random_range(1..=12), draw.random_range(0..12) * 5);
        let image = self.image(split, (hour, minute), draw);
        let question = one_of(
            draw,
            &[
                "What time is it?",
                "Which time does the clock show?",
                "What time does the clock say?",
                "Read the clock.",
            ],
        );
        asked::sample(draw, self.name(), vec![Part::Image(image)], *question, format!("{hour}:{minute:02}"))
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        1.0 / 144.0
    }
}

impl Clock {
    fn image(&self, split: Split, (hour, minute): (u32, u32), draw: &mut Draw) -> Image {
        let side = self.0.side as f32;
        let paper = background_for(draw, &[], 0.0);
        let mut canvas = Canvas::new(self.0.side, paper);
        let radius = side * draw.random_range(0.38..0.47);
        let spare = (side / 2.0 - radius) * 0.9;
        let centre = (side / 2.0 + draw.random_range(-spare..=spare), side / 2.0 + draw.random_range(-spare..=spare));
        let ink = [draw.random_range(0..256u32) as u8; 3];
        let dial = background_for(draw, &[ink], 380.0);
        let rim = if contrast(ink, paper) > 150.0 { ink } else { dial };
        canvas.disc(centre, radius, rim);
        canvas.disc(centre, radius * draw.random_range(0.92..0.97), dial);
        let at = |twelfths: f32, reach: f32| {
            let (sin, cos) = (twelfths / 12.0 * std::f32::consts::TAU).sin_cos();
            (centre.0 + sin * radius * reach, centre.1 - cos * radius * reach)
        };
        let face = draw.random_bool(0.7).then(|| self.0.fonts.choose(split, draw));
        let step = if draw.random_bool(0.6) { 1 } else { 3 };
        for mark in 1..=12u32 {
            let number = face.as_ref().filter(|_| mark % step == 0).and_then(|face| face.line(&mark.to_string(), draw));
            match number {
                Some(path) => canvas.text(&path, at(mark as f32, 0.78), radius * 0.17, ink),
                None => canvas.lines(&[at(mark as f32, 0.84), at(mark as f32, 0.9)], radius * 0.035, ink),
            }
        }
        let hand = one_of(draw, &COLOURS).1;
        let hand = if contrast(hand, dial) > 260.0 && draw.random_bool(0.5) { jittered(draw, hand, 10) } else { ink };
        let width = radius * draw.random_range(0.06..0.09);
        canvas.lines(&[centre, at(hour as f32 + minute as f32 / 60.0, 0.42)], width * 1.6, hand);
        canvas.lines(&[centre, at(minute as f32 / 5.0, 0.72)], width * 0.8, hand);
        canvas.disc(centre, width, hand);
        canvas.into_image(draw)
    }
}
