//! The binary from outside: what it prints, where, and how it ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

/// A model that answers nonsense, always the same.
static MODEL: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    it::speaking::write(folder.path()).expect("the toy is written");
    folder
});

fn toy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/toy").join(name)
}

/// `puna` with `arguments`, and `input` on its standard input.
fn puna(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_puna"))
        .args(arguments)
        .env_remove("PUNA_MODEL")
        .env_remove("PUNA_THREADS")
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("puna starts");
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("puna ends")
}

/// Standard output of a command that has to succeed, and must say nothing on standard error.
fn ok(arguments: &[&str], input: &str) -> String {
    let output = puna(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    assert_eq!(errors, "", "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(arguments: &[&str], input: &str) -> serde_json::Value {
    serde_json::from_str(&ok(arguments, input)).expect("JSON")
}

/// The message of a command that has to end with `code`; standard output stays empty.
fn refused(arguments: &[&str], code: i32) -> String {
    let output = puna(arguments, "");
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
    errors
}

fn model() -> &'static str {
    MODEL.path().to_str().expect("UTF-8")
}

#[test]
fn a_prompt_is_answered_from_an_argument_and_from_standard_input() {
    let flags = ["run", "-m", model(), "--temp", "0", "--max-tokens", "12"];
    let from_argument = ok(&[&flags[..], &["Hello"]].concat(), "");
    assert_eq!(from_argument, ok(&flags, "Hello\n"));
    let report = json(&[&flags[..], &["--json", "Hello"]].concat(), "");
    assert_eq!(report["version"], 1);
    assert_eq!(report["finish_reason"], "length");
    assert_eq!(report["usage"]["completion_tokens"], 12);
    // <|begin_of_text|>, a header of three ids with "user" as four bytes, …
    assert_eq!(report["usage"]["prompt_tokens"], 1 + (2 + 4 + 2) + 5 + 1 + (2 + 9 + 2));
    assert_eq!(report["ids"].as_array().map(Vec::len), Some(12));
    assert_eq!(report["text"].as_str().map(|text| format!("{}\n", text.trim_end_matches('\n'))), Some(from_argument));
}

#[test]
fn a_seed_repeats_an_answer_and_threads_do_not_change_it() {
    let answer = |more: &[&str]| {
        json(&[&["run", "-m", model(), "--temp", "1.5", "--max-tokens", "20", "--json", "Hi"], more].concat(), "")["ids"]
            .clone()
    };
    let one = answer(&["--seed", "7", "--threads", "1"]);
    assert_eq!(one, answer(&["--seed", "7", "--threads", "2"]));
    assert_ne!(one, answer(&["--seed", "8"]));
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let answer = |more: &[&str]| {
        let flags = ["run", "-m", model(), "--temp", "0", "--max-tokens", "30", "--raw", "--json", "abc"];
        json(&[&flags[..], more].concat(), "")
    };
    let whole = answer(&[]);
    let text = whole["text"].as_str().expect("a text");
    let stop: String = text.chars().skip(4).take(2).collect();
    let cut = answer(&["--stop", &stop]);
    assert_eq!(cut["finish_reason"], "stop");
    assert_eq!(cut["text"].as_str(), text.split(&stop).next());
    // A bias that forbids the first token changes the answer.
    let first = whole["ids"][0].as_u64().expect("an id");
    assert_ne!(answer(&["--logit-bias", &format!("{first}=-100")])["ids"][0], whole["ids"][0]);
}

#[test]
fn thoughts_are_counted_bounded_and_apart_from_the_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    it::speaking::write(folder.path()).expect("the toy is written");
    std::fs::write(folder.path().join("reasoning_config.json"), r#"{"efforts":{"low":3}}"#).expect("it is written");
    let thinker = folder.path().to_str().expect("UTF-8");
    let flags = ["run", "-m", thinker, "--temp", "0", "--max-tokens", "60", "Hello"];
    // The toy would end its thoughts at once: what it ends them with is forbidden, one token after the other.
    let mut biases: Vec<String> = Vec::new();
    let think = |level: &str, biases: &[String], more: &[&str]| {
        let level = format!("--think={level}");
        let biases: Vec<&str> = biases.iter().flat_map(|bias| ["--logit-bias", bias]).collect();
        puna(&[&flags[..], &[level.as_str()], &biases, more].concat(), "")
    };
    let report = |output: Output| -> serde_json::Value { serde_json::from_slice(&output.stdout).expect("JSON") };
    let thought = loop {
        let answer = report(think("5", &biases, &["--json"]));
        let n = usize::try_from(answer["usage"]["reasoning_tokens"].as_u64().expect("a count")).expect("small");
        if n > 5 {
            break answer;
        }
        assert!(biases.len() < 8, "{answer}");
        biases.push(format!("{}=-100", answer["ids"][n - 1]));
    };
    let message = formats::ReasoningConfig::default().budget_message;
    let reasoning = thought["reasoning"].as_str().expect("thoughts");
    assert!(reasoning.ends_with(&message), "{reasoning:?}");
    // Five tokens, a character's rest, the message byte by byte at most, and the marker.
    let n = thought["usage"]["reasoning_tokens"].as_u64().expect("a count");
    assert!(n <= 5 + 3 + message.len() as u64 + 1, "{n}");
    assert!(!thought["text"].as_str().expect("a text").contains(message.trim()));
    let of_effort = report(think("low", &biases, &["--json"]));
    assert_eq!(of_effort["usage"]["reasoning_tokens"], n - 2);
    let silent = report(think("off", &biases, &["--json"]));
    assert_eq!((&silent["reasoning"], &silent["usage"]["reasoning_tokens"]), (&"".into(), &0.into()));

    let shown = think("5", &biases, &[]);
    assert!(String::from_utf8_lossy(&shown.stderr).contains(message.trim()));
    let text = thought["text"].as_str().expect("a text").trim_end_matches('\n');
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim_end_matches('\n'), text);

    let unknown = think("huge", &[], &[]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("--think=huge: no such effort"));
    assert!(refused(&["run", "-m", model(), "--think", "Hello"], 2).contains("not trained to think"));
}

