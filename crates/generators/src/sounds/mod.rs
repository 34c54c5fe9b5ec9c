//! Sounds that are computed: 64 words in synthetic voices, 16 events, and questions about them.
//!
//! Held out are speakers (by pitch and length of the throat), pairs of words, and noise louder than 5 dB below the signal.

use crate::Generator;

mod both;
mod events;
mod heard;
pub(crate) mod room;
mod said;
mod voice;
mod words;

/// All sounds are sampled so many times a second.
pub(crate) const RATE_HZ: u32 = 16_000;

/// Every task with sounds that needs nothing from outside; pictures beside them are 112 pixels wide.
pub fn all() -> Vec<Box<dyn Generator>> {
    with(112)
}

/// The same with pictures `side` pixels wide and high.
pub fn with(side: usize) -> Vec<Box<dyn Generator>> {
    vec![
        Box::new(said::CountWords),
        Box::new(said::NthWord),
        Box::new(both::PictureAndClip { side }),
        Box::new(heard::NameEvent),
        Box::new(said::Transcribe),
        Box::new(heard::Order),
    ]
}
