//! The grammar of answers that call tools.

use serde_json::{Map, Value, json};

use super::{ConstraintError, schema};
use crate::limits::Limits;
use crate::tools::{Choice, Tool};

/// Lark's notation for calls of `tools`, and for text beside them where `choice` allows it.
///
/// A model that has to call writes JSON. One that need not writes what it was trained to: JSON, a Python list or tags; what
/// begins like one of them has to be one.
///
/// # Errors
/// [`ConstraintError::Schema`] with a pointer from the list of tools on, for a schema that can not be followed and has to
/// be: that of a strict tool, or of any where a call is required. Else such a tool takes any object.
pub(super) fn grammar(
    tools: &[Tool],
    choice: Choice,
    is_parallel: bool,
    limits: &Limits,
) -> Result<String, ConstraintError> {
    let mut rules = String::new();
    let (mut calls, mut opened, mut listed, mut tagged) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // Beginnings that no text may have.
    let mut beginnings = vec![r#"\{\s*"(name|type)"\s*:"#.to_owned()];
    for (i, tool) in tools.iter().enumerate() {
        let parameters = match schema::read(&tool.parameters, limits) {
            Ok(parameters) => object(parameters),
            Err(ConstraintError::Schema { pointer, why }) if tool.is_strict || choice == Choice::Required => {
                let pointer = format!("/tools/{i}/function/parameters{pointer}");
                return Err(ConstraintError::Schema { pointer, why });
            }
            Err(error @ ConstraintError::Language(_)) => return Err(error),
            Err(_) => json!({ "type": "object" }),
        };
        let name = &tool.name;
        let begin = Value::from(format!("{{\"name\": \"{name}\", \"parameters\": "));
        rules.push_str(&format!("call{i}: {begin} arguments{i} \"}}\"\n"));
        calls.push(format!("call{i}"));
        if choice == Choice::Auto {
            tagged.push(format!("\"<function={name}>\" arguments{i} \"</function>\""));
            beginnings.push(format!("<function={name}>"));
            let keywords = keywords(i, &parameters);
            if keywords.is_some() || tool.is_strict {
                beginnings.push(format!(r"\[\s*{name}\("));
            }
            if let Some(keywords) = keywords {
                rules.push_str(&keywords);
                // What opens a list is one lexeme: text, which may go on longer, would swallow a bracket by itself.
                opened.push(format!("/\\[\\s*{name}\\(/ first{i}_0 \")\""));
                listed.push(format!("\"{name}(\" first{i}_0 \")\""));
            }
        }
        rules.push_str(&format!("arguments{i}: %json {}\n", schema::with_options(parameters)));
    }
    let several = |rule: &str, between: &str| match is_parallel {
        true => format!("{rule} ({between} {rule})*"),
        false => rule.to_owned(),
    };
    let mut start = format!("calls: {}\ncall: {}\n", several("call", "\"; \""), calls.join(" | "));
    match choice {
        Choice::Required => start.insert_str(0, "start: calls\n"),
        Choice::Auto => {
            let list = if opened.is_empty() { "" } else { " | list" };
            start.insert_str(0, &format!("start: calls{list} | tagged | TEXT\n"));
            if !opened.is_empty() {
                let further = if is_parallel { "(/, ?/ listed)* " } else { "" };
                start += &format!("list: opened {further}\"]\"\n");
                start += &format!("opened: {}\nlisted: {}\n", opened.join(" | "), listed.join(" | "));
            }
            start += &format!("tagged: {}\n", several("tag", "/[ \\n]?/"));
            start += &format!("tag: {}\n", tagged.join(" | "));
            start += &format!("TEXT: /(?s:.*)/ & ~/(?s:\\s*({}).*)/\n", beginnings.join("|"));
        }
    }
    Ok(start + &rules)
}

/// The schema of an argument list: an object, whether it says so or not.
fn object(schema: Value) -> Value {
    match schema {
        Value::Object(mut keywords) => {
            if !["type", "anyOf", "oneOf", "allOf", "$ref"].iter().any(|keyword| keywords.contains_key(*keyword)) {
                keywords.insert("type".to_owned(), "object".into());
            }
            Value::Object(keywords)
        }
        _ => json!({ "type": "object" }),
    }
}

/// Keywords of a schema that says no more than which properties an object has.
const PLAIN: [&str; 9] = [
    "$defs",
    "additionalProperties",
    "definitions",
    "description",
    "properties",
    "required",
    "strict",
    "title",
    "type",
];

/// Rules for the arguments of tool `i` as Python's keyword arguments, in the order of their declaration, from `first{i}_0`
/// on; `None` if the schema says more than which properties there are, or needs one whose name is no keyword.
fn keywords(i: usize, parameters: &Value) -> Option<String> {
    let schema = parameters.as_object()?;
    if !schema.keys().all(|keyword| PLAIN.contains(&keyword.as_str())) || schema.get("type")? != "object" {
        return None;
    }
    let none = Map::new();
    let properties = schema.get("properties").map_or(Some(&none), Value::as_object)?;
    let required = schema.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_required = |name: &str| required.iter().any(|one| one == name);
    if !required.iter().all(|name| name.as_str().is_some_and(|name| properties.contains_key(name) && is_keyword(name)))
    {
        return None;
    }
    let mut rules = String::new();
    let mut n = 0;
    for (name, property) in properties.iter().filter(|(name, _)| is_keyword(name)) {
        let after = n + 1;
        // Before the first argument that is there, and behind one.
        for (rule, comma) in [("first", ""), ("more", "/, ?/ ")] {
            let skipped = if is_required(name) { String::new() } else { format!(" | {rule}{i}_{after}") };
            rules.push_str(&format!("{rule}{i}_{n}: {comma}\"{name}=\" value{i}_{n} more{i}_{after}{skipped}\n"));
        }
        rules.push_str(&format!("value{i}_{n}: {}\n", value(property, schema)));
        n = after;
    }
    rules.push_str(&format!("first{i}_{n}: \"\"\nmore{i}_{n}: \"\"\n"));
    Some(rules)
}

/// Whether Python, and the recogniser, take a name for a keyword.
fn is_keyword(name: &str) -> bool {
    let is_letter = |c: char| c == '_' || c.is_ascii_alphabetic();
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// What the argument of a property may be: JSON, and what Python calls otherwise where that is all of the value.
fn value(property: &Value, schema: &Map<String, Value>) -> String {
    let mut own = match property {
        Value::Object(keywords) => keywords.clone(),
        // `true` and `false`: anything, and nothing.
        other => Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    let allows = |kind: &str| match own.get("type") {
        _ if ["enum", "const", "allOf", "anyOf", "oneOf", "$ref"].iter().any(|keyword| own.contains_key(*keyword)) => {
            false
        }
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        Some(one) => one == kind,
        None => false,
    };
    let boolean = if allows("boolean") { " | \"True\" | \"False\"" } else { "" };
    let null = if allows("null") { " | \"None\"" } else { "" };
    // What a property refers to stands beside it.
    for definitions in ["$defs", "definitions"] {
        if let (Some(value), false) = (schema.get(definitions), own.contains_key(definitions)) {
            own.insert(definitions.to_owned(), value.clone());
        }
    }
    format!("%json {}{boolean}{null}", schema::with_options(Value::Object(own)))
}
