//! From the bytes of an audio file, or a stream of samples, to what the audio tower takes.
//!
//! [`decode`] → [`Clip`], mono at 16 kHz → [`ClipConfig::sound`] → [`Sound`], whose [`chunks`](Sound::chunks) the tower takes.
//! Audio that comes in pieces goes through a [`Pcm16Stream`] and then a [`Listener`], which is a [`MelStream`], or a
//! [`ClipBuffer`] where features depend on the whole clip. How many tokens a clip becomes is a function of its length:
//! [`AudioShape::clip`].

mod clip;
mod compressed;
mod cost;
mod error;
mod fft;
mod gate;
mod listener;
mod math;
mod mel;
mod mp4;
mod ogg;
mod resample;
mod sink;
mod sound;
mod stream;
mod wav;

pub use clip::{AudioInfo, Clip, check_count, decode, probe};
pub use cost::{AudioCost, AudioShape};
pub use error::{AudioError, AudioErrorKind, AudioFormat};
pub use gate::{Change, Gate, GateSettings};
pub use listener::Listener;
pub use llama::{HOP, PadTo, PaddingMode};
pub use mel::{Features, LogMel, MelChunk, MelError, MelSettings};
pub use resample::Resampler;
pub use sound::{ClipConfig, Sound, SoundChunk};
pub use stream::{ClipBuffer, Columns, Committed, MelStream, Pcm16Stream};

/// Samples a second that features are made of.
pub const RATE_HZ: u32 = llama::SAMPLE_RATE as u32;
