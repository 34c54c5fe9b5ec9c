//! What the engine can refuse or fail at.

use crate::media::MediaError;
use crate::sampling::SamplingError;
use crate::service::Failure;

/// Why a request was refused or ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The prompt alone is longer than the context.
    #[error("the prompt has {got_tokens} tokens; the context holds {limit_tokens}")]
    TooLong {
        /// Positions of the context.
        limit_tokens: usize,
        /// Positions of the prompt.
        got_tokens: usize,
    },
    /// No page is free.
    #[error("all pages are in use; they hold {limit_tokens} tokens")]
    Full {
        /// Positions of the pool.
        limit_tokens: usize,
    },
    /// The prompt is empty.
    #[error("the prompt has no tokens")]
    Empty,
    /// The prompt can not be given to this model.
    #[error("{0}")]
    Prompt(String),
    /// An image was refused.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A parameter is out of its bounds.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The answer ended without a result.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The system gave no thread.
    #[error("the engine's thread could not be started: {0}")]
    Thread(std::io::Error),
    /// The model refused a step.
    #[error(transparent)]
    Model(#[from] llama::LlamaError),
}
