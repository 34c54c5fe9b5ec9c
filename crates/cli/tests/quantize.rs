//! `puna quantize` from outside: what it writes is read again, and what it refuses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use formats::gguf::{Gguf, Value};
use formats::{Checkpoint, DType, NewTensor, map_file};
use tensor::Format;

fn puna(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.args(arguments).env_remove("PUNA_MODEL").env_remove("PUNA_THREADS").output().expect("puna starts")
}

fn ok(arguments: &[&str]) -> String {
    let output = puna(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&ok(arguments)).expect("JSON")
}

/// The message of a command that has to end with `code`.
fn refused(arguments: &[&str], code: i32) -> String {
    let output = puna(arguments);
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(errors.starts_with("error: "), "{errors}");
    errors
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn quantize(from: &Path, to: &Path, format: &str) -> String {
    ok(&["quantize", text(from), text(to), "--to", format])
}

fn read(path: &Path) -> Gguf {
    Gguf::parse(path, &map_file(path).expect("mapped")).expect("parsed")
}

/// The format of each tensor.
fn formats_of(path: &Path) -> Vec<(String, &'static str)> {
    read(path).tensors.iter().map(|t| (t.name.clone(), t.dtype.name())).collect()
}

/// A folder of the Llama 4 kind that a GGUF file can describe, with a tokenizer that merges.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    it::speaking::write_with(folder.path(), &["th", "the", " the"]).expect("the toy is written");
    it::speaking::assume_published_settings(folder.path()).expect("the config is changed");
    folder
}

/// The names in a folder, hidden ones too.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("listed");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn a_folder_becomes_files_that_answer_the_same() {
    let (source, out) = (folder(), tempfile::tempdir().expect("a temporary folder"));
    std::fs::write(source.path().join("reasoning_config.json"), r#"{"budget_message":"Now."}"#).expect("it is written");
    let file = out.path().join("toy.gguf");
    let report = json(&["quantize", text(source.path()), text(&file), "--to", "f32", "--json"]);
    assert_eq!(names_in(out.path()), ["mmproj-toy.gguf", "toy.gguf"]);
    let sizes: Vec<u64> =
        report["files"].as_array().expect("files").iter().map(|f| f["bytes"].as_u64().unwrap_or(0)).collect();
    let on_disk =
        ["mmproj-toy.gguf", "toy.gguf"].map(|name| out.path().join(name).metadata().expect("it is there").len());
    assert_eq!(sizes, on_disk);
    // Ids, template and numbers: greedy answers are equal only if all of it is.
    let answer = |model: &Path, prompt: &str| {
        json(&["run", "-m", text(model), "--temp", "0", "--max-tokens", "24", "--json", prompt])
    };
    for prompt in ["the weather of the day", "12345 日本 <|eot|>"] {
        let (of_folder, of_file) = (answer(source.path(), prompt), answer(&file, prompt));
        assert_eq!(of_folder["ids"], of_file["ids"], "{prompt}");
        assert_eq!(of_folder["usage"], of_file["usage"], "{prompt}");
        let ids = |model: &Path| json(&["tokenize", "-m", text(model), "--json", prompt])["ids"].clone();
        assert_eq!(ids(source.path()), ids(&file), "{prompt}");
    }
    let message = |model: &Path| {
        let checkpoint = Checkpoint::open(model).expect("it is read");
        checkpoint.reasoning.map(|reasoning| reasoning.budget_message)
    };
    assert_eq!((message(source.path()), message(&file)), (Some("Now.".into()), Some("Now.".into())));
    let logits = |model: &Path| {
        let trace = out.path().join("trace.safetensors");
        ok(&["trace", text(model), "--ids", "1,70,80,256,258,90", "--only", "logits", "--out", text(&trace)]);
        std::fs::read(&trace).expect("the trace")
    };
    assert_eq!(logits(source.path()), logits(&file));
}