#[test]
fn an_image_is_seen() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let answers: Vec<serde_json::Value> = [[255, 0, 0], [0, 0, 255]]
        .iter()
        .enumerate()
        .map(|(i, colour)| {
            let path = folder.path().join(format!("{i}.png"));
            image::RgbImage::from_pixel(24, 24, image::Rgb(*colour)).save(&path).expect("a picture is written");
            let path = path.to_str().expect("UTF-8");
            json(&["run", "-m", model(), "--temp", "0", "--max-tokens", "30", "--json", "--image", path, "What?"], "")
        })
        .collect();
    let words = json(&["run", "-m", model(), "--max-tokens", "1", "--json", "What?"], "");
    let costs = json(&["inspect", model(), "--image-size", "24x24", "--json"], "");
    assert_eq!(
        answers[0]["usage"]["prompt_tokens"].as_u64(),
        words["usage"]["prompt_tokens"].as_u64().zip(costs["images"][0]["tokens"].as_u64()).map(|(a, b)| a + b),
        "{costs}"
    );
    assert_ne!(answers[0]["ids"], answers[1]["ids"]);
}

/// Voxtral's config has no start marker: its tokenizer does.
#[test]
fn a_clip_is_counted_with_the_marker_that_the_tokenizer_has() {
    let from = toy("../audio-tower/voxtral_tiny");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(name), folder.path().join(name)).expect("copied");
    }
    let path = folder.path().to_str().expect("UTF-8");
    let tokens = || json(&["inspect", path, "--json"], "")["audio"][0]["tokens"].clone();
    // A second is three chunks of 0.4, each with its silence: five tokens a chunk.
    assert_eq!(tokens(), 15);
    let bytes = r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
    let letters: Vec<String> = ('a'..='y').enumerate().map(|(id, letter)| format!("\"{letter}\": {id}")).collect();
    let letters = letters.join(", ");
    let tokenizer = format!(
        r#"{{"version": "1.0", "pre_tokenizer": {bytes}, "decoder": {bytes}, "model": {{"type": "BPE",
            "vocab": {{{letters}}}, "merges": []}}, "added_tokens": [{{"id": 25, "content": "[BEGIN_AUDIO]",
            "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}}]}}"#
    );
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).expect("written");
    assert_eq!(tokens(), 16);
}

