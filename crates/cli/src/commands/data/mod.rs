//! `puna data`.

mod check;
mod media;
mod show;
mod tokenizer;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use train::data::{Makers, Source};

use crate::failure::usage;

/// Training data: JSONL, Parquet and plain text, also in gzip and Zstandard
///
/// A row is a document {"text": …}, a conversation {"messages": […]} in the form of the API, or two answers {"prompt": …,
/// "chosen": …, "rejected": …}. Plain text is cut into documents where paragraphs end.
#[derive(clap::Args)]
pub struct Data {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Check(check::Check),
    Show(show::Show),
    Tokenizer(tokenizer::TrainTokenizer),
}

impl Data {
    pub fn run(self) -> Result<ExitCode> {
        match self.verb {
            Verb::Check(check) => return check.run(),
            Verb::Show(show) => show.run()?,
            Verb::Tokenizer(tokenizer) => tokenizer.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The sources that an argument names: a file, or `generator:NAME`, where the name may be that of a group.
///
/// # Errors
/// For a generator that there is not.
fn sources(name: &str) -> Result<Vec<Source>> {
    let Some(wanted) = name.strip_prefix("generator:") else { return Ok(vec![Source::File(PathBuf::from(name))]) };
    match Makers::default().named(wanted) {
        Ok(generators) => Ok(generators.into_iter().map(Source::Generator).collect()),
        Err(error) => Err(usage(error.to_string(), "name one of these as generator:NAME")),
    }
}
