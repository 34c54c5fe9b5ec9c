//! Chat completions that are stored, and what becomes of responses after they were asked for.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use server::store::Kind;
use server::{Caller, Clock, Options};
use support::{KEYS, Server, Setup, answer, server, server_with_keys};

async fn delete(server: &Server, path: &str) -> support::Reply {
    server.send(Request::delete(path).body(Body::empty()).unwrap()).await
}

async fn chat(server: &Server, text: &str, more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": text}], "store": true});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = server.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn names(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn completions_are_stored_only_if_that_is_asked() {
    let server = server();
    for more in [json!({"store": false}), json!({"store": null})] {
        let made = chat(&server, "one", more).await;
        let path = format!("/v1/chat/completions/{}", made["id"].as_str().unwrap());
        assert_eq!(server.get(&path).await.status, 404);
    }
    assert_eq!(server.get("/v1/chat/completions").await.json()["data"], json!([]));
    let made = chat(&server, "one", json!({"temperature": 0.5, "metadata": {"a": "b"}, "user": "me"})).await;
    let path = format!("/v1/chat/completions/{}", made["id"].as_str().unwrap());
    let shown = server.get(&path).await.json();
    for (field, value) in made.as_object().unwrap() {
        assert_eq!(shown[field], *value, "{field} is as it was answered");
    }
    assert_eq!((&shown["metadata"], &shown["temperature"]), (&json!({"a": "b"}), &json!(0.5)));
    assert_eq!((&shown["input_user"], &shown["top_p"]), (&json!("me"), &Value::Null));
    let gone = delete(&server, &path).await;
    let want = json!({"id": made["id"], "object": "chat.completion.deleted", "deleted": true});
    assert_eq!(gone.json(), want);
    for reply in [delete(&server, &path).await, server.get(&path).await, server.post(&path, &json!({})).await] {
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (404, &json!("not_found")));
    }
}

#[tokio::test]
async fn a_stream_is_stored_as_a_whole_answer() {
    let server = server();
    let body =
        json!({"messages": [{"role": "user", "content": "one"}], "store": true, "stream": true, "logprobs": true});
    let reply = server.post("/v1/chat/completions", &body).await.text();
    let first: Value = serde_json::from_str(reply.lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    let stored = server.get(&format!("/v1/chat/completions/{}", first["id"].as_str().unwrap())).await.json();
    let whole = chat(&server, "one", json!({"logprobs": true})).await;
    assert_eq!((&stored["choices"], &stored["usage"]), (&whole["choices"], &whole["usage"]));
    assert_eq!(stored["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), support::ANSWER.len());
}

#[tokio::test]
async fn stored_completions_are_listed_by_model_metadata_and_order() {
    let server = server();
    let mut made = Vec::new();
    for (text, metadata) in [("1", json!({"a": "x"})), ("2", json!({"a": "x", "b": "y"})), ("3", json!({"b": "y"}))] {
        made.push(chat(&server, text, json!({"metadata": metadata})).await["id"].as_str().unwrap().to_owned());
    }
    for (query, want, has_more) in [
        ("".to_owned(), vec![0, 1, 2], false),
        ("?order=desc&limit=2".into(), vec![2, 1], true),
        (format!("?after={}", made[0]), vec![1, 2], false),
        ("?limit=0".into(), vec![], true),
        ("?metadata[a]=x".into(), vec![0, 1], false),
        ("?metadata%5Ba%5D=x&metadata%5Bb%5D=y&limit=1".into(), vec![1], false),
        ("?metadata[a]=z".into(), vec![], false),
        ("?model=toy".into(), vec![0, 1, 2], false),
        ("?model=another".into(), vec![], false),
    ] {
        let list = server.get(&format!("/v1/chat/completions{query}")).await.json();
        let want: Vec<&str> = want.into_iter().map(|index: usize| made[index].as_str()).collect();
        assert_eq!((names(&list), &list["has_more"]), (want, &json!(has_more)), "{query}");
    }
    for (query, status) in [("?limit=101", 400), ("?limit=-1", 400), ("?order=up", 400), ("?after=nothing", 404)] {
        assert_eq!(server.get(&format!("/v1/chat/completions{query}")).await.status, status, "{query}");
    }
    let path = format!("/v1/chat/completions/{}", made[0]);
    assert_eq!(server.post(&path, &json!({"metadata": {"a": 3}})).await.status, 400);
    let changed = server.post(&path, &json!({"metadata": {"c": "d"}})).await.json();
    assert_eq!(changed["metadata"], json!({"c": "d"}));
    assert_eq!(server.get(&path).await.json(), changed);
    assert_eq!(names(&server.get("/v1/chat/completions").await.json()), made, "it keeps its place");
}

#[tokio::test]
async fn messages_of_a_stored_completion_are_listed() {
    let server = server();
    let messages = json!([
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "on"}, {"type": "text", "text": "e"}]},
    ]);
    let made = chat(&server, "", json!({"messages": messages})).await;
    let path = format!("/v1/chat/completions/{}/messages", made["id"].as_str().unwrap());
    let list = server.get(&path).await.json();
    let [system, user] = list["data"].as_array().unwrap().as_slice() else { panic!("{list}") };
    let id = |index: usize| format!("{}-{index}", made["id"].as_str().unwrap());
    assert_eq!(*system, json!({"id": id(0), "role": "system", "content": "be brief", "content_parts": null}));
    let parts = &messages[1]["content"];
    assert_eq!(*user, json!({"id": id(1), "role": "user", "content": "one", "content_parts": parts}));
    assert_eq!(names(&server.get(&format!("{path}?order=desc&limit=1")).await.json()), [id(1)]);
    assert_eq!(names(&server.get(&format!("{path}?after={}", id(0))).await.json()), [id(1)]);
    assert_eq!(server.get(&format!("{path}?after=x")).await.status, 404);
}

