//! From a decoded clip to what a prompt holds of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZero;
use std::sync::Arc;

use llama::AudioPreprocessorConfig;

use super::fft::LEN;
use super::{AudioCost, AudioShape, Clip, Features, HOP, LogMel, MelChunk, MelError, MelSettings};
use crate::limits::Limits;
use crate::media::Keys;

/// How clips become features, and how many rows these become. Clones are the same.
#[derive(Debug, Clone)]
pub struct ClipConfig {
    mel: Arc<LogMel>,
    shape: AudioShape,
}

/// A clip, ready for the audio tower. Clones share the features.
#[derive(Debug, Clone)]
pub struct Sound {
    features: Arc<Features>,
    n_samples: usize,
    /// Rows of a chunk that is full.
    chunk_rows: usize,
    n_rows: usize,
    /// Identify the chunks by all that the tower sees of them.
    hashes: Vec<u64>,
    /// Whether more of it may come: then only full chunks count.
    is_open: bool,
}

impl ClipConfig {
    /// How a model takes clips whose preprocessor is `own` and whose projector joins `stack` frames to a row.
    ///
    /// # Errors
    /// As [`LogMel::parse`].
    pub fn of(own: &AudioPreprocessorConfig, stack: usize, limits: &Limits) -> Result<Self, MelError> {
        let settings = MelSettings {
            n_mels: own.n_mels,
            chunk_frames: own.chunk_columns,
            log_mel_max: own.log_mel_max,
            pad_to: own.pad_to,
        };
        // A chunk of none is refused below, and a projector joins one frame at least.
        let count = |n: usize| NonZero::new(n as u64).unwrap_or(NonZero::<u64>::MIN);
        let shape =
            AudioShape { chunk_frames: count(own.chunk_columns), stack: count(stack), padding: own.padding_mode };
        Self::parse(settings, shape, limits)
    }

    /// How a model with these settings takes clips.
    ///
    /// # Errors
    /// As [`LogMel::parse`].
    pub fn parse(settings: MelSettings, shape: AudioShape, limits: &Limits) -> Result<Self, MelError> {
        Ok(Self { mel: Arc::new(LogMel::parse(settings, limits)?), shape })
    }

    /// What makes features.
    pub fn mel(&self) -> &Arc<LogMel> {
        &self.mel
    }

    /// What a clip of `n_samples` at 16 kHz costs.
    pub fn cost(&self, n_samples: u64) -> AudioCost {
        self.shape.clip(n_samples)
    }

    /// Bytes that the features of a clip of `n_samples` take.
    pub fn feature_bytes(&self, n_samples: u64) -> usize {
        let frames = usize::try_from(self.cost(n_samples).mel_frames).unwrap_or(usize::MAX);
        frames.saturating_mul(self.mel.settings().n_mels).saturating_mul(size_of::<f32>())
    }

    /// Features of a clip.
    pub fn sound(&self, clip: &Clip) -> Sound {
        let samples = clip.samples();
        let features = self.mel.features(samples);
        let rows = |n_samples: u64| usize::try_from(self.cost(n_samples).tokens).unwrap_or(usize::MAX);
        let n_rows = rows(samples.len() as u64);
        let chunk_rows = rows((self.mel.settings().chunk_frames * HOP) as u64);
        let hashes = features.chunks().map(|chunk| self.hash(&chunk)).collect();
        let n_samples = samples.len();
        Sound { features: Arc::new(features), n_samples, chunk_rows, n_rows, hashes, is_open: false }
    }

    /// Chunks of a clip of `n_samples` that more samples do not change: those that are full, and the window of whose last frame,
    /// which reaches into the next one.
    pub fn n_certain(&self, n_samples: usize) -> usize {
        n_samples.saturating_sub(LEN / 2) / (self.mel.settings().chunk_frames * HOP)
    }

    /// What is certain of a clip of which more may come: its full chunks. Those behind them may still change, and so may all,
    /// if the maximum that features are held against is the clip's own: then it is another clip.
    ///
    /// `None` as long as no chunk is full.
    pub fn open_sound(&self, clip: &Clip) -> Option<Sound> {
        let n_full = self.n_certain(clip.samples().len());
        let sound = self.sound(clip);
        let n_rows = n_full * sound.chunk_rows;
        let hashes = sound.hashes.get(..n_full)?.to_vec();
        (n_full > 0).then_some(Sound { n_rows, hashes, is_open: true, ..sound })
    }

    /// Identifies a chunk by its features, and by all that decides what becomes of them.
    fn hash(&self, chunk: &MelChunk) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{:?}", self.shape).hash(&mut hasher);
        chunk.n_valid.hash(&mut hasher);
        chunk.values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
        hasher.finish()
    }
}

impl Sound {
    /// The chunk of this number, from 0; `None` behind the last.
    pub fn chunk(&self, index: usize) -> Option<MelChunk> {
        self.features.chunk(index).filter(|_| index < self.hashes.len())
    }

    /// Chunks.
    pub fn n_chunks(&self) -> usize {
        self.hashes.len()
    }

    /// Rows that the tower makes of it.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Whether more of it may come.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Identifies its chunks: their rows are the same, whatever comes behind them.
    pub fn keys(&self) -> Keys {
        Keys::new(self.hashes.clone(), self.chunk_rows)
    }

    /// Samples at 16 kHz.
    pub fn n_samples(&self) -> usize {
        self.n_samples
    }
}
