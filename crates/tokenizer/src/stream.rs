//! Text that arrives token by token.

use crate::{Specials, Tokenizer};

/// Gives out complete characters of bytes that arrive in pieces.
///
/// What it gives out, put together, is what [`String::from_utf8_lossy`] makes of all bytes at once.
#[derive(Debug, Default, Clone)]
pub struct Utf8Stream {
    /// At most the first three bytes of a character.
    torn: Vec<u8>,
}

impl Utf8Stream {
    /// A stream that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes more bytes and gives the characters that are now complete; a wrong sequence becomes U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut text = String::new();
        let mut pending = std::mem::take(&mut self.torn);
        pending.extend_from_slice(bytes);
        let mut rest = pending.as_slice();
        while !rest.is_empty() {
            let (valid, error) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, None),
                Err(error) => {
                    let valid = rest.get(..error.valid_up_to()).unwrap_or_default();
                    (std::str::from_utf8(valid).unwrap_or_default(), Some(error))
                }
            };
            text.push_str(valid);
            rest = rest.get(valid.len()..).unwrap_or_default();
            let Some(error) = error else { break };
            let Some(wrong) = error.error_len() else {
                self.torn = rest.to_vec();
                break;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = rest.get(wrong..).unwrap_or_default();
        }
        text
    }

    /// Whether a character has begun that is not complete.
    pub fn is_torn(&self) -> bool {
        !self.torn.is_empty()
    }

    /// Ends the stream: U+FFFD if a character was left incomplete, else nothing.
    pub fn flush(&mut self) -> String {
        match std::mem::take(&mut self.torn).is_empty() {
            true => String::new(),
            false => char::REPLACEMENT_CHARACTER.into(),
        }
    }
}

/// Turns ids into text as they come.
#[derive(Debug, Clone)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    specials: Specials,
    utf8: Utf8Stream,
}

impl<'a> TokenStream<'a> {
    /// A stream that has seen nothing.
    pub fn new(tokenizer: &'a Tokenizer, specials: Specials) -> Self {
        Self { tokenizer, specials, utf8: Utf8Stream::new() }
    }

    /// Takes a token and gives the characters that are now complete, which may be none.
    ///
    /// A control token also ends an incomplete character.
    pub fn push(&mut self, id: u32) -> String {
        let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
        if !self.tokenizer.is_control(id) {
            return self.utf8.push(bytes);
        }
        let mut text = self.utf8.flush();
        if self.specials == Specials::Keep {
            text.push_str(&self.utf8.push(bytes));
        }
        text
    }

    /// Ends the stream: U+FFFD if a character was left incomplete, else nothing.
    pub fn flush(&mut self) -> String {
        self.utf8.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn pieces_give_the_text_of_the_whole(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
            text in "\\PC{0,8}",
            cut in 0usize..4,
        ) {
            for whole in [bytes.as_slice(), text.as_bytes(), &text.as_bytes()[..text.len().saturating_sub(cut)]] {
                for len in 1..5 {
                    let mut stream = Utf8Stream::new();
                    let mut out: String = whole.chunks(len).map(|chunk| stream.push(chunk)).collect();
                    out.push_str(&stream.flush());
                    proptest::prop_assert_eq!(&out, &String::from_utf8_lossy(whole));
                }
            }
        }
    }

    #[test]
    fn a_character_comes_out_with_its_last_byte() {
        let mut stream = Utf8Stream::new();
        let bytes = "é🙂".as_bytes();
        let out: Vec<String> = bytes.iter().map(|b| stream.push(&[*b])).collect();
        assert_eq!(out, ["", "é", "", "", "", "🙂"]);
        assert_eq!(stream.flush(), "");
        assert_eq!(stream.push(&bytes[..1]), "");
        assert_eq!(stream.flush(), "\u{fffd}");
        assert_eq!(stream.flush(), "");
    }
}
