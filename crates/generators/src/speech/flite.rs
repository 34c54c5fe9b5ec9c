//! A speech synthesiser that is installed: `flite`, run as a program, its clips read back.

use std::io::Read;
use std::process::{Command, Stdio};

use rand::RngExt;

use crate::choose::one_of;
use crate::{Draw, Split};

/// Voices to train with that sound well; one that is missing is left out.
const TRAIN: [&str; 3] = ["kal16", "awb", "rms"];
/// Nobody in training has this voice.
const HELD_OUT: [&str; 1] = ["slt"];
/// A clip may not be longer.
const MOST_BYTES: u64 = 4 << 20;

/// The program and the voices it has.
#[derive(Debug, Clone)]
pub struct Flite {
    train: Vec<&'static str>,
    held_out: Vec<&'static str>,
}

/// Why nothing can be spoken.
#[derive(Debug, thiserror::Error)]
pub enum Absent {
    /// The program does not run.
    #[error("flite cannot be run: {0}; install it, as with `apt-get install flite`")]
    Program(#[from] std::io::Error),
    /// There is no voice for one of the splits.
    #[error("flite lacks voices: it has `{0}`; wanted are one of kal16, awb, rms, and slt")]
    Voices(String),
}

/// How a text is said.
#[derive(Debug, Clone, PartialEq)]
pub struct Manner {
    /// flite's name of the voice.
    pub voice: &'static str,
    /// Factor on all durations.
    pub slowness: f32,
    /// Factor on pitch and formants alike, by playing faster or slower.
    pub shift: f32,
}

impl Flite {
    /// Asks the program for its voices.
    ///
    /// # Errors
    /// [`Absent`] if it is not installed or lacks the voices.
    pub fn find() -> Result<Self, Absent> {
        let output = Command::new("flite").arg("-lv").stdin(Stdio::null()).output()?;
        let listed = String::from_utf8_lossy(&output.stdout);
        let present = |voices: &[&'static str]| -> Vec<&'static str> {
            voices.iter().copied().filter(|voice| listed.split_whitespace().any(|word| word == *voice)).collect()
        };
        let (train, held_out) = (present(&TRAIN), present(&HELD_OUT));
        if train.is_empty() || held_out.is_empty() {
            return Err(Absent::Voices(listed.trim().to_owned()));
        }
        Ok(Self { train, held_out })
    }

    /// A voice of `split` and how it speaks. Voices of training are shifted, which makes more speakers of them.
    pub fn manner(&self, split: Split, draw: &mut Draw) -> Manner {
        let voices = match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        };
        let spread = match split {
            Split::Train => 0.86..1.25,
            Split::HeldOut => 0.97..1.03,
        };
        let voice = *one_of(draw, voices);
        Manner { voice, slowness: draw.random_range(0.85..1.2), shift: draw.random_range(spread) }
    }

    /// Says `text`: samples at 16 kHz.
    ///
    /// # Errors
    /// What running the program says; [`std::io::ErrorKind::InvalidData`] if it fails or writes no clip.
    pub fn say(&self, text: &str, manner: &Manner) -> std::io::Result<Vec<f32>> {
        let stretch = manner.slowness * manner.shift;
        // the text is one argument, never a shell's; behind `-t` it is not read as a flag
        let mut child = Command::new("flite")
            .args([
                "-voice",
                manner.voice,
                "--setf",
                &format!("duration_stretch={stretch}"),
                "-t",
                text,
                "-o",
                "/dev/stdout",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut bytes = Vec::new();
        let read = child.stdout.take().map(|pipe| pipe.take(MOST_BYTES).read_to_end(&mut bytes));
        let status = child.wait()?;
        read.transpose()?;
        let clip = wave(&bytes).filter(|_| status.success());
        let (rate_hz, clip) =
            clip.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "flite wrote no clip"))?;
        Ok(resampled(&clip, manner.shift * rate_hz as f32 / crate::sounds::RATE_HZ as f32))
    }
}

/// Rate and samples of a WAV file with 16 bits and one channel, whose header is 44 bytes as flite writes it.
fn wave(bytes: &[u8]) -> Option<(u32, Vec<f32>)> {
    let (header, data) = bytes.split_at_checked(44)?;
    let is_plain = header.starts_with(b"RIFF") && header[20..24] == [1, 0, 1, 0] && header[34..36] == [16, 0];
    let rate_hz = u32::from_le_bytes(header[24..28].try_into().ok()?);
    let samples: Vec<_> =
        data.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0).collect();
    (is_plain && !samples.is_empty() && (8_000..=48_000).contains(&rate_hz)).then_some((rate_hz, samples))
}

/// Every `step`-th sample, with a cubic through four neighbours between them (Catmull and Rom).
fn resampled(clip: &[f32], step: f32) -> Vec<f32> {
    let n = (clip.len() as f64 / f64::from(step)) as usize;
    let at = |i: isize| clip[i.clamp(0, clip.len() as isize - 1) as usize];
    (0..n)
        .map(|i| {
            let place = i as f64 * f64::from(step);
            let (whole, t) = (place as isize, place.fract() as f32);
            let [a, b, c, d] = [-1, 0, 1, 2].map(|by| at(whole + by));
            b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
        })
        .collect()
}
