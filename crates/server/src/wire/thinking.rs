//! What several interfaces say of thinking.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Whole;

/// How to think.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[schema(as = ReasoningSettings)]
pub struct Reasoning {
    /// Whether to think.
    pub enabled: Option<bool>,
    /// How much: `none`, or a name that the model knows.
    pub effort: Option<String>,
    /// Tokens of thoughts at most; 0 closes them at once, -1 is no limit but the answer's own.
    #[schema(value_type = Option<i64>, minimum = -1)]
    pub max_tokens: Option<Whole>,
    /// Before so many tokens thoughts are gone on with when the model would end them.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1048576)]
    pub min_tokens: Option<Whole>,
    /// How often that may happen; once if absent.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 16)]
    pub max_extensions: Option<Whole>,
    /// Whether thoughts are left out of the answer; they count all the same.
    pub exclude: Option<bool>,
    /// Only `auto`: thoughts are given whole, never summarised.
    pub summary: Option<String>,
    /// The older name of `summary`.
    pub generate_summary: Option<String>,
    /// Not supported: several answers in one.
    #[schema(value_type = Option<Object>)]
    pub parallel: Option<Value>,
}

/// Whether to think, in Anthropic's form.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[schema(as = ThinkingSettings)]
pub struct Thinking {
    /// `enabled`, `adaptive` or `disabled`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tokens of thoughts at most; with `enabled`.
    #[schema(value_type = Option<i64>, minimum = 0)]
    pub budget_tokens: Option<Whole>,
    /// `summarized`, which shows them whole, or `omitted`.
    pub display: Option<String>,
}

/// Variables of the chat template.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct TemplateArguments {
    /// Whether to think.
    pub enable_thinking: Option<bool>,
    /// The same by another name.
    pub thinking: Option<bool>,
    /// Tokens of thoughts at most.
    #[schema(value_type = Option<i64>, minimum = -1)]
    pub thinking_budget: Option<Whole>,
    /// Whether thoughts of earlier turns stay in the prompt.
    pub keep_reasoning: Option<bool>,
}