/// The f32 numbers of one of `tensors`.
fn of(tensors: &[formats::Tensor], name: &str) -> Vec<f32> {
    let tensor = tensors.iter().find(|t| t.name == name).expect(name).clone();
    tensor.bytes.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect()
}

#[test]
fn a_trace_holds_the_goldens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (scout, out) = (toy("scout"), folder.path().join("trace.safetensors"));
    let golden = scout.join("golden.safetensors");
    let golden = formats::safetensors::parse(&golden, &formats::map_file(&golden).expect("mapped")).expect("parsed");
    let ids = golden.iter().find(|t| t.name == "long/input_ids").expect("ids");
    let ids: Vec<String> =
        ids.bytes.as_chunks::<8>().0.iter().map(|raw| i64::from_le_bytes(*raw).to_string()).collect();
    for device in [&[][..], &["--reference"]] {
        let (scout, out) = (scout.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
        ok(&[&["trace", scout, "--ids", &ids.join(","), "--out", out], device].concat(), "");
        let seen = formats::safetensors::parse(Path::new(out), &formats::map_file(Path::new(out)).expect("mapped"));
        let seen = seen.expect("parsed");
        for name in ["embeds", "layer.0.attn", "layer.7.ffn", "layer.3.router_logits", "final_norm", "logits"] {
            let (got, want) = (of(&seen, name), of(&golden, &format!("long/{name}")));
            assert_eq!(got.len(), want.len(), "{name}");
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 2e-5), "{name}");
        }
    }
}

#[test]
fn products_are_computed_from_bfloat16_where_asked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (scout, out) = (toy("scout"), folder.path().join("trace.safetensors"));
    let logits = |precision: &str| {
        let (scout, out) = (scout.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
        ok(&["trace", scout, "--ids", "1,5,9,30,2", "--only", "logits", "--out", out, "--precision", precision], "");
        let seen = formats::safetensors::parse(Path::new(out), &formats::map_file(Path::new(out)).expect("mapped"));
        of(&seen.expect("parsed"), "logits")
    };
    let (exact, rounded) = (logits("f32"), logits("bf16"));
    let largest = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let apart = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart > 1e-5 * largest && apart < 0.1 * largest, "{apart} of {largest}");
    let m = scout.to_str().expect("UTF-8");
    assert!(refused(&["run", "-m", m, "--precision", "f8", "Hi"], 2).contains("[possible values: f32, bf16]"));
}

#[test]
fn a_config_alone_is_inspected() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("config.json");
    std::fs::copy(toy("maverick").join("config.json"), &config).expect("copied");
    let path = config.to_str().expect("UTF-8");
    let text = ok(&["inspect", path], "");
    assert!(text.contains("none, a config alone"), "{text}");
    let whole = json(&["inspect", toy("maverick").to_str().expect("UTF-8"), "--json"], "");
    let alone = json(&["inspect", path, "--json"], "");
    assert_eq!(whole["parameters"], alone["parameters"]);
    let stored: u64 =
        whole["tensors"].as_array().expect("tensors").iter().map(|t| t["bytes"].as_u64().unwrap_or(0)).sum();
    assert_eq!(whole["parameters"]["total"].as_u64(), Some(stored / 4));
    assert!(refused(&["run", "-m", path, "Hi"], 2).contains("holds no weights"));
}

