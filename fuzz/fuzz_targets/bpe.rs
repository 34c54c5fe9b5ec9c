//! Any merges over the bytes are a vocabulary or an error; decoding undoes encoding, and no text becomes control.
#![no_main]

use tokenizer::{GgufVocabulary, Specials, Tokenizer};

/// The patterns, by the first byte of the input.
const PRES: [&str; 6] = ["llama4", "llama-bpe", "smollm", "gpt-2", "qwen2", "default"];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [pre, n_merges, rest @ ..] = data else { return };
    let pairs = usize::from(*n_merges).min(rest.len() / 2);
    let (pairs, text) = rest.split_at(2 * pairs);
    let mut tokens: Vec<String> = vec!["<|eot|>".into()];
    let mut token_types = vec![3];
    tokens.extend((0..=255).map(|byte| letter(byte).to_string()));
    let mut merges = Vec::new();
    for pair in pairs.chunks_exact(2) {
        // Byte or earlier merge, so that merges build on each other.
        let part = |at: u8| tokens[1 + usize::from(at) % (tokens.len() - 1)].clone();
        let (left, right) = (part(pair[0]), part(pair[1].wrapping_mul(7)));
        if left.len() + right.len() < 64 {
            merges.push(format!("{left} {right}"));
            tokens.push(left + &right);
        }
    }
    token_types.resize(tokens.len(), 1);
    let vocabulary = GgufVocabulary {
        file: "model.gguf".into(),
        model: "gpt2".into(),
        pre: Some(PRES[usize::from(*pre) % PRES.len()].into()),
        tokens,
        token_types,
        merges,
        ..Default::default()
    };
    let Ok(tokenizer) = Tokenizer::from_gguf(vocabulary) else { return };
    let text = String::from_utf8_lossy(text);
    let ids = tokenizer.encode(&text);
    assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
    assert_eq!(tokenizer.decode(&ids, Specials::Keep), text);
});

/// The byte-level alphabet.
fn letter(byte: u8) -> char {
    let itself = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let before = (0..byte).filter(|&b| !itself(b)).count();
    if itself(byte) { char::from(byte) } else { char::from_u32(256 + before as u32).expect("a letter") }
}
