//! Real sockets: draining, standing still, panics, slow and crooked clients.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use engine::service::{Channel, Event, Finish, Task, Token, Usage};
use server::serve::Outcome;
use server::{Clock, Limits, Options};
use support::{Setup, answer, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes and reads until the other end closes.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

const READY: &[u8] = b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn chat(stream: bool, max_tokens: usize) -> Vec<u8> {
    let body = format!(
        "{{\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],\"stream\":{stream},\"max_tokens\":{max_tokens}}}"
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Tokens until the receiver is gone or `stop` says so; the server is told to end by its own side.
fn endless(submitted: engine::service::Submitted, stop: &dyn Fn() -> bool) {
    let engine::service::Submitted { job, events, place, .. } = submitted;
    let n_prompt = support::n_prompt(&job);
    let mut usage = Usage { n_prompt, ..Usage::default() };
    let _ = events.blocking_send(Event::Started { n_prompt, n_cached: 0, n_stored: 0 });
    let token = || Token {
        id: 97,
        text: "a".into(),
        logprob: -1.0,
        alternatives: Vec::new(),
        channel: Channel::Content,
        is_forced: false,
    };
    while !stop() {
        usage.n_completion += 1;
        if events.blocking_send(Event::Token { sample: 0, token: token() }).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let finish = Finish::EndToken(0);
    let _ = events.blocking_send(Event::SampleFinished {
        sample: 0,
        finish,
        tail: String::new(),
        channel: Channel::Content,
    });
    let _ = events.blocking_send(Event::Finished(usage));
    drop(place);
}

/// How many ends a stream has.
fn n_ends(stream: &str) -> usize {
    stream.matches("\"finish_reason\":\"").count() + stream.matches("\"error\":{").count()
}

/// F4: told to end at some point, each stream ends with an answer's end or an error, and the process in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_every_stream_has_its_end() {
    const ROUNDS: usize = 10;
    let (mut n_finished, mut n_errors) = (0, 0);
    for round in 0..ROUNDS {
        // In every second round the engine ends its answers when it is told to drain.
        let script: support::Script = if round % 2 == 0 {
            Arc::new(|submitted, handle| endless(submitted, &|| handle.is_draining()))
        } else {
            Arc::new(|submitted, _| endless(submitted, &|| false))
        };
        let running = run(Setup { script, ..Setup::default() }, Duration::from_millis(200));
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let request = chat(client % 2 == 0, 4000);
                tokio::spawn(async move { exchange(running.address, &request).await })
            })
            .collect();
        let app = running.server.app.clone();
        support::until("all run", || app.model().handle.n_jobs() == 8).await;
        tokio::time::sleep(Duration::from_millis(3 * round as u64)).await;
        running.stop.send(()).await.unwrap();
        assert_eq!(running.ended.await.unwrap().unwrap(), Outcome::Drained);
        for client in clients {
            let text = client.await.unwrap();
            assert_eq!(n_ends(&text), 1, "round {round}: {text}");
            assert!(!text.contains("event-stream") || text.contains("data: [DONE]"), "{text}");
            if text.contains("\"error\":{") { n_errors += 1 } else { n_finished += 1 }
        }
    }
    println!("{ROUNDS} ends under load: {n_finished} answers finished, {n_errors} ended with an error");
    assert!(n_finished >= 8 && n_errors >= 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_twice_the_process_ends_at_once() {
    let script: support::Script = Arc::new(|submitted, _| endless(submitted, &|| false));
    let running = run(Setup { script, ..Setup::default() }, Duration::from_secs(3600));
    let mut client = TcpStream::connect(running.address).await.unwrap();
    client.write_all(&chat(true, 4000)).await.unwrap();
    // A request that still waits is ended by the first word; this one has to run.
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\"content\":\"a") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
    }
    running.stop.send(()).await.unwrap();
    running.stop.send(()).await.unwrap();
    assert_eq!(running.ended.await.unwrap().unwrap(), Outcome::Drained);
    client.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(n_ends(&text) == 1 && text.contains("shutting_down"), "{text}");
}

/// F5, scaled by 100: an engine that stands still is not ready, then the process ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_stands_still_is_noticed() {
    let limits = Limits {
        unready_time: Duration::from_millis(100),
        stuck_time: Duration::from_millis(600),
        ..Limits::default()
    };
    let options = Options { limits, ..Options::default() };
    let script: support::Script = Arc::new(|submitted, _| {
        let _held = submitted;
        loop {
            std::thread::park();
        }
    });
    let running = run(Setup { options, script, ..Setup::default() }, Duration::from_secs(1));
    assert!(exchange(running.address, READY).await.starts_with("HTTP/1.1 200"));
    let client = tokio::spawn(async move { exchange(running.address, &chat(true, 4)).await });
    let app = running.server.app.clone();
    support::until("it is asked", || app.model().handle.n_jobs() == 1).await;
    support::until("it is unready", || app.progress() >= app.limits().unready_time).await;
    let text = exchange(running.address, READY).await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("stalled"), "{text}");
    assert_eq!(running.ended.await.unwrap().unwrap(), Outcome::Stuck);
    assert_eq!(n_ends(&client.await.unwrap()), 1);
}

