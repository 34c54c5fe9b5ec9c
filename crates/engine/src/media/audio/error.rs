//! Why audio was refused.

use std::fmt;

use super::RATE_HZ;

/// The audio that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioFormat {
    /// WAV, RF64 and BW64: PCM of 8 to 32 bits, floats of 32 and 64, A-law, mu-law.
    Wav,
    /// FLAC in its own container.
    Flac,
    /// MPEG audio layer III.
    Mp3,
    /// Vorbis or FLAC in Ogg.
    Ogg,
    /// AAC-LC in MP4.
    M4a,
    /// Samples alone: mono, little-endian, signed 16-bit. Never found, only declared.
    Pcm16 {
        /// Samples a second.
        rate_hz: u32,
    },
}

impl AudioFormat {
    /// The format that an interface or the second half of a media type calls so; `None` if there is none. Samples alone are
    /// at 16 kHz.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "wav" | "wave" | "x-wav" | "vnd.wave" => Self::Wav,
            "flac" | "x-flac" => Self::Flac,
            "mp3" | "mpeg" | "mpga" => Self::Mp3,
            "ogg" | "oga" | "vorbis" => Self::Ogg,
            "m4a" | "x-m4a" | "mp4" => Self::M4a,
            "pcm16" => Self::Pcm16 { rate_hz: RATE_HZ },
            _ => return None,
        })
    }
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wav => "WAV",
            Self::Flac => "FLAC",
            Self::Mp3 => "MP3",
            Self::Ogg => "Ogg",
            Self::M4a => "MP4",
            Self::Pcm16 { .. } => "PCM16",
        })
    }
}

/// Why audio was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AudioError {
    /// The bytes do not begin like any audio that can be read.
    #[error("not audio; WAV, FLAC, MP3, Ogg Vorbis and AAC in MP4 can be read")]
    UnknownFormat,
    /// A known kind of audio for which there is no decoder.
    #[error("{what} cannot be read; convert it to WAV, FLAC, MP3, Ogg Vorbis or AAC in MP4")]
    Unsupported {
        /// The kind of audio.
        what: String,
    },
    /// The bytes are of another format than was said.
    #[error("audio is declared as {declared}, but its bytes are {found}; declare what it is")]
    Contradicts {
        /// What was said.
        declared: AudioFormat,
        /// What the bytes are.
        found: AudioFormat,
    },
    /// More bytes than allowed.
    #[error("audio is {got_bytes} bytes; the limit is {limit_bytes}")]
    TooManyBytes {
        /// Bytes of the file.
        got_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// Longer than allowed.
    #[error("audio is {at_least_seconds} s or longer; the limit is {limit_seconds} s")]
    TooLong {
        /// What was found when the rest was given up: from the header, or decoded so far; rounded up.
        at_least_seconds: u64,
        /// The limit.
        limit_seconds: u32,
    },
    /// More samples to decode than allowed: many channels at a high rate, for long.
    #[error(
        "audio holds {at_least} samples or more in all channels; the limit is {limit}; send fewer channels or a lower rate"
    )]
    TooManySamples {
        /// What was found when the rest was given up: from the header, or decoded so far.
        at_least: u64,
        /// The limit.
        limit: u64,
    },
    /// More clips than allowed.
    #[error("{got} clips of audio; the limit is {limit}")]
    TooManyClips {
        /// Clips of the prompt.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// A rate outside of what is allowed.
    #[error("audio has {rate_hz} samples a second; {lowest_hz} to {highest_hz} can be read")]
    Rate {
        /// The rate.
        rate_hz: u32,
        /// The lowest allowed.
        lowest_hz: u32,
        /// The highest allowed.
        highest_hz: u32,
    },
    /// There is not one sample.
    #[error("audio holds no samples")]
    Empty,
    /// A sample is infinite, not a number, or beyond what 32 bits can hold.
    #[error("audio holds a sample that is no finite number, {at_seconds:.3} s from its beginning")]
    NotFinite {
        /// Where, to about a packet.
        at_seconds: f64,
    },
    /// The file ends before the audio does.
    #[error("{format} audio is cut off; send the whole file")]
    Truncated {
        /// What kind of file.
        format: AudioFormat,
    },
    /// The file contradicts itself or uses what no common program writes.
    #[error("{format} audio cannot be read: {why}; convert it to 16-bit WAV")]
    Corrupt {
        /// What kind of file.
        format: AudioFormat,
        /// What the decoder met.
        why: String,
    },
    /// The caller no longer wanted it.
    #[error("decoding was cancelled")]
    Cancelled,
}

/// What a caller may be told in one word, as interfaces have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioErrorKind {
    /// It cannot be read.
    DecodeFailed,
    /// It lasts too long.
    TooLong,
    /// It has too many bytes.
    TooLarge,
    /// It holds nothing.
    Empty,
    /// There are too many clips.
    TooMany,
    /// Nobody waits for an answer.
    Cancelled,
}

impl AudioErrorKind {
    /// The word: `audio_decode_failed`, `audio_too_long`, `audio_too_large`, `audio_empty`, `too_many_audios`, and
    /// `cancelled`, which nobody is left to read.
    pub fn code(self) -> &'static str {
        match self {
            Self::DecodeFailed => "audio_decode_failed",
            Self::TooLong => "audio_too_long",
            Self::TooLarge => "audio_too_large",
            Self::Empty => "audio_empty",
            Self::TooMany => "too_many_audios",
            Self::Cancelled => "cancelled",
        }
    }
}

impl AudioError {
    /// What kind of error it is to who sent the audio.
    pub fn kind(&self) -> AudioErrorKind {
        match self {
            Self::UnknownFormat
            | Self::Unsupported { .. }
            | Self::Contradicts { .. }
            | Self::Rate { .. }
            | Self::NotFinite { .. }
            | Self::Truncated { .. }
            | Self::Corrupt { .. } => AudioErrorKind::DecodeFailed,
            Self::TooManyBytes { .. } => AudioErrorKind::TooLarge,
            Self::TooLong { .. } | Self::TooManySamples { .. } => AudioErrorKind::TooLong,
            Self::TooManyClips { .. } => AudioErrorKind::TooMany,
            Self::Empty => AudioErrorKind::Empty,
            Self::Cancelled => AudioErrorKind::Cancelled,
        }
    }
}
