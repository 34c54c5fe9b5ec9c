//! Small vocabularies of all three kinds, made of the same few words.

#![allow(dead_code, reason = "each test crate uses another part")]

use base64::Engine as _;
use serde_json::{Value, json};
use tokenizer::{GgufVocabulary, SpecialTokens, Tokenizer};

/// Every prefix of these is a token.
pub const WORDS: [&str; 12] =
    [" the", " hello", "Hello", " world", "\n\n", "user", "assistant", "system", " don", "日本", "🙂", "<|eot"];

/// The merged tokens of the vocabularies, as bytes, the first merged first.
pub fn merged() -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = Vec::new();
    for len in 2..=10 {
        for word in WORDS.iter().filter_map(|w| w.as_bytes().get(..len)) {
            if !tokens.iter().any(|t| t == word) {
                tokens.push(word.to_vec());
            }
        }
    }
    tokens
}

/// A rank file: the single bytes, shuffled, then the merged tokens.
pub fn rank_file() -> Vec<u8> {
    let singles = (0..=255u8).map(|n| vec![n.wrapping_mul(167).wrapping_add(13)]);
    let line = |(rank, token): (usize, Vec<u8>)| {
        format!("{} {rank}\n", base64::engine::general_purpose::STANDARD.encode(token))
    };
    singles.chain(merged()).enumerate().map(line).collect::<String>().into_bytes()
}

/// The rank file's tokenizer with Llama 4's control tokens.
pub fn ranks() -> Tokenizer {
    Tokenizer::from_ranks("tokenizer.model", &rank_file(), SpecialTokens::llama4()).expect("the file is sound")
}

/// The byte-level alphabet, by its definition.
pub fn letter(byte: u8) -> char {
    let itself = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if itself(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !itself(b)).count();
    char::from_u32(256 + before as u32).expect("a letter of Latin Extended-A")
}

pub fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| letter(b)).collect()
}

/// Names that stand for control tokens in the small GGUF and JSON vocabularies.
pub const CONTROLS: [&str; 14] = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|eom|>",
    "<|eot|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|image|>",
    "<|im_start|>",
    "<|im_end|>",
    "<pad>",
    "[INST]",
    "<|finetune_right_pad|>",
];

/// A GGUF vocabulary of model `gpt2`: control tokens, one user-defined token, the alphabet, the merged tokens.
pub fn gguf(pre: &str) -> GgufVocabulary {
    let mut tokens: Vec<String> = CONTROLS.map(str::to_owned).into();
    let mut token_types = vec![3; tokens.len()];
    tokens.push("<tool>".into());
    token_types.push(4);
    tokens.extend((0..=255).map(|b| letter(b).to_string()));
    tokens.extend(merged().iter().map(|t| spell(t)));
    token_types.resize(tokens.len(), 1);
    let merge = |t: &Vec<u8>| format!("{} {}", spell(&t[..t.len() - 1]), spell(&t[t.len() - 1..]));
    GgufVocabulary {
        file: "model.gguf".into(),
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens,
        token_types,
        merges: merged().iter().map(merge).collect(),
        bos: Some(0),
        eos: Some(1),
        ..Default::default()
    }
}

/// A GGUF vocabulary of model `llama`.
pub fn sentence_piece() -> GgufVocabulary {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    let mut token_types = vec![2, 3, 3];
    tokens.extend((0..=255).map(|b| format!("<0x{b:02X}>")));
    token_types.resize(tokens.len(), 6);
    let pieces =
        ["▁", "t", "h", "e", "l", "o", "▁t", "he", "▁the", "ll", "hell", "hello", "▁hello", "日", "日本", "本"];
    tokens.extend(pieces.map(str::to_owned));
    token_types.resize(tokens.len(), 1);
    let scores = (0..tokens.len()).map(|id| if id < 259 { 0.0 } else { 259.0 - id as f32 }).collect();
    GgufVocabulary {
        file: "model.gguf".into(),
        model: "llama".into(),
        tokens,
        token_types,
        scores,
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        ..Default::default()
    }
}

/// The `gpt2` vocabulary as a `tokenizer.json` with Llama 3's pattern.
pub fn json() -> Value {
    let gguf = gguf("llama-bpe");
    let n_added = CONTROLS.len() + 1;
    let vocab: serde_json::Map<String, Value> =
        gguf.tokens[n_added..].iter().enumerate().map(|(id, t)| (t.clone(), id.into())).collect();
    // Numbered after the vocabulary, as the library does.
    let added = gguf.tokens[..n_added].iter().zip(vocab.len()..).map(|(t, id)| {
        json!({"id": id, "content": t, "special": t != "<tool>",
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    });
    let added: Vec<Value> = added.collect();
    let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
        "post_processor": {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocab, "merges": gguf.merges}
    })
}

pub fn from_json(json: &Value) -> Tokenizer {
    Tokenizer::from_json("tokenizer.json", json.to_string().as_bytes()).expect("the file is sound")
}

/// All small tokenizers, with a name each.
pub fn all() -> Vec<(&'static str, Tokenizer)> {
    let mut all = vec![("ranks", ranks()), ("json", from_json(&json()))];
    for pre in ["llama4", "llama-bpe", "smollm", "gpt-2", "qwen2", "default"] {
        all.push((pre, Tokenizer::from_gguf(gguf(pre)).expect("the vocabulary is sound")));
    }
    all.push(("sentence-piece", Tokenizer::from_gguf(sentence_piece()).expect("the vocabulary is sound")));
    all
}
