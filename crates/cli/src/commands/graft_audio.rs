//! `puna graft-audio`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use formats::config::AudioEncoderConfig;
use formats::{Checkpoint, EncoderSource};
use llama::Graft;
use serde_json::{Value, json};

use crate::failure::usage;
use crate::model;
use crate::new_folder::NewFolder;
use crate::output::{line, thousands};

/// Give a Llama 4 model ears: an encoder of Whisper's or Voxtral's
///
/// Writes the folder OUT: the model's own weights, the encoder, a fresh projector and rows for the tokens around a clip,
/// which begin as those around an image. The model hears noise until the projector is trained; what it does with text
/// and images does not change. The same arguments give the same bytes.
#[derive(clap::Args)]
pub struct GraftAudio {
    /// A Hugging Face folder of Llama 4 with a vision tower
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// A folder of Whisper or Voxtral
    #[arg(value_name = "ENCODER")]
    encoder: PathBuf,
    /// The folder to write; it must not be there
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Decides the projector's numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Encoder frames of 20 ms that one token joins
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    stack: u8,
    /// Ids of the tokens before, in place of and after a clip
    #[arg(long, value_name = "IDS", value_delimiter = ',', default_value = "201144,201145,201146")]
    tokens: Vec<u32>,
    /// One JSON object with the sizes
    #[arg(long)]
    json: bool,
}

impl GraftAudio {
    pub fn run(self) -> Result<()> {
        let Ok(tokens) = <[u32; 3]>::try_from(self.tokens.clone()) else {
            return Err(usage(format!("--tokens has {} ids", self.tokens.len()), "give three: START,AUDIO,END"));
        };
        if fs::symlink_metadata(&self.output).is_ok() {
            let message = format!("{} is there already", self.output.display());
            return Err(usage(message, "name another folder, or remove it"));
        }
        let checkpoint = model::open_checkpoint(&self.model, None)?;
        let source = EncoderSource::open(&self.encoder)?;
        let graft = Graft { stack: usize::from(self.stack), tokens, seed: self.seed };
        let tensors = graft.tensors(&checkpoint, &source).with_context(|| format!("{}", self.model.display()))?;
        let config = self.config(&source.config, tokens)?;
        let new = NewFolder::create(&self.output)?;
        new.write_tensors(tensors.values())?;
        new.write("config.json", &config)?;
        new.write("audio_preprocessor_config.json", &preprocessor(&source.config))?;
        self.copy_others(&new)?;
        new.finish()?;
        self.report(&tensors, checkpoint.tensors.len())
    }

    /// The model's config with the audio part.
    fn config(&self, encoder: &AudioEncoderConfig, [start, audio, end]: [u32; 3]) -> Result<Value> {
        let path = self.model.join("config.json");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut config: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        config["audio_config"] = json!({
            "model_type": "voxtral_encoder", "num_mel_bins": encoder.n_mels, "hidden_size": encoder.hidden_size,
            "intermediate_size": encoder.intermediate_size, "num_hidden_layers": encoder.n_layers,
            "num_attention_heads": encoder.n_heads, "max_source_positions": encoder.n_frames,
            "activation_function": "gelu", "scale_embedding": false, "attention_block": null,
        });
        config["audio_projector_config"] = json!({
            "stack_factor": self.stack, "hidden_act": "gelu", "bias": false,
            "ln_pre": false, "ln_mid": false, "ln_post": false, "norm_eps": 1e-6,
        });
        for (key, id) in [("boa_token_index", start), ("audio_token_index", audio), ("eoa_token_index", end)] {
            config[key] = id.into();
        }
        Ok(config)
    }

    /// Copies the small files of the model's folder: the tokenizer, its template, how to sample.
    fn copy_others(&self, new: &NewFolder) -> Result<()> {
        let skipped = ["config.json", "audio_preprocessor_config.json", "model.safetensors.index.json"];
        for entry in fs::read_dir(&self.model).with_context(|| format!("listing {}", self.model.display()))? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            let is_small = ["json", "jinja", "model", "txt", "md"].contains(&extension);
            if is_small && !skipped.contains(&name) && !name.starts_with('.') && path.is_file() {
                let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                new.write_bytes(name, &bytes)?;
            }
        }
        Ok(())
    }

    fn report(&self, tensors: &std::collections::BTreeMap<String, formats::Tensor>, n_before: usize) -> Result<()> {
        let count = |prefix: &str| -> usize {
            tensors.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, tensor)| tensor.n_values()).sum()
        };
        let (encoder, projector) = (count("audio_tower."), count("audio_projector."));
        // What a caller will open is what is looked at.
        let grafted = Checkpoint::open(&self.output)?;
        let bytes = grafted.size_bytes();
        if self.json {
            let tensors = json!({"before": n_before, "after": tensors.len()});
            let all = json!({"out": self.output, "bytes": bytes, "tensors": tensors, "encoder": encoder,
                "projector": projector});
            return Ok(line(&all.to_string())?);
        }
        let parts = format!("encoder {}, projector {}", thousands(wide(encoder)), thousands(wide(projector)));
        Ok(line(&format!("{}: {} bytes; parameters: {parts}", self.output.display(), thousands(wide(bytes))))?)
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// How samples become the encoder's columns.
fn preprocessor(encoder: &AudioEncoderConfig) -> Value {
    let mut settings = json!({
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": encoder.n_mels, "sampling_rate": 16000,
        "n_fft": 400, "hop_length": 160, "padding_value": 0.0, "dither": 0.0, "log_mel_max": null, "pad_to": "chunk",
        "padding_mode": "valid",
    });
    // Only whole seconds have a key; the chunk follows from the encoder in any case.
    if encoder.chunk_columns().is_multiple_of(100) {
        settings["chunk_length"] = (encoder.chunk_columns() / 100).into();
    }
    settings
}
