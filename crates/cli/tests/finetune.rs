//! `puna finetune` and `puna export` from outside.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn puna(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.args(arguments).current_dir(folder).env("PUNA_CACHE_DIR", folder.join("cache"));
    command.output().expect("puna starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ok(folder: &Path, arguments: &[&str]) -> String {
    let output = puna(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A toy that can be spoken to, conversations, and pairs of answers.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    it::speaking::write_with(&folder.path().join("toy"), &["aa", "th"]).expect("the toy is written");
    it::speaking::assume_published_settings(&folder.path().join("toy")).expect("the toy is changed");
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let rows = (0..16).map(|i| json!({"messages": [turn("user", &format!("say {i}")), turn("assistant", "aaaa")]}));
    write(folder.path(), "rows.jsonl", rows);
    let pairs = (0..8).map(|i| {
        let answer = |text: &str| json!([turn("assistant", text)]);
        json!({"prompt": [turn("user", &format!("say {i}"))], "chosen": answer("aaaa"), "rejected": answer("zzzz")})
    });
    write(folder.path(), "pairs.jsonl", pairs);
    folder
}

fn write(folder: &Path, name: &str, rows: impl Iterator<Item = Value>) {
    let text: String = rows.map(|row| format!("{row}\n")).collect();
    fs::write(folder.join(name), text).expect("rows are written");
}

const STEPS: [&str; 10] = ["--steps", "6", "--batch", "1", "--length", "96", "--held-out", "0.2", "--threads", "2"];

/// The losses of all steps, and what was measured of what is held out.
fn metrics(folder: &Path, out: &str) -> (Vec<f64>, Vec<f64>) {
    let text = fs::read_to_string(folder.join(out).join("metrics.jsonl")).expect("metrics are written");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let all = |key: &str| lines.iter().filter_map(|line| line[key].as_f64()).collect();
    (all("loss"), all("held_out"))
}

fn answer(folder: &Path, model: &[&str]) -> String {
    let asked = ["run", "--raw", "say 3", "--max-tokens", "6", "--temperature", "0", "-m"];
    ok(folder, &[&asked[..], model].concat())
}

#[test]
fn an_adapter_learns_and_is_used_and_merged() {
    let folder = folder();
    let path = folder.path();
    let command = ["finetune", "-m", "toy", "--data", "rows.jsonl", "-o", "out", "--rank", "4", "--lr", "1e-2"];
    let all = [&command[..], &STEPS[..], &["--write-steps", "steps.jsonl", "--evaluate-every", "3"]].concat();
    let shown = ok(path, &[&all[..], &["--dry-run"]].concat());
    assert!(shown.contains("in an adapter of 56 maps") && shown.contains("memory: about "), "{shown}");
    assert!(!path.join("out").exists());
    let told = ok(path, &all);
    assert!(told.contains("puna run -m toy --lora out/adapter"), "{told}");
    let (losses, held_out) = metrics(path, "out");
    assert!(losses.len() == 6 && losses[5] < losses[0] - 0.2, "{losses:?}");
    assert!(held_out.len() == 3 && held_out[2] < held_out[0] - 0.2, "{held_out:?}");
    let steps = fs::read_to_string(path.join("steps.jsonl")).expect("steps are written");
    let steps: Vec<Value> = steps.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(steps.len() == 7 && steps[0]["held_out"] == "rows.jsonl" && steps[6]["step"] == 6, "{steps:?}");
    assert!(steps.iter().all(|step| step["sequences"][0]["inputs"][0].is_u64()), "{steps:?}");

    let adapted = answer(path, &["toy", "--lora", "out/adapter"]);
    assert_ne!(adapted, answer(path, &["toy"]));
    let export = ["export", "-m", "toy", "--lora", "out/adapter", "--to"];
    let told = ok(path, &[&export[..], &["safetensors", "-o", "merged"]].concat());
    assert!(told.contains("56 maps of the adapter are merged"), "{told}");
    assert_eq!(answer(path, &["merged"]), adapted);
    ok(path, &[&export[..], &["gguf-f32", "-o", "merged.gguf"]].concat());
    assert_eq!(answer(path, &["merged.gguf"]), adapted);
    // And into a GGUF file's weights.
    ok(path, &["export", "-m", "toy", "--to", "gguf-f32", "-o", "toy.gguf"]);
    ok(path, &["export", "-m", "toy.gguf", "--lora", "out/adapter", "--to", "gguf-f32", "-o", "again.gguf"]);
    assert_eq!(answer(path, &["again.gguf"]), adapted);
    let refused = puna(path, &[&export[..], &["gguf-f32", "-o", "merged.gguf"]].concat());
    assert!(refused.status.code() == Some(2) && said(&refused).contains("--force"), "{}", said(&refused));
    let refused = puna(path, &["export", "-m", "toy.gguf", "--to", "safetensors", "-o", "folder"]);
    assert!(refused.status.code() == Some(2) && said(&refused).contains("--to gguf"), "{}", said(&refused));
}

#[test]
fn a_run_that_goes_on_gives_the_same_bits() {
    let folder = folder();
    let path = folder.path();
    let command = |out| {
        [
            &["finetune", "-m", "toy", "--data", "rows.jsonl", "-o", out, "--save-every", "2", "--lr", "1e-2"][..],
            &STEPS[..],
        ]
        .concat()
    };
    ok(path, &command("whole"));
    ok(path, &command("parts"));
    fs::remove_dir_all(path.join("parts/checkpoints/step-000006")).expect("the newest is lost");
    fs::remove_dir_all(path.join("parts/adapter")).expect("the adapter is lost");
    let refused = puna(path, &command("parts"));
    assert!(refused.status.code() == Some(2) && said(&refused).contains("--resume"), "{}", said(&refused));
    let told = ok(path, &[&command("parts")[..], &["--resume"]].concat());
    assert!(told.contains("going on after step 4"), "{told}");
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        let read = |out: &str| fs::read(path.join(out).join("adapter").join(file)).expect("an adapter");
        assert!(read("whole") == read("parts"), "{file}");
    }
    let other = puna(path, &[&command("parts")[..], &["--resume", "--targets", "q_proj"]].concat());
    assert!(!other.status.success() && said(&other).contains("tensors were saved"), "{}", said(&other));
}

