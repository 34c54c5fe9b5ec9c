//! Writes a model that sees, hears and answers nonsense, in no time: what clients of the server are tested with.
//!
//! usage: `cargo run -p it --bin toy FOLDER`

use std::path::PathBuf;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: toy FOLDER")?;
    it::speaking::write(&folder)?;
    it::speaking::add_ears(&folder)
}
