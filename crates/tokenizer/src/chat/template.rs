//! A checkpoint's own chat template.
//!
//! The template comes with the weights and is run with a budget of steps and bytes. It never sees what a user wrote:
//! texts, names, tool definitions and their JSON stand as marks (see `opaque.rs`), so that only the template's own
//! letters can become control tokens. Roles, and the words of JSON Schema, it sees as they are.
//!
//! What differs from a template that sees the text: `==` and `in` between a text and the template's own words are always
//! false (methods and filters such as `startswith`, `split`, `trim`, `length` do look behind the marks), and cutting a
//! text by index is an error.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

use super::llama4::text_of;
use super::opaque::{Opaque, Stretch};
use super::{Ending, Message, Part, Role, ToolCall, date, methods};
use crate::added::{Finder, Found};
use crate::{ChatError, Segment, Tokenizer};

/// The name under which the template is kept; without an extension, so that nothing is escaped for HTML.
const NAME: &str = "chat";
/// The longest template that is read, in bytes. Released ones are below 20 KiB.
const MAX_BYTES: usize = 1 << 20;
/// Steps and, times 64, bytes that every rendering may take.
const BASE_FUEL: u64 = 1_000_000;
/// Words that templates look for in tool definitions. They are not a user's, and are shown as they are.
const SCHEMA_WORDS: [&str; 32] = [
    "type",
    "function",
    "name",
    "description",
    "parameters",
    "arguments",
    "properties",
    "required",
    "enum",
    "items",
    "object",
    "string",
    "integer",
    "number",
    "boolean",
    "array",
    "null",
    "default",
    "format",
    "anyOf",
    "oneOf",
    "allOf",
    "additionalProperties",
    "minimum",
    "maximum",
    "nullable",
    "title",
    "const",
    "pattern",
    "return",
    "strict",
    "any",
];

/// How a template wants the content of a message without images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// As one string.
    Text,
    /// As a list of parts.
    Parts,
}

/// A chat template, ready to render.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    controls: Option<Finder>,
    schema_words: HashSet<&'static str>,
    image: Option<u32>,
    bos: String,
    eos: String,
    content: Content,
    unix_seconds: Option<u64>,
}

impl ChatTemplate {
    /// Compiles a template for a tokenizer, whose control tokens are recognised in what the template itself writes.
    ///
    /// # Errors
    /// [`ChatError::Template`] if it does not parse or is longer than 1 MiB.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        if source.len() > MAX_BYTES {
            return Err(ChatError::template(format!("it is {} bytes long; the limit is {MAX_BYTES}", source.len())));
        }
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| ChatError::template(e.to_string()))?);
        env.set_debug(false);
        env.add_template_owned(NAME, source.to_owned()).map_err(|e| ChatError::template(e.to_string()))?;
        let controls = Finder::new(tokenizer.controls()).map_err(ChatError::template)?;
        let is_plain = |word: &&str| controls.as_ref().is_none_or(|finder| !finder.is_in(word));
        let spelling = |id: Option<u32>| {
            let bytes = id.and_then(|id| tokenizer.token_bytes(id)).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let mut template = Self {
            schema_words: SCHEMA_WORDS.into_iter().filter(is_plain).collect(),
            env,
            source: source.to_owned(),
            controls,
            image: tokenizer.control("<|image|>"),
            bos: spelling(tokenizer.bos()),
            eos: spelling(tokenizer.eos()),
            content: Content::Text,
            unix_seconds: None,
        };
        template.content = template.probe();
        Ok(template)
    }

    /// The same with another token by which the template marks the place of an image; the default is `<|image|>`.
    pub fn with_image_token(self, id: u32) -> Self {
        Self { image: Some(id), ..self }
    }

    /// The same with a fixed date, in seconds after 1970 began, in place of the clock's for `strftime_now`.
    pub fn with_date(self, unix_seconds: u64) -> Self {
        Self { unix_seconds: Some(unix_seconds), ..self }
    }

    pub(super) fn render(
        &self,
        messages: &[Message],
        tools: Option<&[Json]>,
        ending: Ending<'_>,
    ) -> Result<Vec<Segment>, ChatError> {
        let job = Job { template: self, messages, tools, ending, content: self.content };
        job.segments()
    }

    /// Finds out how the template wants content: as the string that most take, unless it loses that.
    fn probe(&self) -> Content {
        let messages = [Message::text(Role::User, "probe")];
        let keeps = |content: Content| {
            let job = Job { template: self, messages: &messages, tools: None, ending: Ending::Answer(None), content };
            let shows = |segment: &Segment| matches!(segment, Segment::Text(text) if text.contains("probe"));
            job.segments().is_ok_and(|segments| segments.iter().any(shows))
        };
        if !keeps(Content::Text) && keeps(Content::Parts) { Content::Parts } else { Content::Text }
    }

    /// Appends the segments of what the template itself wrote.
    fn recognise(&self, own: &str, segments: &mut Vec<Segment>, n_media: &mut usize) {
        let mut each = |found: Found| match found {
            Found::Text(text) => append(segments, text),
            Found::Token(id) if Some(id) == self.image => {
                segments.push(Segment::Media(*n_media));
                *n_media += 1;
            }
            Found::Token(id) => segments.push(Segment::Control(id)),
        };
        match &self.controls {
            Some(controls) => controls.each(own, each),
            None => each(Found::Text(own)),
        }
    }
}

