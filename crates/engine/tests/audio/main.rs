//! Audio against its specification: goldens, files of every kind, streams, limits.
#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

mod files;
mod goldens;
mod streams;
mod tensors;

use engine::Limits;
use engine::media::audio::{AudioError, AudioFormat, Clip, LogMel, MelSettings, decode};

/// A file of the tests' data.
fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/audio/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Decodes with nothing declared and the default limits.
fn decoded(bytes: &[u8]) -> Result<Clip, AudioError> {
    decode(bytes, None, &Limits::default(), &|| false)
}

/// 16-bit samples at `rate_hz` as a clip.
fn from_pcm(bytes: &[u8], rate_hz: u32) -> Result<Clip, AudioError> {
    decode(bytes, Some(AudioFormat::Pcm16 { rate_hz }), &Limits::default(), &|| false)
}

fn log_mel(settings: MelSettings) -> LogMel {
    LogMel::parse(settings, &Limits::default()).unwrap()
}

/// Uniform numbers from −1 to 1.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(x) / 2_147_483_648.0 - 1.0) as f32
    };
    (0..n).map(|_| next()).collect()
}

/// The largest difference of two rows of numbers.
fn largest_difference(a: impl IntoIterator<Item = f64>, b: impl IntoIterator<Item = f64>) -> f64 {
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let (mut largest, mut n) = (0.0f64, 0);
    loop {
        match (a.next(), b.next()) {
            (Some(a), Some(b)) => largest = largest.max((a - b).abs()),
            (None, None) => break,
            _ => panic!("different lengths, equal up to {n}"),
        }
        n += 1;
    }
    assert!(n > 0, "nothing was compared");
    largest
}
