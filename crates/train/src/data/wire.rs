//! A row in JSON: a document, a conversation in the form of the API, or a pair of answers.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Component, Path};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use engine::media::audio::AudioFormat;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use tokenizer::{Message, Part, Role, ToolCall};

use super::row::{At, Conversation, Kind, Medium, Row};

/// Messages of one conversation at most.
const MESSAGES: usize = 1024;
/// Parts of one message, and calls in one, at most.
const PARTS: usize = 1024;
/// Bytes of all tools, and of one call's arguments, at most.
const JSON_LIMIT_BYTES: usize = 64 << 10;

#[derive(Deserialize)]
struct Wire {
    text: Option<String>,
    messages: Option<Many<WireMessage, MESSAGES>>,
    tools: Option<Box<RawValue>>,
    prompt: Option<Said<WireMessage, MESSAGES>>,
    chosen: Option<Said<WireMessage, MESSAGES>>,
    rejected: Option<Said<WireMessage, MESSAGES>>,
}

#[derive(Deserialize)]
struct WireMessage {
    role: WireRole,
    content: Option<Said<WirePart, PARTS>>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Many<WireCall, PARTS>>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum WireRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

#[derive(Deserialize)]
struct WirePart {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    image_url: Option<WireUrl>,
    audio_url: Option<WireUrl>,
    input_audio: Option<WireAudio>,
}

#[derive(Deserialize)]
struct WireUrl {
    url: String,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct WireAudio {
    data: String,
    format: String,
}

#[derive(Deserialize)]
struct WireCall {
    id: Option<String>,
    function: WireFunction,
}

#[derive(Deserialize)]
struct WireFunction {
    name: String,
    arguments: String,
}

/// A list that is refused as soon as it is too long.
struct Many<T, const LIMIT: usize>(Vec<T>);

/// A text or a list.
enum Said<T, const LIMIT: usize> {
    Text(String),
    List(Vec<T>),
}

struct SaidVisitor<T, const LIMIT: usize>(PhantomData<T>);

impl<'de, T: DeserializeOwned, const LIMIT: usize> Visitor<'de> for SaidVisitor<T, LIMIT> {
    type Value = Said<T, LIMIT>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text or a list of at most {LIMIT}")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Said::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element()? {
            if all.len() == LIMIT {
                return Err(A::Error::custom(format!("has more than {LIMIT} entries")));
            }
            all.push(one);
        }
        Ok(Said::List(all))
    }
}

impl<'de, T: DeserializeOwned, const LIMIT: usize> Deserialize<'de> for Said<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SaidVisitor(PhantomData))
    }
}

impl<'de, T: DeserializeOwned, const LIMIT: usize> Deserialize<'de> for Many<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_seq(SaidVisitor::<T, LIMIT>(PhantomData))? {
            Said::List(list) => Ok(Self(list)),
            Said::Text(_) => Err(D::Error::custom("is a text; write a list")),
        }
    }
}

/// Reads a row. Paths in it are taken from `folder`.
///
/// # Errors
/// The field and what is wrong with it.
pub(super) fn parse(json: &[u8], folder: &Path) -> Result<Row, String> {
    if !json.trim_ascii_start().starts_with(b"{") {
        // A list would be taken for the fields in their order.
        return Err("is no JSON object".into());
    }
    let wire: Wire = read(json)?;
    let tools = tools(wire.tools.as_deref())?;
    match (wire.text, wire.messages, wire.prompt, wire.chosen, wire.rejected) {
        (Some(text), None, None, None, None) => Ok(Row::Document(text)),
        (None, Some(messages), None, None, None) => {
            let mut reading = Reading::new(folder, tools);
            reading.messages(messages.0, "messages")?;
            reading.finish("messages").map(Row::Conversation)
        }
        (None, None, Some(prompt), Some(chosen), Some(rejected)) => {
            let mut reading = Reading::new(folder, tools);
            reading.said(prompt, Role::User, "prompt")?;
            let given = reading.conversation;
            let way = |said, field: &str| {
                let mut reading = Reading { folder, conversation: given.clone() };
                reading.conversation.n_given = given.messages.len();
                reading.said(said, Role::Assistant, field)?;
                reading.forget_repetition();
                reading.finish(field)
            };
            Ok(Row::Preference { chosen: way(chosen, "chosen")?, rejected: way(rejected, "rejected")? })
        }
        _ => Err("a row has text, or messages, or prompt with chosen and rejected, and none of the others".into()),
    }
}

