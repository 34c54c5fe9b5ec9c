//! Writing and reading back safetensors and GGUF files, and opening checkpoints made of them.

#![allow(clippy::unwrap_used, clippy::panic)] // a failed expectation of a test is a panic

use std::num::NonZeroUsize;
use std::path::Path;

use formats::config::{Architecture, Ffn, ImageTokens, RopeScaling};
use formats::gguf::{Array, Value};
use formats::{Checkpoint, DType, FormatError, Gguf, NewTensor, gguf, map_file, safetensors};
use tensor::{Format, Pairing, quant::Kind};

const F32: DType = DType::Weight(Format::F32);
const CONFIG: &str = r#"{"model_type":"llama","num_hidden_layers":1}"#;

fn tensor<'a>(name: &'a str, dtype: DType, shape: &'a [usize], bytes: &'a [u8]) -> NewTensor<'a> {
    NewTensor { name, dtype, shape, bytes }
}

fn ramp(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// A safetensors file with one tensor `name` of two f32.
fn write_one(path: &Path, name: &str) {
    safetensors::write(path, &[tensor(name, F32, &[2], &ramp(8))]).unwrap();
}

fn open_error(path: &Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

#[test]
fn safetensors_come_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    let (a, b, c) = (ramp(24), ramp(8), ramp(3));
    let written = [
        tensor("b", F32, &[2, 3], &a),
        tensor("a \"quoted\" é", DType::Weight(Format::BF16), &[4], &b),
        tensor("ids", DType::I64, &[], &a[..8]),
        tensor("bytes", DType::U8, &[3, 1], &c),
        tensor("none", DType::I32, &[0, 7], &[]),
    ];
    safetensors::write(&path, &written).unwrap();
    // The reference reads the same.
    let bytes = std::fs::read(&path).unwrap();
    let reference = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.len(), written.len());
    let read = safetensors::parse(&path, &map_file(&path).unwrap()).unwrap();
    let names: Vec<&str> = read.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["a \"quoted\" é", "b", "bytes", "ids", "none"]);
    for NewTensor { name, dtype, shape, bytes } in written {
        let tensor = read.iter().find(|tensor| tensor.name == name).unwrap();
        assert_eq!((tensor.dtype, tensor.shape.as_slice(), &*tensor.bytes), (dtype, shape, bytes));
        assert_eq!(reference.tensor(name).unwrap().data(), bytes);
    }
    // Nothing but the file is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn safetensors_refuse_what_they_can_not_hold_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    let block = DType::Weight(Format::Block(Kind::Q8_0));
    let error = safetensors::write(&path, &[tensor("a", block, &[32], &ramp(34))]).unwrap_err();
    assert!(matches!(error, FormatError::Unsupported { .. }), "{error}");
    assert!(safetensors::write(&path, &[tensor("a", F32, &[2], &ramp(7))]).is_err());
    let bytes = ramp(4);
    let twice = [tensor("a", F32, &[1], &bytes), tensor("a", F32, &[1], &bytes)];
    assert!(safetensors::write(&path, &twice).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_rewritten_file_replaces_the_old_one_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    write_one(&path, "old");
    write_one(&path, "new");
    assert_eq!(safetensors::parse(&path, &map_file(&path).unwrap()).unwrap()[0].name, "new");
    let error = safetensors::write(Path::new("/"), &[]).unwrap_err();
    assert_eq!(error.file(), Path::new("/"));
}

/// One value of each of the 13 types, and arrays.
fn every_value() -> Vec<(&'static str, Value)> {
    vec![
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-3)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-30_000)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-2_000_000_000)),
        ("f32", Value::F32(1.5)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("ünï".into())),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(-0.1)),
        ("strings", Value::Array(Array::of_strings(["", "a", "über"]))),
        ("i32s", Value::Array(Array::of_i32(&[1, -2, 3]))),
        ("f32s", Value::Array(Array::of_f32(&[0.5, -2.0]))),
    ]
}

