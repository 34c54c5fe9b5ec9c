//! `puna tokenize`.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;
use tokenizer::{Ending, Message, Piece, Role, encode_segments};

use crate::built_in;
use crate::model;
use crate::output::line;

/// Show the token ids of a text
///
/// The text is encoded as it stands: no start token, and the spelling of a special token is ordinary text. With --chat
/// the ids are those that `run` gives the model for this prompt.
#[derive(clap::Args)]
pub struct Tokenize {
    /// The text; standard input if absent
    text: Option<String>,
    /// A model (GGUF file or folder), or a tokenizer file alone; nano is the model that is part of this program
    #[arg(short, long, env = "PUNA_MODEL", default_value = built_in::NAME)]
    model: PathBuf,
    /// As a user's message in the model's chat format, ready for the answer
    #[arg(long)]
    chat: bool,
    /// One object {"ids": [...], "tokens": [...]}
    #[arg(long)]
    json: bool,
}

impl Tokenize {
    pub fn run(self) -> Result<()> {
        let (tokenizer, format) = model::open_tokenizer(&self.model)?;
        let text = match self.text {
            Some(text) => text,
            None => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                text
            }
        };
        let ids = if self.chat {
            let format = format.context("this tokenizer comes without a chat format")?;
            let segments = format.render(&[Message::text(Role::User, text)], None, Ending::Answer(None))?;
            let pieces = encode_segments(&tokenizer, &segments);
            pieces.into_iter().flat_map(|piece| if let Piece::Ids(ids) = piece { ids } else { Vec::new() }).collect()
        } else {
            tokenizer.encode(&text)
        };
        let spell = |id: &u32| tokenizer.token_bytes(*id).map(|b| String::from_utf8_lossy(b).into_owned());
        let tokens: Vec<String> = ids.iter().map(|id| spell(id).unwrap_or_default()).collect();
        if self.json {
            line(&json!({ "ids": ids, "tokens": tokens }).to_string())?;
        } else {
            for (id, token) in ids.iter().zip(&tokens) {
                line(&format!("{id:>7}  {token:?}"))?;
            }
        }
        Ok(())
    }
}
