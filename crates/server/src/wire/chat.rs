//! `/v1/chat/completions`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::thinking::{Reasoning, TemplateArguments, Thinking};
use super::{Bias, OneOrMany, Real, Whole};
use crate::body::{Media, Wire};

/// What is asked.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = ChatRequest)]
pub struct Request {
    /// The conversation.
    #[schema(min_items = 1, max_items = 1024)]
    pub messages: Vec<Message>,
    /// A name of the served model. What another name does is a setting of the server.
    pub model: Option<String>,
    /// Settings of audio output, which `modalities` would ask for.
    #[schema(value_type = Option<Object>)]
    pub audio: Option<Value>,
    /// Taken from a token's logit once for each time it stands in the answer.
    #[schema(value_type = Option<f64>, minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<Real>,
    /// Not supported: use `tool_choice`.
    #[schema(value_type = Option<ToolChoice>)]
    pub function_call: Option<Value>,
    /// Not supported: use `tools`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub functions: Option<Value>,
    /// Added to logits of tokens, by their ids.
    #[schema(value_type = Option<std::collections::BTreeMap<String, f64>>)]
    pub logit_bias: Option<Bias>,
    /// Whether the tokens' log-probabilities are wanted.
    pub logprobs: Option<bool>,
    /// Tokens of the answer at most. The older name of `max_completion_tokens`.
    #[schema(value_type = Option<i64>, minimum = 0)]
    pub max_tokens: Option<Whole>,
    /// Tokens of the answer at most, thoughts included.
    #[schema(value_type = Option<i64>, minimum = 0)]
    pub max_completion_tokens: Option<Whole>,
    /// Up to 16 pairs of texts, kept with a stored completion.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub metadata: Option<Value>,
    /// Only `text`.
    pub modalities: Option<Vec<String>>,
    /// How many answers.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 8)]
    pub n: Option<Whole>,
    /// Whether one answer may call several tools.
    pub parallel_tool_calls: Option<bool>,
    /// A text that the answer may resemble. Changes nothing: the engine finds repetitions of the prompt by itself.
    #[schema(value_type = Option<Object>)]
    pub prediction: Option<Value>,
    /// Taken from the logit of every token that stands in the answer.
    #[schema(value_type = Option<f64>, minimum = -2, maximum = 2)]
    pub presence_penalty: Option<Real>,
    /// A hint which requests begin alike. Changes nothing: equal beginnings are found by themselves.
    pub prompt_cache_key: Option<String>,
    /// Prompts of requests with different salts share nothing.
    #[schema(max_length = 256)]
    pub cache_salt: Option<String>,
    /// How much to think: `none`, or what the model knows.
    pub reasoning_effort: Option<String>,
    /// How to think. Of all fields that say how much, the first of these holds: `reasoning.max_tokens`,
    /// `thinking_token_budget`, `thinking.budget_tokens`, `reasoning.effort`, `reasoning_effort`, `chat_template_kwargs`.
    pub reasoning: Option<Reasoning>,
    /// Tokens of thoughts at most; 0 closes them at once, -1 is no limit but the answer's own.
    #[schema(value_type = Option<i64>, minimum = -1)]
    pub thinking_token_budget: Option<Whole>,
    /// Whether to think, in Anthropic's form.
    pub thinking: Option<Thinking>,
    /// What the answer has to be.
    #[schema(value_type = Option<ResponseFormat>)]
    pub response_format: Option<Value>,
    /// Whose request it is, for the operator's own records.
    pub safety_identifier: Option<String>,
    /// Whose request it is, for the operator's own records.
    pub user: Option<String>,
    /// The same seed gives the same answer.
    #[schema(value_type = Option<i64>)]
    pub seed: Option<Whole>,
    /// Only `auto` and `default`.
    pub service_tier: Option<String>,
    /// Texts that end the answer and do not belong to it; at most 4 of 256 bytes.
    #[schema(value_type = Option<StringOrStrings>)]
    pub stop: Option<OneOrMany<String>>,
    /// Whether the completion is kept for later requests.
    pub store: Option<bool>,
    /// Whether the answer comes piece by piece.
    pub stream: Option<bool>,
    /// How it does.
    pub stream_options: Option<StreamOptions>,
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
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<Object>>, max_items = 128)]
    pub tools: Option<Vec<Value>>,
    /// Which of them it has to call.
    #[schema(value_type = Option<ToolChoice>)]
    pub tool_choice: Option<Value>,
    /// Alternatives with every token; asks for `logprobs`.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 20)]
    pub top_logprobs: Option<Whole>,
    /// Only `medium`.
    pub verbosity: Option<String>,
    /// Not supported: this server searches nothing.
    #[schema(value_type = Option<Object>)]
    pub web_search_options: Option<Value>,
    /// Settings of the chat template.
    pub chat_template_kwargs: Option<TemplateArguments>,
}

