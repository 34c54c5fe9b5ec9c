//! What is trained: all weights of a model, or an adapter beside them.

use anyhow::{Context, Result};
use formats::{Checkpoint, Lora};
use tempfile::TempDir;
use tensor::Format;
use train::Weights;
use train::lora::{LoraSettings, fresh};

use super::{Finetune, Method};
use crate::commands::train::prepare::copy_files;
use crate::failure::{no_lora, usage};
use crate::model;

/// What is trained.
pub struct Subject {
    /// The model as it is.
    pub checkpoint: Checkpoint,
    pub weights: Weights,
    /// Of a folder of which all weights are trained, its other files.
    pub skeleton: Option<TempDir>,
}

impl Subject {
    /// Opens the model, and the adapter or a fresh one.
    pub fn open(command: &Finetune) -> Result<Self> {
        let checkpoint = model::open_weights(&command.model)?;
        if command.method == Method::Full {
            let skeleton = match checkpoint.is_gguf() {
                true => None,
                false => {
                    let folder = tempfile::tempdir().context("making a temporary folder")?;
                    copy_files(&command.model, folder.path())?;
                    Some(folder)
                }
            };
            let weights = Weights::of(checkpoint.clone())?;
            return Ok(Self { checkpoint, weights, skeleton });
        }
        let is_quantised = checkpoint.tensors.values().any(|t| matches!(t.dtype.format(), Some(Format::Block(_))));
        if command.method == Method::Qlora && !is_quantised {
            let message =
                format!("{} is not quantised, and qlora trains beside quantised weights", command.model.display());
            return Err(usage(
                message,
                "write it quantised, puna quantize IN OUT.gguf --to q4_k_m, or use --method lora",
            ));
        }
        let lora = Self::lora(command, &checkpoint)?;
        let weights = Weights::beside(checkpoint.clone(), &lora)?;
        Ok(Self { checkpoint, weights, skeleton: None })
    }

    fn lora(command: &Finetune, checkpoint: &Checkpoint) -> Result<Lora> {
        let adapter = &command.adapter;
        if let Some(folder) = &adapter.adapter {
            return Lora::open(folder).map_err(|error| no_lora(&error));
        }
        let settings = LoraSettings {
            rank: adapter.rank,
            alpha: adapter.alpha.unwrap_or(2.0 * adapter.rank as f64),
            targets: adapter.targets.clone(),
            seed: command.seed,
        };
        fresh(&checkpoint.config, &settings)
            .map_err(|error| usage(error.to_string(), "see --rank, --alpha and --targets"))
    }
}
