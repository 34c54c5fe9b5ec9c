//! Items of `/v1/responses` as a conversation.

use serde_json::{Value, json};
use tokenizer::{Message, Part, Role, ToolCall};

use crate::error::Error;
use crate::id;
use crate::limits::Limits;
use crate::prompt::{Conversation, Kind, Medium};
use crate::routes::compact;
use crate::wire::OneOrMany;
use crate::wire::responses::{Content, Item};
use crate::{audio, image};

/// Checks and translates instructions and items, which stand at `input` in the request from number `first` on; those before
/// come from earlier responses.
///
/// # Errors
/// [`Error::Field`] naming what is wrong or not supported.
pub fn conversation(
    instructions: Option<String>,
    items: Vec<Item>,
    first: usize,
    limits: &Limits,
) -> Result<Conversation, Error> {
    if items.len() > limits.messages {
        let why = format!("and what came before have {} items; the limit is {}", items.len(), limits.messages);
        return Err(Error::field("input", why));
    }
    let mut builder = Builder { conversation: Conversation::default(), thoughts: None, n_parts: 0, limits };
    if let Some(instructions) = instructions {
        builder.conversation.messages.push(Message::text(Role::System, instructions));
    }
    for (index, item) in items.into_iter().enumerate() {
        let at = match index.checked_sub(first) {
            Some(index) => format!("input[{index}]"),
            None => "previous_response_id".into(),
        };
        builder.item(item, &at)?;
    }
    Ok(builder.conversation)
}

impl Item {
    /// Gives an item that comes from a request what all that are kept have: a name, a kind, and content in parts.
    pub fn complete(&mut self) {
        let kind = self.kind.get_or_insert_with(|| "message".into()).clone();
        self.id.get_or_insert_with(|| {
            id::fresh(match kind.as_str() {
                "function_call" | "function_call_output" => "fc_",
                "reasoning" => "rs_",
                "compaction" => "cmp_",
                _ => "msg_",
            })
        });
        if kind != "message" {
            return;
        }
        let is_answer = self.role.as_deref() == Some("assistant");
        if let Some(OneOrMany::One(text)) = &mut self.content {
            let text = std::mem::take(text);
            let kind = if is_answer { "output_text" } else { "input_text" }.to_owned();
            self.content = Some(OneOrMany::Many(vec![Content { kind, text: Some(text), ..Content::default() }]));
        }
        // The parts of answers have these fields, whatever a request left out.
        if let Some(OneOrMany::Many(parts)) = self.content.as_mut().filter(|_| is_answer) {
            for part in parts.iter_mut().filter(|part| part.kind == "output_text") {
                part.annotations.get_or_insert_with(|| json!([]));
            }
            self.status.get_or_insert_with(|| "completed".into());
        }
    }
}

struct Builder<'a> {
    conversation: Conversation,
    /// Thoughts that stand before what the assistant said because of them.
    thoughts: Option<String>,
    n_parts: usize,
    limits: &'a Limits,
}

