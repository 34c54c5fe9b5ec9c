//! Any bytes are a config of each kind or an error; the parameters of an accepted model can be counted.
#![no_main]

use std::path::Path;

use formats::{GenerationConfig, LoraConfig, ModelConfig, PreprocessorConfig, ReasoningConfig};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let file = Path::new("fuzz.json");
    if let Ok(config) = ModelConfig::parse(file, data) {
        config.parameters();
    }
    let _ = GenerationConfig::parse(file, data);
    let _ = ReasoningConfig::parse(file, data);
    let _ = PreprocessorConfig::parse(file, data);
    let _ = LoraConfig::parse(file, data);
});