impl Wire for Request {
    const MEDIA: Media = Media::Allowed;
}

/// A text or a list of texts.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes OneOrMany<String> in the document")]
#[derive(Deserialize)]
#[serde(untagged)]
pub enum StringOrStrings {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Which tool has to be called.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes Wanted in the document")]
#[derive(Deserialize)]
#[serde(untagged)]
pub enum ToolChoice {
    /// `none`, `auto` or `required`.
    Mode(String),
    /// One of a name, or some of them.
    #[schema(value_type = Object)]
    Tool(Value),
}

/// How an answer comes piece by piece.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Whether counts of tokens come before the end.
    pub include_usage: Option<bool>,
    /// Whether chunks are filled up to one length; they never are.
    pub include_obfuscation: Option<bool>,
}

/// What an answer has to be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ResponseFormat {
    /// `text`, `json_object`, `json_schema`, `regex` or `grammar`.
    #[serde(rename = "type")]
    pub kind: String,
    /// With `json_schema`.
    pub json_schema: Option<JsonSchema>,
    /// With `regex`: a regular expression that matches the whole answer.
    pub regex: Option<String>,
    /// With `grammar`: a context-free grammar in Lark's notation.
    pub grammar: Option<String>,
}

/// A named schema.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct JsonSchema {
    /// Its name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The schema.
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Value>,
    /// The answer always follows the schema, whatever stands here.
    pub strict: Option<bool>,
}

/// One message.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[schema(as = ChatMessage)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[schema(value_type = Option<TextOrParts>)]
    pub content: Option<OneOrMany<Part>>,
    /// Not supported, except with tools: chat formats have no names.
    pub name: Option<String>,
    /// What was said instead of an answer.
    pub refusal: Option<String>,
    /// Earlier thoughts. They are in the prompt in the chain of calls after the last user message, as models are trained,
    /// or everywhere with `chat_template_kwargs.keep_reasoning`.
    pub reasoning_content: Option<String>,
    /// The same under another name.
    pub reasoning: Option<String>,
    /// Calls that the assistant made.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Not supported: use `tool_calls`.
    #[schema(value_type = Option<ToolChoice>)]
    pub function_call: Option<Value>,
    /// The call that a tool's message answers.
    pub tool_call_id: Option<String>,
    /// Not supported: earlier audio.
    #[schema(value_type = Option<Object>)]
    pub audio: Option<Value>,
    /// What the answer's own annotations were; left out of the prompt.
    #[schema(value_type = Option<Vec<Object>>)]
    pub annotations: Option<Value>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ChatRole)]
pub enum Role {
    /// The operator.
    System,
    /// The operator, by a newer name.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
    /// A tool's result, by an older name.
    Function,
}

/// A text or a list of parts.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes OneOrMany<Part> in the document")]
pub enum TextOrParts {
    /// A text.
    Text(String),
    /// Parts.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[schema(as = ChatPart)]
pub struct Part {
    /// `text`, `image_url`, `input_audio`, `audio_url` or `refusal`; `file` is not supported.
    #[serde(rename = "type")]
    pub kind: String,
    /// With `text`.
    pub text: Option<String>,
    /// With `image_url`.
    #[schema(value_type = Option<ImageUrl>)]
    pub image_url: Option<ImageUrl>,
    /// With `refusal`.
    pub refusal: Option<String>,
    /// With `input_audio`: `data`, base64, and `format`, one of wav, mp3, flac, ogg, m4a and pcm16 (mono at 16 kHz).
    #[schema(value_type = Option<Object>)]
    pub input_audio: Option<Value>,
    /// With `audio_url`: `url`, which is `data:audio/wav;base64,…`, or an address if the server fetches.
    #[schema(value_type = Option<Object>)]
    pub audio_url: Option<Value>,
    /// With `file`.
    #[schema(value_type = Option<Object>)]
    pub file: Option<Value>,
    /// A hint where equal beginnings end. Changes nothing.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
}

/// Where an image is.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct ImageUrl {
    /// `data:image/png;base64,…`, or an address if the server fetches images.
    pub url: String,
    /// `low` makes one tile of it; `auto` and `high` as many as it fills.
    pub detail: Option<String>,
}

/// A call that the assistant made.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[schema(as = ChatToolCall)]
pub struct ToolCall {
    /// What the tool's answer refers to.
    pub id: Option<String>,
    /// Only `function`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What was called.
    pub function: Option<FunctionCall>,
    /// With `custom`, which is not supported.
    #[schema(value_type = Option<Object>)]
    pub custom: Option<Value>,
}

