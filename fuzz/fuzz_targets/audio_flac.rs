//! Any bytes behind its mark are a FLAC file or an error; a clip is within the limits.
#![no_main]

#[path = "shared/audio.rs"]
mod audio;

libfuzzer_sys::fuzz_target!(|data: &[u8]| audio::check(&[b"fLaC", data].concat()));
