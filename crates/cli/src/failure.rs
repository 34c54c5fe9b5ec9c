//! What a failed command prints and which code it exits with.

use std::io::ErrorKind;
use std::process::ExitCode;

use engine::EngineError;
use formats::FormatError;
use formats::gguf::{LAYOUT_KEY, ROWS_KEY};
use llama::LlamaError;
use tensor::ReadError;
use tokenizer::{ChatError, TokenizerError};

/// The operation failed.
const FAILED: u8 = 1;
/// What was asked for makes no sense or is out of range.
const USAGE: u8 = 2;
/// The plan does not fit the memory.
pub const MEMORY: u8 = 3;
/// A model or its files are broken, incomplete or of an unknown kind.
const MODEL: u8 = 5;

/// A defect of this program.
pub const INTERNAL: u8 = 70;

/// Runs a command. Its error becomes a message and an exit code, and so does a panic: both are the process's last word.
pub fn guard(command: impl FnOnce() -> anyhow::Result<ExitCode> + std::panic::UnwindSafe) -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("of an unknown kind");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("error: a defect of puna {}: {what} ({place})", env!("CARGO_PKG_VERSION"));
        eprintln!("hint:  please report this line with the command; RUST_BACKTRACE=1 adds where it came from");
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            eprintln!("{trace}");
        }
    }));
    match std::panic::catch_unwind(command) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => report(&error),
        Err(_) => ExitCode::from(INTERNAL),
    }
}

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

/// What makes an adapter's files useless, with the way out.
pub fn no_lora(error: &FormatError) -> anyhow::Error {
    let hint = match error {
        FormatError::Corrupt { .. } => "the adapter is damaged or incomplete: fetch it again and compare its size",
        _ => "an adapter is a folder with adapter_config.json and adapter_model.safetensors, as PEFT saves them",
    };
    Hinted { message: error.to_string(), hint: hint.into(), code: MODEL }.into()
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
            Some(LlamaError::Unsupported(_) | LlamaError::Lora { .. }) => return USAGE,
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

/// The way out where a file contradicts itself.
const DAMAGED: &str = "the file is damaged or incomplete: fetch it again and compare its size";

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<FormatError>() {
            return Some(match error {
                FormatError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                    "name a GGUF file, or a folder with config.json and its .safetensors files"
                }
                FormatError::Io { .. } => "check the path and its permissions",
                FormatError::Corrupt { .. } => DAMAGED,
                FormatError::Unsupported { field, .. } if field == LAYOUT_KEY || field == ROWS_KEY => {
                    "pack the model again: puna quantize MODEL.gguf OUT.puna --to packed"
                }
                FormatError::Unsupported { .. } | FormatError::Missing { .. } => {
                    "a model is a GGUF file, or a folder with config.json and its .safetensors files"
                }
            });
        }
        match cause.downcast_ref::<TokenizerError>() {
            Some(TokenizerError::Corrupt { .. }) => {
                return Some(DAMAGED);
            }
            Some(TokenizerError::Unsupported { .. }) => {
                return Some("BPE tokenizers are supported: tokenizer.json, Llama 4's tokenizer.model, GGUF");
            }
            None => {}
        }
        if let Some(ChatError::Template { .. } | ChatError::MissingControl { .. }) = cause.downcast_ref() {
            return Some("--raw continues a prompt without the chat format");
        }
        if let Some(ReadError { .. }) = cause.downcast_ref() {
            return Some("the model's file has to stay as it is while it is in use: check the file and its disk");
        }
        if let Some(LlamaError::Missing { .. } | LlamaError::Weight { .. }) = cause.downcast_ref() {
            return Some("config and weights do not belong together, or a file is missing: fetch the model again");
        }
        if let Some(LlamaError::Lora { .. }) = cause.downcast_ref() {
            return Some(
                "an adapter goes with the model that it was trained on: compare base_model_name_or_path in its \
                 adapter_config.json",
            );
        }
        match cause.downcast_ref::<EngineError>()? {
            EngineError::TooLong { .. } => Some("give a larger --ctx, or a shorter prompt"),
            EngineError::Full { .. } => Some("give a larger --ctx"),
            EngineError::Empty => Some("write a prompt, or pipe one in"),
            EngineError::Sampling(_) => Some("`puna run --help` says what each flag takes"),
            EngineError::Media(_) => Some("PNG, JPEG, WebP and GIF images are read"),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic)]
    fn a_panic_gives_its_own_exit_code() {
        let code = guard(|| panic!("on purpose"));
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(70)));
        let code = guard(|| Err(usage("a", "b")));
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
    }
}
