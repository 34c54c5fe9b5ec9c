//! `puna bench` from outside: its report's shape, and the alternation with another engine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::Value;

const TESTS: [&str; 10] = ["--prefill", "5,8", "--depth", "0,4", "--batch", "1,3", "--tokens", "2", "--runs", "2"];

fn bench(model: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.arg("bench").arg("-m").arg(model).args(TESTS).args(["--threads", "2"]).args(arguments);
    for name in ["PUNA_MODEL", "PUNA_API_KEY", "OPENAI_API_KEY"] {
        command.env_remove(name);
    }
    command.env("PUNA_CACHE_DIR", model.join("cache")).output().expect("puna starts")
}

fn lines(output: &Output) -> Vec<Value> {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    it::speaking::write(folder.path()).expect("the toy is written");
    folder
}

#[test]
fn every_test_is_one_line_with_its_speed_and_its_share_of_a_roof() {
    let model = model();
    let lines = lines(&bench(model.path(), &["--json"]));
    let of = |line: &Value| {
        (line["test"].as_str().map(str::to_owned), ["tokens", "depth", "batch"].map(|k| line[k].as_u64()))
    };
    let got: Vec<_> = lines[..lines.len() - 1].iter().map(of).collect();
    let test = |name: &str, numbers: [u64; 3]| (Some(name.to_owned()), numbers.map(Some));
    let want = [
        ("prefill", [5, 0, 1]),
        ("prefill", [8, 0, 1]),
        ("decode", [2, 0, 1]),
        ("decode", [2, 4, 1]),
        ("decode", [2, 0, 3]),
    ];
    assert_eq!(got, want.map(|(name, numbers)| test(name, numbers)));
    for line in &lines[..lines.len() - 1] {
        assert_eq!(line["threads"], 2);
        assert_eq!(line["runs_s"].as_array().map(Vec::len), Some(2));
        let share = line["roof_share"].as_f64().expect("a share");
        assert!(line["tok_per_s"].as_f64().is_some_and(|speed| speed > 0.0) && share > 0.0, "{line}");
        assert!(["memory", "int8", "f32"].contains(&line["roof"].as_str().expect("a roof")));
    }
    let load = &lines[lines.len() - 1];
    assert_eq!(load["test"], "load");
    let [ready, first] = ["seconds", "first_token_s"].map(|key| load[key].as_f64().expect("a number"));
    assert!(ready > 0.0 && first >= ready, "{load}");
    if cfg!(target_os = "linux") {
        assert!(lines.iter().all(|line| line["test"] == "load" || line["others_cpu_s"].is_number()), "{lines:?}");
        assert!(load["peak_bytes"].is_u64(), "{load}");
    }
}

