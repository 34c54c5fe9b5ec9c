//! Every bound on what comes from outside, in one place. No other file states one.

use std::fmt;
use std::ops::RangeInclusive;

/// What a prompt, an image, a clip of audio or a sampling parameter may be at most. One value, made at start and passed down; the
/// defaults are those of [`Limits::default`].
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Megapixels (10⁶) of one image. Default 20.
    pub image_megapixels: u32,
    /// The longer side of an image divided by the shorter. Default 50.
    pub image_aspect: u32,
    /// Bytes of one decoded image, counted as max(3, stored bytes of a pixel) · width · height. What a decoder needs
    /// beside its output (a progressive JPEG: twice the output) comes on top. Default 64 MiB.
    pub image_decoded_bytes: u64,
    /// Images of one prompt. Default 8.
    pub images_per_prompt: usize,
    /// Pixels along one side of a tile, as a preprocessor config may ask. Default 2048.
    pub tile_side: u32,
    /// Tiles of one image, as a preprocessor config may ask. Default 64.
    pub tiles_per_image: u32,
    /// Bytes of one audio file, as it comes in. Default 25·10⁶.
    pub audio_bytes: usize,
    /// Seconds of one clip or of one stream of audio, whatever its rate. Default 3600.
    pub audio_seconds: u32,
    /// Samples of one clip in all of its channels, as stored. Default 345.6·10⁶: an hour of stereo at 48 kHz.
    pub audio_samples: u64,
    /// Clips of one prompt. Default 16.
    pub audios_per_prompt: usize,
    /// Samples a second that audio may have. Default 4000 to 192,000.
    pub audio_rate_hz: RangeInclusive<u32>,
    /// Bytes of the encoder's keys and values that one clip may hold while it is being said; with an encoder that needs more,
    /// it is computed chunk by chunk instead of block by block. Default 128 MiB.
    pub audio_state_bytes: usize,
    /// Mel bins, as a preprocessor config may ask. Default 1024.
    pub mel_bins: usize,
    /// Mel frames of one chunk, as a preprocessor config may ask. Default 30,000: five minutes.
    pub chunk_frames: usize,
    /// Bytes of the text of one prompt. Default 8 MiB.
    pub prompt_bytes: usize,
    /// Stop strings of one request. Default 4.
    pub stop_strings: usize,
    /// Bytes of one stop string, which may not be empty either. Default 256.
    pub stop_bytes: usize,
    /// Softmax temperature; 0 means greedy. Default 0 to 2.
    pub temperature: Bounds,
    /// Tokens that top-k keeps; 0 switches it off. Default at most 2²⁰.
    pub top_k: u32,
    /// Probability that top-p keeps; 1 switches it off. Default above 0, at most 1.
    pub top_p: Bounds,
    /// Share of the largest probability that min-p asks for; 0 switches it off. Default 0 to 1.
    pub min_p: Bounds,
    /// Repetition penalty; 1 switches it off. Default above 0, at most 2.
    pub repetition_penalty: Bounds,
    /// Frequency and presence penalty; 0 switches them off. Default −2 to 2.
    pub penalty: Bounds,
    /// Entries of a logit bias. Default 300.
    pub logit_bias_entries: usize,
    /// One logit bias. Default −100 to 100.
    pub logit_bias: Bounds,
    /// Bytes of a schema, regular expression or grammar. Default 64 KiB.
    pub grammar_bytes: usize,
    /// Schemas within schemas. Default 32.
    pub schema_depth: usize,
    /// Steps of building a grammar's lexer. Default 10⁶.
    pub grammar_steps: u64,
    /// Symbols of a compiled grammar. Default 100,000.
    pub grammar_symbols: usize,
    /// States of a grammar's lexer, of one to two KiB each, that one answer may come to need. Default 10,000.
    pub grammar_states: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            image_megapixels: 20,
            image_aspect: 50,
            image_decoded_bytes: 64 << 20,
            images_per_prompt: 8,
            tile_side: 2048,
            tiles_per_image: 64,
            audio_bytes: 25_000_000,
            audio_seconds: 3600,
            audio_samples: 345_600_000,
            audios_per_prompt: 16,
            audio_rate_hz: 4000..=192_000,
            audio_state_bytes: 128 << 20,
            mel_bins: 1024,
            chunk_frames: 30_000,
            prompt_bytes: 8 << 20,
            stop_strings: 4,
            stop_bytes: 256,
            temperature: Bounds::From(0.0, 2.0),
            top_k: 1 << 20,
            top_p: Bounds::Above(0.0, 1.0),
            min_p: Bounds::From(0.0, 1.0),
            repetition_penalty: Bounds::Above(0.0, 2.0),
            penalty: Bounds::From(-2.0, 2.0),
            logit_bias_entries: 300,
            logit_bias: Bounds::From(-100.0, 100.0),
            grammar_bytes: 64 << 10,
            schema_depth: 32,
            grammar_steps: 1_000_000,
            grammar_symbols: 100_000,
            grammar_states: 10_000,
        }
    }
}

/// An interval of finite numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bounds {
    /// Both ends belong to it.
    From(f32, f32),
    /// The lower end does not belong to it, the upper one does.
    Above(f32, f32),
}

impl Bounds {
    /// Whether `value` lies inside. A NaN and the infinities never do.
    pub fn contains(self, value: f32) -> bool {
        match self {
            Self::From(low, high) => low <= value && value <= high && value.is_finite(),
            Self::Above(low, high) => low < value && value <= high && value.is_finite(),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(low, high) => write!(f, "a number from {low} to {high}"),
            Self::Above(low, high) => write!(f, "a number above {low} and at most {high}"),
        }
    }
}
