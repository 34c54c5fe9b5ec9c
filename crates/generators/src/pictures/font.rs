//! Typefaces: our own pen, two families of bitmap letters, and the outlines of the fonts in a folder.

use std::fs;
use std::io;
use std::path::Path as FilePath;

use ab_glyph::{Font, FontVec, OutlineCurve};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle, ascii};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, Size};
use embedded_graphics::text::Text;
use font8x8::UnicodeFonts;
use rand::RngExt;
use tiny_skia::{Path, PathBuilder, Rect, Transform};

use super::pen::Hand;
use crate::choose::one_of;
use crate::{Draw, Split};

/// A font file may not be larger.
const LARGEST_FONT_BYTES: u64 = 32 << 20;

/// Files whose letters are no letters.
const NO_LETTERS: [&str; 8] = ["symbol", "dingbat", "emoji", "icon", "music", "barcode", "math", "awesome"];

/// The typefaces for either split.
#[derive(Default)]
pub struct Fonts {
    train: Vec<(String, FontVec)>,
    held_out: Vec<(String, FontVec)>,
}

impl Fonts {
    /// Those that Puna has itself, and every readable TrueType or OpenType font in `folder` and the folders in it.
    ///
    /// A family (the file's name up to a hyphen) goes whole to one split, one in eight to [`Split::HeldOut`]. Files
    /// without Latin letters and digits are passed over.
    ///
    /// # Errors
    /// What reading `folder` says.
    pub fn open(folder: &FilePath) -> io::Result<Self> {
        let mut fonts = Self::default();
        let mut files = Vec::new();
        list(folder, &mut files)?;
        files.sort();
        for file in files {
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
            if NO_LETTERS.iter().any(|word| stem.contains(word)) || fs::metadata(&file)?.len() > LARGEST_FONT_BYTES {
                continue;
            }
            let Ok(font) = FontVec::try_from_vec(fs::read(&file)?) else { continue };
            if !('!'..='~')
                .filter(char::is_ascii_alphanumeric)
                .all(|letter| font.outline(font.glyph_id(letter)).is_some())
            {
                continue;
            }
            let family = stem.split('-').next().unwrap_or_default();
            let of_split = if is_held_out(family) { &mut fonts.held_out } else { &mut fonts.train };
            of_split.push((stem, font));
        }
        Ok(fonts)
    }

    /// How many outline fonts there are to train with and how many are held out.
    pub fn count(&self) -> (usize, usize) {
        (self.train.len(), self.held_out.len())
    }

    /// What the typefaces of `split` are called.
    pub fn names(&self, split: Split) -> Vec<String> {
        let (outlines, bitmaps, others) = match split {
            Split::Train => (&self.train, &TRAIN[..], &["pen"][..]),
            Split::HeldOut => (&self.held_out, &HELD_OUT[..], &["pen leaning backwards", "8x8"][..]),
        };
        let bitmaps = bitmaps.iter().map(|font| format!("{:?} {}", font.character_size, font.baseline));
        outlines
            .iter()
            .map(|(name, _)| name.clone())
            .chain(bitmaps)
            .chain(others.iter().map(|name| (*name).to_owned()))
            .collect()
    }

    /// A typeface for `split`. The splits have none in common.
    pub(crate) fn choose(&self, split: Split, draw: &mut Draw) -> Face<'_> {
        let (outlines, bitmaps) = match split {
            Split::Train => (&self.train, &TRAIN[..]),
            Split::HeldOut => (&self.held_out, &HELD_OUT[..]),
        };
        let kind = draw.random_range(0..if outlines.is_empty() { 4 } else { 10 });
        match kind {
            0 | 1 => Face::Pen(Hand::of(split, draw)),
            2 if split == Split::HeldOut => Face::Eight,
            2 | 3 => {
                let font = *one_of(draw, bitmaps);
                Face::Bitmap(font)
            }
            _ => Face::Outline(&one_of(draw, outlines).1),
        }
    }
}

/// One typeface.
pub(crate) enum Face<'a> {
    Pen(Hand),
    Bitmap(&'static MonoFont<'static>),
    /// IBM's 8 by 8.
    Eight,
    Outline(&'a FontVec),
}

impl Face<'_> {
    /// The outline of `text`: baseline at 0, capitals of height 1, `y` downwards. `None` if nothing of it can be drawn.
    pub(crate) fn line(&self, text: &str, draw: &mut Draw) -> Option<Path> {
        match self {
            Self::Pen(hand) => hand.line(text, draw),
            Self::Bitmap(font) => bitmap_line(font, text),
            Self::Eight => eight_line(text),
            Self::Outline(font) => outline_line(font, text),
        }
    }
}

