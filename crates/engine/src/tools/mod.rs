//! Calls of tools in what a model writes.
//!
//! Llama 4 writes a call as JSON, `{"name": "f", "parameters": {…}}`, at times several of them with anything between; as
//! a Python list, `[f(a=1), g()]`; or tagged, `<function=f>{…}</function>`; with prose before it or none. All are read,
//! whatever the prompt asked for, in one pass and as the text comes. Only declared names make a call: everything else
//! stays text.

mod json;
mod python;
mod recogniser;

pub use recogniser::{Part, Recogniser};

/// A tool that a request declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// The JSON schema of its arguments, as text.
    pub parameters: String,
    /// Whether a schema that can not be followed is an error, even where the model need not call.
    pub is_strict: bool,
}

/// Whether an answer is a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// As the model likes.
    Auto,
    /// It is.
    Required,
}
