//! What the device's handles hold.

use std::sync::{Arc, OnceLock};

use tensor::WeightSource;

use crate::panel::Panel;

/// Activations: f32 `[rows, width]`. Cloning copies pointers.
#[derive(Debug, Clone)]
pub struct Tensor {
    values: Arc<Vec<f32>>,
    width: usize,
    /// The rows in eight bits, from the first map with quantised weights that wanted them on.
    panel: Arc<OnceLock<Panel>>,
}

impl Tensor {
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        Self { values: Arc::new(values), width, panel: Arc::default() }
    }

    /// The same values in rows of `width`.
    pub(crate) fn with_width(self, width: usize) -> Self {
        if width == self.width { self } else { Self { width, panel: Arc::default(), ..self } }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values, copied if somebody else holds them too.
    pub(crate) fn into_values(self) -> Vec<f32> {
        Arc::unwrap_or_clone(self.values)
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

    /// The rows in eight bits; `quantise` makes them the first time.
    pub(crate) fn panel(&self, quantise: impl FnOnce() -> Panel) -> &Panel {
        self.panel.get_or_init(quantise)
    }
}

/// A parameter vector.
#[derive(Debug, Clone)]
pub struct Vector(pub(crate) Arc<[f32]>);

/// A table whose rows are looked up. It stays as it is stored: a step reads a few rows of it.
#[derive(Debug, Clone)]
pub struct Table(pub(crate) WeightSource);
