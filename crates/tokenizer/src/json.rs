//! Hugging Face's `tokenizer.json`, encoded by the `tokenizers` crate.
//!
//! Every part of the file is checked here first, so that an error names its field and nothing that could make encoding
//! fail, change from call to call or write control tokens gets through. The file's post-processor, padding and
//! truncation are left out: they add tokens or take them away, which is the caller's business.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use crate::TokenizerError;
use crate::byte_level;
use crate::encoder::Encoder;
use crate::gguf::byte_token;
use crate::ranks::shown;
use crate::vocabulary::{Kind, Vocabulary, looks_like_control};

/// How a vocabulary spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// In the byte-level alphabet.
    ByteLevel,
    /// Spaces as `▁`, single bytes as `<0x0A>`.
    SentencePiece,
}

/// The encoder of a `tokenizer.json`.
#[derive(Debug)]
pub(crate) struct JsonEncoder {
    tokenizer: tokenizers::Tokenizer,
    controls: HashSet<u32>,
    /// Whether the file puts a space before every text, and takes it away when decoding.
    pub space_prefix: bool,
}

/// A token of `added_tokens`.
#[derive(Debug, Clone, serde::Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: Option<bool>,
}

impl JsonEncoder {
    /// Appends the ids of `piece`.
    ///
    /// Where the library gives up on a piece (a pattern of the file that needs too much work) or finds a control token
    /// (a file whose merges spell one), both halves are encoded apart; of a single character nothing is left then.
    pub fn encode(&self, piece: &str, ids: &mut Vec<u32>) {
        let encoded = self.tokenizer.encode_fast(piece, false);
        match encoded {
            Ok(encoded) if encoded.get_ids().iter().all(|id| !self.controls.contains(id)) => {
                ids.extend_from_slice(encoded.get_ids());
            }
            _ => {
                let middle = piece.ceil_char_boundary(piece.len() / 2);
                if let Some((left, right)) = piece.split_at_checked(middle).filter(|(_, right)| !right.is_empty()) {
                    self.encode(left, ids);
                    self.encode(right, ids);
                }
            }
        }
    }
}

/// Checks a file and builds its tables.
///
/// # Errors
/// [`TokenizerError`] naming the field and the value that is wrong or not supported.
pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<(Vocabulary, Encoder), TokenizerError> {
    let corrupt = |why: String| TokenizerError::corrupt(file, why);
    let root: Value = serde_json::from_slice(bytes).map_err(|e| corrupt(format!("not JSON: {e}")))?;
    let root = root.as_object().ok_or_else(|| corrupt("not a JSON object".into()))?;
    let model = object(root, "model").map_err(corrupt)?;
    check_steps(file, root)?;
    let bpe_vocab = vocab(model).map_err(corrupt)?;
    let added = added_tokens(root, &bpe_vocab).map_err(corrupt)?;
    let vocabulary = vocabulary(file, root, model, &bpe_vocab, &added)?;
    let bpe = bpe(file, model, bpe_vocab)?;
    // The crate is not written for hostile files; what it does not check must not take the process along.
    let tokenizer = catch_unwind(AssertUnwindSafe(|| tokenizer(root, bpe, &added)))
        .unwrap_or_else(|_| Err("the tokenizers library cannot take this combination of settings".into()))
        .map_err(corrupt)?;
    let controls = vocabulary.controls().map(|(_, id)| id).collect();
    let space_prefix = adds_space_prefix(root);
    Ok((vocabulary, Encoder::Json(Box::new(JsonEncoder { tokenizer, controls, space_prefix }))))
}

fn object<'a>(parent: &'a Map<String, Value>, key: &str) -> Result<&'a Map<String, Value>, String> {
    match parent.get(key) {
        None => Err(format!("{key}: missing")),
        Some(value) => value.as_object().ok_or_else(|| format!("{key}: not an object")),
    }
}