/// F6. Mutation: a deadline by the time of day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_do_not_notice_that_the_clock_is_set() {
    const JUMPS: usize = 20;
    let (clock, is_over) = (Clock::default(), Arc::new(AtomicBool::new(false)));
    let n_tokens = Arc::new(AtomicUsize::new(0));
    let (told, counted) = (Arc::clone(&is_over), Arc::clone(&n_tokens));
    let script: support::Script = Arc::new(move |submitted, _| {
        endless(submitted, &|| {
            counted.fetch_add(1, Ordering::Relaxed);
            told.load(Ordering::Relaxed)
        });
    });
    let options = Options { clock: clock.clone(), ..Options::default() };
    let running = run(Setup { options, script, ..Setup::default() }, Duration::from_secs(1));
    let streams: Vec<_> =
        (0..8).map(|_| tokio::spawn(async move { exchange(running.address, &chat(true, 4000)).await })).collect();
    let app = running.server.app.clone();
    support::until("all run", || app.model().handle.n_jobs() == 8).await;
    for jump in 0..JUMPS {
        clock.set(if jump % 2 == 0 { 3600 } else { -3600 });
        let before = n_tokens.load(Ordering::Relaxed);
        support::until("streams go on", || n_tokens.load(Ordering::Relaxed) > before + 64).await;
        assert!(exchange(running.address, READY).await.starts_with("HTTP/1.1 200"), "jump {jump}");
        assert_eq!(app.model().handle.n_jobs(), 8, "jump {jump}");
    }
    is_over.store(true, Ordering::Relaxed);
    for stream in streams {
        let text = stream.await.unwrap();
        assert!(n_ends(&text) == 1 && text.contains("\"finish_reason\":\"stop\""), "{text}");
    }
    running.stop.send(()).await.unwrap();
    assert_eq!(running.ended.await.unwrap().unwrap(), Outcome::Drained);
    println!("{JUMPS} jumps of the clock, {} tokens, 8 streams ended as they should", n_tokens.load(Ordering::Relaxed));
}

#[tokio::test]
async fn who_waits_too_long_is_told_so() {
    let limits = Limits { queue_time: Duration::from_millis(50), ..Limits::default() };
    let script: support::Script = Arc::new(|submitted, _| {
        let _held = submitted;
        loop {
            std::thread::park();
        }
    });
    let server = Setup { options: Options { limits, ..Options::default() }, script, ..Setup::default() }.start();
    let body = serde_json::json!({"messages": [{"role": "user", "content": "x"}]});
    let reply = server.post("/v1/chat/completions", &body).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (503, &"queue_timeout".into()));
    assert_eq!(reply.header("retry-after"), "10");
}

