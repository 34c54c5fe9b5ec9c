//! The `puna` binary: arguments, environment, exit codes, choosing the device.

mod answer;
mod attachments;
mod bench;
mod built_in;
mod chat;
mod commands;
mod config;
mod experts;
mod failure;
mod interrupt;
mod memory;
mod model;
mod new_folder;
mod ordered;
mod output;
mod plan;
mod repl;
mod running;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// Llama 4 as an open system: text, images and audio, on ordinary machines.
#[derive(Parser)]
#[command(name = "puna", version, about, arg_required_else_help = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    failure::guard(|| {
        interrupt::install()?;
        let mut top = Arguments::command();
        let merged = config::merge(&top, std::env::args_os().collect())?;
        match Arguments::try_parse_from(&merged.arguments) {
            Ok(arguments) => arguments.command.run(&mut top),
            Err(error) => {
                error.print()?;
                if error.use_stderr() && !merged.files.is_empty() {
                    let files: Vec<String> = merged.files.iter().map(|file| file.display().to_string()).collect();
                    eprintln!("\nhint:  {} is part of this; `puna config show --origin` says how", files.join(" and "));
                }
                Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::INTERNAL)))
            }
        }
    })
}