#[test]
fn gguf_comes_back_as_written_with_every_type_of_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    let blocks = DType::Weight(Format::Block(Kind::Q8_0));
    let (a, b) = (ramp(24), ramp(2 * 3 * 2 * 34));
    let written = [tensor("z", F32, &[2, 3], &a), tensor("a", blocks, &[2, 3, 64], &b)];
    for alignment in [None, Some(64u32)] {
        let mut metadata = every_value();
        metadata.extend(alignment.map(|n| ("general.alignment", Value::U32(n))));
        gguf::write(&path, &metadata, &written).unwrap();
        let read = Gguf::parse(&path, &map_file(&path).unwrap()).unwrap();
        assert_eq!(read.version, 3);
        assert_eq!(read.metadata.iter().count(), metadata.len());
        for (key, value) in &metadata {
            assert_eq!(read.metadata.get(key), Some(value), "{key}");
        }
        assert_eq!(read.tensors.len(), 2);
        for (tensor, NewTensor { name, dtype, shape, bytes }) in read.tensors.iter().zip(written) {
            assert_eq!((tensor.name.as_str(), tensor.dtype, tensor.shape.as_slice()), (name, dtype, shape));
            assert_eq!(&*tensor.bytes, bytes);
        }
    }
}

#[test]
fn a_gguf_file_fed_in_pieces_is_the_one_written_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, fed) = (folder.path().join("whole.gguf"), folder.path().join("fed.gguf"));
    let (a, b) = (ramp(24), ramp(2 * 34));
    let blocks = DType::Weight(Format::Block(Kind::Q8_0));
    let tensors = [tensor("a", F32, &[2, 3], &a), tensor("b", blocks, &[64], &b)];
    gguf::write(&whole, &every_value(), &tensors).unwrap();
    let infos = tensors.map(|tensor| tensor.info());
    let layout = || gguf::Layout::new(&fed, &every_value(), &infos).unwrap();
    let mut writer = gguf::Writer::create(&fed, layout()).unwrap();
    assert!(!fed.exists());
    for piece in [&a[..5], &[], &a[5..], &b[..1], &b[1..]] {
        writer.write(piece).unwrap();
    }
    writer.finish().unwrap();
    let written = std::fs::read(&fed).unwrap();
    assert_eq!(written, std::fs::read(&whole).unwrap());
    assert_eq!(layout().file_bytes(), written.len());

    // What is not finished leaves nothing, and does not touch what was there.
    for pieces in [&[&a[..5]][..], &[&a[..]], &[&a[..], &b[..], &b[..1]], &[&ramp(25)[..]]] {
        let mut writer = gguf::Writer::create(&fed, layout()).unwrap();
        let fed_well = pieces.iter().try_for_each(|piece| writer.write(piece));
        assert!(fed_well.and_then(|()| writer.finish()).is_err(), "{} pieces", pieces.len());
        assert_eq!(std::fs::read(&fed).unwrap(), written);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

#[test]
fn arrays_iterate_by_their_own_type_only() {
    let strings = Array::of_strings(["", "a", "über"]);
    assert_eq!(strings.strings().unwrap().collect::<Vec<_>>(), ["", "a", "über"]);
    assert!(strings.scalars().is_none() && strings.integers().is_none() && strings.floats().is_none());
    let numbers = Array::of_i32(&[1, -2]);
    assert_eq!(numbers.integers().unwrap().collect::<Vec<_>>(), [1, -2]);
    assert!(numbers.strings().is_none() && numbers.floats().is_none());
    assert_eq!(Array::of_f32(&[0.5]).floats().unwrap().collect::<Vec<_>>(), [0.5]);
    assert_eq!((strings.len(), strings.element_name(), strings.is_empty()), (3, "string", false));
}

#[test]
fn getters_take_any_integer_that_fits_and_name_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    gguf::write(&path, &every_value(), &[]).unwrap();
    let metadata = Gguf::parse(&path, &map_file(&path).unwrap()).unwrap().metadata;
    assert_eq!((metadata.get_u32("u8").unwrap(), metadata.get_u32("u32").unwrap()), (200, 4_000_000_000));
    assert_eq!((metadata.get_f32("f32").unwrap(), metadata.get_f32("f64").unwrap()), (1.5, -0.1));
    assert!(metadata.get_bool("bool").unwrap());
    assert_eq!(metadata.get_str("string").unwrap(), "ünï");
    assert_eq!(metadata.get_array("i32s").unwrap().len(), 3);
    for key in ["i8", "u64", "f32", "string", "strings"] {
        let error = metadata.get_u32(key).unwrap_err();
        assert_eq!((error.file(), error.field()), (path.as_path(), Some(key)));
    }
    assert!(matches!(metadata.get_u32("absent").unwrap_err(), FormatError::Missing { .. }));
    assert_eq!(metadata.find_u32("absent").unwrap(), None);
}

