//! The model, written once for every [`tensor::Device`]: Llama 4's decoder, its vision tower and audio encoder, and
//! the dense models of the family as the same decoder with other layer descriptions.
//!
//! There is no prefill and no decode: a [`Batch`] is a list of rows, each of which knows its position and its pages.

mod audio;
mod batch;
mod blank;
mod decoder;
mod error;
pub mod export;
mod footprint;
mod graft;
mod load;
mod lora;
mod names;
mod packed;
mod probe;
mod rotary;
mod vision;

pub use audio::{Audio, AudioChunk, AudioEncoder, AudioStream, quantise_audio, sinusoids};
pub use batch::{Batch, Input, PageRun, Row};
pub use blank::{Blank, blanks};
pub use decoder::{Cache, Decoder, Passage};
pub use error::LlamaError;
// How samples become columns is a checkpoint's to say and the engine's to do, which does not know files.
pub use footprint::{Footprint, Routed, Use};
pub use formats::config::{AudioConfig, AudioPreprocessorConfig, HOP, PadTo, PaddingMode, SAMPLE_RATE};
pub use graft::Graft;
pub use load::Model;
pub use lora::{Adaptable, adaptable, merged};
pub use packed::{Pack, PackError, PackedPlan};
pub use probe::{Probe, Site};
pub use vision::Vision;
