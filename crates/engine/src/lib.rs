//! From prompts to text: sequences and their pages, steps through the model, images, sampling, streaming.
//!
//! Knows no HTTP, no wire formats and no concrete device.

pub mod constraint;
mod engine;
mod error;
pub mod fault;
mod generate;
pub mod limits;
pub mod media;
mod pages;
mod prompt;
pub mod sampling;
pub mod scheduler;
mod sequence;
pub mod service;
pub mod thinking;
pub mod tools;

pub use engine::{CachePlan, Engine, STEP_ROWS};
pub use error::EngineError;
pub use generate::{Event, FinishReason, Finished, Request};
pub use limits::Limits;
pub use prompt::{Layout, content, encode_image, encode_sound};
pub use sequence::{Content, Encoded, Known, Sequence};
