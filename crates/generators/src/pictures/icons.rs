//! Pictures of things from a folder: "what is this?"

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{ImageReader, Limits, RgbaImage, imageops};
use rand::RngExt;
use tiny_skia::Transform;

use super::Options;
use super::canvas::{Canvas, background_for};
use crate::asked;
use crate::choose::one_of;
use crate::{Draw, Generator, Part, Sample, Split};

/// Pictures are kept this wide and high.
const SIDE: u32 = 128;
/// Most pixels of a file on one side, and most bytes that decoding may take.
const LARGEST_SIDE: u32 = 4096;
const LARGEST_BYTES: u64 = 128 << 20;

/// Pictures with names.
pub struct Icons {
    pictures: Vec<(String, RgbaImage)>,
}

impl Icons {
    /// Every PNG in `folder` and the folders in it; what a file shows is its name without ending, with spaces for `_` and
    /// `-`. Files that cannot be decoded are passed over.
    ///
    /// # Errors
    /// What reading `folder` says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        list(folder, &mut files)?;
        files.sort();
        Ok(Self { pictures: files.iter().filter_map(|file| Some((name(file)?, decode(file)?))).collect() })
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }
}

/// The task. There must be pictures.
pub(super) struct NameIt {
    options: Arc<Options>,
    /// Names and pictures for training, and those held out: of each thing with several pictures, the last.
    pictures: [Vec<(String, RgbaImage)>; 2],
}

impl NameIt {
    /// The task, if there are any pictures.
    pub(super) fn new(options: Arc<Options>, icons: Icons) -> Option<Self> {
        let mut last = BTreeMap::new();
        for (i, (name, _)) in icons.pictures.iter().enumerate() {
            let (n, at) = last.entry(name.clone()).or_insert((0, 0));
            (*n, *at) = (*n + 1, i);
        }
        let is_last = |i: usize, name: &str| last.get(name).is_some_and(|(n, at)| *n > 1 && *at == i);
        let [mut train, mut held_out] = [Vec::new(), Vec::new()];
        for (i, (name, picture)) in icons.pictures.into_iter().enumerate() {
            let list = if is_last(i, &name) { &mut held_out } else { &mut train };
            list.push((name, picture));
        }
        (!train.is_empty()).then_some(Self { options, pictures: [train, held_out] })
    }
}

impl Generator for NameIt {
    fn name(&self) -> &'static str {
        "icons"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let [train, held_out] = &self.pictures;
        // Where every thing has one picture, the same are seen in other places and sizes.
        let pictures = if split == Split::HeldOut && !held_out.is_empty() { held_out } else { train };
        let (name, picture) = one_of(draw, pictures);
        let side = self.options.side as f32;
        let mean = mean_colour(picture);
        let mut canvas = Canvas::new(self.options.side, background_for(draw, &[mean], 200.0));
        let scale = draw.random_range(0.55..0.95);
        let spare = (1.0 - scale) / 2.0 * side;
        let turn = draw.random_range(-12.0..12.0);
        let scale = scale * side / SIDE as f32;
        let half = SIDE as f32 / 2.0;
        let place = Transform::from_translate(-half, -half).post_rotate(turn).post_scale(scale, scale).post_translate(
            side / 2.0 + draw.random_range(-spare..=spare),
            side / 2.0 + draw.random_range(-spare..=spare),
        );
        canvas.overlay(picture, SIDE as usize, place);
        let image = canvas.into_image(draw);
        let question = one_of(
            draw,
            &["What is this?", "What do you see?", "What does the picture show?", "Name what is in the picture."],
        );
        asked::sample(draw, self.name(), vec![Part::Image(image)], *question, name.clone())
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    /// Names that several files share are as likely as they are many.
    fn chance(&self) -> f64 {
        let names: Vec<_> = self.pictures[0].iter().map(|(name, _)| name).collect();
        let most = names.iter().map(|name| names.iter().filter(|other| other == &name).count()).max().unwrap_or(0);
        most as f64 / names.len() as f64
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            list(&path, files)?;
        } else if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("png")) {
            files.push(path);
        }
    }
    Ok(())
}

fn name(file: &Path) -> Option<String> {
    let stem = file.file_stem()?.to_string_lossy().to_lowercase();
    let words: Vec<_> = stem.split(['_', '-', ' ']).filter(|word| !word.is_empty()).collect();
    Some(words.join(" ")).filter(|name| !name.is_empty())
}

/// Shrunk into a square, the longer side filling it.
fn decode(file: &Path) -> Option<RgbaImage> {
    let mut reader = ImageReader::with_format(BufReader::new(File::open(file).ok()?), image::ImageFormat::Png);
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_BYTES);
    reader.limits(limits);
    let picture = reader.decode().ok()?.resize(SIDE, SIDE, imageops::FilterType::Triangle).into_rgba8();
    let mut square = RgbaImage::new(SIDE, SIDE);
    let (left, top) = ((SIDE - picture.width()) / 2, (SIDE - picture.height()) / 2);
    imageops::replace(&mut square, &picture, i64::from(left), i64::from(top));
    Some(square)
}

/// Of the pixels that are not transparent.
fn mean_colour(picture: &RgbaImage) -> [u8; 3] {
    let mut sums = [0u64; 4];
    for pixel in picture.pixels() {
        let [red, green, blue, alpha] = pixel.0.map(u64::from);
        for (sum, channel) in sums.iter_mut().zip([red * alpha, green * alpha, blue * alpha, alpha]) {
            *sum += channel;
        }
    }
    [0, 1, 2].map(|i| (sums[i] / sums[3].max(1)) as u8)
}