fn count(n: u32) -> Value {
    Value::U32(n)
}

/// Metadata of a small `llama4` with `n_experts`, and a tensor's shape for its divisors.
fn llama4_metadata(n_experts: u32) -> Vec<(&'static str, Value)> {
    vec![
        ("general.architecture", Value::String("llama4".into())),
        ("llama4.block_count", count(8)),
        ("llama4.context_length", count(4096)),
        ("llama4.embedding_length", count(64)),
        ("llama4.feed_forward_length", count(80)),
        ("llama4.expert_feed_forward_length", count(48)),
        ("llama4.attention.head_count", count(4)),
        ("llama4.attention.head_count_kv", count(2)),
        ("llama4.attention.key_length", count(32)),
        ("llama4.attention.value_length", count(32)),
        ("llama4.rope.dimension_count", count(32)),
        ("llama4.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama4.rope.freq_base", Value::F32(500_000.0)),
        ("llama4.expert_count", count(n_experts)),
        ("llama4.expert_used_count", count(1)),
        ("llama4.interleave_moe_layer_step", count(2)),
        ("llama4.vocab_size", count(256)),
        ("tokenizer.ggml.bos_token_id", count(1)),
        ("tokenizer.ggml.eos_token_id", count(2)),
        ("tokenizer.ggml.eot_token_id", count(3)),
        ("tokenizer.ggml.tokens", Value::Array(Array::of_strings(["<|patch|>", "<|image_end|>", "<|image_start|>"]))),
    ]
}

#[test]
fn a_llama4_gguf_gets_the_facts_that_it_does_not_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let divisors = ramp(64);
    gguf::write(&path, &llama4_metadata(16), &[tensor("rope_freqs.weight", F32, &[16], &divisors)]).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(checkpoint.is_gguf() && checkpoint.tensors.contains_key("rope_freqs.weight"));
    let (config, text) = (&checkpoint.config, &checkpoint.config.text);
    assert_eq!(config.architecture, Architecture::Llama4Text);
    assert!(config.tie_word_embeddings && text.qk_norm);
    assert_eq!((text.bos, text.eos.as_slice(), text.pairing), (Some(1), &[2, 3][..], Pairing::Interleaved));
    assert_eq!(text.rope.scaling, RopeScaling::Divisors);
    let temperature = text.temperature.as_ref().unwrap();
    assert_eq!((temperature.floor_scale, temperature.scale), (8192.0, 0.1));
    for (i, layer) in text.layers.iter().enumerate() {
        assert_eq!(layer.rotated, i % 4 != 3);
        assert_eq!(layer.chunk.map(NonZeroUsize::get), (i % 4 != 3).then_some(8192));
        let moe = Ffn::Moe { width: 48, n_experts: 16, top_k: 1, shared_width: 48 };
        assert_eq!(layer.ffn, if i % 2 == 1 { moe } else { Ffn::Dense { width: 80 } });
    }
    assert_eq!(text.layers.len(), 8);
}

#[test]
fn a_llama4_gguf_with_128_experts_has_no_qk_norm_and_with_window_0_no_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let mut metadata = llama4_metadata(128);
    metadata.push(("llama4.attention.sliding_window", count(0)));
    gguf::write(&path, &metadata, &[]).unwrap();
    let text = Checkpoint::open(&path).unwrap().config.text;
    assert!(!text.qk_norm);
    assert_eq!(text.rope.scaling, RopeScaling::None);
    assert!(text.layers.iter().all(|layer| layer.rotated && layer.chunk.is_none()));
}

