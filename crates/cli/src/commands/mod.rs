//! One file a command: its arguments and what it does.

mod bench;
mod completions;
mod config;
mod data;
mod eval;
mod export;
mod finetune;
mod graft_audio;
mod inspect;
mod plan;
mod ps;
mod quantize;
mod run;
mod serve;
mod tokenize;
mod trace;
mod train;

use std::process::ExitCode;

use anyhow::Result;

/// Commands.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Answer a prompt, or hold a conversation
    Run(run::Run),
    /// Serve a model over HTTP, in OpenAI's and Anthropic's shapes
    Serve(Box<serve::Serve>),
    /// Show the servers that run on this machine
    Ps(ps::Ps),
    /// Measure speed: prompts, decoding, loading, and the share of what the machine allows
    Bench(bench::Bench),
    /// Score a model on tasks that it was not trained on
    Eval(eval::Eval),
    /// Forecast memory and speed, before a model is loaded or even here
    #[command(visible_alias = "fit")]
    Plan(Box<plan::Plan>),
    /// Show what a model's files hold
    Inspect(inspect::Inspect),
    /// Write a model in another format
    Quantize(quantize::Quantize),
    /// Give a Llama 4 model ears: an encoder of Whisper's or Voxtral's
    GraftAudio(graft_audio::GraftAudio),
    /// Train a model by a recipe
    Train(train::Train),
    /// Train a model further, or an adapter for it, on rows of one's own
    Finetune(Box<finetune::Finetune>),
    /// Write a model for other programs, with an adapter merged into it
    Export(export::Export),
    /// Check and show training data, and train a tokenizer on it
    Data(data::Data),
    /// Write every intermediate tensor of a forward pass to a file
    #[command(hide = true)]
    Trace(trace::Trace),
    /// Show the token ids of a text
    Tokenize(tokenize::Tokenize),
    /// Show settings, and where they come from
    Config(config::Config),
    /// Print completions for a shell
    #[command(hide = true)]
    Completions(completions::Completions),
}

impl Command {
    /// Runs the command; `top` is the whole command line's description.
    ///
    /// # Errors
    /// Whatever ended it early; `failure::report` gives the exit code.
    pub fn run(self, top: &mut clap::Command) -> Result<ExitCode> {
        match self {
            Self::Run(command) => return command.run(),
            Self::Serve(command) => return command.run(),
            Self::Ps(command) => command.run()?,
            Self::Quantize(command) => return command.run(),
            Self::Plan(command) => return command.run(),
            Self::Train(command) => return command.run(),
            Self::Eval(command) => return command.run(),
            Self::Finetune(command) => return command.run(),
            Self::Export(command) => return command.run(),
            Self::Config(command) => return command.run(top),
            Self::Data(command) => return command.run(),
            Self::Bench(command) => command.run()?,
            Self::GraftAudio(command) => command.run()?,
            Self::Inspect(command) => command.run()?,
            Self::Trace(command) => command.run()?,
            Self::Tokenize(command) => command.run()?,
            Self::Completions(command) => command.run(top)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
