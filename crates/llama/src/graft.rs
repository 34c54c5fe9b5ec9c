//! Giving a model that does not hear an encoder, a fresh projector and rows for the tokens around a clip.

use std::collections::BTreeMap;

use formats::config::{Architecture, AudioEncoderConfig};
use formats::{Checkpoint, DType, EncoderSource, Tensor};
use tensor::{Bytes, Device, Format, Reference, WeightSource, math};

use crate::audio::WHISPER;
use crate::names::{Names, Outer};
use crate::{AudioEncoder, LlamaError};

/// Rows on which a fresh projector is measured.
const N_MEASURED: usize = 16;

/// How an encoder is grafted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graft {
    /// Frames that a row joins.
    pub stack: usize,
    /// Before, in place of and after a clip.
    pub tokens: [u32; 3],
    /// Decides the projector's numbers.
    pub seed: u64,
}

impl Graft {
    /// The tensors of the model in `checkpoint` with the encoder of `source`, by name: everything that was there, with
    /// new rows at the first and last of `tokens` (those of the tokens around an image, in embeddings and output map);
    /// the encoder, its positions in f32; and a fresh projector in the embeddings' type.
    ///
    /// The projector's maps are normal with standard deviation (inputs)^−½. The second one is then scaled until rows
    /// have the root mean square of the embedding table, measured on 16 rows of normal numbers of variance 1, which is
    /// what the encoder's last layer norm gives. The same arguments give the same bits everywhere.
    ///
    /// # Errors
    /// [`LlamaError::Unsupported`] if the model is not Llama 4 with a vision tower, hears already, or has no such token;
    /// [`LlamaError::Missing`] or [`LlamaError::Weight`] where tensors are not what the configs describe.
    pub fn tensors(
        &self,
        checkpoint: &Checkpoint,
        source: &EncoderSource,
    ) -> Result<BTreeMap<String, Tensor>, LlamaError> {
        let mut all = checkpoint.tensors.clone();
        let embeddings = self.mark(checkpoint, &mut all)?;
        let width = checkpoint.config.text.hidden_size;
        let encoder = encoder(source)?;
        if encoder.keys().any(|name| all.contains_key(name)) {
            return Err(LlamaError::Unsupported("the model has an audio_tower already".into()));
        }
        all.extend(encoder);
        for tensor in self.projector(&source.config, width, &embeddings)? {
            all.insert(tensor.name.clone(), tensor);
        }
        Ok(all)
    }

    /// Fills the rows of the tokens around a clip; returns the embeddings.
    fn mark(&self, checkpoint: &Checkpoint, all: &mut BTreeMap<String, Tensor>) -> Result<Tensor, LlamaError> {
        let config = &checkpoint.config;
        let refused = |why: &str| LlamaError::Unsupported(why.into());
        if config.audio.is_some() {
            return Err(refused("the model hears already: its config has an audio_config"));
        }
        let image =
            config.image_tokens.filter(|_| config.architecture == Architecture::Llama4 && !checkpoint.is_gguf());
        let image =
            image.ok_or_else(|| refused("only a Hugging Face folder of Llama 4 with a vision tower is grafted"))?;
        let [start, audio, end] = self.tokens;
        let vocab_size = config.text.vocab_size;
        if self.tokens.iter().any(|id| *id as usize >= vocab_size) || start == audio || audio == end || start == end {
            let why = format!("the tokens {:?} are not three of the vocabulary's {vocab_size}", self.tokens);
            return Err(LlamaError::Unsupported(why));
        }
        let names = Names::of(config.architecture, false);
        let mut embeddings = None;
        for weight in [Outer::Embeddings, Outer::Output] {
            let name = names.outer(weight);
            let Some(tensor) = all.get_mut(&name) else {
                match (weight, config.tie_word_embeddings) {
                    (Outer::Output, true) => continue,
                    _ => return Err(LlamaError::Missing { name }),
                }
            };
            if tensor.shape != [vocab_size, config.text.hidden_size] {
                let why = format!("has the shape {:?}; the vocabulary has {vocab_size} entries", tensor.shape);
                return Err(LlamaError::Weight { name, why });
            }
            let mut bytes = tensor.bytes.to_vec();
            let row_bytes = bytes.len() / vocab_size;
            for (from, to) in [(image.image_start, start), (image.image_end, end)] {
                let begin = from as usize * row_bytes;
                bytes.copy_within(begin..begin + row_bytes, to as usize * row_bytes);
            }
            tensor.bytes = bytes.into();
            embeddings = embeddings.or(Some(tensor.clone()));
        }
        embeddings.ok_or_else(|| LlamaError::Missing { name: names.outer(Outer::Embeddings) })
    }