#[tokio::test]
async fn nobody_sees_completions_of_another() {
    let server = server_with_keys();
    let body = json!({"messages": [{"role": "user", "content": "one"}], "store": true});
    let made = server.call(KEYS[0], "POST", "/v1/chat/completions", body).await.json();
    let path = format!("/v1/chat/completions/{}", made["id"].as_str().unwrap());
    for (method, path) in
        [("GET", path.clone()), ("POST", path.clone()), ("DELETE", path.clone()), ("GET", format!("{path}/messages"))]
    {
        assert_eq!(server.call(KEYS[1], method, &path, json!({})).await.status, 404, "{method}");
    }
    assert_eq!(server.call(KEYS[1], "GET", "/v1/chat/completions", json!({})).await.json()["data"], json!([]));
    assert_eq!(server.call(KEYS[0], "GET", &path, json!({})).await.status, 200);
}

/// A server whose engine answers when the flag is up.
fn waiting() -> (Server, Arc<AtomicBool>) {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    let script = move |submitted: engine::service::Submitted, _: &engine::service::Handle| {
        while !raised.load(Ordering::SeqCst) && !submitted.events.is_closed() {
            std::thread::sleep(Duration::from_millis(1));
        }
        answer(submitted, support::ANSWER);
    };
    (Setup { script: Arc::new(script), ..Setup::default() }.start(), flag)
}

async fn begin(server: &Server) -> (Value, String) {
    let made = server.post("/v1/responses", &json!({"input": "one", "background": true})).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let made = made.json();
    assert_eq!((&made["status"], &made["background"]), (&json!("in_progress"), &json!(true)));
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    (made, path)
}

#[tokio::test]
async fn a_response_is_made_in_the_background() {
    let (server, flag) = waiting();
    let (made, path) = begin(&server).await;
    assert_eq!(server.get(&path).await.json(), made, "kept from its beginning");
    let stream = format!("{path}?stream=true");
    let events = server.get(&stream);
    let raise = async { flag.store(true, Ordering::SeqCst) };
    let (events, ()) = tokio::join!(events, raise);
    assert!(events.text().contains("event: response.completed"), "whoever asks for events waits for them");
    let done = server.get(&path).await.json();
    assert_eq!((&done["status"], &done["id"]), (&json!("completed"), &made["id"]));
    assert_eq!(done["output"][0]["content"][0]["text"], support::ANSWER);
    let again = server.post(&format!("{path}/cancel"), &json!({})).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, done), "what is done stays as it is");
    for body in [json!({"store": false}), json!({"stream": true})] {
        let mut all = json!({"input": "x", "background": true});
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let refused = server.post("/v1/responses", &all).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]["param"]), (400, &json!("background")), "{body}");
    }
    let usual = server.post("/v1/responses", &json!({"input": "x"})).await.json();
    let path = format!("/v1/responses/{}/cancel", usual["id"].as_str().unwrap());
    assert_eq!(server.post(&path, &json!({})).await.status, 400, "it was not made in the background");
    assert_eq!(server.post("/v1/responses/resp_x/cancel", &json!({})).await.status, 404);
}

