//! What each endpoint says, byte for byte.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use engine::service::Task;
use serde_json::json;
use support::{server, shown, steady};

#[tokio::test]
async fn a_chat_is_answered_whole() {
    let server = server();
    let body = json!({
        "model": "toy", "messages": [{"role": "user", "content": "Hi"}], "logprobs": true, "top_logprobs": 2,
        "max_tokens": 2, "n": 2, "seed": 7, "unknown_field": 1,
    });
    let reply = server.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-ignored-params"), "unknown_field");
    assert!(reply.header("x-request-id").starts_with("req_"));
    insta::assert_snapshot!("chat", shown(&reply.json()));
}

#[tokio::test]
async fn a_chat_is_answered_in_pieces() {
    let server = server();
    let body = json!({
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "stream": true,
        "stream_options": {"include_usage": true}, "max_completion_tokens": 3,
    });
    let reply = server.post("/v1/chat/completions", &body).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "text/event-stream"));
    insta::assert_snapshot!("chat_stream", steady(&reply.text()));
}

#[tokio::test]
async fn texts_are_continued() {
    let server = server();
    let body = json!({
        "prompt": ["ab", "c"], "max_tokens": 2, "logprobs": 1, "echo": true, "temperature": 0, "n": 2,
    });
    let reply = server.post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    insta::assert_snapshot!("completion", shown(&reply.json()));
    let body = json!({"prompt": [97, 98], "max_tokens": 2, "stream": true, "echo": true, "logprobs": 1});
    let reply = server.post("/v1/completions", &body).await;
    insta::assert_snapshot!("completion_stream", steady(&reply.text()));
}

#[tokio::test]
async fn an_answer_goes_on_where_its_end_is_ignored() {
    let server = server();
    for path in ["/v1/completions", "/v1/chat/completions"] {
        for (ignore, n_ends) in [(json!(null), 1), (json!(false), 1), (json!(true), 0)] {
            let body = match path {
                "/v1/completions" => json!({"prompt": "Hi", "max_tokens": 2, "ignore_eos": ignore}),
                _ => json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "ignore_eos": ignore}),
            };
            assert_eq!(server.post(path, &body).await.status, 200);
            let jobs = server.jobs.lock().unwrap();
            let Some(Task::Generate { stop, .. }) = jobs.last().map(|job| &job.task) else { panic!("no job") };
            assert_eq!(stop.tokens.len(), n_ends, "{path}, {ignore}");
        }
    }
    let body = json!({
        "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": true, "response_format": {"type": "json_object"},
    });
    let reply = server.post("/v1/chat/completions", &body).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!("ignore_eos")));
}

#[tokio::test]
async fn models_and_tokens_are_shown() {
    let server = server();
    insta::assert_snapshot!("models", shown(&server.get("/v1/models").await.json()));
    insta::assert_snapshot!("model_not_found", shown(&server.get("/v1/models/nope").await.json()));
    let tokens = server.post("/tokenize", &json!({"prompt": "hé", "add_special_tokens": false})).await.json();
    assert_eq!(tokens, json!({"tokens": [104, 195, 169], "count": 3, "max_model_len": 4096}));
    let text = server.post("/detokenize", &json!({"tokens": tokens["tokens"]})).await.json();
    assert_eq!(text, json!({"prompt": "hé"}));
    insta::assert_snapshot!("tokenizer_info", shown(&server.get("/tokenizer_info").await.json()));
    assert_eq!(server.get("/health/live").await.json(), json!({"status": "ok"}));
    assert_eq!(server.get("/health/ready").await.json(), json!({"status": "ok"}));
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("puna_requests_total{method=\"POST\",route=\"/tokenize\",status=\"200\"} 1"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn errors_have_their_interfaces_shape() {
    let server = server();
    let cases = [
        ("/v1/chat/completions", json!({"messages": []})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "x"}], "temperature": 2.5})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "x"}], "web_search_options": {}})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 5000})),
        ("/v1/nothing", json!({})),
    ];
    let mut text = String::new();
    for (path, body) in cases {
        let reply = server.post(path, &body).await;
        text.push_str(&format!("{} {path} {body}\n{}\n", reply.status, shown(&reply.json())));
    }
    insta::assert_snapshot!("errors", text);
}

#[tokio::test]
async fn embeddings_are_numbers_or_bytes() {
    let server = server();
    let numbers = server.post("/v1/embeddings", &json!({"input": ["a", "b"]})).await;
    insta::assert_snapshot!("embeddings", shown(&numbers.json()));
    let bytes = server.post("/v1/embeddings", &json!({"input": [97], "encoding_format": "base64"})).await.json();
    assert_eq!(bytes["data"][0]["embedding"], "AAAAPwAAAL8AAAA/AAAAvw==");
    let refused = server.post("/v1/embeddings", &json!({"input": "a", "dimensions": 3})).await;
    assert_eq!(refused.json()["error"]["param"], "dimensions");
}

