//! Log-mel features.
//!
//! Letters of shapes: M mel bins, C frames of a chunk.

use super::fft::{BINS, Fft, LANES, LEN, Lanes, Scratch};
use super::math::{cos_pi, exp, ln, log10_each};
use super::{HOP, PadTo};
use crate::limits::Limits;

/// Samples on either side of a frame's middle.
pub(super) const REACH: usize = LEN / 2;
/// The highest frequency of a filter, half the rate.
const TOP_HZ: f64 = 8000.0;
/// What energy is at least, so that it has a logarithm, and that.
const FLOOR: f64 = 1e-10;
pub(super) const FLOOR_LOG: f32 = -10.0;

/// What features are made of; [`LogMel::parse`] checks it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MelSettings {
    /// Filters, M.
    pub n_mels: usize,
    /// Frames of a chunk, C: twice the encoder's positions.
    pub chunk_frames: usize,
    /// The largest logarithm that counts, above which nothing is cut and 8 below which all is; `None`: the clip's own.
    pub log_mel_max: Option<f32>,
    /// To what length a clip is padded.
    pub pad_to: PadTo,
}

impl Default for MelSettings {
    /// 128 bins, chunks of 30 s, the clip's own maximum, padded to chunks.
    fn default() -> Self {
        Self { n_mels: 128, chunk_frames: 3000, log_mel_max: None, pad_to: PadTo::Chunk }
    }
}

impl MelSettings {
    /// The value of columns that a clip does not have; `silence` is that of a frame of zeros. Padded to the hop, frames end
    /// with the clip, and what does not exist is 0.
    pub(super) fn absent(&self, silence: f32) -> f32 {
        match self.pad_to {
            PadTo::Chunk => silence,
            PadTo::Hop => 0.0,
        }
    }
}

/// Why features cannot be made as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MelError {
    /// A preprocessor config asks for what cannot be.
    #[error("audio preprocessor config: {field} is \"{value}\"; it must be {allowed}")]
    Config {
        /// The config's field.
        field: &'static str,
        /// The value given.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// Features of a clip that is not complete need a maximum that does not depend on the rest.
    #[error(
        "audio preprocessor config: log_mel_max is null, the maximum of the whole clip; set it to a number, as 1.5, to stream"
    )]
    NeedsFixedMaximum,
}

/// Turns samples into features: window, filters and transform, made once.
#[derive(Debug)]
pub struct LogMel {
    settings: MelSettings,
    window: [f64; LEN],
    fft: Fft,
    filters: Vec<Filter>,
}

/// The weights of one mel bin that are not 0.
#[derive(Debug)]
struct Filter {
    /// The frequency of the first weight.
    first: usize,
    weights: Vec<f64>,
}

impl LogMel {
    /// Checks the settings and makes the tables.
    ///
    /// # Errors
    /// [`MelError::Config`].
    pub fn parse(settings: MelSettings, limits: &Limits) -> Result<Self, MelError> {
        let refused = |field, value: String, allowed: String| Err(MelError::Config { field, value, allowed });
        let MelSettings { n_mels, chunk_frames, log_mel_max, .. } = settings;
        if !(1..=limits.mel_bins).contains(&n_mels) {
            return refused("feature_size", n_mels.to_string(), format!("1 to {}", limits.mel_bins));
        }
        if !(2..=limits.chunk_frames).contains(&chunk_frames) || !chunk_frames.is_multiple_of(2) {
            let allowed = format!("2 to {} frames, an even number", limits.chunk_frames);
            return refused("chunk_length", format!("{chunk_frames} frames"), allowed);
        }
        if let Some(max) = log_mel_max.filter(|max| !max.is_finite() || max.abs() > 100.0) {
            return refused("log_mel_max", max.to_string(), "null or a number from -100 to 100".into());
        }
        let window = std::array::from_fn(|j| 0.5 - 0.5 * cos_pi(2.0 * j as f64 / LEN as f64));
        Ok(Self { settings, window, fft: Fft::new(), filters: filters(n_mels) })
    }

    /// As checked.
    pub fn settings(&self) -> &MelSettings {
        &self.settings
    }

    /// The filters, `[201, M]`: what a power at 40·b Hz adds to a bin.
    pub fn filters(&self) -> Vec<f64> {
        let n_mels = self.filters.len();
        let mut out = vec![0.0; BINS * n_mels];
        for (mel, filter) in self.filters.iter().enumerate() {
            for (i, weight) in filter.weights.iter().enumerate() {
                out[(filter.first + i) * n_mels + mel] = *weight;
            }
        }
        out
    }