/// The steps before and after the model that are known to be total functions of the text.
const NORMALIZERS: [&str; 10] =
    ["Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "Strip", "ByteLevel"];
const PRE_TOKENIZERS: [&str; 8] =
    ["Sequence", "ByteLevel", "Split", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit"];
const DECODERS: [&str; 7] = ["Sequence", "ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"];

fn check_steps(file: &str, root: &Map<String, Value>) -> Result<(), TokenizerError> {
    check_step(file, "normalizer", root.get("normalizer"), &NORMALIZERS)?;
    check_step(file, "pre_tokenizer", root.get("pre_tokenizer"), &PRE_TOKENIZERS)?;
    check_step(file, "decoder", root.get("decoder"), &DECODERS)
}

fn check_step(file: &str, field: &str, step: Option<&Value>, known: &[&str]) -> Result<(), TokenizerError> {
    let Some(step) = step.filter(|s| !s.is_null()) else { return Ok(()) };
    let kind = step
        .get("type")
        .and_then(Value::as_str)
        .ok_or_else(|| TokenizerError::corrupt(file, format!("{field}.type: missing")))?;
    if !known.contains(&kind) {
        let why = format!("{field}.type: '{}' is not supported; {} are", shown(kind), known.join(", "));
        return Err(TokenizerError::unsupported(file, why));
    }
    if kind != "Sequence" {
        return Ok(());
    }
    let steps = inner_steps(step)
        .ok_or_else(|| TokenizerError::corrupt(file, format!("{field}: a Sequence without its list of steps")))?;
    steps.iter().enumerate().try_for_each(|(at, step)| {
        if step.is_null() {
            return Err(TokenizerError::corrupt(file, format!("{field}[{at}]: null")));
        }
        check_step(file, &format!("{field}[{at}]"), Some(step), known)
    })
}

/// The steps of a sequence; each of the three kinds has another name for them.
fn inner_steps(step: &Value) -> Option<&Vec<Value>> {
    ["normalizers", "pretokenizers", "decoders"].iter().find_map(|key| step.get(key)).and_then(Value::as_array)
}

/// Whether `step` or one inside of it satisfies `is`.
fn any_step(step: Option<&Value>, is: &impl Fn(&Value) -> bool) -> bool {
    step.is_some_and(|step| is(step) || inner_steps(step).is_some_and(|s| s.iter().any(|s| any_step(Some(s), is))))
}

fn is_type(name: &'static str) -> impl Fn(&Value) -> bool {
    move |step| step.get("type").and_then(Value::as_str) == Some(name)
}

/// `model.vocab`: spellings and ids, each once.
fn vocab(model: &Map<String, Value>) -> Result<Vocab, String> {
    let entries = object(model, "vocab").map_err(|why| format!("model.{why}"))?;
    if entries.is_empty() {
        return Err("model.vocab: there are no tokens".into());
    }
    let mut ids = HashSet::with_capacity(entries.len());
    let id_of = |(spelling, id): (&String, &Value)| {
        let field = || format!("model.vocab['{}']", shown(spelling));
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| format!("{}: not an id from 0 to 4294967295", field()))?;
        if spelling.is_empty() {
            return Err(format!("{}: empty", field()));
        }
        if !ids.insert(id) {
            return Err(format!("{}: id {id} is taken by another token", field()));
        }
        Ok((spelling.clone(), id))
    };
    entries.iter().map(id_of).collect()
}

/// `added_tokens`, by id.
fn added_tokens(root: &Map<String, Value>, vocab: &Vocab) -> Result<Vec<Added>, String> {
    let Some(list) = root.get("added_tokens").filter(|l| !l.is_null()) else { return Ok(Vec::new()) };
    let list = list.as_array().ok_or("added_tokens: not a list")?;
    let mut spellings = HashSet::new();
    let mut ids: HashSet<u32> = vocab.values().copied().collect();
    let mut tokens = Vec::with_capacity(list.len());
    for (at, token) in list.iter().enumerate() {
        let why = |why: String| format!("added_tokens[{at}]: {why}");
        let token: Added = serde::Deserialize::deserialize(token).map_err(|e: serde_json::Error| why(e.to_string()))?;
        if token.content.is_empty() || !spellings.insert(token.content.clone()) {
            return Err(why(format!("content '{}' is empty or there twice", shown(&token.content))));
        }
        match vocab.get(&token.content) {
            Some(&id) if id != token.id => {
                return Err(why(format!("'{}' has id {}, in model.vocab {id}", shown(&token.content), token.id)));
            }
            None if !ids.insert(token.id) => return Err(why(format!("id {} is taken by another token", token.id))),
            _ => tokens.push(token),
        }
    }
    tokens.sort_by_key(|token| token.id);
    Ok(tokens)
}

fn spelling(root: &Map<String, Value>) -> Spelling {
    let is_byte_level = [root.get("pre_tokenizer"), root.get("decoder"), root.get("normalizer")]
        .iter()
        .any(|step| any_step(*step, &is_type("ByteLevel")));
    if is_byte_level { Spelling::ByteLevel } else { Spelling::SentencePiece }
}

/// A file's tokens and merges as it spells them.
pub(crate) struct Spelled {
    pub spelling: Spelling,
    /// Tokens of `model.vocab`.
    pub by_id: HashMap<u32, String>,
    /// `model.merges`, the first merged first.
    pub merges: Vec<(String, String)>,
    /// The id of `model.unk_token`.
    pub unknown: Option<u32>,
}

/// Reads what [`parse`] has checked and does not keep.
///
/// # Errors
/// As [`parse`].
pub(crate) fn spelled(file: &str, bytes: &[u8]) -> Result<Spelled, TokenizerError> {
    let corrupt = |why: String| TokenizerError::corrupt(file, why);
    let root: Value = serde_json::from_slice(bytes).map_err(|e| corrupt(format!("not JSON: {e}")))?;
    let root = root.as_object().ok_or_else(|| corrupt("not a JSON object".into()))?;
    let model = object(root, "model").map_err(corrupt)?;
    let vocab = vocab(model).map_err(corrupt)?;
    let merges = merges(model, &vocab).map_err(corrupt)?;
    let unknown = model.get("unk_token").and_then(Value::as_str).and_then(|token| vocab.get(token).copied());
    let by_id = vocab.into_iter().map(|(token, id)| (id, token)).collect();
    Ok(Spelled { spelling: spelling(root), by_id, merges, unknown })
}

/// The table of all tokens by id.
fn vocabulary(
    file: &str,
    root: &Map<String, Value>,
    model: &Map<String, Value>,
    vocab: &Vocab,
    added: &[Added],
) -> Result<Vocabulary, TokenizerError> {
    let spelling = spelling(root);
    let byte_fallback = model.get("byte_fallback").and_then(Value::as_bool) == Some(true);
    let mut tokens: Vec<(u32, Vec<u8>, Kind)> = Vec::with_capacity(vocab.len() + added.len());
    let spelled_apart: HashSet<&str> = added.iter().map(|token| token.content.as_str()).collect();
    for (text, &id) in vocab.iter().filter(|(text, _)| !spelled_apart.contains(text.as_str())) {
        let bytes = match (spelling, byte_token(text).filter(|_| byte_fallback)) {
            (Spelling::ByteLevel, _) => byte_level::decode(text),
            (Spelling::SentencePiece, Some(byte)) => vec![byte],
            (Spelling::SentencePiece, None) => text.replace('▁', " ").into_bytes(),
        };
        tokens.push((id, bytes, if looks_like_control(text) { Kind::Control } else { Kind::Text }));
    }
    for token in added {
        let is_control = token.special || looks_like_control(&token.content);
        let kind = if is_control { Kind::Control } else { Kind::Added };
        tokens.push((token.id, token.content.clone().into_bytes(), kind));
    }
    tokens.sort_by_key(|token| token.0);
    // A table with room for a single id of four billion would be four billion entries long.
    let (n_tokens, most) = (tokens.len(), tokens.len().saturating_mul(8).saturating_add(4096));
    let mut vocabulary = Vocabulary::default();
    for (id, bytes, kind) in tokens {
        if usize::try_from(id).map_or(true, |id| id > most) {
            let why = format!("model.vocab: id {id} among only {n_tokens} tokens");
            return Err(TokenizerError::corrupt(file, why));
        }
        while vocabulary.len() < id as usize {
            vocabulary.push(file, &[], Kind::Gap)?;
        }
        vocabulary.push(file, &bytes, kind)?;
    }
    Ok(vocabulary)
}

/// The `model`, whose merges are checked against its vocabulary.
fn bpe(file: &str, model: &Map<String, Value>, vocab: Vocab) -> Result<BPE, TokenizerError> {
    let corrupt = |why: String| TokenizerError::corrupt(file, why);
    match model.get("type").map(|t| t.as_str().unwrap_or_default()) {
        None | Some("BPE") => {}
        Some(other) => {
            let why = format!("model.type: '{}' is not supported; BPE is", shown(other));
            return Err(TokenizerError::unsupported(file, why));
        }
    }
    for key in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        let is_off = |v: &Value| v.is_null() || v.as_str() == Some("") || v.as_f64() == Some(0.0);
        if !model.get(key).is_none_or(is_off) {
            return Err(TokenizerError::unsupported(file, format!("model.{key}: is not supported; null is")));
        }
    }
    let merges = merges(model, &vocab).map_err(corrupt)?;
    let flag = |key: &str| match model.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| corrupt(format!("model.{key}: not true or false"))),
    };
    let mut builder = BPE::builder()
        .fuse_unk(flag("fuse_unk")?)
        .byte_fallback(flag("byte_fallback")?)
        .ignore_merges(flag("ignore_merges")?);
    if let Some(unknown) = model.get("unk_token").filter(|u| !u.is_null()) {
        let spelling = unknown.as_str().filter(|u| vocab.contains_key(*u));
        let spelling = spelling.ok_or_else(|| corrupt(format!("model.unk_token: {unknown} is not in model.vocab")))?;
        builder = builder.unk_token(spelling.into());
    }
    builder.vocab_and_merges(vocab, merges).build().map_err(|e| corrupt(format!("model: {e}")))
}