#[test]
fn the_spelling_of_a_control_token_is_text() {
    let ids = json(&["tokenize", "-m", model(), "--json", "<|eot|>é"], "");
    assert_eq!(ids["ids"], serde_json::json!(b"<|eot|>\xc3\xa9"));
}

#[test]
fn the_ids_of_a_message_are_those_that_run_sends() {
    let ids = json(&["tokenize", "-m", model(), "--json", "--chat", "What?"], "");
    let run = json(&["run", "-m", model(), "--max-tokens", "1", "--json", "What?"], "");
    assert_eq!(ids["ids"].as_array().map(Vec::len).map(|n| n as u64), run["usage"]["prompt_tokens"].as_u64());
    assert_eq!(ids["tokens"][0], "<|begin_of_text|>");
}

#[test]
fn bad_input_is_named_with_the_way_out() {
    let broken = tempfile::tempdir().expect("a temporary folder");
    let truncated = broken.path().join("model.gguf");
    std::fs::write(&truncated, b"GGUF\x03\0\0\0\xff").expect("written");
    let truncated = truncated.to_str().expect("UTF-8");
    let m = model();
    for (arguments, code, names) in [
        (&["run", "-m", "/nonexistent", "Hi"][..], 5, "/nonexistent"),
        (&["inspect", truncated], 5, "model.gguf"),
        (&["run", "-m", truncated, "Hi"], 5, "model.gguf"),
        (&["run", "-m", m, "--temp=-1", "Hi"], 2, "temperature"),
        (&["run", "-m", m, "--ctx", "99999999", "Hi"], 2, "--ctx 99999999"),
        (&["run", "-m", m, "--ctx", "4", "Hi"], 2, "the context holds"),
        (&["run", "-m", m, "--image", "/nonexistent.png", "Hi"], 2, "/nonexistent.png"),
        (&["run", "-m", m, "--image", truncated, "Hi"], 2, "image"),
        (&["run", "-m", m, "--json"], 2, "prompt"),
        (&["trace", m, "--ids", "1,99999", "--out", "/nonexistent/x"], 2, "99999"),
        (&["trace", m, "--ids", "1", "--out", "/nonexistent/x"], 5, "/nonexistent/x"),
        (&["inspect", m, "--image-size", "0x5"], 2, "0x5"),
    ] {
        let message = refused(arguments, code);
        assert!(message.starts_with("error: ") && message.contains(names), "{arguments:?}: {message}");
        assert!(message.contains("\nhint:  "), "{arguments:?}: {message}");
    }
    // The argument parser's own messages.
    assert!(refused(&["rum"], 2).contains("run"));
    assert!(refused(&["run", "-m", m, "--temperatur", "1", "Hi"], 2).contains("--temperature"));
}

#[test]
fn no_command_has_more_than_25_flags() {
    let commands = [
        "run",
        "serve",
        "bench",
        "plan",
        "ps",
        "config",
        "inspect",
        "quantize",
        "graft-audio",
        "train",
        "trace",
        "tokenize",
        "completions",
    ];
    for command in commands {
        let help = ok(&[command, "--help"], "");
        // Beside the one for help.
        let is_flag = |line: &&str| line.trim_start().starts_with('-') && !line.contains("--help");
        let n_flags = help.lines().filter(is_flag).count();
        assert!(n_flags <= 25, "{command}: {n_flags}");
    }
    assert!(ok(&["--help"], "").lines().count() <= 24);
    assert!(ok(&["completions", "bash"], "").contains("complete"));
}