#[test]
fn a_dense_gguf_is_rotated_in_neighbouring_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let metadata = [
        ("general.architecture", Value::String("llama".into())),
        ("llama.block_count", count(2)),
        ("llama.context_length", count(128)),
        ("llama.embedding_length", count(64)),
        ("llama.feed_forward_length", count(96)),
        ("llama.attention.head_count", count(4)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("tokenizer.ggml.tokens", Value::Array(Array::of_strings(["a", "b", "c"]))),
    ];
    gguf::write(&path, &metadata, &[tensor("output.weight", F32, &[2], &ramp(8))]).unwrap();
    let config = Checkpoint::open(&path).unwrap().config;
    let text = &config.text;
    assert!(!config.tie_word_embeddings && !text.qk_norm && text.temperature.is_none());
    assert_eq!((text.n_kv_heads, text.head_len, text.vocab_size), (4, 16, 3));
    assert_eq!(
        (text.rope.theta, &text.rope.scaling, text.pairing),
        (10_000.0, &RopeScaling::None, Pairing::Interleaved)
    );
}

/// Metadata and tensors of a projector for a decoder of 64.
fn write_projector(path: &Path) {
    let metadata = [
        ("general.architecture", Value::String("clip".into())),
        ("clip.projector_type", Value::String("llama4".into())),
        ("clip.vision.image_size", count(56)),
        ("clip.vision.patch_size", count(14)),
        ("clip.vision.embedding_length", count(32)),
        ("clip.vision.feed_forward_length", count(128)),
        ("clip.vision.block_count", count(3)),
        ("clip.vision.projection_dim", count(64)),
        ("clip.vision.attention.head_count", count(2)),
        ("clip.vision.attention.layer_norm_epsilon", Value::F32(1e-5)),
        ("clip.vision.projector.scale_factor", Value::I32(2)),
    ];
    let zeros = vec![0; 128 * 40 * 4];
    let map = |name, shape: &'static [usize; 2]| tensor(name, F32, shape, &zeros[..shape[0] * shape[1] * 4]);
    let tensors = [
        map("mm.model.mlp.1.weight", &[40, 128]),
        map("mm.model.mlp.2.weight", &[40, 40]),
        map("mm.model.fc.weight", &[64, 40]),
    ];
    gguf::write(path, &metadata, &tensors).unwrap();
}

#[test]
fn a_projector_beside_a_gguf_gives_it_a_tower() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    gguf::write(&path, &llama4_metadata(16), &[]).unwrap();
    assert!(Checkpoint::open(&path).unwrap().config.vision.is_none());
    let elsewhere = tempfile::tempdir().unwrap();
    write_projector(&elsewhere.path().join("p.gguf"));
    write_projector(&folder.path().join("mmproj-m.gguf"));
    let given = Checkpoint::open_with_projector(&path, &elsewhere.path().join("p.gguf")).unwrap();
    // The folder, too: the projector is not taken for a second model.
    for checkpoint in [given, Checkpoint::open(&path).unwrap(), Checkpoint::open(folder.path()).unwrap()] {
        let vision = checkpoint.config.vision.unwrap();
        assert_eq!((vision.hidden_size, vision.n_layers, vision.projector_output_dim), (32, 3, 40));
        assert_eq!((vision.joined_patches(), vision.tokens_per_tile(), vision.rope_theta), (2, 4, 10_000.0));
        let tokens = ImageTokens { image_start: 2, image_end: 1, patch: 0 };
        assert_eq!(checkpoint.config.image_tokens, Some(tokens));
        assert_eq!(checkpoint.projector.unwrap().tensors.len(), 3);
        assert!(checkpoint.tensors.is_empty());
    }
}

