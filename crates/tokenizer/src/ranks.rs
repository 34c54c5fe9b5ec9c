//! Rank files: one token a line, base64 of its bytes and its rank, which is also its id.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::encoder::{Encoder, RankEncoder};
use crate::split::{Pattern, Splitter};
use crate::vocabulary::{Kind, Vocabulary};
use crate::{SpecialTokens, TokenizerError};

/// Reads a rank file and appends the control tokens.
///
/// # Errors
/// [`TokenizerError::Corrupt`] naming the line, if the file is not what Llama 4's `tokenizer.model` is.
pub(crate) fn parse(
    file: &str,
    bytes: &[u8],
    specials: &SpecialTokens,
) -> Result<(Vocabulary, Encoder), TokenizerError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| TokenizerError::corrupt(file, format!("byte {}: not text", e.valid_up_to())))?;
    let mut vocabulary = Vocabulary::default();
    let mut id_by_bytes = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let why = |why: String| TokenizerError::corrupt(file, format!("line {}: {why}", at + 1));
        let token = parse_line(line, at).map_err(why)?;
        let id = vocabulary.push(file, &token, Kind::Text)?;
        if let Some(first) = id_by_bytes.insert(token.into_boxed_slice(), id) {
            return Err(why(format!("token '{line}' repeats that of rank {first}")));
        }
    }
    if let Some(missing) = (0..=255u8).find(|b| !id_by_bytes.contains_key(std::slice::from_ref(b))) {
        let why = format!("tokens: none is the single byte {missing}; all 256 are needed to encode any text");
        return Err(TokenizerError::corrupt(file, why));
    }
    for name in specials.names() {
        if name.is_empty() || vocabulary.control(name).is_some() {
            return Err(TokenizerError::corrupt(file, format!("special tokens: '{name}' is empty or there twice")));
        }
        vocabulary.push(file, name.as_bytes(), Kind::Control)?;
    }
    Ok((vocabulary, Encoder::Ranks(RankEncoder { id_by_bytes, splitter: Splitter::new(Pattern::O200k) })))
}

/// The token of a line whose rank must be `at`.
fn parse_line(line: &str, at: usize) -> Result<Vec<u8>, String> {
    let (base64, rank) = line.split_once(' ').ok_or_else(|| format!("'{}' is not 'base64 rank'", shown(line)))?;
    // The type of an id is the bound; str::parse alone would take a sign or a leading zero.
    if rank.parse::<u32>().map(|r| r.to_string()) != Ok(rank.to_owned()) {
        return Err(format!("rank '{}' is not a number below 4294967296", shown(rank)));
    }
    if rank.parse() != Ok(at) {
        return Err(format!("rank '{rank}' is out of order; ranks count from 0 without gaps, so it must be {at}"));
    }
    let token = STANDARD.decode(base64).map_err(|e| format!("token '{}' is not base64: {e}", shown(base64)))?;
    if token.is_empty() { Err("token '' is empty".into()) } else { Ok(token) }
}

/// As much of a value from a file as an error message wants.
pub(crate) fn shown(value: &str) -> String {
    match value.char_indices().nth(40) {
        Some((cut, _)) => format!("{}…", value.get(..cut).unwrap_or_default().escape_debug()),
        None => value.escape_debug().to_string(),
    }
}
