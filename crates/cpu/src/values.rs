//! What the device's handles hold.

use std::sync::Arc;

use tensor::WeightSource;

/// Activations: f32 `[rows, width]`. Cloning copies a pointer.
#[derive(Debug, Clone)]
pub struct Tensor {
    values: Arc<Vec<f32>>,
    width: usize,
}

impl Tensor {
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        Self { values: Arc::new(values), width }
    }

    /// The same values in rows of `width`.
    pub(crate) fn with_width(self, width: usize) -> Self {
        Self { width, ..self }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }

    /// Row `index`, which must be there.
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }
}

/// A parameter vector.
#[derive(Debug, Clone)]
pub struct Vector(pub(crate) Arc<[f32]>);

/// A table whose rows are looked up. It stays as it is stored: a step reads a few rows of it.
#[derive(Debug, Clone)]
pub struct Table(pub(crate) WeightSource);