#[test]
fn a_split_gguf_opens_by_any_part_and_misses_none() {
    let folder = tempfile::tempdir().unwrap();
    let part = |nth: u32| folder.path().join(format!("m-{nth:05}-of-00002.gguf"));
    let mut metadata = llama4_metadata(16);
    metadata.extend([("split.no", Value::U16(0)), ("split.count", Value::U16(2)), ("split.tensors.count", count(2))]);
    gguf::write(&part(1), &metadata, &[tensor("a", F32, &[2], &ramp(8))]).unwrap();
    let missing = open_error(&part(1));
    assert!(missing.ends_with("m-00002-of-00002.gguf is missing"), "{missing}");
    let second = [("split.no", Value::U16(1)), ("split.count", Value::U16(2))];
    gguf::write(&part(2), &second, &[tensor("b", F32, &[1], &ramp(4))]).unwrap();
    for path in [part(1), part(2), folder.path().into()] {
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.tensors.keys().collect::<Vec<_>>(), ["a", "b"]);
    }
    gguf::write(&part(2), &second, &[tensor("a", F32, &[1], &ramp(4))]).unwrap();
    assert!(open_error(&part(1)).contains("a: is in two parts"));
}

#[test]
fn a_folder_opens_with_one_file_or_shards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert!(open_error(path).contains("config.json is missing"));
    write(path, "config.json", CONFIG);
    assert!(open_error(path).contains("model.safetensors"));
    write_one(&path.join("a-1.safetensors"), "x");
    write_one(&path.join("a-2.safetensors"), "y");
    let index = r#"{"metadata":{"total_size":16},"weight_map":{"x":"a-1.safetensors","y":"a-2.safetensors"}}"#;
    write(path, "model.safetensors.index.json", index);
    write(path, "generation_config.json", r#"{"temperature":0.6}"#);
    write(path, "preprocessor_config.json", r#"{"max_patches":4}"#);
    write(path, "tokenizer.json", "{}");
    let checkpoint = Checkpoint::open(path).unwrap();
    assert_eq!(checkpoint.tensors.keys().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(checkpoint.generation.temperature, Some(0.6));
    assert_eq!(checkpoint.preprocessor.as_ref().map(|p| p.max_tiles), Some(4));
    assert_eq!(checkpoint.tokenizer.tokenizer_json, Some(path.join("tokenizer.json")));
    assert_eq!(checkpoint.tokenizer.tokenizer_model, None);
    assert_eq!(checkpoint.tensor("x").unwrap().n_values(), 2);
    assert!(matches!(checkpoint.tensor("z"), Err(FormatError::Missing { .. })));
    write_one(&path.join("model.safetensors"), "whole");
    assert!(Checkpoint::open(path).unwrap().tensors.contains_key("whole"));
}

#[test]
fn a_config_or_a_weight_file_opens_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("some.json");
    write(folder.path(), "some.json", CONFIG);
    assert!(Checkpoint::open(&config).unwrap().tensors.is_empty());
    let weights = folder.path().join("w.safetensors");
    write_one(&weights, "x");
    assert!(open_error(&weights).contains("config.json is missing"));
    write(folder.path(), "config.json", CONFIG);
    assert_eq!(Checkpoint::open(&weights).unwrap().tensors.len(), 1);
    write(folder.path(), "model.bin", "");
    assert!(open_error(&folder.path().join("model.bin")).contains("neither a folder"));
}

#[cfg(unix)]
#[test]
fn links_of_the_hub_cache_are_followed_and_others_out_of_the_folder_are_not() {
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/abc"));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(&blobs).unwrap();
    write(&blobs, "1", CONFIG);
    write_one(&blobs.join("2"), "x");
    std::os::unix::fs::symlink("../../blobs/1", snapshot.join("config.json")).unwrap();
    std::os::unix::fs::symlink("../../blobs/2", snapshot.join("model.safetensors")).unwrap();
    assert_eq!(Checkpoint::open(&snapshot).unwrap().tensors.len(), 1);
    let elsewhere = cache.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::os::unix::fs::symlink(snapshot.join(name), elsewhere.join(name)).unwrap();
    }
    assert!(open_error(&elsewhere).contains("outside of the folder"));
}
