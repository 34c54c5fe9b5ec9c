//! Audio that comes in pieces: bytes to samples, samples to columns of features.

use std::sync::Arc;

use super::fft::LANES;
use super::mel::{FLOOR_LOG, Lengths, LogMel, REACH, Scale, Signal, Work};
use super::sink::{Sink, Terms};
use super::sound::complete_columns;
use super::{AudioError, Features, HOP, MelError, RATE_HZ, Resampler};
use crate::limits::Limits;

/// Mono, little-endian, signed 16-bit samples at any allowed rate, in pieces of any number of bytes, to samples at 16 kHz.
///
/// The same samples as [`decode`](super::decode) on all bytes at once, to the bit. How long a stream may be is for what comes
/// behind it to say: [`MelStream`], [`ClipBuffer`].
#[derive(Debug, Clone)]
pub struct Pcm16Stream {
    resampler: Resampler,
    /// The first half of a sample whose second half is still to come.
    half: Option<u8>,
}

impl Pcm16Stream {
    /// A stream at `rate_hz`.
    ///
    /// # Errors
    /// [`AudioError::Rate`].
    pub fn new(rate_hz: u32, limits: &Limits) -> Result<Self, AudioError> {
        let sink = Sink::new(rate_hz, 1, Terms { limits, cancelled: &|| false })?;
        Ok(Self { resampler: sink.into_resampler(), half: None })
    }

    /// Takes the next bytes and returns the samples that are certain by now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<f32> {
        let (joined, bytes) = match (self.half.take(), bytes) {
            (Some(low), [high, rest @ ..]) => (Some([low, *high]), rest),
            (half, bytes) => {
                self.half = half;
                (None, bytes)
            }
        };
        let (pairs, odd) = bytes.as_chunks::<2>();
        if let [low] = odd {
            self.half = Some(*low);
        }
        let pairs = joined.iter().chain(pairs);
        let samples: Vec<f64> = pairs.map(|pair| f64::from(i16::from_le_bytes(*pair)) / 32_768.0).collect();
        let mut out = Vec::new();
        self.resampler.push(&samples, &mut out);
        out
    }

    /// Ends the stream: the last samples. Half a sample is dropped. Ready for another stream.
    pub fn finish(&mut self) -> Vec<f32> {
        self.half = None;
        let mut out = Vec::new();
        self.resampler.finish(&mut out);
        out
    }
}

/// Features of audio that is not complete yet: each column as soon as its samples are there.
///
/// However the samples are split, the columns are those of [`LogMel::features`] on all of them, to the bit. Holds at most 400
/// samples beside what is being pushed. On a chunk's border nothing happens here: column t belongs to chunk t / C.
#[derive(Debug)]
pub struct MelStream {
    mel: Arc<LogMel>,
    scale: Scale,
    limit_seconds: u32,
    /// Samples that columns to come will need.
    held: Vec<f32>,
    /// Index in the stream of the first one held.
    first_held: usize,
    /// Index of the next column.
    next: usize,
}

/// Columns of features.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// Index of the first one, counted from the stream's beginning.
    pub first: usize,
    /// `[n, M]`: a column's bins are neighbours.
    pub values: Vec<f32>,
}

/// The end of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The columns that were missing, up to [`Features::n_frames`].
    pub columns: Columns,
    /// Frames that hold a sample, V.
    pub n_valid: usize,
    /// The value of all columns behind them, if the clip is padded to chunks.
    pub silence: f32,
}

impl MelStream {
    /// A stream at its beginning.
    ///
    /// # Errors
    /// [`MelError::NeedsFixedMaximum`] if the settings have none; [`ClipBuffer`] is for those.
    pub fn new(mel: Arc<LogMel>, limits: &Limits) -> Result<Self, MelError> {
        let top = mel.settings().log_mel_max.ok_or(MelError::NeedsFixedMaximum)?;
        let limit_seconds = limits.audio_seconds;
        Ok(Self { mel, scale: Scale { top }, limit_seconds, held: Vec::new(), first_held: 0, next: 0 })
    }