impl Builder<'_> {
    fn item(&mut self, item: Item, at: &str) -> Result<(), Error> {
        let field = |name: &str| format!("{at}.{name}");
        match item.kind.as_deref().unwrap_or("message") {
            "message" => {
                let role = match item.role.as_deref() {
                    Some("user") => Role::User,
                    Some("assistant") => Role::Assistant,
                    Some("system" | "developer") => Role::System,
                    Some(other) => {
                        let why = format!("is {other:?}; it must be user, assistant, system or developer");
                        return Err(Error::field(field("role"), why));
                    }
                    None => return Err(Error::missing(field("role"))),
                };
                let content = item.content.ok_or_else(|| Error::missing(field("content")))?;
                let content = self.content(content, &field("content"))?;
                // Thoughts belong to what the assistant says next, to nothing else.
                let reasoning = self.thoughts.take().filter(|_| role == Role::Assistant);
                self.conversation.messages.push(Message { reasoning, ..Message::new(role, content) });
            }
            "function_call" => {
                let name = item.name.ok_or_else(|| Error::missing(field("name")))?;
                let text = item.arguments.ok_or_else(|| Error::missing(field("arguments")))?;
                let arguments: Value = serde_json::from_str(&text)
                    .map_err(|error| Error::field(field("arguments"), format!("is no JSON: {error}")))?;
                let call = ToolCall { id: item.call_id, name, arguments };
                // Calls of one turn are one message.
                match self.conversation.messages.last_mut() {
                    Some(last) if last.role == Role::Assistant && self.thoughts.is_none() => last.tool_calls.push(call),
                    _ => {
                        let (reasoning, tool_calls) = (self.thoughts.take(), vec![call]);
                        let message = Message::new(Role::Assistant, Vec::new());
                        self.conversation.messages.push(Message { reasoning, tool_calls, ..message });
                    }
                }
            }
            "function_call_output" => {
                let id = item.call_id.ok_or_else(|| Error::missing(field("call_id")))?;
                let output = item.output.ok_or_else(|| Error::missing(field("output")))?;
                let content = self.content(output, &field("output"))?;
                let message = Message { tool_call_id: Some(id), ..Message::new(Role::Tool, content) };
                self.conversation.messages.push(message);
            }
            "reasoning" => {
                let content = item.content.map(|content| self.content(content, &field("content"))).transpose()?;
                let texts = content.into_iter().flatten().filter_map(|part| match part {
                    Part::Text(text) => Some(text),
                    Part::Image | Part::Audio | Part::Json(_) => None,
                });
                self.thoughts = Some(texts.collect()).filter(|thoughts: &String| !thoughts.is_empty());
            }
            "compaction" => {
                let content = item.encrypted_content.ok_or_else(|| Error::missing(field("encrypted_content")))?;
                let summary = compact::read(&content).ok_or_else(|| {
                    Error::field(
                        field("encrypted_content"),
                        "is nothing that /v1/responses/compact of this server gave",
                    )
                })?;
                self.conversation.messages.push(Message::text(Role::User, summary));
            }
            other => {
                let why = format!(
                    "is {other:?}, which is not supported; message, function_call, function_call_output, reasoning and \
                     compaction are"
                );
                return Err(Error::unsupported(field("type"), why));
            }
        }
        Ok(())
    }

    fn content(&mut self, content: OneOrMany<Content>, at: &str) -> Result<Vec<Part>, Error> {
        match content {
            OneOrMany::One(text) => Ok(vec![Part::Text(text)]),
            OneOrMany::Many(parts) => {
                self.n_parts += parts.len();
                if self.n_parts > self.limits.parts {
                    let why = format!("has too many parts; the limit for all items is {}", self.limits.parts);
                    return Err(Error::field(at, why));
                }
                let parts = parts.into_iter().enumerate();
                parts.map(|(index, part)| self.part(part, &format!("{at}[{index}]"))).collect()
            }
        }
    }

    fn part(&mut self, part: Content, at: &str) -> Result<Part, Error> {
        let field = |name: &str| format!("{at}.{name}");
        match part.kind.as_str() {
            "input_text" | "output_text" | "reasoning_text" | "text" => {
                part.text.map(Part::Text).ok_or_else(|| Error::missing(field("text")))
            }
            "refusal" => part.refusal.map(Part::Text).ok_or_else(|| Error::missing(field("refusal"))),
            "input_image" => {
                if part.file_id.is_some() {
                    return Err(Error::unsupported(field("file_id"), "is not supported; send a data URL as image_url"));
                }
                let url = part.image_url.ok_or_else(|| Error::missing(field("image_url")))?;
                let source = image::source(&url, &field("image_url"))?;
                let detail = image::detail(part.detail.as_deref(), &field("detail"))?;
                self.conversation.media.push(Medium { field: field("image_url"), kind: Kind::Image(source, detail) });
                Ok(Part::Image)
            }
            "input_audio" => {
                self.conversation.media.push(audio::input(part.input_audio.as_ref(), &field("input_audio"))?);
                Ok(Part::Audio)
            }
            other => {
                let why = format!("is {other:?}, which is not supported; input_text, input_image and input_audio are");
                Err(Error::unsupported(field("type"), why))
            }
        }
    }
}
