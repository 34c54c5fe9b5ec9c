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

use audio::Sound;

/// What a prompt holds beside text, ready for its tower.
#[derive(Debug, Clone)]
pub enum Media {
    /// An image.
    Image(Tiles),
    /// A clip of audio.
    Audio(Sound),
}

impl Media {
    /// Identifies it by all that its tower sees: equal ones share what is computed.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Image(tiles) => tiles.hash(),
            Self::Audio(sound) => sound.hash(),
        }
    }

    /// How much room it takes in a prompt.
    pub fn extent(&self) -> Extent {
        match self {
            Self::Image(tiles) => Extent::Image(tiles.grid),
            Self::Audio(sound) => Extent::Audio { n_rows: sound.n_rows() },
        }
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
    },
}