/// What was called.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct FunctionCall {
    /// The function.
    pub name: String,
    /// JSON text.
    pub arguments: String,
}

/// An answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatCompletion)]
pub struct Completion {
    /// Its name.
    pub id: String,
    /// `chat.completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// One each of `n`.
    pub choices: Vec<Choice>,
    /// Counts.
    pub usage: Usage,
    /// `default`
    pub service_tier: &'static str,
    /// The build that answered.
    pub system_fingerprint: &'static str,
}

/// One answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatChoice)]
pub struct Choice {
    /// Which.
    pub index: u32,
    /// What was said.
    pub message: AnswerMessage,
    /// Probabilities, if they were wanted.
    pub logprobs: Option<Logprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop text did.
    Stop,
    /// It has as many tokens as it may.
    Length,
    /// It calls tools.
    ToolCalls,
}

/// What the assistant said.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`
    pub role: &'static str,
    /// The answer; `null` if there are only thoughts or calls.
    pub content: Option<String>,
    /// Always `null`.
    pub refusal: Option<String>,
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    pub annotations: Vec<Value>,
    /// Thoughts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The same under another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<AnswerToolCall>,
}

/// A call.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AnswerToolCall {
    /// What the tool's answer refers to.
    pub id: String,
    /// `function`
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What is called.
    pub function: FunctionCall,
}

/// Probabilities of the tokens of an answer, before temperature and penalties.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = ChatLogprobs)]
pub struct Logprobs {
    /// One entry a token, thoughts included.
    pub content: Vec<TokenLogprob>,
    /// Always `null`.
    #[schema(value_type = Option<Vec<TokenLogprob>>)]
    pub refusal: Option<Vec<TokenLogprob>>,
}

/// A token and its probability.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TokenLogprob {
    /// Its text; bytes that are no character become U+FFFD.
    pub token: String,
    /// The natural logarithm of its probability; -9999 where that is 0.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens.
    pub top_logprobs: Vec<Alternative>,
    /// `reasoning`, if it belongs to the thoughts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<&'static str>,
    /// Whether it was written by the engine instead of being chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced: Option<bool>,
}

/// A token that could have been chosen.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Alternative {
    /// Its text.
    pub token: String,
    /// As with the token itself.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Counts of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Of the prompt, images included.
    pub prompt_tokens: usize,
    /// Of all answers.
    pub completion_tokens: usize,
    /// Of both.
    pub total_tokens: usize,
    /// More on the prompt.
    pub prompt_tokens_details: PromptDetails,
    /// More on the answers.
    pub completion_tokens_details: CompletionDetails,
}

/// More on a prompt's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct PromptDetails {
    /// Found in the cache.
    pub cached_tokens: usize,
    /// Put into it.
    pub cache_write_tokens: usize,
    /// Always 0.
    pub audio_tokens: usize,
}

/// More on the answers' tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct CompletionDetails {
    /// Of thoughts.
    pub reasoning_tokens: usize,
    /// Always 0.
    pub audio_tokens: usize,
    /// Always 0.
    pub accepted_prediction_tokens: usize,
    /// Always 0.
    pub rejected_prediction_tokens: usize,
}

impl From<engine::service::Usage> for Usage {
    fn from(usage: engine::service::Usage) -> Self {
        Self {
            prompt_tokens: usage.n_prompt,
            completion_tokens: usage.n_completion,
            total_tokens: usage.n_prompt + usage.n_completion,
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.n_cached,
                cache_write_tokens: usage.n_stored,
                audio_tokens: usage.n_audio,
            },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: usage.n_reasoning,
                audio_tokens: 0,
                accepted_prediction_tokens: 0,
                rejected_prediction_tokens: 0,
            },
        }
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatCompletionChunk)]
pub struct Chunk {
    /// The same in all pieces.
    pub id: String,
    /// `chat.completion.chunk`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// At most one.
    pub choices: Vec<ChunkChoice>,
    /// `null` until the last piece, if counts were wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// `default`
    pub service_tier: &'static str,
    /// The build that answers.
    pub system_fingerprint: &'static str,
}

/// What came.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ChunkChoice {
    /// Of which answer.
    pub index: u32,
    /// The piece.
    pub delta: Delta,
    /// Probabilities of its tokens.
    pub logprobs: Option<Logprobs>,
    /// With the last piece of an answer.
    pub finish_reason: Option<FinishReason>,
}

/// A piece of a message.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Delta {
    /// With the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Thoughts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The same under another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Pieces of calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
}

/// A piece of a call.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ToolCallDelta {
    /// Which call of the answer.
    pub index: usize,
    /// With the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`, with the first piece.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// More of it.
    pub function: FunctionDelta,
}

/// More of a call.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FunctionDelta {
    /// With the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of the JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
}
