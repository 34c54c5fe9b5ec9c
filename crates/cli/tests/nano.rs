//! The model that is part of the program: no file is named, and none is needed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn media(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/media").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

/// `puna` in an empty folder, with no model named in the environment.
fn puna(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.args(arguments).env_remove("PUNA_MODEL").env_remove("PUNA_THREADS").env("HOME", folder.path());
    command.env("PUNA_CACHE_DIR", folder.path()).current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().expect("puna starts");
    let left: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .collect();
    assert!(left.is_empty(), "{left:?}: the model is used where it lies");
    output
}

fn ok(arguments: &[&str]) -> String {
    let output = puna(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(arguments)).expect("JSON")
}

#[test]
fn a_prompt_an_image_and_a_clip_are_answered_without_a_file() {
    let flags = ["run", "--temp", "0", "--max-tokens", "8", "--think=off", "--json"];
    let tokens = |more: &[&str]| {
        let report = json(&[&flags[..], more].concat());
        assert!(report["usage"]["completion_tokens"].as_u64().is_some_and(|n| n > 0), "{report}");
        report["usage"]["prompt_tokens"].as_u64().expect("a count")
    };
    let words = tokens(&["What is this?"]);
    assert_eq!(words, tokens(&["-m", "nano", "What is this?"]));
    let (image, clip) = (media("shapes.png"), media("digits.wav"));
    let (seen, heard) = (tokens(&["What is this?", "--image", &image]), tokens(&["What is this?", "--audio", &clip]));
    assert!(seen > words + 10 && heard > words + 10, "{words} words, {seen} with an image, {heard} with a clip");
}

#[test]
fn the_other_commands_take_it_too() {
    let summary = json(&["inspect", "--json"])["summary"].clone();
    assert_eq!(summary["path"], "nano");
    assert!(
        summary["vision"].is_string() && summary["audio"].as_str().is_some_and(|text| text.contains("llama4-audio"))
    );
    let tensors = ok(&["inspect", "nano", "--tensors"]);
    assert!(
        ["blk.0.attn_q.weight", "v.blk.0.attn_q.weight", "a.blk.0.attn_q.weight"].iter().all(|n| tensors.contains(n))
    );
    assert!(json(&["tokenize", "--json", "Hello"])["ids"].as_array().is_some_and(|ids| !ids.is_empty()));
    assert!(json(&["plan", "--hw", "vm-23", "--json"]).is_object());
    let bench = ["bench", "--prefill", "8", "--depth", "0", "--batch", "1", "--tokens", "2", "--runs", "1", "--json"];
    assert!(ok(&bench).lines().count() > 1);
}

#[test]
fn what_does_not_go_with_it_is_refused_with_a_way_out() {
    for (arguments, says) in [
        (&["run", "--mmproj", "x.gguf", "Hi"][..], "its own towers"),
        (&["bench", "--against", "xllamacpp", "--prefill", "8"], "models/nano/nano.gguf"),
        (&["run", "-m", "./nano", "Hi"], "./nano"),
    ] {
        let output = puna(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(says), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_server_offers_it_by_its_name() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_puna"))
        .args(["serve", "--port", "0", "--state", "none"])
        .env_remove("PUNA_MODEL")
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("puna starts");
    let mut lines = BufReader::new(server.stderr.take().expect("piped")).lines();
    let address = lines.find_map(|line| {
        let line = line.expect("UTF-8");
        let rest = line.strip_prefix("address")?.trim().strip_prefix("http://")?.to_owned();
        Some(rest.split('/').next().unwrap_or_default().to_owned())
    });
    let address = address.expect("an address is printed");
    let mut stream = TcpStream::connect(&address).expect("it listens");
    write!(stream, "GET /v1/models HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    server.kill().expect("ended");
    server.wait().expect("ended");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    assert!(answer.starts_with("HTTP/1.1 200") && body.contains("\"id\":\"nano\""), "{answer}");
}
