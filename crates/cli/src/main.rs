//! The `puna` binary: arguments, environment, exit codes, choosing the device.

mod answer;
mod bench;
mod chat;
mod commands;
mod experts;
mod failure;
mod interrupt;
mod memory;
mod model;
mod ordered;
mod output;
mod plan;
mod repl;
mod running;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// Llama 4 as an open system: text and images, on ordinary machines.
#[derive(Parser)]
#[command(name = "puna", version, about, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    failure::guard(|| {
        interrupt::install()?;
        arguments.command.run(&mut Arguments::command())
    })
}
