//! From a decoded clip to what a prompt holds of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::{AudioCost, AudioShape, Clip, Features, LogMel, MelError, MelSettings};
use crate::limits::Limits;

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
    n_rows: usize,
    hash: u64,
    n_samples: usize,
}

impl ClipConfig {
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
        let n_rows = usize::try_from(self.cost(samples.len() as u64).tokens).unwrap_or(usize::MAX);
        Sound {
            features: Arc::new(self.mel.features(samples)),
            n_rows,
            hash: self.hash(samples),
            n_samples: samples.len(),
        }
    }

    /// Identifies a clip by its samples, and by all that decides what becomes of them before the tower.
    fn hash(&self, samples: &[f32]) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{:?} {:?}", self.mel.settings(), self.shape).hash(&mut hasher);
        samples.iter().for_each(|sample| sample.to_bits().hash(&mut hasher));
        hasher.finish()
    }
}

impl Sound {
    /// The features.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Rows that the tower makes of it.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Identifies it: equal samples that are prepared in the same way have the same.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Samples at 16 kHz.
    pub fn n_samples(&self) -> usize {
        self.n_samples
    }
}
