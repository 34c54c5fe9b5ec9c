//! The ways from a piece of text to ids, and what they share.

use std::collections::HashMap;

use crate::added::Finder;
use crate::json::JsonEncoder;
use crate::merge::{Join, Merger, NO_TOKEN, Part};
use crate::split::Splitter;

/// How a tokenizer turns text into ids. No variant ever makes a control id.
#[derive(Debug)]
pub(crate) enum Encoder {
    /// A rank file: any two neighbours whose bytes together are a token may join; the lower id first.
    Ranks(RankEncoder),
    /// A list of merges of byte-level tokens, as in a GGUF of model `gpt2`.
    Merges(MergeEncoder),
    /// Scored pieces, as in a GGUF of model `llama` (SentencePiece BPE).
    Scores(ScoreEncoder),
    /// A Hugging Face `tokenizer.json`.
    Json(Box<JsonEncoder>),
}

/// Encodes by rank; see [`Encoder::Ranks`].
#[derive(Debug)]
pub(crate) struct RankEncoder {
    /// Rank, which is the id, by bytes. All 256 single bytes are there.
    pub id_by_bytes: HashMap<Box<[u8]>, u32>,
    pub splitter: Splitter,
}

/// Encodes by merge list; see [`Encoder::Merges`].
#[derive(Debug)]
pub(crate) struct MergeEncoder {
    /// What joining two tokens makes.
    pub join_by_pair: HashMap<(u32, u32), Join>,
    /// The token of each byte; bytes that the vocabulary lacks become `unknown`, or nothing.
    pub id_by_byte: [Option<u32>; 256],
    pub unknown: Option<u32>,
    /// Pieces that take their id whole, without merging. Empty unless the model is of that kind.
    pub whole: HashMap<Box<[u8]>, u32>,
    pub added: Option<Finder>,
    pub splitter: Splitter,
}

/// Encodes by score; see [`Encoder::Scores`].
#[derive(Debug)]
pub(crate) struct ScoreEncoder {
    /// Token and rank by bytes, a higher score being a lower rank.
    pub join_by_bytes: HashMap<Box<[u8]>, Join>,
    /// The longest of these, in bytes.
    pub longest_bytes: usize,
    /// The tokens that stand for single bytes.
    pub id_by_byte: [Option<u32>; 256],
    pub unknown: Option<u32>,
    pub added: Option<Finder>,
}

impl RankEncoder {
    /// Appends the ids of `piece`.
    pub fn encode(&self, piece: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        self.splitter.each(piece, &mut |word| {
            let word = word.as_bytes();
            if let Some(&id) = self.id_by_bytes.get(word) {
                return ids.push(id);
            }
            merger.clear();
            for byte in word {
                let id = self.id_by_bytes.get(std::slice::from_ref(byte)).copied();
                merger.push(1, id.unwrap_or(NO_TOKEN));
            }
            merger.run(|a, b| self.id_by_bytes.get(joined(word, a, b)).map(|&id| Join { rank: id, id }));
            ids.extend(merger.parts().map(|part| part.id));
        });
    }
}

impl MergeEncoder {
    /// Appends the ids of `piece`.
    pub fn encode(&self, piece: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        each_between_added(self.added.as_ref(), piece, ids, |text, ids| {
            self.splitter.each(text, &mut |word| self.encode_word(word.as_bytes(), merger, ids));
        });
    }

    fn encode_word(&self, word: &[u8], merger: &mut Merger, ids: &mut Vec<u32>) {
        if let Some(&id) = self.whole.get(word) {
            return ids.push(id);
        }
        merger.clear();
        for &byte in word {
            if let Some(id) = self.id_by_byte.get(usize::from(byte)).copied().flatten().or(self.unknown) {
                merger.push(1, id);
            }
        }
        merger.run(|a, b| self.join_by_pair.get(&(a.id, b.id)).copied());
        ids.extend(merger.parts().map(|part| part.id));
    }
}

impl ScoreEncoder {
    /// Appends the ids of `piece`, in which spaces are spaces.
    pub fn encode(&self, piece: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        each_between_added(self.added.as_ref(), piece, ids, |text, ids| {
            merger.clear();
            for c in text.chars() {
                let known = self.join_by_bytes.get(c.encode_utf8(&mut [0; 4]).as_bytes());
                merger.push(c.len_utf8() as u32, known.map_or(NO_TOKEN, |join| join.id));
            }
            let text = text.as_bytes();
            merger.run(|a, b| {
                let joined = joined(text, a, b);
                // Without this, the lookups of a long text without tokens would hash it again and again.
                if joined.len() > self.longest_bytes { None } else { self.join_by_bytes.get(joined).copied() }
            });
            for part in merger.parts() {
                match part.id {
                    NO_TOKEN => self.encode_bytes(part.of(text), ids),
                    id => ids.push(id),
                }
            }
        });
    }

    /// A character that is no token: its bytes if all of them are tokens, else the unknown token.
    fn encode_bytes(&self, bytes: &[u8], ids: &mut Vec<u32>) {
        let of = |&byte: &u8| self.id_by_byte.get(usize::from(byte)).copied().flatten();
        match bytes.iter().map(of).collect::<Option<Vec<u32>>>() {
            Some(known) => ids.extend(known),
            None => ids.extend(self.unknown),
        }
    }
}

/// The bytes of two neighbours.
fn joined<'a>(piece: &'a [u8], a: &Part, b: &Part) -> &'a [u8] {
    piece.get(a.begin as usize..(b.begin + b.len) as usize).unwrap_or_default()
}

/// Appends the ids of added tokens in `piece` and has `encode` append those of the text between them.
fn each_between_added(
    added: Option<&Finder>,
    piece: &str,
    ids: &mut Vec<u32>,
    mut encode: impl FnMut(&str, &mut Vec<u32>),
) {
    let Some(finder) = added else { return encode(piece, ids) };
    finder.each(piece, |found| match found {
        crate::added::Found::Text(text) => encode(text, ids),
        crate::added::Found::Token(id) => ids.push(id),
    });
}
