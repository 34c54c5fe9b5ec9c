//! Who may ask, and what is never said.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use server::{Keys, Options};
use support::{Server, Setup};

const KEY: &str = "sk-0123456789abcdef-secret";

fn locked() -> Server {
    let options = Options { keys: Keys::parse(KEY).unwrap(), ..Options::default() };
    Setup { options, ..Setup::default() }.start()
}

async fn routes(server: &Server) -> Vec<(String, String)> {
    let request = Request::get("/openapi.json").header("x-api-key", KEY).body(Body::empty()).unwrap();
    let document = server.send(request).await.json();
    let paths = document["paths"].as_object().unwrap().clone();
    let mut all: Vec<(String, String)> = paths
        .into_iter()
        .flat_map(|(path, item)| {
            let methods: Vec<String> = item.as_object().unwrap().keys().cloned().collect();
            methods.into_iter().map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    all.push(("GET".into(), "/openapi.json".into()));
    all
}

/// H9.
#[tokio::test]
async fn every_route_needs_its_key() {
    let server = locked();
    let open = ["/health", "/health/live", "/health/ready"];
    let (mut n_refused, mut n_admitted, mut n_open) = (0, 0, 0);
    let all = routes(&server).await;
    assert!(all.len() >= 30, "{}", all.len());
    for (method, path) in &all {
        let path = path.replace(['{', '}'], "");
        let spellings = [
            path.clone(),
            path.replacen('/', "//", 1),
            path.replace('/', "%2f").replacen("%2f", "/", 1),
            path.to_uppercase(),
            format!("{path}/"),
            format!("{path}?x=1"),
            format!("/x/..{path}"),
        ];
        for spelling in spellings {
            for method in [method.as_str(), "HEAD", "OPTIONS", "PUT"] {
                for (name, value) in [
                    ("x-other", KEY.to_owned()),
                    ("authorization", "Bearer wrong-key-wrong-key".to_owned()),
                    ("x-api-key", KEY.to_uppercase()),
                    ("authorization", KEY.to_owned()),
                ] {
                    let request = Request::builder().method(method).uri(&spelling).header(name, value);
                    let reply = server.send(request.body(Body::empty()).unwrap()).await;
                    let without_query = spelling.split('?').next().unwrap();
                    let is_open =
                        (open.contains(&without_query) || without_query == "/") && ["GET", "HEAD"].contains(&method);
                    if is_open {
                        n_open += 1;
                        assert_ne!(reply.status, 401, "{method} {spelling}");
                    } else {
                        n_refused += 1;
                        assert_eq!(reply.status, 401, "{method} {spelling} {name}");
                        assert_eq!(reply.header("www-authenticate"), "Bearer");
                    }
                }
            }
        }
        let request =
            Request::builder().method(method.as_str()).uri(&path).header("authorization", format!("Bearer {KEY}"));
        let reply = server.send(request.body(Body::empty()).unwrap()).await;
        n_admitted += 1;
        assert_ne!(reply.status, 401, "{method} {path}");
    }
    println!("{} routes: {n_refused} refused, {n_admitted} admitted, {n_open} open", all.len());
    assert!(n_refused > 1000);
}

/// H10.
#[tokio::test]
async fn a_key_is_never_said() {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // For all threads: another test's, without one, could be asked first what is worth logging.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let server = locked();
    let mut said = Vec::new();
    let bodies = [
        json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}),
        json!({"messages": [{"role": "user", "content": "x"}], "temperature": 9}),
        json!({"messages": 3}),
    ];
    for (name, value) in [("authorization", format!("Bearer {KEY}")), ("x-api-key", KEY.to_owned())] {
        for body in &bodies {
            let request =
                Request::post("/v1/chat/completions").header(name, &value).header("content-type", "application/json");
            let reply = server.send(request.body(Body::from(body.to_string())).unwrap()).await;
            said.extend(reply.body);
            said.extend(format!("{:?}", reply.headers).into_bytes());
        }
        for path in ["/metrics", "/v1/models", "/openapi.json", "/nothing"] {
            let reply = server.send(Request::get(path).header(name, &value).body(Body::empty()).unwrap()).await;
            said.extend(reply.body);
        }
    }
    let logged = log.0.lock().unwrap().clone();
    assert!(String::from_utf8_lossy(&logged).contains("answered"), "something was logged");
    for (what, bytes) in [("answers", said), ("the log", logged), ("debug", format!("{:?}", server.app).into_bytes())] {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(KEY) && !text.contains(&KEY[8..]), "the key stands in {what}");
        println!("{what}: {} bytes without the key", bytes.len());
    }
}

/// A page that a browser on this machine shows must not use a server that needs no key.
#[tokio::test]
async fn pages_from_elsewhere_are_refused() {
    let server = support::server();
    let cases = [
        (vec![], 200),
        (vec![("host", "127.0.0.1:8080")], 200),
        (vec![("host", "localhost:8080"), ("origin", "http://localhost:8080")], 200),
        (vec![("host", "[::1]:8080")], 200),
        (vec![("host", "192.168.1.5:8080")], 200),
        (vec![("host", "evil.example")], 403),
        (vec![("host", "localhost.evil.example")], 403),
        (vec![("host", "localhost:8080"), ("origin", "http://evil.example")], 403),
        (vec![("host", "localhost:8080"), ("origin", "http://localhost:9090")], 403),
        (vec![("host", "localhost:8080"), ("origin", "null")], 403),
    ];
    for (headers, status) in cases {
        let mut request = Request::get("/v1/models");
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        assert_eq!(server.send(request.body(Body::empty()).unwrap()).await.status, status, "{headers:?}");
    }
    let request = Request::post("/tokenize").header("content-type", "text/plain").body(Body::from("{}")).unwrap();
    assert_eq!(server.send(request).await.status, 415, "a form of another page can not send JSON");
}
