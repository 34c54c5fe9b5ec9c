//! What is kept between requests, and across the end of a process.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::Request;
use engine::service::{Channel, Event, Token};
use serde_json::{Value, json};
use server::app::Phase;
use server::serve::{Outcome, Run, serve};
use server::{Clock, Options, Store, batch};
use support::{KEYS, Server, Setup, answer, server, server_with_keys, shown, steady};

#[tokio::test]
async fn responses_go_on_from_each_other() {
    let server = server();
    let first = server
        .post("/v1/responses", &json!({"input": "one", "instructions": "be brief", "metadata": {"a": "b"}}))
        .await;
    assert_eq!(first.status, 200, "{}", first.text());
    insta::assert_snapshot!("response", shown(&first.json()));
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/v1/responses/{id}")).await.json(), first.json());
    let body = json!({"input": "two", "previous_response_id": id, "max_output_tokens": 3});
    let second = server.post("/v1/responses", &body).await.json();
    assert_eq!(second["status"], "incomplete");
    assert_eq!(second["incomplete_details"]["reason"], "max_output_tokens");
    let text = server.last_prompt();
    assert!(text.contains("one") && text.contains("Hello, you!") && text.contains("two"), "{text}");
    assert!(!text.contains("be brief"), "instructions do not go on: {text}");
    let third = json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "three"}]}],
                       "previous_response_id": second["id"], "store": false});
    let third = server.post("/v1/responses", &third).await.json();
    let text = server.last_prompt();
    let order: Vec<usize> =
        ["one", "Hello, you!", "two", "Hel", "three"].iter().map(|part| text.rfind(part).unwrap()).collect();
    assert!(order[0] < order[1] && order[2] < order[4], "{text}");
    assert_eq!(server.get(&format!("/v1/responses/{}", third["id"].as_str().unwrap())).await.status, 404, "not kept");
    let items = server.get(&format!("/v1/responses/{id}/input_items")).await.json();
    assert_eq!(
        (items["data"][0]["role"].as_str(), items["data"][0]["content"][0]["text"].as_str()),
        (Some("user"), Some("one"))
    );
    let gone = server.send(Request::delete(format!("/v1/responses/{id}")).body(Body::empty()).unwrap()).await;
    assert_eq!(gone.json(), json!({"id": id, "object": "response", "deleted": true}));
    assert_eq!(server.get(&format!("/v1/responses/{id}")).await.status, 404);
    let body = json!({"input": "x", "previous_response_id": id});
    assert_eq!(server.post("/v1/responses", &body).await.status, 404);
}

#[tokio::test]
async fn a_response_is_streamed_as_events_and_kept() {
    let server = server();
    let reply = server.post("/v1/responses", &json!({"input": "one", "stream": true})).await;
    insta::assert_snapshot!("response_stream", steady(&reply.text()));
    let text = reply.text();
    let last = text.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    let last: Value = serde_json::from_str(&last[6..]).unwrap();
    assert_eq!(last["type"], "response.completed");
    let kept = server.get(&format!("/v1/responses/{}", last["response"]["id"].as_str().unwrap())).await;
    assert_eq!(kept.json(), last["response"]);
}

#[tokio::test]
async fn nobody_sees_what_another_keeps() {
    let server = server_with_keys();
    let made = server.call(KEYS[0], "POST", "/v1/responses", json!({"input": "one"})).await.json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    assert_eq!(server.call(KEYS[1], "GET", &path, Value::Null).await.status, 404);
    assert_eq!(server.call(KEYS[1], "DELETE", &path, Value::Null).await.status, 404);
    let body = json!({"input": "x", "previous_response_id": made["id"]});
    assert_eq!(server.call(KEYS[1], "POST", "/v1/responses", body).await.status, 404);
    assert_eq!(server.call(KEYS[0], "GET", &path, Value::Null).await.status, 200);
}

