//! How an image is cut into tiles: a total function of its height and width.
//!
//! Source: transformers `image_processing_llama4.py` and Meta's `preprocess.py`, which agree on every canvas.

use std::cmp::Ordering;
use std::fmt;

use super::MediaError;
use crate::limits::Limits;

/// Height and width in pixels, neither of them 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    height: u32,
    width: u32,
}

impl Size {
    /// `height` by `width`; `None` if one is 0.
    pub fn new(height: u32, width: u32) -> Option<Self> {
        (height > 0 && width > 0).then_some(Self { height, width })
    }

    /// Rows of pixels, at least 1.
    pub fn height(self) -> u32 {
        self.height
    }

    /// Pixels in a row, at least 1.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Pixels in all.
    pub fn n_pixels(self) -> u64 {
        u64::from(self.height) * u64::from(self.width)
    }
}

/// Width first, as people write sizes: `640×480`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}", self.width, self.height)
    }
}

/// The tiles of one canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Rows of tiles.
    pub rows: usize,
    /// Tiles in a row.
    pub cols: usize,
}

impl Grid {
    /// Tiles of the canvas, and one of the whole image if there are several.
    pub fn n_tiles(self) -> usize {
        match self.rows * self.cols {
            1 => 1,
            n => n + 1,
        }
    }
}

/// What a preprocessor config says about tiles, unchecked.
#[derive(Debug, Clone, PartialEq)]
pub struct TileSettings {
    /// Side of a tile in pixels: 336.
    pub tile: u32,
    /// Side of a patch in pixels: 14.
    pub patch: u32,
    /// Tiles of a canvas at most, the config's `max_patches`: 16.
    pub max_tiles: u32,
    /// Placeholders along one side of a tile for each patch along it, the config's `pixel_shuffle_ratio`: 0.5.
    pub ratio: f32,
    /// Enlarges every image until it fills its canvas.
    pub resize_to_max_canvas: bool,
    /// Taken from each channel after rescaling.
    pub mean: [f32; 3],
    /// Divides each channel after that.
    pub std: [f32; 3],
    /// Multiplies the bytes first: 1/255.
    pub rescale: f32,
}

impl Default for TileSettings {
    /// The published Llama 4 settings.
    fn default() -> Self {
        Self {
            tile: 336,
            patch: 14,
            max_tiles: 16,
            ratio: 0.5,
            resize_to_max_canvas: false,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale: 1.0 / 255.0,
        }
    }
}

/// Checked [`TileSettings`].
#[derive(Debug, Clone, PartialEq)]
pub struct TileConfig {
    settings: TileSettings,
    tokens_per_tile: usize,
}

impl TileConfig {
    /// Checks `settings`.
    ///
    /// # Errors
    /// [`MediaError::Config`] if a size is 0 or beyond `limits`, the patches do not fill a tile, the ratio does not
    /// give whole placeholders, or a number is not finite or divides by 0.
    pub fn parse(settings: TileSettings, limits: &Limits) -> Result<Self, MediaError> {
        let refuse = |field, value: &dyn fmt::Display, allowed: String| {
            Err(MediaError::Config { field, value: value.to_string(), allowed })
        };
        let TileSettings { tile, patch, max_tiles, ratio, .. } = settings;
        if !(1..=limits.tile_side).contains(&tile) {
            return refuse("size", &tile, format!("1 to {}", limits.tile_side));
        }
        if patch == 0 || !tile.is_multiple_of(patch) {
            return refuse("patch_size", &patch, format!("a divisor of the tile's side {tile}"));
        }
        if !(1..=limits.tiles_per_image).contains(&max_tiles) {
            return refuse("max_patches", &max_tiles, format!("1 to {}", limits.tiles_per_image));
        }
        let n_patches = tile / patch;
        let side = n_patches as f32 * ratio;
        if !(side >= 1.0 && side <= n_patches as f32 && side.fract() == 0.0) {
            let allowed = format!("a part of 1 that divides {n_patches} patches evenly");
            return refuse("pixel_shuffle_ratio", &ratio, allowed);
        }
        if let Some(mean) = settings.mean.iter().find(|mean| !mean.is_finite()) {
            return refuse("image_mean", mean, "finite".into());
        }
        if let Some(std) = settings.std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
            return refuse("image_std", std, "finite and above 0".into());
        }
        if !settings.rescale.is_finite() {
            return refuse("rescale_factor", &settings.rescale, "finite".into());
        }
        let side = side as usize;
        Ok(Self { settings, tokens_per_tile: side * side })
    }

    /// The settings that were checked.
    pub fn settings(&self) -> &TileSettings {
        &self.settings
    }

    /// Placeholders of one tile, and rows that the vision tower makes of it: 144.
    pub fn tokens_per_tile(&self) -> usize {
        self.tokens_per_tile
    }

    /// Tokens of an image in the prompt: the placeholders of all tiles, a separator after every tile of the canvas if
    /// there are several, and the three marks for start, whole image and end.
    pub fn n_tokens(&self, grid: Grid) -> usize {
        let n_separators = if grid.n_tiles() == 1 { 0 } else { grid.rows * grid.cols };
        grid.n_tiles() * self.tokens_per_tile + n_separators + 3
    }
}

