//! What training can fail at.

use llama::LlamaError;
use tensor::OpError;

/// Why a step, or all of training, could not be done.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model refused a step.
    #[error(transparent)]
    Model(#[from] LlamaError),
    /// An op refused.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A sequence does not fit the model; `why` says in what.
    #[error("a sequence can not be trained on: {why}")]
    Sequence {
        /// What does not fit, and how.
        why: String,
    },
}
