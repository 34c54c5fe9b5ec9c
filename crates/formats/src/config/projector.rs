//! Projector files (`general.architecture` "clip"): the audio encoder, and how images and sounds are prepared.
//!
//! Keys and tensors of the encoder are those that other programs write for Voxtral and Ultravox (llama.cpp, `clip-impl.h`
//! and the converters beside it). What these leave out stands under `puna.`; without such keys the preset decides.

use std::num::NonZeroUsize;

use super::audio::{FRAMES_LIMIT, MELS_LIMIT, STACK_LIMIT};
use super::hearing::{PadTo, PaddingMode};
use super::{
    AudioActivation, AudioConfig, AudioEncoderConfig, AudioPreprocessorConfig, AudioPreset, AudioProjectorConfig,
    AudioTokens, FFN_LIMIT, HEADS_LIMIT, HIDDEN_LIMIT, ImageTokens, LAYERS_LIMIT, PreprocessorConfig, VisionConfig,
    check_token, defaults,
};
use crate::gguf::{Array, Metadata};
use crate::{FormatError, Gguf};

/// The one epsilon of layer norms that encoders are computed with.
const NORM_EPS: f32 = 1e-5;

/// Most tiles that a file may allow an image to become.
const TILES_LIMIT: usize = 256;

/// Whether the file has an audio encoder.
pub(super) fn hears(projector: &Gguf) -> Result<bool, FormatError> {
    Ok(projector.metadata.find_bool("clip.has_audio_encoder")? == Some(true))
}

/// Whether the file has a vision tower: if it does not say, unless it has an audio encoder.
pub(super) fn sees(projector: &Gguf) -> Result<bool, FormatError> {
    let said = projector.metadata.find_bool("clip.has_vision_encoder")?;
    Ok(said.unwrap_or(!hears(projector)?))
}

/// Whether the file is a projector whose audio encoder is of a kind that is read.
pub(crate) fn hears_here(projector: &Gguf) -> bool {
    hears(projector).is_ok_and(|hears| hears) && projector_type(&projector.metadata).is_ok()
}

/// The kinds of audio projectors: `projector_type` and the preset that is meant where no key names another one.
const TYPES: [(&str, AudioPreset); 3] = [
    ("voxtral", AudioPreset::Voxtral),
    ("ultravox", AudioPreset::Ultravox05),
    // Of no other program: those that know the others would compute chunks with their silence.
    ("llama4-audio", AudioPreset::Llama4Audio),
];

fn projector_type(metadata: &Metadata) -> Result<AudioPreset, FormatError> {
    let key = match metadata.get("clip.audio.projector_type") {
        Some(_) => "clip.audio.projector_type",
        None => "clip.projector_type",
    };
    let got = metadata.get_str(key)?;
    let found = TYPES.iter().find(|(name, _)| *name == got);
    found.map(|(_, preset)| *preset).ok_or_else(|| {
        let known = TYPES.map(|(name, _)| format!("\"{name}\"")).join(", ");
        FormatError::unsupported(metadata.file(), key, format!("is \"{got}\"; these are read: {known}"))
    })
}

impl AudioPreset {
    /// The `projector_type` of a file that holds such a model.
    pub fn projector_type(self) -> &'static str {
        let of = |preset| TYPES.iter().find(|(_, known)| *known == preset).map(|(name, _)| *name);
        of(self).unwrap_or("ultravox")
    }

    fn named(name: &str) -> Option<Self> {
        let all = [Self::Llama4Audio, Self::Voxtral, Self::Ultravox04, Self::Ultravox05];
        all.into_iter().find(|preset| preset.name() == name)
    }
}

/// Reads counts and shapes of one file.
struct Keys<'a> {
    projector: &'a Gguf,
    metadata: &'a Metadata,
}

