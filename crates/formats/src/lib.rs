//! Model files to checked descriptions, and back: safetensors, GGUF, the JSON files around them, LoRA adapters.
//!
//! Every parser takes the file's name for its errors and the bytes. No input panics, every number is checked before it
//! is used, claims are held against the file's length before anything is allocated, and no parser allocates more than
//! the file's size and 1 MiB. Weights stay where they are: a [`Tensor`]'s bytes are a range of the mapped file.

#![deny(unsafe_code)]

pub mod checkpoint;
pub mod config;
pub mod gguf;
pub mod safetensors;

mod atomic;
mod budget;
mod error;
mod json;
mod lora;
mod mmap;
mod stored;

pub use checkpoint::{Checkpoint, EncoderSource, Kind, TokenizerFiles};
pub use config::{AudioPreprocessorConfig, GenerationConfig, ModelConfig, PreprocessorConfig, ReasoningConfig};
pub use error::FormatError;
pub use gguf::Gguf;
pub use lora::{Lora, LoraConfig, LowRank, half_name, is_routed};
pub use mmap::map_file;
pub use stored::{DType, NewTensor, Tensor, TensorInfo};