static TRAIN: [&MonoFont; 10] = [
    &ascii::FONT_6X10,
    &ascii::FONT_6X12,
    &ascii::FONT_6X13,
    &ascii::FONT_6X13_BOLD,
    &ascii::FONT_6X13_ITALIC,
    &ascii::FONT_7X13,
    &ascii::FONT_7X13_BOLD,
    &ascii::FONT_8X13,
    &ascii::FONT_8X13_BOLD,
    &ascii::FONT_9X15,
];

static HELD_OUT: [&MonoFont; 2] = [&ascii::FONT_9X18_BOLD, &ascii::FONT_10X20];

fn is_held_out(family: &str) -> bool {
    family.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) >> 5 & 7 == 0
}

fn list(folder: &FilePath, files: &mut Vec<std::path::PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            list(&path, files)?;
        } else if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("ttf") || end.eq_ignore_ascii_case("otf"))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// Pixels that are lit.
struct Lit(Vec<Point>);

impl OriginDimensions for Lit {
    fn size(&self) -> Size {
        Size::new(4096, 64)
    }
}

impl DrawTarget for Lit {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        self.0.extend(pixels.into_iter().filter(|pixel| pixel.1.is_on()).map(|pixel| pixel.0));
        Ok(())
    }
}

fn bitmap_line(font: &'static MonoFont<'static>, text: &str) -> Option<Path> {
    let lit = |text: &str| {
        let mut lit = Lit(Vec::new());
        let Ok(_) = Text::new(text, Point::zero(), MonoTextStyle::new(font, BinaryColor::On)).draw(&mut lit);
        lit.0
    };
    let capital = lit("H");
    let (top, bottom) = (capital.iter().map(|p| p.y).min()?, capital.iter().map(|p| p.y).max()?);
    squares(&lit(text), bottom + 1, bottom + 1 - top)
}

fn eight_line(text: &str) -> Option<Path> {
    let mut lit = Vec::new();
    for (letter, left) in text.chars().zip((0..).step_by(8)) {
        for (row, y) in font8x8::BASIC_FONTS.get(letter)?.into_iter().zip(0..) {
            lit.extend((0..8).filter(|bit| row >> bit & 1 == 1).map(|bit| Point::new(left + bit, y)));
        }
    }
    squares(&lit, 7, 7)
}

/// One square a pixel; `baseline` is the row below capitals, `capital` their rows.
fn squares(lit: &[Point], baseline: i32, capital: i32) -> Option<Path> {
    let mut path = PathBuilder::new();
    for point in lit {
        path.push_rect(Rect::from_xywh(point.x as f32, (point.y - baseline) as f32, 1.0, 1.0)?);
    }
    path.finish()?.transform(Transform::from_scale(1.0 / capital as f32, 1.0 / capital as f32))
}

fn outline_line(font: &FontVec, text: &str) -> Option<Path> {
    let mut path = PathBuilder::new();
    let mut left = 0.0;
    let mut previous = None;
    for letter in text.chars() {
        let id = font.glyph_id(letter);
        left += previous.map_or(0.0, |previous| font.kern_unscaled(previous, id));
        if let Some(outline) = font.outline(id) {
            push(&mut path, &outline.curves, left);
        }
        left += font.h_advance_unscaled(id);
        previous = Some(id);
    }
    let capital = font.outline(font.glyph_id('H'))?.bounds;
    let scale = 1.0 / (capital.max.y - capital.min.y).abs().max(1.0);
    path.finish()?.transform(Transform::from_scale(scale, -scale))
}

fn push(path: &mut PathBuilder, curves: &[OutlineCurve], left: f32) {
    let mut at: Option<ab_glyph::Point> = None;
    for curve in curves {
        let (OutlineCurve::Line(from, to) | OutlineCurve::Quad(from, _, to) | OutlineCurve::Cubic(from, _, _, to)) =
            curve;
        if at != Some(*from) {
            path.close();
            path.move_to(from.x + left, from.y);
        }
        match curve {
            OutlineCurve::Line(..) => path.line_to(to.x + left, to.y),
            OutlineCurve::Quad(_, by, _) => path.quad_to(by.x + left, by.y, to.x + left, to.y),
            OutlineCurve::Cubic(_, a, b, _) => path.cubic_to(a.x + left, a.y, b.x + left, b.y, to.x + left, to.y),
        }
        at = Some(*to);
    }
    path.close();
}
