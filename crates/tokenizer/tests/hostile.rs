//! Broken files: each is refused with an error that names the file and the field. Runs in release too.

#![allow(clippy::panic)] // a failed expectation outside of a test function is a failed test

mod common;
// The same allocator that counts for the other parsers.
#[path = "../../formats/tests/hostile/meter.rs"]
mod meter;

use serde_json::{Value, json};
use tokenizer::{GgufVocabulary, SpecialTokens, Tokenizer, TokenizerError};

/// Bytes that a refusal may hold at once beyond the file itself.
const SPARE_BYTES: usize = 1 << 20;

/// Fails unless `make`, of a file of `size` bytes, is an error about `file` that contains `names`.
fn refused(what: &str, size: usize, make: impl FnOnce() -> Result<Tokenizer, TokenizerError>, file: &str, names: &str) {
    let (made, peak) = meter::peak(make);
    assert!(peak <= size + SPARE_BYTES, "{what}: held {peak} bytes for a file of {size}");
    let error = made.err().unwrap_or_else(|| panic!("{what}: was accepted")).to_string();
    let why = error.strip_prefix(&format!("{file}: ")).unwrap_or_else(|| panic!("{what}: names no file: {error}"));
    assert!(why.contains(names), "{what}: does not name '{names}': {error}");
    assert!(error.len() < 400, "{what}: {} bytes of error", error.len());
}

/// A change to the sound `tokenizer.json`, by path; the value replaces what is there.
fn changed(path: &str, value: Value) -> Vec<u8> {
    let mut file = common::json();
    *file.pointer_mut(path).unwrap_or_else(|| panic!("{path} is not in the file")) = value;
    file.to_string().into_bytes()
}

