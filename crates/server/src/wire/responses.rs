//! `/v1/responses`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::chat::TokenLogprob;
use super::{OneOrMany, Real, Whole};
use crate::body::{Media, Wire};

/// What is asked.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[schema(as = ResponseRequest)]
pub struct Request {
    /// A text, or items.
    #[schema(value_type = Option<TextOrItems>)]
    pub input: Option<OneOrMany<Item>>,
    /// A name of the served model. What another name does is a setting of the server.
    pub model: Option<String>,
    /// The operator's instructions; those of earlier responses do not go on.
    pub instructions: Option<String>,
    /// The response that this one goes on from.
    pub previous_response_id: Option<String>,
    /// Whether the response is kept for later ones; true if absent.
    pub store: Option<bool>,
    /// Whether the answer comes piece by piece.
    pub stream: Option<bool>,
    /// How it does.
    pub stream_options: Option<super::chat::StreamOptions>,
    /// 0 takes the likeliest token.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 2)]
    pub temperature: Option<Real>,
    /// Choose among the likeliest tokens that together have this probability.
    #[schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<Real>,
    /// Tokens of the answer at most, thoughts included.
    #[schema(value_type = Option<i64>, minimum = 0)]
    pub max_output_tokens: Option<Whole>,
    /// Alternatives with every token.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 20)]
    pub top_logprobs: Option<Whole>,
    /// Up to 16 pairs of texts, kept with the response.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub metadata: Option<Value>,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Vec<Value>>,
    /// Which of them it has to call.
    #[schema(value_type = Option<super::chat::ToolChoice>)]
    pub tool_choice: Option<Value>,
    /// Whether one answer may call several tools.
    pub parallel_tool_calls: Option<bool>,
    /// Not supported: this server calls no tools itself.
    #[schema(value_type = Option<i64>)]
    pub max_tool_calls: Option<Whole>,
    /// What the answer has to be.
    pub text: Option<Text>,
    /// How to think.
    pub reasoning: Option<super::thinking::Reasoning>,
    /// What else is to be in the response. `message.output_text.logprobs` changes it; images of messages are always there,
    /// and of tools that this server does not have there is nothing to include.
    pub include: Option<Vec<String>>,
    /// Only `disabled`.
    pub truncation: Option<String>,
    /// Whether the request is answered at once and the response made afterwards: `GET /v1/responses/{response_id}` says
    /// how far it is. Needs `store` and not `stream`.
    pub background: Option<bool>,
    /// Not supported: use `previous_response_id`.
    #[schema(value_type = Option<Object>)]
    pub conversation: Option<Value>,
    /// Not supported.
    #[schema(value_type = Option<Object>)]
    pub prompt: Option<Value>,
    /// Not supported.
    #[schema(value_type = Option<Vec<Object>>)]
    pub context_management: Option<Value>,
    /// Only `auto` and `default`.
    pub service_tier: Option<String>,
    /// A hint which requests begin alike. Changes nothing: equal beginnings are found by themselves.
    pub prompt_cache_key: Option<String>,
    /// A hint how long. Changes nothing.
    pub prompt_cache_retention: Option<String>,
    /// Whose request it is, for the operator's own records.
    pub safety_identifier: Option<String>,
    /// Whose request it is, for the operator's own records.
    pub user: Option<String>,
}

impl Wire for Request {
    const MEDIA: Media = Media::Allowed;
}

/// A text or a list of items.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes OneOrMany<Item> in the document")]
pub enum TextOrItems {
    /// A text.
    Text(String),
    /// Items.
    Items(Vec<Item>),
}

/// A text or a list of parts.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes OneOrMany<Content> in the document")]
pub enum TextOrContents {
    /// A text.
    Text(String),
    /// Parts.
    Parts(Vec<Content>),
}

/// What the answer has to be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = ResponseText)]
pub struct Text {
    /// `{"type": "text"}`, `{"type": "json_object"}` or `{"type": "json_schema", "name", "schema"}`.
    #[schema(value_type = Option<Object>)]
    pub format: Option<Value>,
    /// Only `medium`.
    pub verbosity: Option<String>,
}

