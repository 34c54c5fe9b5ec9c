//! Sixteen sounds that are not speech.

use std::f32::consts::TAU;

use rand::RngExt;

use super::RATE_HZ;
use super::voice::{Resonator, samples};
use crate::Draw;

/// Makes one sound.
type Event = fn(&mut Draw) -> Vec<f32>;

/// Names and makers.
pub(crate) const EVENTS: [(&str, Event); 16] = [
    ("rising chirp", rising_chirp),
    ("falling chirp", falling_chirp),
    ("siren", siren),
    ("bell", bell),
    ("clicks", clicks),
    ("knocks", knocks),
    ("hiss", hiss),
    ("rumble", rumble),
    ("tremolo", tremolo),
    ("beep", beep),
    ("buzz", buzz),
    ("pluck", pluck),
    ("drops", drops),
    ("alarm", alarm),
    ("rattle", rattle),
    ("whistle", whistle),
];

fn rising_chirp(draw: &mut Draw) -> Vec<f32> {
    let (low, high) = (draw.random_range(300.0..700.0), draw.random_range(2200.0..3800.0f32));
    tone(draw.random_range(0.3..0.7), |along| low * (high / low).powf(along), |_| 1.0)
}

fn falling_chirp(draw: &mut Draw) -> Vec<f32> {
    let (low, high) = (draw.random_range(300.0..700.0), draw.random_range(2200.0..3800.0f32));
    tone(draw.random_range(0.3..0.7), |along| high * (low / high).powf(along), |_| 1.0)
}

/// Up and down, slowly, twice or more.
fn siren(draw: &mut Draw) -> Vec<f32> {
    let (middle, turns) = (draw.random_range(700.0..1100.0), draw.random_range(2.0..3.5));
    tone(draw.random_range(1.0..1.5), |along| middle * (1.0 - 0.35 * (TAU * turns * along).cos()), |_| 1.0)
}

/// Partials of a small bell, each dying away.
fn bell(draw: &mut Draw) -> Vec<f32> {
    let base = draw.random_range(500.0..1100.0);
    let mut sound = vec![0.0; samples(draw.random_range(0.8..1.2))];
    for (partial, decay, level) in [(1.0, 3.0, 1.0), (2.0, 4.5, 0.6), (2.76, 5.0, 0.7), (5.4, 8.0, 0.4)] {
        ring(&mut sound, 0, base * partial, decay, level);
    }
    sound
}

fn clicks(draw: &mut Draw) -> Vec<f32> {
    let gap = draw.random_range(0.07..0.13);
    repeated(draw.random_range(5..=9), gap, |sound, at| ring(sound, at, 3500.0, 600.0, 1.0))
}

fn knocks(draw: &mut Draw) -> Vec<f32> {
    let (hz, gap) = (draw.random_range(120.0..220.0), draw.random_range(0.18..0.28));
    repeated(draw.random_range(3..=4), gap, |sound, at| ring(sound, at, hz, 35.0, 1.0))
}

fn hiss(draw: &mut Draw) -> Vec<f32> {
    let hz = draw.random_range(5000.0..6500.0);
    noise(draw.random_range(0.6..1.1), (hz, 1800.0), |_| 1.0, draw)
}

fn rumble(draw: &mut Draw) -> Vec<f32> {
    let hz = draw.random_range(80.0..160.0);
    noise(draw.random_range(0.7..1.2), (hz, 80.0), |_| 1.0, draw)
}

/// A steady tone whose loudness shakes.
fn tremolo(draw: &mut Draw) -> Vec<f32> {
    let (hz, shakes, length) =
        (draw.random_range(350.0..800.0), draw.random_range(7.0..12.0), draw.random_range(0.8..1.2));
    tone(length, |_| hz, |along| 0.5 - 0.5 * (TAU * shakes * length * along).cos())
}

fn beep(draw: &mut Draw) -> Vec<f32> {
    let hz = draw.random_range(800.0..1600.0);
    tone(draw.random_range(0.25..0.5), |_| hz, |_| 1.0)
}

/// Many harmonics of a low tone.
fn buzz(draw: &mut Draw) -> Vec<f32> {
    let hz = draw.random_range(70.0..140.0);
    let n = samples(draw.random_range(0.5..0.9));
    let saw = |i: usize| (hz * i as f32 / RATE_HZ as f32).fract() - 0.5;
    faded((0..n).map(saw).collect())
}

