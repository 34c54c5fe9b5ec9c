//! Messages of `/v1/chat/completions` as a conversation.

use serde_json::Value;
use tokenizer::{Message, Part, Role, ToolCall};

use crate::error::Error;
use crate::limits::Limits;
use crate::prompt::{Conversation, Kind, Medium};
use crate::wire::OneOrMany;
use crate::wire::chat;
use crate::{audio, image};

/// Checks and translates messages.
///
/// # Errors
/// [`Error::Field`] naming the field of the message that is wrong or not supported.
pub fn conversation(messages: Vec<chat::Message>, limits: &Limits) -> Result<Conversation, Error> {
    if messages.is_empty() {
        return Err(Error::field("messages", "is empty; it must have at least one message"));
    }
    if messages.len() > limits.messages {
        let why = format!("has {} messages; the limit is {}", messages.len(), limits.messages);
        return Err(Error::field("messages", why));
    }
    let mut builder = Builder { conversation: Conversation::default(), n_parts: 0, limits };
    for (index, message) in messages.into_iter().enumerate() {
        builder.message(message, &format!("messages[{index}]"))?;
    }
    Ok(builder.conversation)
}

struct Builder<'a> {
    conversation: Conversation,
    n_parts: usize,
    limits: &'a Limits,
}

impl Builder<'_> {
    fn message(&mut self, message: chat::Message, at: &str) -> Result<(), Error> {
        let field = |name: &str| format!("{at}.{name}");
        let role = match message.role {
            chat::Role::System | chat::Role::Developer => Role::System,
            chat::Role::User => Role::User,
            chat::Role::Assistant => Role::Assistant,
            chat::Role::Tool => Role::Tool,
            chat::Role::Function => {
                return Err(Error::unsupported(field("role"), "is the older \"function\"; use \"tool\""));
            }
        };
        if message.name.is_some() && role != Role::Tool {
            return Err(Error::unsupported(field("name"), "is not supported: chat formats have no names"));
        }
        if message.function_call.is_some() {
            return Err(Error::unsupported(field("function_call"), "is not supported; use tool_calls"));
        }
        if message.audio.is_some() {
            return Err(Error::unsupported(
                field("audio"),
                "is not supported: answers are text; send audio in a part of content",
            ));
        }
        let has_calls = message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty());
        let mut content = self.content(message.content, &field("content"))?;
        content.extend(message.refusal.map(Part::Text));
        let may_be_empty = role == Role::Assistant;
        if content.is_empty() && !may_be_empty {
            return Err(Error::missing(field("content")));
        }
        if has_calls && role != Role::Assistant {
            return Err(Error::field(field("tool_calls"), "belongs to assistant messages"));
        }
        let calls = message.tool_calls.unwrap_or_default().into_iter().enumerate();
        let calls = calls.map(|(index, call)| tool_call(call, &format!("{at}.tool_calls[{index}]")));
        let tool_calls: Vec<ToolCall> = calls.collect::<Result<_, _>>()?;
        if role == Role::Tool && message.tool_call_id.is_none() {
            return Err(Error::missing(field("tool_call_id")));
        }
        if role != Role::Tool && message.tool_call_id.is_some() {
            return Err(Error::field(field("tool_call_id"), "belongs to tool messages"));
        }
        let reasoning = message.reasoning.or(message.reasoning_content).filter(|_| role == Role::Assistant);
        let tool_call_id = message.tool_call_id;
        self.conversation.messages.push(Message { role, content, reasoning, tool_calls, tool_call_id });
        Ok(())
    }

    fn content(&mut self, content: Option<OneOrMany<chat::Part>>, at: &str) -> Result<Vec<Part>, Error> {
        match content {
            None => Ok(Vec::new()),
            Some(OneOrMany::One(text)) => Ok(vec![Part::Text(text)]),
            Some(OneOrMany::Many(parts)) => {
                self.n_parts += parts.len();
                if self.n_parts > self.limits.parts {
                    let why = format!("has too many parts; the limit for all messages is {}", self.limits.parts);
                    return Err(Error::field(at, why));
                }
                let parts = parts.into_iter().enumerate();
                parts.map(|(index, part)| self.part(part, &format!("{at}[{index}]"))).collect()
            }
        }
    }

    fn part(&mut self, part: chat::Part, at: &str) -> Result<Part, Error> {
        let field = |name: &str| format!("{at}.{name}");
        match part.kind.as_str() {
            "text" => part.text.map(Part::Text).ok_or_else(|| Error::missing(field("text"))),
            "refusal" => part.refusal.map(Part::Text).ok_or_else(|| Error::missing(field("refusal"))),
            "image_url" => {
                let image = part.image_url.ok_or_else(|| Error::missing(field("image_url")))?;
                let url = field("image_url.url");
                let source = image::source(&image.url, &url)?;
                let detail = image::detail(image.detail.as_deref(), &field("image_url.detail"))?;
                self.conversation.media.push(Medium { field: url, kind: Kind::Image(source, detail) });
                Ok(Part::Image)
            }
            "input_audio" => {
                self.conversation.media.push(audio::input(part.input_audio.as_ref(), &field("input_audio"))?);
                Ok(Part::Audio)
            }
            "audio_url" => {
                self.conversation.media.push(audio::url(part.audio_url.as_ref(), &field("audio_url"))?);
                Ok(Part::Audio)
            }
            "file" => Err(Error::unsupported(field("type"), "is file; send text, an image or audio")),
            other => Err(Error::field(
                field("type"),
                format!("is {other:?}; it must be text, image_url, input_audio or audio_url"),
            )),
        }
    }
}

fn tool_call(call: chat::ToolCall, at: &str) -> Result<ToolCall, Error> {
    let field = |name: &str| format!("{at}.{name}");
    if call.kind.as_deref().is_some_and(|kind| kind != "function") || call.custom.is_some() {
        return Err(Error::unsupported(field("type"), "must be function"));
    }
    let function = call.function.ok_or_else(|| Error::missing(field("function")))?;
    let arguments: Value = match function.arguments.trim() {
        "" => Value::Object(serde_json::Map::new()),
        text => serde_json::from_str(text)
            .map_err(|error| Error::field(field("function.arguments"), format!("is no JSON: {error}")))?,
    };
    Ok(ToolCall { id: call.id, name: function.name, arguments })
}
