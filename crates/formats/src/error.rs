//! Why a file is refused.

use std::path::{Path, PathBuf};

/// Why a file can not be used. Each variant names the file, and the field in it.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The operating system refused to open, read or write the file.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file contradicts its format, itself or its neighbours.
    #[error("{}: {field}: {why}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// The tensor, key or part of the header.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file is sound but asks for something that is not implemented.
    #[error("{}: {field}: {why}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The tensor, key or part of the header.
        field: String,
        /// What is asked for and what there is instead.
        why: String,
    },
    /// Something that has to be there is not.
    #[error("{}: {field} is missing", file.display())]
    Missing {
        /// The file or folder.
        file: PathBuf,
        /// The tensor, key or neighbouring file that is not there.
        field: String,
    },
}

impl FormatError {
    pub(crate) fn io(file: &Path, source: std::io::Error) -> Self {
        Self::Io { file: file.into(), source }
    }

    pub(crate) fn corrupt(file: &Path, field: &str, why: impl AsRef<str>) -> Self {
        Self::Corrupt { file: file.into(), field: clip(field), why: clip(why.as_ref()) }
    }

    pub(crate) fn unsupported(file: &Path, field: &str, why: impl AsRef<str>) -> Self {
        Self::Unsupported { file: file.into(), field: clip(field), why: clip(why.as_ref()) }
    }

    pub(crate) fn missing(file: &Path, field: &str) -> Self {
        Self::Missing { file: file.into(), field: clip(field) }
    }

    /// The file or folder that is refused.
    pub fn file(&self) -> &Path {
        match self {
            Self::Io { file, .. }
            | Self::Corrupt { file, .. }
            | Self::Unsupported { file, .. }
            | Self::Missing { file, .. } => file,
        }
    }

    /// The tensor, key or part of the file that the refusal is about; `None` where it is the file as a whole.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Io { .. } => None,
            Self::Corrupt { field, .. } | Self::Unsupported { field, .. } | Self::Missing { field, .. } => Some(field),
        }
    }
}

/// At most the first 300 bytes of `text`: names come from files and may be megabytes long.
pub(crate) fn clip(text: &str) -> String {
    const LIMIT_BYTES: usize = 300;
    if text.len() <= LIMIT_BYTES {
        return text.into();
    }
    let end = (0..=LIMIT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}
