//! Sounds that are computed: 64 words in synthetic voices, 16 events, and questions about them.
//!
//! Held out are speakers (by pitch and length of the throat), pairs of words, and noise louder than 5 dB below the signal.

use crate::{Generator, Sound};

mod both;
mod events;
mod heard;
pub(crate) mod room;
pub(crate) mod said;
mod voice;
pub(crate) mod words;

pub use voice::Speaker;

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
        Box::new(said::OneWord),
        Box::new(both::PictureAndClip { side }),
        Box::new(heard::NameEvent),
        Box::new(said::Transcribe),
        Box::new(heard::Order),
    ]
}

impl Sound {
    /// The bytes of a WAV file with 16 bits a sample.
    pub fn to_wav(&self) -> Vec<u8> {
        let size = 2 * self.samples.len() as u32;
        let mut bytes = b"RIFF".to_vec();
        bytes.extend((size + 36).to_le_bytes());
        bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        bytes.extend(self.rate_hz.to_le_bytes());
        bytes.extend((2 * self.rate_hz).to_le_bytes());
        bytes.extend(b"\x02\0\x10\0data");
        bytes.extend(size.to_le_bytes());
        bytes.extend(self.samples.iter().flat_map(|sample| ((sample * 32767.0).round() as i16).to_le_bytes()));
        bytes
    }
}
