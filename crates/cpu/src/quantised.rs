//! Dot products of quantised weights with eight-bit rows.
//!
//! The order is the canonical one: an exact integer sum a group, then one fused multiply-add, and one more where the
//! format has offsets. One function serves every number of columns; the integers of a weight are taken apart once for
//! all columns that the registers hold, and what is read of a column serves two row groups.

use std::marker::PhantomData;
use std::ops::Range;

use tensor::quant::Kind;

use crate::aligned::LINE;
use crate::kernels::{Lanes, ROWS, RowGroups, TILE};
use crate::packing::{BLOCK, Head, Packing, with_packing};
use crate::panel::{Panel, SUMS_SHIFT, Tile};
use crate::simd::{Simd, Work, prefetch, with_columns};

/// How far ahead of few columns' products weights are asked for, in bytes. Of many columns' products the next row
/// groups' are: the current ones stay in the first-level cache while all columns go through.
const PREFETCH: usize = 1 << 14;
/// Columns that are few.
pub(crate) const FEW: usize = 2;
/// Row groups that are computed at once for more columns than that.
pub(crate) const GROUPS: usize = 2;

/// Columns whose sums the registers hold at once, of two row groups where a vector is as long as a group. Divides
/// [`TILE`], so that columns of one block are in one tile.
const COLUMNS: usize = 4;

/// The products of every row group with the rows `rows` of `panel`, which begin a tile: `out` is `[n_groups][rows]`.
///
/// # Safety
/// Needs the instructions of `S`.
///
/// # Panics
/// If the lengths do not fit.
#[inline(always)]
pub(crate) unsafe fn dot_quantised<S: Simd>(
    kind: Kind,
    weights: RowGroups<'_>,
    (panel, rows): (&Panel, Range<usize>),
    out: &mut [Lanes],
) {
    const { assert!(TILE.is_multiple_of(COLUMNS), "a block of columns is in one tile") };
    assert_eq!(out.len(), weights.len() * rows.len(), "the output's length");
    let most = S::COLUMNS.min(COLUMNS);
    with_packing!(kind, P => {
        assert!(panel.n_in().is_multiple_of(BLOCK * <P as Packing>::Head::BLOCKS), "rows of {}", panel.n_in());
        assert!(Some(weights.group_bytes()) == P::bytes(panel.n_in()), "a row group's bytes");
        let head_lanes = <<P as Packing>::Head as Head>::Wide::BYTES / size_of::<Lanes>();
        let is_widened = P::IS_WIDENED && rows.len() > most;
        let mut widened = vec![[0.0; ROWS]; if is_widened { 2 * panel.n_in() / BLOCK * head_lanes } else { 0 }];
        let mut first = 0;
        while first < weights.len() {
            // Two row groups share what is read of the columns, where a vector holds all rows of one. For few columns
            // weights are what there is to read, and memory is fastest in one stream.
            let n_groups = if S::LANES == ROWS && rows.len() > FEW { (weights.len() - first).min(GROUPS) } else { 1 };
            let out = &mut out[first * rows.len()..(first + n_groups) * rows.len()];
            let widened = &mut *widened;
            let mut work = Groups { weights, first, panel, rows: rows.clone(), columns: 0..0, widened, out };
            while work.columns.end < rows.len() {
                // As many columns as there are whole blocks of, then those that are left.
                let begin = work.columns.end;
                let left = rows.len() - begin;
                let n = left.min(most);
                work.columns = begin..begin + if n == most { left / n * n } else { n };
                // SAFETY: passes on this function's contract; lengths were checked above.
                unsafe { work.call::<S, P>(n, n_groups) };
            }
            first += n_groups;
        }
    });
}

/// One row group or two from `first` on, and the columns that go through them.
struct Groups<'a> {
    weights: RowGroups<'a>,
    first: usize,
    panel: &'a Panel,
    rows: Range<usize>,
    /// Of `rows`, those to compute now.
    columns: Range<usize>,
    /// [`Head::Wide`] of all blocks of both row groups, if these are what columns read.
    widened: &'a mut [Lanes],
    /// `[groups][rows]`.
    out: &'a mut [Lanes],
}

impl Groups<'_> {
    /// The products of `columns`, `n` at a time, which divides them.
    ///
    /// # Safety
    /// Needs the instructions of `S`; the groups are as long as the panel says, and `out` holds `n_groups`.
    #[inline(always)]
    unsafe fn call<S: Simd, P: Packing>(&mut self, n: usize, n_groups: usize) {
        // SAFETY: passes on this function's contract.
        unsafe {
            if !self.widened.is_empty() && self.columns.start == 0 {
                S::call(Widen::<S, P> { work: self, n_groups, set: PhantomData });
            }
            match (n_groups, self.widened.is_empty()) {
                (2, true) => with_columns!(S, n, N => Columns::<S, P, P::Head, N, 2>::new(self)),
                (2, false) => with_columns!(S, n, N => Columns::<S, P, Wide<P>, N, 2>::new(self)),
                (_, true) => with_columns!(S, n, N => Columns::<S, P, P::Head, N, 1>::new(self)),
                (_, false) => with_columns!(S, n, N => Columns::<S, P, Wide<P>, N, 1>::new(self)),
            };
        }
    }
}

