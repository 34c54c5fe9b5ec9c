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
    /// The optimiser refused a step.
    #[error(transparent)]
    Optim(#[from] crate::optim::OptimError),
    /// A tensor can not be trained; `why` says what is wrong with it.
    #[error("{name} {why}")]
    Weights {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A sequence does not fit the model; `why` says in what.
    #[error("a sequence can not be trained on: {why}")]
    Sequence {
        /// What does not fit, and how.
        why: String,
    },
}
