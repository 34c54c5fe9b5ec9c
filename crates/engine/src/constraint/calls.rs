//! The grammar of answers that call tools.

use serde_json::{Value, json};

use super::{ConstraintError, schema};
use crate::limits::Limits;
use crate::tools::{Choice, Tool};

/// Lark's notation for calls of `tools`, and for text beside them where `choice` allows it.
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
    let mut names = Vec::new();
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
        let parameters = schema::with_options(parameters);
        let begin = Value::from(format!("{{\"name\": {}, \"parameters\": ", Value::from(tool.name.as_str())));
        rules.push_str(&format!("call{i}: {begin} arguments{i} \"}}\"\narguments{i}: %json {parameters}\n"));
        names.push(format!("call{i}"));
    }
    let calls = if is_parallel { "call (\"; \" call)*" } else { "call" };
    let start = match choice {
        Choice::Required => format!("start: {calls}\n"),
        // What begins like a call has to be one; the recogniser takes no other beginning for one.
        Choice::Auto => format!(
            "start: calls | TEXT\ncalls: {calls}\n\
             TEXT: /(?s:.*)/ & ~/(?s:\\s*\\{{\\s*\"(name|type)\"\\s*:.*)/\n"
        ),
    };
    Ok(format!("{start}call: {}\n{rules}", names.join(" | ")))
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
