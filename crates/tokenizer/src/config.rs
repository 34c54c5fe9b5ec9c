//! `tokenizer_config.json`: what a `tokenizer.json` leaves unsaid.

use serde_json::Value;

use crate::TokenizerError;

/// The fields that matter here; the rest of the file is not looked at.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    pub pad_token: Option<String>,
    pub add_bos_token: Option<bool>,
    pub chat_template: Option<String>,
}

impl TokenizerConfig {
    /// # Errors
    /// [`TokenizerError::Corrupt`] naming the field that is of a wrong type.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let corrupt = |why: String| TokenizerError::corrupt(file, why);
        let root: Value = serde_json::from_slice(bytes).map_err(|e| corrupt(format!("not JSON: {e}")))?;
        if !root.is_object() {
            return Err(corrupt("not a JSON object".into()));
        }
        Ok(Self {
            bos_token: token(&root, "bos_token").map_err(corrupt)?,
            eos_token: token(&root, "eos_token").map_err(corrupt)?,
            pad_token: token(&root, "pad_token").map_err(corrupt)?,
            add_bos_token: match root.get("add_bos_token").filter(|v| !v.is_null()) {
                Some(flag) => Some(flag.as_bool().ok_or_else(|| corrupt("add_bos_token: not true or false".into()))?),
                None => None,
            },
            chat_template: chat_template(&root).map_err(corrupt)?,
        })
    }
}

/// A token, written as its spelling or as an object with `content`.
fn token(root: &Value, field: &str) -> Result<Option<String>, String> {
    let Some(value) = root.get(field).filter(|v| !v.is_null()) else { return Ok(None) };
    let spelling = value.as_str().or_else(|| value.get("content")?.as_str());
    spelling.map(|s| Some(s.to_owned())).ok_or_else(|| format!("{field}: neither a string nor an object with content"))
}

/// The template, or of a list of named ones the one named `default`.
fn chat_template(root: &Value) -> Result<Option<String>, String> {
    match root.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(template)) => Ok(Some(template.clone())),
        Some(Value::Array(list)) => {
            let default = list.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            let template = default.and_then(|t| t.get("template")).and_then(Value::as_str);
            template.map(|t| Some(t.to_owned())).ok_or_else(|| "chat_template: none is named 'default'".into())
        }
        Some(_) => Err("chat_template: neither a string nor a list".into()),
    }
}
