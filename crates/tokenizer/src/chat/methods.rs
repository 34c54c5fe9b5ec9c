//! What a template may do with strings, maps and JSON: Python's methods, and filters that know about marks.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::Value as Json;

use super::dump::dump;
use super::opaque::{Opaque, Stretch};
use crate::guard::is_python_space;

/// How deep a value may be nested that a template prints as JSON.
const MAX_DEPTH: usize = 128;

/// Adds methods and filters to the environment of one rendering.
///
/// A filter or method that looks at a string looks at the text behind its marks, and what it makes of such text is given
/// text again. Trimming keeps the template's own stretches its own. The operators `==` and `in` see marks: two given
/// texts compare rightly, a given text and one of the template's never match.
pub(super) fn install(env: &mut Environment<'static>, opaque: &Arc<Opaque>) {
    for (filter, method) in [
        ("trim", "strip"),
        ("upper", "upper"),
        ("lower", "lower"),
        ("capitalize", "capitalize"),
        ("title", "title"),
        ("replace", "replace"),
        ("split", "split"),
        ("lines", "splitlines"),
        ("length", "length"),
        ("count", "length"),
    ] {
        let opaque = Arc::clone(opaque);
        env.add_filter(filter, move |state: &State, value: Value, args: Rest<Value>| match value.as_str() {
            Some(text) => string_method(state, &opaque, text, method, &args),
            None if method == "length" => {
                value.len().map(Value::from).ok_or_else(|| invalid(format!("a {} has no length", value.kind())))
            }
            None => string_method(state, &opaque, &value.to_string(), method, &args),
        });
    }
    let json = Arc::clone(opaque);
    env.add_filter("tojson", move |state: &State, value: Value, indent: Option<Value>, options: Kwargs| {
        // Non-ASCII characters are always written as they are, which is also what transformers does.
        let _: Option<bool> = options.get("ensure_ascii")?;
        let indent = match indent {
            Some(indent) => Some(indent),
            None => options.get("indent")?,
        };
        options.assert_all_used()?;
        let indent = indent.filter(|v| !v.is_none()).map(usize::try_from).transpose()?;
        let text = dump(&to_json(&json, &value, 0)?, indent);
        charge(state, &text)?;
        Ok::<_, Error>(Value::from(json.hide(&text)))
    });
    let strings = Arc::clone(opaque);
    env.set_unknown_method_callback(move |state, value, method, args| match (value.kind(), value.as_str()) {
        (_, Some(text)) if method != "length" => string_method(state, &strings, text, method, args),
        (ValueKind::Map, _) => map_method(state, value, method, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    });
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}

/// Pays for work on a text: the engine charges one unit for 64 bytes.
fn charge(state: &State, text: &str) -> Result<(), Error> {
    state.consume_fuel(1 + text.len() as u64 / 64)
}

/// A method of Python's `str`.
fn string_method(state: &State, opaque: &Opaque, string: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let stretches = opaque.stretches(string).map_err(invalid)?;
    let text: String = stretches.iter().map(Stretch::as_str).collect();
    charge(state, &text)?;
    let args = args.iter().map(|arg| argument(opaque, arg)).collect::<Result<Vec<_>, _>>()?;
    if matches!(method, "strip" | "lstrip" | "rstrip") {
        return Ok(Value::from(opaque.join(&strip(stretches, method, args.first()))));
    }
    let is_given =
        stretches.iter().chain(args.iter().flat_map(|arg| &arg.stretches)).any(|s| matches!(s, Stretch::Given(_)));
    let wrap = |text: &str| Value::from(if is_given { opaque.hide(text) } else { text.to_owned() });
    let arg = |at: usize| args.get(at).map(|arg| arg.text.as_str());
    let number = |at: usize| args.get(at).and_then(|arg| arg.number).and_then(|n| usize::try_from(n).ok());
    let need = |at: usize| arg(at).ok_or_else(|| Error::from(ErrorKind::MissingArgument));
    Ok(match method {
        "length" => Value::from(text.chars().count()),
        "upper" => wrap(&text.to_uppercase()),
        "lower" => wrap(&text.to_lowercase()),
        "capitalize" => wrap(&capitalize(&text)),
        "title" => wrap(&text.split_inclusive(|c: char| !c.is_alphabetic()).map(capitalize).collect::<String>()),
        "startswith" => Value::from(text.starts_with(need(0)?)),
        "endswith" => Value::from(text.ends_with(need(0)?)),
        "removeprefix" => wrap(text.strip_prefix(need(0)?).unwrap_or(&text)),
        "removesuffix" => wrap(text.strip_suffix(need(0)?).unwrap_or(&text)),
        "find" => Value::from(text.find(need(0)?).map_or(-1, |at| text.chars_before(at))),
        "count" => Value::from(text.matches(need(0)?).count()),
        "replace" => wrap(&replace(&text, need(0)?, need(1)?, number(2))?),
        "splitlines" => text.lines().map(wrap).collect(),
        "split" => split(&text, arg(0), number(1)).into_iter().map(wrap).collect(),
        "rsplit" => rsplit(&text, need(0)?, number(1)).into_iter().map(wrap).collect(),
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

/// An argument of a method.
struct Argument {
    stretches: Vec<Stretch>,
    text: String,
    number: Option<i64>,
}

fn argument(opaque: &Opaque, value: &Value) -> Result<Argument, Error> {
    let stretches = opaque.stretches(value.as_str().unwrap_or_default()).map_err(invalid)?;
    let text = stretches.iter().map(Stretch::as_str).collect();
    Ok(Argument { stretches, text, number: i64::try_from(value.clone()).ok() })
}

/// Counts characters as Python does, not bytes.
trait CharsBefore {
    fn chars_before(&self, byte: usize) -> i64;
}

impl CharsBefore for str {
    fn chars_before(&self, byte: usize) -> i64 {
        self.get(..byte).map_or(0, |before| i64::try_from(before.chars().count()).unwrap_or(i64::MAX))
    }
}

/// `strip`, `lstrip` or `rstrip`: takes away from the ends of a string, whosever they are.
fn strip(mut stretches: Vec<Stretch>, method: &str, chars: Option<&Argument>) -> Vec<Stretch> {
    let goes = |c: char| match chars.filter(|chars| !chars.text.is_empty()) {
        Some(chars) => chars.text.contains(c),
        None => is_python_space(c),
    };
    let kept = |stretch: &Stretch, text: &str| match stretch {
        Stretch::Own(_) => Stretch::Own(text.to_owned()),
        Stretch::Given(_) => Stretch::Given(text.into()),
    };
    if method != "rstrip" {
        let empty = stretches.iter().take_while(|s| s.as_str().chars().all(goes)).count();
        stretches.drain(..empty);
        if let Some(first) = stretches.first_mut() {
            *first = kept(first, first.as_str().trim_start_matches(goes));
        }
    }
    if method != "lstrip" {
        while stretches.last().is_some_and(|s| s.as_str().chars().all(goes)) {
            stretches.pop();
        }
        if let Some(last) = stretches.last_mut() {
            *last = kept(last, last.as_str().trim_end_matches(goes));
        }
    }
    stretches
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().into_iter().flat_map(char::to_uppercase).chain(chars.flat_map(char::to_lowercase)).collect()
}

/// `str.replace`; growth is bounded, as what is replaced may be one character and what replaces it a whole text.
fn replace(text: &str, from: &str, to: &str, most: Option<usize>) -> Result<String, Error> {
    const MAX_BYTES: usize = 64 << 20;
    let found = text.matches(from).count().min(most.unwrap_or(usize::MAX));
    if found.saturating_mul(to.len()).saturating_add(text.len()) > MAX_BYTES {
        return Err(invalid("replacing makes the text longer than 64 MiB"));
    }
    Ok(text.replacen(from, to, found))
}

/// `str.split`: at white space, or at `by`; at most `most` times.
fn split<'a>(text: &'a str, by: Option<&str>, most: Option<usize>) -> Vec<&'a str> {
    let pieces = most.map_or(usize::MAX, |most| most.saturating_add(1));
    match by.filter(|by| !by.is_empty()) {
        Some(by) => text.splitn(pieces, by).collect(),
        None => {
            let text = text.trim_matches(is_python_space);
            let words = text.splitn(pieces, is_python_space).map(|word| word.trim_start_matches(is_python_space));
            words.filter(|word| !word.is_empty()).collect()
        }
    }
}

/// `str.rsplit` at `by`.
fn rsplit<'a>(text: &'a str, by: &str, most: Option<usize>) -> Vec<&'a str> {
    let pieces = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut split: Vec<&str> = text.rsplitn(pieces, by).collect();
    split.reverse();
    split
}

