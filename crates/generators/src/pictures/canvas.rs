//! Pixels to draw on, and what a camera adds.

use rand::RngExt;
use tiny_skia::{FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, Transform};

use crate::{Draw, Image};

/// Red, green, blue.
pub(crate) type Rgb = [u8; 3];

/// A picture in the making. Lengths are in pixels, `y` grows downwards.
pub(crate) struct Canvas {
    pixels: Pixmap,
}

impl Canvas {
    /// A square of one colour.
    pub(crate) fn new(side: usize, background: Rgb) -> Self {
        Self::of([side, side], background)
    }

    /// So wide and so high, of one colour.
    pub(crate) fn of(size: [usize; 2], background: Rgb) -> Self {
        let [width, height] = size.map(|length| u32::try_from(length).unwrap_or(0).clamp(1, 4096));
        let mut pixels = Pixmap::new(width, height).expect("sides of 1 to 4096 pixels can be allocated");
        pixels.fill(tiny_skia::Color::from_rgba8(background[0], background[1], background[2], 255));
        Self { pixels }
    }

    /// Fills `path`, placed by `place`.
    pub(crate) fn fill(&mut self, path: &Path, place: Transform, colour: Rgb) {
        self.pixels.fill_path(path, &paint(colour), FillRule::Winding, place, None);
    }

    /// Draws a line with round ends along `path`.
    pub(crate) fn stroke(&mut self, path: &Path, width: f32, colour: Rgb) {
        self.pixels.stroke_path(path, &paint(colour), &round(width), Transform::identity(), None);
    }

    /// Draws lines from point to point.
    pub(crate) fn lines(&mut self, points: &[(f32, f32)], width: f32, colour: Rgb) {
        let mut builder = PathBuilder::new();
        for (i, &(x, y)) in points.iter().enumerate() {
            if i == 0 { builder.move_to(x, y) } else { builder.line_to(x, y) }
        }
        if let Some(path) = builder.finish() {
            self.stroke(&path, width, colour);
        }
    }

    /// Fills a disc.
    pub(crate) fn disc(&mut self, centre: (f32, f32), radius: f32, colour: Rgb) {
        if let Some(path) = PathBuilder::from_circle(centre.0, centre.1, radius) {
            self.fill(&path, Transform::identity(), colour);
        }
    }

    /// Fills the rectangle between two corners.
    pub(crate) fn rectangle(&mut self, first: (f32, f32), last: (f32, f32), colour: Rgb) {
        if let Some(rect) = Rect::from_ltrb(first.0, first.1, last.0, last.1) {
            self.fill(&PathBuilder::from_rect(rect), Transform::identity(), colour);
        }
    }

    /// Scales `text`, drawn with capitals of height 1, to capitals of `height` with its middle at `centre`.
    pub(crate) fn text(&mut self, text: &Path, centre: (f32, f32), height: f32, colour: Rgb) {
        let bounds = text.bounds();
        let middle = (bounds.left() + bounds.right()) / 2.0;
        let place =
            Transform::from_scale(height, height).post_translate(centre.0 - middle * height, centre.1 + height / 2.0);
        self.fill(text, place, colour);
    }

    /// Lays a picture with transparency over the canvas: `rgba` is `[side · side · 4]`.
    pub(crate) fn overlay(&mut self, rgba: &[u8], side: usize, place: Transform) {
        let side = u32::try_from(side).unwrap_or(0);
        let Some(mut picture) = Pixmap::new(side, side) else { return };
        for (to, from) in picture.pixels_mut().iter_mut().zip(rgba.chunks_exact(4)) {
            *to = tiny_skia::ColorU8::from_rgba(from[0], from[1], from[2], from[3]).premultiply();
        }
        let paint = tiny_skia::PixmapPaint { quality: tiny_skia::FilterQuality::Bilinear, ..Default::default() };
        self.pixels.draw_pixmap(0, 0, picture.as_ref(), &paint, place, None);
    }

    /// The picture, a little brighter or darker and with noise, as a camera would have it.
    pub(crate) fn into_image(self, draw: &mut Draw) -> Image {
        let noise = if draw.random_bool(0.5) { draw.random_range(0..=8) } else { 0 };
        let brightness = draw.random_range(-8..=8);
        let mut rgb = Vec::with_capacity(3 * self.pixels.pixels().len());
        for pixel in self.pixels.pixels() {
            let grain = brightness + if noise > 0 { draw.random_range(-noise..=noise) } else { 0 };
            for channel in [pixel.red(), pixel.green(), pixel.blue()] {
                rgb.push((i32::from(channel) + grain).clamp(0, 255) as u8);
            }
        }
        Image { width: self.pixels.width() as usize, height: self.pixels.height() as usize, rgb }
    }
}

/// A pen of `width` with round ends and corners.
pub(crate) fn round(width: f32) -> Stroke {
    Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() }
}

/// How far apart two colours look, between 0 and about 650; from 120 on a letter can be read on the other.
///
/// The eye's weights of the channels, roughly, as in the common "redmean" formula.
pub(crate) fn contrast(a: Rgb, b: Rgb) -> f32 {
    let mean_red = (f32::from(a[0]) + f32::from(b[0])) / 2.0;
    let [red, green, blue] = [0, 1, 2].map(|i| (f32::from(a[i]) - f32::from(b[i])).powi(2));
    ((2.0 + mean_red / 256.0) * red + 4.0 * green + (2.0 + (255.0 - mean_red) / 256.0) * blue).sqrt()
}

/// `colour` with each channel moved by up to `by`.
pub(crate) fn jittered(draw: &mut Draw, colour: Rgb, by: i32) -> Rgb {
    colour.map(|channel| (i32::from(channel) + draw.random_range(-by..=by)).clamp(0, 255) as u8)
}

/// A background on which everything in `colours` can be seen: as contrasting as `least`, or the best of many draws.
pub(crate) fn background_for(draw: &mut Draw, colours: &[Rgb], least: f32) -> Rgb {
    let mut best = ([255; 3], -1.0);
    for _ in 0..60 {
        let level = draw.random_range(0..=255);
        let tint = draw.random_range(0..=24);
        let candidate = jittered(draw, [level; 3], tint);
        let seen = colours.iter().map(|&colour| contrast(colour, candidate)).fold(f32::INFINITY, f32::min);
        if seen >= least {
            return candidate;
        }
        if seen > best.1 {
            best = (candidate, seen);
        }
    }
    best.0
}

fn paint(colour: Rgb) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(colour[0], colour[1], colour[2], 255);
    paint.anti_alias = true;
    paint
}