#[tokio::test]
async fn a_response_in_the_background_is_cancelled_and_deleted() {
    let (server, flag) = waiting();
    let (_, cancelled) = begin(&server).await;
    let (_, deleted) = begin(&server).await;
    let reply = server.post(&format!("{cancelled}/cancel"), &json!({})).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["status"]), (200, &json!("cancelled")));
    assert_eq!(delete(&server, &deleted).await.status, 200);
    // Both jobs are given up before anything is answered.
    let handle = server.app.model().handle.clone();
    support::until("both jobs are gone", || handle.n_jobs() == 0).await;
    flag.store(true, Ordering::SeqCst);
    let (_, third) = begin(&server).await;
    server.get(&format!("{third}?stream=true")).await;
    assert_eq!(server.get(&third).await.json()["status"], "completed");
    assert_eq!(server.get(&cancelled).await.json(), reply.json());
    assert_eq!(server.get(&deleted).await.status, 404);
}

#[tokio::test]
async fn a_response_that_was_cut_off_has_failed() {
    let (server, _) = waiting();
    let (mut made, path) = begin(&server).await;
    let id = made["id"].as_str().unwrap().to_owned();
    // What another process would find.
    let lost = "resp_lost";
    made["id"] = json!(lost);
    let kept = json!({"response": made, "input": [], "output": []});
    server.app.store().put(Kind::Response, Caller(0), (lost, &kept), 9).unwrap();
    let shown = server.get("/v1/responses/resp_lost").await.json();
    assert_eq!((&shown["status"], &shown["error"]["code"]), (&json!("failed"), &json!("server_error")));
    assert_eq!(server.get(&path).await.json()["status"], "in_progress", "{id} is still made");
}

fn events(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// Events with the pieces of each text in one, numbered anew.
fn joined(events: Vec<Value>) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for event in events {
        let is_piece = event["type"].as_str().unwrap().ends_with(".delta");
        match all.last_mut().filter(|last| is_piece && last["type"] == event["type"]) {
            Some(last) => {
                last["delta"] =
                    json!(format!("{}{}", last["delta"].as_str().unwrap(), event["delta"].as_str().unwrap()));
                if let Some(more) = event["logprobs"].as_array() {
                    last["logprobs"].as_array_mut().unwrap().extend(more.iter().cloned());
                }
            }
            None => all.push(event),
        }
    }
    (0..).zip(&mut all).for_each(|(number, event): (usize, _)| event["sequence_number"] = json!(number));
    all
}

#[tokio::test]
async fn kept_responses_are_told_again_as_they_were_streamed() {
    let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]);
    for (text, body) in [
        (support::ANSWER, json!({"input": "one", "include": ["message.output_text.logprobs"]})),
        (support::ANSWER, json!({"input": "one", "max_output_tokens": 3})),
        ("{\"name\": \"f\", \"parameters\": {}}", json!({"input": "one", "tools": tools})),
    ] {
        let script: support::Script = Arc::new(move |submitted, _| answer(submitted, text));
        let server = Setup { script, ..Setup::default() }.start();
        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        let live = events(&server.post("/v1/responses", &streamed).await.text());
        let id = live[0]["response"]["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/responses/{id}?stream=true");
        let again = events(&server.get(&path).await.text());
        let want = joined(live);
        assert_eq!(again.len(), want.len(), "{body}");
        for (again, want) in again.iter().zip(&want) {
            assert_eq!(again, want, "{body}");
        }
        let after = events(&server.get(&format!("{path}&starting_after=2")).await.text());
        assert_eq!(after, again[3..], "{body}");
        let include = format!("/v1/responses/{id}?include[]=file_search_call.results");
        assert_eq!(server.get(&include).await.status, 200);
        assert_eq!(server.get(&format!("{include}&include[]=x")).await.status, 400);
    }
}