    fn projector(
        &self,
        encoder: &AudioEncoderConfig,
        width: usize,
        embeddings: &Tensor,
    ) -> Result<[Tensor; 2], LlamaError> {
        let format = format_of(embeddings)?;
        let stacked = self.stack * encoder.hidden_size;
        let first = normal(self.seed, 1, width * stacked, 1.0 / (stacked as f64).sqrt());
        let second = normal(self.seed, 2, width * width, 1.0 / (width as f64).sqrt());
        let dev = Reference;
        let matrix = |values: &[f32], n_in| dev.matrix(&[WeightSource::from_f32(values, width, n_in)?]);
        let x = dev.upload(&normal(self.seed, 3, N_MEASURED * stacked, 1.0), stacked)?;
        let x = dev.gelu(&dev.linear(&matrix(&first, stacked)?, None, &x)?);
        let rows = dev.download(&dev.linear(&matrix(&second, width)?, None, &x)?);
        let mut table = vec![0.0; embeddings.n_values()];
        format.decode(&embeddings.bytes, &mut table);
        let scale = root_mean_square(&table) / root_mean_square(&rows);
        let second: Vec<f32> = second.iter().map(|value| (f64::from(*value) * scale) as f32).collect();
        let tensor = |name: &str, values: &[f32], n_in| Tensor {
            name: format!("audio_projector.{name}.weight"),
            dtype: DType::Weight(format),
            shape: vec![width, n_in],
            bytes: encoded(format, values),
        };
        Ok([tensor("linear_1", &first, stacked), tensor("linear_2", &second, width)])
    }
}

/// The encoder's tensors under our names; what is checked by loading them.
fn encoder(source: &EncoderSource) -> Result<BTreeMap<String, Tensor>, LlamaError> {
    AudioEncoder::load(&Reference, &source.config, &source.tensors)?;
    let has = |prefix: &&&str| source.tensors.contains_key(&format!("{prefix}conv1.weight"));
    let prefix = WHISPER.encoder.iter().find(has).copied().unwrap_or_default();
    let mut all = BTreeMap::new();
    for (name, tensor) in &source.tensors {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        let name = format!("audio_tower.{rest}");
        let mut tensor = Tensor { name: name.clone(), ..tensor.clone() };
        if rest == "embed_positions.weight" {
            let mut values = vec![0.0; tensor.n_values()];
            format_of(&tensor)?.decode(&tensor.bytes, &mut values);
            tensor.dtype = DType::Weight(Format::F32);
            tensor.bytes = encoded(Format::F32, &values);
        }
        all.insert(name, tensor);
    }
    Ok(all)
}

fn format_of(tensor: &Tensor) -> Result<Format, LlamaError> {
    match tensor.dtype {
        DType::Weight(format) if format.block_len() == 1 => Ok(format),
        other => {
            let why = format!("is stored as {}; f32, f16 and bf16 are grafted", other.name());
            Err(LlamaError::Weight { name: tensor.name.clone(), why })
        }
    }
}

fn encoded(format: Format, values: &[f32]) -> Bytes {
    let mut bytes = vec![0; values.len() * format.block_bytes()];
    format.encode(values, &mut bytes);
    bytes.into()
}

fn root_mean_square(values: &[f32]) -> f64 {
    let total: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    (total / values.len().max(1) as f64).sqrt()
}

/// `len` normal numbers by Box and Muller from SplitMix64, whose start is `seed` and `stream`.
fn normal(seed: u64, stream: u64, len: usize, deviation: f64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(stream << 32);
    let mut uniform = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // 53 bits, and never 0.
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0
    };
    let mut values = Vec::with_capacity(len + 1);
    while values.len() < len {
        let radius = deviation * (-2.0 * math::ln(uniform())).sqrt();
        let (sin, cos) = math::sin_cos(std::f64::consts::TAU * uniform());
        values.extend([(radius * f64::from(cos)) as f32, (radius * f64::from(sin)) as f32]);
    }
    values.truncate(len);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_are_normal_and_the_seeds_own() {
        let values = normal(7, 1, 100_001, 0.5);
        assert_eq!(values.len(), 100_001);
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / 100_001.0;
        // Five standard errors: 0.5 / √100001 for the mean, 0.5 / √200002 for the deviation.
        assert!(mean.abs() < 8e-3, "{mean}");
        assert!((root_mean_square(&values) - 0.5).abs() < 6e-3);
        assert_eq!(values[..50], normal(7, 1, 50, 0.5));
        assert_ne!(values[..50], normal(8, 1, 50, 0.5));
        assert_ne!(values[..50], normal(7, 2, 50, 0.5));
    }
}
