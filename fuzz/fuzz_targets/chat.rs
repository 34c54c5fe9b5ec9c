//! Any body of a chat request has an answer, or a refusal that is the sender's.
#![no_main]

use std::sync::LazyLock;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use serde_json::Value;
use tower::ServiceExt;

#[path = "../../crates/server/tests/support/mod.rs"]
mod support;

const MOST_BYTES: usize = 16 << 20;

static SERVER: LazyLock<(support::Server, tokio::runtime::Runtime)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _guard = runtime.enter();
    (support::Setup { thinks: Some(false), ..Default::default() }.start(), runtime)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (server, runtime) = &*SERVER;
    let request = Request::post("/v1/chat/completions")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(data.to_vec()))
        .expect("a request");
    let (status, body) = runtime.block_on(async {
        let answer = server.router.clone().oneshot(request).await.expect("an answer");
        (answer.status(), to_bytes(answer.into_body(), MOST_BYTES).await.expect("a body"))
    });
    server.jobs.lock().expect("nobody panicked").clear();
    assert!(!status.is_server_error(), "{status}: {}", String::from_utf8_lossy(&body));
    if status.is_client_error() {
        let value: Value = serde_json::from_slice(&body).expect("an error is JSON");
        assert!(value["error"]["message"].is_string(), "{value}");
    }
});
