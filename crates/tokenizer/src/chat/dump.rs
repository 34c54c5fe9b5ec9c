//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, which is what models have seen.

use serde_json::{Number, Value};

/// The JSON text of `value`: on one line with spaces after separators, or with `indent` spaces a level.
pub(super) fn dump(value: &Value, indent: Option<usize>) -> String {
    let mut text = String::new();
    write(&mut text, value, indent, 0);
    text
}

fn write(text: &mut String, value: &Value, indent: Option<usize>, depth: usize) {
    match value {
        Value::Number(number) => text.push_str(&number_text(number)),
        Value::Array(items) if !items.is_empty() => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                separate(text, at, indent, depth + 1);
                write(text, item, indent, depth + 1);
            }
            close(text, ']', indent, depth);
        }
        Value::Object(entries) if !entries.is_empty() => {
            text.push('{');
            for (at, (key, item)) in entries.iter().enumerate() {
                separate(text, at, indent, depth + 1);
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push_str(": ");
                write(text, item, indent, depth + 1);
            }
            close(text, '}', indent, depth);
        }
        plain => text.push_str(&plain.to_string()),
    }
}

/// What stands before an item.
fn separate(text: &mut String, at: usize, indent: Option<usize>, depth: usize) {
    if at > 0 {
        text.push_str(if indent.is_some() { "," } else { ", " });
    }
    new_line(text, indent, depth);
}

fn close(text: &mut String, bracket: char, indent: Option<usize>, depth: usize) {
    new_line(text, indent, depth);
    text.push(bracket);
}

fn new_line(text: &mut String, indent: Option<usize>, depth: usize) {
    if let Some(width) = indent {
        text.push('\n');
        text.extend(std::iter::repeat_n(' ', width.min(16) * depth));
    }
}

/// A number as Python writes it: a float has a point, or an exponent of two digits outside of 1e-4 to 1e16.
fn number_text(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return number.to_string() };
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) && float != 0.0 => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{float:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, indent: Option<usize>, expected: &str) {
        assert_eq!(dump(&serde_json::from_str(json).expect("the case is JSON"), indent), expected);
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        check(r#"{"b":[1,-2.5,true,null],"a":{}}"#, None, r#"{"b": [1, -2.5, true, null], "a": {}}"#);
        check(r#"["\u00e9\n\"\\\u0001\u007f", []]"#, None, "[\"é\\n\\\"\\\\\\u0001\u{7f}\", []]");
        check(
            "[1.0,1e16,1.5e-5,0.0001,123456789012345680.0,0.0]",
            None,
            "[1.0, 1e+16, 1.5e-05, 0.0001, 1.2345678901234568e+17, 0.0]",
        );
        check(
            r#"{"a":[1,{"b":2}],"c":[]}"#,
            Some(2),
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": 2\n    }\n  ],\n  \"c\": []\n}",
        );
    }
}
