//! Why an image was refused.

use std::fmt;

use super::Size;

/// The image files that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG, baseline or progressive.
    Jpeg,
    /// WebP, lossy or lossless; of an animation the first frame.
    WebP,
    /// GIF, its first frame.
    Gif,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
        })
    }
}

/// Why an image was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MediaError {
    /// The bytes do not begin like any image that can be read.
    #[error("not an image; PNG, JPEG, WebP and GIF can be read")]
    UnknownFormat,
    /// More pixels than allowed.
    #[error("image is {size} ({} MP); the limit is {limit_megapixels} MP", megapixels(*size))]
    TooManyPixels {
        /// As the file's header says, before any rotation.
        size: Size,
        /// The limit in 10⁶ pixels.
        limit_megapixels: u32,
    },
    /// Too long and narrow.
    #[error("image is {size} ({}); the limit is {limit}:1", aspect(*size))]
    TooNarrow {
        /// As the file's header says, before any rotation.
        size: Size,
        /// The longest side allowed divided by the shortest.
        limit: u32,
    },
    /// The pixels as stored take more memory than allowed.
    #[error("image is {size} and takes {got_bytes} bytes decoded; the limit is {limit_bytes}")]
    TooManyBytes {
        /// As the file's header says, before any rotation.
        size: Size,
        /// Bytes of the decoded image.
        got_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The file ends before the image does.
    #[error("{format} image is cut off; send the whole file")]
    Truncated {
        /// What kind of file.
        format: Format,
    },
    /// The file contradicts itself or uses what no common program writes.
    #[error("{format} image cannot be read: {why}; convert it to a plain PNG or JPEG")]
    Corrupt {
        /// What kind of file.
        format: Format,
        /// What the decoder met.
        why: String,
    },
    /// A preprocessor config asks for tiles that cannot be.
    #[error("preprocessor config: {field} is \"{value}\"; it must be {allowed}")]
    Config {
        /// The config's field.
        field: &'static str,
        /// The value given.
        value: String,
        /// What it may be.
        allowed: String,
    },
}

/// Millions of pixels, with as many digits as tell the number from a limit.
fn megapixels(size: Size) -> String {
    let pixels = size.n_pixels();
    if pixels.is_multiple_of(1_000_000) {
        return (pixels / 1_000_000).to_string();
    }
    if pixels >= 100_000_000 {
        return pixels.div_ceil(1_000_000).to_string();
    }
    format!("{:.6}", pixels as f64 / 1e6).trim_end_matches('0').to_string()
}

/// Width to height, the shorter as 1, rounded up so that a refused image never reads like an allowed one.
fn aspect(size: Size) -> String {
    let (height, width) = (size.height(), size.width());
    if width > height { format!("{}:1", width.div_ceil(height)) } else { format!("1:{}", height.div_ceil(width)) }
}
