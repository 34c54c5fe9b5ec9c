//! Bodies from people who mean harm: always a refusal that names the field, never a mistake of ours.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use engine::service::Task;
use serde_json::{Value, json};
use server::Limits;
use support::{Server, ids, server, tokenizer};

/// A generator of numbers from a seed: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn good() -> Vec<(&'static str, Value)> {
    vec![
        (
            "/v1/chat/completions",
            json!({
                "model": "toy", "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Hi \u{e9}\u{1f642}"}]},
                    {"role": "assistant", "content": null, "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
                    {"role": "tool", "tool_call_id": "a", "content": "2"},
                ],
                "temperature": 0.5, "top_p": 0.9, "n": 1, "stop": ["x"], "max_tokens": 2, "seed": 3,
                "logit_bias": {"65": -1}, "logprobs": true, "top_logprobs": 1, "metadata": {"a": "b"},
                "stream": false, "user": "u",
            }),
        ),
        ("/v1/completions", json!({"prompt": ["a", "b"], "max_tokens": 2, "echo": true, "logprobs": 1})),
        ("/v1/embeddings", json!({"input": [[65, 66], [67]], "encoding_format": "base64"})),
        (
            "/v1/messages",
            json!({
                "model": "toy", "max_tokens": 2, "system": [{"type": "text", "text": "s"}],
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
                "stop_sequences": ["x"], "temperature": 1,
            }),
        ),
        (
            "/v1/responses",
            json!({
                "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
                "max_output_tokens": 2, "store": false, "text": {"format": {"type": "text"}},
            }),
        ),
        ("/tokenize", json!({"prompt": "Hi", "add_special_tokens": true})),
        ("/detokenize", json!({"tokens": [65, 66]})),
    ]
}

/// All places in a value, as JSON pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| places(v, &format!("{at}/{i}"), out)),
        Value::Object(map) => map.iter().for_each(|(k, v)| places(v, &format!("{at}/{k}"), out)),
        _ => {}
    }
}

fn odd_values() -> Vec<Value> {
    let deep = (0..40).fold(json!(1), |value, _| json!([value]));
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(""),
        json!("x"),
        json!("\u{0}"),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!({"type": "x"}),
        deep,
    ]
}

async fn check(server: &Server, path: &str, body: Vec<u8>, counts: &mut BTreeMap<u16, usize>) {
    let shown = String::from_utf8_lossy(&body).chars().take(400).collect::<String>();
    let reply = server.post_bytes(path, body).await;
    let status = reply.status.as_u16();
    *counts.entry(status).or_default() += 1;
    assert!(status == 200 || (400..500).contains(&status), "{status} {path} {shown}\n{}", reply.text());
    if status != 200 {
        let error = &reply.json()["error"];
        let is_shaped = if path.starts_with("/v1/messages") {
            error["message"].is_string() && error["type"].is_string()
        } else {
            let keys: Vec<&String> = error.as_object().unwrap().keys().collect();
            error["message"].is_string() && keys == ["message", "type", "param", "code"]
        };
        assert!(is_shaped, "{path} {shown}\n{}", reply.text());
    }
}