    /// The features of a whole clip of at least one sample at 16 kHz.
    ///
    /// Memory: four bytes a bin and frame.
    pub fn features(&self, samples: &[f32]) -> Features {
        let lengths = Lengths::of(samples.len(), &self.settings);
        let (n_mels, n_frames) = (self.settings.n_mels, lengths.n_frames);
        let chunk_frames = self.settings.chunk_frames;
        let chunk = |begin| vec![FLOOR_LOG; n_mels * chunk_frames.min(n_frames - begin)];
        let mut chunks: Vec<Vec<f32>> = (0..n_frames).step_by(chunk_frames).map(chunk).collect();
        let mut work = Work::new();
        let signal = Signal { samples, first: 0, padded_len: lengths.padded_len };
        for begin in (0..n_frames).step_by(LANES) {
            self.logs(&signal, begin, &mut work, |mel, logs| {
                for (t, log) in (begin..n_frames).zip(logs) {
                    chunks[t / chunk_frames][t % chunk_frames * n_mels + mel] = log;
                }
            });
        }
        let all = || chunks.iter().flatten().copied();
        let scale = Scale { top: self.settings.log_mel_max.unwrap_or_else(|| all().fold(FLOOR_LOG, f32::max)) };
        chunks.iter_mut().flatten().for_each(|log| *log = scale.apply(*log));
        let silence = scale.apply(FLOOR_LOG);
        Features { settings: self.settings, chunks, n_frames, n_valid: lengths.n_valid, silence }
    }

    /// Logarithms of the [`LANES`] frames from `frame` on, handed out bin by bin. Frames that do not exist are nonsense.
    pub(super) fn logs(
        &self,
        signal: &Signal<'_>,
        frame: usize,
        work: &mut Work,
        mut take: impl FnMut(usize, [f32; LANES]),
    ) {
        for lane in 0..LANES {
            signal.window((frame + lane) * HOP, &self.window, |j, value| work.x[j].0[lane] = value);
        }
        self.fft.power(&work.x, &mut work.scratch, &mut work.power);
        for (mel, filter) in self.filters.iter().enumerate() {
            let mut energy = Lanes::default();
            for (weight, power) in filter.weights.iter().zip(&work.power[filter.first..]) {
                energy = energy + *power * *weight;
            }
            take(mel, floored_logs(energy));
        }
    }
}

/// The logarithms; exactly −10 at the floor and below it.
#[inline(always)]
fn floored_logs(energy: Lanes) -> [f32; LANES] {
    let heard = energy.0.map(|energy| if energy > FLOOR { energy } else { 1.0 });
    let logs = log10_each(heard);
    std::array::from_fn(|i| if energy.0[i] > FLOOR { logs[i] as f32 } else { FLOOR_LOG })
}

/// The last step, which needs to know the maximum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub top: f32,
}

impl Scale {
    #[inline(always)]
    pub fn apply(self, log: f32) -> f32 {
        // In f64, so that only the logarithm and the result are rounded.
        ((f64::from(log).max(f64::from(self.top) - 8.0) + 4.0) / 4.0) as f32
    }
}

/// Where a block of frames is computed.
pub(super) struct Work {
    x: Box<[Lanes; LEN]>,
    power: Box<[Lanes; BINS]>,
    scratch: Box<Scratch>,
}

impl Work {
    pub fn new() -> Self {
        let zero = Lanes::default();
        Self { x: Box::new([zero; LEN]), power: Box::new([zero; BINS]), scratch: Scratch::new() }
    }
}

/// Samples from index `first` on of a signal that is padded with zeros to `padded_len` and mirrored at both ends.
pub(super) struct Signal<'a> {
    pub samples: &'a [f32],
    pub first: usize,
    pub padded_len: usize,
}

impl Signal<'_> {
    /// Hands out the windowed samples of the frame around `middle`.
    #[inline(always)]
    fn window(&self, middle: usize, window: &[f64; LEN], mut take: impl FnMut(usize, f64)) {
        let inside =
            (middle.checked_sub(REACH + self.first)).and_then(|begin| self.samples.get(begin..)?.first_chunk::<LEN>());
        if let Some(samples) = inside {
            for j in 0..LEN {
                take(j, f64::from(samples[j]) * window[j]);
            }
            return;
        }
        for j in 0..LEN {
            let at = self.mirrored(middle + j);
            let sample = at.checked_sub(self.first).and_then(|at| self.samples.get(at));
            take(j, sample.map_or(0.0, |sample| f64::from(*sample)) * window[j]);
        }
    }

    /// The index whose sample stands [`REACH`] before `at`, which may lie before the beginning or behind the end.
    fn mirrored(&self, at: usize) -> usize {
        if at < REACH {
            return REACH - at;
        }
        let at = at - REACH;
        if at >= self.padded_len { (2 * (self.padded_len - 1)).saturating_sub(at) } else { at }
    }
}

