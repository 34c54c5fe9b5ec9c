//! Any boxes are an MP4 file or an error; a clip is within the limits.
#![no_main]

#[path = "shared/audio.rs"]
mod audio;

libfuzzer_sys::fuzz_target!(|data: &[u8]| audio::check(&[b"\0\0\0\x10ftypM4A \0\0\0\0", data].concat()));
