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
    /// An adapter can not be made.
    #[error("an adapter: {why}")]
    Lora {
        /// What is wrong, and what there is instead.
        why: String,
    },
    /// A recipe can not be followed; `why` says what is wrong, and where.
    #[error("{}: {why}", file.display())]
    Recipe {
        /// The recipe.
        file: std::path::PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Data could not be read or used.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// A checkpoint could not be written.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// A checkpoint is not one that this run can go on from.
    #[error("the checkpoint of step {step}: {why}")]
    Resume {
        /// Steps behind it.
        step: u64,
        /// What is wrong.
        why: String,
    },
    /// Steps were skipped, one after another, because gradients were not finite.
    #[error(
        "step {step}: {in_a_row} steps in a row had gradients that are not finite; lower the learning rate and go on from a checkpoint"
    )]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// How many were skipped.
        in_a_row: u64,
    },
    /// A sequence does not fit the model; `why` says in what.
    #[error("a sequence can not be trained on: {why}")]
    Sequence {
        /// What does not fit, and how.
        why: String,
    },
}
