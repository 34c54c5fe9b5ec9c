//! `puna export`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use formats::{Checkpoint, DType, Tensor};
use llama::export::{RECIPES, Recipe};
use llama::merged;

use super::quantize::Quantize;
use super::train::prepare::copy_files;
use crate::failure::usage;
use crate::model::{self, DeviceArguments, LoraArguments};
use crate::new_folder::NewFolder;
use crate::output::{line, thousands};

/// Write a model for other programs, with an adapter merged into it
///
/// safetensors writes a Hugging Face folder of a Hugging Face folder, every weight in the format that it has. gguf writes a
/// GGUF file of either kind of model; behind a dash stands a format as puna quantize has them, by default bf16. An adapter's
/// A and B are multiplied and added to the weights in f32; what is written then is rounded to its format once.
#[derive(clap::Args)]
pub struct Export {
    /// The model: a Hugging Face folder or a GGUF file
    #[arg(short, long, env = "PUNA_MODEL")]
    model: PathBuf,
    #[command(flatten)]
    lora: LoraArguments,
    /// The folder or file to write
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// What to write
    #[arg(long, value_name = "FORMAT", value_parser = parse_target)]
    to: Target,
    /// Overwrite OUT
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

/// What `--to` names.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// A Hugging Face folder.
    Safetensors,
    /// A GGUF file by this recipe.
    Gguf(&'static str),
}

const SAFETENSORS: &str = "safetensors";
const GGUF: &str = "gguf";

/// The recipe of plain `gguf`.
const PLAIN: &str = "bf16";

fn parse_target(name: &str) -> Result<Target, String> {
    let lower = name.to_ascii_lowercase();
    let recipe = match lower.strip_prefix(GGUF) {
        None if lower == SAFETENSORS => return Ok(Target::Safetensors),
        None => None,
        Some("") => Recipe::named(PLAIN),
        Some(rest) => rest.strip_prefix('-').and_then(Recipe::named),
    };
    recipe.map(|recipe| Target::Gguf(recipe.name)).ok_or_else(|| {
        let known: Vec<String> = RECIPES.iter().map(|recipe| format!("{GGUF}-{}", recipe.name)).collect();
        format!("there are {SAFETENSORS}, {GGUF}, {}", known.join(", "))
    })
}

impl Export {
    pub fn run(self) -> Result<ExitCode> {
        let mut checkpoint = model::open_weights(&self.model)?;
        if matches!(self.to, Target::Safetensors) && checkpoint.is_gguf() {
            let message =
                format!("{} is a GGUF file, of which no Hugging Face folder is written", self.model.display());
            return Err(usage(message, "write a GGUF file, with --to gguf or --to gguf-q8_0"));
        }
        if let Some(lora) = self.lora.open()? {
            let stays_plain = matches!(self.to, Target::Safetensors);
            let tensors = merged(&checkpoint, &lora)
                .with_context(|| format!("--lora {} does not fit {}", lora.path.display(), self.model.display()))?;
            line(&format!("{} maps of the adapter are merged", thousands(tensors.len() as u64)))?;
            for tensor in tensors {
                let stored = checkpoint.tensors.get(&tensor.name).map(|tensor| tensor.dtype);
                let tensor = if stays_plain { stored_as(tensor, stored) } else { tensor };
                checkpoint.tensors.insert(tensor.name.clone(), tensor);
            }
        }
        match self.to {
            Target::Gguf(recipe) => {
                let quantize = Quantize::new(self.model, self.out, recipe, self.force, self.device)?;
                quantize.export_as(&checkpoint)
            }
            Target::Safetensors => self.folder(&checkpoint),
        }
    }

    /// Writes a Hugging Face folder.
    fn folder(&self, checkpoint: &Checkpoint) -> Result<ExitCode> {
        if !self.force && fs::symlink_metadata(&self.out).is_ok() {
            return Err(usage(format!("{} is there already", self.out.display()), "--force overwrites it"));
        }
        let new = NewFolder::create(&self.out)?;
        new.write_tensors(checkpoint.tensors.values())?;
        let folder =
            if self.model.is_dir() { self.model.as_path() } else { self.model.parent().unwrap_or(Path::new(".")) };
        copy_files(folder, new.partial())?;
        new.replace()?;
        line(&format!(
            "{}: {} tensors, {} bytes",
            self.out.display(),
            checkpoint.tensors.len(),
            thousands(checkpoint.size_bytes() as u64)
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `tensor`, which is in f32, as `stored`, if those are plain numbers.
fn stored_as(tensor: Tensor, stored: Option<DType>) -> Tensor {
    let Some(DType::Weight(format)) = stored.filter(|_| stored != Some(tensor.dtype)) else { return tensor };
    let mut values = vec![0.0; tensor.n_values()];
    tensor::Format::F32.decode(&tensor.bytes, &mut values);
    let Some(n_bytes) = format.row_bytes(values.len()) else { return tensor };
    let mut bytes = vec![0; n_bytes];
    format.encode(&values, &mut bytes);
    Tensor { dtype: DType::Weight(format), bytes: bytes.into(), ..tensor }
}

/// Writes `checkpoint` as the GGUF file `path` by the recipe `recipe`, over one that may be there.
pub fn write_gguf(checkpoint: &Checkpoint, recipe: &str, path: &Path, device: &DeviceArguments) -> Result<ExitCode> {
    let quantize = Quantize::new(checkpoint.path.clone(), path.into(), recipe, true, device.clone())?;
    quantize.export_as(checkpoint)
}
