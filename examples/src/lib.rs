//! What every example begins with: a folder named on the command line, its tokenizer and its model.

use std::path::PathBuf;

use anyhow::{Context, Result};
use cpu::{Cpu, CpuOptions};
use engine::Engine;
use formats::Checkpoint;
use llama::Model;
use tensor::KvFormat;
use tokenizer::{SpecialTokens, Tokenizer};

/// Argument `nth` of the command line, from 1.
///
/// # Errors
/// If there are fewer; the message says what is expected.
pub fn argument(nth: usize, what: &str) -> Result<String> {
    std::env::args().nth(nth).with_context(|| format!("argument {nth} is missing: {what}"))
}

/// The checkpoint in the folder that the first argument names.
///
/// # Errors
/// If there is none.
pub fn checkpoint() -> Result<Checkpoint> {
    Ok(Checkpoint::open(&PathBuf::from(argument(1, "the folder of a model")?))?)
}

/// The tokenizer that lies beside the weights of a Hugging Face folder.
///
/// # Errors
/// If there is none or it is broken.
pub fn tokenizer(checkpoint: &Checkpoint) -> Result<Tokenizer> {
    let files = &checkpoint.tokenizer;
    if let Some(path) = &files.tokenizer_json {
        return Ok(Tokenizer::from_json("tokenizer.json", &formats::map_file(path)?)?);
    }
    let path = files.tokenizer_model.as_ref().context("the folder has no tokenizer.json and no tokenizer.model")?;
    Ok(Tokenizer::from_ranks("tokenizer.model", &formats::map_file(path)?, SpecialTokens::llama4())?)
}

/// The model on the CPU, with keys and values for `context` positions.
///
/// # Errors
/// If a weight is missing or the memory does not suffice.
pub fn engine(checkpoint: &Checkpoint, context: usize) -> Result<Engine<Cpu>> {
    let dev = Cpu::new(CpuOptions::default());
    let model = Model::load(&dev, checkpoint, &mut |_| {})?;
    Ok(Engine::new(dev, model, context, KvFormat::default())?)
}
