//! Draws samples of every task with pictures into one contact sheet, writes clips of every task with sounds beside it, and
//! prints what was asked and how fast samples are made: `cargo run -p generators --example sheet -- OUT.png [FONTS [ICONS]]`.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use generators::pictures::{self, Fonts, Icons, Options};
use generators::{Generator, Image, Part, Sample, Sound, Split, sounds, speech};

/// Samples of a task in a row of the sheet.
const COLUMNS: usize = 9;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().context("usage: sheet OUT.png [FONTS [ICONS]]")?;
    let mut options = Options::default();
    if let Some(folder) = arguments.next() {
        options.fonts = Fonts::open(Path::new(&folder))?;
        println!("{:?} outline fonts to train with and held out", options.fonts.count());
    }
    let icons = arguments.next().map(|folder| Icons::open(Path::new(&folder))).transpose()?;
    let tasks = pictures::with(options, icons);
    let side = 112;
    let mut sheet = image::RgbImage::new((COLUMNS * side) as u32, (2 * tasks.len() * side) as u32);
    for (row, (task, split)) in tasks.iter().flat_map(|task| [(task, Split::Train), (task, Split::HeldOut)]).enumerate()
    {
        for column in 0..COLUMNS {
            let sample = task.at(split, column as u64);
            if let Some(picture) = picture(&sample) {
                paste(&mut sheet, picture, (column * side, row * side));
            }
            println!("{} {split:?} {column}: {} → {}", task.name(), text(&sample, 0), text(&sample, 1));
        }
        println!("{}: {:.0} samples a second\n", task.name(), rate(task.as_ref(), split));
    }
    sheet.save(&out)?;
    let folder = Path::new(&out).with_extension("");
    fs::create_dir_all(&folder)?;
    if let Err(why) = speech::Flite::find() {
        println!("no speech: {why}");
    }
    for task in sounds::all().iter().chain(&speech::all()) {
        for (split, index) in
            [(Split::Train, 0), (Split::Train, 1), (Split::Train, 2), (Split::HeldOut, 0), (Split::HeldOut, 1)]
        {
            let sample = task.at(split, index);
            let name = format!("{}-{split:?}-{index}.wav", task.name()).to_lowercase();
            if let Some(clip) = clip(&sample) {
                fs::write(folder.join(&name), clip.to_wav())?;
            }
            println!("{name}: {} → {}", text(&sample, 0), text(&sample, 1));
        }
        println!("{}: {:.0} samples a second\n", task.name(), rate(task.as_ref(), Split::Train));
    }
    Ok(())
}

fn rate(task: &dyn Generator, split: Split) -> f64 {
    let begin = Instant::now();
    let n = 100;
    for index in 0..n {
        std::hint::black_box(task.at(split, index));
    }
    n as f64 / begin.elapsed().as_secs_f64()
}

fn picture(sample: &Sample) -> Option<&Image> {
    sample.turns[0].content.iter().find_map(|part| if let Part::Image(image) = part { Some(image) } else { None })
}

fn clip(sample: &Sample) -> Option<&Sound> {
    sample.turns[0].content.iter().find_map(|part| if let Part::Sound(sound) = part { Some(sound) } else { None })
}

fn text(sample: &Sample, turn: usize) -> &str {
    let texts = sample.turns[turn].content.iter();
    texts.filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None }).next().unwrap_or("")
}

fn paste(sheet: &mut image::RgbImage, picture: &Image, (left, top): (usize, usize)) {
    for y in 0..picture.height {
        for x in 0..picture.width {
            let at = 3 * (y * picture.width + x);
            let rgb = [picture.rgb[at], picture.rgb[at + 1], picture.rgb[at + 2]];
            sheet.put_pixel((left + x) as u32, (top + y) as u32, image::Rgb(rgb));
        }
    }
}
