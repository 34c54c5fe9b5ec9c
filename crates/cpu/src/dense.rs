//! Dot products of unquantised weights.
//!
//! The order is the canonical one: every [`DENSE_BLOCK`] inputs in one chain of fused multiply-adds from 0, and the
//! chains' sums one after another from 0.
//!
//! Rows lie in tiles: input 0 of each of a tile's rows, then input 1 of each, and so on. All sums of a row group and a
//! tile are in registers together, which is as many chains as multiply-adds take to finish.

use std::marker::PhantomData;
use std::ops::Range;

use tensor::DENSE_BLOCK;

use crate::aligned::LINE;
use crate::kernels::{Dense, Lanes, ROWS, RowGroups};
use crate::linear::DENSE_ROWS;
use crate::simd::{Simd, Work, prefetch};

/// Inputs whose weights stay in the first cache while many tiles go through them.
const CHUNK: usize = 256;
/// How far ahead of few rows' products weights are asked for, in bytes.
const PREFETCH: usize = 2048;
/// Inputs whose code stands side by side.
const UNROLLED: usize = 4;

const _: () = assert!(CHUNK.is_multiple_of(DENSE_BLOCK) && DENSE_BLOCK.is_multiple_of(UNROLLED));

/// As many inputs of as many rows.
#[repr(align(64))]
struct Square([Lanes; ROWS]);

/// Lays rows, each times its factor, side by side into `tile`: input 0 of each, then input 1 of each, in steps of `width`.
/// Where there are fewer rows than that, zeros follow.
///
/// # Safety
/// Needs the instructions of `S`.
///
/// # Panics
/// If a row has not an input for each `width` of the tile, or there are more rows than [`ROWS`] or `width`.
#[inline(always)]
pub(crate) unsafe fn interleave<S: Simd>(rows: &[(&[f32], f32)], width: usize, tile: &mut [f32]) {
    let n_in = tile.len() / width.max(1);
    assert!(rows.len() <= width && width <= ROWS && tile.len() == n_in * width, "a tile");
    let mut square = Square([[0.0; ROWS]; ROWS]);
    for begin in (0..n_in).step_by(ROWS) {
        let len = ROWS.min(n_in - begin);
        for (out, (row, factor)) in square.0.iter_mut().zip(rows) {
            match row[begin..].first_chunk::<ROWS>() {
                // By hand: the compiler makes sixteen numbers of it, which are slow to be read as vectors.
                Some(row) => {
                    for lane in (0..ROWS).step_by(S::LANES) {
                        // SAFETY: the caller's; a vector of each has LANES of its ROWS numbers.
                        unsafe {
                            let x = S::mul(S::load(row.as_ptr().add(lane)), S::splat(*factor));
                            S::store(x, out.as_mut_ptr().add(lane));
                        }
                    }
                }
                None => out.iter_mut().zip(&row[begin..begin + len]).for_each(|(out, x)| *out = x * factor),
            }
        }
        square.0[rows.len()..].fill([0.0; ROWS]);
        // SAFETY: the caller's.
        unsafe { S::turn(&mut square.0) }
        for (lanes, i) in square.0[..len].iter().zip(begin..) {
            // Whole vectors: what is too much of one is written over by the next.
            match tile[i * width..].first_chunk_mut::<ROWS>() {
                Some(out) => *out = *lanes,
                None => tile[i * width..(i + 1) * width].copy_from_slice(&lanes[..width]),
            }
        }
    }
}

/// Rows of a tile.
///
/// # Safety
/// Needs nothing.
#[inline(always)]
pub(crate) unsafe fn dense_columns<S: Simd>() -> usize {
    const { assert!(DENSE_ROWS.is_multiple_of(S::DENSE_COLUMNS), "blocks of rows are whole tiles") };
    S::DENSE_COLUMNS
}

