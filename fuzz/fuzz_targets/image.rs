//! Any bytes are an image within the limits or an error; what the header promises is what is decoded.
#![no_main]

use engine::Limits;
use engine::media::{decode, size};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Small, so that the fuzzer's time goes into headers.
    let limits = Limits { image_decoded_bytes: 1 << 20, ..Limits::default() };
    let promised = size(data, &limits);
    if let Ok(image) = decode(data, &limits) {
        assert_eq!(promised, Ok(image.size()));
        assert!(3 * image.size().n_pixels() <= limits.image_decoded_bytes);
    }
});
