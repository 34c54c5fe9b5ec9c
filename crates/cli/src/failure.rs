//! What a failed command prints and which code it exits with.

use std::io::ErrorKind;
use std::process::ExitCode;

use engine::EngineError;
use formats::FormatError;
use llama::LlamaError;
use tokenizer::{ChatError, TokenizerError};

/// The operation failed.
const FAILED: u8 = 1;
/// What was asked for makes no sense or is out of range.
const USAGE: u8 = 2;
/// The plan does not fit the memory.
const MEMORY: u8 = 3;
/// A model or its files are broken, incomplete or of an unknown kind.
const MODEL: u8 = 5;

/// An error with a way out.
#[derive(Debug)]
pub struct Hinted {
    message: String,
    hint: String,
    code: u8,
}

impl std::fmt::Display for Hinted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

/// An error of usage, with the way out.
pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into(), code: USAGE }.into()
}

/// What does not fit the memory, with the way out.
pub fn no_memory(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into(), code: MEMORY }.into()
}

/// Prints `error` with its causes and, where there is one, a hint; returns the exit code of its kind.
///
/// A closed standard output (`puna … | head`) ends quietly: the reader has what it wanted.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // A transparent wrapper repeats its cause.
        if !lines.iter().any(|line| line.contains(&text)) {
            lines.push(text);
        }
    }
    eprintln!("error: {}", lines.join(": "));
    let hinted = error.chain().find_map(|cause| cause.downcast_ref::<Hinted>());
    if let Some(hint) = hinted.map(|h| h.hint.as_str()).or_else(|| hint(error)) {
        eprintln!("hint:  {hint}");
    }
    ExitCode::from(hinted.map_or_else(|| code(error), |h| h.code))
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<FormatError>() || cause.is::<TokenizerError>() || cause.is::<ChatError>() {
            return MODEL;
        }
        match cause.downcast_ref::<LlamaError>() {
            Some(LlamaError::Missing { .. } | LlamaError::Weight { .. }) => return MODEL,
            Some(LlamaError::Unsupported(_)) => return USAGE,
            Some(LlamaError::Op(_)) => return FAILED,
            None => {}
        }
        match cause.downcast_ref::<EngineError>() {
            Some(EngineError::Sampling(_) | EngineError::Media(_) | EngineError::Empty | EngineError::Prompt(_)) => {
                return USAGE;
            }
            Some(EngineError::TooLong { .. }) => return USAGE,
            _ => {}
        }
    }
    FAILED
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| match cause.downcast_ref::<EngineError>()? {
        EngineError::TooLong { .. } => Some("give a larger --ctx, or a shorter prompt"),
        EngineError::Full { .. } => Some("give a larger --ctx"),
        EngineError::Empty => Some("write a prompt, or pipe one in"),
        _ => None,
    })
}