impl Keys<'_> {
    fn corrupt(&self, key: &str, why: String) -> FormatError {
        FormatError::corrupt(self.metadata.file(), key, why)
    }

    /// A count from 1 to `limit`.
    fn find_size(&self, key: &str, limit: usize) -> Result<Option<usize>, FormatError> {
        match self.metadata.find_count(key)? {
            Some(n) if !(1..=limit).contains(&n) => {
                Err(self.corrupt(key, format!("is {n}; it has to be from 1 to {limit}")))
            }
            size => Ok(size),
        }
    }

    fn size(&self, key: &str, limit: usize) -> Result<usize, FormatError> {
        self.find_size(key, limit)?.ok_or_else(|| FormatError::missing(self.metadata.file(), key))
    }

    /// How many rows the matrix `name` has.
    fn rows(&self, name: &str, limit: usize) -> Result<usize, FormatError> {
        let tensor = self.projector.tensor(name).ok_or_else(|| FormatError::missing(self.metadata.file(), name))?;
        match tensor.shape.as_slice() {
            [rows, _] if (1..=limit).contains(rows) => Ok(*rows),
            other => {
                Err(self.corrupt(name, format!("has the shape {other:?}; it has to be a matrix of 1 to {limit} rows")))
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.projector.tensor(name).is_some()
    }

    /// One of two words.
    fn choice<T: Copy>(&self, key: &str, words: [(&str, T); 2], default: T) -> Result<T, FormatError> {
        let Some(word) = self.metadata.find_str(key)? else { return Ok(default) };
        let found = words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
        let [(a, _), (b, _)] = words;
        found.ok_or_else(|| {
            let why = format!("\"{word}\" is not supported; \"{a}\" and \"{b}\" are");
            FormatError::unsupported(self.metadata.file(), key, why)
        })
    }

    /// A token of the decoder.
    fn token(&self, key: &str, vocab_size: usize) -> Result<Option<u32>, FormatError> {
        let Some(id) = self.metadata.find_u32(key)? else { return Ok(None) };
        check_token(id, vocab_size).map_err(|why| self.corrupt(key, why))?;
        Ok(Some(id))
    }
}

/// Reads the audio encoder and its projector, whose rows go to a decoder of `vocab_size` tokens with the metadata `model`.
pub(super) fn audio(projector: &Gguf, model: &Metadata, vocab_size: usize) -> Result<AudioConfig, FormatError> {
    let metadata = &projector.metadata;
    let keys = Keys { projector, metadata };
    let architecture = metadata.get_str("general.architecture")?;
    if architecture != "clip" {
        let why = format!("is \"{architecture}\", not \"clip\"");
        return Err(FormatError::unsupported(metadata.file(), "general.architecture", why));
    }
    let kind = projector_type(metadata)?;
    let preset = match metadata.find_str("puna.audio.preset")? {
        None => kind,
        Some(name) => AudioPreset::named(name)
            .ok_or_else(|| keys.corrupt("puna.audio.preset", format!("\"{name}\" is no preset")))?,
    };
    let key = "clip.audio.attention.layer_norm_epsilon";
    if let Some(eps) = metadata.find_f32(key)?.filter(|eps| (eps - NORM_EPS).abs() > 1e-9) {
        return Err(FormatError::unsupported(metadata.file(), key, format!("is {eps}; {NORM_EPS} is supported")));
    }
    let projector = projection(&keys, preset)?;
    let encoder = encoder(&keys, projector.stack)?;
    let tokens = AudioTokens {
        start: keys.token("puna.audio.start_token_id", vocab_size)?,
        audio: match keys.token("puna.audio.token_id", vocab_size)? {
            Some(id) => id,
            None => token_of(preset, model, vocab_size)?,
        },
        end: keys.token("puna.audio.end_token_id", vocab_size)?,
    };
    let mut ids: Vec<u32> = tokens.ids().collect();
    ids.sort_unstable();
    if ids.array_windows().any(|[a, b]| a == b) {
        return Err(keys.corrupt("puna.audio.token_id", "is not different from the tokens around a clip".into()));
    }
    Ok(AudioConfig { preset, encoder, projector, tokens })
}

/// The token in whose place a row of audio goes, where the file does not say: the published ones' name for it.
fn token_of(preset: AudioPreset, model: &Metadata, vocab_size: usize) -> Result<u32, FormatError> {
    let key = "tokenizer.ggml.tokens";
    let named = |text: &str| {
        let mut strings = model.find_array(key).ok()??.strings()?;
        strings.position(|token| token == text).and_then(|index| u32::try_from(index).ok())
    };
    let id = match preset {
        AudioPreset::Voxtral => named("[AUDIO]").ok_or_else(|| FormatError::missing(model.file(), "[AUDIO]"))?,
        AudioPreset::Llama4Audio => named("<|audio|>").unwrap_or(defaults::AUDIO),
        // Ultravox writes rows over the positions of a token that it needs no id of its own for.
        AudioPreset::Ultravox04 | AudioPreset::Ultravox05 => 0,
    };
    check_token(id, vocab_size).map_err(|why| FormatError::corrupt(model.file(), key, why))?;
    Ok(id)
}

fn encoder(keys: &Keys<'_>, stack: usize) -> Result<AudioEncoderConfig, FormatError> {
    let hidden_size = keys.size("clip.audio.embedding_length", HIDDEN_LIMIT)?;
    let key = "clip.audio.attention.head_count";
    let n_heads = keys.size(key, HEADS_LIMIT)?;
    if !hidden_size.is_multiple_of(n_heads) {
        return Err(keys.corrupt(key, format!("is {n_heads}, no divisor of the width {hidden_size}")));
    }
    let n_frames = keys.rows("a.position_embd.weight", FRAMES_LIMIT)?;
    let key = "puna.audio.attention_block";
    let block = keys.find_size(key, n_frames)?.and_then(NonZeroUsize::new);
    if let Some(block) = block.filter(|n| !n_frames.is_multiple_of(n.get()) || !n.get().is_multiple_of(stack)) {
        let why =
            format!("is {block}; it has to divide the {n_frames} frames, and to be a multiple of the stack {stack}");
        return Err(keys.corrupt(key, why));
    }
    Ok(AudioEncoderConfig {
        n_mels: keys.size("clip.audio.num_mel_bins", MELS_LIMIT)?,
        hidden_size,
        intermediate_size: keys.size("clip.audio.feed_forward_length", FFN_LIMIT)?,
        n_layers: keys.size("clip.audio.block_count", LAYERS_LIMIT)?,
        n_heads,
        n_frames,
        block,
    })
}

fn projection(keys: &Keys<'_>, preset: AudioPreset) -> Result<AudioProjectorConfig, FormatError> {
    let usual = match preset {
        AudioPreset::Llama4Audio | AudioPreset::Voxtral => AudioActivation::Gelu,
        AudioPreset::Ultravox04 | AudioPreset::Ultravox05 => AudioActivation::SwiGlu,
    };
    let words = [("gelu", AudioActivation::Gelu), ("swiglu", AudioActivation::SwiGlu)];
    let activation = keys.choice("puna.audio.projector.activation", words, usual)?;
    let first = "mm.a.mlp.1.weight";
    let hidden_size = keys.rows(first, FFN_LIMIT)?;
    if activation == AudioActivation::SwiGlu && !hidden_size.is_multiple_of(2) {
        return Err(keys.corrupt(first, format!("has {hidden_size} rows; with \"swiglu\" they have to be even")));
    }
    let key = "puna.audio.projector.norm_epsilon";
    let norm_eps = match keys.metadata.find_f32(key)? {
        Some(eps) if eps <= 0.0 => return Err(keys.corrupt(key, format!("is {eps}; it has to be above 0"))),
        eps => eps.unwrap_or(1e-6),
    };
    Ok(AudioProjectorConfig {
        stack: keys.size("clip.audio.projector.stack_factor", STACK_LIMIT)?,
        hidden_size,
        activation,
        bias: keys.has("mm.a.mlp.1.bias"),
        ln_pre: keys.has("mm.a.norm_pre.weight"),
        ln_mid: keys.has("mm.a.norm_mid.weight"),
        ln_post: keys.has("mm.a.norm_post.weight"),
        norm_eps,
    })
}

impl AudioConfig {
    /// Reads the audio encoder of a projector file that has one; the decoder has the metadata `model` and `vocab_size` tokens.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for other kinds of encoders or projectors, [`FormatError::Corrupt`] or
    /// [`FormatError::Missing`] where its numbers are not those of an encoder.
    pub fn from_gguf(projector: &Gguf, model: &Metadata, vocab_size: usize) -> Result<Self, FormatError> {
        audio(projector, model, vocab_size)
    }
}

impl AudioPreprocessorConfig {
    /// How samples become mel columns for `audio`, by the metadata of the projector file that it was read from: the preset's
    /// way where that does not say.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] or [`FormatError::Unsupported`] for values that mean nothing.
    pub fn from_gguf(projector: &Gguf, audio: &AudioConfig) -> Result<Self, FormatError> {
        let keys = Keys { projector, metadata: &projector.metadata };
        let usual = Self::of(audio);
        Ok(Self {
            log_mel_max: keys.metadata.find_f32("puna.audio.log_mel_max")?,
            pad_to: keys.choice(
                "puna.audio.pad_to",
                [(PadTo::Chunk.name(), PadTo::Chunk), (PadTo::Hop.name(), PadTo::Hop)],
                usual.pad_to,
            )?,
            padding_mode: keys.choice(
                "puna.audio.padding_mode",
                [(PaddingMode::Valid.name(), PaddingMode::Valid), (PaddingMode::Chunk.name(), PaddingMode::Chunk)],
                usual.padding_mode,
            )?,
            ..usual
        })
    }
}

impl PreprocessorConfig {
    /// How images become tiles for `vision`, by the metadata of the projector file that it was read from: the released
    /// models' way where that does not say.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] for values of the wrong type or outside of their range.
    pub fn from_gguf(projector: &Gguf, vision: &VisionConfig) -> Result<Self, FormatError> {
        let metadata = &projector.metadata;
        let keys = Keys { projector, metadata };
        let default = Self::default();
        let colours = |key: &str, default: [f32; 3]| {
            let Some(array) = metadata.find_array(key)? else { return Ok(default) };
            let values: Vec<f32> = array.floats().into_iter().flatten().collect();
            let three = <[f32; 3]>::try_from(values).ok().filter(|three| three.iter().all(|n| n.is_finite()));
            three.ok_or_else(|| keys.corrupt(key, "has not three finite values".into()))
        };
        let std = colours("clip.vision.image_std", default.std)?;
        if std.contains(&0.0) {
            return Err(keys.corrupt("clip.vision.image_std", "has a 0 to divide by".into()));
        }
        let key = "puna.image.rescale_factor";
        let rescale = metadata.find_f32(key)?.unwrap_or(default.rescale);
        if rescale <= 0.0 {
            return Err(keys.corrupt(key, format!("is {rescale}; it has to be above 0")));
        }
        Ok(Self {
            tile: vision.image_size,
            max_tiles: keys.find_size("puna.image.max_tiles", TILES_LIMIT)?.unwrap_or(default.max_tiles),
            resize_to_max_canvas: metadata
                .find_bool("puna.image.resize_to_max_canvas")?
                .unwrap_or(default.resize_to_max_canvas),
            rescale,
            mean: colours("clip.vision.image_mean", default.mean)?,
            std,
            patch_size: vision.patch_size,
            pixel_shuffle_ratio: 1.0 / vision.joined_patches() as f32,
        })
    }
}

/// The tokens around and in place of an image: those that the projector names, else by their text in the vocabulary of
/// `model`, else the published ids.
pub(super) fn image_tokens(projector: &Gguf, model: &Metadata, vocab_size: usize) -> Result<ImageTokens, FormatError> {
    let key = "tokenizer.ggml.tokens";
    let keys = Keys { projector, metadata: &projector.metadata };
    let tokens = model.find_array(key)?;
    let id = |own: &str, text: &str, published: u32| {
        if let Some(id) = keys.token(own, vocab_size)? {
            return Ok(id);
        }
        let mut strings = tokens.and_then(Array::strings);
        let found = strings.as_mut().and_then(|strings| strings.position(|token| token == text));
        let id = found.and_then(|index| u32::try_from(index).ok()).unwrap_or(published);
        check_token(id, vocab_size).map_err(|why| FormatError::corrupt(model.file(), key, format!("{text} {why}")))?;
        Ok(id)
    };
    Ok(ImageTokens {
        image_start: id("puna.image.start_token_id", "<|image_start|>", defaults::IMAGE_START)?,
        image_end: id("puna.image.end_token_id", "<|image_end|>", defaults::IMAGE_END)?,
        patch: id("puna.image.token_id", "<|patch|>", defaults::PATCH)?,
    })
}
