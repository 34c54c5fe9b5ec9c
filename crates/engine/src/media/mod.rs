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
