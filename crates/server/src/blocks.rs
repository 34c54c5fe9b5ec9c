//! Messages of `/v1/messages` as a conversation.

use serde_json::{Value, json};
use tokenizer::{Message, Part, Role, ToolCall};

use crate::error::Error;
use crate::image;
use crate::limits::Limits;
use crate::prompt::{Conversation, Detail, Kind, Medium, Source};
use crate::wire::OneOrMany;
use crate::wire::messages::{self, Block, Request};

/// Checks and translates a request's messages.
///
/// # Errors
/// [`Error::Field`] naming what is wrong or not supported.
pub fn conversation(request: Request, limits: &Limits) -> Result<Conversation, Error> {
    if request.messages.is_empty() || request.messages.len() > limits.messages {
        let why = format!("has {} messages; it must have 1 to {}", request.messages.len(), limits.messages);
        return Err(Error::field("messages", why));
    }
    let mut builder = Builder { conversation: Conversation::default(), n_parts: 0, limits };
    if let Some(system) = request.system {
        let content = builder.plain(system, "system")?;
        builder.conversation.messages.push(Message::new(Role::System, content));
    }
    for (index, message) in request.messages.into_iter().enumerate() {
        builder.message(message, &format!("messages[{index}].content"))?;
    }
    Ok(builder.conversation)
}

/// A tool in OpenAI's form, which chat formats know.
pub fn tool(tool: messages::Tool) -> Value {
    json!({"type": "function", "function": {
        "name": tool.name,
        "description": tool.description.unwrap_or_default(),
        "parameters": tool.input_schema.unwrap_or_else(|| json!({"type": "object", "properties": {}})),
    }})
}

struct Builder<'a> {
    conversation: Conversation,
    n_parts: usize,
    limits: &'a Limits,
}

impl Builder<'_> {
    fn message(&mut self, message: messages::Message, at: &str) -> Result<(), Error> {
        let role = match message.role {
            messages::Role::User => Role::User,
            messages::Role::Assistant => Role::Assistant,
        };
        let blocks = match message.content {
            OneOrMany::One(text) => {
                self.conversation.messages.push(Message::text(role, text));
                return Ok(());
            }
            OneOrMany::Many(blocks) => blocks,
        };
        self.count(blocks.len(), at)?;
        let mut own = Message::new(role, Vec::new());
        for (index, block) in blocks.into_iter().enumerate() {
            let at = format!("{at}[{index}]");
            let field = |name: &str| format!("{at}.{name}");
            match (block.kind.as_str(), role) {
                ("thinking", Role::Assistant) => {
                    let thoughts = block.thinking.ok_or_else(|| Error::missing(field("thinking")))?;
                    own.reasoning.get_or_insert_default().push_str(&thoughts);
                }
                // No answer of this server has one.
                ("redacted_thinking", Role::Assistant) => {}
                ("tool_use", Role::Assistant) => {
                    let name = block.name.ok_or_else(|| Error::missing(field("name")))?;
                    let arguments = block.input.unwrap_or_else(|| json!({}));
                    own.tool_calls.push(ToolCall { id: block.id, name, arguments });
                }
                ("tool_result", Role::User) => {
                    // What stood before the result was said before it.
                    if !own.content.is_empty() {
                        let content = std::mem::take(&mut own.content);
                        self.conversation.messages.push(Message::new(role, content));
                    }
                    let id = block.tool_use_id.ok_or_else(|| Error::missing(field("tool_use_id")))?;
                    let content = match block.content {
                        Some(content) => self.plain(content, &field("content"))?,
                        None => vec![Part::Text(String::new())],
                    };
                    let result = Message { tool_call_id: Some(id), ..Message::new(Role::Tool, content) };
                    self.conversation.messages.push(result);
                }
                _ => own.content.push(self.part(block, &at)?),
            }
        }
        if !own.content.is_empty() || !own.tool_calls.is_empty() {
            self.conversation.messages.push(own);
        }
        Ok(())
    }

    fn count(&mut self, n: usize, at: &str) -> Result<(), Error> {
        self.n_parts += n;
        if self.n_parts > self.limits.parts {
            let why = format!("has too many blocks; the limit for all messages is {}", self.limits.parts);
            return Err(Error::field(at, why));
        }
        Ok(())
    }

    /// Text and images.
    fn plain(&mut self, content: OneOrMany<Block>, at: &str) -> Result<Vec<Part>, Error> {
        match content {
            OneOrMany::One(text) => Ok(vec![Part::Text(text)]),
            OneOrMany::Many(blocks) => {
                self.count(blocks.len(), at)?;
                let blocks = blocks.into_iter().enumerate();
                blocks.map(|(index, block)| self.part(block, &format!("{at}[{index}]"))).collect()
            }
        }
    }

    fn part(&mut self, block: Block, at: &str) -> Result<Part, Error> {
        let field = |name: &str| format!("{at}.{name}");
        match block.kind.as_str() {
            "text" => block.text.map(Part::Text).ok_or_else(|| Error::missing(field("text"))),
            "image" => {
                let source = block.source.ok_or_else(|| Error::missing(field("source")))?;
                let (name, source) = match source.kind.as_str() {
                    "base64" => {
                        let data = source.data.ok_or_else(|| Error::missing(field("source.data")))?;
                        let bytes = image::base64(&data, &field("source.data"))?;
                        (field("source.data"), Source::Bytes(bytes))
                    }
                    "url" => {
                        let url = source.url.ok_or_else(|| Error::missing(field("source.url")))?;
                        (field("source.url"), image::source(&url, &field("source.url"))?)
                    }
                    other => {
                        let why = format!("is {other:?}; it must be base64 or url");
                        return Err(Error::unsupported(field("source.type"), why));
                    }
                };
                self.conversation.media.push(Medium { field: name, kind: Kind::Image(source, Detail::High) });
                Ok(Part::Image)
            }
            other => {
                let why = format!("is {other:?}, which is not supported here; text and image are");
                Err(Error::unsupported(field("type"), why))
            }
        }
    }
}
