//! A voice: phones from a pulse or noise through resonators.

use std::f32::consts::TAU;

use rand::RngExt;

use super::RATE_HZ;
use super::words::{Phone, WORDS, phone};
use crate::{Draw, Split};

/// Pitches and shifts that only held-out speakers have; those of training keep clear of them by a margin.
pub(crate) const HELD_OUT_PITCH_HZ: std::ops::Range<f32> = 145.0..170.0;
/// The same for the factor on all formants.
pub(crate) const HELD_OUT_SHIFT: std::ops::Range<f32> = 1.0..1.06;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speaker {
    /// Middle of the voice, 90 to 260.
    pub pitch_hz: f32,
    /// Factor on all formants: what the length of a throat does.
    pub shift: f32,
    /// Factor on all durations.
    slowness: f32,
    /// How much of the pulse's highs the throat lets through.
    brightness: f32,
}

impl Speaker {
    /// A speaker of `split`.
    pub fn of(split: Split, draw: &mut Draw) -> Self {
        let (pitch_hz, shift) = match split {
            Split::HeldOut => (draw.random_range(HELD_OUT_PITCH_HZ), draw.random_range(HELD_OUT_SHIFT)),
            Split::Train => {
                (outside(90.0..260.0, HELD_OUT_PITCH_HZ, 3.0, draw), outside(0.86..1.2, HELD_OUT_SHIFT, 0.01, draw))
            }
        };
        Self { pitch_hz, shift, slowness: draw.random_range(0.8..1.15), brightness: draw.random_range(0.45..0.8) }
    }

    /// Says `words`, indices into [`WORDS`], with pauses between them.
    pub(crate) fn say(&self, words: &[usize], draw: &mut Draw) -> Vec<f32> {
        let mut clip = Vec::new();
        for (i, &word) in words.iter().enumerate() {
            if i > 0 {
                let pause = draw.random_range(0.09..0.28);
                clip.resize(clip.len() + samples(pause), 0.0);
            }
            self.word(word, draw, &mut clip);
        }
        clip
    }

    fn word(&self, word: usize, draw: &mut Draw, clip: &mut Vec<f32>) {
        let phones: Vec<_> = WORDS[word].1.split(' ').map(phone).collect();
        let pitch = self.pitch_hz * draw.random_range(0.92..1.1);
        let mut throat = Throat::new(self, phones[0]);
        for (i, phone) in phones.iter().enumerate() {
            let length = (draw.random_range(0.07..0.12) * phone.length * self.slowness).clamp(0.06, 0.14);
            // the last phone is drawn out and falls
            let is_last = i + 1 == phones.len();
            let length = if is_last { (length * 1.25).min(0.14) } else { length };
            throat.speak(*phone, samples(length), pitch * (1.06 - 0.05 * i as f32), draw, clip);
        }
    }
}

/// The resonators and the pulse, which go on from phone to phone.
struct Throat {
    shift: f32,
    brightness: f32,
    formants_hz: [f32; 3],
    resonators: [Resonator; 3],
    noise: [Resonator; 2],
    phase: f32,
    flow: f32,
    voicing: f32,
    hissing: f32,
}

impl Throat {
    fn new(speaker: &Speaker, first: Phone) -> Self {
        Self {
            shift: speaker.shift,
            brightness: speaker.brightness,
            formants_hz: first.from.map(|hz| hz * speaker.shift),
            resonators: Default::default(),
            noise: Default::default(),
            phase: 0.0,
            flow: 0.0,
            voicing: 0.0,
            hissing: 0.0,
        }
    }

