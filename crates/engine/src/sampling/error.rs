//! What a request may not ask of the sampler, and what the sampler can fail at.

use crate::limits::Bounds;

/// Which field of a request is out of bounds, and what the bounds are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// A value outside of its range, NaN and the infinities included.
    #[error("{field} is \"{value}\"; it must be {allowed}")]
    OutOfRange {
        /// The request's field.
        field: &'static str,
        /// The value given.
        value: String,
        /// What the field may be.
        allowed: String,
    },
    /// Too many of something, or something too long.
    #[error("{field} has {got} {unit}; the limit is {limit}")]
    TooMany {
        /// The request's field.
        field: &'static str,
        /// What was counted.
        unit: &'static str,
        /// How many were given.
        got: usize,
        /// How many are allowed.
        limit: usize,
    },
}

impl SamplingError {
    /// Accepts `value` inside of `bounds`.
    pub(super) fn check(field: &'static str, value: f32, bounds: Bounds) -> Result<(), Self> {
        if bounds.contains(value) {
            return Ok(());
        }
        Err(Self::OutOfRange { field, value: value.to_string(), allowed: bounds.to_string() })
    }

    /// Accepts a whole number up to `limit`.
    pub(super) fn check_whole(field: &'static str, value: u32, limit: u32) -> Result<(), Self> {
        if value <= limit {
            return Ok(());
        }
        let allowed = format!("a whole number from 0 to {limit}");
        Err(Self::OutOfRange { field, value: value.to_string(), allowed })
    }

    /// Accepts `got` things of kind `unit`.
    pub(super) fn check_count(field: &'static str, unit: &'static str, got: usize, limit: usize) -> Result<(), Self> {
        if got <= limit { Ok(()) } else { Err(Self::TooMany { field, unit, got, limit }) }
    }
}

/// Why no token could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// A score is NaN or +∞, before or after bias and penalties, or no score is finite.
    #[error("the model's scores hold a NaN, an infinity or nothing but -infinity, so no token can be chosen")]
    Numerical,
}
