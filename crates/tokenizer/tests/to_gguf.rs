//! A tokenizer written to a GGUF file gives the same ids when it is read back.

mod common;

use common::{all, from_json, json, ranks, sentence_piece};
use serde_json::{Value, json};
use tokenizer::{GgufVocabulary, Specials, Tokenizer};

/// Merges that the patterns allow or forbid: across digits, cases, contractions, and what stands before a word.
const TELLING: [&str; 8] = ["1 2", "12 3", "123 4", "Ġ 1", "o W", "n '", "! Ċ", "/ b"];

/// The `tokenizer.json` of the small vocabulary, with those merges too.
fn telling() -> Value {
    let mut file = json();
    let n_tokens = file["model"]["vocab"].as_object().map_or(0, serde_json::Map::len);
    for (n, merge) in TELLING.iter().enumerate() {
        file["model"]["vocab"][merge.replace(' ', "")] = json!(n_tokens + n);
        file["model"]["merges"].as_array_mut().expect("a list").push(json!(merge));
    }
    // Added tokens are numbered after the vocabulary.
    for token in file["added_tokens"].as_array_mut().expect("a list") {
        token["id"] = json!(token["id"].as_u64().expect("an id") + TELLING.len() as u64);
    }
    file
}

/// The same with other steps before the model.
fn with_steps(pre_tokenizer: Value) -> Value {
    let mut file = telling();
    file["pre_tokenizer"] = pre_tokenizer;
    file["model"]["ignore_merges"] = json!(false);
    file
}

fn split(pattern: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})
}

/// The entries of `tokenizer`, and what is read from them.
fn there_and_back(tokenizer: &Tokenizer, file: &Value) -> (GgufVocabulary, Tokenizer) {
    let n_tokens = tokenizer.vocab_size() + 3;
    let entries = tokenizer.to_gguf("tokenizer", file.to_string().as_bytes(), n_tokens).expect("it has a name");
    assert_eq!((entries.tokens.len(), entries.token_types.len()), (n_tokens, n_tokens));
    let back = Tokenizer::from_gguf(entries.clone()).expect("the entries are sound");
    for text in ["Hello world, don't: 12345 日本 🙂\n\n the<tool> user", "<|eot|>[INST] hellohello", "  the\tthe ", ""]
    {
        assert_eq!(back.encode(text), tokenizer.encode(text), "{text:?}");
    }
    for id in 0..tokenizer.vocab_size() as u32 {
        assert_eq!(back.token_bytes(id), tokenizer.token_bytes(id), "{id}");
        assert_eq!(back.is_control(id), tokenizer.is_control(id), "{id}");
    }
    let ids = |t: &Tokenizer| [t.bos(), t.eos(), t.eot(), t.eom(), t.pad()];
    assert_eq!(ids(&back), ids(tokenizer));
    assert_eq!(back.add_bos(), tokenizer.add_bos());
    assert!((0..3).all(|n| back.decode(&[(n_tokens - 1 - n) as u32], Specials::Keep).is_empty()));
    (entries, back)
}

#[test]
fn each_pattern_is_found_by_what_it_does() {
    let qwen2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let smollm = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true}, byte_level]});
    for (file, pre) in [
        (telling(), "llama-bpe"),
        (with_steps(split(qwen2)), "qwen2"),
        (with_steps(smollm), "smollm"),
        (with_steps(byte_level), "gpt-2"),
    ] {
        let (entries, _) = there_and_back(&from_json(&file), &file);
        assert_eq!((entries.model.as_str(), entries.pre.as_deref()), ("gpt2", Some(pre)));
        assert_eq!(serde_json::json!(entries.merges), file["model"]["merges"], "{pre}");
    }
    let (entries, back) = there_and_back(&ranks(), &Value::Null);
    assert_eq!(entries.pre.as_deref(), Some("llama4"));
    assert_eq!(back.control("<|header_start|>"), ranks().control("<|header_start|>"));
}

#[test]
fn sentence_pieces_get_scores_in_the_order_of_the_merges() {
    let pieces = sentence_piece();
    let vocab: serde_json::Map<String, Value> =
        pieces.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let merges = ["▁ t", "h e", "▁t he", "l l", "he ll", "hell o", "▁ hello", "日 本"];
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false})
    };
    let file = json!({
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": merges}
    });
    let (entries, back) = there_and_back(&from_json(&file), &file);
    assert_eq!((entries.model.as_str(), entries.pre), ("llama", None));
    assert_eq!(entries.token_types[..4], [2, 3, 3, 6]);
    let score = |token: &str| entries.scores[entries.tokens.iter().position(|t| t == token).expect("it is there")];
    assert!(score("▁t") > score("he") && score("he") > score("▁the") && score("▁the") > score("hello"));
    assert_eq!(back.decode(&back.encode("hello the"), Specials::Skip), "hello the");
}

#[test]
fn what_has_no_name_is_refused() {
    let file = with_steps(split(r"[aeiou]+|[^aeiou]+"));
    let tokenizer = from_json(&file);
    let json = file.to_string();
    let refused = tokenizer.to_gguf("tokenizer.json", json.as_bytes(), 5000).expect_err("no such name");
    assert!(refused.to_string().starts_with("tokenizer.json: pre_tokenizer: "), "{refused}");
    let small = tokenizer.to_gguf("tokenizer.json", json.as_bytes(), 10).expect_err("too small");
    assert!(small.to_string().contains("embedding table has 10 rows"), "{small}");
    let mut n_of_gguf = 0;
    for (name, tokenizer) in all().into_iter().filter(|(name, _)| !["ranks", "json"].contains(name)) {
        assert!(tokenizer.to_gguf(name, b"", 10_000).is_err(), "{name}");
        n_of_gguf += 1;
    }
    assert!(n_of_gguf > 0);
}