    fn speak(&mut self, phone: Phone, n: usize, pitch_hz: f32, draw: &mut Draw, clip: &mut Vec<f32>) {
        // formants and loudness move towards their targets within some 12 and 5 ms, as a tongue does
        let (glide, swell) = (1.0 / samples(0.012) as f32, 1.0 / samples(0.005) as f32);
        let closed = (phone.closure * n as f32) as usize;
        for noise in &mut self.noise {
            noise.tune_band(phone.noise_hz * self.shift, phone.noise_width_hz);
        }
        for i in 0..n {
            let along = i as f32 / n as f32;
            let is_open = i >= closed;
            for (f, hz) in self.formants_hz.iter_mut().enumerate() {
                let target = (phone.from[f] + (phone.to[f] - phone.from[f]) * along) * self.shift;
                *hz += (target - *hz) * glide;
            }
            if i % 16 == 0 {
                for (resonator, (hz, width)) in
                    self.resonators.iter_mut().zip(self.formants_hz.iter().zip([70.0, 100.0, 150.0]))
                {
                    resonator.tune(*hz, width);
                }
            }
            self.voicing += (phone.voice - self.voicing) * swell;
            self.hissing += (if is_open { phone.noise } else { 0.0 } - self.hissing) * swell;
            clip.push(self.sample(pitch_hz * (1.0 - 0.04 * along), draw));
        }
    }

    fn sample(&mut self, pitch_hz: f32, draw: &mut Draw) -> f32 {
        self.phase += pitch_hz / RATE_HZ as f32;
        let pulse = if self.phase >= 1.0 { 1.0 } else { 0.0 };
        self.phase -= self.phase.floor();
        let white = draw.random_range(-1.0..1.0f32);
        // a pole shapes the pulse like the flow of a glottis
        self.flow += (pulse + 0.004 * white - self.flow) * self.brightness;
        let voiced =
            self.resonators.iter_mut().fold(self.flow * self.voicing, |signal, resonator| resonator.pass(signal));
        let hissed = self.noise.iter_mut().fold(white * self.hissing, |signal, resonator| resonator.pass(signal));
        voiced * 2.5 + hissed * 0.9
    }
}

/// A resonator of two poles.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Resonator {
    gain: f32,
    feedback: [f32; 2],
    past: [f32; 2],
}

impl Resonator {
    /// Centre and bandwidth; unit gain at 0 Hz, as voices want it (Klatt, Journal of the Acoustical Society of America 67,
    /// 1980).
    pub(crate) fn tune(&mut self, hz: f32, width_hz: f32) {
        let radius = (-TAU / 2.0 * width_hz / RATE_HZ as f32).exp();
        let turn = (TAU * hz.min(RATE_HZ as f32 * 0.48) / RATE_HZ as f32).cos();
        self.feedback = [2.0 * radius * turn, -radius * radius];
        self.gain = 1.0 - self.feedback[0] - self.feedback[1];
    }

    /// The same with unit gain at the centre, as bands of noise want it.
    pub(crate) fn tune_band(&mut self, hz: f32, width_hz: f32) {
        self.tune(hz, width_hz);
        let radius = (-self.feedback[1]).sqrt();
        let turn = self.feedback[0] / (2.0 * radius);
        self.gain = (1.0 - radius) * (1.0 + radius * radius - 2.0 * radius * (2.0 * turn * turn - 1.0)).max(0.0).sqrt();
    }

    /// One sample through it.
    pub(crate) fn pass(&mut self, x: f32) -> f32 {
        let y = self.gain * x + self.feedback[0] * self.past[0] + self.feedback[1] * self.past[1];
        self.past = [y, self.past[0]];
        y
    }
}

/// Seconds to samples.
pub(crate) fn samples(seconds: f32) -> usize {
    (seconds * RATE_HZ as f32) as usize
}

/// Of `range`, but not within `margin` of `without`.
fn outside(range: std::ops::Range<f32>, without: std::ops::Range<f32>, margin: f32, draw: &mut Draw) -> f32 {
    let (below, above) = (without.start - margin - range.start, range.end - without.end - margin);
    let at = draw.random_range(0.0..below + above);
    if at < below { range.start + at } else { without.end + margin + at - below }
}
