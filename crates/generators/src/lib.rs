//! Endless, seeded training data that we make ourselves: tasks with checked answers and worked thinking, pictures, sounds,
//! conversation.
//!
//! A [`Generator`] is one file; [`all`] lists them. Sample `index` of a generator is a function of its name, its
//! [`Split`] and that number alone, and no sample of one split can come in the other.

mod answers;
mod asked;
mod choose;
pub mod conversation;
mod expression;
pub mod lessons;
pub mod pictures;
mod ratio;
mod sample;
pub mod sounds;
pub mod speech;
mod task;
pub mod tasks;
mod wording;
mod words;
mod worked;

pub use sample::{Draw, Generator, Image, Part, Role, Sample, Sound, Split, Turn};

/// Every generator that needs nothing from outside: no prose, no folders of pictures, no synthesiser.
pub fn all() -> Vec<Box<dyn Generator>> {
    tasks::all().into_iter().chain(conversation::all()).chain(pictures::all()).chain(sounds::all()).collect()
}
