//! From any rate to 16 kHz: a windowed-sinc polyphase filter, as samples come in.

use super::RATE_HZ;
use super::math::{cos_pi, sin_pi};

/// Zero crossings of the sinc on either side.
const ZERO_CROSSINGS: f64 = 6.0;
/// The cut-off as a share of the lower rate's.
const ROLLOFF: f64 = 0.99;
/// Chains of a sum of products; product i goes to chain i mod 4.
const CHAINS: usize = 4;

/// Resamples one stream of mono samples to 16 kHz.
///
/// With `orig` and `new` the rates divided by their greatest common divisor, output `o` is the sum of products of the
/// samples around `o · orig / new` with a Hann-windowed sinc of six zero crossings on either side, cut off at 0.99 of the
/// lower rate's limit. Before the beginning and after the end stand zeros. `n` samples become ⌈n · new / orig⌉. Samples
/// at 16 kHz pass as they are. However the stream is split, the result is the same to the bit.
#[derive(Debug, Clone)]
pub struct Resampler {
    orig: usize,
    new: usize,
    /// Input samples on either side of an output that its filter may reach.
    width: usize,
    /// Cut-off in periods of `orig` samples.
    base: f64,
    /// One filter for each place of an output between inputs, made when first needed: a rare rate has 16,000 of them.
    filters: Vec<Option<Filter>>,
    /// Samples that outputs to come will need.
    held: Vec<f64>,
    /// Index in the stream of the first one held.
    first_held: u64,
    /// Index of the next output.
    next: u64,
}

/// The coefficients that are not 0.
#[derive(Debug, Clone)]
struct Filter {
    /// Index of the input that meets the first coefficient, less the index of the period's first input.
    offset: i64,
    taps: Vec<f64>,
}

impl Resampler {
    /// A resampler for a stream at `rate_hz`; `None` if that is 0.
    pub fn new(rate_hz: u32) -> Option<Self> {
        let divisor = gcd(rate_hz, RATE_HZ);
        let (orig, new) = (rate_hz.checked_div(divisor)? as usize, (RATE_HZ / divisor) as usize);
        if orig == 0 {
            return None;
        }
        let base = orig.min(new) as f64 * ROLLOFF;
        let width = (ZERO_CROSSINGS * orig as f64 / base).ceil() as usize;
        let n_filters = if orig == new { 0 } else { new };
        let filters = vec![None; n_filters];
        Some(Self { orig, new, width, base, filters, held: Vec::new(), first_held: 0, next: 0 })
    }

    /// How many samples `n_samples` of the original rate become.
    pub fn n_out(&self, n_samples: u64) -> u64 {
        let wide = u128::from(n_samples) * self.new as u128;
        u64::try_from(wide.div_ceil(self.orig as u128)).unwrap_or(u64::MAX)
    }

    /// Takes the next samples and appends to `out` what is certain by now.
    pub fn push(&mut self, samples: &[f64], out: &mut Vec<f32>) {
        if self.filters.is_empty() {
            out.extend(samples.iter().map(|sample| *sample as f32));
            return;
        }
        self.held.extend_from_slice(samples);
        let n_seen = self.first_held + self.held.len() as u64;
        // The last input that any filter of a period reaches lies `width` after it.
        let reach = (self.width + self.orig) as u64;
        while (self.next / self.new as u64) * self.orig as u64 + reach <= n_seen {
            out.push(self.output());
        }
        self.forget();
    }

    /// Ends the stream, appends the last samples to `out` and is ready for another stream.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        if self.filters.is_empty() {
            return;
        }
        let n_out = self.n_out(self.first_held + self.held.len() as u64);
        while self.next < n_out {
            out.push(self.output());
        }
        self.held.clear();
        (self.first_held, self.next) = (0, 0);
    }

    /// The next output from what is held; what lies outside of the stream is 0.
    fn output(&mut self) -> f32 {
        let new = self.new as u64;
        let (period, place) = (self.next / new, (self.next % new) as usize);
        self.next += 1;
        let period_begin = (period * self.orig as u64) as i64 - self.first_held as i64;
        if self.filters[place].is_none() {
            self.filters[place] = Some(self.filter(place));
        }
        let Some(filter) = &self.filters[place] else { return 0.0 };
        let begin = period_begin + filter.offset;
        let skip = usize::try_from(-begin).unwrap_or(0);
        let held = self.held.get(usize::try_from(begin).unwrap_or(0)..).unwrap_or(&[]);
        dot(filter.taps.get(skip..).unwrap_or(&[]), held) as f32
    }

    fn filter(&self, place: usize) -> Filter {
        let (orig, new) = (self.orig as f64, self.new as f64);
        let coefficient = |tap: usize| {
            let t = ((tap as f64 - self.width as f64) / orig - place as f64 / new) * self.base;
            if t.abs() >= ZERO_CROSSINGS {
                return 0.0;
            }
            let sinc = if t == 0.0 { 1.0 } else { sin_pi(t) / (std::f64::consts::PI * t) };
            let window = cos_pi(t / (2.0 * ZERO_CROSSINGS));
            sinc * (window * window) * self.base / orig
        };
        // The filter's middle is `place · orig / new` after the period's first input.
        let middle = self.width + place * self.orig / self.new;
        let (begin, end) = (middle - self.width, middle + self.width + 2);
        Filter { offset: begin as i64 - self.width as i64, taps: (begin..end).map(coefficient).collect() }
    }

    /// Drops what no later output reaches.
    fn forget(&mut self) {
        let period_begin = self.next / self.new as u64 * self.orig as u64;
        let needed = period_begin.saturating_sub(self.width as u64);
        let n = (needed.saturating_sub(self.first_held) as usize).min(self.held.len());
        self.held.drain(..n);
        self.first_held += n as u64;
    }
}

/// The sum of products over the shorter of the two.
fn dot(taps: &[f64], samples: &[f64]) -> f64 {
    let len = taps.len().min(samples.len());
    let (tap_blocks, tap_rest) = taps[..len].as_chunks::<CHAINS>();
    let (sample_blocks, sample_rest) = samples[..len].as_chunks::<CHAINS>();
    let mut chains = [0.0; CHAINS];
    for (taps, samples) in tap_blocks.iter().zip(sample_blocks) {
        for i in 0..CHAINS {
            chains[i] += taps[i] * samples[i];
        }
    }
    for (i, (tap, sample)) in tap_rest.iter().zip(sample_rest).enumerate() {
        chains[i] += tap * sample;
    }
    (chains[0] + chains[1]) + (chains[2] + chains[3])
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
