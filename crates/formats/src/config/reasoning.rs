//! `reasoning_config.json`: how a model marks its thoughts.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::FormatError;
use crate::json::{self, Node, Section};

/// Longest marker.
const MARKER_LIMIT_BYTES: usize = 256;

/// Longest message that may be written in a block.
const MESSAGE_LIMIT_BYTES: usize = 4096;

/// Most tokens that end a block by themselves.
const IMPLICIT_ENDS_LIMIT: usize = 16;

/// The efforts that requests may name, with the tokens that each allows; `None` for no limit.
const EFFORTS: [(&str, Option<usize>); 6] = [
    ("minimal", Some(512)),
    ("low", Some(1024)),
    ("medium", Some(4096)),
    ("high", Some(16_384)),
    ("xhigh", Some(32_768)),
    ("max", None),
];

/// How a model marks its thoughts, and how much it thinks. A checkpoint that has one was trained to think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasoningConfig {
    /// Opens a block; not empty.
    pub start: String,
    /// Closes it; not empty, and another text than `start`.
    pub end: String,
    /// Whether the model thinks where a request does not say. `auto` in the file says what the file itself says: it does.
    pub is_on: bool,
    /// Whether the prompt ends with `start`; else the model writes it.
    pub prefill_start: bool,
    /// Each of these closes a block too, and belongs to the answer.
    pub implicit_end: Vec<String>,
    /// Written before `end` when a budget runs out.
    pub budget_message: String,
    /// Written instead of an `end` that comes too early.
    pub extend_message: String,
    /// Tokens that each effort allows, by its name; `None` for no limit.
    pub efforts: BTreeMap<String, Option<usize>>,
}

impl Default for ReasoningConfig {
    /// Llama 4's reserved markers.
    fn default() -> Self {
        Self {
            start: "<|reasoning_thinking_start|>".into(),
            end: "<|reasoning_thinking_end|>".into(),
            is_on: true,
            prefill_start: true,
            implicit_end: vec!["<|python_start|>".into()],
            budget_message: "\n\nI have to answer now.\n".into(),
            extend_message: "\nWait".into(),
            efforts: EFFORTS.iter().map(|(name, limit)| ((*name).into(), *limit)).collect(),
        }
    }
}

impl ReasoningConfig {
    /// Reads the file's content `json`. What it does not say is as in [`default`](Self::default).
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] for values of the wrong type, too long or outside of their range.
    pub fn parse(file: &Path, json: &[u8]) -> Result<Self, FormatError> {
        const KEYS: [&str; 9] = [
            "start",
            "end",
            "default",
            "prefill_start",
            "implicit_end",
            "budget_message",
            "extend_message",
            "efforts",
            "none",
        ];
        let known: Vec<&str> = KEYS.into_iter().chain(EFFORTS.iter().map(|(name, _)| *name)).collect();
        let map = json::parse(file, json, &known)?;
        let top = Section::new(file, &map);
        let default = Self::default();
        let marker = |key: &str, default: String| {
            let marker = bounded(&top, key, default, MARKER_LIMIT_BYTES)?;
            if marker.is_empty() { Err(top.corrupt(key, "is empty; it has to mark something")) } else { Ok(marker) }
        };
        let config = Self {
            start: marker("start", default.start)?,
            end: marker("end", default.end)?,
            is_on: match top.text("default")? {
                None | Some("on" | "auto") => true,
                Some("off") => false,
                Some(other) => return Err(top.corrupt("default", format!("is \"{other}\", not on, off or auto"))),
            },
            prefill_start: top.flag("prefill_start")?.unwrap_or(default.prefill_start),
            implicit_end: match top.texts("implicit_end")? {
                None => default.implicit_end,
                Some(texts) if texts.len() > IMPLICIT_ENDS_LIMIT => {
                    let why = format!("has {} texts; the limit is {IMPLICIT_ENDS_LIMIT}", texts.len());
                    return Err(top.corrupt("implicit_end", why));
                }
                Some(texts) => texts.into_iter().map(str::to_owned).collect(),
            },
            budget_message: bounded(&top, "budget_message", default.budget_message, MESSAGE_LIMIT_BYTES)?,
            extend_message: bounded(&top, "extend_message", default.extend_message, MESSAGE_LIMIT_BYTES)?,
            efforts: efforts(&top, default.efforts)?,
        };
        if config.start == config.end {
            return Err(top.corrupt("end", "is the same as start"));
        }
        Ok(config)
    }

    /// The file's content again.
    pub fn to_json(&self) -> String {
        let limit = |limit: &Option<usize>| limit.map_or(json!(-1), |limit| json!(limit));
        let efforts = self.efforts.iter().map(|(name, tokens)| (name.clone(), limit(tokens)));
        json!({
            "start": self.start,
            "end": self.end,
            "default": if self.is_on { "on" } else { "off" },
            "prefill_start": self.prefill_start,
            "implicit_end": self.implicit_end,
            "budget_message": self.budget_message,
            "extend_message": self.extend_message,
            "efforts": serde_json::Map::from_iter(efforts),
        })
        .to_string()
    }
}

fn bounded(top: &Section<'_>, key: &str, default: String, limit_bytes: usize) -> Result<String, FormatError> {
    match top.text(key)? {
        None => Ok(default),
        Some(text) if text.len() > limit_bytes => {
            Err(top.corrupt(key, format!("has {} bytes; the limit is {limit_bytes}", text.len())))
        }
        Some(text) => Ok(text.to_owned()),
    }
}

fn efforts(
    top: &Section<'_>,
    default: BTreeMap<String, Option<usize>>,
) -> Result<BTreeMap<String, Option<usize>>, FormatError> {
    let Some(section) = top.section("efforts")? else { return Ok(default) };
    let mut efforts = BTreeMap::new();
    for (name, _) in EFFORTS {
        let limit = match section.given(name) {
            None => continue,
            Some(Node::Negative(-1)) => None,
            Some(_) => section.count(name)?,
        };
        efforts.insert(name.to_owned(), limit);
    }
    Ok(efforts)
}