#[tokio::test]
async fn what_is_too_much_is_refused_at_once() {
    let held = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&held);
    let script: support::Script = Arc::new(move |submitted, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        let _held = submitted;
        loop {
            std::thread::park();
        }
    });
    let mut setup = Setup { script, ..Setup::default() };
    setup.admission.jobs_per_key = 3;
    let server = Arc::new(setup.start());
    let body = serde_json::json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1});
    for _ in 0..3 {
        let (server, body) = (Arc::clone(&server), body.clone());
        tokio::spawn(async move { server.post("/v1/chat/completions", &body).await });
    }
    support::until("three run", || held.load(Ordering::SeqCst) == 3).await;
    let reply = server.post("/v1/chat/completions", &body).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, "2"));
    assert_eq!(reply.json()["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn a_stream_that_waits_says_so_and_a_client_that_leaves_frees_its_place() {
    let limits = Limits { comment_time: Duration::from_millis(20), ..Limits::default() };
    let script: support::Script = Arc::new(|submitted, _| {
        let _ = submitted.events.blocking_send(Event::Started { n_prompt: 1, n_cached: 0, n_stored: 0 });
        while !submitted.events.is_closed() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let running =
        run(Setup { options: Options { limits, ..Options::default() }, script, ..Setup::default() }, Duration::ZERO);
    for is_stream in [true, false] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&chat(is_stream, 4)).await.unwrap();
        let app = running.server.app.clone();
        support::until("it runs", || app.model().handle.n_jobs() == 1).await;
        let mut text = String::new();
        while is_stream && text.matches(": waiting\n\n").count() < 2 {
            let mut bytes = [0; 1024];
            let n = stream.read(&mut bytes).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
        drop(stream);
        support::until("its place is free", || app.model().handle.n_jobs() == 0).await;
    }
}

/// C2: who reads nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_left() {
    let limits = Limits { stall_time: Duration::from_millis(100), ..Limits::default() };
    let script: support::Script = Arc::new(|submitted, _| {
        let Task::Generate { .. } = &submitted.job.task else { panic!("an answer") };
        let text = "a".repeat(1 << 16);
        let _ = submitted.events.blocking_send(Event::Started { n_prompt: 1, n_cached: 0, n_stored: 0 });
        let token = Token {
            id: 97,
            text,
            logprob: -1.0,
            alternatives: Vec::new(),
            channel: Channel::Content,
            is_forced: false,
        };
        while submitted.events.blocking_send(Event::Token { sample: 0, token: token.clone() }).is_ok() {}
    });
    let running =
        run(Setup { options: Options { limits, ..Options::default() }, script, ..Setup::default() }, Duration::ZERO);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&chat(true, 4000)).await.unwrap();
        clients.push(stream);
    }
    let app = running.server.app.clone();
    support::until("they run", || app.model().handle.n_jobs() > 0).await;
    support::until("they are left", || app.model().handle.n_jobs() == 0).await;
    println!("{} clients that read nothing were left", clients.len());
}

/// H7: heads and bodies that come too slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_closed_in_time() {
    let limits =
        Limits { head_time: Duration::from_millis(100), body_time: Duration::from_millis(100), ..Limits::default() };
    let running = run(Setup { options: Options { limits, ..Options::default() }, ..Setup::default() }, Duration::ZERO);
    let head =
        b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let slow: Vec<_> = (0..40)
        .map(|client| {
            let sent = if client % 2 == 0 { &head[..20] } else { &head[..] };
            tokio::spawn(async move { exchange(running.address, sent).await })
        })
        .collect();
    let quick = exchange(running.address, &chat(false, 3)).await;
    assert!(quick.contains("\"content\":\"Hel\""), "{quick}");
    let (mut n_closed, mut n_timeouts) = (0, 0);
    for client in slow {
        let text = client.await.unwrap();
        n_closed += 1;
        n_timeouts += usize::from(text.starts_with("HTTP/1.1 408"));
    }
    println!("{n_closed} slow clients closed, {n_timeouts} with 408");
    assert_eq!((n_closed, n_timeouts), (40, 20));
}