/// `model.merges`, as pairs; written `["left", "right"]` or, before 2024, `"left right"`.
fn merges(model: &Map<String, Value>, vocab: &Vocab) -> Result<Vec<(String, String)>, String> {
    let list = model.get("merges").and_then(Value::as_array).ok_or("model.merges: not a list")?;
    let mut merges = Vec::with_capacity(list.len());
    for (at, merge) in list.iter().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                _ => None,
            },
            _ => None,
        };
        let (left, right) = pair.ok_or_else(|| format!("model.merges[{at}]: not a pair of tokens"))?;
        let joined = format!("{left}{right}");
        if let Some(missing) = [left, right, &joined].into_iter().find(|part| !vocab.contains_key(*part)) {
            return Err(format!("model.merges[{at}]: '{}' is not in model.vocab", shown(missing)));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}

/// Puts the parts together and tries them once.
fn tokenizer(root: &Map<String, Value>, bpe: BPE, added: &[Added]) -> Result<tokenizers::Tokenizer, String> {
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    if let Some(step) = root.get("normalizer").filter(|s| !s.is_null()) {
        let step: NormalizerWrapper = step_from(step).map_err(|e| format!("normalizer: {e}"))?;
        tokenizer.with_normalizer(Some(step)).map_err(|e| format!("normalizer: {e}"))?;
    }
    if let Some(step) = root.get("pre_tokenizer").filter(|s| !s.is_null()) {
        let step: PreTokenizerWrapper = step_from(step).map_err(|e| format!("pre_tokenizer: {e}"))?;
        tokenizer.with_pre_tokenizer(Some(step));
    }
    let tokens = added.iter().map(|token| AddedToken {
        content: token.content.clone(),
        single_word: token.single_word,
        lstrip: token.lstrip,
        rstrip: token.rstrip,
        normalized: token.normalized.unwrap_or(!token.special),
        special: token.special || looks_like_control(&token.content),
    });
    tokenizer.add_tokens(tokens).map_err(|e| format!("added_tokens: {e}"))?;
    // The library numbers tokens that are not in model.vocab itself.
    for token in added {
        if tokenizer.token_to_id(&token.content) != Some(token.id) {
            let content = shown(&token.content);
            return Err(format!("added_tokens: '{content}' has id {}, which leaves a gap before it", token.id));
        }
    }
    tokenizer.set_encode_special_tokens(true);
    tokenizer.encode_fast("A b\n1 é🙂", false).map_err(|e| format!("model: cannot encode a text: {e}"))?;
    Ok(tokenizer)
}

/// Reads a step from JSON text: some of the library's types do not read from a parsed value.
fn step_from<T: serde::de::DeserializeOwned>(step: &Value) -> Result<T, serde_json::Error> {
    serde_json::from_str(&step.to_string())
}

/// Whether the file writes a space before every text.
fn adds_space_prefix(root: &Map<String, Value>) -> bool {
    let prepends = |step: &Value| is_type("Prepend")(step) && step.get("prepend").and_then(Value::as_str) == Some("▁");
    let metaspace = |step: &Value| {
        let scheme = step.get("prepend_scheme").and_then(Value::as_str);
        is_type("Metaspace")(step)
            && scheme.map_or(step.get("add_prefix_space") != Some(&Value::Bool(false)), |s| s != "never")
    };
    let byte_level =
        |step: &Value| is_type("ByteLevel")(step) && step.get("add_prefix_space") == Some(&Value::Bool(true));
    any_step(root.get("normalizer"), &prepends)
        || any_step(root.get("pre_tokenizer"), &metaspace)
        || any_step(root.get("pre_tokenizer"), &byte_level)
}