/// Something that was said or done.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[schema(as = ResponseItem)]
pub struct Item {
    /// `message` if absent; `function_call`, `function_call_output`, `reasoning` or `compaction`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What became of it; changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// With `message`: `user`, `assistant`, `system` or `developer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// With `message`: what was said. With `reasoning`: what was thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TextOrContents>)]
    pub content: Option<OneOrMany<Content>>,
    /// With calls and their results: which call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// With `function_call`: the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// With `function_call`: JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// With `function_call_output`: what it gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TextOrContents>)]
    pub output: Option<OneOrMany<Content>>,
    /// With `reasoning`: a summary; left out of the prompt, as this server makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub summary: Option<Value>,
    /// With `compaction`: what `/v1/responses/compact` gave. With `reasoning`; left out of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_content: Option<String>,
    /// With `message`: which part of an answer it is; changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

/// A part of an item.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[schema(as = ResponseContent)]
pub struct Content {
    /// `input_text`, `output_text`, `input_image`, `input_audio`, `refusal` or `reasoning_text`.
    #[serde(rename = "type")]
    pub kind: String,
    /// With texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// With `refusal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// With `input_image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// With `input_image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// With `input_audio`: `data`, base64, and `format`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub input_audio: Option<Value>,
    /// With `input_image` and `input_file`: not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<String>,
    /// What an earlier answer cited; left out of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub annotations: Option<Value>,
    /// Probabilities of an earlier answer; left out of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub logprobs: Option<Value>,
}

/// A response.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Response {
    /// Its name.
    pub id: String,
    /// `response`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub completed_at: Option<u64>,
    /// How far it is.
    pub status: Status,
    /// Whether it is made after the request that asked for it was answered.
    pub background: bool,
    /// What went wrong.
    #[schema(value_type = Option<Object>)]
    pub error: Option<Value>,
    /// Why it is not complete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// As asked.
    pub instructions: Option<String>,
    /// As asked.
    pub max_output_tokens: Option<usize>,
    /// Always `null`.
    pub max_tool_calls: Option<u32>,
    /// The model that answered.
    pub model: String,
    /// What was thought, said and called.
    pub output: Vec<Output>,
    /// As asked.
    pub parallel_tool_calls: bool,
    /// As asked.
    pub previous_response_id: Option<String>,
    /// As asked.
    pub prompt_cache_key: Option<String>,
    /// As asked.
    pub reasoning: Reasoning,
    /// As asked.
    pub safety_identifier: Option<String>,
    /// `default`
    pub service_tier: &'static str,
    /// Whether it is kept.
    pub store: bool,
    /// What was used.
    pub temperature: f32,
    /// What the answer has to be.
    #[schema(value_type = Object)]
    pub text: Value,
    /// Which tool has to be called.
    #[schema(value_type = super::chat::ToolChoice)]
    pub tool_choice: Value,
    /// As asked.
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<Value>,
    /// As asked.
    pub top_logprobs: usize,
    /// What was used.
    pub top_p: f32,
    /// `disabled`
    pub truncation: &'static str,
    /// Counts; `null` until it is complete.
    pub usage: Option<Usage>,
    /// As asked.
    pub user: Option<String>,
    /// As asked.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub metadata: Value,
}

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ResponseStatus)]
pub enum Status {
    /// Being made.
    InProgress,
    /// Done.
    Completed,
    /// Ended before it was done.
    Incomplete,
    /// Ended because somebody asked for it, while it was made in the background.
    Cancelled,
    /// Went wrong.
    Failed,
}

/// Why a response is not complete.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct IncompleteDetails {
    /// `max_output_tokens`
    pub reason: &'static str,
}

/// How much was thought.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Reasoning {
    /// As asked.
    pub effort: Option<String>,
    /// As asked.
    pub summary: Option<String>,
}

/// A part of a response.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = ResponseOutput)]
pub enum Output {
    /// What was thought.
    Reasoning {
        /// Its name.
        id: String,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        summary: Vec<Value>,
        /// The thoughts.
        content: Vec<OutputContent>,
    },
    /// What was said.
    Message {
        /// Its name.
        id: String,
        /// How far it is.
        status: Status,
        /// `assistant`
        role: &'static str,
        /// The text.
        content: Vec<OutputContent>,
    },
    /// A call.
    FunctionCall {
        /// Its name.
        id: String,
        /// How far it is.
        status: Status,
        /// What its result refers to.
        call_id: String,
        /// The function.
        name: String,
        /// JSON text.
        arguments: String,
    },
}

/// A part of an output.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputContent {
    /// Text of an answer.
    OutputText {
        /// It.
        text: String,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        annotations: Vec<Value>,
        /// Probabilities, if they were wanted.
        logprobs: Vec<TokenLogprob>,
    },
    /// Thoughts.
    ReasoningText {
        /// They.
        text: String,
    },
}

/// Counts of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResponseUsage)]
pub struct Usage {
    /// Of the prompt, images included.
    pub input_tokens: usize,
    /// More on them.
    pub input_tokens_details: InputDetails,
    /// Of the answer.
    pub output_tokens: usize,
    /// More on them.
    pub output_tokens_details: OutputDetails,
    /// Of both.
    pub total_tokens: usize,
}

/// More on a prompt's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct InputDetails {
    /// Found in the cache.
    pub cached_tokens: usize,
    /// Put into it.
    pub cache_write_tokens: usize,
}

/// More on an answer's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct OutputDetails {
    /// Of thoughts.
    pub reasoning_tokens: usize,
}

impl From<engine::service::Usage> for Usage {
    fn from(usage: engine::service::Usage) -> Self {
        Self {
            input_tokens: usage.n_prompt,
            input_tokens_details: InputDetails { cached_tokens: usage.n_cached, cache_write_tokens: usage.n_stored },
            output_tokens: usage.n_completion,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.n_reasoning },
            total_tokens: usage.n_prompt + usage.n_completion,
        }
    }
}