#[tokio::test]
async fn conversations_are_compacted() {
    let server = server();
    let first = server.post("/v1/responses", &json!({"input": "the first thing"})).await.json();
    let body = json!({"previous_response_id": first["id"], "input": "and another", "instructions": "be brief"});
    let compacted = server.post("/v1/responses/compact", &body).await;
    assert_eq!(compacted.status, 200, "{}", compacted.text());
    let compacted = compacted.json();
    assert_eq!(
        (&compacted["object"], &compacted["output"][0]["type"]),
        (&json!("response.compaction"), &json!("compaction"))
    );
    let text = server.last_prompt();
    for part in ["be brief", "the first thing", support::ANSWER, "and another", "Summarise this conversation"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let mut input = compacted["output"].as_array().unwrap().clone();
    input.push(json!({"role": "user", "content": "go on"}));
    let next = server.post("/v1/responses", &json!({"input": input})).await;
    assert_eq!(next.status, 200, "{}", next.text());
    let text = server.last_prompt();
    assert!(text.contains(&format!("A summary of the conversation so far:\n\n{}", support::ANSWER)), "{text}");
    assert!(!text.contains("the first thing"), "{text}");
    let nothing = server.post("/v1/responses/compact", &json!({"model": "toy"})).await.json();
    assert_eq!((&nothing["output"], &nothing["usage"]["total_tokens"]), (&json!([]), &json!(0)));
    let foreign = json!({"input": [{"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAAA"}]});
    let refused = server.post("/v1/responses", &foreign).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["param"], "input[0].encrypted_content");
    let image = json!({"input": "x", "image": {"context_compression": "enabled"}});
    assert_eq!(server.post("/v1/responses/compact", &image).await.status, 400);
}

#[tokio::test]
async fn a_response_needs_no_input() {
    let server = server();
    let alone = server.post("/v1/responses", &json!({"instructions": "say hello"})).await;
    assert_eq!(alone.status, 200, "{}", alone.text());
    assert!(server.last_prompt().contains("say hello"));
    let id = alone.json()["id"].clone();
    let next = server.post("/v1/responses", &json!({"previous_response_id": id})).await;
    assert_eq!(next.status, 200, "{}", next.text());
    assert!(server.last_prompt().contains(support::ANSWER), "what was said goes on");
    let count = server.post("/v1/responses/input_tokens", &json!({})).await;
    let made = server.post("/v1/responses", &json!({})).await;
    assert_eq!((count.status.as_u16(), made.status.as_u16()), (200, 200));
    assert_eq!(count.json()["input_tokens"], made.json()["usage"]["input_tokens"]);
}

fn form(fields: &[(&str, &str)]) -> Request<Body> {
    let mut body = String::new();
    for (name, value) in [("purpose", "user_data"), ("file\"; filename=\"a", "abc")].iter().chain(fields) {
        body += &format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    let request = Request::post("/v1/files").header("content-type", "multipart/form-data; boundary=B");
    request.body(Body::from(body + "--B--\r\n")).unwrap()
}

#[tokio::test]
async fn files_expire() {
    let clock = Clock::default();
    let options = Options { clock: clock.clone(), ..Options::default() };
    let server = Setup { options, ..Setup::default() }.start();
    let expiry = |seconds: &'static str| [("expires_after[anchor]", "created_at"), ("expires_after[seconds]", seconds)];
    let file = server.send(form(&expiry("3600"))).await;
    assert_eq!(file.status, 200, "{}", file.text());
    let file = file.json();
    assert_eq!(file["expires_at"], json!(file["created_at"].as_u64().unwrap() + 3600));
    for seconds in ["3599", "2592001", "x", "-1", ""] {
        let refused = server.send(form(&expiry(seconds))).await;
        let param = refused.json()["error"]["param"].clone();
        assert_eq!((refused.status.as_u16(), param), (400, json!("expires_after.seconds")), "{seconds}");
    }
    for half in [0, 1] {
        assert_eq!(server.send(form(&expiry("3600")[half..=half])).await.status, 400);
    }
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.status, 200);
    clock.set(3600);
    for path in [path.clone(), format!("{path}/content")] {
        assert_eq!(server.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(server.get("/v1/files").await.json()["data"], json!([]));
    assert_eq!(server.app.store().files_bytes().unwrap(), 3);
    assert_eq!(server.send(form(&[])).await.status, 200);
    assert_eq!(server.app.store().files_bytes().unwrap(), 3, "its room was taken again");
}