/// Appends text; neighbouring texts are one, so that they are encoded together, as the template's authors saw it.
fn append(segments: &mut Vec<Segment>, text: &str) {
    match segments.last_mut() {
        Some(Segment::Text(last)) => last.push_str(text),
        _ => segments.push(Segment::Text(text.to_owned())),
    }
}

/// One rendering.
struct Job<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Message],
    tools: Option<&'a [Json]>,
    ending: Ending<'a>,
    content: Content,
}

impl Job<'_> {
    fn segments(&self) -> Result<Vec<Segment>, ChatError> {
        let given = self.given_texts();
        let texts = given.iter().map(String::as_str).chain([self.template.source.as_str()]);
        let opaque = Opaque::apart_from(texts)
            .ok_or_else(|| ChatError::conversation("the texts use every private-use character of Unicode"))?;
        let opaque = Arc::new(opaque);
        let n_bytes: usize = given.iter().map(String::len).sum();
        let rendered = self
            .rendered(&opaque, BASE_FUEL.saturating_add(n_bytes as u64 / 4))
            .map_err(|e| ChatError::template(format!("{e:#}")))?;
        let mut segments = Vec::new();
        let mut n_media = 0;
        for stretch in opaque.stretches(&rendered).map_err(ChatError::template)? {
            match stretch {
                Stretch::Own(own) => self.template.recognise(&own, &mut segments, &mut n_media),
                Stretch::Given(text) => append(&mut segments, &text),
            }
        }
        let n_given = self.messages.iter().flat_map(|m| &m.content).filter(|part| part.is_media()).count();
        if n_media == n_given {
            return Ok(segments);
        }
        Err(ChatError::template(format!(
            "it wrote {n_media} of {n_given} images and clips; the model may not take them"
        )))
    }

    /// Everything that is not the template's own, for choosing marks that do not occur in it.
    fn given_texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        for message in self.messages {
            texts.push(text_of(&message.content));
            texts.extend(message.reasoning.clone());
            texts.extend(message.tool_call_id.clone());
            for call in &message.tool_calls {
                texts.extend(call.id.clone());
                texts.push(call.name.clone());
                texts.push(call.arguments.to_string());
            }
        }
        texts.extend(self.tools.into_iter().flatten().map(Json::to_string));
        texts
    }

    fn rendered(&self, opaque: &Arc<Opaque>, fuel: u64) -> Result<String, Error> {
        let mut env = self.template.env.clone();
        env.set_fuel(Some(fuel));
        methods::install(&mut env, opaque);
        let marks = Arc::clone(opaque);
        env.add_function("raise_exception", move |message: String| -> Result<Value, Error> {
            let stretches = marks.stretches(&message).unwrap_or_default();
            let message: String = stretches.iter().map(Stretch::as_str).collect();
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        #[allow(clippy::disallowed_methods, reason = "templates write the date")]
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let unix_seconds = self.template.unix_seconds.unwrap_or_else(now);
        env.add_function("strftime_now", move |pattern: &str| date::format(pattern, unix_seconds));
        let shown = Shown { opaque, schema_words: &self.template.schema_words };
        let messages: Value = self.messages.iter().map(|message| shown.message(message, self.content)).collect();
        let tools: Value = match self.tools {
            Some(tools) => tools.iter().map(|tool| shown.json(tool)).collect(),
            None => Value::from(()),
        };
        let mut variables = vec![
            ("messages", messages),
            ("tools", tools),
            ("add_generation_prompt", Value::from(matches!(self.ending, Ending::Answer(_)))),
            ("bos_token", Value::from(self.template.bos.as_str())),
            ("eos_token", Value::from(self.template.eos.as_str())),
        ];
        // Templates ask whether a variable is there, so what was not said is not there.
        if let Ending::Answer(Some(thinking)) = self.ending {
            variables.extend(["enable_thinking", "thinking"].map(|name| (name, Value::from(thinking.is_on))));
            variables.extend(thinking.effort.map(|effort| ("reasoning_effort", Value::from(effort))));
        }
        env.get_template(NAME)?.render(map(variables))
    }
}

/// Shows a conversation to a template.
struct Shown<'a> {
    opaque: &'a Opaque,
    schema_words: &'a HashSet<&'static str>,
}