#[test]
fn a_line_begins_with_the_keys_that_readers_know() {
    let model = model();
    let output = bench(model.path(), &["--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let first: serde_json::Map<String, Value> =
        serde_json::from_str(text.lines().next().expect("a line")).expect("an object");
    let keys: Vec<&str> = first.keys().map(String::as_str).take(8).collect();
    assert_eq!(keys, ["test", "tokens", "depth", "batch", "threads", "tok_per_s", "roof", "roof_share"]);
}

#[cfg(unix)]
#[test]
fn another_engine_answers_the_same_tests_in_alternation() {
    use std::os::unix::fs::PermissionsExt;
    let model = model();
    let peer = model.path().join("peer");
    let log = model.path().join("log");
    // Stands for the Python that holds the other engine: every test takes it ten seconds.
    let script = format!(
        "#!/bin/sh\necho '{{\"ready\": true, \"version\": \"1.2\"}}'\nwhile read line; do echo \"$line\" >> '{}'; echo '{{\"seconds\": 10.0}}'; done\n",
        log.display()
    );
    std::fs::write(&peer, script).expect("the peer is written");
    std::fs::set_permissions(&peer, std::fs::Permissions::from_mode(0o755)).expect("it may run");
    let python = peer.to_str().expect("UTF-8");
    let output = bench(model.path(), &["--json", "--against", "xllamacpp", "--python", python]);
    let lines = lines(&output);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "against llama.cpp 1.2\n");
    for line in &lines[..lines.len() - 1] {
        let against = &line["against"];
        let n_tokens = line["tokens"].as_f64().expect("a number") * line["batch"].as_f64().expect("a number");
        assert_eq!(against["tok_per_s"].as_f64(), Some(n_tokens / 10.0));
        let [ratio, least, most] = ["ratio", "least", "most"].map(|key| against[key].as_f64().expect("a number"));
        assert!(least <= ratio && ratio <= most && least > 1.0, "{against}");
    }
    let asked = std::fs::read_to_string(log).expect("what the peer was asked");
    assert_eq!(asked.lines().count(), 5 * 3, "each test once to warm up and twice to count");
}

#[test]
fn what_can_not_be_measured_is_refused() {
    let model = model();
    for (arguments, words) in [
        (&["--against", "xllamacpp", "--python", "/nowhere/python"][..], "pip install xllamacpp"),
        (&["--against", "xllamacpp", "--python", "true"], "ended without an answer"),
        (&["--against", "llama"], "http://"),
        (&["--against", "http://127.0.0.1:1"], "start it"),
        (&["--against", "https://127.0.0.1:1"], "TLS"),
        (&["--against", "http://a/?b"], "an address looks like"),
    ] {
        let output = bench(model.path(), arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(words), "{errors}");
    }
}

/// A request as a server sees it: its first line, its key, its body.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    key: Option<String>,
    body: Value,
}

/// What a server answers: a status and a body.
type Script = fn(&Seen) -> (u16, String);

/// A server on a free port that answers by `script`, a status and a body for a request, and keeps what it was asked.
fn server(script: Script) -> (String, Arc<Mutex<Vec<Seen>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let all = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&all);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || answer(stream, script, &log));
        }
    });
    (address, all)
}

/// Answers one request and closes.
fn answer(mut stream: TcpStream, script: Script, log: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let (mut line, mut key, mut n_bytes) = (String::new(), None, 0);
    reader.read_line(&mut line).expect("a request");
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("a header");
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "authorization" => key = Some(value.to_owned()),
            "content-length" => n_bytes = value.parse().expect("a length"),
            _ => {}
        }
    }
    let mut body = vec![0; n_bytes];
    reader.read_exact(&mut body).expect("a body");
    let seen = Seen { line: line.trim().to_owned(), key, body: serde_json::from_slice(&body).unwrap_or_default() };
    let (status, text) = script(&seen);
    log.lock().expect("no poison").push(seen);
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
    // Two writes with a pause, so that a stream's first and last token do not come at one instant.
    let (first, rest) = text.split_at(text.find("\n\n").map_or(text.len(), |at| at + 2));
    stream.write_all(format!("{head}{first}").as_bytes()).expect("a listener");
    std::thread::sleep(std::time::Duration::from_millis(2));
    stream.write_all(rest.as_bytes()).expect("a listener");
}

const MODELS: &str = r#"{"object":"list","data":[{"id":"toy"}]}"#;

/// As many tokens as were asked for, and what was read.
fn tokens(body: &Value) -> String {
    let n = body["max_tokens"].as_u64().expect("a limit");
    let event = |i: u64| {
        let end = if i + 1 == n { "\"length\"" } else { "null" };
        format!("data: {{\"choices\":[{{\"text\":\"a\",\"finish_reason\":{end}}}]}}\n\n")
    };
    (0..n).map(event).collect::<String>() + "data: [DONE]\n\n"
}

fn whole(seen: &Seen) -> (u16, String) {
    match seen.line.as_str() {
        "GET /v1/models HTTP/1.1" => (200, MODELS.to_owned()),
        "POST /v1/completions HTTP/1.1" => (200, tokens(&seen.body)),
        _ => (404, String::new()),
    }
}

