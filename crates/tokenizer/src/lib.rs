//! Text to ids and back, and conversations to prompts.
//!
//! [`Tokenizer`] reads three kinds of file: Hugging Face's `tokenizer.json`, Llama 4's `tokenizer.model`, and the
//! vocabulary inside a GGUF. [`ChatFormat`] turns a conversation into [`Segment`]s: Llama 4's own format is code,
//! another checkpoint's comes from its template, and in neither can text become control.
//!
//! This crate knows no model and opens no file.

mod added;
mod audio;
mod byte_level;
pub mod chat;
mod config;
mod encoder;
mod error;
mod gguf;
mod guard;
mod image;
mod json;
mod merge;
mod ranks;
mod segment;
mod special;
mod split;
mod stream;
mod to_gguf;
mod tokenizer;
mod vocabulary;

pub use audio::AudioIds;
pub use chat::{
    ChatFormat, ChatTemplate, Ending, Llama4Chat, Message, Part, Role, ThinkingVariables, ToolCall, ToolPlacement,
    forget_thoughts,
};
pub use error::{ChatError, TokenizerError};
pub use gguf::GgufVocabulary;
pub use image::{ImageIds, image_block};
pub use segment::{Piece, Segment, encode_segments};
pub use special::SpecialTokens;
pub use stream::{TokenStream, Utf8Stream};
pub use tokenizer::{Specials, Tokenizer};
