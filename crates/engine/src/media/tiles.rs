//! From a decoded image to the tower's input.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Grid, Keys, Rgb, Size, TileConfig, grid, resize, resized};

/// The pixels of one image, ready for the vision tower.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiles {
    /// Normalised values, `[n_tiles, 3, tile, tile]`: the canvas row by row of tiles, then, if it has several tiles, the
    /// whole image as one more.
    pub pixels: Vec<f32>,
    /// How the canvas is cut.
    pub grid: Grid,
}

impl Tiles {
    /// Identifies an image, as a whole, by its preprocessed pixels and their layout.
    pub fn keys(&self) -> Keys {
        let mut hasher = DefaultHasher::new();
        (self.grid.rows, self.grid.cols).hash(&mut hasher);
        self.pixels.iter().for_each(|value| value.to_bits().hash(&mut hasher));
        Keys::new(vec![hasher.finish()], usize::MAX)
    }
}

/// Cuts `image` into tiles.
///
/// Resized to [`resized`], padded with black at the right and below to its [`grid`], rescaled, normalised. A grid of
/// several tiles is followed by the whole image squeezed into one tile, its aspect not kept.
pub fn preprocess(image: &Rgb, config: &TileConfig) -> Tiles {
    let side = config.settings().tile;
    let grid = grid(image.size(), config);
    let values = Values::new(config);
    let mut pixels = Vec::with_capacity(grid.n_tiles() * 3 * (side * side) as usize);
    let fitted = resize(image, resized(image.size(), grid, config));
    for row in 0..grid.rows {
        for col in 0..grid.cols {
            values.append_tile(&fitted, [row, col], side as usize, &mut pixels);
        }
    }
    if let (2.., Some(tile)) = (grid.n_tiles(), Size::new(side, side)) {
        values.append_tile(&resize(image, tile), [0, 0], side as usize, &mut pixels);
    }
    Tiles { pixels, grid }
}

/// The normalised value of every byte in each channel.
struct Values([[f32; 256]; 3]);

impl Values {
    fn new(config: &TileConfig) -> Self {
        let settings = config.settings();
        Self(std::array::from_fn(|channel| {
            let (mean, std) = (settings.mean[channel], settings.std[channel]);
            std::array::from_fn(|byte| (byte as f32 * settings.rescale - mean) / std)
        }))
    }

    /// Appends the tile at `[row, col]` of a canvas on which `image` lies at the top left, `[3, side, side]`.
    fn append_tile(&self, image: &Rgb, [row, col]: [usize; 2], side: usize, out: &mut Vec<f32>) {
        let (height, width) = (image.size().height() as usize, image.size().width() as usize);
        let (pixels, _) = image.pixels().as_chunks::<3>();
        let (begin, end) = ((col * side).min(width), ((col + 1) * side).min(width));
        for (channel, values) in self.0.iter().enumerate() {
            for y in row * side..(row + 1) * side {
                let row_end = out.len() + side;
                if y < height {
                    let inside = &pixels[y * width + begin..y * width + end];
                    out.extend(inside.iter().map(|pixel| values[usize::from(pixel[channel])]));
                }
                out.resize(row_end, values[0]);
            }
        }
    }
}
