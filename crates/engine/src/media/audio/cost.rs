//! What a clip costs before any model runs.

use std::num::NonZero;

use super::{HOP, PaddingMode};

/// What of a model decides how many tokens a clip becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioShape {
    /// Mel frames of a chunk, C; the encoder has half as many.
    pub chunk_frames: NonZero<u64>,
    /// Encoder frames that become one token.
    pub stack: NonZero<u64>,
    /// Which encoder frames count.
    pub padding: PaddingMode,
    /// Encoder frames of a block, if none sees a later block: then what is being said is computed block by block. A divisor
    /// of a chunk's frames and a multiple of `stack`.
    pub block: Option<NonZero<u64>>,
}

/// Frames and tokens of a chunk or of a whole clip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AudioCost {
    /// Mel frames that hold a sample.
    pub mel_frames: u64,
    /// Encoder frames that count.
    pub encoder_frames: u64,
    /// Tokens, markers not included.
    pub tokens: u64,
}

impl AudioShape {
    /// Chunks of a clip of `n_samples` at 16 kHz.
    pub fn n_chunks(&self, n_samples: u64) -> u64 {
        n_samples.div_ceil(HOP as u64).div_ceil(self.chunk_frames.get())
    }

    /// What the chunks of a clip cost, one after the other.
    pub fn chunks(&self, n_samples: u64) -> impl Iterator<Item = AudioCost> + '_ {
        let mut left = n_samples.div_ceil(HOP as u64);
        std::iter::from_fn(move || {
            let mel_frames = left.min(self.chunk_frames.get());
            left -= mel_frames;
            (mel_frames > 0).then(|| self.chunk(mel_frames))
        })
    }

    /// What a clip of `n_samples` at 16 kHz costs.
    pub fn clip(&self, n_samples: u64) -> AudioCost {
        let mel_frames = n_samples.div_ceil(HOP as u64);
        let (n_full, rest) = (mel_frames / self.chunk_frames, mel_frames % self.chunk_frames);
        let full = self.chunk(self.chunk_frames.get());
        let last = if rest > 0 { self.chunk(rest) } else { AudioCost::default() };
        AudioCost {
            mel_frames,
            encoder_frames: n_full * full.encoder_frames + last.encoder_frames,
            tokens: n_full * full.tokens + last.tokens,
        }
    }

    /// What a chunk with `mel_frames` of at least one costs.
    pub(super) fn chunk(&self, mel_frames: u64) -> AudioCost {
        let encoder_frames = match self.padding {
            PaddingMode::Valid => mel_frames.div_ceil(2),
            PaddingMode::Chunk => self.chunk_frames.get().div_ceil(2),
        };
        AudioCost { mel_frames, encoder_frames, tokens: encoder_frames.div_ceil(self.stack.get()) }
    }
}