/// Every text of a row of any form.
///
/// # Errors
/// Why it is no JSON.
pub(super) fn texts(json: &[u8]) -> Result<Vec<String>, String> {
    fn collect(value: Value, texts: &mut Vec<String>) {
        match value {
            Value::String(text) => texts.push(text),
            Value::Array(list) => list.into_iter().for_each(|value| collect(value, texts)),
            Value::Object(map) => map.into_iter().for_each(|(_, value)| collect(value, texts)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut texts = Vec::new();
    collect(read(json)?, &mut texts);
    Ok(texts)
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    let deserializer = &mut serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        match path.as_str() {
            "." | "?" => format!("{what} at column {}", error.column()),
            path => format!("{path}: {what} at column {}", error.column()),
        }
    })
}

fn tools(raw: Option<&RawValue>) -> Result<Vec<Value>, String> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(Vec::new()) };
    let text = bounded(raw.get(), "tools")?;
    serde_json::from_str(text).map_err(|_| "tools: is no list of functions".into())
}

fn bounded<'a>(text: &'a str, field: &str) -> Result<&'a str, String> {
    match text.len() {
        len if len > JSON_LIMIT_BYTES => Err(format!("{field}: has {len} bytes; the limit is {JSON_LIMIT_BYTES}")),
        _ => Ok(text),
    }
}

/// A conversation being read.
struct Reading<'a> {
    folder: &'a Path,
    conversation: Conversation,
}

impl<'a> Reading<'a> {
    fn new(folder: &'a Path, tools: Vec<Value>) -> Self {
        Self { folder, conversation: Conversation { tools, ..Conversation::default() } }
    }

    fn said(&mut self, said: Said<WireMessage, MESSAGES>, role: Role, field: &str) -> Result<(), String> {
        match said {
            Said::Text(text) => {
                self.conversation.messages.push(Message::text(role, text));
                Ok(())
            }
            Said::List(messages) => self.messages(messages, field),
        }
    }

    fn messages(&mut self, messages: Vec<WireMessage>, field: &str) -> Result<(), String> {
        for (i, message) in messages.into_iter().enumerate() {
            let message = self.message(message, &format!("{field}[{i}]"))?;
            self.conversation.messages.push(message);
        }
        Ok(())
    }

    fn message(&mut self, message: WireMessage, field: &str) -> Result<Message, String> {
        let role = match message.role {
            WireRole::System | WireRole::Developer => Role::System,
            WireRole::User => Role::User,
            WireRole::Assistant => Role::Assistant,
            WireRole::Tool | WireRole::Function => Role::Tool,
        };
        let content = match message.content {
            None => Vec::new(),
            Some(Said::Text(text)) => vec![Part::Text(text)],
            Some(Said::List(parts)) => {
                let parts = parts.into_iter().enumerate();
                parts.map(|(i, part)| self.part(part, &format!("{field}.content[{i}]"))).collect::<Result<_, _>>()?
            }
        };
        let reasoning = message.reasoning_content.or(message.reasoning);
        let calls = message.tool_calls.map_or(Vec::new(), |calls| calls.0);
        if role != Role::Assistant && (reasoning.is_some() || !calls.is_empty()) {
            return Err(format!("{field}: has thoughts or calls; only an assistant's message has them"));
        }
        let call = |(i, call): (usize, WireCall)| {
            let at = format!("{field}.tool_calls[{i}].function.arguments");
            let arguments = serde_json::from_str(bounded(&call.function.arguments, &at)?);
            let arguments = arguments.map_err(|_| format!("{at}: is no JSON"))?;
            Ok(ToolCall { id: call.id, name: call.function.name, arguments })
        };
        let tool_calls = calls.into_iter().enumerate().map(call).collect::<Result<_, String>>()?;
        Ok(Message { role, content, reasoning, tool_calls, tool_call_id: message.tool_call_id })
    }

