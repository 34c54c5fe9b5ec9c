//! A tokenizer, whatever file it came from.

use std::borrow::Cow;

use crate::config::TokenizerConfig;
use crate::encoder::Encoder;
use crate::gguf::{self, GgufVocabulary};
use crate::guard;
use crate::merge::Merger;
use crate::vocabulary::{Kind, Vocabulary};
use crate::{SpecialTokens, TokenizerError, json, ranks};

/// What decoding does with control tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Specials {
    /// Leaves them out.
    Skip,
    /// Writes their spelling.
    Keep,
}

/// Text to ids and back.
///
/// [`encode`](Self::encode) takes all text for text: it never makes a control token, whatever the text spells, and never
/// adds a beginning. Control tokens come from [`control`](Self::control).
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Encoder,
    vocabulary: Vocabulary,
    /// Whether a space is written before every text and taken away again from the front of what is decoded.
    space_prefix: bool,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    eom: Option<u32>,
    pad: Option<u32>,
    add_bos: bool,
    chat_template: Option<String>,
}

/// Spellings by which files that name no ids tell them, the most telling first.
const BOS_NAMES: [&str; 3] = ["<|begin_of_text|>", "<s>", "<bos>"];
const EOS_NAMES: [&str; 4] = ["<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>"];
const EOT_NAMES: [&str; 5] = ["<|eot|>", "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];
const EOM_NAMES: [&str; 2] = ["<|eom|>", "<|eom_id|>"];
const PAD_NAMES: [&str; 3] = ["<|finetune_right_pad|>", "<|finetune_right_pad_id|>", "<pad>"];

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json` of model type BPE. `file_name` is for error messages.
    ///
    /// Such a file does not say which tokens begin and end a text: they are guessed by their spelling until
    /// [`with_config`](Self::with_config) tells.
    ///
    /// # Errors
    /// [`TokenizerError`] naming the field that is wrong or not supported.
    pub fn from_json(file_name: &str, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let (vocabulary, encoder) = json::parse(file_name, bytes)?;
        Ok(Self::new(vocabulary, encoder))
    }

    /// Reads a rank file, such as Llama 4's `tokenizer.model`, which is cut by the o200k pattern.
    ///
    /// Control tokens follow the file's own: with [`SpecialTokens::llama4`] and Llama 4's file they are 200000 to
    /// 202047. `file_name` is for error messages.
    ///
    /// # Errors
    /// [`TokenizerError::Corrupt`] naming the line that is wrong, or the byte that no token stands for.
    pub fn from_ranks(file_name: &str, bytes: &[u8], specials: SpecialTokens) -> Result<Self, TokenizerError> {
        let (vocabulary, encoder) = ranks::parse(file_name, bytes, &specials)?;
        Ok(Self::new(vocabulary, encoder))
    }

    /// Builds the tokenizer that a GGUF file carries.
    ///
    /// # Errors
    /// [`TokenizerError`] naming the entry that is wrong or not supported.
    pub fn from_gguf(source: GgufVocabulary) -> Result<Self, TokenizerError> {
        let (vocabulary, encoder) = gguf::parse(&source)?;
        let is_sentence_piece = gguf::model(&source)? == gguf::Model::Scores;
        let mut tokenizer = Self::new(vocabulary, encoder);
        tokenizer.space_prefix = is_sentence_piece && source.add_space_prefix.unwrap_or(true);
        tokenizer.bos = source.bos.or(tokenizer.bos);
        tokenizer.eos = source.eos.or(tokenizer.eos);
        tokenizer.eot = source.eot.or(tokenizer.eot);
        tokenizer.eom = source.eom.or(tokenizer.eom);
        tokenizer.pad = source.pad.or(tokenizer.pad);
        tokenizer.add_bos = source.add_bos.unwrap_or(is_sentence_piece || gguf::implies_bos(&source));
        tokenizer.chat_template = source.chat_template;
        Ok(tokenizer)
    }

    fn new(vocabulary: Vocabulary, encoder: Encoder) -> Self {
        let named = |names: &[&str]| names.iter().find_map(|name| vocabulary.control(name));
        let bos = named(&BOS_NAMES);
        Self {
            space_prefix: matches!(&encoder, Encoder::Json(json) if json.space_prefix),
            bos,
            eos: named(&EOS_NAMES),
            eot: named(&EOT_NAMES),
            eom: named(&EOM_NAMES),
            pad: named(&PAD_NAMES),
            add_bos: bos.is_some(),
            chat_template: None,
            encoder,
            vocabulary,
        }
    }

    /// Takes what a `tokenizer_config.json` says: beginning, end and padding tokens, and the chat template.
    ///
    /// # Errors
    /// [`TokenizerError::Corrupt`] naming the field, if it is of a wrong type or names a token that does not exist.
    pub fn with_config(mut self, file_name: &str, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let config = TokenizerConfig::parse(file_name, bytes)?;
        for (field, name, slot) in
            [("bos_token", &config.bos_token, &mut self.bos), ("eos_token", &config.eos_token, &mut self.eos)]
        {
            let Some(name) = name else { continue };
            let id = self.vocabulary.control(name);
            *slot = Some(id.ok_or_else(|| {
                TokenizerError::corrupt(file_name, format!("{field}: '{name}' is not a control token of the tokenizer"))
            })?);
        }
        // Released files name padding tokens that their vocabulary lacks; nothing depends on them.
        self.pad = config.pad_token.and_then(|name| self.vocabulary.control(&name)).or(self.pad);
        self.add_bos = config.add_bos_token.unwrap_or(self.add_bos);
        self.chat_template = config.chat_template.or(self.chat_template);
        Ok(self)
    }

    /// The ids of a text, all of which is taken for text.
    ///
    /// Texts of any length take time proportional to n log n and bounded memory: as in Meta's reference they are cut every
    /// 400,000 characters and inside runs of more than 25,000 characters with, or without, white space.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        // The JSON encoder's own steps write the prefix.
        let own_prefix = self.space_prefix && matches!(self.encoder, Encoder::Scores(_)) && !text.is_empty();
        let text = if own_prefix { Cow::Owned(format!(" {text}")) } else { Cow::Borrowed(text) };
        let mut merger = Merger::default();
        guard::each_piece(&text, |piece| match &self.encoder {
            Encoder::Ranks(encoder) => encoder.encode(piece, &mut merger, &mut ids),
            Encoder::Merges(encoder) => encoder.encode(piece, &mut merger, &mut ids),
            Encoder::Scores(encoder) => encoder.encode(piece, &mut merger, &mut ids),
            Encoder::Json(encoder) => encoder.encode(piece, &mut ids),
        });
        ids
    }

    /// The text of ids; ids without a token are left out, bytes that are not UTF-8 become U+FFFD.
    ///
    /// For text that arrives token by token see [`TokenStream`](crate::TokenStream).
    pub fn decode(&self, ids: &[u32], specials: Specials) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if specials == Specials::Keep || !self.is_control(id) {
                bytes.extend_from_slice(self.token_bytes(id).unwrap_or_default());
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        match text.strip_prefix(' ').filter(|_| self.space_prefix) {
            Some(rest) => rest.to_owned(),
            None => text.into_owned(),
        }
    }

    /// The bytes that a token stands for, which need not be UTF-8; of a control token, its spelling.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(id)
    }

    /// The id of the control token with this spelling, such as `<|eot|>`.
    pub fn control(&self, name: &str) -> Option<u32> {
        self.vocabulary.control(name)
    }

    /// All control tokens, spelling and id, in no order.
    pub fn controls(&self) -> impl Iterator<Item = (&str, u32)> {
        self.vocabulary.controls()
    }

    /// Whether a token is control.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.kind(id) == Kind::Control
    }

    /// How many ids there are: one more than the largest. A model's `vocab_size` may be larger.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    pub(crate) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    pub(crate) fn kind(&self, id: u32) -> Kind {
        self.vocabulary.kind(id)
    }

    /// Whether a space is written before every text.
    pub(crate) fn adds_space(&self) -> bool {
        self.space_prefix
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that ends a turn of a conversation.
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    /// The token that ends a message to which a tool must answer.
    pub fn eom(&self) -> Option<u32> {
        self.eom
    }

    /// The token that fills up rows.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Whether a plain prompt, one without a chat format, starts with [`bos`](Self::bos).
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// The chat template that came with the tokenizer.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}