#[test]
fn a_server_answers_the_same_tests_with_prompts_that_it_has_not_seen() {
    let model = model();
    let (url, seen) = server(whole);
    let lines = lines(&bench(model.path(), &["--json", "--against", &url, "--api-key", "sesame"]));
    for line in &lines[..lines.len() - 1] {
        let against = &line["against"];
        let [speed, ratio, least, most] =
            ["tok_per_s", "ratio", "least", "most"].map(|key| against[key].as_f64().expect("a number"));
        assert!(speed > 0.0 && least <= ratio && ratio <= most, "{against}");
    }
    let seen = seen.lock().expect("no poison");
    assert!(seen.iter().all(|seen| seen.key.as_deref() == Some("Bearer sesame")), "{seen:?}");
    // After the list and the probe: each test once to warm up and twice to count, the last with three streams.
    let asked = |seen: &Seen| {
        let n_prompt = seen.body["prompt"].as_array().expect("token ids").len();
        (n_prompt, seen.body["max_tokens"].as_u64().expect("a limit"))
    };
    let got: Vec<_> = seen[2..].iter().map(asked).collect();
    let want = [[(5, 1); 3].as_slice(), &[(8, 1); 3], &[(1, 3); 3], &[(4, 3); 3], &[(1, 3); 9]].concat();
    assert_eq!(got, want);
    assert!(seen[2..].iter().all(|seen| seen.body["model"] == "toy" && seen.body["ignore_eos"] == true));
    let firsts: std::collections::HashSet<&Value> = seen[2..8].iter().map(|seen| &seen.body["prompt"][0]).collect();
    assert!(firsts.len() >= 4, "six prompts begin with {firsts:?}");
}

