//! Thinking over HTTP: what fields ask for, what the engine is told, what is shown.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use axum::http::StatusCode;
use engine::service::{Channel, Job, Task};
use engine::thinking::Thinking;
use serde_json::{Value, json};
use server::{Limits, Options, ReasoningField};
use support::{Server, Setup, ids, tell, tokenizer};

const START: &str = "<|reasoning_thinking_start|>";
const END: &str = "<|reasoning_thinking_end|>";

/// A server whose model thinks by itself, or when asked, and whose answers are always the same.
fn thinker(thinks: bool, options: Options) -> Server {
    let script =
        Arc::new(|submitted, _: &_| tell(submitted, &[(Channel::Reasoning, "Hm."), (Channel::Content, "Yes.")]));
    Setup { thinks: Some(thinks), options, script, ..Setup::default() }.start()
}

/// The same conversation for each interface, with `fields` beside it.
fn body(path: &str, fields: &Value) -> Value {
    let mut body = match path {
        "/v1/chat/completions" => json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 400}),
        "/v1/messages" => json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 400}),
        _ => json!({"input": "x", "max_output_tokens": 400}),
    };
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// How the prompt of a job ends, and what it may think.
fn told(job: &Job) -> (String, Thinking) {
    let tokenizer = tokenizer();
    let text: String =
        ids(job).iter().map(|id| String::from_utf8_lossy(tokenizer.token_bytes(*id).unwrap()).into_owned()).collect();
    let (_, ending) = text.rsplit_once("assistant<|header_end|>\n\n").expect("a prompt for an answer");
    let Task::Generate { thinking: Some(thinking), .. } = &job.task else { panic!("no thinking in {job:?}") };
    (ending.to_owned(), *thinking.clone())
}

/// Of 400 tokens 100 are kept for the answer, and what is written to end the thoughts takes three.
const ROOM: usize = 297;

#[tokio::test]
async fn every_field_says_how_much_to_think() {
    let server = thinker(true, Options::default());
    let cases = [
        (CHAT, json!({}), Some(ROOM)),
        (CHAT, json!({"reasoning_effort": "none"}), None),
        (CHAT, json!({"reasoning_effort": "low"}), Some(100)),
        (CHAT, json!({"reasoning_effort": "max"}), Some(ROOM)),
        (CHAT, json!({"reasoning": {"effort": "low"}, "reasoning_effort": "none"}), Some(100)),
        (CHAT, json!({"reasoning": {"enabled": false, "max_tokens": 7}}), None),
        (CHAT, json!({"reasoning": {"enabled": true}}), Some(ROOM)),
        (CHAT, json!({"reasoning": {"max_tokens": 7, "effort": "low"}, "thinking_token_budget": 8}), Some(7)),
        (CHAT, json!({"reasoning": {"max_tokens": 0}}), Some(0)),
        (CHAT, json!({"reasoning": {"max_tokens": -1}}), Some(ROOM)),
        (CHAT, json!({"reasoning": {"max_tokens": 100_000}}), Some(ROOM)),
        (CHAT, json!({"thinking_token_budget": 8, "thinking": {"type": "enabled", "budget_tokens": 9}}), Some(8)),
        (CHAT, json!({"thinking": {"type": "enabled", "budget_tokens": 9}, "reasoning_effort": "low"}), Some(9)),
        (CHAT, json!({"thinking": {"type": "adaptive"}, "reasoning_effort": "low"}), Some(100)),
        (CHAT, json!({"thinking": {"type": "disabled"}, "reasoning_effort": "low"}), None),
        (CHAT, json!({"chat_template_kwargs": {"enable_thinking": false}}), None),
        (CHAT, json!({"chat_template_kwargs": {"thinking": true, "thinking_budget": 5}}), Some(5)),
        (CHAT, json!({"chat_template_kwargs": {"thinking_budget": 6}}), Some(6)),
        (MESSAGES, json!({}), Some(ROOM)),
        (MESSAGES, json!({"thinking": {"type": "enabled", "budget_tokens": 64}}), Some(64)),
        (MESSAGES, json!({"thinking": {"type": "disabled"}}), None),
        (RESPONSES, json!({}), Some(ROOM)),
        (RESPONSES, json!({"reasoning": {"effort": "low", "summary": "auto"}}), Some(100)),
        (RESPONSES, json!({"reasoning": {"effort": "none"}}), None),
    ];
    for (path, fields, budget) in cases {
        let reply = server.post(path, &body(path, &fields)).await;
        assert_eq!(reply.status, StatusCode::OK, "{path} {fields}: {}", reply.text());
        let (ending, thinking) = told(&server.last_job());
        let expected = if budget.is_some() { START.to_owned() } else { format!("{START}{END}") };
        assert_eq!((ending, thinking.budget), (expected, budget.unwrap_or(0)), "{path} {fields}");
        assert_eq!(reply.header("x-ignored-params"), "", "{path} {fields}");
    }
}

