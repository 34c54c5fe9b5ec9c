//! Writes what becomes of audio files: samples and log-mel features. For `scripts/check_audio_features.py`.
//!
//! usage: `log_mel FOLDER MELS FILE…` writes `FOLDER/<i>.samples` and `FOLDER/<i>.mel`, little-endian f32, and prints one line a
//! file: index, samples, valid frames, frames, silence, milliseconds of decoding and of the features.

use std::path::Path;
use std::time::Instant;

use engine::Limits;
use engine::media::audio::{LogMel, MelSettings, decode};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, n_mels, files @ ..] = &arguments[..] else { return Err("usage: log_mel FOLDER MELS FILE…".into()) };
    let limits = Limits::default();
    let mel = LogMel::parse(MelSettings { n_mels: n_mels.parse()?, ..MelSettings::default() }, &limits)?;
    for (i, file) in files.iter().enumerate() {
        let bytes = std::fs::read(file)?;
        let begin = Instant::now();
        let clip = decode(&bytes, None, &limits, &|| false).map_err(|error| format!("{file}: {error}"))?;
        let decoded = begin.elapsed();
        let begin = Instant::now();
        let features = mel.features(clip.samples());
        let made = begin.elapsed();
        write(&Path::new(folder).join(format!("{i}.samples")), clip.samples())?;
        write(&Path::new(folder).join(format!("{i}.mel")), &features.values())?;
        println!(
            "{i} {} {} {} {} {:.3} {:.3}",
            clip.samples().len(),
            features.n_valid(),
            features.n_frames(),
            features.silence(),
            decoded.as_secs_f64() * 1e3,
            made.as_secs_f64() * 1e3
        );
    }
    Ok(())
}

fn write(path: &Path, values: &[f32]) -> std::io::Result<()> {
    std::fs::write(path, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}
