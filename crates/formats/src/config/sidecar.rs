//! The small files beside `config.json`.

use std::path::Path;

use crate::FormatError;
use crate::json::{self, Section};

/// Longest `generation_config.json` and preprocessor file.
pub(crate) const SIDECAR_LIMIT_BYTES: usize = 1 << 20;

/// Most tiles that a config may allow an image to become.
const TILES_LIMIT: usize = 256;

/// `generation_config.json`: how the makers suggest to sample. All of it is optional.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Whether to sample at all; greedy otherwise.
    pub do_sample: Option<bool>,
    /// Logits are divided by it; from 0 on.
    pub temperature: Option<f32>,
    /// Probability that the kept tokens reach together; above 0, up to 1.
    pub top_p: Option<f32>,
    /// Tokens kept; 0 for all.
    pub top_k: Option<usize>,
    /// Above 0; 1 for none.
    pub repetition_penalty: Option<f32>,
    /// The token at the beginning.
    pub bos: Option<u32>,
    /// Tokens that end an answer; empty if the file does not say.
    pub eos: Vec<u32>,
    /// The padding token.
    pub pad: Option<u32>,
}

impl GenerationConfig {
    /// Reads the file's content `json`.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] for values of the wrong type or outside of their range.
    pub fn parse(file: &Path, json: &[u8]) -> Result<Self, FormatError> {
        const KEYS: [&str; 8] = [
            "do_sample",
            "temperature",
            "top_p",
            "top_k",
            "repetition_penalty",
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
        ];
        let map = json::parse(file, json, &KEYS)?;
        let top = Section::new(file, &map);
        let ranged = |key: &str, is_in: fn(f32) -> bool, range: &str| match top.number(key)? {
            Some(value) if !is_in(value) => Err(top.corrupt(key, format!("is {value}; it has to be {range}"))),
            value => Ok(value),
        };
        Ok(Self {
            do_sample: top.flag("do_sample")?,
            temperature: ranged("temperature", |t| t >= 0.0, "from 0 on")?,
            top_p: ranged("top_p", |p| p > 0.0 && p <= 1.0, "above 0, up to 1")?,
            top_k: top.count("top_k")?,
            repetition_penalty: ranged("repetition_penalty", |p| p > 0.0, "above 0")?,
            bos: top.token("bos_token_id")?,
            eos: top.tokens("eos_token_id")?.unwrap_or_default(),
            pad: top.token("pad_token_id")?,
        })
    }
}

/// How images become tiles: `preprocessor_config.json` and `processor_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct PreprocessorConfig {
    /// Pixels along one side of a tile.
    pub tile: usize,
    /// Most tiles of one image, the overview not counted.
    pub max_tiles: usize,
    /// Whether an image is enlarged to its canvas.
    pub resize_to_max_canvas: bool,
    /// Pixel values are multiplied by it first.
    pub rescale: f32,
    /// Subtracted by colour, after rescaling.
    pub mean: [f32; 3],
    /// Divided by, by colour.
    pub std: [f32; 3],
    /// Pixels along one side of a patch.
    pub patch_size: usize,
    /// Rows that a patch becomes, along one side.
    pub pixel_shuffle_ratio: f32,
}

impl Default for PreprocessorConfig {
    /// The released models' settings, which are also the reference's defaults (transformers 5.23,
    /// `Llama4ImageProcessor` and `Llama4Processor`).
    fn default() -> Self {
        Self {
            tile: 336,
            max_tiles: 16,
            resize_to_max_canvas: false,
            rescale: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.5; 3],
            patch_size: 14,
            pixel_shuffle_ratio: 0.5,
        }
    }
}

impl PreprocessorConfig {
    /// Reads the file's content `json`: either kind of file, settings of images at the top or in `image_processor`.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] for values of the wrong type or outside of their range, [`FormatError::Unsupported`] for
    /// tiles that are not square, resampling other than bilinear and skipped steps.
    pub fn parse(file: &Path, json: &[u8]) -> Result<Self, FormatError> {
        const KEYS: [&str; 15] = [
            "image_processor",
            "size",
            "height",
            "width",
            "max_patches",
            "resize_to_max_canvas",
            "rescale_factor",
            "image_mean",
            "image_std",
            "patch_size",
            "pixel_shuffle_ratio",
            "resample",
            "do_resize",
            "do_rescale",
            "do_normalize",
        ];
        let map = json::parse(file, json, &KEYS)?;
        let top = Section::new(file, &map);
        let images = top.section("image_processor")?.unwrap_or_else(|| top.clone());
        let default = Self::default();
        for step in ["do_resize", "do_rescale", "do_normalize"] {
            if images.flag(step)? == Some(false) {
                return Err(images.unsupported(step, "a skipped step is not supported"));
            }
        }
        match images.count("resample")? {
            None | Some(2) => {}
            Some(other) => return Err(images.unsupported("resample", format!("is {other}; 2 (bilinear) is supported"))),
        }
        let ratio = top.positive("pixel_shuffle_ratio", default.pixel_shuffle_ratio)?;
        if ratio > 1.0 {
            return Err(top.corrupt("pixel_shuffle_ratio", format!("is {ratio}; it has to be at most 1")));
        }
        Ok(Self {
            tile: tile(&images, default.tile)?,
            max_tiles: images.size("max_patches", default.max_tiles, TILES_LIMIT)?,
            resize_to_max_canvas: images.flag("resize_to_max_canvas")?.unwrap_or(default.resize_to_max_canvas),
            rescale: images.positive("rescale_factor", default.rescale)?,
            mean: colours(&images, "image_mean")?.unwrap_or(default.mean),
            std: match colours(&images, "image_std")? {
                Some(std) if std.contains(&0.0) => return Err(images.corrupt("image_std", "has a 0 to divide by")),
                std => std.unwrap_or(default.std),
            },
            patch_size: top.size("patch_size", default.patch_size, 1 << 14)?,
            pixel_shuffle_ratio: ratio,
        })
    }
}

fn tile(images: &Section<'_>, default: usize) -> Result<usize, FormatError> {
    let Some(size) = images.section("size")? else { return Ok(default) };
    let height = size.size("height", default, 1 << 14)?;
    let width = size.size("width", default, 1 << 14)?;
    if height != width {
        return Err(size.unsupported("width", format!("tiles of {height}×{width} are not supported; square ones are")));
    }
    Ok(height)
}

fn colours(images: &Section<'_>, key: &str) -> Result<Option<[f32; 3]>, FormatError> {
    let Some(values) = images.numbers(key)? else { return Ok(None) };
    let n_values = values.len();
    <[f32; 3]>::try_from(values).map(Some).map_err(|_| images.corrupt(key, format!("has {n_values} values, not 3")))
}
