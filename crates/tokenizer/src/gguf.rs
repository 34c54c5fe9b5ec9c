//! The tokenizer inside a GGUF file.

use std::collections::HashMap;

use crate::TokenizerError;
use crate::added::Finder;
use crate::byte_level;
use crate::encoder::{Encoder, MergeEncoder, ScoreEncoder};
use crate::merge::Join;
use crate::ranks::shown;
use crate::split::{Pattern, Splitter};
use crate::vocabulary::{Kind, Vocabulary, looks_like_control};

/// The `tokenizer.*` entries of a GGUF file, as its reader found them.
///
/// An entry that the file lacks is `None` or empty. Tokens, merges and scores are not looked at before
/// [`Tokenizer::from_gguf`](crate::Tokenizer::from_gguf).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocabulary {
    /// The file's name, for error messages.
    pub file: String,
    /// `tokenizer.ggml.model`: `gpt2` for byte-level BPE, `llama` for SentencePiece BPE.
    pub model: String,
    /// `tokenizer.ggml.pre`: the pre-tokenisation of a `gpt2` model.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the spelling of every id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty: all normal.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.scores`: one for each token of a `llama` model.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.merges`: "left right", the first merged first, of a `gpt2` model.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.eom_token_id`.
    pub eom: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`, of a `llama` model.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

/// The two families of vocabulary that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// Byte-level BPE with a merge list, model `gpt2`.
    Merges,
    /// SentencePiece BPE with scores, model `llama`.
    Scores,
}

/// Checks a vocabulary and builds its tables.
///
/// # Errors
/// [`TokenizerError`] naming the entry and the value that is wrong or not supported.
pub(crate) fn parse(source: &GgufVocabulary) -> Result<(Vocabulary, Encoder), TokenizerError> {
    let model = model(source)?;
    let vocabulary = vocabulary(source, model)?;
    check_ids(source)?;
    let encoder = match model {
        Model::Merges => Encoder::Merges(merges(source, &vocabulary)?),
        Model::Scores => Encoder::Scores(scores(source, &vocabulary)?),
    };
    Ok((vocabulary, encoder))
}

/// The family that `tokenizer.ggml.model` names.
pub(crate) fn model(source: &GgufVocabulary) -> Result<Model, TokenizerError> {
    match source.model.as_str() {
        "gpt2" => Ok(Model::Merges),
        "llama" => Ok(Model::Scores),
        other => {
            let why = format!("tokenizer.ggml.model: '{}' is not supported; 'gpt2' and 'llama' are", shown(other));
            Err(TokenizerError::unsupported(&source.file, why))
        }
    }
}

/// The pattern that `tokenizer.ggml.pre` names.
fn pattern(source: &GgufVocabulary) -> Result<Pattern, TokenizerError> {
    let pre = source.pre.as_deref().unwrap_or("default");
    Pattern::of_gguf(pre).ok_or_else(|| {
        let why = format!(
            "tokenizer.ggml.pre: '{}' is not supported; llama4, gpt-4o, llama-bpe, smollm, gpt-2, qwen2 and default are",
            shown(pre)
        );
        TokenizerError::unsupported(&source.file, why)
    })
}

fn vocabulary(source: &GgufVocabulary, model: Model) -> Result<Vocabulary, TokenizerError> {
    let file = &source.file;
    let (n_tokens, n_types) = (source.tokens.len(), source.token_types.len());
    if n_tokens == 0 {
        return Err(TokenizerError::corrupt(file, "tokenizer.ggml.tokens: there are none"));
    }
    if n_types != 0 && n_types != n_tokens {
        let why = format!("tokenizer.ggml.token_type: {n_types} entries for {n_tokens} tokens");
        return Err(TokenizerError::corrupt(file, why));
    }
    let mut vocabulary = Vocabulary::default();
    for (id, spelling) in source.tokens.iter().enumerate() {
        let token_type = source.token_types.get(id).copied().unwrap_or(1);
        let (bytes, kind) = token(id, spelling, token_type, model).map_err(|why| TokenizerError::corrupt(file, why))?;
        vocabulary.push(file, &bytes, kind)?;
    }
    Ok(vocabulary)
}

/// The bytes and the kind of a token.
fn token(id: usize, spelling: &str, token_type: i32, model: Model) -> Result<(Vec<u8>, Kind), String> {
    let raw = || spelling.as_bytes().to_vec();
    match token_type {
        1..=6 if looks_like_control(spelling) => Ok((raw(), Kind::Control)),
        1 if model == Model::Merges => Ok((byte_level::decode(spelling), Kind::Text)),
        1 => Ok((spelling.replace('▁', " ").into_bytes(), Kind::Text)),
        2 | 3 => Ok((raw(), Kind::Control)),
        4 => Ok((raw(), Kind::Added)),
        5 => Ok((raw(), Kind::Gap)),
        6 => match byte_token(spelling) {
            Some(byte) => Ok((vec![byte], Kind::Text)),
            None => Err(format!("tokenizer.ggml.tokens[{id}]: '{}' is a byte token but not <0xNN>", shown(spelling))),
        },
        _ => Err(format!("tokenizer.ggml.token_type[{id}]: {token_type} is not a type from 1 to 6")),
    }
}

/// The byte that a token such as `<0x0A>` stands for.
pub(crate) fn byte_token(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_byte { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Whether the ids that the file names are ids at all.
fn check_ids(source: &GgufVocabulary) -> Result<(), TokenizerError> {
    for (field, id) in [
        ("bos", source.bos),
        ("eos", source.eos),
        ("eot", source.eot),
        ("eom", source.eom),
        ("unknown", source.unknown),
        ("padding", source.pad),
    ] {
        let n_tokens = source.tokens.len();
        if let Some(id) = id.filter(|&id| usize::try_from(id).map_or(true, |id| id >= n_tokens)) {
            let why = format!("tokenizer.ggml.{field}_token_id: {id} is outside of 0..{n_tokens}");
            return Err(TokenizerError::corrupt(&source.file, why));
        }
    }
    Ok(())
}

fn merges(source: &GgufVocabulary, vocabulary: &Vocabulary) -> Result<MergeEncoder, TokenizerError> {
    let file = &source.file;
    let pattern = pattern(source)?;
    if source.merges.is_empty() {
        return Err(TokenizerError::corrupt(file, "tokenizer.ggml.merges: there are none"));
    }
    // Only text can be merged into: that is what keeps control tokens out of it. Of equal spellings the last counts.
    let id_by_spelling: HashMap<&str, u32> =
        text_tokens(source, vocabulary).map(|(id, spelling)| (spelling, id)).collect();
    let mut join_by_pair = HashMap::with_capacity(source.merges.len());
    for (rank, merge) in (0u32..).zip(&source.merges) {
        let (pair, id) = parse_merge(merge, &id_by_spelling)
            .map_err(|why| TokenizerError::corrupt(file, format!("tokenizer.ggml.merges[{rank}]: {why}")))?;
        join_by_pair.entry(pair).or_insert(Join { rank, id });
    }
    let mut id_by_byte = [None; 256];
    for (byte, id) in (0..=255u8).zip(&mut id_by_byte) {
        *id = id_by_spelling.get(byte_level::char_of(byte).encode_utf8(&mut [0; 4]) as &str).copied();
    }
    let whole = match pattern.ignores_merges() {
        true => id_by_spelling.iter().map(|(s, &id)| (byte_level::decode(s).into_boxed_slice(), id)).collect(),
        false => HashMap::new(),
    };
    Ok(MergeEncoder {
        join_by_pair,
        id_by_byte,
        unknown: unknown(source, vocabulary),
        whole,
        added: added(source, vocabulary)?,
        splitter: Splitter::new(pattern),
    })
}

/// The pair and the result of "left right". A token of a merge list never contains a space.
fn parse_merge(merge: &str, id_by_spelling: &HashMap<&str, u32>) -> Result<((u32, u32), u32), String> {
    let id = |spelling: &str| {
        let known = id_by_spelling.get(spelling).copied();
        known.ok_or_else(|| format!("'{}' of '{}' is not a text token", shown(spelling), shown(merge)))
    };
    let (left, right) = merge.split_once(' ').ok_or_else(|| format!("'{}' is not 'left right'", shown(merge)))?;
    Ok(((id(left)?, id(right)?), id(&format!("{left}{right}"))?))
}

fn scores(source: &GgufVocabulary, vocabulary: &Vocabulary) -> Result<ScoreEncoder, TokenizerError> {
    let file = &source.file;
    if source.scores.len() != source.tokens.len() {
        let why = format!("tokenizer.ggml.scores: {} for {} tokens", source.scores.len(), source.tokens.len());
        return Err(TokenizerError::corrupt(file, why));
    }
    if let Some(id) = source.scores.iter().position(|s| !s.is_finite()) {
        return Err(TokenizerError::corrupt(file, format!("tokenizer.ggml.scores[{id}]: not a finite number")));
    }
    // Equal scores get equal ranks, so that among them the leftmost pair is joined first.
    let mut descending = source.scores.clone();
    descending.sort_by(|a, b| b.total_cmp(a));
    descending.dedup();
    let rank = |score: f32| descending.partition_point(|&s| s > score) as u32;
    let mut id_by_byte = [None; 256];
    let mut join_by_bytes = HashMap::new();
    for ((id, spelling), &score) in (0u32..).zip(&source.tokens).zip(&source.scores) {
        let is_byte = source.token_types.get(id as usize) == Some(&6);
        if let Some(slot) = byte_token(spelling).filter(|_| is_byte).and_then(|b| id_by_byte.get_mut(usize::from(b))) {
            *slot = Some(id);
        } else if vocabulary.kind(id) == Kind::Text && !spelling.is_empty() {
            let bytes = vocabulary.bytes(id).unwrap_or_default();
            join_by_bytes.insert(bytes.into(), Join { rank: rank(score), id });
        }
    }
    Ok(ScoreEncoder {
        longest_bytes: join_by_bytes.keys().map(AsRef::<[u8]>::as_ref).map(<[u8]>::len).max().unwrap_or(0),
        join_by_bytes,
        id_by_byte,
        unknown: unknown(source, vocabulary),
        added: added(source, vocabulary)?,
    })
}

/// The tokens that text may become by merging.
fn text_tokens<'a>(source: &'a GgufVocabulary, vocabulary: &Vocabulary) -> impl Iterator<Item = (u32, &'a str)> {
    (0u32..)
        .zip(&source.tokens)
        .map(|(id, spelling)| (id, spelling.as_str()))
        .filter(|&(id, spelling)| vocabulary.kind(id) == Kind::Text && !spelling.is_empty())
}

/// The token for what cannot be encoded. Files name control tokens here too (`<|endoftext|>`); those are never made.
fn unknown(source: &GgufVocabulary, vocabulary: &Vocabulary) -> Option<u32> {
    source.unknown.filter(|&id| vocabulary.kind(id) == Kind::Text)
}

/// A finder of the user-defined tokens.
fn added(source: &GgufVocabulary, vocabulary: &Vocabulary) -> Result<Option<Finder>, TokenizerError> {
    let tokens = (0u32..).zip(&source.tokens).filter(|&(id, _)| vocabulary.kind(id) == Kind::Added);
    Finder::new(tokens.map(|(id, spelling)| (spelling.as_str(), id)))
        .map_err(|why| TokenizerError::corrupt(&source.file, format!("tokenizer.ggml.tokens: {why}")))
}

/// Whether a `gpt2` model that does not say so begins its texts: llama.cpp takes that for granted of Llama 3's.
pub(crate) fn implies_bos(source: &GgufVocabulary) -> bool {
    source.pre.as_deref().and_then(Pattern::of_gguf) == Some(Pattern::Llama3)
}
