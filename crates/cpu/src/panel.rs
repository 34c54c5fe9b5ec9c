//! Activation rows in eight bits, side by side in tiles, with the sums that quantised kernels need.
//!
//! The same numbers as [`tensor::quant::Activation`], laid out for kernels: of a tile's rows, block 0 of each, then
//! block 1 of each, and so on. A tile takes as much as its rows do, so it lies where they lie.

use std::ops::Range;

use crate::arena::Buffer;
use crate::packing::BLOCK;
use crate::pool::Disjoint;

/// Sums are stored times 2 to the power of this: by as much, at least, are the integers shifted that they make up for.
pub(crate) const SUMS_SHIFT: u32 = 3;

/// Rows in eight bits.
#[derive(Debug, Default)]
pub(crate) struct Panel {
    n_in: usize,
    /// The integers.
    q: Vec<i8>,
    /// One scale a block.
    scale: Vec<f32>,
    whole: Sums,
    halves: Sums,
}

/// Sums of integers over blocks or half blocks; of half blocks, the first ones of all rows before the second ones.
#[derive(Debug, Default)]
struct Sums {
    /// The exact sums, negated and shifted left by [`SUMS_SHIFT`].
    negated: Vec<i32>,
    /// Each sum as f32 times the block's scale.
    scaled: Vec<f32>,
}

/// What a kernel reads of a tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile<'a> {
    /// Rows of the tile, at most [`TILE`](crate::kernels::TILE).
    pub(crate) width: usize,
    pub(crate) q: &'a [i8],
    pub(crate) scale: &'a [f32],
    pub(crate) negated_sums: &'a [i32],
    pub(crate) scaled_sums: &'a [f32],
}

/// What a kernel writes of a tile.
pub(crate) struct TileMut<'a> {
    pub(crate) width: usize,
    pub(crate) q: &'a mut [i8],
    pub(crate) scale: &'a mut [f32],
    /// Negated and scaled sums of blocks.
    pub(crate) whole: (&'a mut [i32], &'a mut [f32]),
    /// The same of half blocks.
    pub(crate) halves: (&'a mut [i32], &'a mut [f32]),
}

impl Buffer for Panel {
    fn size(&self) -> usize {
        self.q.len()
    }
}

impl Panel {
    /// Bytes of all that it holds.
    pub(crate) fn size_bytes(&self) -> usize {
        let sums = |sums: &Sums| size_of_val(&*sums.negated) + size_of_val(&*sums.scaled);
        size_of_val(&*self.q) + size_of_val(&*self.scale) + sums(&self.whole) + sums(&self.halves)
    }

    /// Makes room for `n_rows` rows of `n_in` values, a multiple of [`BLOCK`].
    pub(crate) fn resize(&mut self, n_rows: usize, n_in: usize) {
        let (len, n_blocks) = (n_rows * n_in, n_rows * n_in / BLOCK);
        self.n_in = n_in;
        // Never shorter, so that growing back costs nothing.
        if self.q.len() < len {
            self.q.resize(len, 0);
            self.scale.resize(n_blocks, 0.0);
            self.whole.resize(n_blocks);
            self.halves.resize(2 * n_blocks);
        }
    }

    /// Values of a row.
    pub(crate) fn n_in(&self) -> usize {
        self.n_in
    }

    /// The tile of `rows` with the sums of half blocks or of whole ones.
    #[inline(always)]
    pub(crate) fn tile(&self, rows: Range<usize>, halves: bool) -> Tile<'_> {
        let width = rows.len();
        let values = rows.start * self.n_in..rows.end * self.n_in;
        let blocks = values.start / BLOCK..values.end / BLOCK;
        let (sums, n) = if halves { (&self.halves, 2) } else { (&self.whole, 1) };
        let range = blocks.start * n..blocks.end * n;
        Tile {
            width,
            q: &self.q[values],
            scale: &self.scale[blocks],
            negated_sums: &sums.negated[range.clone()],
            scaled_sums: &sums.scaled[range],
        }
    }

    /// Hands out tiles to write.
    pub(crate) fn tiles_mut(&mut self) -> TilesMut<'_> {
        TilesMut {
            n_in: self.n_in,
            q: Disjoint::new(&mut self.q),
            scale: Disjoint::new(&mut self.scale),
            whole: (Disjoint::new(&mut self.whole.negated), Disjoint::new(&mut self.whole.scaled)),
            halves: (Disjoint::new(&mut self.halves.negated), Disjoint::new(&mut self.halves.scaled)),
        }
    }
}

/// A panel whose tiles are written by several threads at once.
pub(crate) struct TilesMut<'a> {
    n_in: usize,
    q: Disjoint<'a, i8>,
    scale: Disjoint<'a, f32>,
    whole: (Disjoint<'a, i32>, Disjoint<'a, f32>),
    halves: (Disjoint<'a, i32>, Disjoint<'a, f32>),
}

impl TilesMut<'_> {
    /// The tile of `rows`.
    ///
    /// # Safety
    /// No two tiles that are alive at the same time may share a row.
    ///
    /// # Panics
    /// If the rows do not lie in the panel.
    pub(crate) unsafe fn tile(&self, rows: Range<usize>) -> TileMut<'_> {
        let values = rows.start * self.n_in..rows.end * self.n_in;
        let blocks = values.start / BLOCK..values.end / BLOCK;
        let halves = 2 * blocks.start..2 * blocks.end;
        // SAFETY: different rows are different parts of every array, by this function's contract.
        unsafe {
            TileMut {
                width: rows.len(),
                q: self.q.part(values),
                scale: self.scale.part(blocks.clone()),
                whole: (self.whole.0.part(blocks.clone()), self.whole.1.part(blocks)),
                halves: (self.halves.0.part(halves.clone()), self.halves.1.part(halves)),
            }
        }
    }
}

impl Sums {
    fn resize(&mut self, n: usize) {
        self.negated.resize(n, 0);
        self.scaled.resize(n, 0.0);
    }
}
