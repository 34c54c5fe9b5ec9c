//! A tokenizer's tokens as bytes in a tree, which automata walk.

use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use tokenizer::Tokenizer;

/// The tokens of one tokenizer.
pub(super) struct Vocabulary {
    tokens: TokTrie,
}

impl Vocabulary {
    /// Of `n_vocab` ids, of which `end` ends an answer.
    pub(super) fn new(tokenizer: &Tokenizer, n_vocab: u32, end: u32) -> Self {
        let word = |id: u32| {
            let bytes = tokenizer.token_bytes(id).unwrap_or_default();
            if tokenizer.is_control(id) {
                // No text leads to it: the marker is a byte that UTF-8 does not have.
                [&[TokTrie::SPECIAL_TOKEN_MARKER][..], bytes].concat()
            } else {
                bytes.to_vec()
            }
        };
        let words: Vec<Vec<u8>> = (0..n_vocab).map(word).collect();
        Self { tokens: TokTrie::from(&TokRxInfo::new(n_vocab, end), &words) }
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.tokens
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.tokens.greedy_tokenize(bytes)
    }

    /// Greedy is not how the model would cut it, so no token is ever forced.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}
