//! `/v1/messages`, in Anthropic's shape.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::thinking::Thinking;
use super::{OneOrMany, Real, Whole};
use crate::body::{Media, Wire};

/// What is asked.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = MessagesRequest)]
pub struct Request {
    /// A name of the served model. What another name does is a setting of the server.
    pub model: Option<String>,
    /// The conversation.
    #[schema(min_items = 1, max_items = 1024)]
    pub messages: Vec<Message>,
    /// The operator's instructions.
    #[schema(value_type = Option<TextOrBlocks>)]
    pub system: Option<OneOrMany<Block>>,
    /// Tokens of the answer at most.
    #[schema(value_type = i64, minimum = 0)]
    pub max_tokens: Option<Whole>,
    /// Texts that end the answer; at most 4 of 256 bytes.
    pub stop_sequences: Option<Vec<String>>,
    /// Whether the answer comes piece by piece.
    pub stream: Option<bool>,
    /// 0 takes the likeliest token.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 2)]
    pub temperature: Option<Real>,
    /// Choose among the likeliest tokens that together have this probability.
    #[schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<Real>,
    /// Choose among this many of the likeliest tokens.
    #[schema(value_type = Option<i64>, minimum = -1, maximum = 1048576)]
    pub top_k: Option<Whole>,
    /// Whose request it is, for the operator's own records.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
    /// Functions that the model may call.
    pub tools: Option<Vec<Tool>>,
    /// Which of them it has to call.
    #[schema(value_type = Option<Object>)]
    pub tool_choice: Option<Value>,
    /// Whether to think, and how much.
    pub thinking: Option<Thinking>,
    /// Only `auto` and `standard_only`.
    pub service_tier: Option<String>,
    /// Not supported.
    #[schema(value_type = Option<Object>)]
    pub container: Option<Value>,
    /// Not supported.
    #[schema(value_type = Option<Object>)]
    pub mcp_servers: Option<Value>,
    /// Not supported.
    #[schema(value_type = Option<Object>)]
    pub context_management: Option<Value>,
    /// How the answer is made, and what it has to be.
    pub output_config: Option<OutputConfig>,
    /// The older name of `output_config.format`.
    pub output_format: Option<Format>,
    /// A hint where equal beginnings end. Changes nothing.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
}

impl Wire for Request {
    const MEDIA: Media = Media::Allowed;
}

/// How an answer is made, and what it has to be.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[schema(as = MessagesOutputConfig)]
pub struct OutputConfig {
    /// How much to think, where `thinking` is there and not disabled: a name that the model knows;
    /// `thinking.budget_tokens` counts more. Without `thinking`, `high` is what holds anyway, and a model that was not
    /// trained to think takes any of `low`, `medium`, `high`, `xhigh` and `max`, which change nothing.
    pub effort: Option<String>,
    /// What the answer has to be.
    pub format: Option<Format>,
    /// Not supported.
    #[schema(value_type = Option<Object>)]
    pub task_budget: Option<Value>,
}

/// What an answer has to be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = MessagesFormat)]
pub struct Format {
    /// Only `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The schema that the answer follows.
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Value>,
}

/// One message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = MessagesMessage)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[schema(value_type = TextOrBlocks)]
    pub content: OneOrMany<Block>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MessagesRole)]
pub enum Role {
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A text or a list of blocks.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes OneOrMany<Block> in the document")]
pub enum TextOrBlocks {
    /// A text.
    Text(String),
    /// Blocks.
    Blocks(Vec<Block>),
}

/// A part of a message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = MessagesBlock)]
pub struct Block {
    /// `text`, `image`, `tool_use`, `tool_result`, `thinking` or `redacted_thinking`.
    #[serde(rename = "type")]
    pub kind: String,
    /// With `text`.
    pub text: Option<String>,
    /// With `image`.
    pub source: Option<Source>,
    /// With `tool_use`: what the result refers to.
    pub id: Option<String>,
    /// With `tool_use`: the function.
    pub name: Option<String>,
    /// With `tool_use`: its arguments.
    #[schema(value_type = Option<Object>)]
    pub input: Option<Value>,
    /// With `tool_result`: the call.
    pub tool_use_id: Option<String>,
    /// With `tool_result`: what it gave.
    #[schema(value_type = Option<TextOrBlocks>, no_recursion)]
    pub content: Option<OneOrMany<Block>>,
    /// With `tool_result`: whether it failed.
    pub is_error: Option<bool>,
    /// With `thinking`: earlier thoughts. They are in the prompt in the chain of calls after the last user message.
    pub thinking: Option<String>,
    /// With `thinking`.
    pub signature: Option<String>,
    /// With `redacted_thinking`.
    pub data: Option<String>,
    /// A hint where equal beginnings end. Changes nothing.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
    /// What an earlier answer cited; left out of the prompt.
    #[schema(value_type = Option<Object>)]
    pub citations: Option<Value>,
}

/// Where an image is.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = MessagesSource)]
pub struct Source {
    /// `base64` or `url`.
    #[serde(rename = "type")]
    pub kind: String,
    /// With `base64`: what kind of image; the bytes themselves say so too.
    pub media_type: Option<String>,
    /// With `base64`.
    pub data: Option<String>,
    /// With `url`.
    pub url: Option<String>,
}

/// A function that the model may call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = MessagesTool)]
pub struct Tool {
    /// Only `custom`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its arguments.
    #[schema(value_type = Option<Object>)]
    pub input_schema: Option<Value>,
    /// A hint where equal beginnings end. Changes nothing.
    #[schema(value_type = Option<Object>)]
    pub cache_control: Option<Value>,
}

/// An answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MessagesAnswer)]
pub struct Answer {
    /// Its name.
    pub id: String,
    /// `message`
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `assistant`
    pub role: &'static str,
    /// The model that answered.
    pub model: String,
    /// What was said.
    pub content: Vec<AnswerBlock>,
    /// Why it ended; `null` in a stream until it does.
    pub stop_reason: Option<StopReason>,
    /// The text that ended it.
    pub stop_sequence: Option<String>,
    /// Counts.
    pub usage: Usage,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AnswerBlock {
    /// Text.
    Text {
        /// It.
        text: String,
    },
    /// Thoughts.
    Thinking {
        /// They.
        thinking: String,
        /// Always empty.
        signature: String,
    },
    /// A call.
    ToolUse {
        /// What the result refers to.
        id: String,
        /// The function.
        name: String,
        /// Its arguments.
        #[schema(value_type = Object)]
        input: Value,
    },
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended it.
    EndTurn,
    /// It has as many tokens as it may.
    MaxTokens,
    /// A stop text came.
    StopSequence,
    /// It calls tools.
    ToolUse,
}

/// Counts of tokens. The prompt has as many as the three of it together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MessagesUsage)]
pub struct Usage {
    /// Of the prompt, neither found in the cache nor kept there.
    pub input_tokens: usize,
    /// Of the answer.
    pub output_tokens: usize,
    /// Of the prompt, computed now and kept in the cache.
    pub cache_creation_input_tokens: usize,
    /// Of the prompt, found in the cache.
    pub cache_read_input_tokens: usize,
}

impl From<engine::service::Usage> for Usage {
    fn from(usage: engine::service::Usage) -> Self {
        Self {
            input_tokens: usage.n_prompt.saturating_sub(usage.n_cached).saturating_sub(usage.n_stored),
            output_tokens: usage.n_completion,
            cache_creation_input_tokens: usage.n_stored,
            cache_read_input_tokens: usage.n_cached,
        }
    }
}

/// How many tokens a prompt has.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TokenCount {
    /// So many.
    pub input_tokens: usize,
}
