//! Training: the tape that makes any device differentiable, losses, optimisers, data, checkpoints.

pub mod data;
mod error;
mod objective;
mod preference;
mod router;
mod run;
mod sequence;
mod tape;
mod teacher;
mod trainer;
mod weights;

pub mod checkpoint;
pub mod lora;
pub mod optim;
pub mod recipe;
pub mod schedule;
pub mod shape;

pub use error::TrainError;
pub use objective::{Losses, Memory, Objective, evaluate};
pub use preference::{Preference, log_probabilities};
pub use router::RouterLoss;
pub use run::{End, Event, Plan, Run, Stage};
pub use sequence::{Chunk, Media, Sequence};
pub use tape::{Mark, Tape, Var};
pub use teacher::{Distillation, Teacher};
pub use trainer::{Step, Trained, Trainer};
pub use weights::Weights;