/// The products of every row group with every row of `x`: `out` is `[n_groups][width]`.
///
/// `x` is `width` rows in tiles of [`Simd::DENSE_COLUMNS`], of which the last may be narrower.
///
/// # Safety
/// Needs the instructions of `S`.
///
/// # Panics
/// If the lengths do not fit.
#[inline(always)]
pub(crate) unsafe fn dot_dense<S: Simd>(format: Dense, weights: RowGroups<'_>, x: &[f32], out: &mut [Lanes]) {
    let n_in = weights.group_bytes() / (ROWS * format.bytes());
    let width = out.len().checked_div(weights.len()).unwrap_or(0);
    assert_eq!(weights.group_bytes(), n_in * ROWS * format.bytes(), "a row group's bytes");
    assert_eq!((out.len(), x.len()), (weights.len() * width, width * n_in), "rows");
    out.fill([0.0; ROWS]);
    let products = Products { weights, n_in, x, width };
    // SAFETY: the groups, `x` and `out` were checked.
    unsafe {
        match format {
            Dense::F32 if width <= S::DENSE_COLUMNS => products.at_once::<S, Singles>(out),
            Dense::F32 => products.in_chunks::<S, Singles>(out),
            Dense::F16 if width <= S::DENSE_COLUMNS => products.at_once::<S, Halves>(out),
            Dense::F16 => products.in_chunks::<S, Halves>(out),
            Dense::BF16 if width <= S::DENSE_COLUMNS => products.at_once::<S, Brains>(out),
            Dense::BF16 => products.in_chunks::<S, Brains>(out),
        }
    }
}

/// A format of unquantised weights.
trait Stored {
    /// Bytes of a number.
    const BYTES: usize;

    /// One number for each lane.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn load<S: Simd>(w: *const u8) -> S::F32;
}

struct Singles;
struct Halves;
struct Brains;

impl Stored for Singles {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(w: *const u8) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load(w.cast()) }
    }
}

impl Stored for Halves {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(w: *const u8) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load_f16(w) }
    }
}

impl Stored for Brains {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(w: *const u8) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load_bf16(w) }
    }
}

/// Row groups and the rows that they multiply.
#[derive(Clone, Copy)]
struct Products<'a> {
    weights: RowGroups<'a>,
    n_in: usize,
    x: &'a [f32],
    width: usize,
}

/// Weights of a row group as f32.
#[repr(align(64))]
struct Wide([Lanes; CHUNK]);