fn form(purpose: &str, content: &str) -> Request<Body> {
    let body = format!(
        "--B\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--B\r\ncontent-disposition: \
         form-data; name=\"file\"; filename=\"in.jsonl\"\r\ncontent-type: application/jsonl\r\n\r\n{content}\r\n--B--\r\n"
    );
    Request::post("/v1/files").header("content-type", "multipart/form-data; boundary=B").body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn files_are_kept_listed_read_and_taken_away() {
    let server = server();
    let file = server.send(form("user_data", "a\nb")).await;
    assert_eq!(file.status, 200, "{}", file.text());
    insta::assert_snapshot!("file", shown(&file.json()));
    let id = file.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/v1/files/{id}")).await.json(), file.json());
    assert_eq!(server.get(&format!("/v1/files/{id}/content")).await.body, b"a\nb");
    assert_eq!(server.get("/v1/files?purpose=user_data").await.json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/files?purpose=batch").await.json()["data"].as_array().unwrap().len(), 0);
    assert_eq!(server.send(form("nonsense", "a")).await.status, 400);
    let gone = server.send(Request::delete(format!("/v1/files/{id}")).body(Body::empty()).unwrap()).await;
    assert_eq!(gone.json(), json!({"id": id, "object": "file", "deleted": true}));
    assert_eq!(server.get(&format!("/v1/files/{id}/content")).await.status, 404);
}

fn lines(n: usize) -> String {
    let line = |i: usize| {
        json!({"custom_id": format!("r{i}"), "method": "POST", "url": "/v1/completions", "body": {
            "prompt": format!("p{i}"), "max_tokens": if i % 5 == 4 { 9999 } else { 2 }}})
        .to_string()
    };
    (0..n).map(line).collect::<Vec<_>>().join("\n")
}

async fn start(server: &Server, n: usize) -> String {
    let file = server.send(form("batch", &lines(n))).await.json();
    let body = json!({"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"});
    let batch = server.post("/v1/batches", &body).await;
    assert_eq!(batch.status, 200, "{}", batch.text());
    batch.json()["id"].as_str().unwrap().to_owned()
}

async fn ended(server: &Server, id: &str) -> Value {
    for _ in 0..10_000 {
        let batch = server.get(&format!("/v1/batches/{id}")).await.json();
        if batch["status"] != "in_progress" && batch["status"] != "cancelling" {
            return batch;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("the batch never ended");
}

async fn output(server: &Server, id: &Value) -> Vec<Value> {
    let text = server.get(&format!("/v1/files/{}/content", id.as_str().unwrap())).await.text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_batch_is_worked_off() {
    let server = server();
    tokio::spawn(batch::work(server.app.clone()));
    let id = start(&server, 20).await;
    let batch = ended(&server, &id).await;
    assert_eq!(batch["status"], "completed");
    assert_eq!(batch["request_counts"], json!({"total": 20, "completed": 16, "failed": 4}));
    let answers = output(&server, &batch["output_file_id"]).await;
    assert_eq!(answers.len(), 16);
    assert!(answers.iter().all(|answer| answer["response"]["body"]["choices"][0]["text"] == "He"));
    let errors = output(&server, &batch["error_file_id"]).await;
    assert_eq!((errors.len(), &errors[0]["response"]["status_code"]), (4, &json!(400)));
    assert_eq!(server.get("/v1/batches").await.json()["data"].as_array().unwrap().len(), 1);
    let cancel = server.post(&format!("/v1/batches/{id}/cancel"), &json!({})).await;
    assert_eq!(cancel.status, 409, "it has ended");
    let bad = server.send(form("batch", "{\"custom_id\": \"a\"}")).await.json();
    let body = json!({"input_file_id": bad["id"], "endpoint": "/v1/completions", "completion_window": "24h"});
    let refused = server.post("/v1/batches", &body).await;
    assert!(refused.status == 400 && refused.text().contains("line 1: method is required"), "{}", refused.text());
}

/// F6, for what ends by the time of day: a day's batch outlives jumps of an hour.
#[tokio::test]
async fn a_batch_does_not_notice_that_the_clock_is_set() {
    let (clock, n_jumps) = (Clock::default(), Arc::new(AtomicUsize::new(0)));
    let (set, counted) = (clock.clone(), Arc::clone(&n_jumps));
    let script: support::Script = Arc::new(move |submitted, _| {
        let is_even = counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        set.set(if is_even { 3600 } else { -3600 });
        answer(submitted, "x");
    });
    let server = Setup { options: Options { clock, ..Options::default() }, script, ..Setup::default() }.start();
    tokio::spawn(batch::work(server.app.clone()));
    let id = start(&server, 20).await;
    let batch = ended(&server, &id).await;
    assert_eq!((&batch["status"], &batch["request_counts"]["completed"]), (&json!("completed"), &json!(16)));
    println!("{} jumps of the clock, no line lost", n_jumps.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_batch_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let n_answered = Arc::new(AtomicUsize::new(0));
    let setup = |limit: usize| {
        let counted = Arc::clone(&n_answered);
        Setup {
            store: Store::open(&path).unwrap(),
            script: Arc::new(move |submitted, _| {
                // After so many, this process answers nothing more.
                if counted.fetch_add(1, Ordering::SeqCst) >= limit {
                    loop {
                        std::thread::park();
                    }
                }
                answer(submitted, "ok");
            }),
            ..Setup::default()
        }
    };
    let first = setup(7).start();
    let worker = tokio::spawn(batch::work(first.app.clone()));
    let id = start(&first, 20).await;
    let app = first.app.clone();
    support::until("seven answers are kept", || app.store().lines(&id).unwrap().len() >= 7).await;
    app.set_phase(Phase::Ending);
    worker.abort();
    let _ = worker.await;
    // The process dies: what it holds of the file is let go.
    drop(app);
    let router = first.router;
    drop((router, first.app));
    let store = loop {
        match Store::open(&path) {
            Ok(store) => break store,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    };
    let kept: Vec<Value> =
        store.lines(&id).unwrap().iter().map(|(_, line)| serde_json::from_slice(line).unwrap()).collect();
    let n_good = kept.iter().filter(|done| done["status"] == 200).count();
    drop(store);
    let second = setup(usize::MAX).start();
    tokio::spawn(batch::work(second.app.clone()));
    let batch = ended(&second, &id).await;
    assert_eq!((&batch["status"], &batch["request_counts"]["total"]), (&json!("completed"), &json!(20)));
    assert_eq!(batch["request_counts"]["completed"], 16);
    assert_eq!(second.jobs.lock().unwrap().len(), 16 - n_good, "what was answered is not asked again");
    println!("{} of 20 answers were there before the restart", kept.len());
}

/// What is told of an answer that has begun.
fn begun() -> [Event; 2] {
    let (text, channel) = ("a".to_owned(), Channel::Content);
    let token = Token { id: 97, text, logprob: -1.0, alternatives: Vec::new(), channel, is_forced: false };
    [Event::Started { n_prompt: 2, n_cached: 0, n_stored: 0 }, Event::Token { sample: 0, token }]
}

/// A batch that runs when the server is told to end: nothing of it fails, what can be answered in time is, and the next
/// process goes on with the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_outlives_a_server_that_is_told_to_end() {
    for (is_answered, n_kept) in [(true, 4), (false, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let script: support::Script = Arc::new(move |submitted, handle| {
            for event in begun() {
                submitted.events.blocking_send(event).unwrap();
            }
            support::hold(|| submitted.events.is_closed() || (is_answered && handle.is_draining()));
            if is_answered {
                answer(submitted, "ok");
            }
        });
        let first = Setup { store: Store::open(&path).unwrap(), script, ..Setup::default() }.start();
        let id = start(&first, 8).await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Whoever answers has as long as it takes, who does not is not waited for.
        let drain = std::time::Duration::from_millis(if is_answered { 60_000 } else { 20 });
        let run = Run { listener, tls: None, drain, status: None };
        let (stop, stops) = tokio::sync::mpsc::channel(2);
        let app = first.app.clone();
        let serving = tokio::spawn(async move { serve(&app, run, stops, || true).await });
        // What has not begun is not waited for, so it has to be seen.
        let all_run = async || first.get("/metrics").await.text().contains("puna_first_token_seconds_count 4\n");
        support::until_async("four run", all_run).await;
        stop.send(()).await.unwrap();
        assert_eq!(serving.await.unwrap().unwrap(), Outcome::Drained);
        drop(first);
        let store = loop {
            match Store::open(&path) {
                Ok(store) => break store,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            }
        };
        let kept: Vec<Value> =
            store.lines(&id).unwrap().iter().map(|(_, line)| serde_json::from_slice(line).unwrap()).collect();
        assert!(kept.iter().all(|done| done["status"] == 200), "{kept:?}");
        assert_eq!(kept.len(), n_kept);
        let second = Setup { store, ..Setup::default() }.start();
        let shown = second.get(&format!("/v1/batches/{id}")).await.json();
        assert_eq!((&shown["status"], &shown["request_counts"]["completed"]), (&json!("in_progress"), &json!(n_kept)));
        tokio::spawn(batch::work(second.app.clone()));
        let batch = ended(&second, &id).await;
        assert_eq!(batch["status"], "completed");
        assert_eq!(batch["request_counts"], json!({"total": 8, "completed": 7, "failed": 1}));
        assert_eq!(second.jobs.lock().unwrap().len(), 7 - n_kept, "what was answered is not asked again");
    }
}

/// An engine that takes nothing more, before the server has noticed, does not end a batch.
#[tokio::test]
async fn a_batch_does_not_expire_because_the_engine_has_ended() {
    let server = server();
    server.app.model().handle.drain();
    let id = start(&server, 3).await;
    let mut work = Box::pin(batch::work(server.app.clone()));
    // Asked until it waits for something that does not come by itself: it has done all that it can.
    let quiet = std::time::Duration::from_millis(500);
    assert!(tokio::time::timeout(quiet, &mut work).await.is_err(), "it waits for more batches");
    assert_eq!(server.get(&format!("/v1/batches/{id}")).await.json()["status"], "in_progress");
    server.app.set_phase(Phase::Draining);
    server.app.batches().notify_one();
    work.await;
}

#[tokio::test]
async fn a_batch_is_cancelled() {
    let setup = Setup {
        script: Arc::new(|submitted, handle| {
            support::hold(|| handle.is_draining());
            answer(submitted, "ok");
        }),
        ..Setup::default()
    };
    let server = setup.start();
    let id = start(&server, 20).await;
    assert_eq!(server.post(&format!("/v1/batches/{id}/cancel"), &json!({})).await.json()["status"], "cancelling");
    tokio::spawn(batch::work(server.app.clone()));
    let batch = ended(&server, &id).await;
    assert_eq!((&batch["status"], &batch["request_counts"]["completed"]), (&json!("cancelled"), &json!(0)));
}
