//! What is learnt from: rows of one sequence, and what is to be said next at each.

use llama::Input;

/// One sequence: a document, or a conversation with its pictures and sounds. Attention never leaves it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sequence {
    /// What stands at each position. [`Input::Feature`] counts through [`media`](Self::media).
    pub inputs: Vec<Input>,
    /// The token that is right after each position; any where the weight is 0.
    pub targets: Vec<u32>,
    /// What each position's loss counts: 0 where nothing is learnt, such as what a user says.
    pub weights: Vec<f32>,
    /// Pictures and sounds.
    pub media: Vec<Media>,
}

/// A picture or a sound, as its tower takes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Media {
    /// Tiles of pixels, `[n, 3, tile, tile]`, normalised.
    Image(Vec<f32>),
    /// Chunks of a clip.
    Sound(Vec<Chunk>),
}

/// A chunk of log-mel columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Those that are read, column by column: `[_, M]`.
    pub columns: Vec<f32>,
    /// Columns at the front that the clip reaches.
    pub valid: usize,
}

impl Sequence {
    /// Text of which every token but the first is to be learnt.
    pub fn text(ids: &[u32]) -> Self {
        let n = ids.len().saturating_sub(1);
        Self {
            inputs: ids[..n].iter().map(|id| Input::Token(*id)).collect(),
            targets: ids.iter().skip(1).copied().collect(),
            weights: vec![1.0; n],
            media: Vec::new(),
        }
    }

    /// Positions.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// The sum of the weights.
    pub fn weight(&self) -> f64 {
        self.weights.iter().map(|weight| f64::from(*weight)).sum()
    }
}
