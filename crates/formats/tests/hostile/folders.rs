//! Broken checkpoint folders.

use std::path::{Path, PathBuf};

use formats::gguf::Value;
use formats::{DType, NewTensor, gguf, safetensors};
use tensor::Format;

/// Breaks the sound folder at the path and says what to open.
type Make = Box<dyn Fn(&Path) -> PathBuf>;

const INDEX: &str = "model.safetensors.index.json";
const SHARDS: [&str; 2] = ["s-1.safetensors", "s-2.safetensors"];

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

fn shard(path: &Path, name: &str) {
    let tensor = NewTensor { name, dtype: DType::Weight(Format::F32), shape: &[2], bytes: &[1; 8] };
    safetensors::write(path, &[tensor]).unwrap();
}

/// A folder with two shards.
pub fn sound(folder: &Path) {
    write(folder, "config.json", r#"{"model_type":"llama","num_hidden_layers":1}"#);
    write(folder, INDEX, &index("a", SHARDS[0], "b", SHARDS[1]));
    shard(&folder.join(SHARDS[0]), "a");
    shard(&folder.join(SHARDS[1]), "b");
}

/// Bytes of all files in the folder.
pub fn size(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter_map(|path| std::fs::metadata(path).ok()).map(|about| usize::try_from(about.len()).unwrap()).sum()
}

fn index(a: &str, in_a: &str, b: &str, in_b: &str) -> String {
    format!(r#"{{"metadata":{{"total_size":16}},"weight_map":{{"{a}":"{in_a}","{b}":"{in_b}"}}}}"#)
}

pub fn broken() -> Vec<(String, Make)> {
    let mut cases: Vec<(String, Make)> = Vec::new();
    let mut add = |what: &str, make: Make| cases.push((what.into(), make));
    for name in [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/../s-1.safetensors",
        "..\\\\x.safetensors",
        "C:x.safetensors",
        "",
        ".",
        "..",
        "s-1",
        "config.json",
        "s-9.safetensors",
        ".s.safetensors",
        "s\\u0000.safetensors",
        "s-1.safetensors/",
        "file:///s-1.safetensors",
    ] {
        add(&format!("shard {name:?}"), in_index(index("a", SHARDS[0], "b", name)));
    }
    add("a long shard name", in_index(index("a", SHARDS[0], "b", &format!("{}.safetensors", "x".repeat(300)))));
    add("a tensor of another shard", in_index(index("b", SHARDS[0], "b", SHARDS[1])));
    add("a tensor of no shard", in_index(index("a", SHARDS[0], "c", SHARDS[1])));
    for json in [
        "",
        "{",
        "[]",
        "{}",
        "{\"weight_map\":{}}",
        "{\"weight_map\":[]}",
        "{\"weight_map\":null}",
        "{\"weight_map\":{\"a\":5}}",
        "{\"weight_map\":{\"a\":null}}",
        "{\"weight_map\":{\"a\":[[[[",
        "{\"weight_map\":{\"a\":\"s-1.safetensors\"},\"weight_map\":{\"a\":\"s-1.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"s-1.safetensors\"}} x",
    ] {
        add(&format!("index {json}"), in_index(json.into()));
    }
    let entry = |i: usize| format!("\"t{i}\":\"s-{i}.safetensors\"");
    let many: Vec<String> = (0..20_000).map(entry).collect();
    add("20000 shards", in_index(format!("{{\"weight_map\":{{{}}}}}", many.join(","))));
    let many: Vec<String> = (0..100_000).map(|i| format!("\"t{i}\":\"s-1.safetensors\"")).collect();
    add("100000 tensors of one shard", in_index(format!("{{\"weight_map\":{{{}}}}}", many.join(","))));
    let long = format!("{{\"weight_map\":{{\"{}\":\"s-1.safetensors\"}}}}", "n".repeat(1 << 20));
    add("a tensor name of 1 MiB", in_index(long));
    add_files(&mut add);
    add_ggufs(&mut add);
    #[cfg(unix)]
    add_links(&mut add);
    cases
}

fn in_index(json: String) -> Make {
    Box::new(move |folder| {
        write(folder, INDEX, &json);
        folder.into()
    })
}

fn add_files(add: &mut dyn FnMut(&str, Make)) {
    let mut folder = |what: &str, change: fn(&Path)| {
        add(
            what,
            Box::new(move |folder| {
                change(folder);
                folder.into()
            }),
        );
    };
    folder("no config", |f| std::fs::remove_file(f.join("config.json")).unwrap());
    folder("no weights", |f| std::fs::remove_file(f.join(INDEX)).unwrap());
    folder("no second shard", |f| std::fs::remove_file(f.join(SHARDS[1])).unwrap());
    folder("an empty shard", |f| write(f, SHARDS[1], ""));
    folder("a tensor in two shards", |f| {
        let pair = ["a", "b"].map(|name| NewTensor { name, dtype: DType::U8, shape: &[1], bytes: &[0] });
        safetensors::write(&f.join(SHARDS[1]), &pair).unwrap();
    });
    folder("an empty single file", |f| write(f, "model.safetensors", ""));
    folder("a folder in place of a shard", |f| {
        std::fs::remove_file(f.join(SHARDS[1])).unwrap();
        std::fs::create_dir(f.join(SHARDS[1])).unwrap();
    });
    folder("a folder in place of the config", |f| {
        std::fs::remove_file(f.join("config.json")).unwrap();
        std::fs::create_dir(f.join("config.json")).unwrap();
    });
    folder("a config of 17 MiB", |f| write(f, "config.json", &" ".repeat(17 << 20)));
    folder("a bad generation config", |f| write(f, "generation_config.json", "{\"top_p\":7}"));
    folder("a generation config of 2 MiB", |f| write(f, "generation_config.json", &" ".repeat(2 << 20)));
    folder("a bad reasoning config", |f| write(f, "reasoning_config.json", "{\"start\":7}"));
    folder("a bad preprocessor config", |f| write(f, "preprocessor_config.json", "{\"size\":7}"));
    folder("a bad processor config", |f| write(f, "processor_config.json", "{\"patch_size\":0}"));
    add("nothing there", Box::new(|f| f.join("absent")));
    add(
        "a file of another kind",
        Box::new(|f| {
            write(f, "model.pth", "");
            f.join("model.pth")
        }),
    );
}

fn part(folder: &Path, nth: u16, n_parts: u16, name: &str) -> PathBuf {
    let path = folder.join(format!("m-{:05}-of-{n_parts:05}.gguf", nth + 1));
    let metadata = [("split.no", Value::U16(nth)), ("split.count", Value::U16(2))];
    let tensor = NewTensor { name, dtype: DType::Weight(Format::F32), shape: &[2], bytes: &[1; 8] };
    gguf::write(&path, &metadata, &[tensor]).unwrap();
    path
}

fn add_ggufs(add: &mut dyn FnMut(&str, Make)) {
    add("a part alone", Box::new(|f| part(f, 0, 2, "a")));
    add("a second part alone", Box::new(|f| part(f, 1, 2, "a")));
    add("a part of another count", Box::new(|f| part(f, 0, 1, "a")));
    add(
        "a tensor in two parts",
        Box::new(|f| {
            part(f, 0, 2, "a");
            part(f, 1, 2, "a")
        }),
    );
    add(
        "part 3 of 2",
        Box::new(|f| {
            let path = f.join("m-00003-of-00002.gguf");
            std::fs::rename(part(f, 0, 2, "a"), &path).unwrap();
            path
        }),
    );
    add(
        "a part under a name of its own",
        Box::new(|f| {
            let path = f.join("m.gguf");
            std::fs::rename(part(f, 0, 2, "a"), &path).unwrap();
            path
        }),
    );
    add(
        "an empty GGUF file",
        Box::new(|f| {
            write(f, "m.gguf", "");
            f.join("m.gguf")
        }),
    );
    add(
        "two models",
        Box::new(|f| {
            std::fs::remove_file(f.join("config.json")).unwrap();
            write(f, "m.gguf", "");
            write(f, "n.gguf", "");
            f.into()
        }),
    );
}

#[cfg(unix)]
fn add_links(add: &mut dyn FnMut(&str, Make)) {
    for (name, target) in [
        ("config.json", "/etc/hostname"),
        ("config.json", "/dev/zero"),
        ("config.json", "config.json"),
        (SHARDS[1], "/dev/zero"),
        (SHARDS[1], "absent"),
        (SHARDS[1], "../s.safetensors"),
        ("tokenizer.json", "/etc/hostname"),
        ("generation_config.json", "/etc/hostname"),
        ("model.safetensors", "/etc/hostname"),
    ] {
        add(
            &format!("{name} links to {target}"),
            Box::new(move |folder| {
                let path = folder.join(name);
                let _ = std::fs::remove_file(&path);
                std::os::unix::fs::symlink(target, path).unwrap();
                folder.into()
            }),
        );
    }
}
