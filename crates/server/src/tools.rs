//! Tools that requests declare, and calls of them in answers.

use engine::constraint::Language;
use engine::tools::{Choice, Part, Recogniser, Tool};
use serde_json::{Value, json};

use crate::constraint::Asked;
use crate::error::Error;
use crate::id;
use crate::limits::Limits;

/// The tools of a request.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// As they are described to the model, in OpenAI's form; none if none may be called.
    pub shown: Vec<Value>,
    /// Names that make a call.
    pub names: Vec<String>,
    /// What an answer has to be because of them.
    pub language: Option<Asked>,
}

/// Which tool is to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    None,
    /// As the model likes.
    Auto,
    /// Any, but one.
    Required,
    /// This one.
    Named(String),
}

impl Wanted {
    /// `tool_choice` of chats and responses; `auto` if it is not there.
    ///
    /// # Errors
    /// [`Error::Field`] for anything else than documented.
    pub fn parse(choice: Option<&Value>) -> Result<Self, Error> {
        match choice {
            None | Some(Value::Null) => Ok(Self::Auto),
            Some(Value::String(choice)) => match choice.as_str() {
                "none" => Ok(Self::None),
                "auto" => Ok(Self::Auto),
                "required" => Ok(Self::Required),
                _ => Err(Error::field("tool_choice", "must be none, auto, required or a function")),
            },
            Some(Value::Object(map)) if map.get("type") == Some(&Value::from("function")) => {
                let name = map.get("name").or_else(|| map.get("function")?.get("name")).and_then(Value::as_str);
                name.map(|name| Self::Named(name.to_owned())).ok_or_else(|| Error::missing("tool_choice.function.name"))
            }
            Some(_) => Err(Error::unsupported("tool_choice", "must be none, auto, required or a function")),
        }
    }

    /// `tool_choice` in Anthropic's shape, and whether there may be several calls.
    ///
    /// # Errors
    /// [`Error::Field`] for anything else than documented.
    pub fn parse_anthropic(choice: Option<&Value>) -> Result<(Self, bool), Error> {
        let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok((Self::Auto, true)) };
        let is_parallel = choice.get("disable_parallel_tool_use") != Some(&Value::Bool(true));
        let wanted = match choice.get("type").and_then(Value::as_str) {
            Some("none") => Self::None,
            Some("auto") => Self::Auto,
            Some("any") => Self::Required,
            Some("tool") => {
                let name = choice.get("name").and_then(Value::as_str);
                Self::Named(name.ok_or_else(|| Error::missing("tool_choice.name"))?.to_owned())
            }
            _ => return Err(Error::field("tool_choice.type", "must be auto, any, tool or none")),
        };
        Ok((wanted, is_parallel))
    }
}

impl Tools {
    /// Checks tools in OpenAI's form.
    ///
    /// # Errors
    /// [`Error::Field`] naming the tool and the part of it that is wrong.
    pub fn parse(tools: Vec<Value>, wanted: Wanted, is_parallel: bool, limits: &Limits) -> Result<Self, Error> {
        if tools.len() > limits.tools {
            return Err(Error::field("tools", format!("has {} tools; the limit is {}", tools.len(), limits.tools)));
        }
        let mut list = Vec::with_capacity(tools.len());
        for (index, tool) in tools.iter().enumerate() {
            let tool = check(tool, &format!("tools[{index}]"), limits)?;
            if list.iter().any(|known: &Tool| known.name == tool.name) {
                return Err(Error::field(format!("tools[{index}].function.name"), "is another tool's name"));
            }
            list.push(tool);
        }
        let choice = match (&wanted, list.is_empty()) {
            (Wanted::None, _) | (Wanted::Auto, true) => return Ok(Self::default()),
            (Wanted::Required | Wanted::Named(_), true) => return Err(Error::field("tool_choice", "needs tools")),
            (Wanted::Auto, false) => Choice::Auto,
            (Wanted::Required | Wanted::Named(_), false) => Choice::Required,
        };
        let names = list.iter().map(|tool| tool.name.clone()).collect();
        if let Wanted::Named(name) = &wanted {
            list.retain(|tool| tool.name == *name);
            if list.is_empty() {
                return Err(Error::field("tool_choice", "names a function that tools does not have"));
            }
        }
        let is_parallel = is_parallel && !matches!(wanted, Wanted::Named(_));
        let language = Language::Calls { tools: list, choice, is_parallel };
        Ok(Self { shown: tools, names, language: Some(Asked { field: "tools".into(), language }) })
    }