impl Products<'_> {
    /// All inputs of a row group for one tile, then the next group.
    #[inline(always)]
    unsafe fn at_once<S: Simd, F: Stored>(self, out: &mut [Lanes]) {
        for (i, out) in out.chunks_exact_mut(self.width).enumerate() {
            // SAFETY: all offsets stay inside of the group and the rows.
            unsafe { self.tile::<S, F, 1>([self.weights.group(i).as_ptr()], 0, 0..self.n_in, [out]) }
        }
    }

    /// Some inputs of a row group, or of two, for all tiles, then the next groups, then more inputs.
    #[inline(always)]
    unsafe fn in_chunks<S: Simd, F: Stored>(self, out: &mut [Lanes]) {
        let mut wide = [const { Wide([[0.0; ROWS]; CHUNK]) }; 2];
        for begin in (0..self.n_in).step_by(CHUNK) {
            let inputs = begin..self.n_in.min(begin + CHUNK);
            let mut group = 0;
            for out in out.chunks_mut(self.width * if S::LANES == ROWS { 2 } else { 1 }) {
                let (first, second) = out.split_at_mut(self.width);
                // SAFETY: the groups are there.
                unsafe {
                    // Two row groups share what is read of the rows, where a vector holds all outputs of one.
                    group += match second.is_empty() {
                        true => self.chunk::<S, F, 1>(group, inputs.clone(), &mut wide, [first]),
                        false => self.chunk::<S, F, 2>(group, inputs.clone(), &mut wide, [first, second]),
                    };
                }
            }
        }
    }

    /// `inputs` of `G` row groups from `first` on for all tiles; returns `G`.
    #[inline(always)]
    unsafe fn chunk<S: Simd, F: Stored, const G: usize>(
        self,
        first: usize,
        inputs: Range<usize>,
        wide: &mut [Wide; 2],
        mut out: [&mut [Lanes]; G],
    ) -> usize {
        let Self { weights, width, .. } = self;
        let at = |group: usize| weights.group(group)[inputs.start * ROWS * F::BYTES..].as_ptr();
        // The next groups' weights come from memory while these are multiplied.
        let n_lines = (CHUNK * ROWS * F::BYTES / LINE).div_ceil(width.div_ceil(S::DENSE_COLUMNS).max(1));
        let next: [*const u8; G] = std::array::from_fn(|g| match first + G + g {
            group if group < weights.len() => at(group),
            group => at(group - weights.len().min(group)).wrapping_add(CHUNK * ROWS * F::BYTES),
        });
        // SAFETY: all offsets stay inside of the groups and the rows.
        unsafe {
            let mut groups: [*const u8; G] = std::array::from_fn(|g| at(first + g));
            if F::BYTES != Singles::BYTES {
                for (group, wide) in groups.iter_mut().zip(wide) {
                    widen::<S, F>(*group, &mut wide.0[..inputs.len()]);
                    *group = wide.0.as_ptr().cast();
                }
            }
            for (tile, row) in (0..width).step_by(S::DENSE_COLUMNS).enumerate() {
                for line in tile * n_lines..(tile + 1) * n_lines {
                    for next in next {
                        prefetch(next.wrapping_add(line * LINE));
                    }
                }
                let rows = row..width.min(row + S::DENSE_COLUMNS);
                let mut parts = out.iter_mut().map(|out| &mut out[rows.clone()]);
                let out: [&mut [Lanes]; G] = std::array::from_fn(|_| parts.next().unwrap_or_default());
                self.tile::<S, Singles, G>(groups, row, inputs.clone(), out);
            }
        }
        G
    }

    /// Adds row groups' products with the tile from row `first` on, of the inputs that `weights` begin with.
    #[inline(always)]
    unsafe fn tile<S: Simd, F: Stored, const G: usize>(
        self,
        weights: [*const u8; G],
        first: usize,
        inputs: Range<usize>,
        mut out: [&mut [Lanes]; G],
    ) {
        let stride = out[0].len();
        // SAFETY: the tile begins where its first row would, and each of its inputs is `stride` numbers.
        let x = unsafe { self.x.as_ptr().add(first * self.n_in + inputs.start * stride) };
        let mut done = 0;
        while done < stride {
            // Tiles are too far apart for the processor to foresee the next one, which may be the first one again.
            let next = if first + stride < self.width {
                x.wrapping_add(stride * self.n_in)
            } else {
                self.x.as_ptr().wrapping_add(inputs.start * S::DENSE_COLUMNS)
            };
            let x = x.wrapping_add(done);
            let mut places = out.iter_mut().map(|out| out[done..].as_mut_ptr());
            let out: [*mut Lanes; G] = std::array::from_fn(|_| places.next().unwrap_or(std::ptr::null_mut()));
            macro_rules! columns {
                ($n:literal) => {{
                    // SAFETY: `x` has `inputs` inputs of `$n` columns, and each `out` has these columns.
                    unsafe {
                        let n = inputs.len();
                        S::call(Columns::<S, F, $n, G> { weights, x, next, stride, n, out, set: PhantomData })
                    };
                    $n
                }};
            }
            done += match stride - done {
                1 => columns!(1),
                2 => columns!(2),
                3 => columns!(3),
                12.. if S::DENSE_COLUMNS > 4 && G == 1 => columns!(12),
                6.. if S::DENSE_COLUMNS > 4 => columns!(6),
                _ => columns!(4),
            };
        }
    }
}

/// Weights as f32.
#[inline(always)]
unsafe fn widen<S: Simd, F: Stored>(weights: *const u8, wide: &mut [Lanes]) {
    for (k, wide) in wide.iter_mut().enumerate() {
        for row in (0..ROWS).step_by(S::LANES) {
            // SAFETY: the caller's, whose weights are as many as `wide`.
            unsafe { S::store(F::load::<S>(weights.add((k * ROWS + row) * F::BYTES)), wide.as_mut_ptr().add(row)) };
        }
    }
}

