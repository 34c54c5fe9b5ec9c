//! What an answer has to be: from fields of a request to a compiled language.

use std::fmt;

use engine::constraint::{Compiler, Constraint, ConstraintError, Language};
use serde_json::Value;
use tokenizer::Tokenizer;

use crate::app::App;
use crate::error::Error;
use crate::limits::Limits;
use crate::unsupported;
use crate::wire::chat::ResponseFormat;
use crate::wire::messages;

/// What an answer has to be, and the field that says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Where it stands in the request.
    pub field: String,
    /// What it says.
    pub language: Language,
}

/// Reads `response_format`; `None` for text.
///
/// # Errors
/// [`Error::Field`] naming the part of the field that is wrong.
pub fn response_format(value: Option<Value>, limits: &Limits) -> Result<Option<Asked>, Error> {
    const FIELD: &str = "response_format";
    let Some(value) = value else { return Ok(None) };
    let format: ResponseFormat =
        serde_json::from_value(value).map_err(|error| Error::field(FIELD, format!("can not be read: {error}")))?;
    let inside = |field: &str| format!("{FIELD}.{field}");
    let text = |field: &str, text: Option<String>| match text {
        Some(text) if text.len() > limits.engine.grammar_bytes => {
            let why = format!("has {} bytes; the limit is {}", text.len(), limits.engine.grammar_bytes);
            Err(Error::field(inside(field), why))
        }
        Some(text) => Ok(text),
        None => Err(Error::missing(inside(field))),
    };
    match format.kind.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(asked(FIELD, Language::JsonObject))),
        "json_schema" => {
            let schema = format.json_schema.ok_or_else(|| Error::missing(inside("json_schema")))?;
            let schema = schema.schema.ok_or_else(|| Error::missing(inside("json_schema.schema")))?;
            json_schema(&schema, &inside("json_schema.schema"), limits).map(Some)
        }
        "regex" => Ok(Some(asked(&inside("regex"), Language::Regex(text("regex", format.regex)?)))),
        "grammar" => Ok(Some(asked(&inside("grammar"), Language::Grammar(text("grammar", format.grammar)?)))),
        other => {
            let why = format!("is {other:?}; it must be text, json_object, json_schema, regex or grammar");
            Err(Error::field(inside("type"), why))
        }
    }
}

fn asked(field: &str, language: Language) -> Asked {
    Asked { field: field.to_owned(), language }
}

/// Reads `text.format` of a response; `None` for text.
///
/// # Errors
/// [`Error::Field`] naming the part of the field that is wrong.
pub fn text_format(format: Option<&Value>, limits: &Limits) -> Result<Option<Asked>, Error> {
    const FIELD: &str = "text.format";
    let Some(format) = format else { return Ok(None) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(asked(FIELD, Language::JsonObject))),
        Some("json_schema") => {
            let field = format!("{FIELD}.schema");
            let schema = format.get("schema").ok_or_else(|| Error::missing(&field))?;
            json_schema(schema, &field, limits).map(Some)
        }
        Some(other) => {
            let shown: String = other.chars().take(32).collect();
            let why = format!("is {shown:?}; it must be text, json_object or json_schema");
            Err(Error::field(format!("{FIELD}.type"), why))
        }
        None => Err(Error::missing(format!("{FIELD}.type"))),
    }
}

/// Reads the format of a message, which stands in `field`.
///
/// # Errors
/// [`Error::Field`] naming the part of the field that is wrong.
pub fn messages_format(format: &messages::Format, field: &str, limits: &Limits) -> Result<Asked, Error> {
    unsupported::one_of(&format!("{field}.type"), Some(&format.kind), &["json_schema"])?;
    let field = format!("{field}.schema");
    let schema = format.schema.as_ref().ok_or_else(|| Error::missing(&field))?;
    json_schema(schema, &field, limits)
}

/// The language of a schema, whose size is checked.
///
/// # Errors
/// [`Error::Field`] naming `field`.
pub fn json_schema(schema: &Value, field: &str, limits: &Limits) -> Result<Asked, Error> {
    if !schema.is_object() && !schema.is_boolean() {
        return Err(Error::field(field, "is no schema: it must be an object"));
    }
    let text = schema.to_string();
    let limit = limits.engine.grammar_bytes;
    if text.len() > limit {
        return Err(Error::field(field, format!("has {} bytes; the limit is {limit}", text.len())));
    }
    Ok(Asked { field: field.to_owned(), language: Language::JsonSchema(text) })
}

/// Compiles languages for one model.
pub struct Compilers(Result<Compiler, ConstraintError>);

impl Compilers {
    /// For the answers of a model with these tokens.
    pub fn new(tokenizer: &Tokenizer, n_vocab: usize, end_tokens: &[u32], limits: &Limits) -> Self {
        let n_vocab = u32::try_from(n_vocab).unwrap_or(u32::MAX);
        Self(Compiler::new(tokenizer, n_vocab, end_tokens, &limits.engine))
    }
}

impl fmt::Debug for Compilers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compilers")
    }
}

/// Compiles a language, off the runtime.
///
/// # Errors
/// [`Error::Field`] naming the field, and in a schema the place, that can not be used.
pub async fn compile(asked: Option<Asked>, app: &App) -> Result<Option<Constraint>, Error> {
    let Some(Asked { field, language }) = asked else { return Ok(None) };
    let app_ = app.clone();
    let compile = move || match &app_.compilers().0 {
        Ok(compiler) => compiler.compile(&language),
        Err(error) => Err(error.clone()),
    };
    let compiled = app.pool().run(compile).await?;
    compiled.map(Some).map_err(|error| Error::field(field, format!("can not be used: {error}")))
}
