//! `audio_preprocessor_config.json` and its kind: how samples become mel columns.

use std::path::Path;

use super::{AudioConfig, AudioPreset};
use crate::FormatError;
use crate::json::{self, Section};

/// Samples a second that encoders hear.
pub const SAMPLE_RATE: usize = 16_000;
/// Samples of one transform.
pub const WINDOW: usize = 400;
/// Samples from one mel column to the next.
pub const HOP: usize = 160;

/// What a clip is filled up to with zeros before its transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PadTo {
    /// A whole number of chunks.
    Chunk,
    /// A whole number of hops, two at least.
    Hop,
}

impl PadTo {
    /// What files call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Hop => "hop",
        }
    }
}

/// Which frames of a chunk that is not full are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaddingMode {
    /// Those that valid mel columns reach.
    Valid,
    /// All, silence included.
    Chunk,
}

impl PaddingMode {
    /// What files call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Chunk => "chunk",
        }
    }
}

/// How samples become mel columns, and which of them are encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AudioPreprocessorConfig {
    /// Mel bins of a column: the encoder's.
    pub n_mels: usize,
    /// Mel columns of one chunk: the encoder's.
    pub chunk_columns: usize,
    /// The maximum that columns are held against; `None` for the clip's own.
    pub log_mel_max: Option<f32>,
    /// What clips are filled up to.
    pub pad_to: PadTo,
    /// Which frames are encoded.
    pub padding_mode: PaddingMode,
}

impl AudioPreprocessorConfig {
    /// The settings of `audio`'s preset.
    pub fn of(audio: &AudioConfig) -> Self {
        let (pad_to, padding_mode) = match audio.preset {
            AudioPreset::Llama4Audio => (PadTo::Chunk, PaddingMode::Valid),
            AudioPreset::Voxtral => (PadTo::Chunk, PaddingMode::Chunk),
            AudioPreset::Ultravox04 | AudioPreset::Ultravox05 => (PadTo::Hop, PaddingMode::Valid),
        };
        Self {
            n_mels: audio.encoder.n_mels,
            chunk_columns: audio.encoder.chunk_columns(),
            log_mel_max: None,
            pad_to,
            padding_mode,
        }
    }

    /// Takes over what `json`, the `processor_config.json` of an Ultravox model, says of clips: `audio_padding`. What else it
    /// says has to fit `audio`. Source: `UltravoxProcessor` in the models' repositories.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] for values of the wrong type or that `audio` contradicts, [`FormatError::Unsupported`] for
    /// another padding or other chunks than the encoder's.
    pub fn with_processor(self, file: &Path, json: &[u8], audio: &AudioConfig) -> Result<Self, FormatError> {
        let map =
            json::parse(file, json, &["audio_padding", "encoder_ds_factor", "stack_factor", "audio_context_size"])?;
        let top = Section::new(file, &map);
        let stack = audio.projector.stack;
        if let Some(got) = top.count("stack_factor")?.filter(|got| *got != stack) {
            return Err(top.corrupt("stack_factor", format!("is {got}; config.json says {stack}")));
        }
        // Columns of a frame; in the first versions its samples.
        let frame = [2, 2 * HOP];
        if let Some(got) = top.count("encoder_ds_factor")?.filter(|got| !frame.contains(got)) {
            let [columns, samples] = frame;
            let why = format!("is {got}; {columns} columns or {samples} samples are supported");
            return Err(top.unsupported("encoder_ds_factor", why));
        }
        if let Some(got) = top.count("audio_context_size")?.filter(|got| *got != self.chunk_columns) {
            let why = format!("is {got}; the encoder's chunk of {} columns is supported", self.chunk_columns);
            return Err(top.unsupported("audio_context_size", why));
        }
        let words = [("longest", PadTo::Hop), ("max_length", PadTo::Chunk)];
        Ok(Self { pad_to: choice(&top, "audio_padding", words, self.pad_to)?, ..self })
    }

    /// Reads the file's content `json`, which has to fit the encoder that `default` is for; what it leaves out is as there.
    /// The settings stand at the top, in `feature_extractor`, or in that of `audio_processor`.
    /// `None` if the file says that it is another kind of preprocessor's.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] for values of the wrong type or that the encoder contradicts,
    /// [`FormatError::Unsupported`] for transforms other than the one of 400 samples every 160 at 16 kHz, and for dither.
    pub fn parse(file: &Path, json: &[u8], default: Self) -> Result<Option<Self>, FormatError> {
        const KEYS: [&str; 13] = [
            "feature_extractor",
            "audio_processor",
            "feature_extractor_type",
            "feature_size",
            "sampling_rate",
            "n_fft",
            "hop_length",
            "chunk_length",
            "padding_value",
            "dither",
            "log_mel_max",
            "pad_to",
            "padding_mode",
        ];
        let map = json::parse(file, json, &KEYS)?;
        let whole = Section::new(file, &map);
        let part = whole.section("audio_processor")?.unwrap_or_else(|| whole.clone());
        let top = part.section("feature_extractor")?.unwrap_or_else(|| part.clone());
        match top.text("feature_extractor_type")? {
            Some("WhisperFeatureExtractor") => {}
            None | Some(_) => return Ok(None),
        }
        let fixed = [("sampling_rate", SAMPLE_RATE), ("n_fft", WINDOW), ("hop_length", HOP)];
        for (key, wanted) in fixed {
            if let Some(got) = top.count(key)?.filter(|got| *got != wanted) {
                return Err(top.unsupported(key, format!("is {got}; {wanted} is supported")));
            }
        }
        for key in ["padding_value", "dither"] {
            if let Some(got) = top.number(key)?.filter(|got| *got != 0.0) {
                return Err(top.unsupported(key, format!("is {got}; 0 is supported")));
            }
        }
        if let Some(got) = top.count("feature_size")?.filter(|got| *got != default.n_mels) {
            return Err(top.corrupt("feature_size", format!("is {got}; the encoder takes {}", default.n_mels)));
        }
        if let Some(seconds) = top.count("chunk_length")? {
            let columns = seconds.checked_mul(SAMPLE_RATE / HOP);
            if columns != Some(default.chunk_columns) {
                let why = format!("is {seconds} seconds; the encoder takes {} columns of 10 ms", default.chunk_columns);
                return Err(top.corrupt("chunk_length", why));
            }
        }
        Ok(Some(Self {
            log_mel_max: top.number("log_mel_max")?,
            pad_to: choice(&top, "pad_to", [("chunk", PadTo::Chunk), ("hop", PadTo::Hop)], default.pad_to)?,
            padding_mode: choice(
                &top,
                "padding_mode",
                [("valid", PaddingMode::Valid), ("chunk", PaddingMode::Chunk)],
                default.padding_mode,
            )?,
            ..default
        }))
    }
}

/// One of two words.
fn choice<T: Copy>(top: &Section<'_>, key: &str, words: [(&str, T); 2], default: T) -> Result<T, FormatError> {
    let Some(word) = top.text(key)? else { return Ok(default) };
    let found = words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
    let [(a, _), (b, _)] = words;
    found.ok_or_else(|| top.unsupported(key, format!("\"{word}\" is not supported; \"{a}\" and \"{b}\" are")))
}
