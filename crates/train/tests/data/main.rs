//! Training data: what is read, what is learnt, and in which order.

#![allow(clippy::panic)] // a failed expectation of a test is a panic

mod contamination;
mod encoding;
mod files;
mod hostile;
mod order;
mod vocabulary;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokenizer::{ChatFormat, Llama4Chat, Tokenizer};
use train::data::{Columns, DataError, Encoder, Markers, Rows, Senses, TrainedTokenizer, train_tokenizer};

/// Prose of the repository.
fn prose() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/prose.txt");
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn trained() -> Result<TrainedTokenizer> {
    Ok(train_tokenizer(std::iter::once(Ok(prose()?)), 512)?)
}

fn tokenizer() -> Result<Tokenizer> {
    let trained = trained()?;
    let tokenizer = Tokenizer::from_json("tokenizer.json", trained.tokenizer.as_bytes())?;
    Ok(tokenizer.with_config("tokenizer_config.json", trained.config.as_bytes())?)
}

/// An encoder of a model that thinks, or of one that knows no markers.
fn encoder(senses: Senses, thinks: Thinks) -> Result<Encoder> {
    let tokenizer = tokenizer()?;
    let id = |name: &str| tokenizer.control(name).with_context(|| name.to_owned());
    let start = vec![id("<|reasoning_thinking_start|>")?];
    let end = vec![id("<|reasoning_thinking_end|>")?];
    let chat = Llama4Chat::new(&tokenizer)?;
    let (chat, markers) = match thinks {
        Thinks::Yes => (chat.with_markers(start.clone(), end.clone()), Some(Markers { start, end })),
        Thinks::No => (chat, None),
    };
    Ok(Encoder { markers, senses, ..Encoder::new(tokenizer, Some(ChatFormat::Llama4(chat))) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Thinks {
    Yes,
    No,
}

/// A file of this name and content.
fn file(folder: &Path, name: &str, content: &[u8]) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, content)?;
    Ok(path)
}

/// All rows of a file, each parsed, or why it is not.
fn rows(path: &Path) -> Vec<Result<train::data::Row, String>> {
    match Rows::open(path, Columns::OfSamples) {
        Ok(rows) => rows.map(|raw| raw.and_then(|raw| raw.parse()).map_err(|error| short(&error))).collect(),
        Err(error) => vec![Err(short(&error))],
    }
}

/// The error without its folder.
fn short(error: &DataError) -> String {
    let text = error.to_string();
    text.rsplit_once('/').filter(|(folder, _)| folder.starts_with('/')).map_or(text.clone(), |(_, rest)| rest.into())
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}