    fn part(&mut self, part: WirePart, field: &str) -> Result<Part, String> {
        let missing = |name: &str| format!("{field}.{name}: is missing");
        let (kind, at, field) = match part.kind.as_str() {
            "text" => return part.text.map(Part::Text).ok_or_else(|| missing("text")),
            "image_url" => {
                let field = format!("{field}.image_url");
                let image = part.image_url.ok_or_else(|| missing("image_url"))?;
                let kind = match image.detail.as_deref() {
                    Some("low") => Kind::ImageInOneTile,
                    None | Some("auto" | "high" | "original") => Kind::Image,
                    Some(_) => return Err(format!("{field}.detail: is not auto, low or high")),
                };
                (kind, self.at(&image.url, &field)?, field)
            }
            "audio_url" => {
                let field = format!("{field}.audio_url");
                let audio = part.audio_url.ok_or_else(|| missing("audio_url"))?;
                (Kind::Audio(None), self.at(&audio.url, &field)?, field)
            }
            "input_audio" => {
                let field = format!("{field}.input_audio");
                let audio = part.input_audio.ok_or_else(|| missing("input_audio"))?;
                let format = AudioFormat::named(&audio.format)
                    .ok_or_else(|| format!("{field}.format: is not wav, mp3, flac, ogg, m4a or pcm16"))?;
                (Kind::Audio(Some(format)), At::Bytes(base64(&audio.data, &field)?), field)
            }
            other => {
                let shown: String = other.chars().take(32).collect();
                return Err(format!("{field}.type: is {shown:?}, not text, image_url, audio_url or input_audio"));
            }
        };
        let part = if matches!(kind, Kind::Audio(_)) { Part::Audio } else { Part::Image };
        self.conversation.media.push(Medium { kind, at, field });
        Ok(part)
    }

    /// What a URL names: data in itself, or a file beneath the row's own folder.
    fn at(&self, url: &str, field: &str) -> Result<At, String> {
        if let Some((kind, data)) = url.strip_prefix("data:").map(|rest| rest.split_once(',').unwrap_or((rest, ""))) {
            let is_base64 = kind.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
            return match is_base64 {
                true => base64(data, field).map(At::Bytes),
                false => Err(format!("{field}.url: is a data URL that is not base64")),
            };
        }
        if url.contains("://") {
            return Err(format!("{field}.url: is an address; fetch it, and name the file from this one's folder"));
        }
        let path = Path::new(url);
        if url.is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("{field}.url: leaves the folder of its file; name a file beneath it"));
        }
        Ok(At::Path(self.folder.join(path)))
    }

    /// Takes away what a way to go on repeats of its prompt, as some published sets do.
    fn forget_repetition(&mut self) {
        let Conversation { messages, media, n_given, .. } = &mut self.conversation;
        let n = *n_given;
        if messages.len() > 2 * n && messages[..n] == messages[n..2 * n] {
            messages.drain(n..2 * n);
            let n_media = messages[..n].iter().flat_map(|message| &message.content).filter(|part| part.is_media());
            let n_media = n_media.count();
            media.drain(n_media..2 * n_media);
        }
    }

    fn finish(self, field: &str) -> Result<Conversation, String> {
        let given = self.conversation.n_given;
        let is_answered = self.conversation.messages.iter().skip(given).any(|message| message.role == Role::Assistant);
        match is_answered {
            true => Ok(self.conversation),
            false => Err(format!("{field}: has no assistant's message, so nothing could be learnt from it")),
        }
    }
}

fn base64(text: &str, field: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    let decoded = if text.ends_with('=') { STANDARD.decode(text) } else { STANDARD_NO_PAD.decode(text) };
    decoded.map_err(|error| format!("{field}: is no base64: {}", error.to_string().to_lowercase()))
}