#[test]
fn broken_tokenizer_json_is_refused() {
    let split = "/pre_tokenizer/pretokenizers/0";
    let added = "/added_tokens/0";
    let cases: Vec<(&str, Value, &str)> = vec![
        ("", json!([]), "not a JSON object"),
        ("", json!(null), "not a JSON object"),
        ("", json!({}), "model: missing"),
        ("/model", json!(null), "model: not an object"),
        ("/model", json!([]), "model: not an object"),
        ("/model", json!({}), "model.vocab: missing"),
        ("/model/type", json!("Unigram"), "model.type: 'Unigram'"),
        ("/model/type", json!("WordPiece"), "model.type: 'WordPiece'"),
        ("/model/type", json!(7), "model.type: ''"),
        ("/model/vocab", json!(null), "model.vocab: not an object"),
        ("/model/vocab", json!([]), "model.vocab: not an object"),
        ("/model/vocab", json!({}), "model.vocab: there are no tokens"),
        ("/model/vocab", json!({"a": -1}), "model.vocab['a']: not an id"),
        ("/model/vocab", json!({"a": 1.5}), "model.vocab['a']: not an id"),
        ("/model/vocab", json!({"a": "0"}), "model.vocab['a']: not an id"),
        ("/model/vocab", json!({"a": 4294967296u64}), "model.vocab['a']: not an id"),
        ("/model/vocab", json!({"a": u64::MAX}), "model.vocab['a']: not an id"),
        ("/model/vocab", json!({"a": 1e300}), "model.vocab['a']: not an id"),
        ("/model/vocab", json!({"a": 0, "b": 0}), "model.vocab['b']: id 0 is taken"),
        ("/model/vocab", json!({"": 0}), "model.vocab['']: empty"),
        ("/model/vocab/!", json!(4000000000u32), "model.vocab: id 4000000000 among only"),
        ("/model/merges", json!(null), "model.merges: not a list"),
        ("/model/merges", json!({}), "model.merges: not a list"),
        ("/model/merges/0", json!(1), "model.merges[0]: not a pair"),
        ("/model/merges/0", json!("ab"), "model.merges[0]: not a pair"),
        ("/model/merges/0", json!(["a"]), "model.merges[0]: not a pair"),
        ("/model/merges/0", json!(["a", "b", "c"]), "model.merges[0]: not a pair"),
        ("/model/merges/0", json!(["a", 1]), "model.merges[0]: not a pair"),
        ("/model/merges/0", json!("zz q"), "model.merges[0]: 'zz'"),
        ("/model/merges/0", json!("a zz"), "model.merges[0]: 'zz'"),
        ("/model/merges/0", json!("q q"), "model.merges[0]: 'qq'"),
        ("/model/merges/3", json!(["x".repeat(100_000), "y"]), "model.merges[3]"),
        ("/model/dropout", json!(0.1), "model.dropout"),
        ("/model/dropout", json!("x"), "model.dropout"),
        ("/model/continuing_subword_prefix", json!("##"), "model.continuing_subword_prefix"),
        ("/model/end_of_word_suffix", json!("</w>"), "model.end_of_word_suffix"),
        ("/model/unk_token", json!("nope"), "model.unk_token"),
        ("/model/unk_token", json!(3), "model.unk_token"),
        ("/model/fuse_unk", json!("yes"), "model.fuse_unk"),
        ("/model/byte_fallback", json!(1), "model.byte_fallback"),
        ("/model/ignore_merges", json!([]), "model.ignore_merges"),
        ("/added_tokens", json!({}), "added_tokens: not a list"),
        (added, json!(null), "added_tokens[0]"),
        (added, json!("x"), "added_tokens[0]"),
        (added, json!({"id": 0}), "added_tokens[0]: missing field `content`"),
        (added, json!({"content": "x"}), "added_tokens[0]: missing field `id`"),
        (added, json!({"id": -1, "content": "x"}), "added_tokens[0]"),
        (added, json!({"id": 0, "content": ""}), "added_tokens[0]: content ''"),
        (added, json!({"id": 20, "content": "x", "special": true}), "added_tokens[0]: 'x' has id 20"),
        (added, json!({"id": 20, "content": "xyzzy", "special": true}), "added_tokens[0]: id 20 is taken"),
        (added, json!({"id": 5000, "content": "xyzzy", "special": true}), "added_tokens: '<|end_of_text|>' has id"),
        (added, json!({"id": 4294967295u32, "content": "xyzzy"}), "id 4294967295 among only"),
        ("/added_tokens/14", json!({"id": 1, "content": "<|eot|>"}), "there twice"),
        (added, json!({"id": 1, "content": "x", "special": "no"}), "added_tokens[0]"),
        ("/normalizer", json!(3), "normalizer.type: missing"),
        (
            "/normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            "normalizer.type: 'Precompiled'",
        ),
        ("/normalizer", json!({"type": "Prepend"}), "normalizer"),
        ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}), "normalizer"),
        ("/normalizer", json!({"type": "Sequence"}), "normalizer: a Sequence without"),
        ("/normalizer", json!({"type": "Sequence", "normalizers": [null]}), "normalizer[0]: null"),
        ("/normalizer", json!({"type": "Sequence", "normalizers": [{"type": "Nmt"}]}), "normalizer[0].type: 'Nmt'"),
        ("/pre_tokenizer", json!({}), "pre_tokenizer.type: missing"),
        ("/pre_tokenizer", json!({"type": 5}), "pre_tokenizer.type: missing"),
        ("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "pre_tokenizer.type: 'FixedLength'"),
        ("/pre_tokenizer", json!({"type": "Sequence", "pretokenizers": 1}), "pre_tokenizer: a Sequence without"),
        (split, json!({"type": "Split"}), "pre_tokenizer"),
        (
            split,
            json!({"type": "Split", "pattern": {"Regex": "(?<"}, "behavior": "Isolated", "invert": false}),
            "pre_tokenizer",
        ),
        (
            split,
            json!({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Odd", "invert": false}),
            "pre_tokenizer",
        ),
        (split, json!({"type": "Metaspace", "replacement": "too long"}), "pre_tokenizer"),
        ("/decoder", json!({"type": "CTC"}), "decoder.type: 'CTC'"),
        ("/decoder", json!({"type": "Sequence", "decoders": [{"type": "WordPiece"}]}), "decoder[0].type: 'WordPiece'"),
    ];
    for (path, value, names) in &cases {
        let what = format!("{path} = {}", value.to_string().chars().take(80).collect::<String>());
        let bytes = changed(path, value.clone());
        refused(&what, bytes.len(), || Tokenizer::from_json("tokenizer.json", &bytes), "tokenizer.json", names);
    }
    let sound = common::json().to_string();
    let mut n = cases.len();
    for (what, bytes, names) in [
        ("empty", Vec::new(), "not JSON"),
        ("cut", sound.as_bytes()[..sound.len() / 2].to_vec(), "not JSON"),
        ("not UTF-8", [b"\xff\xfe", sound.as_bytes()].concat(), "not JSON"),
        ("too deep", "[".repeat(100_000).into_bytes(), "not JSON"),
        ("trailing", [sound.as_bytes(), b"x"].concat(), "not JSON"),
    ] {
        refused(what, bytes.len(), || Tokenizer::from_json("tokenizer.json", &bytes), "tokenizer.json", names);
        n += 1;
    }
    println!("{n} broken tokenizer.json files refused");
}

#[test]
fn every_cut_and_every_flipped_byte_of_a_rank_file_is_refused_or_harmless() {
    let sound = common::rank_file();
    let parse = |bytes: &[u8]| Tokenizer::from_ranks("tokenizer.model", bytes, SpecialTokens::llama4());
    let (mut n_refused, mut n_accepted) = (0, 0);
    let mut count = |made: Result<Tokenizer, TokenizerError>| match made {
        Ok(tokenizer) => {
            n_accepted += 1;
            assert_eq!(tokenizer.decode(&tokenizer.encode("hé\n"), tokenizer::Specials::Keep), "hé\n");
        }
        Err(error) => {
            n_refused += 1;
            assert!(error.to_string().starts_with("tokenizer.model: "), "{error}");
        }
    };
    for at in (0..sound.len()).step_by(7) {
        count(parse(&sound[..at]));
        for flip in [0x01, 0x20, 0x80] {
            let mut bytes = sound.clone();
            bytes[at] ^= flip;
            count(parse(&bytes));
        }
    }
    println!("{n_refused} damaged rank files refused, {n_accepted} still sound");
    assert!(n_refused > 1000);
}

#[test]
fn broken_rank_files_are_refused() {
    let sound = String::from_utf8(common::rank_file()).expect("it is text");
    let last = sound.lines().count();
    let with = |line: &str| format!("{sound}{line}\n").into_bytes();
    let here = format!("line {}", last + 1);
    let cases: Vec<(&str, Vec<u8>, String)> = vec![
        ("empty", Vec::new(), "tokens: none is the single byte 0".into()),
        ("a byte missing", sound.lines().skip(1).map(|l| format!("{l}\n")).collect::<String>().into(), "line 1".into()),
        ("only one", b"YQ== 0\n".to_vec(), "tokens: none is the single byte 0".into()),
        ("no rank", with("YWJj"), here.clone()),
        ("no token", with(&format!(" {last}")), here.clone()),
        ("blank line", with(""), here.clone()),
        ("gap", with(&format!("enp6 {}", last + 1)), format!("must be {last}")),
        ("repeated rank", with("enp6 0"), format!("must be {last}")),
        ("negative", with("enp6 -1"), here.clone()),
        ("signed", with(&format!("enp6 +{last}")), here.clone()),
        ("leading zero", with(&format!("enp6 0{last}")), here.clone()),
        ("huge", with("enp6 18446744073709551616"), here.clone()),
        ("beyond ids", with("enp6 4294967296"), here.clone()),
        ("fraction", with("enp6 1.5"), here.clone()),
        ("two spaces", with(&format!("enp6  {last}")), here.clone()),
        ("not base64", with(&format!("e*p6 {last}")), format!("{here}: token 'e*p6' is not base64")),
        ("no padding", with(&format!("enp {last}")), here.clone()),
        ("repeated token", with(&format!("YQ== {last}")), "repeats that of rank".into()),
        ("long line", with(&"A".repeat(1 << 20)), here.clone()),
        ("not text", [sound.as_bytes(), b"\xff"].concat(), format!("byte {}", sound.len())),
    ];
    for (what, bytes, names) in &cases {
        let make = || Tokenizer::from_ranks("tokenizer.model", bytes, SpecialTokens::llama4());
        refused(what, bytes.len(), make, "tokenizer.model", names);
    }
    for specials in [SpecialTokens::new(["a", "a"]), SpecialTokens::new([""])] {
        let make = || Tokenizer::from_ranks("tokenizer.model", sound.as_bytes(), specials);
        refused("special tokens", sound.len(), make, "tokenizer.model", "special tokens");
    }
    println!("{} broken rank files refused", cases.len() + 2);
}

#[test]
fn broken_gguf_vocabularies_are_refused() {
    let change = |change: &dyn Fn(&mut GgufVocabulary)| {
        let mut vocabulary = common::gguf("llama-bpe");
        change(&mut vocabulary);
        vocabulary
    };
    let spm = |change: &dyn Fn(&mut GgufVocabulary)| {
        let mut vocabulary = common::sentence_piece();
        change(&mut vocabulary);
        vocabulary
    };
    let n_tokens = common::gguf("llama-bpe").tokens.len() as u32;
    let cases: Vec<(GgufVocabulary, &str)> = vec![
        (change(&|v| v.model = "bert".into()), "tokenizer.ggml.model: 'bert'"),
        (change(&|v| v.model = String::new()), "tokenizer.ggml.model: ''"),
        (change(&|v| v.model = "x".repeat(1 << 20)), "tokenizer.ggml.model"),
        (change(&|v| v.pre = Some("chatglm-bpe".into())), "tokenizer.ggml.pre: 'chatglm-bpe'"),
        (change(&|v| v.pre = Some("\0".into())), "tokenizer.ggml.pre"),
        (change(&|v| v.tokens = Vec::new()), "tokenizer.ggml.tokens: there are none"),
        (change(&|v| _ = v.tokens.pop()), "tokenizer.ggml.token_type"),
        (change(&|v| v.token_types.push(1)), "tokenizer.ggml.token_type"),
        (change(&|v| v.token_types[20] = 0), "tokenizer.ggml.token_type[20]: 0"),
        (change(&|v| v.token_types[20] = 7), "tokenizer.ggml.token_type[20]: 7"),
        (change(&|v| v.token_types[20] = i32::MIN), "tokenizer.ggml.token_type[20]"),
        (change(&|v| v.token_types[3] = 99), "tokenizer.ggml.token_type[3]"),
        (change(&|v| v.token_types[20] = 6), "tokenizer.ggml.tokens[20]"),
        (change(&|v| v.merges = Vec::new()), "tokenizer.ggml.merges: there are none"),
        (change(&|v| v.merges[2] = String::new()), "tokenizer.ggml.merges[2]"),
        (change(&|v| v.merges[2] = "ab".into()), "tokenizer.ggml.merges[2]"),
        (change(&|v| v.merges[2] = " ab".into()), "tokenizer.ggml.merges[2]"),
        (change(&|v| v.merges[2] = "a ".into()), "tokenizer.ggml.merges[2]"),
        (change(&|v| v.merges[2] = "a b c".into()), "tokenizer.ggml.merges[2]"),
        (change(&|v| v.merges[2] = "q q".into()), "tokenizer.ggml.merges[2]: 'qq'"),
        (change(&|v| v.merges[2] = "<|eot |>".into()), "tokenizer.ggml.merges[2]"),
        (change(&|v| v.merges[2] = "< pad>".into()), "tokenizer.ggml.merges[2]: 'pad>'"),
        (change(&|v| v.bos = Some(n_tokens)), "tokenizer.ggml.bos_token_id"),
        (change(&|v| v.eos = Some(u32::MAX)), "tokenizer.ggml.eos_token_id"),
        (change(&|v| v.eot = Some(n_tokens)), "tokenizer.ggml.eot_token_id"),
        (change(&|v| v.eom = Some(n_tokens)), "tokenizer.ggml.eom_token_id"),
        (change(&|v| v.pad = Some(n_tokens)), "tokenizer.ggml.padding_token_id"),
        (change(&|v| v.unknown = Some(n_tokens)), "tokenizer.ggml.unknown_token_id"),
        (spm(&|v| v.scores = Vec::new()), "tokenizer.ggml.scores: 0 for"),
        (spm(&|v| v.scores.push(0.0)), "tokenizer.ggml.scores"),
        (spm(&|v| v.scores[4] = f32::NAN), "tokenizer.ggml.scores[4]"),
        (spm(&|v| v.scores[4] = f32::INFINITY), "tokenizer.ggml.scores[4]"),
        (spm(&|v| v.tokens[10] = "<0x0>".into()), "tokenizer.ggml.tokens[10]"),
        (spm(&|v| v.tokens[10] = "<0x+1>".into()), "tokenizer.ggml.tokens[10]"),
        (spm(&|v| v.tokens[10] = "<0xé>".into()), "tokenizer.ggml.tokens[10]"),
    ];
    println!("{} broken GGUF vocabularies refused", cases.len());
    for (vocabulary, names) in cases {
        let what = names.to_owned();
        refused(&what, 0, || Tokenizer::from_gguf(vocabulary), "model.gguf", names);
    }
}

#[test]
fn broken_tokenizer_configs_are_refused() {
    let cases = [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        (r#"{"bos_token": 5}"#, "bos_token"),
        (r#"{"bos_token": {"text": "x"}}"#, "bos_token"),
        (r#"{"bos_token": "nope"}"#, "bos_token: 'nope'"),
        (r#"{"eos_token": {"content": "nope"}}"#, "eos_token: 'nope'"),
        (r#"{"eos_token": "a"}"#, "eos_token: 'a'"),
        (r#"{"pad_token": []}"#, "pad_token"),
        (r#"{"add_bos_token": "yes"}"#, "add_bos_token"),
        (r#"{"chat_template": 1}"#, "chat_template"),
        (r#"{"chat_template": [{"name": "rag", "template": "x"}]}"#, "chat_template: none is named 'default'"),
    ];
    for (config, names) in cases {
        let sound = common::from_json(&common::json());
        let make = || sound.with_config("tokenizer_config.json", config.as_bytes());
        refused(config, config.len(), make, "tokenizer_config.json", names);
    }
    println!("{} broken tokenizer configs refused", cases.len());
}

#[test]
fn a_sound_config_is_taken() {
    let config = r#"{"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|eom|>", "pad_token": "absent",
        "add_bos_token": false, "chat_template": [{"name": "default", "template": "x"}]}"#;
    let tokenizer = common::from_json(&common::json())
        .with_config("tokenizer_config.json", config.as_bytes())
        .expect("it is sound");
    assert_eq!(tokenizer.bos(), tokenizer.control("<|im_start|>"));
    assert_eq!(tokenizer.eos(), tokenizer.control("<|eom|>"));
    assert_eq!(tokenizer.pad(), tokenizer.control("<|finetune_right_pad|>"));
    assert_eq!((tokenizer.add_bos(), tokenizer.chat_template()), (false, Some("x")));
}

#[test]
fn a_pattern_that_backtracks_for_ever_still_gives_every_byte() {
    let pattern = json!({"Regex": "(a+)+$|b|\\s+"});
    let file = changed("/pre_tokenizer/pretokenizers/0/pattern", pattern);
    let tokenizer = Tokenizer::from_json("tokenizer.json", &file).expect("the pattern is a pattern");
    let text = format!("{}c", "a".repeat(40));
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text), tokenizer::Specials::Keep), text);
}
