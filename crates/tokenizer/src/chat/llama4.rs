//! Llama 4's prompt format.
//!
//! The rendering is that of the template in transformers (`processing_llama4.py`), to the letter, with three
//! deviations where that template loses what it was given: an assistant's message with an empty list of calls is an
//! ordinary message; an empty list of tools is none; images in a first user message that also gets the tools stay
//! images. A turn always ends in `<|eot|>`, also after calls and results, where Meta's encoder would write `<|eom|>`.
//!
//! Thoughts, which that template does not know, stand between the model's markers before what was said, with nothing
//! added around them.
//!
//! As in Meta's encoder the two line feeds after a header are a token of their own, whatever the content begins with.

use serde_json::Value;

use super::dump::dump;
use super::{Ending, Message, Part, Role, ToolCall};
use crate::guard::is_python_space;
use crate::{ChatError, Segment, Tokenizer};

/// Where the definitions of tools go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolPlacement {
    /// Before the text of the first user message, which the template does by default.
    #[default]
    FirstUserMessage,
    /// Before the system text. Without a system message the tools are left out, as the template does.
    SystemMessage,
}

/// Llama 4's prompt format for one tokenizer.
#[derive(Debug, Clone)]
pub struct Llama4Chat {
    begin: u32,
    header_start: u32,
    header_end: u32,
    eot: u32,
    python_start: u32,
    python_end: u32,
    tool_placement: ToolPlacement,
    /// What opens and closes thoughts; without it they are left out.
    markers: Option<[Vec<u32>; 2]>,
}

const SYSTEM_TOOLS: &str =
    "You have access to the following functions. To call a function, please respond with JSON for a function call.";
const USER_TOOLS: &str = "Given the following functions, please respond with a JSON for a function call \
                          with its proper arguments that best answers the given prompt.\n\n";
const CALL_FORMAT: &str = "Respond in the format {\"name\": function name, \"parameters\": \
                           dictionary of argument name and its value}.Do not use variables.\n\n";

impl Llama4Chat {
    /// The format with this tokenizer's ids.
    ///
    /// # Errors
    /// [`ChatError::MissingControl`] if the tokenizer lacks one of the format's control tokens.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let id = |name: &str| tokenizer.control(name).ok_or_else(|| ChatError::MissingControl { name: name.into() });
        Ok(Self {
            begin: id("<|begin_of_text|>")?,
            header_start: id("<|header_start|>")?,
            header_end: id("<|header_end|>")?,
            eot: id("<|eot|>")?,
            python_start: id("<|python_start|>")?,
            python_end: id("<|python_end|>")?,
            tool_placement: ToolPlacement::default(),
            markers: None,
        })
    }

    /// The same with tools somewhere else.
    pub fn with_tools_in(self, tool_placement: ToolPlacement) -> Self {
        Self { tool_placement, ..self }
    }

    /// The same for a model that thinks: what opens its thoughts, and what closes them.
    pub fn with_markers(self, start: Vec<u32>, end: Vec<u32>) -> Self {
        Self { markers: Some([start, end]), ..self }
    }

    pub(super) fn render(
        &self,
        messages: &[Message],
        tools: Option<&[Value]>,
        ending: Ending<'_>,
    ) -> Result<Vec<Segment>, ChatError> {
        let mut prompt = Prompt { chat: self, segments: vec![Segment::Control(self.begin)], n_media: 0 };
        let mut rest = messages;
        if let Some((first, others)) = messages.split_first().filter(|(first, _)| first.role == Role::System) {
            prompt.system(first, tools)?;
            rest = others;
        }
        if let (Some(tools), ToolPlacement::FirstUserMessage) = (tools, self.tool_placement) {
            let (first, others) = rest
                .split_first()
                .filter(|(first, _)| first.role == Role::User)
                .ok_or_else(|| ChatError::conversation("tools need a user message before any other"))?;
            prompt.first_user(first, tools);
            rest = others;
        }
        for message in rest {
            prompt.message(message)?;
        }
        if matches!(ending, Ending::Answer(_)) {
            prompt.header("assistant");
        }
        Ok(prompt.segments)
    }
}

/// A prompt being written.
struct Prompt<'a> {
    chat: &'a Llama4Chat,
    segments: Vec<Segment>,
    n_media: usize,
}

