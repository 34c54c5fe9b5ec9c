//! What holds for every kind of audio file.

use engine::Limits;
use engine::media::audio::{decode, probe};

/// Reads the headers and decodes. A decoder that panics ends as an error, and is only seen in the fuzzer's output.
pub fn check(bytes: &[u8]) {
    // A second is enough to meet every piece of code, and keeps a run short.
    let limits = Limits { audio_seconds: 1, ..Limits::default() };
    let probed = probe(bytes, None, &limits).map(drop);
    let decoded = decode(bytes, None, &limits, &|| false);
    if let Ok(clip) = &decoded {
        assert!((1..=16_000).contains(&clip.samples().len()));
        assert!(clip.samples().iter().all(|sample| sample.is_finite()));
    }
    for error in [probed.err(), decoded.err()].into_iter().flatten() {
        assert!(error.to_string().len() < 300, "{error}");
    }
}
