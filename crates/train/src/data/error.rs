//! What data can be refused for, and where it stands.

use std::fmt;
use std::sync::Arc;

/// Where a row stands: the source's name and the number of its line, row or sample.
///
/// Lines and rows count from 1; a plain text's documents are known by the line that they begin at; samples of a generator
/// count from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// A file's path or `generator:NAME`.
    pub source: Arc<str>,
    /// Its line, row or sample.
    pub row: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.row)
    }
}

/// Why data can not be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file can not be read, or not any further.
    #[error("{file}: {why}")]
    File {
        /// Its path.
        file: Arc<str>,
        /// What is wrong, and the way out.
        why: String,
    },
    /// A row can not be used; those behind it can.
    #[error("{place}: {why}")]
    Row {
        /// Which.
        place: Place,
        /// The field, what is wrong with it, and the way out.
        why: String,
    },
    /// A file has no row of the split that was asked for.
    #[error("{file} has no row that is {split}")]
    Nothing {
        /// Its path.
        file: Arc<str>,
        /// `for training` or `held out`.
        split: &'static str,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Settings(String),
}

impl DataError {
    pub(super) fn file(file: &Arc<str>, why: impl Into<String>) -> Self {
        Self::File { file: Arc::clone(file), why: why.into() }
    }

    pub(super) fn row(place: &Place, why: impl Into<String>) -> Self {
        Self::Row { place: place.clone(), why: why.into() }
    }
}