    /// Samples that came in.
    pub fn n_samples(&self) -> usize {
        self.first_held + self.held.len()
    }

    /// Takes the next samples at 16 kHz, all finite, and returns the columns whose samples are complete.
    ///
    /// # Errors
    /// [`AudioError::TooLong`]; the stream stays as it was.
    pub fn push(&mut self, samples: &[f32]) -> Result<Columns, AudioError> {
        check_length(self.n_samples(), samples.len(), self.limit_seconds)?;
        self.held.extend_from_slice(samples);
        let columns = self.columns(complete_columns(self.n_samples()), usize::MAX);
        let needed = (self.next * HOP).saturating_sub(REACH);
        let n_done = needed.saturating_sub(self.first_held).min(self.held.len());
        self.held.drain(..n_done);
        self.first_held += n_done;
        Ok(columns)
    }

    /// Ends the clip, padded with zeros as the settings say, and is ready for another one.
    ///
    /// # Errors
    /// [`AudioError::Empty`] if no sample came.
    pub fn commit(&mut self) -> Result<Committed, AudioError> {
        if self.n_samples() == 0 {
            return Err(AudioError::Empty);
        }
        let lengths = Lengths::of(self.n_samples(), self.mel.settings());
        let columns = self.columns(lengths.n_frames, lengths.padded_len);
        self.held.clear();
        (self.first_held, self.next) = (0, 0);
        Ok(Committed { columns, n_valid: lengths.n_valid, silence: self.scale.apply(FLOOR_LOG) })
    }

    /// The columns up to `end` that were not given out yet.
    fn columns(&mut self, end: usize, padded_len: usize) -> Columns {
        let (first, n_mels) = (self.next, self.mel.settings().n_mels);
        let n = end.saturating_sub(first);
        let mut values = vec![0.0; n * n_mels];
        let signal = Signal { samples: &self.held, first: self.first_held, padded_len };
        // A few hundred numbers are worth allocating only when there is something to do.
        let mut work = (n > 0).then(Work::new);
        for (begin, block) in (first..end).step_by(LANES).zip(values.chunks_mut(LANES * n_mels)) {
            let Some(work) = &mut work else { break };
            self.mel.logs(&signal, begin, work, |mel, logs| {
                for (column, log) in block.chunks_exact_mut(n_mels).zip(logs) {
                    column[mel] = self.scale.apply(log);
                }
            });
        }
        self.next = first.max(end);
        Columns { first, values }
    }
}

/// Samples that wait for the end of a turn, for models whose features depend on the whole clip.
#[derive(Debug, Clone)]
pub struct ClipBuffer {
    limit_seconds: u32,
    samples: Vec<f32>,
}

impl ClipBuffer {
    /// An empty buffer.
    pub fn new(limits: &Limits) -> Self {
        Self { limit_seconds: limits.audio_seconds, samples: Vec::new() }
    }

    /// What waits.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// Takes the next samples at 16 kHz.
    ///
    /// # Errors
    /// [`AudioError::TooLong`]; the buffer stays as it was.
    pub fn push(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        check_length(self.samples.len(), samples.len(), self.limit_seconds)?;
        self.samples.extend_from_slice(samples);
        Ok(())
    }

    /// The features of everything, and is empty again.
    ///
    /// # Errors
    /// [`AudioError::Empty`] if no sample came.
    pub fn commit(&mut self, mel: &LogMel) -> Result<Features, AudioError> {
        match std::mem::take(&mut self.samples) {
            samples if samples.is_empty() => Err(AudioError::Empty),
            samples => Ok(mel.features(&samples)),
        }
    }
}

fn check_length(n_samples: usize, n_more: usize, limit_seconds: u32) -> Result<(), AudioError> {
    let n = n_samples.saturating_add(n_more) as u64;
    let rate = u64::from(RATE_HZ);
    if n > rate * u64::from(limit_seconds) {
        return Err(AudioError::TooLong { at_least_seconds: n.div_ceil(rate), limit_seconds });
    }
    Ok(())
}