#[test]
fn every_format_is_read_again_with_the_formats_of_the_table() {
    let (source, out) = (folder(), tempfile::tempdir().expect("a temporary folder"));
    let f32 = out.path().join("f32.gguf");
    quantize(source.path(), &f32, "f32");
    // Rows of the toy are 32 and 64 long: what has blocks of 256 falls back, and the output map has at least Q8_0.
    for (format, matrices, output) in [
        ("f32", "F32", "F32"),
        ("f16", "F16", "F16"),
        ("BF16", "BF16", "BF16"),
        ("q8_0", "Q8_0", "Q8_0"),
        ("Q4_0", "Q4_0", "Q8_0"),
        ("q4_1", "Q4_1", "Q8_0"),
        ("q5_0", "Q5_0", "Q8_0"),
        ("q5_1", "Q5_1", "Q8_0"),
        ("q2_k", "Q4_0", "Q8_0"),
        ("q3_k", "Q4_0", "Q8_0"),
        ("q4_k", "Q5_0", "Q8_0"),
        ("q5_k", "Q5_1", "Q8_0"),
        ("q6_k", "Q8_0", "Q8_0"),
    ] {
        let path = out.path().join(format!("again-{format}.gguf"));
        let said = quantize(&f32, &path, format);
        assert!(said.contains(&format!(" in {matrices} (")), "{said}");
        for (name, got) in formats_of(&path) {
            let want = match name.as_str() {
                "output.weight" => output,
                name if name.ends_with("norm.weight")
                    || name.contains("ffn_gate_inp")
                    || name == "rope_freqs.weight" =>
                {
                    "F32"
                }
                _ => matrices,
            };
            assert_eq!(got, want, "{format} {name}");
        }
        assert_eq!(Checkpoint::open(&path).expect("it opens").config.text.layers.len(), 8);
    }
    // The mixtures differ from their base in the layers of the table: of 8 layers 0, 3, 6 and 7.
    let mixed = out.path().join("mixed.gguf");
    quantize(&f32, &mixed, "q4_k_m");
    let more: Vec<String> = formats_of(&mixed)
        .into_iter()
        .filter(|(name, format)| name.starts_with("blk.") && *format == "Q8_0")
        .map(|(name, _)| name)
        .collect();
    let of = |part: &str| more.iter().filter(|name| name.contains(part)).count();
    assert_eq!((more.len(), of("attn_v"), of("ffn_down_exps"), of("ffn_down_shexp")), (12, 4, 4, 4), "{more:?}");
    assert!(["blk.0.", "blk.3.", "blk.6.", "blk.7."].iter().all(|layer| of(layer) == 3), "{more:?}");
}

#[test]
fn what_is_in_the_format_already_keeps_its_bytes() {
    let (source, out) = (folder(), tempfile::tempdir().expect("a temporary folder"));
    let [a, b] = ["a.gguf", "b.gguf"].map(|name| out.path().join(name));
    quantize(source.path(), &a, "q4_1");
    quantize(&a, &b, "q4_1");
    let (first, second) = (read(&a), read(&b));
    assert_eq!(first.tensors.len(), second.tensors.len());
    for tensor in &first.tensors {
        assert_eq!(second.tensor(&tensor.name).map(|t| &*t.bytes), Some(&*tensor.bytes), "{}", tensor.name);
    }
    let keys =
        |gguf: &Gguf| gguf.metadata.iter().map(|(k, v)| (k.to_owned(), v.clone())).collect::<Vec<(String, Value)>>();
    assert_eq!(keys(&first), keys(&second));
    assert_eq!(first.metadata.get_u32("general.file_type").expect("a file type"), 3);
    // One thread or several: the same file.
    let c = out.path().join("c.gguf");
    ok(&["quantize", text(source.path()), text(&c), "--to", "q4_1", "--threads", "1"]);
    assert_eq!(std::fs::read(&a).expect("a"), std::fs::read(&c).expect("c"));
}

