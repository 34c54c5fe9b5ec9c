//! Writes a model that answers nonsense, always the same, in no time: what clients of the server are tested with.
//!
//! usage: `cargo run -p it --bin toy FOLDER`

use std::path::PathBuf;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: toy FOLDER")?;
    it::speaking::write(&folder)
}