#[test]
fn a_cache_of_experts_changes_no_answer_and_is_reported() {
    let flags = ["run", "-m", model(), "--temp", "0", "--max-tokens", "12", "Hello"];
    let want = ok(&flags, "");
    let output = puna(&[&flags[..], &["--expert-cache", "100K", "--stats"]].concat(), "");
    assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), want);
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(errors.contains("experts: ") && errors.contains("the cache holds "), "{errors}");
    assert!(errors.contains("of its own"), "{errors}");
    let one = refused(&[&flags[..], &["--expert-cache", "1K"]].concat(), 2);
    assert!(one.contains("1024 holds no expert") && one.contains("hint:  give at least --expert-cache "), "{one}");
    let no_size = refused(&[&flags[..], &["--expert-cache", "much"]].concat(), 2);
    assert!(no_size.contains("\"much\" is no size, such as 2G"), "{no_size}");
    let dense = toy("llama").display().to_string();
    let none = refused(&["bench", "-m", &dense, "--expert-cache", "1G"], 2);
    assert!(none.contains("no routed experts"), "{none}");
}

fn lora(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/lora").join(name);
    folder.to_str().expect("UTF-8").to_owned()
}

#[test]
fn an_adapter_changes_answers_and_is_named_at_the_start() {
    let flags = ["run", "-m", model(), "--temp", "0", "--max-tokens", "12", "--json", "Hello"];
    let scout = lora("scout");
    let adapted = [&flags[..], &["--lora", &scout]].concat();
    let ids = json(&adapted, "")["ids"].clone();
    assert_ne!(json(&flags, "")["ids"], ids);
    assert_eq!(json(&[&adapted[..], &["--threads", "1", "--expert-cache", "100K"]].concat(), "")["ids"], ids);
    let plan = ["serve", "-m", model(), "--port", "0", "--state", "none", "--dry-run"];
    let with = ok(&[&plan[..], &["--lora", &scout]].concat(), "");
    assert!(with.contains("/lora/scout (40 maps, rank 8, ") && with.contains("\nlora     "), "{with}");
    assert!(!ok(&plan, "").contains("lora"));
}

#[test]
fn an_adapter_that_can_not_be_used_is_refused_with_the_way_out() {
    let broken = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(broken.path().join("adapter_config.json"), "{\"peft_type\":\"IA3\"}").expect("written");
    let (llama, text) = (lora("llama"), lora("text"));
    let (absent, broken) = (broken.path().join("absent").display().to_string(), broken.path().display().to_string());
    for (path, code, names) in [
        (absent.as_str(), 5, "absent"),
        (&broken, 5, "adapter_config.json: peft_type: \"IA3\" is not supported"),
        (model(), 5, "adapter_config.json is missing"),
        (&llama, 2, "\"base_model.model.model.layers.0.mlp.down_proj.lora_A.weight\" adapts none of the maps"),
        (&text, 2, "base_model.model.model.layers.0."),
    ] {
        for command in [&["run", "-m", model(), "--lora", path, "Hi"][..], &["serve", "-m", model(), "--lora", path]] {
            let message = refused(command, code);
            assert!(message.starts_with("error: ") && message.contains(names), "{command:?}: {message}");
            assert!(message.contains("\nhint:  "), "{command:?}: {message}");
        }
    }
}

#[test]
fn only_gguf_models_are_packed_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let not_gguf = refused(&["quantize", model(), &path("out.puna"), "--to", "packed"], 2);
    assert!(not_gguf.contains("is no GGUF file") && not_gguf.contains("hint:  write a GGUF file first"), "{not_gguf}");
    let name = refused(&["quantize", model(), &path("out.gguf"), "--to", "packed"], 2);
    assert!(name.contains("does not end in .puna"), "{name}");
    std::fs::write(path("out.puna"), "mine").expect("a file");
    let exists = refused(&["quantize", model(), &path("out.puna"), "--to", "packed"], 2);
    assert!(exists.contains("exists") && exists.contains("--force"), "{exists}");
    assert_eq!(std::fs::read(path("out.puna")).expect("still there"), b"mine");
}
