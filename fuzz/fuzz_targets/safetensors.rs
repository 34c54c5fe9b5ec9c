//! Any bytes are a safetensors file or an error; what is accepted has the sizes that it claims, and is an adapter or none.
#![no_main]

use std::path::Path;

use formats::LoraConfig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let file = Path::new("fuzz.safetensors");
    let bytes = tensor::Bytes::from(data.to_vec());
    if let Ok(tensors) = formats::safetensors::parse(file, &bytes) {
        for tensor in &tensors {
            assert_eq!(tensor.dtype.size_bytes(&tensor.shape), Some(tensor.bytes.len()), "{}", tensor.name);
        }
        let config = LoraConfig::parse(file, br#"{"peft_type":"LORA","r":1,"lora_alpha":1}"#).expect("a sound config");
        if let Ok(maps) = config.maps(file, tensors) {
            assert!(
                maps.values()
                    .all(|map| map.a.shape.first() == Some(&map.rank) && map.b.shape.get(1) == Some(&map.rank))
            );
        }
    }
});
