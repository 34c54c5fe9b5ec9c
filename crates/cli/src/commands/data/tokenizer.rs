//! `puna data tokenizer`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use generators::Split;
use train::data::{Columns, Row, Rows, Source, train_tokenizer};

use super::sources;
use crate::failure::usage;
use crate::output::{line, thousands};

/// Train a tokenizer on the text of files
///
/// Byte-level BPE, cut as Llama 4 cuts, with Llama 4's named control tokens behind its own. Holds every different word of
/// the text.
#[derive(clap::Args)]
pub struct TrainTokenizer {
    /// Files of rows, or generators as generator:NAME
    #[arg(required = true)]
    sources: Vec<String>,
    /// Samples of each generator
    #[arg(short, long, default_value_t = 2000)]
    n: u64,
    /// A new folder for tokenizer.json, tokenizer_config.json and chat_template.jinja
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Tokens, control tokens included
    #[arg(long, default_value_t = 8192)]
    tokens: usize,
}

impl TrainTokenizer {
    pub fn run(self) -> Result<()> {
        let folder = &self.output;
        if folder.exists() {
            let message = format!("{} is there already", folder.display());
            return Err(usage(message, "name a folder that is not there"));
        }
        let named = self.sources.iter().map(|name| sources(name)).collect::<Result<Vec<_>>>()?;
        let (mut files, mut generators) = (Vec::new(), Vec::new());
        for source in named.into_iter().flatten() {
            match source {
                Source::File(path) => files.push(Rows::open(&path, Columns::OfSamples)?),
                Source::Generator(generator) => generators.push(generator),
            }
        }
        let texts = files.into_iter().flatten().map(|raw| raw.and_then(|raw| Ok(raw.parse()?.text())));
        let made = generators.into_iter().flat_map(|generator| {
            (0..self.n).map(move |index| Ok(Row::from(generator.at(Split::Train, index)).text()))
        });
        let texts = texts.chain(made);
        let trained = train_tokenizer(texts, self.tokens)?;
        fs::create_dir(folder).with_context(|| format!("creating {}", folder.display()))?;
        for (name, text) in [
            ("tokenizer_config.json", &trained.config),
            ("chat_template.jinja", &trained.chat_template),
            // Last, so that a folder with it is whole.
            ("tokenizer.json", &trained.tokenizer),
        ] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        let n_tokens = u64::try_from(trained.n_tokens)?;
        let less = if trained.n_tokens < self.tokens { "; the text has no more pairs" } else { "" };
        Ok(line(&format!("{}: {} tokens{less}", folder.display(), thousands(n_tokens)))?)
    }
}
