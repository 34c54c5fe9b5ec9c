//! Calls in what models write, whole and in any pieces.

use engine::tools::{Part, Recogniser};
use serde_json::{Value, json};

const NAMES: [&str; 6] = ["get_weather", "get_weather_now", "register_user", "do_something_cool", "f", "g-2"];

/// What an answer says: its text and its calls.
type Said = (String, Vec<(String, Value)>);

/// An answer, its text and its calls.
type Case<'a> = (&'a str, &'a str, Vec<(&'a str, Value)>);

/// What the answer in `pieces` says.
fn said(pieces: &[&str]) -> Said {
    let mut recogniser = Recogniser::new(NAMES.map(str::to_owned));
    let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| recogniser.push(piece)).collect();
    parts.extend(recogniser.finish());
    let (mut text, mut calls) = (String::new(), Vec::<(String, String)>::new());
    for part in parts {
        match part {
            Part::Text(more) => {
                assert!(!more.is_empty());
                text.push_str(&more);
            }
            Part::Call { index, name } => {
                assert_eq!(index, calls.len(), "calls come in order");
                calls.push((name, String::new()));
            }
            Part::Arguments { index, text } => {
                assert_eq!(index + 1, calls.len(), "arguments follow their call");
                calls[index].1.push_str(&text);
            }
        }
    }
    assert_eq!(calls.len(), recogniser.n_calls());
    let parse = |text: &str| serde_json::from_str(text).expect("arguments are JSON");
    (text, calls.into_iter().map(|(name, arguments)| (name, parse(&arguments))).collect())
}

/// Says the same whole, character by character, and cut in two anywhere.
fn check(answer: &str, text: &str, calls: &[(&str, Value)]) {
    let want = (text.to_owned(), calls.iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect::<Vec<_>>());
    assert_eq!(said(&[answer]), want, "{answer:?}");
    let characters: Vec<&str> = answer.char_indices().map(|(at, c)| &answer[at..at + c.len_utf8()]).collect();
    assert_eq!(said(&characters), want, "{answer:?} by characters");
    for (at, _) in answer.char_indices() {
        assert_eq!(said(&[&answer[..at], &answer[at..]]), want, "{answer:?} cut at {at}");
    }
}

/// The cases of vLLM's tests of its own parser for Llama 4 (tests/tool_parsers/test_llama4_pythonic_tool_parser.py): what
/// goes in and what has to come out.
#[test]
fn the_calls_that_another_parser_is_tested_with() {
    let weather = ("get_weather", json!({"city": "LA", "metric": "C"}));
    let user = ("register_user", json!({"name": "Doe", "age": 9}));
    let cases: [Case; 10] = [
        ("How can I help you today?", "How can I help you today?", vec![]),
        ("[get_weather(city='LA', metric='C')]", "", vec![weather.clone()]),
        (
            "[register_user(name='Doe', age=9, address={'city': 'LA', 'state': 'CA'}, role=None, passed_test=True, \
             aliases=['John', 'Johnny'])]",
            "",
            vec![(
                "register_user",
                json!({"name": "Doe", "age": 9, "address": {"city": "LA", "state": "CA"}, "role": null,
                    "passed_test": true, "aliases": ["John", "Johnny"]}),
            )],
        ),
        ("[get_weather()]", "", vec![("get_weather", json!({}))]),
        ("[do_something_cool(additional_data={})]", "", vec![("do_something_cool", json!({"additional_data": {}}))]),
        ("[do_something_cool(steps=[])]", "", vec![("do_something_cool", json!({"steps": []}))]),
        (
            r#"[get_weather(city='Martha\'s Vineyard', metric='\"cool units\"')]"#,
            "",
            vec![("get_weather", json!({"city": "Martha's Vineyard", "metric": "\"cool units\""}))],
        ),
        (
            "[get_weather(city='LA',metric='C'),register_user(name='Doe',age=9)]",
            "",
            vec![weather.clone(), user.clone()],
        ),
        (
            "[get_weather(city='LA', metric='C'),register_user(name='Doe', age=9)]",
            "",
            vec![weather.clone(), user.clone()],
        ),
        ("[get_weather(city='LA', metric='C'), register_user(name='Doe', age=9)]", "", vec![weather, user]),
    ];
    for (answer, text, calls) in &cases {
        check(answer, text, calls);
    }
    println!("{} cases of the other parser", cases.len());
}