/// Products of `G` row groups, one where a vector is shorter than a group, with `N` columns of a tile, added to `out`.
struct Columns<S, F, const N: usize, const G: usize> {
    /// `[n][ROWS]` each.
    weights: [*const u8; G],
    /// The columns' first input; the next one is `stride` further.
    x: *const f32,
    /// What is read after `x`.
    next: *const f32,
    stride: usize,
    n: usize,
    /// `N` each.
    out: [*mut Lanes; G],
    set: PhantomData<(S, F)>,
}

impl<S: Simd, F: Stored, const N: usize, const G: usize> Work for Columns<S, F, N, G> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: passes on the caller's contract.
        unsafe {
            match ROWS / S::LANES {
                1 => self.rows::<G>(),
                2 => self.rows::<2>(),
                _ => self.rows::<4>(),
            }
        }
    }
}

impl<S: Simd, F: Stored, const N: usize, const G: usize> Columns<S, F, N, G> {
    /// With `R` vectors of rows at a time.
    ///
    /// As many of the totals as the registers have room for stay there: a processor without AVX-512 is slowed down by
    /// more than a few stores in a row, which twelve sums beside twelve totals would need.
    #[inline(always)]
    unsafe fn rows<const R: usize>(self) {
        let whole = self.n - self.n % DENSE_BLOCK;
        for row in (0..ROWS).step_by(R * S::LANES) {
            // SAFETY: `n` inputs and `N` outputs are there.
            unsafe {
                let out = |n: usize, r: usize| {
                    let (group, lane) = Self::place(row, r);
                    self.out[group].cast::<f32>().add(n * ROWS + lane)
                };
                let mut totals = [[S::splat(0.0); R]; N];
                for n in 0..N {
                    for r in 0..R {
                        totals[n][r] = S::load(out(n, r));
                    }
                }
                for begin in (0..whole).step_by(DENSE_BLOCK) {
                    let mut sums = [[S::splat(0.0); R]; N];
                    for k in (begin..begin + DENSE_BLOCK).step_by(UNROLLED) {
                        prefetch(self.next.wrapping_add(k * N).cast());
                        for k in k..k + UNROLLED {
                            self.input(row, k, &mut sums);
                        }
                    }
                    add::<S, R, N>(&mut totals, sums);
                }
                if whole < self.n {
                    let mut sums = [[S::splat(0.0); R]; N];
                    for k in whole..self.n {
                        self.input(row, k, &mut sums);
                    }
                    add::<S, R, N>(&mut totals, sums);
                }
                for n in 0..N {
                    for r in 0..R {
                        S::store(totals[n][r], out(n, r));
                    }
                }
            }
        }
    }

    /// The row group of vector `r` of those from `row` on, and its first lane there.
    #[inline(always)]
    fn place(row: usize, r: usize) -> (usize, usize) {
        if S::LANES == ROWS { (r, 0) } else { (0, row + r * S::LANES) }
    }

    /// Adds the products of input `k` to the chains.
    #[inline(always)]
    unsafe fn input<const R: usize>(&self, row: usize, k: usize, sums: &mut [[S::F32; R]; N]) {
        // SAFETY: the caller's, for all offsets.
        unsafe {
            let weights = |r: usize| {
                let (group, lane) = Self::place(row, r);
                self.weights[group].add((k * ROWS + lane) * F::BYTES)
            };
            if N <= 2 {
                prefetch(weights(0).wrapping_add(PREFETCH));
            }
            let mut w = [F::load::<S>(weights(0)); R];
            for r in 1..R {
                w[r] = F::load::<S>(weights(r));
            }
            let x = self.x.add(k * self.stride);
            for n in 0..N {
                let x = S::splat(*x.add(n));
                for r in 0..R {
                    sums[n][r] = S::fma(w[r], x, sums[n][r]);
                }
            }
        }
    }
}

/// Adds the chains' sums.
#[inline(always)]
unsafe fn add<S: Simd, const R: usize, const N: usize>(totals: &mut [[S::F32; R]; N], sums: [[S::F32; R]; N]) {
    for n in 0..N {
        for r in 0..R {
            // SAFETY: the caller has the instructions.
            totals[n][r] = unsafe { S::add(totals[n][r], sums[n][r]) };
        }
    }
}
