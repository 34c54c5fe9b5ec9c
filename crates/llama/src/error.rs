//! What can go wrong between a checkpoint and logits.

/// Why a model was not loaded or a step not computed.
#[derive(Debug, thiserror::Error)]
pub enum LlamaError {
    /// A weight is missing from the files.
    #[error("weight \"{name}\" is not in the checkpoint")]
    Missing {
        /// The name looked for; where a checkpoint may use several, the first.
        name: String,
    },
    /// A weight does not have the shape or type that the config asks for.
    #[error("weight \"{name}\" {why}")]
    Weight {
        /// Its name in the files.
        name: String,
        /// What is wrong, with both sizes.
        why: String,
    },
    /// An adapter's tensor has no place in the model.
    #[error("\"{name}\" {why}")]
    Lora {
        /// Its name in the adapter's file.
        name: String,
        /// What is wrong, with what the model has instead.
        why: String,
    },
    /// The model can not do what was asked (an image for a model without a vision tower).
    #[error("{0}")]
    Unsupported(String),
    /// A device refused an op: the rows of a batch do not fit the model or the cache.
    #[error(transparent)]
    Op(#[from] tensor::OpError),
}
