//! The tokens that stand for an image in a Llama 4 prompt.

use crate::Tokenizer;

/// The control tokens of which an image block is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageIds {
    /// Begins a block: `<|image_start|>`.
    pub start: u32,
    /// Ends a block: `<|image_end|>`.
    pub end: u32,
    /// Comes before the whole image's tile: `<|image|>`.
    pub image: u32,
    /// Is replaced by one feature row: `<|patch|>`.
    pub patch: u32,
    /// Stands between the tiles of a row: `<|tile_x_separator|>`.
    pub tile_x: u32,
    /// Stands after each row of tiles: `<|tile_y_separator|>`.
    pub tile_y: u32,
}

impl ImageIds {
    /// The ids under the names that Llama 4 gives them; none if one of the names is missing.
    pub fn of(tokenizer: &Tokenizer) -> Option<Self> {
        Some(Self {
            start: tokenizer.control("<|image_start|>")?,
            end: tokenizer.control("<|image_end|>")?,
            image: tokenizer.control("<|image|>")?,
            patch: tokenizer.control("<|patch|>")?,
            tile_x: tokenizer.control("<|tile_x_separator|>")?,
            tile_y: tokenizer.control("<|tile_y_separator|>")?,
        })
    }
}

/// The tokens of an image of `rows` × `cols` tiles with `tokens_per_tile` feature rows each.
///
/// A single tile: start, image, its patches, end. More: start; each row's tiles with `tile_x` between them and `tile_y`
/// after each row; then image and the patches of the whole image's tile; end. With n patches a tile and r·c > 1 tiles
/// that is n·rc + rc + n + 3 tokens. Source: transformers, `Llama4Processor._prompt_split_image`.
///
/// `rows` and `cols` come from the tiling, which bounds their product; either being 0 gives a single tile.
pub fn image_block(ids: &ImageIds, rows: usize, cols: usize, tokens_per_tile: usize) -> Vec<u32> {
    let tile = || std::iter::repeat_n(ids.patch, tokens_per_tile);
    let mut block = vec![ids.start];
    if rows.saturating_mul(cols) > 1 {
        for _ in 0..rows {
            for col in 0..cols {
                if col > 0 {
                    block.push(ids.tile_x);
                }
                block.extend(tile());
            }
            block.push(ids.tile_y);
        }
    }
    block.push(ids.image);
    block.extend(tile());
    block.push(ids.end);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: ImageIds = ImageIds { start: 1, end: 2, image: 3, patch: 0, tile_x: 5, tile_y: 6 };

    #[test]
    fn blocks_are_as_long_as_published() {
        for (rows, cols, len) in
            [(1, 1, 147), (1, 2, 437), (2, 1, 437), (2, 2, 727), (3, 4, 1887), (4, 4, 2467), (3, 5, 2322), (6, 1, 1017)]
        {
            let block = image_block(&IDS, rows, cols, 144);
            assert_eq!(block.len(), len, "{rows}×{cols}");
            let tiles = if rows * cols > 1 { rows * cols + 1 } else { 1 };
            assert_eq!(block.iter().filter(|&&id| id == IDS.patch).count(), 144 * tiles);
        }
    }

    #[test]
    fn separators_stand_where_published() {
        assert_eq!(image_block(&IDS, 1, 1, 2), [1, 3, 0, 0, 2]);
        assert_eq!(image_block(&IDS, 1, 2, 1), [1, 0, 5, 0, 6, 3, 0, 2]);
        assert_eq!(image_block(&IDS, 2, 1, 1), [1, 0, 6, 0, 6, 3, 0, 2]);
        assert_eq!(image_block(&IDS, 2, 2, 1), [1, 0, 5, 0, 6, 0, 5, 0, 6, 3, 0, 2]);
    }
}