impl Shown<'_> {
    fn message(&self, message: &Message, content: Content) -> Value {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let content = match message.content.iter().any(Part::is_media) || content == Content::Parts {
            true => message.content.iter().map(|part| self.part(part)).collect(),
            false => self.text(&text_of(&message.content)),
        };
        let mut entries = vec![("role", Value::from(role)), ("content", content)];
        if !message.tool_calls.is_empty() {
            entries.push(("tool_calls", message.tool_calls.iter().map(|call| self.call(call)).collect()));
        }
        if let Some(thoughts) = &message.reasoning {
            entries.push(("reasoning_content", self.text(thoughts)));
        }
        if let Some(id) = &message.tool_call_id {
            entries.push(("tool_call_id", self.text(id)));
        }
        map(entries)
    }

    fn part(&self, part: &Part) -> Value {
        match part {
            Part::Image => map([("type", Value::from("image"))]),
            Part::Audio => map([("type", Value::from("audio"))]),
            _ => map([("type", Value::from("text")), ("text", self.text(&text_of(std::slice::from_ref(part))))]),
        }
    }

    fn call(&self, call: &ToolCall) -> Value {
        let function = map([("name", self.text(&call.name)), ("arguments", self.json(&call.arguments))]);
        let id = call.id.as_deref().map_or(Value::from(()), |id| self.text(id));
        map([("id", id), ("type", Value::from("function")), ("function", function)])
    }

    fn json(&self, value: &Json) -> Value {
        match value {
            Json::Null => Value::from(()),
            Json::Bool(flag) => Value::from(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::from(number),
                (None, Some(number)) => Value::from(number),
                (None, None) => Value::from(number.as_f64()),
            },
            Json::String(text) => Value::from(self.word(text)),
            Json::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Json::Object(entries) => map(entries.iter().map(|(key, value)| (self.word(key), self.json(value)))),
        }
    }

    fn word(&self, text: &str) -> String {
        if self.schema_words.contains(text) { text.to_owned() } else { self.opaque.hide(text) }
    }

    fn text(&self, text: &str) -> Value {
        Value::from(self.opaque.hide(text))
    }
}

/// A map in the order of its entries.
fn map<K: Into<Value>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
    let mut map = OrderedMap::default();
    for (key, value) in entries {
        let key = key.into();
        if map.value_by_key.insert(key.clone(), value).is_none() {
            map.keys.push(key);
        }
    }
    Value::from_object(map)
}

/// The map type behind [`map`]; the engine's own are sorted, or made from its own values only.
#[derive(Debug, Default)]
struct OrderedMap {
    keys: Vec<Value>,
    value_by_key: HashMap<Value, Value>,
}

impl Object for OrderedMap {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.value_by_key.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.keys.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.keys.len())
    }
}