#[tokio::test]
async fn a_model_that_does_not_think_by_itself_sees_no_empty_block() {
    let server = thinker(false, Options::default());
    for (fields, ending, budget) in [
        (json!({}), "", 0),
        (json!({"reasoning_effort": "none"}), "", 0),
        (json!({"reasoning_effort": "low"}), START, 100),
    ] {
        assert_eq!(server.post(CHAT, &body(CHAT, &fields)).await.status, StatusCode::OK);
        let (got, thinking) = told(&server.last_job());
        assert_eq!((got.as_str(), thinking.budget), (ending, budget), "{fields}");
    }
}

#[tokio::test]
async fn the_server_has_a_ceiling_and_an_answer_always_has_room() {
    let limits = Limits { thinking_tokens: 30, ..Limits::default() };
    let server = thinker(true, Options { limits, ..Options::default() });
    for (max_tokens, asked, budget) in
        [(400, 20, 20), (400, 31, 30), (400, -1, 30), (40, -1, 27), (8, -1, 3), (1, -1, 0)]
    {
        let fields = json!({"max_tokens": max_tokens, "reasoning": {"max_tokens": asked}});
        assert_eq!(server.post(CHAT, &body(CHAT, &fields)).await.status, StatusCode::OK);
        assert_eq!(told(&server.last_job()).1.budget, budget, "{fields}");
    }
    // What goes on with the thoughts takes its tokens too.
    let fields = json!({"max_tokens": 40, "reasoning": {"min_tokens": 9, "max_extensions": 2}});
    assert_eq!(server.post(CHAT, &body(CHAT, &fields)).await.status, StatusCode::OK);
    let (_, thinking) = told(&server.last_job());
    assert_eq!((thinking.budget, thinking.min_tokens, thinking.max_extensions), (27 - 8, 9, 2));
}

