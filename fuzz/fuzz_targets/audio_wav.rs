//! Any chunks are a WAV file or an error; a clip is within the limits.
#![no_main]

#[path = "shared/audio.rs"]
mod audio;

libfuzzer_sys::fuzz_target!(|data: &[u8]| audio::check(&[b"RIFF\xff\xff\xff\xffWAVE", data].concat()));
