//! What a tokenizer file or a conversation can be refused for.

/// Why a tokenizer could not be made from its file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// The file contradicts itself or its format; `why` starts with the field.
    #[error("{file}: {why}")]
    Corrupt {
        /// The name of the file, as the caller gave it.
        file: String,
        /// The field and what is wrong with it.
        why: String,
    },
    /// The file is well formed but asks for something that is not built; `why` starts with the field.
    #[error("{file}: {why}")]
    Unsupported {
        /// The name of the file, as the caller gave it.
        file: String,
        /// The field, its value, and what is supported.
        why: String,
    },
}

impl TokenizerError {
    /// A [`TokenizerError::Corrupt`].
    pub(crate) fn corrupt(file: &str, why: impl Into<String>) -> Self {
        Self::Corrupt { file: file.into(), why: why.into() }
    }

    /// A [`TokenizerError::Unsupported`].
    pub(crate) fn unsupported(file: &str, why: impl Into<String>) -> Self {
        Self::Unsupported { file: file.into(), why: why.into() }
    }
}

/// Why a conversation could not be turned into segments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The tokenizer lacks a control token that the format is made of.
    #[error("the tokenizer has no token '{name}', which this prompt format needs")]
    MissingControl {
        /// The spelling of the token.
        name: String,
    },
    /// The conversation cannot be written in this format; the caller can change it.
    #[error("{why}")]
    Conversation {
        /// What does not fit, and what would.
        why: String,
    },
    /// The checkpoint's template does not parse, fails, asks for too much work or loses what it was given.
    #[error("chat template: {why}")]
    Template {
        /// The template engine's or the template's own words.
        why: String,
    },
}

impl ChatError {
    /// A [`ChatError::Conversation`].
    pub(crate) fn conversation(why: impl Into<String>) -> Self {
        Self::Conversation { why: why.into() }
    }

    /// A [`ChatError::Template`].
    pub(crate) fn template(why: impl Into<String>) -> Self {
        Self::Template { why: why.into() }
    }
}
