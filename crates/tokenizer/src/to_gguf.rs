//! A tokenizer as the entries of a GGUF file.
//!
//! Such a file does not hold a pattern of pre-tokenisation but its name. Which one a tokenizer has is found by trying:
//! the entries are taken only if they give the tokenizer's own ids for texts that the patterns disagree on.

use std::collections::HashMap;

use crate::encoder::{Encoder, RankEncoder};
use crate::gguf::{GgufVocabulary, byte_token};
use crate::json::{self, Spelling};
use crate::vocabulary::Kind;
use crate::{Tokenizer, TokenizerError, byte_level};

/// Names of pre-tokenisation that are tried, in this order. Two names of one pattern: Llama 4's goes first.
const PATTERNS: [&str; 6] = ["llama4", "llama-bpe", "smollm", "qwen2", "gpt-2", "default"];

/// Texts that tell patterns, prefixes and normalisations apart.
const PROBES: [&str; 22] = [
    "Hello, world!",
    " Hello world",
    "I'm here; they'LL go. WE'VE won't O'Neill's don’t",
    "  leading   spaces\tand\ttabs  \t ",
    "1234567 and 3.14159, 0x1F, ½ ٣٤٥٦ 12",
    "helloWorld HTTPServer iPhone XMLhttp ABCdef",
    "Ünïcödé ñandú ÉCOLE Straße ﬁ Å",
    "日本語のテスト。中文测试12345 한국어",
    "🙂👍🏽 👩‍👩‍👧‍👦 🇳🇴",
    "def f(x):\n    return x**2\n\n\nclass A:\n\tpass\n",
    "a/b//c\r\n\r\nd\re",
    "!!!???... --- ===\n***\n\n //",
    "\n\n\n  \n\t\n x",
    "مرحبا بالعالم नमस्ते दुनिया",
    "Привет, мир! ЩУКА",
    "https://example.org/a?b=c&d=%20#f me@example.org",
    "{\"key\": [1, 2.5e-10, null], \"s\": \"\\u00e9\"}",
    "e\u{301} vs é, a\u{200b}b, \u{a0}nbsp, \u{feff}bom",
    "the the the user assistant system",
    "aaaaaaaaaaaaaaaaaaaaaaaa 99999999999999999",
    "x",
    " ",
];

impl Tokenizer {
    /// The entries of a GGUF file with which [`from_gguf`](Self::from_gguf) makes the same ids of texts.
    ///
    /// `json` is the content of the file that it was read from, if that was a `tokenizer.json`. Ids up to `n_tokens`,
    /// the rows of the model's embedding table, that no token has get one that is marked unused. `file_name` is for
    /// error messages.
    ///
    /// # Errors
    /// [`TokenizerError::Unsupported`] if no pattern that GGUF files have a name for gives the same ids, or there are
    /// more tokens than `n_tokens`.
    pub fn to_gguf(&self, file_name: &str, json: &[u8], n_tokens: usize) -> Result<GgufVocabulary, TokenizerError> {
        if self.vocab_size() > n_tokens {
            let why = format!("tokens: {} of them; the model's embedding table has {n_tokens} rows", self.vocab_size());
            return Err(TokenizerError::unsupported(file_name, why));
        }
        let entries = match self.encoder() {
            Encoder::Ranks(ranks) => self.of_ranks(ranks),
            Encoder::Json(_) => self.of_json(file_name, json)?,
            _ => return Err(TokenizerError::unsupported(file_name, "tokens: they come from a GGUF file already")),
        };
        let mut entries = GgufVocabulary {
            file: file_name.into(),
            bos: self.bos(),
            eos: self.eos(),
            eot: self.eot(),
            eom: self.eom(),
            pad: self.pad(),
            add_bos: Some(self.add_bos()),
            chat_template: self.chat_template().map(str::to_owned),
            ..entries
        };
        for id in entries.tokens.len()..n_tokens {
            entries.tokens.push(unused(id));
            entries.token_types.push(UNUSED);
            if !entries.scores.is_empty() {
                entries.scores.push(entries.scores.iter().copied().fold(0.0, f32::min));
            }
        }
        self.with_pattern(entries)
    }

    /// `entries` with the first pattern that gives this tokenizer's ids.
    fn with_pattern(&self, mut entries: GgufVocabulary) -> Result<GgufVocabulary, TokenizerError> {
        let patterns = if entries.model == "gpt2" { PATTERNS.map(Some).to_vec() } else { vec![None] };
        for pre in patterns {
            entries.pre = pre.map(str::to_owned);
            let other = Self::from_gguf(entries.clone())?;
            if PROBES.iter().all(|text| other.encode(text) == self.encode(text)) {
                if pre == Some("llama4") && self.control("<|header_start|>").is_none() {
                    entries.pre = Some("gpt-4o".into());
                }
                return Ok(entries);
            }
        }
        let why = format!(
            "pre_tokenizer: cuts texts in a way that GGUF files have no name for; {} and SentencePiece's are known",
            PATTERNS.join(", ")
        );
        Err(TokenizerError::unsupported(&entries.file, why))
    }

