//! GGUF files made of the toys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::Checkpoint;
use formats::gguf::{Array, Layout, Value, Writer};
use llama::export::{Export, Recipe};

use crate::speaking::assume_published_settings;

/// A toy of the repository.
pub fn toy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/toy").join(name)
}

/// A copy of the toy Scout, changed in what GGUF files do not store.
///
/// # Errors
/// If it can not be written.
pub fn scout(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for file in ["model.safetensors", "config.json"] {
        std::fs::copy(toy("scout").join(file), folder.join(file))?;
    }
    assume_published_settings(folder)
}

/// The keys of a vocabulary of 128 tokens, with those of images where the toy has them.
fn vocabulary() -> Vec<(String, Value)> {
    let named = |id: usize| match id {
        122 => "<|image_start|>".to_owned(),
        123 => "<|image_end|>".to_owned(),
        124 => "<|patch|>".to_owned(),
        id => format!("token {id}"),
    };
    let names: Vec<String> = (0..128).map(named).collect();
    let tokens = Value::Array(Array::of_strings(names.iter().map(String::as_str)));
    vec![("tokenizer.ggml.model".into(), Value::String("gpt2".into())), ("tokenizer.ggml.tokens".into(), tokens)]
}

/// Writes `export`, `step` rows at a time.
///
/// # Errors
/// If it can not be written.
pub fn write(path: &Path, export: &Export, step: usize) -> Result<()> {
    let metadata: Vec<(&str, Value)> = export.metadata.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    let mut writer = Writer::create(path, Layout::new(path, &metadata, &export.infos())?)?;
    for tensor in &export.tensors {
        for begin in (0..tensor.n_rows()).step_by(step) {
            writer.write(&tensor.encode(begin..tensor.n_rows().min(begin + step)))?;
        }
    }
    Ok(writer.finish()?)
}

/// The model in `folder` and its projector, by the recipe `to`.
///
/// # Errors
/// If there is no such recipe, or the model can not be told by a GGUF file.
pub fn export(folder: &Path, to: &str) -> Result<(Export, Option<Export>)> {
    let checkpoint = Checkpoint::open(folder)?;
    let recipe = Recipe::named(to).with_context(|| format!("no recipe {to}"))?;
    Ok((Export::model(&checkpoint, recipe, vocabulary())?, Export::projector(&checkpoint, recipe)?))
}

/// The bits of all tensors.
pub fn bits(values: &BTreeMap<String, Vec<f32>>) -> BTreeMap<&str, Vec<u32>> {
    values.iter().map(|(name, values)| (name.as_str(), values.iter().map(|v| v.to_bits()).collect())).collect()
}
