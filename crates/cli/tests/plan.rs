//! `puna plan` from outside: its table, its JSON, its exit codes, and what it learns.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// `puna plan` with `arguments`, whose figures are kept in `cache`.
fn plan_in(cache: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.arg("plan").args(arguments).env("PUNA_CACHE_DIR", cache);
    command.env_remove("PUNA_THREADS").env_remove("PUNA_ISA").output().expect("puna starts")
}

fn plan(arguments: &[&str]) -> Output {
    let cache = tempfile::tempdir().expect("a folder");
    plan_in(cache.path(), arguments)
}

fn text(output: &Output, code: i32) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn json(output: &Output, code: i32) -> Value {
    serde_json::from_str(&text(output, code)).expect("JSON")
}

fn toy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/toy").join(name)
}

/// Lines of a table by their labels, without what depends on the process.
fn cells(table: &str, label: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.starts_with(label)).expect(label);
    line[label.len()..].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

#[test]
fn scout_and_maverick_stand_side_by_side() {
    let output = plan(&["scout", "maverick", "--ctx", "32768", "--kv", "q8", "--hw", "desktop-32"]);
    let table = text(&output, 0);
    assert!(table.starts_with("machine  desktop-32, 8 threads, 32 GiB RAM (70 GB/s), disk 5.0 GB/s\n"), "{table}");
    assert_eq!(cells(&table, "weights"), ["65.4 GB on disk", "242.8 GB on disk"]);
    assert_eq!(cells(&table, "KV cache 32k, q8"), ["1.5 GiB", "1.5 GiB"]);
    assert_eq!(cells(&table, "verdict"), ["FITS, streaming", "FITS, streaming"]);
    assert_eq!(cells(&table, "forecast error"), ["±20 % speed, ±2 % memory"; 2]);
    for (label, words) in [("better", "GiB RAM: scout:q4"), (" experts cached", "of 54."), ("decode", "tok/s")] {
        assert!(cells(&table, label)[0].contains(words), "{table}");
    }
    assert!(table.contains("assumed: rows spread evenly over experts"), "{table}");
}

#[test]
fn the_exit_code_is_3_where_nothing_fits() {
    let output = plan(&["scout:q8", "--hw", "desktop-32", "--ram", "8"]);
    let table = text(&output, 3);
    assert_eq!(cells(&table, "verdict"), ["DOES NOT FIT"]);
    assert_eq!(cells(&table, "decode"), ["-"]);
    assert!(cells(&table, "better")[0].contains("128 GiB RAM: scout:q8"), "{table}");
    let report = json(&plan(&["scout:q8", "--hw", "desktop-32", "--ram", "8", "--json"]), 3);
    assert_eq!(report["models"][0]["verdict"], "does_not_fit");
    assert_eq!(report["models"][0]["decode"], Value::Null);
}

#[test]
fn the_json_has_a_machine_that_can_be_given_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = json(&plan(&["scout:q4", "--hw", "desktop-64", "--parallel", "4", "--images", "2", "--json"]), 0);
    assert_eq!((&first["version"], &first["sequences"], &first["kv"]), (&1.into(), &4.into(), &"f16".into()));
    let file = folder.path().join("machine.json");
    std::fs::write(&file, first["machine"].to_string()).expect("written");
    let name = file.to_str().expect("UTF-8");
    let again = json(&plan(&["scout:q4", "--hw", name, "--parallel", "4", "--images", "2", "--json"]), 0);
    assert_eq!(first["machine"], again["machine"]);
    // Where the process itself grows by a page, an expert's share of memory changes in the last digit.
    assert_eq!(first["models"][0]["decode"]["compute_s"], again["models"][0]["decode"]["compute_s"]);
    let model = &first["models"][0];
    let keys: Vec<&String> = model.as_object().expect("an object").keys().collect();
    let want = [
        "model",
        "verdict",
        "parameters",
        "active_parameters",
        "disk_bytes",
        "memory",
        "expert_hit_rate",
        "token_bytes",
        "expert_bytes",
        "decode",
        "decode_full_context",
        "first_token",
        "images",
        "better",
        "basis",
        "figures",
    ];
    assert_eq!(keys, want);
    assert_eq!(model["images"]["tokens"], 2 * (17 * 145 + 2));
    let [slow, fast] = [0, 1].map(|i| model["decode"]["tok_per_s"][i].as_f64().expect("a rate"));
    assert!(slow <= fast && slow > 0.0);
}