/// The canvas for an image of `size`.
///
/// For a canvas let the scale be how much the image grows, keeping its aspect, to fill it. Of the canvases that need no
/// shrinking the one with the smallest scale is taken (the largest, if the image is to fill its canvas); if all need it,
/// the one that shrinks least. Among equal scales the smallest area wins. Scales are f32, as in the reference: their
/// equality decides.
///
/// The areas of two different canvases with the same scale never tie: the canvas with the smaller height and the
/// smaller width of both has that scale too and is smaller than either.
pub fn grid(size: Size, config: &TileConfig) -> Grid {
    let TileSettings { tile, max_tiles, resize_to_max_canvas, .. } = config.settings;
    let scale = |rows: u32, cols: u32| {
        let by_height = (rows * tile) as f32 / size.height as f32;
        let by_width = (cols * tile) as f32 / size.width as f32;
        by_height.min(by_width)
    };
    let order = |new: f32, old: f32| match (new >= 1.0, old >= 1.0) {
        (true, true) if !resize_to_max_canvas => old.total_cmp(&new),
        // Larger is better, and a scale that fits is larger than one that does not.
        _ => new.total_cmp(&old),
    };
    let (mut rows, mut cols, mut best) = (1, 1, scale(1, 1));
    for r in 1..=max_tiles {
        for c in 1..=max_tiles / r {
            let new = scale(r, c);
            let better = match order(new, best) {
                Ordering::Greater => true,
                Ordering::Equal => r * c < rows * cols,
                Ordering::Less => false,
            };
            if better {
                (rows, cols, best) = (r, c, new);
            }
        }
    }
    Grid { rows: rows as usize, cols: cols as usize }
}

/// The size that an image of `size` gets on its canvas: as large as fits while keeping the aspect, but enlarged no
/// further than one tile unless the settings ask to fill the canvas.
///
/// In f64, as Meta's reference. transformers does this step in f32 where the image is shrunk, which makes 3 in 1000
/// sizes one pixel smaller or larger (a 1200×1600 image 1007 wide, not 1008).
pub fn resized(size: Size, grid: Grid, config: &TileConfig) -> Size {
    let TileSettings { tile, resize_to_max_canvas, .. } = config.settings;
    let canvas = [grid.rows, grid.cols].map(|n| n as u32 * tile);
    let target = |length: u32, canvas: u32| if resize_to_max_canvas { canvas } else { length.max(tile).min(canvas) };
    let (height, width) = (target(size.height, canvas[0]), target(size.width, canvas[1]));
    let by_height = f64::from(height) / f64::from(size.height);
    let by_width = f64::from(width) / f64::from(size.width);
    let (height, width) = if by_width < by_height {
        (((f64::from(size.height) * by_width) as u32).min(height), width)
    } else {
        (height, ((f64::from(size.width) * by_height) as u32).min(width))
    };
    Size { height: height.max(1), width: width.max(1) }
}