/// Reads the heads of `n_groups` row groups for all columns.
struct Widen<'a, 'b, S, P> {
    work: &'b mut Groups<'a>,
    n_groups: usize,
    set: PhantomData<(S, P)>,
}

impl<S: Simd, P: Packing> Work for Widen<'_, '_, S, P> {
    #[inline(always)]
    unsafe fn run(self) {
        let Groups { weights, first, widened, .. } = self.work;
        let lanes = Wide::<P>::BYTES / size_of::<Lanes>();
        for (group, widened) in (*first..*first + self.n_groups).zip(widened.chunks_exact_mut(widened.len() / 2)) {
            let units = weights.group(group).chunks_exact(P::UNIT);
            for (unit, out) in units.zip(widened.chunks_exact_mut(lanes * P::Head::BLOCKS)) {
                for at in 0..P::Head::BLOCKS * P::GROUPS {
                    // As `Singles` has them: two scales a block, then two offsets.
                    let out = &mut out[at / P::GROUPS * lanes + at % P::GROUPS..];
                    let head = unit[P::BODIES..].as_ptr();
                    for lane in (0..ROWS).step_by(S::LANES) {
                        // SAFETY: the head has these groups of inputs.
                        unsafe {
                            S::store(P::Head::scale::<S>(head, at, lane), out[0].as_mut_ptr().add(lane));
                            if P::Head::OFFSETS {
                                S::store(P::Head::offset::<S>(head, at, lane), out[2].as_mut_ptr().add(lane));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What heads of `P` are read as for many columns.
type Wide<P> = <<P as Packing>::Head as Head>::Wide;

/// The products of `G` row groups, `N` columns at a time, whose heads are read as `H`.
struct Columns<'a, 'b, S, P, H, const N: usize, const G: usize> {
    work: &'b mut Groups<'a>,
    set: PhantomData<(S, P, H)>,
}

impl<'a, 'b, S, P, H, const N: usize, const G: usize> Columns<'a, 'b, S, P, H, N, G> {
    fn new(work: &'b mut Groups<'a>) -> Self {
        Self { work, set: PhantomData }
    }
}

impl<S: Simd, P: Packing, H: Head, const N: usize, const G: usize> Work for Columns<'_, '_, S, P, H, N, G> {
    #[inline(always)]
    unsafe fn run(self) {
        let Groups { weights, first, panel, rows, columns, widened, out } = self.work;
        let n_blocks = panel.n_in() / BLOCK;
        let out = out.as_mut_ptr();
        let ahead = if rows.len() > FEW { G * weights.stride() } else { PREFETCH };
        for column in columns.clone().step_by(N) {
            let (tile, at) = (column - column % TILE, column % TILE);
            let tile = panel.tile(rows.start + tile..rows.end.min(rows.start + tile + TILE), P::GROUPS == 2);
            // Each block of columns asks for its share of the lines, so that memory is busy all the time.
            let share = lines::<P>().div_ceil(columns.len() / N);
            let lines = [column / N * share, lines::<P>().min((column / N + 1) * share)];
            let head_stride = if widened.is_empty() { P::UNIT } else { H::BYTES };
            let x = Block { tile, at, n_blocks, head_stride, ahead, lines };
            // SAFETY: whoever made this has checked the lengths; the tile has `N` columns from `at` on.
            unsafe {
                let vector = |group: usize, lane: usize| Vector {
                    weights: weights.group(*first + group).as_ptr(),
                    heads: match widened.get(group * widened.len() / 2) {
                        Some(widened) => widened.as_ptr().cast(),
                        None => weights.group(*first + group).as_ptr().add(P::BODIES),
                    },
                    lane,
                    out: out.add(group * rows.len() + column).cast::<f32>().add(lane),
                };
                if S::LANES == ROWS {
                    let vectors: [Vector; G] = std::array::from_fn(|group| vector(group, 0));
                    dot_columns::<S, P, H, N, G>(vectors, x);
                } else if 2 * S::LANES == ROWS && N <= 2 {
                    // Few columns: both halves of a cache line are used while it is there. Many: one half at a time,
                    // so that its sums stay in registers.
                    dot_columns::<S, P, H, N, 2>([vector(0, 0), vector(0, S::LANES)], x);
                } else {
                    for lane in (0..ROWS).step_by(S::LANES) {
                        dot_columns::<S, P, H, N, 1>([vector(0, lane)], x);
                    }
                }
            }
        }
    }
}

/// Columns of a tile from `at` on, and how far ahead of them weights are asked for.
#[derive(Clone, Copy)]
struct Block<'a> {
    tile: Tile<'a>,
    at: usize,
    n_blocks: usize,
    /// Bytes from one head to the next.
    head_stride: usize,
    ahead: usize,
    /// Of a block's cache lines, those to ask for: the first one, and the one after the last.
    lines: [usize; 2],
}

/// Cache lines of a block of a row group, of its head too where there is one.
const fn lines<P: Packing>() -> usize {
    P::UNIT.div_ceil(P::Head::BLOCKS).div_ceil(LINE)
}

/// A vector of rows: its row group's integers and heads, its first lane there, and where the first column's products go.
#[derive(Clone, Copy)]
struct Vector {
    weights: *const u8,
    heads: *const u8,
    lane: usize,
    out: *mut f32,
}

/// The products of `R` vectors of rows with `N` columns.
///
/// # Safety
/// Needs the instructions of `S`; the tile has `N` columns from `at` on, the row groups have its blocks, and results
/// have room.
#[inline(always)]
unsafe fn dot_columns<S: Simd, P: Packing, H: Head, const N: usize, const R: usize>(
    vectors: [Vector; R],
    x: Block<'_>,
) {
    let Block { tile, at, n_blocks, head_stride, ahead, lines: [first_line, end_line] } = x;
    let width = tile.width;
    // Where the set's bytes are unsigned, signed ones come with a shift of their own.
    let shift = if P::BITS == 8 { S::BYTE_SHIFT } else { P::SHIFT };
    // SAFETY: all offsets stay inside of the groups and the tile by this function's contract.
    unsafe {
        let mut acc = [[S::splat(0.0); N]; R];
        let (mut body, mut head) = (0, 0);
        let (mut q, mut scale) = (tile.q.as_ptr().add(at * BLOCK), tile.scale.as_ptr().add(at));
        let (mut sums, mut scaled) = (tile.negated_sums.as_ptr().add(at), tile.scaled_sums.as_ptr().add(at));
        for block in 0..n_blocks {
            let first_group = block % H::BLOCKS * P::GROUPS;
            for Vector { weights, lane, .. } in vectors {
                let next = weights.wrapping_add(body + ahead);
                if lane == 0 && N <= FEW && first_line < end_line {
                    // All of them: few columns are one block.
                    (0..lines::<P>()).for_each(|line| prefetch(next.wrapping_add(line * LINE)));
                } else if lane == 0 && N > FEW {
                    (first_line..end_line).for_each(|line| prefetch(next.wrapping_add(line * LINE)));
                }
            }
            for g in 0..P::GROUPS {
                let mut products = [[S::begin(); N]; R];
                for half in if P::HALVES { g..g + 1 } else { 0..2 } {
                    let mut w = [P::pieces::<S>(vectors[0].weights.add(body), half, vectors[0].lane); R];
                    for r in 1..R {
                        w[r] = P::pieces::<S>(vectors[r].weights.add(body), half, vectors[r].lane);
                    }
                    S::dots(&mut products, w, q.add(BLOCK / 2 * half), P::BITS);
                }
                for r in 0..R {
                    let (head, lane) = (vectors[r].heads.add(head), vectors[r].lane);
                    let w_scale = H::scale::<S>(head, first_group + g, lane);
                    for n in 0..N {
                        let start =
                            if shift > 0 { S::splat_i32(sums.add(n), shift - SUMS_SHIFT) } else { S::zero_i32() };
                        let scale = S::mul(w_scale, S::splat(*scale.add(n)));
                        acc[r][n] = S::fma(S::to_f32(S::end(products[r][n], start, P::BITS)), scale, acc[r][n]);
                    }
                    if H::OFFSETS {
                        let offset = H::offset::<S>(head, first_group + g, lane);
                        for n in 0..N {
                            acc[r][n] = S::fma(offset, S::splat(*scaled.add(n)), acc[r][n]);
                        }
                    }
                }
                (sums, scaled) = (sums.add(width), scaled.add(width));
            }
            (q, scale) = (q.add(width * BLOCK), scale.add(width));
            body += P::BODY;
            if (block + 1) % P::Head::BLOCKS == 0 {
                body += P::Head::BYTES;
            }
            if (block + 1) % H::BLOCKS == 0 {
                head += head_stride;
            }
        }
        for r in 0..R {
            for n in 0..N {
                S::store(acc[r][n], vectors[r].out.add(n * ROWS));
            }
        }
    }
}
