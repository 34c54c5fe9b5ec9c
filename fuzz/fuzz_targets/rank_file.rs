//! Any bytes are a rank file or an error. The 256 single bytes are put before them, without which all would be refused.
#![no_main]

use std::fmt::Write as _;

use tokenizer::{SpecialTokens, Specials, Tokenizer};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut file = String::new();
    for byte in 0..=255u8 {
        writeln!(file, "{} {byte}", base64(byte)).expect("a string takes everything");
    }
    let file = [file.as_bytes(), data].concat();
    let specials = SpecialTokens::new(["<|eot|>"]);
    let _ = Tokenizer::from_ranks("tokenizer.model", data, specials.clone());
    if let Ok(tokenizer) = Tokenizer::from_ranks("tokenizer.model", &file, specials) {
        let text = String::from_utf8_lossy(data);
        let ids = tokenizer.encode(&text);
        assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
        assert_eq!(tokenizer.decode(&ids, Specials::Keep), text);
    }
});

/// Base64 of one byte.
fn base64(byte: u8) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |at: u8| char::from(digits[usize::from(at)]);
    format!("{}{}==", digit(byte >> 2), digit((byte & 3) << 4))
}
