//! `/v1/completions`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::chat::{FinishReason, StreamOptions, StringOrStrings, Usage};
use super::{Bias, OneOrMany, Real, Whole};
use crate::body::Wire;

/// What is asked.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = CompletionRequest)]
pub struct Request {
    /// A name of the served model. What another name does is a setting of the server.
    pub model: Option<String>,
    /// A text, a list of texts, a list of ids, or a list of lists of ids.
    #[schema(value_type = PromptSchema)]
    pub prompt: Prompt,
    /// At most `n`: the best of more answers are not chosen.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 8)]
    pub best_of: Option<Whole>,
    /// Whether the prompt stands before the answer.
    pub echo: Option<bool>,
    /// Taken from a token's logit once for each time it stands in the answer.
    #[schema(value_type = Option<f64>, minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<Real>,
    /// Added to logits of tokens, by their ids.
    #[schema(value_type = Option<BTreeMap<String, f64>>)]
    pub logit_bias: Option<Bias>,
    /// Alternatives with every token; with `echo` those of the prompt too.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 20)]
    pub logprobs: Option<Whole>,
    /// Tokens of the answer at most; 16 if absent.
    #[schema(value_type = Option<i64>, minimum = 0)]
    pub max_tokens: Option<Whole>,
    /// How many answers to each prompt.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 8)]
    pub n: Option<Whole>,
    /// Taken from the logit of every token that stands in the answer.
    #[schema(value_type = Option<f64>, minimum = -2, maximum = 2)]
    pub presence_penalty: Option<Real>,
    /// The same seed gives the same answer.
    #[schema(value_type = Option<i64>)]
    pub seed: Option<Whole>,
    /// Texts that end the answer and do not belong to it; at most 4 of 256 bytes.
    #[schema(value_type = Option<StringOrStrings>)]
    pub stop: Option<OneOrMany<String>>,
    /// Whether the answer comes piece by piece.
    pub stream: Option<bool>,
    /// How it does.
    pub stream_options: Option<StreamOptions>,
    /// Not supported.
    pub suffix: Option<String>,
    /// 0 takes the likeliest token.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 2)]
    pub temperature: Option<Real>,
    /// Choose among the likeliest tokens that together have this probability.
    #[schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<Real>,
    /// Choose among this many of the likeliest tokens; 0 or -1 for all.
    #[schema(value_type = Option<i64>, minimum = -1, maximum = 1048576)]
    pub top_k: Option<Whole>,
    /// Leave out tokens less likely than this times the likeliest.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 1)]
    pub min_p: Option<Real>,
    /// Divide the logits of tokens seen before; 1 is off.
    #[schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 2)]
    pub repetition_penalty: Option<Real>,
    /// Whether an answer goes on when the model would end it; not together with what it has to be.
    pub ignore_eos: Option<bool>,
    /// Prompts of requests with different salts share nothing.
    #[schema(max_length = 256)]
    pub cache_salt: Option<String>,
    /// Whether a text begins with the token that begins texts, if the model wants that; true if absent.
    pub add_special_tokens: Option<bool>,
    /// What the answer has to be.
    #[schema(value_type = Option<super::chat::ResponseFormat>)]
    pub response_format: Option<Value>,
    /// Whose request it is, for the operator's own records.
    pub user: Option<String>,
}

impl Wire for Request {}

/// The forms of a prompt, for the document.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes Prompt in the document")]
pub enum PromptSchema {
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Ids.
    Ids(Vec<u32>),
    /// Lists of ids.
    Lists(Vec<Vec<u32>>),
}

/// A prompt, or several.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Texts.
    Texts(Vec<String>),
    /// Ids.
    Ids(Vec<Vec<u32>>),
}

/// What stands in a list of prompts.
enum Item {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Item;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a token id below 4294967296 or a list of them")
            }
            fn visit_str<E>(self, text: &str) -> Result<Item, E> {
                Ok(Item::Text(text.to_owned()))
            }
            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Item, E> {
                let wrong = |_| E::invalid_value(serde::de::Unexpected::Unsigned(id), &self);
                u32::try_from(id).map(Item::Id).map_err(wrong)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = list.next_element::<u32>()? {
                    ids.push(id);
                }
                Ok(Item::Ids(ids))
            }
        }
        deserializer.deserialize_any(Items)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Prompts;
        impl<'de> Visitor<'de> for Prompts {
            type Value = Prompt;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a list of texts, a list of ids, or a list of lists of ids")
            }
            fn visit_str<E>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt::Texts(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompt, A::Error> {
                let mixed = || serde::de::Error::custom("holds texts beside ids");
                let (mut texts, mut ids, mut lists) = (Vec::new(), Vec::new(), Vec::new());
                while let Some(item) = list.next_element()? {
                    match item {
                        Item::Text(text) => texts.push(text),
                        Item::Id(id) => ids.push(id),
                        Item::Ids(list) => lists.push(list),
                    }
                }
                match (texts.is_empty(), ids.is_empty(), lists.is_empty()) {
                    (false, true, true) => Ok(Prompt::Texts(texts)),
                    (true, false, true) => Ok(Prompt::Ids(vec![ids])),
                    (true, true, _) => Ok(Prompt::Ids(lists)),
                    _ => Err(mixed()),
                }
            }
        }
        deserializer.deserialize_any(Prompts)
    }
}

/// Answers, or a piece of one.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TextCompletion)]
pub struct Completion {
    /// Its name.
    pub id: String,
    /// `text_completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// Those to the first prompt, then those to the second and so on.
    pub choices: Vec<Choice>,
    /// Counts; in a stream with the last piece, if they were wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// The build that answered.
    pub system_fingerprint: &'static str,
}

/// One answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TextChoice)]
pub struct Choice {
    /// Which.
    pub index: usize,
    /// What was said, after the prompt if that was wanted.
    pub text: String,
    /// Probabilities, if they were wanted.
    pub logprobs: Option<Logprobs>,
    /// Why it ended; `null` in a stream until it does.
    pub finish_reason: Option<FinishReason>,
}

/// Probabilities of tokens, before temperature and penalties, one entry a token in each list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = TextLogprobs)]
pub struct Logprobs {
    /// Their texts; `bytes:\x..` for bytes that are no characters.
    pub tokens: Vec<String>,
    /// Natural logarithms of their probabilities; `null` for the first token of a prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// The likeliest tokens, and the token itself; `null` for the first token of a prompt.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Characters before the token.
    pub text_offset: Vec<usize>,
}
