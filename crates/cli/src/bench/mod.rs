//! Measuring how fast a model runs, beside what the machine allows and beside another engine.

pub mod cpu_time;
pub mod load;
pub mod ours;
pub mod peer;
pub mod report;
pub mod server;

use anyhow::Result;

/// Seconds of the clip of audio that is measured.
pub const CLIP_SECONDS: u32 = 30;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "test", rename_all = "lowercase")]
pub enum Test {
    /// Reading `tokens` after `depth` others.
    Prefill { tokens: usize, depth: usize },
    /// `tokens` steps of `batch` sequences that hold `depth` tokens each.
    Decode { tokens: usize, depth: usize, batch: usize },
    /// One tile of an image through the vision tower, which makes `tokens` rows of it.
    Tile { tokens: usize },
    /// A clip of [`CLIP_SECONDS`] that becomes so many tokens, from its samples on.
    Clip { tokens: usize },
}

impl Test {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill { .. } => "prefill",
            Self::Decode { .. } => "decode",
            Self::Tile { .. } => "tile",
            Self::Clip { .. } => "clip",
        }
    }

    /// Tokens, depth and batch.
    pub fn numbers(self) -> [usize; 3] {
        match self {
            Self::Prefill { tokens, depth } => [tokens, depth, 1],
            Self::Decode { tokens, depth, batch } => [tokens, depth, batch],
            Self::Tile { tokens } | Self::Clip { tokens } => [tokens, 0, 1],
        }
    }

    /// Tokens that all sequences together go through.
    pub fn n_tokens(self) -> usize {
        let [tokens, _, batch] = self.numbers();
        tokens * batch
    }

    /// Positions that all sequences together need.
    pub fn n_positions(self) -> usize {
        let [tokens, depth, batch] = self.numbers();
        (tokens + depth).next_multiple_of(tensor::PAGE_LEN) * batch
    }
}

/// Something that a test can be run on.
pub trait Engine {
    /// Brings the engine to where it is in the middle of its work, if [`run`](Self::run) does not do so itself.
    ///
    /// # Errors
    /// If the engine can not do it.
    fn warm(&mut self, _test: Test) -> Result<()> {
        Ok(())
    }

    /// Seconds that the measured part takes.
    ///
    /// # Errors
    /// If the engine can not do it.
    fn run(&mut self, test: Test) -> Result<f64>;

    /// Its process, where it is one of this machine that we started.
    fn process(&self) -> Option<u32> {
        None
    }

    /// How it was set for its last run, where it has more than one setting.
    fn setting(&self) -> Option<&str> {
        None
    }
}

/// Token ids that are the same for every engine, whatever its vocabulary: a linear congruential generator's.
pub struct Ids {
    state: u32,
    n_vocab: u32,
}

impl Ids {
    /// The stream from the start, below `n_vocab`.
    pub fn new(n_vocab: u32) -> Self {
        Self::from_state(1, n_vocab)
    }

    /// Another stream for every `state`, different from its first id on.
    pub fn from_state(state: u32, n_vocab: u32) -> Self {
        Self { state, n_vocab: n_vocab.max(1) }
    }
}

impl Iterator for Ids {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.state = self.state.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7FFF_FFFF;
        Some((self.state >> 8) % self.n_vocab)
    }
}

/// The middle of `values`, the lower one of two; NaN if there are none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5).unwrap_or(f64::NAN)
}

/// The least of `values` that at least a `share` of them do not exceed.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied()
}
