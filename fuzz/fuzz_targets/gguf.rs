//! Any bytes are a GGUF or packed file or an error; what is accepted has the sizes that it claims, and its values can be read.
#![no_main]

use std::path::Path;

use formats::gguf::Value;
use formats::{Gguf, ModelConfig, config::VisionConfig};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    parse(data.to_vec());
    // The other kind of file with the same content.
    let magic: Option<&[u8]> = match data.first_chunk() {
        Some(b"GGUF") => Some(b"PUNA"),
        Some(b"PUNA") => Some(b"GGUF"),
        _ => None,
    };
    if let Some(magic) = magic {
        parse([magic, &data[4..]].concat());
    }
});

fn parse(data: Vec<u8>) {
    let bytes = tensor::Bytes::from(data);
    let Ok(gguf) = Gguf::parse(Path::new("fuzz.gguf"), &bytes) else { return };
    for tensor in &gguf.tensors {
        assert_eq!(tensor.dtype.size_bytes(&tensor.shape), Some(tensor.bytes.len()), "{}", tensor.name);
    }
    for (key, value) in gguf.metadata.iter() {
        if let Value::Array(array) = value {
            let n_strings = array.strings().map(Iterator::count);
            let n_scalars = array.scalars().map(Iterator::count);
            assert!(n_strings.or(n_scalars).is_none_or(|n| n == array.len()), "{key}");
        }
    }
    if let Ok(config) = ModelConfig::from_gguf(&gguf) {
        config.parameters();
    }
    let _ = VisionConfig::from_gguf(&gguf);
}