#[tokio::test]
async fn what_can_not_be_thought_is_refused_by_name() {
    let able = thinker(true, Options::default());
    for (fields, named) in [
        (json!({"reasoning_effort": "enormous"}), "reasoning_effort"),
        (json!({"reasoning": {"effort": "enormous"}}), "reasoning.effort"),
        (json!({"reasoning": {"max_tokens": -2}}), "reasoning.max_tokens"),
        (json!({"reasoning": {"max_tokens": 1.5}}), "reasoning.max_tokens"),
        (json!({"reasoning": {"min_tokens": -1}}), "reasoning.min_tokens"),
        (json!({"reasoning": {"min_tokens": 1_048_577}}), "reasoning.min_tokens"),
        (json!({"reasoning": {"max_extensions": 17}}), "reasoning.max_extensions"),
        (json!({"reasoning": {"parallel": {"n": 4}}}), "reasoning.parallel"),
        (json!({"reasoning": {"summary": "detailed"}}), "reasoning.summary"),
        (json!({"reasoning": "low"}), "reasoning"),
        (json!({"reasoning": {"exclude": true}, "logprobs": true}), "reasoning.exclude"),
        (json!({"thinking_token_budget": -2}), "thinking_token_budget"),
        (json!({"thinking": {"type": "sometimes"}}), "thinking.type"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": -1}}), "thinking.budget_tokens"),
        (json!({"chat_template_kwargs": {"thinking_budget": -2}}), "chat_template_kwargs.thinking_budget"),
    ] {
        let reply = able.post(CHAT, &body(CHAT, &fields)).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{fields}");
        assert_eq!(reply.json()["error"]["param"], named, "{fields}: {}", reply.text());
    }
    let unable = support::server();
    for (path, fields, named) in [
        (CHAT, json!({"reasoning_effort": "low"}), "reasoning_effort"),
        (CHAT, json!({"reasoning": {"enabled": true}}), "reasoning.enabled"),
        (CHAT, json!({"reasoning": {"max_tokens": 5}}), "reasoning.max_tokens"),
        (CHAT, json!({"thinking_token_budget": 5}), "thinking_token_budget"),
        (CHAT, json!({"chat_template_kwargs": {"enable_thinking": true}}), "chat_template_kwargs"),
        (MESSAGES, json!({"thinking": {"type": "enabled", "budget_tokens": 5}}), "thinking.budget_tokens"),
        (RESPONSES, json!({"reasoning": {"effort": "high"}}), "reasoning.effort"),
    ] {
        let reply = unable.post(path, &body(path, &fields)).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{fields}");
        assert!(reply.text().contains(&format!("{named} asks for thinking")), "{path} {fields}: {}", reply.text());
    }
    for (path, fields) in [
        (CHAT, json!({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": false}})),
        (CHAT, json!({"reasoning": {"enabled": false}})),
        (MESSAGES, json!({"thinking": {"type": "disabled"}})),
        (RESPONSES, json!({"reasoning": {"effort": "none", "summary": "auto"}})),
    ] {
        assert_eq!(unable.post(path, &body(path, &fields)).await.status, StatusCode::OK, "{fields}");
        let Task::Generate { thinking, .. } = unable.last_job().task else { panic!("no answer") };
        assert_eq!(thinking, None);
    }
}

#[tokio::test]
async fn thoughts_are_shown_beside_the_answer_under_the_names_that_are_wanted() {
    for (reasoning_field, names, absent) in [
        (ReasoningField::Both, &["reasoning", "reasoning_content"][..], &[][..]),
        (ReasoningField::Reasoning, &["reasoning"], &["reasoning_content"]),
        (ReasoningField::ReasoningContent, &["reasoning_content"], &["reasoning"]),
    ] {
        let server = thinker(true, Options { reasoning_field, ..Options::default() });
        let reply = server.post(CHAT, &body(CHAT, &json!({"logprobs": true}))).await.json();
        let choice = &reply["choices"][0];
        assert_eq!(choice["message"]["content"], "Yes.");
        let channels: Vec<&Value> =
            choice["logprobs"]["content"].as_array().unwrap().iter().map(|entry| &entry["channel"]).collect();
        assert_eq!(
            channels,
            [
                &json!("reasoning"),
                &json!("reasoning"),
                &json!("reasoning"),
                &json!(null),
                &json!(null),
                &json!(null),
                &json!(null)
            ]
        );
        assert_eq!(reply["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
        let stream = server.post(CHAT, &body(CHAT, &json!({"stream": true}))).await.text();
        let deltas: Vec<Value> = stream
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
            .map(|chunk| chunk["choices"][0]["delta"].clone())
            .collect();
        let joined = |name: &str| deltas.iter().filter_map(|delta| delta[name].as_str()).collect::<String>();
        assert_eq!(joined("content"), "Yes.");
        for name in names {
            assert_eq!(choice["message"][name], "Hm.");
            assert_eq!(joined(name), "Hm.");
        }
        for name in absent {
            assert_eq!(choice["message"].get(name), None);
            assert!(!stream.contains(&format!("\"{name}\"")), "{stream}");
        }
    }
}

#[tokio::test]
async fn thoughts_that_are_left_out_count_all_the_same() {
    let server = thinker(true, Options::default());
    let hidden = |path: &str| match path {
        MESSAGES => json!({"thinking": {"type": "adaptive", "display": "omitted"}}),
        _ => json!({"reasoning": {"exclude": true}}),
    };
    for path in [CHAT, MESSAGES, RESPONSES] {
        for stream in [false, true] {
            let mut fields = hidden(path);
            fields["stream"] = stream.into();
            let text = server.post(path, &body(path, &fields)).await.text();
            assert!(!text.contains("Hm") && !text.contains("\"H\""), "{path}: {text}");
            assert!(!text.contains("reasoning_text") && !text.contains("thinking_delta"), "{path}: {text}");
        }
        let reply = server.post(path, &body(path, &hidden(path))).await.json();
        match path {
            CHAT => assert_eq!(reply["usage"]["completion_tokens_details"]["reasoning_tokens"], 3),
            RESPONSES => assert_eq!(reply["usage"]["output_tokens_details"]["reasoning_tokens"], 3),
            _ => assert_eq!(reply["content"], json!([{"type": "text", "text": "Yes."}])),
        }
    }
}

#[tokio::test]
async fn every_interface_has_its_form_of_thoughts() {
    let server = thinker(true, Options::default());
    let reply = server.post(MESSAGES, &body(MESSAGES, &json!({}))).await.json();
    let thinking = json!({"type": "thinking", "thinking": "Hm.", "signature": ""});
    assert_eq!(reply["content"], json!([thinking, {"type": "text", "text": "Yes."}]));
    let stream = server.post(MESSAGES, &body(MESSAGES, &json!({"stream": true}))).await.text();
    let starts: Vec<&str> = stream.lines().filter(|line| line.contains("\"content_block_start\"")).collect();
    assert!(starts.len() == 2 && starts[0].contains("\"thinking\"") && starts[1].contains("\"text\""), "{stream}");
    let fields = json!({"reasoning": {"effort": "low"}});
    let reply = server.post(RESPONSES, &body(RESPONSES, &fields)).await.json();
    assert_eq!(reply["reasoning"], json!({"effort": "low", "summary": null}));
    let output = reply["output"].as_array().unwrap();
    let thought = &output[0];
    assert_eq!((&thought["type"], &thought["summary"]), (&json!("reasoning"), &json!([])));
    assert_eq!(thought["content"], json!([{"type": "reasoning_text", "text": "Hm."}]));
    assert_eq!(output[1]["content"][0]["text"], "Yes.");
    let stream = server.post(RESPONSES, &body(RESPONSES, &json!({"stream": true}))).await.text();
    let events: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let first =
        |name: &str| events.iter().position(|event| *event == name).unwrap_or_else(|| panic!("{name}: {stream}"));
    assert!(first("response.reasoning_text.delta") < first("response.reasoning_text.done"));
    assert!(first("response.reasoning_text.done") < first("response.output_text.delta"));
}

/// A conversation with a thought in each of two turns, the second of which called a tool.
fn earlier(path: &str) -> Value {
    let arguments = "{\"a\":1}";
    match path {
        CHAT => json!({"messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two", "reasoning_content": "old"},
            {"role": "user", "content": "three"},
            {"role": "assistant", "reasoning": "new", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "four"},
        ]}),
        MESSAGES => json!({"max_tokens": 400, "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "old", "signature": ""}, {"type": "text", "text": "two"}]},
            {"role": "user", "content": "three"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "new", "signature": ""},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "four"}]},
        ]}),
        _ => json!({"input": [
            {"role": "user", "content": "one"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "old"}]},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "new"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": arguments},
            {"type": "function_call_output", "call_id": "c1", "output": "four"},
        ]}),
    }
}

#[tokio::test]
async fn a_chain_of_calls_keeps_its_thoughts_and_earlier_turns_do_not() {
    let server = thinker(true, Options::default());
    let tokenizer = tokenizer();
    let prompt = |job: &Job| -> String {
        ids(job).iter().map(|id| String::from_utf8_lossy(tokenizer.token_bytes(*id).unwrap()).into_owned()).collect()
    };
    for path in [CHAT, MESSAGES, RESPONSES] {
        let reply = server.post(path, &earlier(path)).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
        let text = prompt(&server.last_job());
        assert!(text.contains(&format!("\n\n{START}new{END}<|python_start|>")), "{path}: {text}");
        assert!(text.contains("<|header_end|>\n\ntwo<|eot|>") && !text.contains("old"), "{path}: {text}");
    }
    let mut body = earlier(CHAT);
    body["chat_template_kwargs"] = json!({"keep_reasoning": true});
    assert_eq!(server.post(CHAT, &body).await.status, StatusCode::OK);
    let text = prompt(&server.last_job());
    assert!(text.contains(&format!("\n\n{START}old{END}two<|eot|>")), "{text}");
}
