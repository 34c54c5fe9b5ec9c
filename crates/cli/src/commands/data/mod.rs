//! `puna data`.

mod check;
mod media;
mod show;
mod tokenizer;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use train::data::Source;

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

/// The source that an argument names: a file, or `generator:NAME`.
///
/// # Errors
/// Exit code 2 for a generator that there is not.
fn source(name: &str) -> Result<Source> {
    let Some(wanted) = name.strip_prefix("generator:") else { return Ok(Source::File(PathBuf::from(name))) };
    let all = generators::all();
    let names: Vec<&str> = all.iter().map(|generator| generator.name()).collect();
    let hint = format!("the generators are: {}", names.join(", "));
    let found = all.into_iter().find(|generator| generator.name() == wanted);
    found.map(Source::Generator).ok_or_else(|| usage(format!("there is no generator {wanted:?}"), hint))
}
