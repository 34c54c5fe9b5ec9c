//! What an op can refuse.

/// Why a device refused an op. Every variant is a mistake of the caller or of a file, or a file that could not be read;
/// never one of the numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The operands do not fit each other; `what` says which and how.
    #[error("{op}: {what}")]
    Shape {
        /// The op's name.
        op: &'static str,
        /// The two sizes that disagree.
        what: String,
    },
    /// An index (token id, row, page) lies outside of what it indexes.
    #[error("{op}: index {index} is outside of 0..{len}")]
    Index {
        /// The op's name.
        op: &'static str,
        /// The index given.
        index: usize,
        /// How many there are.
        len: usize,
    },
    /// Weights that stay in their file until they are needed could not be read.
    #[error(transparent)]
    Read(#[from] crate::ReadError),
}

impl OpError {
    /// A [`OpError::Shape`].
    pub fn shape(op: &'static str, what: impl Into<String>) -> Self {
        Self::Shape { op, what: what.into() }
    }
}
