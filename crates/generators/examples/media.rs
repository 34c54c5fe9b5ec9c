//! Writes a few pictures and clips of our own to try a model with: `cargo run -p generators --example media -- examples/media`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use generators::{Generator, Part, Split, pictures, sounds};

const DIGITS: [&str; 11] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: media FOLDER")?;
    let folder = Path::new(&folder);
    fs::create_dir_all(folder)?;
    let side = pictures::Options { side: 224, ..Default::default() };
    let tasks: Vec<_> = pictures::with(side, None).into_iter().chain(sounds::all()).collect();
    let find = |task: &str| tasks.iter().find(|other| other.name() == task).with_context(|| format!("no task {task}"));
    write(folder, "shapes", find("describe")?.as_ref(), |answer| answer.matches(',').count() == 2)?;
    write(folder, "line", find("printed")?.as_ref(), |answer| answer.split(' ').count() == 3)?;
    write(folder, "chart", find("bars")?.as_ref(), |answer| answer == "D")?;
    write(folder, "digits", find("transcribe")?.as_ref(), |answer| {
        answer.split(' ').count() == 3 && answer.split(' ').all(|word| DIGITS.contains(&word))
    })?;
    write(folder, "bell", find("sound_event")?.as_ref(), |answer| answer == "bell")
}

/// The first sample of `task` whose answer is `wanted`.
fn write(folder: &Path, name: &str, task: &dyn Generator, wanted: impl Fn(&str) -> bool) -> Result<()> {
    for index in 0..20_000 {
        let sample = task.at(Split::HeldOut, index);
        let [Part::Text(answer)] = &sample.turns[1].content[..] else { continue };
        if !wanted(answer) {
            continue;
        }
        for part in &sample.turns[0].content {
            match part {
                Part::Image(image) => {
                    let rgb = image::RgbImage::from_raw(image.width as u32, image.height as u32, image.rgb.clone());
                    rgb.context("a picture has as many bytes as it says")?.save(folder.join(format!("{name}.png")))?;
                }
                Part::Sound(sound) => fs::write(folder.join(format!("{name}.wav")), sound.to_wav())?,
                Part::Text(question) => println!("{name}: {question} → {answer}"),
            }
        }
        return Ok(());
    }
    anyhow::bail!("no sample of {name} is as wanted")
}
