//! `puna train` from outside.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn train(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.args(["train", "recipe.toml", "--out", "out", "--threads", "2"]).args(arguments).current_dir(folder);
    command.env("PUNA_CACHE_DIR", folder.join("cache")).output().expect("puna starts")
}

/// A toy with a tokenizer, a text, and a recipe of four steps that goes on from the toy.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    it::speaking::write(&folder.path().join("toy")).expect("the toy is written");
    let row = |i: usize| format!("{{\"text\": \"{i}: the sun is warm and the sea is cold.\"}}\n");
    std::fs::write(folder.path().join("text.jsonl"), (0..40).map(row).collect::<String>()).expect("texts are written");
    recipe(folder.path(), "from = \"toy\"", "");
    folder
}

fn recipe(folder: &Path, model: &str, more: &str) {
    let recipe = format!(
        "[model]\n{model}\n[data]\nlength = 24\nheld_out = 0.4\n\
         [[data.source]]\nfile = \"text.jsonl\"\n[optimizer]\nlr = 3e-3\nwarm_up = 2\n\
         [run]\nsteps = 4\ntokens = 48\nsave_every = 2\nevaluate_every = 4\n{more}"
    );
    std::fs::write(folder.join("recipe.toml"), recipe).expect("a recipe is written");
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_recipe_becomes_a_model_that_answers() {
    let folder = folder();
    let output = train(folder.path(), &[]);
    assert!(output.status.success(), "{}", said(&output));
    let metrics = std::fs::read_to_string(folder.path().join("out/metrics.jsonl")).expect("metrics are written");
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let losses: Vec<f64> = lines.iter().filter_map(|line| line["loss"].as_f64()).collect();
    assert!(losses.len() == 4 && losses[3] < losses[0], "{losses:?}");
    assert!(lines.iter().any(|line| line["held_out"].as_f64().is_some_and(f64::is_finite)), "{metrics}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.args(["run", "-m", "out/model", "--raw", "the sun", "--max-tokens", "4", "--temperature", "0"]);
    let answer = command.current_dir(folder.path()).output().expect("puna starts");
    assert!(answer.status.success(), "{}", said(&answer));
    // What is there is not overwritten, and a run that is done has nothing left to do.
    let again = train(folder.path(), &[]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&again).contains("--resume"), "{}", said(&again));
    let resumed = train(folder.path(), &["--resume"]);
    assert!(resumed.status.success() && said(&resumed).contains("after step 4"), "{}", said(&resumed));
}

#[test]
fn a_dry_run_says_what_would_be_and_writes_nothing() {
    let folder = folder();
    let output = train(folder.path(), &["--dry-run"]);
    assert!(output.status.success() && said(&output).contains("4 steps of 48 tokens"), "{}", said(&output));
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_tokenizer_of_ones_own_and_a_size_are_enough() {
    let folder = folder();
    let arguments = ["data", "tokenizer", "text.jsonl", "--tokens", "300", "-o", "own"];
    let made = Command::new(env!("CARGO_BIN_EXE_puna")).args(arguments).current_dir(folder.path()).output();
    let made = made.expect("puna starts");
    assert!(made.status.success(), "{}", said(&made));
    recipe(folder.path(), "size = \"2M\"\ntokenizer = \"own\"", "");
    let output = train(folder.path(), &["--dry-run"]);
    assert!(output.status.success() && said(&output).contains("parameters"), "{}", said(&output));
}

#[test]
fn a_wrong_recipe_is_refused_with_its_name_and_the_way_out() {
    let folder = folder();
    let mut n_refused = 0;
    for (model, more, wants) in [
        ("from = \"toy\"\nsize = \"1M\"", "", "exactly one of"),
        ("size = \"1M\"", "", "tokenizer"),
        ("from = \"nothing\"", "", "nothing"),
        ("from = \"toy\"", "speed = 3\n", "speed"),
        ("size = \"many\"\ntokenizer = \"toy\"", "", "25M"),
        ("size = \"1k\"\ntokenizer = \"toy\"", "", "no room"),
    ] {
        recipe(folder.path(), model, more);
        let output = train(folder.path(), &[]);
        assert!(!output.status.success() && said(&output).contains(wants), "{model} {more}: {}", said(&output));
        assert!(!folder.path().join("out").exists(), "{model} {more}");
        n_refused += 1;
    }
    assert_eq!(n_refused, 6);
}
