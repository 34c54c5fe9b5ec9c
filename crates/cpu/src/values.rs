//! What the device's handles hold.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use tensor::WeightSource;

use crate::arena::{Arena, Lease};
use crate::panel::Panel;

/// Activations: f32 `[rows, width]`. Cloning copies pointers.
#[derive(Debug, Clone)]
pub struct Tensor {
    values: Arc<Values>,
    width: usize,
    /// The rows in eight bits, from the first map with quantised weights that wanted them on.
    panel: Arc<OnceLock<Lease<Panel>>>,
}

/// Numbers at the beginning of a buffer.
#[derive(Debug)]
pub(crate) struct Values {
    buffer: Lease<Vec<f32>>,
    len: usize,
}

impl Values {
    /// `len` numbers, whatever they are: who asks for them writes them all.
    pub(crate) fn new(arena: &Arc<Arena<Vec<f32>>>, len: usize) -> Self {
        Self { buffer: arena.numbers(len), len }
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

impl Tensor {
    pub(crate) fn new(values: Values, width: usize) -> Self {
        Self { values: Arc::new(values), width, panel: Arc::default() }
    }

    /// Rows that are in eight bits already.
    pub(crate) fn with_panel(values: Values, width: usize, panel: Lease<Panel>) -> Self {
        Self { values: Arc::new(values), width, panel: Arc::new(OnceLock::from(panel)) }
    }

    /// The same values in rows of `width`.
    pub(crate) fn with_width(self, width: usize) -> Self {
        if width == self.width { self } else { Self { width, panel: Arc::default(), ..self } }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values; `Err` if somebody else holds them too.
    pub(crate) fn into_values(self) -> Result<Values, Self> {
        let Self { values, width, panel } = self;
        Arc::try_unwrap(values).map_err(|values| Self { values, width, panel })
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
    pub(crate) fn panel(&self, quantise: impl FnOnce() -> Lease<Panel>) -> &Panel {
        self.panel.get_or_init(quantise)
    }
}

/// A parameter vector.
#[derive(Debug, Clone)]
pub struct Vector(pub(crate) Arc<[f32]>);

/// A table whose rows are looked up. It stays as it is stored: a step reads a few rows of it.
#[derive(Debug, Clone)]
pub struct Table(pub(crate) WeightSource);
