//! What stands in bodies, as types.
//!
//! Objects whose fields depend on a `type` are one flat type each, checked afterwards: so every mistake has its path, and
//! every field that nobody reads is noticed.

pub mod chat;
pub mod completions;
pub mod messages;
pub mod responses;
pub mod thinking;
pub mod value;

pub use value::{Bias, OneOrMany, Real, Whole};
