//! What holds for every kind of audio file.

use engine::Limits;
use engine::media::audio::{decode, probe};

/// Reads the headers and decodes. A decoder that panics ends as an error, so the fuzzer's hook, which aborts, is replaced;
/// a panic that gets out still ends the run.
pub fn check(bytes: &[u8]) {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|about| eprintln!("{about}"))));
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