#[test]
fn all_weights_quantised_weights_and_preferences() {
    let folder = folder();
    let path = folder.path();
    ok(path, &["quantize", "toy", "toy-q8.gguf", "--to", "q8_0"]);
    ok(path, &["export", "-m", "toy", "--to", "gguf-f32", "-o", "toy.gguf"]);
    for (method, model, data, lr, result) in [
        ("full", "toy", "rows.jsonl", "1e-3", "out-full/model"),
        ("full", "toy.gguf", "rows.jsonl", "1e-3", "out-gguf/model.gguf"),
        ("qlora", "toy-q8.gguf", "rows.jsonl", "1e-2", "out-qlora/adapter"),
        ("dpo", "toy", "pairs.jsonl", "1e-2", "out-dpo/adapter"),
    ] {
        let out = result.split('/').next().expect("a folder");
        let command = ["finetune", "-m", model, "--data", data, "--method", method, "-o", out, "--evaluate-every", "6"];
        ok(path, &[&command[..], &STEPS[..], &["--lr", lr][..]].concat());
        let (losses, held_out) = metrics(path, out);
        assert!(losses.len() == 6 && losses[5] < losses[0], "{method} of {model}: {losses:?}");
        assert!(held_out.len() == 2 && held_out[1] < held_out[0], "{method} of {model}: {held_out:?}");
        if method == "dpo" {
            assert!((held_out[0] - std::f64::consts::LN_2).abs() < 1e-6, "{held_out:?}");
        }
        match result.contains("adapter") {
            true => answer(path, &[model, "--lora", result]),
            false => answer(path, &[result]),
        };
    }
}

#[test]
fn bad_inputs_are_refused_with_the_way_out() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("broken.jsonl"), "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}\n")
        .expect("written");
    fs::write(path.join("empty.jsonl"), "").expect("written");
    let mut n_refused = 0;
    for (arguments, wants) in [
        (&["-m", "toy", "--data", "nothing.jsonl"][..], "nothing.jsonl"),
        (&["-m", "nothing", "--data", "rows.jsonl"], "nothing"),
        (&["-m", "toy", "--data", "broken.jsonl"], "broken.jsonl:1"),
        (&["-m", "toy", "--data", "empty.jsonl"], "nothing in it to learn from"),
        (&["-m", "toy", "--data", "pairs.jsonl"], "--method dpo"),
        (&["-m", "toy", "--data", "rows.jsonl", "--method", "dpo"], "\"chosen\""),
        (&["-m", "toy", "--data", "rows.jsonl", "--method", "qlora"], "puna quantize"),
        (&["-m", "toy", "--data", "rows.jsonl", "--rank", "0"], "rank 0"),
        (&["-m", "toy", "--data", "rows.jsonl", "--targets", "q_proj,router"], "\"router\""),
        (&["-m", "toy", "--data", "rows.jsonl", "--length", "100000"], "--length 100000"),
        (&["-m", "toy", "--data", "rows.jsonl", "--length", "4"], "--length 4"),
        (&["-m", "toy", "--data", "rows.jsonl", "--batch", "0"], "at least 1"),
        (&["-m", "toy", "--data", "rows.jsonl", "--lr", "nan"], "--lr"),
        (&["-m", "toy", "--data", "rows.jsonl", "--held-out", "0.5"], "--held-out"),
        (&["-m", "toy", "--data", "rows.jsonl", "--adapter", "rows.jsonl"], "adapter"),
    ] {
        let output = puna(path, &[&["finetune", "-o", "out"], arguments].concat());
        assert!(!output.status.success() && said(&output).contains(wants), "{arguments:?}: {}", said(&output));
        assert!(!path.join("out").exists(), "{arguments:?}");
        n_refused += 1;
    }
    assert_eq!(n_refused, 15);
}
