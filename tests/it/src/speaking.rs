//! A toy that can be spoken to: the toy Scout with a tokenizer, and a vocabulary to match.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use formats::{DType, NewTensor};
use serde_json::{Value, json};
use tensor::Format;
use tokenizer::{SpecialTokens, Tokenizer};

/// The two tensors that have a row for each token.
const BY_TOKEN: [&str; 2] = ["language_model.lm_head.weight", "language_model.model.embed_tokens.weight"];

/// Writes a checkpoint of Llama 4's layout into `folder`: weights, config and a rank file of the 256 bytes.
///
/// It answers nonsense, always the same.
///
/// # Errors
/// If a file can not be read or written.
pub fn write(folder: &Path) -> Result<()> {
    write_with(folder, &[])
}

/// As [`write()`], with the tokens `merged` after the 256 bytes.
///
/// # Errors
/// As [`write()`].
pub fn write_with(folder: &Path, merged: &[&str]) -> Result<()> {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/toy/scout");
    std::fs::create_dir_all(folder)?;
    let ranks = rank_file(merged);
    std::fs::write(folder.join("tokenizer.model"), &ranks)?;
    let tokenizer = Tokenizer::from_ranks("tokenizer.model", ranks.as_bytes(), SpecialTokens::llama4())?;

    let file = toy.join("model.safetensors");
    let tensors = formats::safetensors::parse(&file, &formats::map_file(&file)?)?;
    let widened: Vec<Vec<u8>> = BY_TOKEN
        .iter()
        .map(|name| {
            let tensor = tensors.iter().find(|t| t.name == *name).context("a table by token")?;
            Ok(repeated(&tensor.bytes, tensor.shape[0], tensor.shape[1], tokenizer.vocab_size()))
        })
        .collect::<Result<_>>()?;
    let shapes: Vec<Vec<usize>> = tensors.iter().map(|t| t.shape.to_vec()).collect();
    let by_token = [tokenizer.vocab_size(), 32];
    let stored: Vec<NewTensor<'_>> = tensors
        .iter()
        .zip(&shapes)
        .map(|(tensor, shape)| {
            let (shape, bytes) = match BY_TOKEN.iter().position(|name| *name == tensor.name) {
                Some(i) => (by_token.as_slice(), widened[i].as_slice()),
                None => (shape.as_slice(), &tensor.bytes[..]),
            };
            NewTensor { name: &tensor.name, dtype: DType::Weight(Format::F32), shape, bytes }
        })
        .collect();
    formats::safetensors::write(&folder.join("model.safetensors"), &stored)?;

    let id = |name: &str| tokenizer.control(name).with_context(|| format!("no token {name}"));
    let mut config: Value = serde_json::from_slice(&std::fs::read(toy.join("config.json"))?)?;
    config["boi_token_index"] = json!(id("<|image_start|>")?);
    config["eoi_token_index"] = json!(id("<|image_end|>")?);
    config["image_token_index"] = json!(id("<|patch|>")?);
    config["text_config"]["vocab_size"] = json!(tokenizer.vocab_size());
    config["text_config"]["bos_token_id"] = json!(id("<|begin_of_text|>")?);
    config["text_config"]["eos_token_id"] = json!(id("<|eot|>")?);
    std::fs::write(folder.join("config.json"), config.to_string())?;
    Ok(())
}

/// A rank file with a token for each byte, in their order, then `merged`.
fn rank_file(merged: &[&str]) -> String {
    let tokens = (0..=255u8).map(|byte| vec![byte]).chain(merged.iter().map(|token| token.as_bytes().to_vec()));
    tokens.enumerate().map(|(rank, token)| format!("{} {rank}\n", STANDARD.encode(token))).collect()
}

/// Changes the config in `folder` in what GGUF files do not store: chunks, temperature and rope scaling get the values
/// that their readers assume.
///
/// # Errors
/// If the config can not be read or written.
pub fn assume_published_settings(folder: &Path) -> Result<()> {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let text = &mut config["text_config"];
    text["attention_chunk_size"] = json!(8192);
    text["floor_scale"] = json!(8192);
    std::fs::write(path, config.to_string())?;
    Ok(())
}

/// `n_rows` rows of `width` f32: those of `bytes` again and again, each time smaller, so that no two are equal and bytes are likelier than
/// control tokens.
fn repeated(bytes: &[u8], n_own: usize, width: usize, n_rows: usize) -> Vec<u8> {
    let mut own = vec![0.0; n_own * width];
    Format::F32.decode(bytes, &mut own);
    let mut out = Vec::with_capacity(4 * n_rows * width);
    for row in 0..n_rows {
        let scale = 1.0 / (1 + row / n_own) as f32;
        for column in 0..width {
            out.extend((scale * own[row % n_own * width + column]).to_le_bytes());
        }
    }
    out
}
