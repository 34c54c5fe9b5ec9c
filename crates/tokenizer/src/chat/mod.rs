//! Conversations, and the two ways to write one as a prompt.

mod date;
mod dump;
mod llama4;
mod methods;
mod opaque;
mod template;

pub use llama4::{Llama4Chat, ToolPlacement};
pub use template::ChatTemplate;

use serde_json::Value;

use crate::{ChatError, Segment};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The operator's instructions.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A tool's result; Llama 4 writes `ipython`.
    Tool,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text. Neighbouring texts of a message are one text.
    Text(String),
    /// An image; images and clips are numbered together through the whole conversation, from 0.
    Image,
    /// A clip of audio.
    Audio,
    /// A structured tool result, written as JSON.
    Json(Value),
}

impl Part {
    /// Whether it is an image or a clip, which stand in a prompt as rows of their own.
    pub fn is_media(&self) -> bool {
        matches!(self, Self::Image | Self::Audio)
    }
}

/// A call that the model made.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The identifier that the tool's answer refers to, if the wire format has one.
    pub id: Option<String>,
    /// The function's name.
    pub name: String,
    /// The arguments as a value; on OpenAI's wire they are JSON text and must be parsed first.
    pub arguments: Value,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub content: Vec<Part>,
    /// What the assistant thought before it said this.
    pub reasoning: Option<String>,
    /// Calls that an assistant's message makes.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's message answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self::new(role, vec![Part::Text(text.into())])
    }

    /// A message of these parts.
    pub fn new(role: Role, content: Vec<Part>) -> Self {
        Self { role, content, reasoning: None, tool_calls: Vec::new(), tool_call_id: None }
    }

    fn holds(&self, part: &Part) -> bool {
        self.content.contains(part)
    }
}

/// Takes thoughts out of a conversation, except those after its last user message: a chain of calls keeps them.
pub fn forget_thoughts(messages: &mut [Message]) {
    let last = messages.iter().rposition(|message| message.role == Role::User).unwrap_or(0);
    messages.iter_mut().take(last).for_each(|message| message.reasoning = None);
}

/// How a prompt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// With the last message.
    Message,
    /// With the opening of the assistant's next turn.
    Answer(Option<ThinkingVariables<'a>>),
}

/// What a template is told of thinking, as its variables `enable_thinking` and `thinking`, and `reasoning_effort`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThinkingVariables<'a> {
    /// Whether the model is to think.
    pub is_on: bool,
    /// How much, if that was said by a name.
    pub effort: Option<&'a str>,
}

/// How a model wants conversations written.
#[derive(Debug)]
pub enum ChatFormat {
    /// Llama 4's own format, as code.
    Llama4(Llama4Chat),
    /// A checkpoint's own template.
    Template(Box<ChatTemplate>),
}

impl ChatFormat {
    /// Writes a conversation as segments, the beginning-of-text token included where the format has one.
    ///
    /// `tools` are function definitions in OpenAI's form; none and an empty list are the same.
    /// Thoughts are written where messages have them, if the format knows how.
    ///
    /// # Errors
    /// [`ChatError::Conversation`] if the format cannot express the conversation, [`ChatError::Template`] if the
    /// template fails on it.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&[Value]>,
        ending: Ending<'_>,
    ) -> Result<Vec<Segment>, ChatError> {
        let tools = tools.filter(|tools| !tools.is_empty());
        match self {
            Self::Llama4(chat) => chat.render(messages, tools, ending),
            Self::Template(template) => template.render(messages, tools, ending),
        }
    }
}
