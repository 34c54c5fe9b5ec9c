//! Training: the tape that makes any device differentiable, losses, optimisers, data, checkpoints.

pub mod data;
mod error;
mod objective;
mod router;
mod sequence;
mod tape;

pub use error::TrainError;
pub use objective::{Losses, Memory, Objective, evaluate};
pub use router::RouterLoss;
pub use sequence::{Chunk, Media, Sequence};
pub use tape::{Mark, Tape, Var};
