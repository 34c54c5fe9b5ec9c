//! Fields that are known and not supported: refused by name, unless they ask for what happens anyway.

use serde_json::Value;

use crate::error::Error;
use crate::limits::Limits;
use crate::wire::{chat, messages, responses};

/// The fields of a chat.
///
/// # Errors
/// [`Error::Field`] naming the first that asks for what this server does not do.
pub fn chat(request: &chat::Request, limits: &Limits) -> Result<(), Error> {
    if request.modalities.as_ref().is_some_and(|kinds| kinds.iter().any(|kind| kind != "text")) {
        return Err(Error::unsupported("modalities", "must be [\"text\"]: this server answers in text"));
    }
    if request.audio.is_some() && request.modalities.is_none() {
        return Err(Error::unsupported("audio", "is not supported: this server answers in text"));
    }
    for (field, value) in [("functions", &request.functions), ("function_call", &request.function_call)] {
        if value.as_ref().is_some_and(|value| *value != Value::Array(Vec::new())) {
            return Err(Error::unsupported(field, "is not supported; use tools and tool_choice"));
        }
    }
    if request.web_search_options.is_some() {
        return Err(Error::unsupported("web_search_options", "is not supported: this server searches nothing"));
    }
    one_of("verbosity", request.verbosity.as_deref(), &["medium"])?;
    one_of("service_tier", request.service_tier.as_deref(), &["auto", "default"])?;
    metadata(request.metadata.as_ref(), limits)
}

/// `metadata`: a few short texts.
///
/// # Errors
/// [`Error::Field`] naming what is too much.
pub fn metadata(value: Option<&Value>, limits: &Limits) -> Result<(), Error> {
    let Some(value) = value else { return Ok(()) };
    let Value::Object(map) = value else {
        return Err(Error::field("metadata", "must be an object of texts"));
    };
    if map.len() > limits.metadata_entries {
        let why = format!("has {} entries; the limit is {}", map.len(), limits.metadata_entries);
        return Err(Error::field("metadata", why));
    }
    let [key_chars, value_chars] = limits.metadata_chars;
    for (key, value) in map {
        let text = value.as_str().ok_or_else(|| Error::field("metadata", "must have texts as values"))?;
        if key.chars().count() > key_chars || text.chars().count() > value_chars {
            let why = format!("has an entry of more than {key_chars} and {value_chars} characters");
            return Err(Error::field("metadata", why));
        }
    }
    Ok(())
}

/// A field that may only say what happens anyway.
///
/// # Errors
/// [`Error::Field`] if it says something else.
pub fn one_of(field: &str, value: Option<&str>, allowed: &[&str]) -> Result<(), Error> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            let shown: String = value.chars().take(32).collect();
            Err(Error::unsupported(field, format!("is {shown:?}; this server does {}", allowed.join(" and "))))
        }
        _ => Ok(()),
    }
}

/// The fields of a request in Anthropic's shape.
///
/// # Errors
/// [`Error::Field`] naming the first that asks for what this server does not do.
pub fn messages(request: &messages::Request) -> Result<(), Error> {
    for (field, value) in [
        ("container", &request.container),
        ("mcp_servers", &request.mcp_servers),
        ("context_management", &request.context_management),
        ("output_config.task_budget", request.output_config.as_ref().map_or(&None, |config| &config.task_budget)),
    ] {
        let is_empty = value.as_ref().is_none_or(|value| {
            value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(|o| o.is_empty())
        });
        if !is_empty {
            return Err(Error::unsupported(field, "is not supported"));
        }
    }
    one_of("service_tier", request.service_tier.as_deref(), &["auto", "standard_only"])?;
    for (index, tool) in request.tools.iter().flatten().enumerate() {
        one_of(&format!("tools[{index}].type"), tool.kind.as_deref(), &["custom"])?;
    }
    Ok(())
}

/// What else is to be in a response: of tools that this server does not have there is nothing to include.
///
/// # Errors
/// [`Error::Field`] naming what is not known.
pub fn include(names: &[String]) -> Result<(), Error> {
    const KNOWN: [&str; 8] = [
        "message.output_text.logprobs",
        "message.input_image.image_url",
        "reasoning.encrypted_content",
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
    ];
    names.iter().try_for_each(|name| one_of("include", Some(name), &KNOWN))
}

/// The fields of a response.
///
/// # Errors
/// [`Error::Field`] naming the first that asks for what this server does not do.
pub fn responses(request: &responses::Request, limits: &Limits) -> Result<(), Error> {
    if request.background == Some(true) {
        if request.store == Some(false) {
            return Err(Error::field("background", "needs store to be true: nobody could ask for the response"));
        }
        if request.stream == Some(true) {
            let why =
                "can not be streamed as it is made; GET /v1/responses/{response_id}?stream=true waits for its events";
            return Err(Error::unsupported("background", why));
        }
    }
    if request.conversation.is_some() {
        return Err(Error::unsupported("conversation", "is not supported; use previous_response_id"));
    }
    if request.prompt.is_some() {
        return Err(Error::unsupported("prompt", "is not supported; use input and instructions"));
    }
    if request.context_management.as_ref().is_some_and(|value| *value != Value::Array(Vec::new())) {
        return Err(Error::unsupported("context_management", "is not supported"));
    }
    if request.max_tool_calls.is_some() {
        return Err(Error::unsupported("max_tool_calls", "is not supported: this server calls no tools itself"));
    }
    one_of("truncation", request.truncation.as_deref(), &["disabled"])?;
    one_of("service_tier", request.service_tier.as_deref(), &["auto", "default"])?;
    one_of("text.verbosity", request.text.as_ref().and_then(|text| text.verbosity.as_deref()), &["medium"])?;
    include(request.include.as_deref().unwrap_or_default())?;
    metadata(request.metadata.as_ref(), limits)
}
