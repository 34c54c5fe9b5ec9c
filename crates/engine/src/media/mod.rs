//! From the bytes of an image file to the tiles that the vision tower takes; [`audio`] goes from the bytes of an audio file
//! to what the audio tower takes.
//!
//! [`decode`] → [`Rgb`] → [`preprocess`] → [`Tiles`]. How many tiles and tokens an image becomes is a total function of
//! its size: [`grid`].

pub mod audio;
mod canvas;
mod container;
mod error;
mod image;
mod resize;
mod tiles;

pub use canvas::{Grid, Size, TileConfig, TileSettings, grid, resized};
pub use error::{Format, MediaError};
pub use image::{Rgb, decode, size};
pub use resize::resize;
pub use tiles::{Tiles, preprocess};

use std::sync::Arc;

use audio::Sound;

/// What a prompt holds beside text, ready for its tower. Clones share it.
#[derive(Debug, Clone)]
pub enum Media {
    /// An image.
    Image(Arc<Tiles>),
    /// A clip of audio.
    Audio(Sound),
}

impl Media {
    /// Identifies what its rows are made of, by all that its tower sees: an image as a whole, each chunk of a clip by itself.
    /// Equal ones share what is computed.
    pub fn keys(&self) -> Keys {
        match self {
            Self::Image(tiles) => tiles.keys(),
            Self::Audio(sound) => sound.keys(),
        }
    }

    /// How much room it takes in a prompt.
    pub fn extent(&self) -> Extent {
        match self {
            Self::Image(tiles) => Extent::Image(tiles.grid),
            Self::Audio(sound) => Extent::Audio { n_rows: sound.n_rows(), is_open: sound.is_open() },
        }
    }
}

/// Identify the rows of an image or a clip, piece by piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    of_pieces: Vec<u64>,
    /// Rows of each piece but the last.
    rows: usize,
}

impl Keys {
    /// Keys of pieces of so many rows.
    pub(crate) fn new(of_pieces: Vec<u64>, rows: usize) -> Self {
        Self { of_pieces, rows }
    }

    /// That of the piece of this number; 0 for none that is there.
    pub fn of_piece(&self, index: usize) -> u64 {
        self.of_pieces.get(index).copied().unwrap_or(0)
    }

    /// That of the piece which a row belongs to.
    pub fn of_row(&self, row: usize) -> u64 {
        self.of_piece(row / self.rows.max(1))
    }
}

/// How much room an image or a clip takes in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The tiles of an image.
    Image(Grid),
    /// The rows of a clip.
    Audio {
        /// How many.
        n_rows: usize,
        /// Whether more may come, so that no end stands behind them.
        is_open: bool,
    },
}
