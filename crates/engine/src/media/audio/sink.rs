//! Where decoders put their samples: counted, mixed down, resampled, and nothing kept at the original rate.

use super::{AudioError, Resampler};
use crate::limits::Limits;

/// Samples of a result that are made room for at once, when it is no longer small: 16 MiB. Doubling would take twice the
/// largest clip.
const GROWTH: usize = 4 << 20;

/// What decoding is held to.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub limits: &'a Limits,
    /// Asked before every piece of work; true ends it.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// Turns mono samples of one rate into a clip.
pub(super) struct Sink<'a> {
    terms: Terms<'a>,
    rate_hz: u32,
    n_channels: usize,
    resampler: Resampler,
    /// Samples taken in.
    n_in: u64,
    /// Samples at 16 kHz.
    out: Vec<f32>,
}

impl<'a> Sink<'a> {
    /// A sink for samples at `rate_hz`, made of `n_channels`.
    ///
    /// # Errors
    /// [`AudioError::Rate`].
    pub fn new(rate_hz: u32, n_channels: usize, terms: Terms<'a>) -> Result<Self, AudioError> {
        let range = &terms.limits.audio_rate_hz;
        let refused = || AudioError::Rate { rate_hz, lowest_hz: *range.start(), highest_hz: *range.end() };
        let resampler = Resampler::new(rate_hz).filter(|_| range.contains(&rate_hz)).ok_or_else(refused)?;
        Ok(Self { terms, rate_hz, n_channels, resampler, n_in: 0, out: Vec::new() })
    }

    /// The resampler alone, for who counts by other means.
    pub fn into_resampler(self) -> Resampler {
        self.resampler
    }

    pub fn n_in(&self) -> u64 {
        self.n_in
    }

    /// Refuses what would be longer than allowed with `n_more` samples more; what a header promises can be asked about
    /// before it is read.
    ///
    /// # Errors
    /// [`AudioError::TooLong`], [`AudioError::TooManySamples`].
    pub fn check_length(&self, n_more: u64) -> Result<(), AudioError> {
        let limit_seconds = self.terms.limits.audio_seconds;
        let n = self.n_in.saturating_add(n_more);
        let rate = u64::from(self.rate_hz);
        if n > rate.saturating_mul(u64::from(limit_seconds)) {
            return Err(AudioError::TooLong { at_least_seconds: n.div_ceil(rate), limit_seconds });
        }
        match (n.saturating_mul(self.n_channels as u64), self.terms.limits.audio_samples) {
            (at_least, limit) if at_least > limit => Err(AudioError::TooManySamples { at_least, limit }),
            _ => Ok(()),
        }
    }

    /// Makes room for `n_more` samples that are certain to come.
    pub fn expect(&mut self, n_more: u64) {
        self.out.reserve_exact(usize::try_from(self.resampler.n_out(n_more)).unwrap_or(0));
    }

    /// Takes mono samples.
    ///
    /// # Errors
    /// As [`Sink::check_length`]; [`AudioError::NotFinite`], [`AudioError::Cancelled`].
    pub fn push(&mut self, mono: &[f64]) -> Result<(), AudioError> {
        if (self.terms.cancelled)() {
            return Err(AudioError::Cancelled);
        }
        self.check_length(mono.len() as u64)?;
        if let Some(i) = mono.iter().position(|sample| !(*sample as f32).is_finite()) {
            return Err(self.not_finite(i));
        }
        self.n_in += mono.len() as u64;
        self.make_room(mono.len());
        let n_before = self.out.len();
        self.resampler.push(mono, &mut self.out);
        self.check_finite(n_before)
    }

    /// The clip.
    ///
    /// # Errors
    /// [`AudioError::Empty`], [`AudioError::NotFinite`].
    pub fn finish(mut self) -> Result<Vec<f32>, AudioError> {
        if self.n_in == 0 {
            return Err(AudioError::Empty);
        }
        let n_before = self.out.len();
        self.make_room(0);
        self.resampler.finish(&mut self.out);
        self.check_finite(n_before)?;
        Ok(self.out)
    }

    fn make_room(&mut self, n_new: usize) {
        // What the resampler holds back comes on top; it is under two periods of a second at most.
        let n_out = usize::try_from(self.resampler.n_out(n_new as u64)).unwrap_or(0) + 1;
        if self.out.capacity() - self.out.len() < n_out && self.out.len() > GROWTH {
            self.out.reserve_exact(n_out + GROWTH);
        }
    }

    /// Filters overshoot: a sample just below the largest number may become infinite.
    fn check_finite(&self, begin: usize) -> Result<(), AudioError> {
        match self.out[begin..].iter().all(|sample| sample.is_finite()) {
            true => Ok(()),
            false => Err(self.not_finite(0)),
        }
    }

    fn not_finite(&self, n_after: usize) -> AudioError {
        AudioError::NotFinite { at_seconds: (self.n_in + n_after as u64) as f64 / f64::from(self.rate_hz) }
    }
}