/// H1.
#[tokio::test]
async fn malformed_bodies_are_refused() {
    let server = server();
    let mut counts = BTreeMap::new();
    let (mut n_truncated, mut n_flipped, mut n_typed, mut n_other) = (0, 0, 0, 0);
    let mut random = Random(0x5eed);
    for (path, body) in good() {
        let text = body.to_string().into_bytes();
        for len in 0..text.len() {
            check(&server, path, text[..len].to_vec(), &mut counts).await;
            n_truncated += 1;
        }
        for _ in 0..1100 {
            let mut flipped = text.clone();
            let at = random.below(flipped.len());
            flipped[at] ^= 1 << random.below(8);
            check(&server, path, flipped, &mut counts).await;
            n_flipped += 1;
        }
        let mut all = Vec::new();
        places(&body, "", &mut all);
        for place in &all {
            for odd in odd_values() {
                let mut changed = body.clone();
                *changed.pointer_mut(place).unwrap() = odd;
                check(&server, path, changed.to_string().into_bytes(), &mut counts).await;
                n_typed += 1;
            }
        }
        let inner = String::from_utf8(text.clone()).unwrap();
        let key = body.as_object().unwrap().keys().next().unwrap().clone();
        for other in [
            inner.replacen('{', &format!("{{\"{key}\":1,"), 1).into_bytes(),
            "[".repeat(100_000).into_bytes(),
            format!("{{\"a\":{}", "{\"a\":".repeat(70)).into_bytes(),
            [&text[..], b"x"].concat(),
            [b"\xef\xbb\xbf", &text[..]].concat(),
            inner.replace("Hi", "\u{0}").into_bytes(),
            inner.replace("Hi", "\\ud800").into_bytes(),
            [&text[..10], b"\xff\xfe", &text[10..]].concat(),
            inner.replace('2', "18446744073709551616").into_bytes(),
            inner.replace('2', "1e999").into_bytes(),
            inner.replace('2', "NaN").into_bytes(),
            inner.replace('2', "-0").into_bytes(),
            vec![0; 64],
            b"null".to_vec(),
        ] {
            check(&server, path, other, &mut counts).await;
            n_other += 1;
        }
    }
    let n = n_truncated + n_flipped + n_typed + n_other;
    println!("{n} bodies: {n_truncated} cut, {n_flipped} flipped, {n_typed} retyped, {n_other} others: {counts:?}");
    assert!(n >= 10_000, "{n}");
}

/// H2: fields with the least and the most that they may be. A field of no most is bounded by its type.
fn numbers(limits: &Limits) -> Vec<(&'static str, Value, &'static str, f64, f64, bool)> {
    let chat = json!({"messages": [{"role": "user", "content": "x"}], "logprobs": true, "max_tokens": 1});
    let text = json!({"prompt": "x", "max_tokens": 1});
    let messages = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1});
    let response = json!({"input": "x", "store": false, "max_output_tokens": 1});
    let (c, t, m, r) = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses");
    let top = limits.top_logprobs as f64;
    let room = 4000.0;
    let mut all = Vec::new();
    for (path, base) in [(c, &chat), (t, &text)] {
        all.extend([
            (path, base.clone(), "temperature", 0.0, 2.0, false),
            (path, base.clone(), "top_p", f64::MIN_POSITIVE, 1.0, false),
            (path, base.clone(), "min_p", 0.0, 1.0, false),
            (path, base.clone(), "frequency_penalty", -2.0, 2.0, false),
            (path, base.clone(), "presence_penalty", -2.0, 2.0, false),
            (path, base.clone(), "repetition_penalty", f64::MIN_POSITIVE, 2.0, false),
            (path, base.clone(), "n", 1.0, f64::from(limits.n), true),
            (path, base.clone(), "top_k", -1.0, f64::from(limits.engine.top_k), true),
            (path, base.clone(), "max_tokens", 0.0, room, true),
        ]);
    }
    all.extend([
        (c, chat, "top_logprobs", 0.0, top, true),
        (t, text.clone(), "logprobs", 0.0, top, true),
        (t, text, "best_of", 0.0, 1.0, true),
        (m, messages.clone(), "temperature", 0.0, 2.0, false),
        (m, messages.clone(), "top_p", f64::MIN_POSITIVE, 1.0, false),
        (m, messages.clone(), "top_k", -1.0, f64::from(limits.engine.top_k), true),
        (m, messages, "max_tokens", 0.0, room, true),
        (r, response.clone(), "temperature", 0.0, 2.0, false),
        (r, response.clone(), "top_p", f64::MIN_POSITIVE, 1.0, false),
        (r, response.clone(), "max_output_tokens", 0.0, room, true),
        (r, response, "top_logprobs", 0.0, top, true),
    ]);
    all
}

