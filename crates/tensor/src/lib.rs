//! What a device computes, without saying how: the [`Device`] trait, shapes, the formats that weights are stored
//! in, and [`Reference`], the slow obvious device that defines every result.
//!
//! Legend of shape letters, the same in all crates: T rows in this step, D model width, H query heads, K key/value
//! heads, C components of one head, F feed-forward width, E experts, V vocabulary, P positions in a page.

pub mod adjoint;
pub mod bytes;
pub mod device;
pub mod error;
pub mod format;
pub mod kv;
pub mod math;
pub mod packed;
pub mod quant;
pub mod reference;

pub use adjoint::{Adjoint, Attended, PartGradient, Seen, Targets};
pub use bytes::{Bytes, Owner, READ_ALIGN, ReadError};
pub use device::{Choice, DENSE_BLOCK, Device, Origin, PAGE_LEN, Pairing, Rotation, RowKeys, WeightSource};
pub use error::OpError;
pub use format::{Format, Orientation};
pub use kv::KvFormat;
pub use reference::Reference;
