//! Any schema, regular expression or grammar is a language or an error; answers follow it to their end or break by name.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use engine::Limits;
use engine::constraint::{Compiler, Language};
use engine::tools::{Choice, Tool};
use tokenizer::{SpecialTokens, Tokenizer};

const N_VOCAB: u32 = 257;
/// Tokens of one answer.
const MOST_STEPS: usize = 64;

static COMPILER: LazyLock<Compiler> = LazyLock::new(|| {
    let rank = |byte: u8| format!("{} {byte}\n", base64::engine::general_purpose::STANDARD.encode([byte]));
    let ranks: String = (0..=255).map(rank).collect();
    let tokenizer = Tokenizer::from_ranks("bytes", ranks.as_bytes(), SpecialTokens::new(["<|eot|>"])).expect("bytes");
    Compiler::new(&tokenizer, N_VOCAB, &[256], &Limits::default()).expect("a token that ends")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [kind, choices @ .., _] = data else { return };
    let (choices, text) = choices.split_at(choices.len() / 4);
    let text = String::from_utf8_lossy(text).into_owned();
    let tool = |parameters| Tool { name: "f".into(), parameters, is_strict: false };
    let language = match kind % 6 {
        0 | 1 => Language::JsonSchema(text),
        2 => Language::Regex(text),
        3 => Language::Grammar(text),
        4 => Language::Calls { tools: vec![tool(text)], choice: Choice::Required, is_parallel: true },
        _ => Language::Calls { tools: vec![tool(text)], choice: Choice::Auto, is_parallel: false },
    };
    let Ok(mut constraint) = COMPILER.compile(&language) else { return };
    let mut choices = choices.iter().cycle().map(|byte| usize::from(*byte)).chain(std::iter::repeat(0));
    for _ in 0..MOST_STEPS {
        if constraint.is_complete() {
            return;
        }
        let mut logits = [0.0; N_VOCAB as usize];
        if constraint.mask(&mut logits).is_err() {
            return;
        }
        let allowed: Vec<u32> = (0..N_VOCAB).filter(|id| logits[*id as usize] == 0.0).collect();
        assert!(!allowed.is_empty(), "an answer that may neither go on nor end");
        let id = allowed[choices.next().unwrap_or(0) % allowed.len()];
        if constraint.accept(id).is_err() {
            return;
        }
    }
});