#[test]
fn json_calls_in_every_dress() {
    let call = |value: Value| vec![("f", value)];
    for (answer, text, calls) in [
        (r#"{"name": "f", "parameters": {"a": 1}}"#, "", call(json!({"a": 1}))),
        (
            r#"{"type": "function", "name": "f", "parameters": {"a": [1, {"b": "}"}]}}"#,
            "",
            call(json!({"a": [1, {"b": "}"}]})),
        ),
        (r#"{"type":"function","name":"f","arguments":{}}"#, "", call(json!({}))),
        (r#"{"name":"f"}"#, "", call(json!({}))),
        (r#"{"name":"f","parameters":null}"#, "", call(json!({}))),
        (r#"{"name":"f","parameters":"{\"a\": \"\\\"\"}"}"#, "", call(json!({"a": "\""}))),
        (r#"{"name":"f","id":"x,}","parameters":{"a":1},"strict":true}"#, "", call(json!({"a": 1}))),
        ("I will look.\n\n{\"name\": \"f\", \"parameters\": {}}", "I will look.", call(json!({}))),
        ("  \n{\"name\": \"f\", \"parameters\": {}}\n", "", call(json!({}))),
        ("{\"name\": \"f\", \"parameters\": {\"é\": \"日本\"}} done", "done", call(json!({"é": "日本"}))),
    ] {
        check(answer, text, &calls);
    }
    let two = [("f", json!({"a": 1})), ("g-2", json!({}))];
    for between in ["", "\n", "; ", ", ", ",\n"] {
        let calls = format!(
            "{{\"name\": \"f\", \"parameters\": {{\"a\": 1}}}}{between}{{\"name\": \"g-2\", \"parameters\": {{}}}}"
        );
        check(&calls, "", &two);
        check(&format!("[{calls}]"), "", &two);
    }
    check("<function=f>{\"a\": 1}</function><function=g-2>{}</function>", "", &two);
    check("<function=f>{'a': 1}</function> and more", "and more", &two[..1]);
    // The longer of two names of which one begins the other.
    check("[get_weather_now(x=1)]", "", &[("get_weather_now", json!({"x": 1}))]);
}

#[test]
fn what_only_looks_like_a_call_is_text() {
    for answer in [
        "",
        "{",
        "[",
        "<",
        "{\"name\": \"nobody\", \"parameters\": {}}",
        "{\"names\": \"f\"}",
        "{\"type\": \"object\", \"name\": \"f\"}",
        "A set {f} and a list [1, 2], [f] and f(x), x < y, <function=nobody>, <b>",
        "[unknown(a=1)]",
        "{\"name\": \"f",
        "[f(a=",
        "[f(a=b)]",
        "[f(1)]",
        "```json\n{\"answer\": [1, {\"x\": 2}]}\n```",
    ] {
        check(answer, answer, &[]);
    }
    assert_eq!(
        Recogniser::new([]).push("[f(a=1)] {\"name\": \"f\"}"),
        [Part::Text("[f(a=1)] {\"name\": \"f\"}".into())]
    );
}

#[test]
fn python_literals_become_json() {
    for (argument, want) in [
        ("a=1_000", json!({"a": 1000})),
        ("a=-.5, b=5., c=+2, d=1e3", json!({"a": -0.5, "b": 5.0, "c": 2, "d": 1e3})),
        ("a='x\\n\\t\\x41\\u00e9\\\\'", json!({"a": "x\n\tAé\\"})),
        ("a=\"it's\", b='say \"hi\"'", json!({"a": "it's", "b": "say \"hi\""})),
        (
            "a='''x'y''', b=(1, 2,), c=[[1], [], {'k': [None]}]",
            json!({"a": "x'y", "b": [1, 2], "c": [[1], [], {"k": [null]}]}),
        ),
        ("a={k=1, j='x'}", json!({"a": {"k": 1, "j": "x"}})),
        ("a=true, b=null, c=False,", json!({"a": true, "b": null, "c": false})),
        ("a=')', b=\"](\"", json!({"a": ")", "b": "]("})),
    ] {
        check(&format!("[f({argument})]"), "", &[("f", want)]);
    }
    // Digits beyond any machine's numbers stay as they are.
    let mut recogniser = Recogniser::new(["f".to_owned()]);
    let parts = recogniser.push("[f(a=123456789012345678901234567890)]");
    assert!(
        parts
            .iter()
            .any(|p| matches!(p, Part::Arguments { text, .. } if text.contains("123456789012345678901234567890")))
    );
}

#[test]
fn cut_off_and_broken_calls_lose_no_text_and_hold_little_back() {
    // A missing bracket at the end of a list.
    check("[f(a=1), f(b=2)", "", &[("f", json!({"a": 1})), ("f", json!({"b": 2}))]);
    for answer in ["[f(a=", "[f(a=[[[", "{\"name\": \"f\"", "<function=f>{\"a\""] {
        // Whatever is cut off, what comes out is text or a call with whole arguments.
        said(&[answer]);
    }
    // Deep nesting is no call, and takes no stack.
    let deep = format!("[f(a={}{})]", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(said(&[&deep]).0, deep);
    // A call without an end becomes text at a bound.
    let mut recogniser = Recogniser::new(["f".to_owned()]);
    let mut n_text = 0;
    for _ in 0..400 {
        for part in recogniser.push(&"[f(a='".repeat(200)) {
            n_text += matches!(part, Part::Text(_)) as usize;
        }
    }
    assert!(n_text > 0, "nothing came out of {} bytes", 400 * 200 * 6);
    // Text is let through at once where nothing in it can begin a call.
    let mut recogniser = Recogniser::new(["f".to_owned()]);
    assert_eq!(recogniser.push("Hello {x"), [Part::Text("Hello {x".into())]);
    assert_eq!(recogniser.push(" and {\"na"), [Part::Text(" and".into())]);
    assert_eq!(recogniser.push("Na\": 1}"), [Part::Text(" {\"naNa\": 1}".into())]);
    // Arguments stream as they come.
    let mut recogniser = Recogniser::new(["f".to_owned()]);
    assert_eq!(recogniser.push("{\"name\": \"f\", "), [Part::Call { index: 0, name: "f".into() }]);
    assert_eq!(recogniser.push("\"parameters\": {\"a\""), [Part::Arguments { index: 0, text: "{\"a\"".into() }]);
    assert_eq!(recogniser.push(": 1}"), [Part::Arguments { index: 0, text: ": 1}".into() }]);
}
