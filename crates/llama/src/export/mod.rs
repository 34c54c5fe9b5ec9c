//! From a checkpoint to the metadata and tensors of a GGUF file that other programs read.

mod folder;
mod keys;
mod recipe;
mod rows;

use formats::config::{Ffn, ModelConfig};
use formats::gguf::{Metadata, Value};
use formats::{Checkpoint, Kind, TensorInfo};

use crate::LlamaError;

pub use recipe::{Facts, RECIPES, Recipe};
pub use rows::ExportTensor;

use rows::Order;
pub(crate) use rows::stored_at;

/// A GGUF file to be written.
#[derive(Debug, Clone)]
pub struct Export {
    /// Its metadata.
    pub metadata: Vec<(String, Value)>,
    /// Its tensors.
    pub tensors: Vec<ExportTensor>,
}

impl Export {
    /// The model in `checkpoint`, its decoder only, quantised by `recipe`.
    ///
    /// A folder's tokenizer is `tokenizer`, as the `tokenizer.*` keys of the file; a GGUF model has its own.
    ///
    /// # Errors
    /// [`LlamaError::Missing`] or [`LlamaError::Weight`] where the files do not hold what the config describes;
    /// [`LlamaError::Unsupported`] for settings that GGUF files have no key for.
    pub fn model(
        checkpoint: &Checkpoint,
        recipe: &Recipe,
        tokenizer: Vec<(String, Value)>,
    ) -> Result<Self, LlamaError> {
        if let Kind::Gguf(metadata) = &checkpoint.kind {
            return Self::again(checkpoint, metadata, recipe);
        }
        let tensors = folder::decoder(checkpoint, recipe)?;
        let mut metadata = keys::decoder(&checkpoint.config, &name_of(checkpoint))?;
        metadata.extend(tokenizer);
        let own = keys::own(&checkpoint.config, &metadata, &tensors);
        metadata.extend(own);
        keys::check_decoder(&checkpoint.config, &metadata, &tensors)?;
        metadata.extend(file_keys(recipe));
        Ok(Self { metadata, tensors })
    }

    /// The vision tower and the audio encoder of a folder with their projectors, which GGUF readers want as a file of their
    /// own; `None` for a model without, and for a GGUF model, which has that file already.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub fn projector(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Option<Self>, LlamaError> {
        let ModelConfig { vision, audio, .. } = &checkpoint.config;
        if checkpoint.is_gguf() || (vision.is_none() && audio.is_none()) {
            return Ok(None);
        }
        let mut tensors = Vec::new();
        if let Some(vision) = vision {
            tensors.extend(folder::vision(checkpoint, vision, recipe)?);
        }
        if let Some(audio) = audio {
            tensors.extend(folder::audio(checkpoint, audio, recipe)?);
        }
        let mut metadata = keys::projector(checkpoint, &name_of(checkpoint))?;
        keys::check_projector(checkpoint, &metadata, &tensors)?;
        metadata.extend(file_keys(recipe));
        Ok(Some(Self { metadata, tensors }))
    }

    /// The descriptions of all tensors, for the file's layout.
    pub fn infos(&self) -> Vec<TensorInfo<'_>> {
        self.tensors.iter().map(ExportTensor::info).collect()
    }

    /// A GGUF model in other formats: the same metadata and tensors.
    fn again(checkpoint: &Checkpoint, metadata: &Metadata, recipe: &Recipe) -> Result<Self, LlamaError> {
        let facts = Facts::of(checkpoint);
        let stays = |key: &str| !key.starts_with("split.") && !FILE_KEYS.contains(&key);
        let kept = metadata.iter().filter(|(key, _)| stays(key));
        let mut all: Vec<(String, Value)> = kept.map(|(key, value)| (key.to_owned(), value.clone())).collect();
        all.extend(file_keys(recipe));
        let tensors = checkpoint.tensors.values().map(|tensor| {
            let format = recipe.format(&facts, &tensor.name, &tensor.shape);
            ExportTensor::new(tensor, tensor.name.clone(), tensor.shape.clone(), Order::Same, format)
        });
        let mut tensors: Vec<ExportTensor> = tensors.collect::<Result<_, _>>()?;
        tensors.sort_by_key(|tensor| by_layer(&tensor.name));
        Ok(Self { metadata: all, tensors })
    }
}

impl Facts {
    /// Of the model in `checkpoint`.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let text = &checkpoint.config.text;
        let experts = text.layers.iter().map(|layer| match layer.ffn {
            Ffn::Dense { .. } => 0,
            Ffn::Moe { n_experts, .. } => n_experts,
        });
        Self {
            n_layers: text.layers.len(),
            n_experts: experts.max().unwrap_or(0),
            shares_keys: text.n_heads != text.n_kv_heads,
            tied: checkpoint.config.tie_word_embeddings,
        }
    }
}

/// What the model is called: its folder.
fn name_of(checkpoint: &Checkpoint) -> String {
    let path = checkpoint.path.canonicalize().unwrap_or_else(|_| checkpoint.path.clone());
    path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Keys that describe how a file is quantised.
const FILE_KEYS: [&str; 2] = ["general.file_type", "general.quantization_version"];

fn file_keys(recipe: &Recipe) -> impl Iterator<Item = (String, Value)> {
    // Version 2 of the block formats is the one in use.
    FILE_KEYS.map(str::to_owned).into_iter().zip([Value::U32(recipe.file_type), Value::U32(2)])
}

/// Orders tensors as a step needs them: what stands outside of layers first, then layer by layer.
fn by_layer(name: &str) -> (usize, String) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    (layer.map_or(0, |layer| layer + 1), name.to_owned())
}