#[test]
fn what_can_not_be_written_is_refused() {
    let (source, out) = (folder(), tempfile::tempdir().expect("a temporary folder"));
    let from = text(source.path());
    let [there, new] = ["there.gguf", "new.gguf"].map(|name| out.path().join(name));
    std::fs::write(&there, "mine").expect("written");
    let (projector, config) = (out.path().join("mmproj-taken.gguf"), source.path().join("config.json"));
    std::fs::write(&projector, "mine").expect("written");
    let (in_file, nowhere) = (there.join("x.gguf"), Path::new("/nonexistent/x.gguf").to_owned());
    for (input, output, format, code, words) in [
        (from, there.clone(), "q4_0", 2, "there.gguf exists\nhint:  --force"),
        (from, out.path().join("taken.gguf"), "q4_0", 2, "mmproj-taken.gguf exists"),
        (from, out.path().join("new.bin"), "q4_0", 2, "does not end in .gguf\nhint:  "),
        (from, nowhere, "q4_0", 2, "is no folder to write to\nhint:  "),
        (from, in_file, "q4_0", 2, "is no folder to write to\nhint:  "),
        (from, new.clone(), "q4", 2, "q4_0"),
        (from, new.clone(), "q4km", 2, "a similar value exists: 'q4_k_m'"),
        (text(&config), new.clone(), "q4_0", 2, "holds no weights"),
        ("/nonexistent", new.clone(), "q4_0", 5, "/nonexistent"),
        (text(&there), new.clone(), "q4_0", 5, "there.gguf"),
        (text(&toy("scout")), new.clone(), "q4_0", 2, "no tokenizer"),
        (text(&toy("text")), new.clone(), "q4_0", 2, "no tokenizer"),
    ] {
        let message = refused(&["quantize", input, text(&output), "--to", format], code);
        assert!(message.contains(words), "{input} {format}: {message}");
    }
    assert_eq!(names_in(out.path()), ["mmproj-taken.gguf", "there.gguf"], "nothing is left behind");
    assert_eq!(std::fs::read(&there).expect("there"), b"mine");
    ok(&["quantize", from, text(&there), "--to", "q4_0", "--force"]);
    assert_eq!(read(&there).tensor("blk.0.attn_q.weight").map(|t| t.dtype.name()), Some("Q4_0"));
}

fn toy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/toy").join(name)
}

/// A model whose embedding table of `rows` × `width` f32 is a hole: it takes no room, and is all zeros.
#[cfg(target_os = "linux")]
fn hole(file: &Path, rows: u32, width: u32) {
    let number = |key: &'static str, n: u32| (key, Value::U32(n));
    let metadata = [
        ("general.architecture", Value::String("llama".into())),
        number("llama.vocab_size", rows),
        number("llama.context_length", 32),
        number("llama.embedding_length", width),
        number("llama.feed_forward_length", 32),
        number("llama.block_count", 1),
        number("llama.attention.head_count", width / 32),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ];
    let info = |shape: &'static [usize]| NewTensor {
        name: "token_embd.weight",
        dtype: DType::Weight(Format::F32),
        shape,
        bytes: &[0; 4],
    };
    // The header is that of a table of one number with another shape.
    formats::gguf::write(file, &metadata, &[info(&[1, 1])]).expect("written");
    let mut bytes = std::fs::read(file).expect("read");
    let axes = [1u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
    let at = bytes.windows(16).rposition(|window| window == axes).expect("the shape");
    bytes[at..at + 8].copy_from_slice(&u64::from(width).to_le_bytes());
    bytes[at + 8..at + 16].copy_from_slice(&u64::from(rows).to_le_bytes());
    std::fs::write(file, &bytes).expect("written");
    let len = bytes.len() as u64 + 4 * u64::from(rows) * u64::from(width);
    std::fs::File::options().write(true).open(file).and_then(|file| file.set_len(len)).expect("a hole");
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_larger_than_the_disk_is_refused_before_anything_is_written() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let (file, new) = (out.path().join("hole.gguf"), out.path().join("new.gguf"));
    hole(&file, 1 << 24, 1 << 17); // 8 TiB, more than a test machine has left
    let message = refused(&["quantize", text(&file), text(&new), "--to", "f32"], 2);
    assert!(message.contains("are free on that disk\nhint:  make room"), "{message}");
    assert_eq!(names_in(out.path()), ["hole.gguf"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_file_leaves_nothing_behind() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let (file, new) = (out.path().join("hole.gguf"), out.path().join("new.gguf"));
    hole(&file, 1 << 18, 1 << 12); // 4 GiB: seconds of work, of which the first moment is waited for
    let mut child = Command::new(env!("CARGO_BIN_EXE_puna"))
        .args(["quantize", text(&file), text(&new), "--to", "q4_0"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("puna starts");
    while names_in(out.path()).len() == 1 {
        assert!(child.try_wait().expect("a state").is_none(), "puna ended before it wrote anything");
        std::thread::yield_now();
    }
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(interrupted.success());
    assert_eq!(child.wait().expect("puna ends").code(), Some(130));
    assert_eq!(names_in(out.path()), ["hole.gguf"]);
}
