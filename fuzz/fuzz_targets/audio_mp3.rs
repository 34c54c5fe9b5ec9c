//! Any bytes behind a frame's header are an MP3 or an error; a clip is within the limits.
#![no_main]

#[path = "shared/audio.rs"]
mod audio;

libfuzzer_sys::fuzz_target!(|data: &[u8]| audio::check(&[b"\xff\xfb\x90\x64", data].concat()));