    /// What an answer has to be, where its format is asked for too.
    ///
    /// # Errors
    /// [`Error::Field`] if an answer would have to be both.
    pub fn language(&mut self, format: Option<Asked>) -> Result<Option<Asked>, Error> {
        match (self.language.take(), format) {
            (None, format) => Ok(format),
            (Some(calls), None) => Ok(Some(calls)),
            // An answer that has to be a call is of no other format.
            (Some(calls), Some(_)) if matches!(&calls.language, Language::Calls { choice: Choice::Required, .. }) => {
                Ok(Some(calls))
            }
            (Some(_), Some(format)) => Err(Error::unsupported(
                format.field,
                "can not be followed beside tools, unless tool_choice is none or required",
            )),
        }
    }
}

/// One tool in OpenAI's form.
fn check(tool: &Value, at: &str, limits: &Limits) -> Result<Tool, Error> {
    let field = |name: &str| format!("{at}.{name}");
    if tool.get("type") != Some(&Value::from("function")) {
        return Err(Error::unsupported(field("type"), "must be function"));
    }
    let function = tool.get("function").ok_or_else(|| Error::missing(field("function")))?;
    let name = function.get("name").and_then(Value::as_str).ok_or_else(|| Error::missing(field("function.name")))?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > limits.tool_name_chars || !name.chars().all(is_plain) {
        let why = format!("must be 1 to {} letters, digits, _ and -", limits.tool_name_chars);
        return Err(Error::field(field("function.name"), why));
    }
    if function.get("description").is_some_and(|text| !text.is_string() && !text.is_null()) {
        return Err(Error::field(field("function.description"), "must be a text"));
    }
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        Some(schema @ Value::Object(_)) => schema.clone(),
        Some(_) => return Err(Error::field(field("function.parameters"), "is no schema: it must be an object")),
    };
    let text = parameters.to_string();
    let limit = limits.engine.grammar_bytes;
    if text.len() > limit {
        let why = format!("has {} bytes; the limit is {limit}", text.len());
        return Err(Error::field(field("function.parameters"), why));
    }
    let is_strict = match function.get("strict") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(is_strict)) => *is_strict,
        Some(_) => return Err(Error::field(field("function.strict"), "must be true or false")),
    };
    Ok(Tool { name: name.to_owned(), parameters: text, is_strict })
}

/// What a piece of an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// It is text.
    Text(String),
    /// A call begins.
    Call {
        /// Calls before it.
        index: usize,
        /// What its result refers to.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of the arguments of a call, JSON in all.
    Arguments {
        /// The call.
        index: usize,
        /// What comes next.
        text: String,
    },
}

/// Hears calls in the text of one answer.
#[derive(Debug, Clone)]
pub struct Hearing {
    recogniser: Option<Recogniser>,
    prefix: &'static str,
}

impl Hearing {
    /// For calls of tools with these names, whose own names begin with `prefix`.
    pub fn new(names: &[String], prefix: &'static str) -> Self {
        let recogniser = (!names.is_empty()).then(|| Recogniser::new(names.iter().cloned()));
        Self { recogniser, prefix }
    }

    /// Takes more of the answer; returns what is certain because of it.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let prefix = self.prefix;
        match &mut self.recogniser {
            _ if text.is_empty() => Vec::new(),
            None => vec![Piece::Text(text.to_owned())],
            Some(recogniser) => recogniser.push(text).into_iter().map(|part| piece(part, prefix)).collect(),
        }
    }

    /// The answer is over; returns what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let prefix = self.prefix;
        let parts = self.recogniser.as_mut().map(Recogniser::finish).unwrap_or_default();
        parts.into_iter().map(|part| piece(part, prefix)).collect()
    }

    /// Calls so far.
    pub fn n_calls(&self) -> usize {
        self.recogniser.as_ref().map_or(0, Recogniser::n_calls)
    }
}

fn piece(part: Part, prefix: &str) -> Piece {
    match part {
        Part::Text(text) => Piece::Text(text),
        Part::Call { index, name } => Piece::Call { index, id: id::fresh(prefix), name },
        Part::Arguments { index, text } => Piece::Arguments { index, text },
    }
}
