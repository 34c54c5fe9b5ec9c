//! Probabilities in the form of `/v1/completions`.

use std::collections::BTreeMap;

use engine::service::{Alternative, Token};
use tokenizer::Tokenizer;

use crate::answer::finite;
use crate::wire::completions::Logprobs;

/// Lists that grow by tokens.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// What came so far.
    pub logprobs: Logprobs,
    /// Characters of all tokens so far.
    n_chars: usize,
}

impl Lists {
    /// Lists that begin after `n_chars` characters.
    pub fn after(n_chars: usize) -> Self {
        Self { logprobs: Logprobs::default(), n_chars }
    }

    /// Characters of all tokens so far.
    pub fn n_chars(&self) -> usize {
        self.n_chars
    }

    /// Adds a token of the prompt; the first has no probability.
    pub fn prompt(&mut self, id: u32, own: Option<Alternative>, likeliest: &[Alternative], tokenizer: &Tokenizer) {
        let own = own.map(|own| own.logprob);
        self.push(id, own, likeliest, tokenizer);
    }

    /// Adds a token of the answer.
    pub fn token(&mut self, token: &Token, tokenizer: &Tokenizer) {
        self.push(token.id, Some(token.logprob), &token.alternatives, tokenizer);
    }

    fn push(&mut self, id: u32, logprob: Option<f32>, likeliest: &[Alternative], tokenizer: &Tokenizer) {
        let lists = &mut self.logprobs;
        lists.tokens.push(name(id, tokenizer));
        lists.token_logprobs.push(logprob.map(finite));
        lists.text_offset.push(self.n_chars);
        // Different tokens may have one text: the likelier one counts.
        lists.top_logprobs.push(logprob.map(|own| {
            let mut top = BTreeMap::new();
            let all = likeliest.iter().map(|other| (other.id, other.logprob)).chain([(id, own)]);
            for (id, logprob) in all {
                let entry = top.entry(name(id, tokenizer)).or_insert(f32::NEG_INFINITY);
                *entry = entry.max(finite(logprob));
            }
            top
        }));
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        // Characters begin at every byte that does not go on with one.
        self.n_chars +=
            if tokenizer.is_control(id) { 0 } else { bytes.iter().filter(|b| (**b & 0xc0) != 0x80).count() };
    }
}

/// A token's text; bytes that are no characters by their numbers, so that two tokens are never told apart by less than
/// they are.
fn name(id: u32, tokenizer: &Tokenizer) -> String {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |name, byte| format!("{name}\\x{byte:02x}")),
    }
}
