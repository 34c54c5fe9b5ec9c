//! Endless, seeded training data that we make ourselves: tasks with checked answers and worked thinking, pictures, sounds,
//! conversation.
//!
//! A [`Generator`] is one file; [`all`] lists them. Sample `index` of a generator is a function of its name, its
//! [`Split`] and that number alone, and no sample of one split can come in the other.

mod answers;
mod choose;
mod expression;
mod ratio;
mod sample;
mod task;
mod tasks;
mod wording;
mod words;
mod worked;

pub use sample::{Draw, Generator, Image, Part, Role, Sample, Sound, Split, Turn};

/// Every generator.
pub fn all() -> Vec<Box<dyn Generator>> {
    tasks::all()
}