#[tokio::test]
async fn messages_have_anthropics_shape() {
    let server = server();
    let body = json!({
        "model": "toy", "max_tokens": 20, "system": "s", "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "…", "signature": ""},
                                              {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "2"},
                                         {"type": "text", "text": "And?"}]},
        ],
    });
    insta::assert_snapshot!("messages", shown(&server.post("/v1/messages", &body).await.json()));
    let mut stream = body.clone();
    stream["stream"] = json!(true);
    stream["max_tokens"] = json!(2);
    insta::assert_snapshot!("messages_stream", steady(&server.post("/v1/messages", &stream).await.text()));
    let count = server.post("/v1/messages/count_tokens", &body).await.json();
    assert_eq!(count["input_tokens"], support::n_prompt(&server.last_job()));
    let refused = server.post("/v1/messages", &json!({"messages": []})).await;
    assert_eq!(refused.status, 400);
    insta::assert_snapshot!("messages_error", steady(&refused.json()["error"].to_string()));
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let server = server();
    let reply = server.post("/v1/moderations", &json!({"input": "x"})).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-should-retry")), (501, "false"));
    let document = server.get("/openapi.json").await.json();
    assert!(document["paths"].as_object().unwrap().len() >= 20);
    assert_eq!(document["openapi"], "3.1.0");
}

fn calling() -> support::Server {
    support::Setup {
        script: std::sync::Arc::new(|submitted, _| {
            support::answer(submitted, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Lima\"}}");
        }),
        ..support::Setup::default()
    }
    .start()
}

#[tokio::test]
async fn tools_are_called_in_every_shape() {
    let server = calling();
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let function = json!({"name": "weather", "description": "d", "parameters": schema.clone()});
    let mut chat = json!({
        "messages": [{"role": "user", "content": "Hi"}], "tool_choice": "required",
        "tools": [{"type": "function", "function": function}],
    });
    let reply = server.post("/v1/chat/completions", &chat).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    insta::assert_snapshot!("chat_calls", shown(&reply.json()["choices"]));
    chat["stream"] = json!(true);
    insta::assert_snapshot!("chat_calls_stream", steady(&server.post("/v1/chat/completions", &chat).await.text()));
    let mut messages = json!({
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 90, "tool_choice": {"type": "any"},
        "tools": [{"name": "weather", "input_schema": schema}],
    });
    insta::assert_snapshot!("messages_calls", shown(&server.post("/v1/messages", &messages).await.json()));
    messages["stream"] = json!(true);
    insta::assert_snapshot!("messages_calls_stream", steady(&server.post("/v1/messages", &messages).await.text()));
    let mut response = json!({
        "input": "Hi", "tools": [{"type": "function", "name": "weather", "parameters": schema, "strict": true}],
    });
    let whole = server.post("/v1/responses", &response).await.json();
    insta::assert_snapshot!("response_calls", shown(&whole["output"]));
    let next = json!({"previous_response_id": whole["id"], "input": [
        {"type": "function_call_output", "call_id": whole["output"][0]["call_id"], "output": "sunny"}]});
    assert_eq!(server.post("/v1/responses", &next).await.status, 200);
    response["stream"] = json!(true);
    insta::assert_snapshot!("response_calls_stream", steady(&server.post("/v1/responses", &response).await.text()));
}

#[tokio::test]
async fn what_tools_can_not_be_is_named() {
    let server = server();
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let user = json!([{"role": "user", "content": "x"}]);
    for (param, tools, choice) in [
        ("tools[0].function.name", json!([tool("a b")]), json!("auto")),
        ("tools[1].function.name", json!([tool("a"), tool("a")]), json!("auto")),
        ("tools[0].type", json!([{"type": "custom", "custom": {"name": "a"}}]), json!("auto")),
        ("tool_choice", json!([]), json!("required")),
        ("tool_choice", json!([tool("a")]), json!({"type": "function", "function": {"name": "b"}})),
        ("tool_choice", json!([tool("a")]), json!("sometimes")),
        (
            "tools",
            json!([{"type": "function", "function": {"name": "a", "strict": true, "parameters": {"not": {}}}}]),
            json!("auto"),
        ),
    ] {
        let body = json!({"messages": user, "tools": tools, "tool_choice": choice});
        let reply = server.post("/v1/chat/completions", &body).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.text());
    }
    let body =
        json!({"messages": user, "response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}});
    let reply = server.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.json()["error"]["param"], "response_format.json_schema.schema");
}
