//! Training data: from files and generators to steps.
//!
//! [`Rows`] reads a file, [`Raw::parse`] makes a [`Row`] of what stands in it. A [`Mixture`] chooses rows of weighted
//! sources, an [`Encoder`] makes sequences of them, a [`Feed`] packs these into steps. Every choice is a function of a
//! seed and a counter, so that what is resumed is what never stopped, to the bit.

mod contamination;
mod encode;
mod error;
mod feed;
mod makers;
mod mixture;
mod pack;
mod row;
mod source;
mod vocabulary;
mod wire;

pub use contamination::{Benchmarks, Contamination, N_WORDS, Overlap};
pub use encode::{Encoded, Encoder, Markers, Senses, Turns, Unit, Weighting, clip, image};
pub use error::{DataError, Place};
pub use feed::{Feed, FeedSettings, FeedState, Given, Step, held_out};
pub use makers::{Makers, sentences};
pub use mixture::{Ingredient, Mixture, MixtureSettings, MixtureState, Source, is_held_out};
pub use pack::pack;
pub use row::{At, Conversation, Kind, Medium, Row};
pub use source::{Columns, DOCUMENT_BYTES, ROW_LIMIT_BYTES, Raw, Rows};
pub use vocabulary::{TrainedTokenizer, train_tokenizer};