#[tokio::test]
async fn every_number_is_held_to_its_bounds() {
    let server = server();
    let mut n = 0;
    for (path, base, field, low, high, is_whole) in numbers(&Limits::default()) {
        let step = if is_whole { 1.0 } else { 0.001 };
        let shown = |value: f64| if is_whole { format!("{value:.0}") } else { format!("{value:?}") };
        // Of a field above 0, the least is a number that is 0 for the engine.
        let least = if low == f64::MIN_POSITIVE { 0.001 } else { low };
        // A prompt takes some room of the context: the most is not tried exactly.
        let above = if field.starts_with("max") { 4096.0 } else { high };
        let values = [
            (shown(least - step), false),
            (shown(least), true),
            (shown(high), true),
            (shown(above + step), false),
            ("1e999".into(), false),
            ("-1e999".into(), false),
            ("\"1\"".into(), false),
            ("[1]".into(), false),
            ("true".into(), false),
            ("1.0000001".into(), !is_whole && low <= 1.0 && high > 1.0),
            ("9223372036854775808".into(), false),
            ("-9223372036854775809".into(), false),
            ("18446744073709551616".into(), false),
        ];
        for (text, is_good) in values {
            let mut body = base.as_object().unwrap().clone();
            body.insert(field.into(), json!("MARK"));
            let body = Value::Object(body).to_string().replace("\"MARK\"", &text);
            let reply = server.post_bytes(path, body.clone().into_bytes()).await;
            n += 1;
            if is_good {
                assert_eq!(reply.status, 200, "{path} {body}\n{}", reply.text());
                continue;
            }
            assert_eq!(reply.status, 400, "{path} {body}\n{}", reply.text());
            let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
            let is_number = text.parse::<f64>().is_ok_and(f64::is_finite);
            let names_limit = !is_number
                || ["from", "above", "at most", "context holds", "more than n"]
                    .iter()
                    .any(|word| message.contains(word));
            assert!(message.contains(field) && names_limit, "{path} {body}\n{message}");
        }
    }
    println!("{n} values tried");
    assert!(n >= 300);
}

