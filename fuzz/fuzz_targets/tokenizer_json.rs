//! Any bytes are a tokenizer.json or an error; what is accepted encodes any text without control tokens.
#![no_main]

use tokenizer::Tokenizer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_json("tokenizer.json", data) {
        for text in ["", "Hello, world! é🙂\n\n 12345", "<|eot|> <s>"] {
            let ids = tokenizer.encode(text);
            assert!(ids.iter().all(|&id| !tokenizer.is_control(id) && (id as usize) < tokenizer.vocab_size()));
        }
        let _ = tokenizer.with_config("tokenizer_config.json", data);
    }
});
