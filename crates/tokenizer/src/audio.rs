//! The tokens that stand for a clip of audio in a prompt.

/// The control tokens of which an audio block is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioIds {
    /// Begins a block, where the model knows such a token: `<|audio_start|>`.
    pub start: Option<u32>,
    /// Is replaced by one row: `<|audio|>`.
    pub audio: u32,
    /// Ends a block, where the model knows such a token: `<|audio_end|>`.
    pub end: Option<u32>,
}

impl AudioIds {
    /// Tokens of a block beside those that rows replace.
    pub fn n_markers(&self) -> usize {
        usize::from(self.start.is_some()) + usize::from(self.end.is_some())
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = u32> {
        [self.start, Some(self.audio), self.end].into_iter().flatten()
    }

    /// The tokens of a clip of `n_rows`: its chunks stand behind each other with nothing between them.
    pub fn block(self, n_rows: usize) -> impl Iterator<Item = u32> {
        self.start.into_iter().chain(std::iter::repeat_n(self.audio, n_rows)).chain(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_markers_that_a_model_knows() {
        let all = AudioIds { start: Some(1), audio: 2, end: Some(3) };
        let bare = AudioIds { start: None, audio: 2, end: None };
        assert_eq!(all.block(2).collect::<Vec<_>>(), [1, 2, 2, 3]);
        assert_eq!(bare.block(1).collect::<Vec<_>>(), [2]);
        assert_eq!((all.n_markers(), bare.n_markers()), (2, 0));
        assert_eq!(all.all().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