#[test]
fn a_server_that_takes_no_ids_gets_text_and_one_without_completions_a_chat() {
    fn text_only(seen: &Seen) -> (u16, String) {
        match seen.body["prompt"].is_string() && seen.body.get("ignore_eos").is_none() {
            true => whole(seen),
            false if seen.line.starts_with("POST") => (400, r#"{"error":{"message":"no"}}"#.to_owned()),
            false => whole(seen),
        }
    }
    fn chat_only(seen: &Seen) -> (u16, String) {
        match seen.line.as_str() {
            "POST /v1/chat/completions HTTP/1.1" => {
                (200, tokens(&seen.body).replace("\"text\":\"a\"", "\"delta\":{\"content\":\"a\"}"))
            }
            "POST /v1/completions HTTP/1.1" => (404, String::new()),
            _ => whole(seen),
        }
    }
    let model = model();
    for (script, words) in [(text_only as Script, "prompts as text"), (chat_only, "prompts as chat messages")] {
        let (url, _) = server(script);
        let output = bench(model.path(), &["--json", "--against", &url]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains(words), "{errors}");
        assert!(lines(&output)[0]["against"]["ratio"].is_number());
    }
}

#[test]
fn a_server_that_does_not_do_is_named_with_the_way_out() {
    fn locked(_: &Seen) -> (u16, String) {
        (401, String::new())
    }
    fn nothing(_: &Seen) -> (u16, String) {
        (404, String::new())
    }
    fn two(_: &Seen) -> (u16, String) {
        (200, MODELS.replace("[", "[{\"id\":\"other\"},"))
    }
    fn unknown(seen: &Seen) -> (u16, String) {
        let refusal = r#"{"error":{"message":"no model toy here"}}"#.to_owned();
        if seen.line.starts_with("POST") { (404, refusal) } else { whole(seen) }
    }
    fn broken(seen: &Seen) -> (u16, String) {
        let (status, text) = whole(seen);
        (status, text.split("data: [DONE]").next().unwrap_or("").replace("\"length\"", "null"))
    }
    fn short(seen: &Seen) -> (u16, String) {
        let mut seen = seen.clone();
        if seen.body["max_tokens"] == 3 {
            seen.body["max_tokens"] = 2.into();
        }
        whole(&seen)
    }
    let model = model();
    let cases: [(Script, &[&str], &str); 7] = [
        (locked, &[], "PUNA_API_KEY"),
        (nothing, &[], "--against-model"),
        (two, &[], "\"other\", \"toy\""),
        (whole, &["--against-model", "third"], "has no model \"third\""),
        (unknown, &[], "no model toy here"),
        (broken, &[], "broke off"),
        (short, &[], "ended after 2 of 3 tokens"),
    ];
    for (script, arguments, words) in cases {
        let (url, _) = server(script);
        let output = bench(model.path(), &[&["--against", &url][..], arguments].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(words), "\"{words}\" is not in: {errors}");
    }
}

#[test]
fn a_tile_is_measured_where_there_is_a_tower() {
    let toys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/toy");
    let lines = lines(&bench_tile(&toys.join("scout")));
    assert_eq!((&lines[0]["test"], lines[0]["tokens"].as_u64()), (&Value::from("tile"), Some(4)));
    assert!(lines[0]["roof_share"].as_f64().is_some_and(|share| share > 0.0), "{lines:?}");
    let output = bench_tile(&toys.join("llama"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && errors.contains("has no vision tower"), "{errors}");
}

fn bench_tile(model: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.arg("bench").arg("-m").arg(model).args(["--image-tile", "--json", "--runs", "2", "--threads", "2"]);
    command.env_remove("PUNA_MODEL").output().expect("puna starts")
}

/// A chat of as many tokens as were asked for; every third answer of 2 is a refusal.
fn busy(seen: &Seen) -> (u16, String) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    if !seen.line.contains("/chat/") {
        return whole(seen);
    }
    if seen.body["max_tokens"] == 2 && ASKED.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
        return (429, r#"{"error":{"message":"later"}}"#.to_owned());
    }
    (200, tokens(&seen.body).replace("\"text\":\"a\"", "\"delta\":{\"content\":\"a\"}"))
}

fn load(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.args(["bench", "--load", url, "--seconds", "1", "--prefill", "3,9", "--tokens", "2", "--runs", "1"]);
    for name in ["PUNA_MODEL", "PUNA_API_KEY", "OPENAI_API_KEY"] {
        command.env_remove(name);
    }
    command.args(arguments).output().expect("puna starts")
}

#[test]
fn clients_of_a_server_see_its_speed_what_it_refuses_and_what_fails() {
    fn broken(seen: &Seen) -> (u16, String) {
        let (status, text) = busy(seen);
        let is_probe = seen.body["max_tokens"] == 1;
        (status, if is_probe { text } else { text.replace("data: [DONE]", "").replace("\"length\"", "null") })
    }
    let (url, seen) = server(busy);
    let (other, _) = server(broken);
    let lines = lines(&load(&url, &["--batch", "2", "--against", &other, "--json"]));
    assert_eq!(lines.len(), 2);
    let count = |line: &Value, key: &str| line[key].as_u64().expect("a number");
    let (good, bad) = (&lines[0], &lines[1]);
    assert!(count(good, "answers") > 0 && count(good, "refused") > 0 && count(good, "failed") == 0, "{good}");
    assert_eq!(count(good, "completion_tokens"), 2 * count(good, "answers"));
    assert!(good["first_token_s"]["p50"].as_f64() <= good["first_token_s"]["p99"].as_f64(), "{good}");
    assert!(count(bad, "answers") == 0 && count(bad, "failed") > 0, "{bad}");
    assert!(bad["failures"].to_string().contains("broke off"), "{bad}");
    let words: std::collections::HashSet<usize> = seen
        .lock()
        .expect("no poison")
        .iter()
        .filter(|seen| seen.body["max_tokens"] == 2)
        .map(|seen| seen.body["messages"][0]["content"].as_str().expect("a text").split(' ').count())
        .collect();
    assert_eq!(words, [3, 9].into(), "prompts take turns");

    let output = load(&url, &["--against", "xllamacpp"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