#[test]
fn a_toy_is_planned_here_from_its_files_and_from_its_config() {
    let folder = toy("scout");
    let path = folder.to_str().expect("UTF-8");
    let report = json(&plan(&[path, "--json", "--threads", "1"]), 0);
    let model = &report["models"][0];
    assert_eq!((&model["verdict"], &model["basis"]), (&"fits".into(), &"forecast".into()));
    assert!(report["machine"]["memory_gb_s"].as_f64().is_some_and(|rate| rate > 0.1), "{report}");
    let config = folder.join("config.json");
    let name = format!("{}:f32", config.display());
    let described = json(&plan(&[&name, "--json", "--images", "1", "--threads", "1"]), 0);
    assert_eq!(described["models"][0]["disk_bytes"], model["disk_bytes"]);
    assert_eq!(described["models"][0]["model"], "config.json:f32");
    let smaller = json(&plan(&[path, "--quant", "q8", "--json", "--hw", "vm-23"]), 0);
    assert!(smaller["models"][0]["disk_bytes"].as_u64() < model["disk_bytes"].as_u64());
}

#[test]
fn what_bench_measured_corrects_the_plan() {
    let (cache, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    it::speaking::write(folder.path()).expect("the toy is written");
    let path = folder.path().to_str().expect("UTF-8");
    let bench = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
        command.args(["bench", "-m", path, "--prefill", "8", "--depth", "0", "--batch", "1", "--tokens", "2"]);
        command.args(["--runs", "1", "--threads", "1", "--json"]).args(arguments).env("PUNA_CACHE_DIR", cache.path());
        let output = command.output().expect("puna starts");
        let lines = text(&output, 0);
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()
    };
    let lines = bench(&["--forecast"]);
    assert!(lines[0]["forecast_tok_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{lines:?}");
    let load = &lines[lines.len() - 1];
    assert!(load["forecast_peak_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{load}");
    assert_eq!(load["work_bytes"].as_u64().map(|bytes| bytes > 0), Some(true));
    let planned = |threads: &str| json(&plan_in(cache.path(), &[path, "--json", "--threads", threads]), 0);
    let known = planned("1");
    assert_eq!((&known["models"][0]["basis"], &known["models"][0]["figures"]), (&"measured".into(), &2.into()));
    assert_eq!(planned("2")["models"][0]["basis"], "forecast", "figures of one thread say nothing of two");
    // A cache that is broken is a cache that is empty.
    std::fs::write(cache.path().join("measured.json"), "{").expect("written");
    assert_eq!(planned("1")["models"][0]["basis"], "forecast");
}

#[test]
fn bad_input_is_refused_with_a_way_out() {
    let toy = toy("text");
    let toy = toy.to_str().expect("UTF-8");
    for (arguments, code, words) in [
        (&["scot"][..], 2, "\"scot\" is neither a file nor a built-in model"),
        (&["scout:q7"], 2, "\"q7\" is no quantisation"),
        (&["scout", "--quant", "tiny"], 2, "one of q2, q3, q4"),
        (&["hf:meta-llama/x"], 2, "does not download"),
        (&["scout", "--hw", "cray"], 2, "desktop-32"),
        (&["scout", "--ram", "-3"], 2, "no size of memory"),
        (&["scout", "--ram", "nan"], 2, "no size of memory"),
        (&["scout", "--parallel", "0"], 2, "count from 1"),
        (&["scout", "--ctx", "0"], 2, "no room"),
        (&["scout", "--ctx", "99999999"], 2, "10485760"),
        (&["scout", "--ctx", "10485760", "--parallel", "1000000000", "--hw", "vm-23"], 2, "too long to plan for"),
        (&[toy, "--hw", toy], 2, "--hw"),
        (&["/dev/null"], 5, "/dev/null"),
    ] {
        let output = plan(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
    }
}