/// Karplus and Strong's string (Computer Music Journal 7, 1983).
fn pluck(draw: &mut Draw) -> Vec<f32> {
    let period = draw.random_range(50..120);
    let mut sound: Vec<f32> = (0..period).map(|_| draw.random_range(-1.0..1.0)).collect();
    for i in period..samples(0.8) {
        sound.push(0.496 * (sound[i - period] + sound[(i + 1) - period]));
    }
    faded(sound)
}

/// Short blips that rise, at uneven distances.
fn drops(draw: &mut Draw) -> Vec<f32> {
    let mut sound = Vec::new();
    for _ in 0..draw.random_range(3..=5) {
        let low = draw.random_range(500.0..900.0);
        sound.extend(tone(0.06, |along| low * (1.0 + 1.2 * along), |along| 1.0 - along));
        sound.resize(sound.len() + samples(draw.random_range(0.08..0.25)), 0.0);
    }
    sound
}

/// Two tones in turn.
fn alarm(draw: &mut Draw) -> Vec<f32> {
    let (low, turns) = (draw.random_range(600.0..900.0), draw.random_range(3..=5));
    let high = low * draw.random_range(1.3..1.6);
    tone(0.3 * turns as f32, |along| if (along * turns as f32).fract() < 0.5 { low } else { high }, |_| 1.0)
}

/// Bursts of noise, some twenty a second.
fn rattle(draw: &mut Draw) -> Vec<f32> {
    let (length, bursts) = (draw.random_range(0.6..1.0), draw.random_range(16.0..24.0));
    noise(length, (2500.0, 1500.0), |along| 1.0 - (along * length * bursts).fract(), draw)
}

/// A high tone that trembles, with breath.
fn whistle(draw: &mut Draw) -> Vec<f32> {
    let (hz, length) = (draw.random_range(2000.0..2800.0), draw.random_range(0.5..0.9));
    let breath = noise(length, (hz, 500.0), |_| 0.25, draw);
    let pitch = tone(length, |along| hz * (1.0 + 0.03 * (TAU * 6.0 * length * along).sin()), |_| 0.8);
    pitch.iter().zip(breath).map(|(pitch, breath)| pitch + breath).collect()
}

/// A sine of `hz` and `level` along its length, 0 to 1.
fn tone(length: f32, hz: impl Fn(f32) -> f32, level: impl Fn(f32) -> f32) -> Vec<f32> {
    let n = samples(length);
    let mut phase = 0.0f32;
    let sample = |i: usize| {
        let along = i as f32 / n as f32;
        phase = (phase + hz(along) / RATE_HZ as f32).fract();
        (TAU * phase).sin() * level(along)
    };
    faded((0..n).map(sample).collect())
}

/// A band of noise: centre and width in Hz.
fn noise(length: f32, band_hz: (f32, f32), level: impl Fn(f32) -> f32, draw: &mut Draw) -> Vec<f32> {
    let n = samples(length);
    let mut bands = [Resonator::default(); 2];
    bands.iter_mut().for_each(|band| band.tune_band(band_hz.0, band_hz.1));
    let sample = |i: usize| {
        let white = draw.random_range(-1.0..1.0f32) * level(i as f32 / n as f32);
        bands.iter_mut().fold(white, |signal, band| band.pass(signal))
    };
    faded((0..n).map(sample).collect())
}

/// Adds a sine from sample `at` on that dies away `decay` times a second.
fn ring(sound: &mut [f32], at: usize, hz: f32, decay: f32, level: f32) {
    for (i, sample) in sound.iter_mut().skip(at).enumerate() {
        let time = i as f32 / RATE_HZ as f32;
        *sample += level * (-decay * time).exp() * (TAU * (hz * time).fract()).sin();
    }
}

/// `n` strokes, `gap` seconds apart.
fn repeated(n: usize, gap: f32, stroke: impl Fn(&mut [f32], usize)) -> Vec<f32> {
    let mut sound = vec![0.0; samples(gap * n as f32)];
    (0..n).for_each(|i| stroke(&mut sound, samples(gap * i as f32)));
    sound
}

/// Without a click at either end.
fn faded(mut sound: Vec<f32>) -> Vec<f32> {
    let n = samples(0.008).min(sound.len() / 2);
    let last = sound.len().saturating_sub(1);
    for i in 0..n {
        sound[i] *= i as f32 / n as f32;
        sound[last - i] *= i as f32 / n as f32;
    }
    sound
}
