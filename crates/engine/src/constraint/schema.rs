//! JSON schemas of requests: bounded, and every keyword known, before anything is compiled.

use serde_json::Value;

use super::{ConstraintError, first_line};
use crate::limits::Limits;

/// Keywords that restrict what is accepted, and are honoured.
const HONOURED: &[&str] = &[
    "$ref",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "required",
    "type",
];
/// Keywords that restrict nothing.
const ANNOTATIONS: &[&str] = &[
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "default",
    "definitions",
    "deprecated",
    "description",
    "example",
    "examples",
    "id",
    "nullable",
    "readOnly",
    "strict",
    "title",
    "writeOnly",
];
/// Keywords whose value maps names to schemas.
const MAPS: &[&str] = &["$defs", "definitions", "patternProperties", "properties"];
/// Keywords whose value is a schema, or a list of them.
const SCHEMAS: &[&str] =
    &["additionalItems", "additionalProperties", "allOf", "anyOf", "items", "oneOf", "prefixItems"];

/// The schema of `text`, whose keywords are all honoured.
///
/// # Errors
/// [`ConstraintError::Schema`] with a pointer to the first place that is not.
pub(super) fn read(text: &str, limits: &Limits) -> Result<Value, ConstraintError> {
    let schema: Value =
        serde_json::from_str(text).map_err(|e| ConstraintError::Language(format!("the schema is not JSON: {e}")))?;
    check(&schema, &mut String::new(), limits.schema_depth)?;
    Ok(schema)
}

/// `schema` with what the automata's library reads beside it: little white space between tokens, or an answer could go on
/// with nothing else.
pub(super) fn with_options(mut schema: Value) -> Value {
    if let Value::Object(keywords) = &mut schema {
        keywords.insert("x-guidance".to_owned(), serde_json::json!({ "whitespace_pattern": r"[ \n]{0,12}" }));
    }
    schema
}

/// What the automata's library refuses, which names no place.
pub(super) fn refused(error: &impl std::fmt::Display) -> ConstraintError {
    ConstraintError::Schema { pointer: String::new(), why: format!("can not be used: {}", first_line(error)) }
}

fn check(schema: &Value, pointer: &mut String, depth: usize) -> Result<(), ConstraintError> {
    let refuse = |pointer: &str, why: String| Err(ConstraintError::Schema { pointer: pointer.to_owned(), why });
    if depth == 0 {
        return refuse(pointer, "is nested too deeply".to_owned());
    }
    match schema {
        Value::Bool(_) => Ok(()),
        Value::Object(keywords) => keywords.iter().try_for_each(|(keyword, value)| {
            at(pointer, keyword, |pointer| check_keyword(keyword, value, pointer, depth - 1))
        }),
        other => refuse(pointer, format!("a schema is an object, not {other}")),
    }
}

fn check_keyword(keyword: &str, value: &Value, pointer: &mut String, depth: usize) -> Result<(), ConstraintError> {
    if !HONOURED.contains(&keyword) && !ANNOTATIONS.contains(&keyword) {
        let why = format!("\"{keyword}\" is not supported; those that are: {}", HONOURED.join(", "));
        return Err(ConstraintError::Schema { pointer: pointer.clone(), why });
    }
    if keyword == "nullable" && *value == Value::Bool(true) {
        let why = "\"nullable\" is not supported; give \"null\" among the types".to_owned();
        return Err(ConstraintError::Schema { pointer: pointer.clone(), why });
    }
    if keyword == "$ref" && !value.as_str().is_some_and(|target| target.starts_with('#')) {
        let why = "a reference begins with \"#\": schemas elsewhere are not fetched".to_owned();
        return Err(ConstraintError::Schema { pointer: pointer.clone(), why });
    }
    match value {
        Value::Object(schemas) if MAPS.contains(&keyword) => {
            schemas.iter().try_for_each(|(name, schema)| at(pointer, name, |pointer| check(schema, pointer, depth)))
        }
        Value::Array(schemas) if SCHEMAS.contains(&keyword) => schemas
            .iter()
            .enumerate()
            .try_for_each(|(i, schema)| at(pointer, &i.to_string(), |pointer| check(schema, pointer, depth))),
        schema if SCHEMAS.contains(&keyword) => check(schema, pointer, depth),
        Value::Array(names) if keyword == "required" => names.iter().try_for_each(|name| match name {
            Value::String(_) => Ok(()),
            other => Err(ConstraintError::Schema { pointer: pointer.clone(), why: format!("{other} is no name") }),
        }),
        _ => Ok(()),
    }
}

/// Calls `inner` with `pointer` one step further in.
fn at<T>(pointer: &mut String, step: &str, inner: impl FnOnce(&mut String) -> T) -> T {
    let len = pointer.len();
    pointer.push('/');
    pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
    let result = inner(pointer);
    pointer.truncate(len);
    result
}
