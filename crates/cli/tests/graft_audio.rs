//! `puna graft-audio`: what it writes, and that it writes it again.

#![allow(clippy::unwrap_used, clippy::panic)] // a failed expectation of a test is a panic

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use formats::{Checkpoint, DType, EncoderSource};
use tensor::{Format, Reference};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn graft(out: &Path, model: &str, encoder: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.arg("graft-audio").args([data(model), data(encoder)]).arg(out).args(more);
    command.output().unwrap()
}

const TOKENS: [&str; 2] = ["--tokens", "116,117,118"];

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).unwrap();
    let DType::Weight(format) = tensor.dtype else { panic!("{name}") };
    let mut values = vec![0.0; tensor.n_values()];
    format.decode(&tensor.bytes, &mut values);
    values
}

#[test]
fn a_grafted_model_has_its_own_weights_the_encoder_and_a_projector_and_is_written_again_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a");
    let done = graft(&out, "toy/scout", "audio-tower/voxtral_tiny", &TOKENS);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let (before, after) = (Checkpoint::open(&data("toy/scout")).unwrap(), Checkpoint::open(&out).unwrap());
    let source = EncoderSource::open(&data("audio-tower/voxtral_tiny")).unwrap();
    let audio = after.config.audio.as_ref().unwrap();
    assert_eq!(audio.encoder, source.config);
    assert_eq!(audio.tokens.ids().collect::<Vec<_>>(), [116, 117, 118]);
    let model = llama::Model::load(&Reference, &after, &mut |_| {}).unwrap();
    assert!(model.audio.is_some() && model.vision.is_some());
    let marked = ["language_model.model.embed_tokens.weight", "language_model.lm_head.weight"];
    for (name, tensor) in &before.tensors {
        let new = after.tensor(name).unwrap();
        match marked.contains(&name.as_str()) {
            false => assert_eq!(new.bytes.to_vec(), tensor.bytes.to_vec(), "{name}"),
            true => {
                let (old, new, width) = (values(&before, name), values(&after, name), tensor.shape[1]);
                let image = before.config.image_tokens.unwrap();
                for row in 0..tensor.shape[0] {
                    let from = match row {
                        116 => image.image_start as usize,
                        118 => image.image_end as usize,
                        row => row,
                    };
                    assert_eq!(new[row * width..(row + 1) * width], old[from * width..(from + 1) * width], "{row}");
                }
            }
        }
    }
    for (name, tensor) in source.tensors.iter().filter(|(name, _)| name.starts_with("audio_tower.")) {
        assert_eq!(after.tensor(name).unwrap().bytes.to_vec(), tensor.bytes.to_vec(), "{name}");
    }
    let positions = after.tensor("audio_tower.embed_positions.weight").unwrap();
    assert_eq!(positions.dtype, DType::Weight(Format::F32));
    assert!(out.join("audio_preprocessor_config.json").is_file() && out.join("generation_config.json").is_file());

    let (again, other) = (folder.path().join("b"), folder.path().join("c"));
    assert!(graft(&again, "toy/scout", "audio-tower/voxtral_tiny", &TOKENS).status.success());
    let seeded = [&TOKENS[..], &["--seed", "1"]].concat();
    assert!(graft(&other, "toy/scout", "audio-tower/voxtral_tiny", &seeded).status.success());
    let bytes = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(bytes(&out) == bytes(&again) && bytes(&out) != bytes(&other));
}

/// On frames of variance 1, as the encoder's last norm gives them, rows are as large as embeddings.
#[test]
fn a_fresh_projectors_rows_are_as_large_as_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a");
    assert!(graft(&out, "toy/scout", "audio-tower/voxtral_tiny", &TOKENS).status.success());
    let after = Checkpoint::open(&out).unwrap();
    let model = llama::Model::load(&Reference, &after, &mut |_| {}).unwrap();
    let root =
        |values: &[f32]| (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
    let audio = model.audio.unwrap();
    // Uniform numbers of variance 1: other ones than those that the projector was measured on.
    let mut state = 1u32;
    let mut frames: Vec<f32> = Vec::new();
    while frames.len() < 512 * 16 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        frames.push(((state >> 8) as f32 / 8_388_608.0 - 1.0) * 3f32.sqrt());
    }
    use tensor::Device as _;
    let rows = audio.project(&Reference, Reference.upload(&frames, 16).unwrap()).unwrap();
    let rows = root(&Reference.download(&rows));
    let table = root(&values(&after, "language_model.model.embed_tokens.weight"));
    // Measured on 16 rows of 32 numbers: one standard error of a root mean square of 512 numbers is 3 %, more where they
    // depend on each other.
    assert!((rows / table - 1.0).abs() < 0.25, "{rows} {table}");
}

#[test]
fn what_can_not_be_grafted_is_refused_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let cases: [(&str, &str, &[&str], &str); 5] = [
        ("toy/llama", "audio-tower/voxtral_tiny", &TOKENS, "Llama 4"),
        ("audio-tower/llama4_audio_tiny", "audio-tower/voxtral_tiny", &TOKENS, "hears already"),
        ("toy/scout", "toy/llama", &TOKENS, "does not hear"),
        ("toy/scout", "audio-tower/voxtral_tiny", &[], "201144"),
        ("toy/scout", "audio-tower/voxtral_tiny", &["--tokens", "1,2"], "three"),
    ];
    for (model, encoder, more, word) in cases {
        let refused = graft(&out, model, encoder, more);
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && message.contains(word), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{word}");
    }
    std::fs::create_dir(&out).unwrap();
    let there = graft(&out, "toy/scout", "audio-tower/voxtral_tiny", &TOKENS);
    assert!(String::from_utf8_lossy(&there.stderr).contains("is there already"));
}