/// Lengths of a clip.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    /// Samples after padding.
    pub padded_len: usize,
    /// Frames that hold a sample of the clip.
    pub n_valid: usize,
    /// Frames that differ from those of silence or may do so.
    pub n_frames: usize,
}

impl Lengths {
    pub fn of(n_samples: usize, settings: &MelSettings) -> Self {
        let n_valid = n_samples.div_ceil(HOP);
        let n_padded = match settings.pad_to {
            PadTo::Chunk => n_valid.max(1).next_multiple_of(settings.chunk_frames),
            PadTo::Hop => n_valid.max(2),
        };
        Self { padded_len: n_padded * HOP, n_valid, n_frames: n_padded.min(n_valid + 2) }
    }
}

/// Log-mel features of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    settings: MelSettings,
    /// Chunk by chunk, column by column: `[_, M]`.
    chunks: Vec<Vec<f32>>,
    n_frames: usize,
    n_valid: usize,
    silence: f32,
}

impl Features {
    /// `[M, n_frames]`; all frames behind them are [`Features::silence`].
    pub fn values(&self) -> Vec<f32> {
        let n_mels = self.settings.n_mels;
        let columns = || self.chunks.iter().flat_map(|chunk| chunk.chunks_exact(n_mels));
        (0..n_mels).flat_map(|mel| columns().map(move |column| column[mel])).collect()
    }

    /// The columns of each chunk, `[_, M]`: all of them, but for the last chunk those up to [`n_frames`](Self::n_frames).
    pub(super) fn into_columns(self) -> Vec<Vec<f32>> {
        self.chunks
    }

    /// Frames of [`Features::values`]: the valid ones and up to two more.
    pub fn n_frames(&self) -> usize {
        self.n_frames
    }

    /// Frames that hold a sample of the clip, V.
    pub fn n_valid(&self) -> usize {
        self.n_valid
    }

    /// The value of a frame of zeros.
    pub fn silence(&self) -> f32 {
        self.silence
    }

    /// What the encoder takes, one chunk after the other.
    pub fn chunks(&self) -> impl Iterator<Item = MelChunk> + '_ {
        (0..).map_while(|index| self.chunk(index))
    }

    /// The chunk of this number, from 0; `None` behind the last.
    pub fn chunk(&self, index: usize) -> Option<MelChunk> {
        let (n_mels, chunk_frames) = (self.settings.n_mels, self.settings.chunk_frames);
        let columns = self.chunks.get(index)?;
        let mut values = vec![self.settings.absent(self.silence); n_mels * chunk_frames];
        for (t, column) in columns.chunks_exact(n_mels).enumerate() {
            column.iter().enumerate().for_each(|(mel, value)| values[mel * chunk_frames + t] = *value);
        }
        Some(MelChunk { values, n_valid: chunk_frames.min(self.n_valid - index * chunk_frames) })
    }
}

/// One chunk of features.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MelChunk {
    /// `[M, C]`.
    pub values: Vec<f32>,
    /// Frames of it that hold a sample of the clip, v.
    pub n_valid: usize,
}

/// Triangles on Slaney's scale, linear below 1000 Hz and logarithmic above, each of the same area.
fn filters(n_mels: usize) -> Vec<Filter> {
    let log_step = ln(6.4) / 27.0;
    let to_hz = |mel: f64| if mel >= 15.0 { 1000.0 * exp((mel - 15.0) * log_step) } else { 200.0 * mel / 3.0 };
    let top = 15.0 + ln(TOP_HZ / 1000.0) / log_step;
    let edge = |i: usize| to_hz(top * i as f64 / (n_mels + 1) as f64);
    let weight = |[low, middle, high]: [f64; 3], bin: usize| {
        let hz = TOP_HZ / (BINS - 1) as f64 * bin as f64;
        let side = ((hz - low) / (middle - low)).min((high - hz) / (high - middle));
        side.max(0.0) * (2.0 / (high - low))
    };
    let filter = |mel: usize| {
        let edges = [edge(mel), edge(mel + 1), edge(mel + 2)];
        let all: Vec<f64> = (0..BINS).map(|bin| weight(edges, bin)).collect();
        let first = all.iter().position(|weight| *weight > 0.0).unwrap_or(0);
        let end = all.iter().rposition(|weight| *weight > 0.0).map_or(first, |last| last + 1);
        Filter { first, weights: all[first..end].to_vec() }
    };
    (0..n_mels).map(filter).collect()
}