    fn of_ranks(&self, ranks: &RankEncoder) -> GgufVocabulary {
        let spell = |bytes: &[u8]| bytes.iter().map(|byte| byte_level::char_of(*byte)).collect::<String>();
        let (tokens, token_types) = self.table(|id| spell(self.token_bytes(id).unwrap_or_default()), |_, _| NORMAL);
        // Every pair of tokens that are a token together, in the order of that token's rank, which is its id.
        let mut merges: Vec<(u32, u32, u32)> = Vec::new();
        for (bytes, &id) in &ranks.id_by_bytes {
            for middle in 1..bytes.len() {
                let (left, right) = bytes.split_at(middle);
                if let (Some(&left), Some(&right)) = (ranks.id_by_bytes.get(left), ranks.id_by_bytes.get(right)) {
                    merges.push((id, left, right));
                }
            }
        }
        merges.sort_unstable();
        let spelling = |id: u32| tokens.get(id as usize).map_or("", String::as_str);
        let merges =
            merges.iter().map(|(_, left, right)| format!("{} {}", spelling(*left), spelling(*right))).collect();
        GgufVocabulary { model: "gpt2".into(), tokens, token_types, merges, ..Default::default() }
    }

    fn of_json(&self, file_name: &str, json: &[u8]) -> Result<GgufVocabulary, TokenizerError> {
        let spelled = json::spelled(file_name, json)?;
        let is_byte_level = spelled.spelling == Spelling::ByteLevel;
        let spelling = |id: u32| spelled.by_id.get(&id).cloned().unwrap_or_default();
        let text_type = |id: u32, text: &str| match is_byte_level {
            false if byte_token(text).is_some() && self.token_bytes(id).is_some_and(|b| b.len() == 1) => BYTE,
            _ => NORMAL,
        };
        let (tokens, mut token_types) = self.table(spelling, text_type);
        let merges: Vec<String> = spelled.merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        if is_byte_level {
            let (model, unknown) = ("gpt2".into(), spelled.unknown);
            return Ok(GgufVocabulary { model, tokens, token_types, merges, unknown, ..Default::default() });
        }
        let unknown_type = spelled.unknown.and_then(|id| token_types.get_mut(id as usize));
        if let Some(unknown_type) = unknown_type {
            *unknown_type = UNKNOWN;
        }
        Ok(GgufVocabulary {
            model: "llama".into(),
            scores: scores(&tokens, &token_types, &spelled.merges),
            tokens,
            token_types,
            unknown: spelled.unknown,
            add_space_prefix: Some(self.adds_space()),
            ..Default::default()
        })
    }

    /// Spelling and type of every id.
    fn table(&self, spelling: impl Fn(u32) -> String, text_type: impl Fn(u32, &str) -> i32) -> (Vec<String>, Vec<i32>) {
        let raw = |id| String::from_utf8_lossy(self.token_bytes(id).unwrap_or_default()).into_owned();
        let ids = (0u32..).take(self.vocab_size());
        let entry = |id| match self.kind(id) {
            Kind::Gap => (unused(id as usize), UNUSED),
            Kind::Control => (raw(id), CONTROL),
            Kind::Added => (raw(id), USER_DEFINED),
            Kind::Text => {
                let text = spelling(id);
                let text_type = text_type(id, &text);
                (text, text_type)
            }
        };
        ids.map(entry).unzip()
    }
}

/// Types of tokens in GGUF files.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The spelling of an id that no token has; readers want all to differ.
fn unused(id: usize) -> String {
    format!("[PAD{id}]")
}

/// Scores that join in the order of `merges`: what is made first scores highest. What is never made by joining scores
/// lowest.
fn scores(tokens: &[String], token_types: &[i32], merges: &[(String, String)]) -> Vec<f32> {
    let mut rank_by_token: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (rank, (left, right)) in merges.iter().enumerate() {
        rank_by_token.entry(format!("{left}{right}")).or_insert(rank);
    }
    let score = |(token, token_type): (&String, &i32)| match (token_type, rank_by_token.get(token)) {
        (&NORMAL, Some(rank)) => -(*rank as f32),
        (&NORMAL, None) => -(merges.len() as f32),
        _ => 0.0,
    };
    tokens.iter().zip(token_types).map(score).collect()
}
