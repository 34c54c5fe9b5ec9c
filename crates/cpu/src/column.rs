//! Activation rows in eight bits, with the sums that quantised kernels need.
//!
//! The same numbers as [`tensor::quant::Activation`], laid out for kernels and reusable between calls.

use tensor::quant::ACTIVATION_LEN;

/// One activation row in eight bits.
#[derive(Debug, Default)]
pub(crate) struct Column {
    /// The integers.
    pub(crate) q: Vec<i8>,
    /// One scale for [`ACTIVATION_LEN`] integers.
    pub(crate) scale: Vec<f32>,
    /// Sums over groups of 16.
    pub(crate) by_16: Sums,
    /// Sums over groups of 32.
    pub(crate) by_32: Sums,
}

/// Sums of a column's integers over groups.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    /// The exact sums.
    pub(crate) exact: Vec<i32>,
    /// Each sum as f32 times the group's scale.
    pub(crate) scaled: Vec<f32>,
}

/// What a kernel reads of a column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnView<'a> {
    pub(crate) q: &'a [i8],
    pub(crate) scale: &'a [f32],
    pub(crate) sums: &'a [i32],
    pub(crate) scaled_sums: &'a [f32],
}

impl Column {
    /// Makes room for a row of `len` values, a multiple of [`ACTIVATION_LEN`].
    pub(crate) fn resize(&mut self, len: usize) {
        self.q.resize(len, 0);
        self.scale.resize(len / ACTIVATION_LEN, 0.0);
        self.by_16.resize(len / 16);
        self.by_32.resize(len / 32);
    }

    /// The column with the sums of groups of `group`, 16 or 32.
    #[inline(always)]
    pub(crate) fn view(&self, group: usize) -> ColumnView<'_> {
        let sums = if group == 16 { &self.by_16 } else { &self.by_32 };
        ColumnView { q: &self.q, scale: &self.scale, sums: &sums.exact, scaled_sums: &sums.scaled }
    }
}

impl Sums {
    fn resize(&mut self, n_groups: usize) {
        self.exact.resize(n_groups, 0);
        self.scaled.resize(n_groups, 0.0);
    }
}