impl Prompt<'_> {
    /// The system turn that opens a conversation.
    fn system(&mut self, message: &Message, tools: Option<&[Value]>) -> Result<(), ChatError> {
        if message.holds(&Part::Image) {
            return Err(ChatError::conversation("a system message cannot hold an image; put it in a user message"));
        }
        no_audio(message, "a system")?;
        let mut text = String::new();
        if let Some(tools) = tools {
            text.push_str("Environment: ipython\n");
            if self.chat.tool_placement == ToolPlacement::SystemMessage {
                text.push_str(SYSTEM_TOOLS);
                text.push_str(CALL_FORMAT);
                text.push_str(&definitions(tools));
            }
        }
        text.push_str(text_of(&message.content).trim_matches(is_python_space));
        self.header("system");
        self.text(text);
        self.control(self.chat.eot);
        Ok(())
    }

    /// The first user turn, with the tools before its text.
    fn first_user(&mut self, message: &Message, tools: &[Value]) {
        self.header("user");
        let mut content = self.content(&message.content);
        if let Some(Segment::Text(text)) = content.first_mut() {
            *text = text.trim_start_matches(is_python_space).to_owned();
        }
        if let Some(Segment::Text(text)) = content.last_mut() {
            *text = text.trim_end_matches(is_python_space).to_owned();
        }
        let mut text = [USER_TOOLS, CALL_FORMAT, &definitions(tools)].concat();
        let mut content = content.into_iter().peekable();
        if let Some(Segment::Text(first)) = content.next_if(|segment| matches!(segment, Segment::Text(_))) {
            text.push_str(&first);
        }
        self.text(text);
        self.segments.extend(content);
        self.control(self.chat.eot);
    }

    /// Any other turn.
    fn message(&mut self, message: &Message) -> Result<(), ChatError> {
        self.header(match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "ipython",
        });
        if message.role == Role::Tool {
            self.result(&message.content)?;
        } else {
            if message.role != Role::User {
                no_audio(message, if message.role == Role::System { "a system" } else { "an assistant's" })?;
            }
            self.thoughts(message);
            let content = self.content(&message.content);
            match message.tool_calls.is_empty() {
                true => self.segments.extend(content),
                false => self.calls(content, &message.tool_calls),
            }
        }
        self.control(self.chat.eot);
        Ok(())
    }

    fn thoughts(&mut self, message: &Message) {
        if let (Some([start, end]), Some(thoughts)) = (&self.chat.markers, &message.reasoning) {
            self.segments.extend(start.iter().copied().map(Segment::Control));
            self.text(thoughts.clone());
            self.segments.extend(end.iter().copied().map(Segment::Control));
        }
    }

    /// Content between the python tokens, then the calls, back to back.
    fn calls(&mut self, content: Vec<Segment>, calls: &[ToolCall]) {
        self.control(self.chat.python_start);
        self.segments.extend(content);
        self.control(self.chat.python_end);
        let call = |call: &ToolCall| {
            format!("{{\"name\": \"{}\", \"parameters\": {}}}", call.name, dump(&call.arguments, None))
        };
        self.text(calls.iter().map(call).collect());
    }

    /// A tool's result: clips at their places, everything else as JSON.
    fn result(&mut self, parts: &[Part]) -> Result<(), ChatError> {
        for run in parts.chunk_by(|a, b| *a != Part::Audio && *b != Part::Audio) {
            if run.first() == Some(&Part::Audio) {
                let media = self.media();
                self.segments.push(media);
            } else {
                self.text(result(run)?);
            }
        }
        Ok(())
    }

    fn media(&mut self) -> Segment {
        self.n_media += 1;
        Segment::Media(self.n_media - 1)
    }

    /// The segments of content: images and clips at their places, neighbouring texts in one.
    fn content(&mut self, parts: &[Part]) -> Vec<Segment> {
        let mut segments = Vec::new();
        for run in parts.chunk_by(|a, b| !a.is_media() && !b.is_media()) {
            if run.first().is_some_and(Part::is_media) {
                segments.push(self.media());
            } else {
                segments.push(Segment::Text(text_of(run)));
            }
        }
        segments.retain(|segment| !matches!(segment, Segment::Text(text) if text.is_empty()));
        segments
    }

    fn header(&mut self, role: &str) {
        self.control(self.chat.header_start);
        self.text(role.into());
        self.control(self.chat.header_end);
        self.text("\n\n".into());
    }

    fn control(&mut self, id: u32) {
        self.segments.push(Segment::Control(id));
    }

    fn text(&mut self, text: String) {
        if !text.is_empty() {
            self.segments.push(Segment::Text(text));
        }
    }
}

/// Each tool as indented JSON and an empty line.
fn definitions(tools: &[Value]) -> String {
    tools.iter().map(|tool| dump(tool, Some(4)) + "\n\n").collect()
}

/// Refuses audio in a message of the system or the model.
fn no_audio(message: &Message, whose: &str) -> Result<(), ChatError> {
    match message.holds(&Part::Audio) {
        true => Err(ChatError::conversation(format!("{whose} message cannot hold audio; put it in a user message"))),
        false => Ok(()),
    }
}

/// The text of parts, images and clips left out.
pub(super) fn text_of(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Json(value) => dump(value, None),
        Part::Image | Part::Audio => String::new(),
    };
    parts.iter().map(text).collect()
}

/// A tool's result as JSON: text becomes a JSON string, quotes and all, which is what the template writes.
fn result(content: &[Part]) -> Result<String, ChatError> {
    if let [Part::Json(value)] = content {
        return Ok(dump(value, None));
    }
    if content.iter().all(|part| matches!(part, Part::Text(_))) {
        return Ok(dump(&Value::from(text_of(content)), None));
    }
    Err(ChatError::conversation("a tool result is text or one JSON value; put an image in a user message"))
}