#[tokio::test]
async fn every_count_is_held_to_its_bounds() {
    let server = server();
    let user = json!({"role": "user", "content": "x"});
    let parts = |n: usize| json!([{"role": "user", "content": vec![json!({"type": "text", "text": "x"}); n]}]);
    let tool = |i: usize| json!({"type": "function", "function": {"name": format!("f{i}")}});
    let tools = |n: usize| (0..n).map(tool).collect::<Vec<_>>();
    let bias = |n: usize| (0..n).map(|i| (i.to_string(), json!(1))).collect::<serde_json::Map<_, _>>();
    let metadata = |n: usize| (0..n).map(|i| (i.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>();
    let chat = |field: &str, value: Value| {
        let mut body = json!({"messages": [user.clone()], "max_tokens": 1, "tool_choice": "none"});
        body[field] = value;
        ("/v1/chat/completions", body)
    };
    let text = |field: &str, value: Value| {
        let mut body = json!({"prompt": "x", "max_tokens": 1});
        body[field] = value;
        ("/v1/completions", body)
    };
    let cases = [
        (
            "messages",
            chat("messages", json!(vec![user.clone(); 200])),
            chat("messages", json!(vec![user.clone(); 1025])),
        ),
        ("messages[0].content", chat("messages", parts(64)), chat("messages", parts(65))),
        ("stop", chat("stop", json!(vec!["x"; 4])), chat("stop", json!(vec!["x"; 5]))),
        ("stop", chat("stop", json!("x".repeat(256))), chat("stop", json!("x".repeat(257)))),
        ("stop", chat("stop", json!("x")), chat("stop", json!(""))),
        ("logit_bias", chat("logit_bias", bias(300).into()), chat("logit_bias", bias(301).into())),
        ("logit_bias", chat("logit_bias", json!({"5": 100})), chat("logit_bias", json!({"5": 100.1}))),
        ("logit_bias", chat("logit_bias", json!({"2303": 1})), chat("logit_bias", json!({"2304": 1}))),
        ("tools", chat("tools", json!(tools(128))), chat("tools", json!(tools(129)))),
        ("metadata", chat("metadata", metadata(16).into()), chat("metadata", metadata(17).into())),
        ("cache_salt", chat("cache_salt", json!("x".repeat(256))), chat("cache_salt", json!("x".repeat(257)))),
        ("prompt", text("prompt", json!(vec!["x"; 16])), text("prompt", json!(vec!["x"; 17]))),
        ("prompt", text("prompt", json!([65])), text("prompt", json!([]))),
        ("prompt[1]", text("prompt", json!([65, 255])), text("prompt", json!([65, 256]))),
        ("prompt[0]", text("prompt", json!([256])), text("prompt", json!([300]))),
    ];
    let n = cases.len();
    for (field, (path, good), (_, bad)) in cases {
        let reply = server.post(path, &good).await;
        assert_eq!(reply.status, 200, "{good}\n{}", reply.text());
        let reply = server.post(path, &bad).await;
        assert_eq!(reply.status, 400, "{bad}");
        assert_eq!(reply.json()["error"]["param"], field, "{}", reply.text());
    }
    let both = json!({"prompt": vec!["x"; 16], "n": 3, "max_tokens": 1});
    assert_eq!(server.post("/v1/completions", &both).await.status, 400);
    println!("{n} counts tried");
}

/// H3: spellings of control tokens are text, in whatever role they stand.
#[tokio::test]
async fn no_text_becomes_control() {
    let server = server();
    let tokenizer = tokenizer();
    let spellings: Vec<String> = tokenizer.controls().map(|(name, _)| name.to_owned()).collect();
    let n_own = async |server: &Server, body: &Value, path: &str| {
        let reply = server.post(path, body).await;
        assert_eq!(reply.status, 200, "{body}\n{}", reply.text());
        let ids = ids(&server.last_job());
        ids.into_iter().filter(|id| *id >= 256).collect::<Vec<u32>>()
    };
    let call =
        |arguments: &str| json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}});
    let conversation = |s: &str, role: usize| {
        let (head, tail) = s.split_at(s.len() / 2);
        match role {
            0 => json!([{"role": "system", "content": s}, {"role": "user", "content": "x"}]),
            1 => json!([{"role": "user", "content": s}]),
            2 => {
                json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": s}, {"role": "user", "content": "x"}])
            }
            3 => json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call("{}")]},
                        {"role": "tool", "tool_call_id": "a", "content": s}]),
            4 => json!([{"role": "user", "content": "x"},
                        {"role": "assistant", "tool_calls": [call(&json!({"x": s}).to_string())]},
                        {"role": "tool", "tool_call_id": "a", "content": "x"}]),
            _ => json!([{"role": "user", "content": [{"type": "text", "text": head}, {"type": "text", "text": tail}]}]),
        }
    };
    let mut n = 0;
    for role in 0..6 {
        let plain = json!({"messages": conversation("plain text", role), "max_tokens": 1});
        let expected = n_own(&server, &plain, "/v1/chat/completions").await;
        // All of them in one text, then a part of them one by one.
        let all = spellings.concat();
        let some = spellings.iter().step_by(29).map(String::as_str).chain([all.as_str()]);
        for spelling in some {
            let limit = spelling.chars().take(3000).collect::<String>();
            let body = json!({"messages": conversation(&limit, role), "max_tokens": 1});
            assert_eq!(n_own(&server, &body, "/v1/chat/completions").await, expected, "{spelling}");
            n += 1;
        }
    }
    for spelling in &spellings {
        let body = json!({"prompt": spelling, "max_tokens": 1});
        assert_eq!(n_own(&server, &body, "/v1/completions").await.len(), 1, "the beginning of the text alone");
        n += 1;
    }
    println!("{n} texts with spellings of {} control tokens", spellings.len());
    assert!(n >= 2000);
}

#[tokio::test]
async fn a_default_answer_takes_what_is_left_of_the_context() {
    let server = server();
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    assert_eq!(server.post("/v1/chat/completions", &body).await.status, 200);
    let job = server.last_job();
    let Task::Generate { stop, .. } = &job.task else { panic!("an answer") };
    assert_eq!(stop.max_tokens, 4096 - support::n_prompt(&job));
    let body = json!({"messages": [{"role": "user", "content": "x".repeat(4096)}]});
    let reply = server.post("/v1/chat/completions", &body).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
}
