//! From segments and images to the content of a sequence.

use std::hash::{DefaultHasher, Hash, Hasher};

use llama::Vision;
use tensor::Device;
use tokenizer::{ImageIds, Piece, image_block};

use crate::EngineError;
use crate::media::Tiles;
use crate::sequence::{Content, EncodedImage, Known};

/// Encodes preprocessed images with `vision`.
///
/// # Errors
/// [`EngineError::Model`] if the tiles are not of the tower's size.
pub fn encode_image<D: Device>(
    dev: &D,
    vision: &Vision<D>,
    tiles: &Tiles,
) -> Result<EncodedImage<D::Tensor>, EngineError> {
    Ok(EncodedImage { hash: image_hash(tiles), features: vision.forward(dev, &tiles.pixels, &mut ())? })
}

/// Identifies an image by its preprocessed pixels and their layout.
pub(crate) fn image_hash(tiles: &Tiles) -> u64 {
    let mut hasher = DefaultHasher::new();
    (tiles.grid.rows, tiles.grid.cols).hash(&mut hasher);
    tiles.pixels.iter().for_each(|value| value.to_bits().hash(&mut hasher));
    hasher.finish()
}

/// Lays out `pieces`, expanding image n to its block of separators and placeholders; every placeholder becomes a row
/// of the image's features.
///
/// # Errors
/// [`EngineError::Prompt`] if a piece names an image that is not there or an image's placeholders are not as many as
/// its feature rows.
pub fn content<T: Clone>(
    pieces: &[Piece],
    images: &[(EncodedImage<T>, crate::media::Grid)],
    ids: Option<&ImageIds>,
    tokens_per_tile: usize,
) -> Result<Content<T>, EngineError> {
    let mut known = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Ids(ids) => known.extend(ids.iter().copied().map(Known::Token)),
            Piece::Image(image) => {
                let (_, grid) = images.get(*image).ok_or_else(|| {
                    EngineError::Prompt(format!("the prompt names image {image}, which is not there"))
                })?;
                let ids = ids.ok_or_else(|| EngineError::Prompt("this model does not take images".into()))?;
                let mut row = 0;
                for id in image_block(ids, grid.rows, grid.cols, tokens_per_tile) {
                    known.push(if id == ids.patch {
                        row += 1;
                        Known::Image { image: *image, row: row - 1 }
                    } else {
                        Known::Token(id)
                    });
                }
            }
        }
    }
    Ok(Content { known, images: images.iter().map(|(image, _)| image.clone()).collect() })
}

/// Positions that `pieces` with `images` come to, of `tile_rows` feature rows a tile; see [`image_block`]. A piece that
/// names an image which is not there counts as nothing: [`content`] refuses it.
pub(crate) fn n_positions(pieces: &[Piece], images: &[Tiles], tile_rows: usize) -> usize {
    let image = |tiles: &Tiles| match tiles.grid.rows.saturating_mul(tiles.grid.cols) {
        0 | 1 => tile_rows + 3,
        n => (n * tile_rows) + n + tile_rows + 3,
    };
    let piece = |piece: &Piece| match piece {
        Piece::Ids(ids) => ids.len(),
        Piece::Image(index) => images.get(*index).map_or(0, image),
    };
    pieces.iter().map(piece).sum()
}