/// A method of Python's `dict`.
fn map_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "items" => state.apply_filter("items", std::slice::from_ref(value)),
        "keys" => Ok(value.try_iter()?.collect()),
        "values" => value.try_iter()?.map(|key| value.get_item(&key)).collect::<Result<Vec<_>, _>>().map(Value::from),
        "get" => {
            let key = args.first().ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            let found = value.get_item(key)?;
            let default = || args.get(1).cloned().unwrap_or(Value::from(()));
            Ok(if found.is_undefined() { default() } else { found })
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// The JSON value of a template's value, with the texts behind the marks.
fn to_json(opaque: &Opaque, value: &Value, depth: usize) -> Result<Json, Error> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!("a value printed as JSON is nested more than {MAX_DEPTH} deep")));
    }
    let reveal = |string: &str| {
        let stretches = opaque.stretches(string).map_err(invalid)?;
        Ok::<String, Error>(stretches.iter().map(Stretch::as_str).collect())
    };
    Ok(match value.kind() {
        ValueKind::Undefined | ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number if value.is_integer() => match i64::try_from(value.clone()) {
            Ok(number) => number.into(),
            Err(_) => u64::try_from(value.clone())?.into(),
        },
        ValueKind::Number => f64::try_from(value.clone())?.into(),
        ValueKind::String => reveal(value.as_str().unwrap_or_default())?.into(),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| to_json(opaque, &item, depth + 1)).collect::<Result<Vec<_>, _>>()?.into()
        }
        ValueKind::Map => {
            let entry = |key: Value| {
                let name = reveal(&key.to_string())?;
                Ok::<_, Error>((name, to_json(opaque, &value.get_item(&key)?, depth + 1)?))
            };
            Json::Object(value.try_iter()?.map(entry).collect::<Result<_, _>>()?)
        }
        kind => return Err(invalid(format!("a {kind} cannot be printed as JSON"))),
    })
}
