//! Images and clips of training data as files to look at and listen to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use engine::Limits;
use engine::media::audio::{Clip, RATE_HZ};
use train::data::{Kind, Medium, clip, image};

/// Writes a medium as the model gets it, an image as PNG and a clip as WAV, under `stem` with the ending that goes with it.
pub fn write(medium: &Medium, folder: &Path, stem: &str) -> Result<PathBuf> {
    let limits = Limits::default();
    match medium.kind {
        Kind::Audio(_) => {
            let path = folder.join(format!("{stem}.wav"));
            let clip = clip(medium, &limits).map_err(anyhow::Error::msg)?;
            fs::write(&path, wav(&clip)).with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        }
        Kind::Image | Kind::ImageInOneTile => {
            let path = folder.join(format!("{stem}.png"));
            let picture = image(medium, &limits).map_err(anyhow::Error::msg)?;
            let (width, height) = (picture.size().width(), picture.size().height());
            let saved = ::image::save_buffer(&path, picture.pixels(), width, height, ::image::ColorType::Rgb8);
            saved.with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        }
    }
}

/// A WAV file of 16 bits a sample.
fn wav(clip: &Clip) -> Vec<u8> {
    let samples = clip.samples().iter().map(|sample| (sample * 32768.0).clamp(-32768.0, 32767.0) as i16);
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut file = Vec::with_capacity(data.len() + 44);
    file.extend(b"RIFF");
    file.extend((len.saturating_add(36)).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    // Integers, one channel.
    file.extend([1, 0, 1, 0]);
    file.extend(RATE_HZ.to_le_bytes());
    file.extend((RATE_HZ * 2).to_le_bytes());
    file.extend([2, 0, 16, 0]);
    file.extend(b"data");
    file.extend(len.to_le_bytes());
    file.extend(data);
    file
}
