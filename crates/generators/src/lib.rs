//! Endless, seeded training data that we make ourselves: tasks with checked answers and worked thinking, pictures, sounds,
//! conversation.
//!
//! A [`Generator`] is one file; [`all`] lists them. Sample `index` of a generator is a function of its name, its
//! [`Split`] and that number alone, and no sample of one split can come in the other.

mod asked;
pub mod pictures;
mod sample;
pub mod sounds;
pub mod speech;

pub use sample::{Draw, Generator, Image, Part, Role, Sample, Sound, Split, Turn};

/// Every generator, in the order of their names.
pub fn all() -> Vec<Box<dyn Generator>> {
    Vec::new()
}
