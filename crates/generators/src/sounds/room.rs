//! What lies between a sound and the microphone: silence before and after, loudness, noise.

use rand::RngExt;

use super::RATE_HZ;
use super::voice::samples;
use crate::{Draw, Sound, Split};

/// Signal-to-noise ratios of training end here; one held-out clip in eight has less.
pub(crate) const LEAST_SNR_DB: f32 = 5.0;

/// Loudness of speech and sounds before gain: the root mean square where there is sound.
const LEVEL: f32 = 0.12;

/// `clip` as it is recorded.
pub(crate) fn record(clip: &[f32], split: Split, draw: &mut Draw) -> Sound {
    let power = power(clip).max(1e-12);
    let gain = LEVEL / power.sqrt() * decibels(draw.random_range(-12.0..6.0));
    let noise = snr_db(split, draw).map_or(0.0, |snr| power.sqrt() * gain * decibels(-snr));
    let (before, after) = (samples(draw.random_range(0.05..0.3)), samples(draw.random_range(0.05..0.3)));
    let mut signal = vec![0.0; before + clip.len() + after];
    for (to, from) in signal[before..].iter_mut().zip(clip) {
        *to = from * gain;
    }
    // an even distribution has a third of its peak's square as power; noise with fewer highs sounds like a room
    let softness = draw.random_range(0.0..0.9f32);
    let peak = noise * (3.0 * (1.0 - softness * softness)).sqrt();
    let mut hum = 0.0;
    if noise > 0.0 {
        for sample in &mut signal {
            hum = softness * hum + peak * draw.random_range(-1.0..1.0);
            *sample += hum;
        }
    }
    let loudest = signal.iter().fold(0.0f32, |loudest, sample| loudest.max(sample.abs()));
    let turned_down = (0.99 / loudest.max(0.99)).min(1.0);
    signal.iter_mut().for_each(|sample| *sample *= turned_down);
    Sound { rate_hz: RATE_HZ, samples: signal }
}

/// `None` is a clean recording.
pub(crate) fn snr_db(split: Split, draw: &mut Draw) -> Option<f32> {
    let kind = draw.random_range(0..8);
    match (kind, split) {
        (0, Split::HeldOut) => Some(draw.random_range(0.0..LEAST_SNR_DB)),
        (0..=2, _) => None,
        _ => Some(draw.random_range(LEAST_SNR_DB..30.0)),
    }
}

/// Mean square of what is louder than a hundredth of the loudest sample.
fn power(clip: &[f32]) -> f32 {
    let loudest = clip.iter().fold(0.0f32, |loudest, sample| loudest.max(sample.abs()));
    let heard = clip.iter().filter(|sample| sample.abs() > 0.01 * loudest);
    let (sum, n) = heard.fold((0.0, 0), |(sum, n), sample| (sum + sample * sample, n + 1));
    sum / n.max(1) as f32
}

fn decibels(decibels: f32) -> f32 {
    10f32.powf(decibels / 20.0)
}
