//! `puna bench` from outside: its report's shape, and the alternation with another engine.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const TESTS: [&str; 10] = ["--prefill", "5,8", "--depth", "0,4", "--batch", "1,3", "--tokens", "2", "--runs", "2"];

fn bench(model: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.arg("bench").arg("-m").arg(model).args(TESTS).args(["--threads", "2"]).args(arguments);
    command.env_remove("PUNA_MODEL").env("PUNA_CACHE_DIR", model.join("cache")).output().expect("puna starts")
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
        assert!(line["tok_per_s"].as_f64().is_some_and(|speed| speed > 0.0) && share > 0.0 && share <= 1.05, "{line}");
        assert!(["memory", "int8", "f32"].contains(&line["roof"].as_str().expect("a roof")));
    }
    let load = &lines[lines.len() - 1];
    assert_eq!(load["test"], "load");
    assert!(load["seconds"].as_f64().is_some_and(|s| s > 0.0));
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
    ] {
        let output = bench(model.path(), arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(words), "{errors}");
    }
}
