//! What the tests of the audio encoder share: vectors from independent implementations, and models in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use formats::config::{AudioEncoderConfig, ModelConfig};
use formats::{AudioPreprocessorConfig, DType, Tensor};
use llama::{Audio, AudioChunk};
use serde_json::{Value, json};
use tensor::{Device, Format};

/// Folders of vectors: the repository's, then the one that `PUNA_AUDIO_GOLDENS` names.
pub fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/audio-tower");
    std::iter::once(own).chain(std::env::var_os("PUNA_AUDIO_GOLDENS").map(PathBuf::from)).collect()
}

/// The tensors of one file.
pub struct Vectors {
    /// By name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Vectors {
    /// Reads the safetensors file `file`.
    ///
    /// # Errors
    /// If it can not be read.
    pub fn open(file: &Path) -> Result<Self> {
        let tensors = formats::safetensors::parse(file, &formats::map_file(file)?)?;
        Ok(Self { tensors: tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect() })
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("no vector {name}"))
    }

    /// The f32 values of `name`.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        ensure!(tensor.dtype == DType::Weight(Format::F32), "{name} is {}", tensor.dtype.name());
        let mut values = vec![0.0; tensor.bytes.len() / 4];
        Format::F32.decode(&tensor.bytes, &mut values);
        Ok(values)
    }

    /// The axes of `name`.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.tensor(name)?.shape)
    }

    /// The whole numbers of `name`.
    ///
    /// # Errors
    /// If there is no such tensor or one is negative.
    pub fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let numbers = self.tensor(name)?.bytes.as_chunks::<8>().0.iter();
        numbers.map(|raw| Ok(u32::try_from(i64::from_le_bytes(*raw))?)).collect()
    }

    /// The tensors whose names begin with `from`, with `to` in its place.
    pub fn renamed(&self, from: &str, to: &str) -> BTreeMap<String, Tensor> {
        let renamed = self.tensors.iter().filter_map(|(name, tensor)| {
            let rest = name.strip_prefix(from)?;
            Some((format!("{to}{rest}"), tensor.clone()))
        });
        renamed.collect()
    }

    /// The `audio_config` of the encoder whose weights stand under `weight/`. All vectors' encoders have four heads.
    ///
    /// # Errors
    /// If a weight is not there.
    pub fn encoder(&self) -> Result<Value> {
        let axis = |name: &str, axis: usize| {
            Ok::<_, anyhow::Error>(self.shape(&format!("weight/{name}"))?.get(axis).copied().unwrap_or(0))
        };
        let n_layers = self.tensors.keys().filter(|name| name.ends_with("fc1.weight")).count();
        Ok(json!({
            "hidden_size": axis("conv1.weight", 0)?, "num_mel_bins": axis("conv1.weight", 1)?,
            "intermediate_size": axis("layers.0.fc1.weight", 0)?, "num_hidden_layers": n_layers,
            "num_attention_heads": 4, "max_source_positions": axis("embed_positions.weight", 0)?,
        }))
    }
}

/// A clip cut into chunks: `[n, M, C]`, with the valid columns of each.
pub struct Clip {
    /// All chunks' mel columns.
    pub mel: Vec<f32>,
    /// Valid columns, a number a chunk.
    pub valid: Vec<usize>,
}

impl Clip {
    /// The chunks.
    pub fn chunks(&self) -> Vec<AudioChunk<'_>> {
        let len = self.mel.len() / self.valid.len();
        let chunks = self.mel.chunks_exact(len).zip(&self.valid);
        chunks.map(|(mel_mc, valid)| AudioChunk { mel_mc, valid: *valid }).collect()
    }

    /// The columns one after another, `[n·C, M]`.
    pub fn columns(&self, n_mels: usize) -> Vec<f32> {
        let len = self.mel.len() / self.valid.len();
        self.mel.chunks_exact(len).flat_map(|chunk| transposed(chunk, n_mels)).collect()
    }
}

/// `[rows, columns]` to `[columns, rows]`.
pub fn transposed(values: &[f32], n_rows: usize) -> Vec<f32> {
    let n_columns = values.len() / n_rows;
    (0..values.len()).map(|i| values[i % n_rows * n_columns + i / n_rows]).collect()
}

/// The encoder that `section`, an `audio_config`, describes.
///
/// # Errors
/// If it is refused.
pub fn encoder_config(section: &Value) -> Result<AudioEncoderConfig> {
    let mut whisper = section.clone();
    whisper["model_type"] = "whisper".into();
    Ok(ModelConfig::parse_whisper(Path::new("config.json"), whisper.to_string().as_bytes())?)
}

/// The audio part of the model that `config` and the preprocessor file's `settings` describe.
///
/// # Errors
/// If it is refused, or the tensors are others.
pub fn audio_of<D: Device>(
    dev: &D,
    config: &Value,
    settings: &Value,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Audio<D>> {
    let config = ModelConfig::parse(Path::new("config.json"), config.to_string().as_bytes())?;
    let audio = config.audio.as_ref().context("the config has no audio part")?;
    let mut settings = settings.clone();
    settings["feature_extractor_type"] = "WhisperFeatureExtractor".into();
    let settings = settings.to_string();
    let settings = AudioPreprocessorConfig::parse(
        Path::new("preprocessor"),
        settings.as_bytes(),
        AudioPreprocessorConfig::of(audio),
    )?;
    let settings = settings.context("the settings are no preprocessor's")?;
    Audio::load(dev, &config, &settings, tensors)?.context("no audio part was loaded")
}

/// A dense text model's config of the width `width`, small in all else.
pub fn small_text(width: usize) -> Value {
    json!({"model_type": "llama", "hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 8, "vocab_size": 8, "head_dim": 8})
}

/// The largest absolute difference.
///
/// # Errors
/// If the lengths differ, or there is nothing to compare.
pub fn difference(got: &[f32], want: &[f32]) -> Result<f32> {
    ensure!(got.len() == want.len() && !got.is_empty(), "{} values for {}", got.len(), want.len());
    Ok(got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max))
}
