//! Any bytes are a safetensors file or an error; what is accepted has the sizes that it claims.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let bytes = tensor::Bytes::from(data.to_vec());
    if let Ok(tensors) = formats::safetensors::parse(Path::new("fuzz.safetensors"), &bytes) {
        for tensor in tensors {
            assert_eq!(tensor.dtype.size_bytes(&tensor.shape), Some(tensor.bytes.len()), "{}", tensor.name);
        }
    }
});