/// H8: requests that two programs could read differently. What follows in the same bytes is never answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_hides_in_another() {
    let running = run(Setup::default(), Duration::ZERO);
    let hidden = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let start = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let mut shapes: Vec<String> = Vec::new();
    for encoding in [
        "chunked",
        "Chunked",
        "xchunked",
        "chunked, identity",
        "identity",
        " chunked",
        "chunked ",
        "\tchunked",
        "gzip, chunked",
        "chunked\r\ntransfer-encoding: x",
        "x\r\ntransfer-encoding: chunked",
        "\"chunked\"",
        "chunked;q=1",
        "",
    ] {
        for length in ["content-length: 4\r\n", "content-length: 0\r\n"] {
            shapes.push(format!("{start}{length}transfer-encoding: {encoding}\r\n\r\n0\r\n\r\n{hidden}"));
            shapes.push(format!("{start}transfer-encoding: {encoding}\r\n{length}\r\n0\r\n\r\n{hidden}"));
        }
    }
    for lengths in [
        "content-length: 4\r\ncontent-length: 5",
        "content-length: 4, 5",
        "content-length: +4",
        "content-length: -1",
        "content-length: 4x",
        "content-length: 0x4",
        "content-length: 18446744073709551616",
        "content-length : 4",
    ] {
        shapes.push(format!("{start}{lengths}\r\n\r\n{{}}{hidden}"));
    }
    for chunk in [
        "ffffffffffffffff\r\n",
        "-1\r\n",
        "0x4\r\n",
        "4\n{}  \n0\n\n",
        "g\r\n",
        "10000000000000000\r\n",
        " 4\r\n{}  \r\n0\r\n\r\n",
    ] {
        shapes.push(format!("{start}transfer-encoding: chunked\r\n\r\n{chunk}{hidden}"));
    }
    shapes.push(format!(
        "POST /tokenize HTTP/1.1\r\nhost: localhost\r\nx-a: b\r\n folded\r\ncontent-length: 2\r\n\r\n{{}}{hidden}"
    ));
    shapes.push(format!("POST /tokenize HTTP/1.1\r\n host: localhost\r\ncontent-length: 2\r\n\r\n{{}}{hidden}"));
    shapes.push(format!(
        "POST /tokenize HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
    ));
    shapes.push(format!("POST  /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{{}}{hidden}"));
    shapes.push(format!(
        "POST /tokenize HTTP/1.1\r\nhost: localhost\r\nx\0y: z\r\ncontent-length: 2\r\n\r\n{{}}{hidden}"
    ));
    let mut n_refused = 0;
    for shape in &shapes {
        let text = exchange(running.address, shape.as_bytes()).await;
        assert!(!text.contains("\"object\":\"list\""), "the hidden request was answered: {shape:?}\n{text}");
        n_refused += usize::from(text.starts_with("HTTP/1.1 4") || text.is_empty());
    }
    println!("{} shapes, {n_refused} refused, none hid a request", shapes.len());
    assert!(shapes.len() >= 60);
    assert_eq!(n_refused, shapes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_bounded_and_so_are_connections() {
    let limits = Limits { connections_per_peer: 4, ..Limits::default() };
    let running = run(Setup { options: Options { limits, ..Options::default() }, ..Setup::default() }, Duration::ZERO);
    let get = |extra: &str| format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{extra}\r\n");
    assert!(exchange(running.address, get("").as_bytes()).await.starts_with("HTTP/1.1 200"));
    let large = exchange(running.address, get(&format!("x-a: {}\r\n", "b".repeat(20 << 10))).as_bytes()).await;
    assert!(large.starts_with("HTTP/1.1 431"), "{large}");
    let many: String = (0..70).map(|i| format!("x-{i}: y\r\n")).collect();
    let many = exchange(running.address, get(&many).as_bytes()).await;
    assert!(many.starts_with("HTTP/1.1 431"), "{many}");
    // Answered, so that all four are surely counted; what was refused before may itself be counted a moment longer.
    let mut held = Vec::new();
    support::until_async("four are served", async || {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        if status == *b"HTTP/1.1 200" {
            held.push(stream);
        }
        held.len() == 4
    })
    .await;
    let fifth = exchange(running.address, get("").as_bytes()).await;
    assert!(fifth.contains("too_many_connections"), "{fifth}");
    drop(held);
    support::until_async("there is room again", async || {
        exchange(running.address, get("").as_bytes()).await.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn a_panic_fails_its_own_request_alone() {
    let server = Setup { script: Arc::new(|submitted, _| answer(submitted, "ok")), ..Setup::default() }.start();
    let panicking = axum::Router::new()
        .route("/panics", axum::routing::get(async || -> String { panic!("on purpose") }))
        .layer(axum::middleware::from_fn_with_state(server.app.clone(), server::root::root));
    let request = axum::http::Request::get("/panics").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(panicking, request).await.unwrap();
    assert_eq!(response.status(), 500);
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains(&id) && !text.contains("on purpose"), "{text}");
    assert_eq!(server.get("/v1/models").await.status, 200);
}
