//! Products of small dense matrices.

/// The right-hand side of a product over `k`, row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Right<'a> {
    /// `[k, n]`.
    Plain(&'a [f32]),
    /// `[n, k]`, whose transpose is multiplied with.
    Turned(&'a [f32]),
}

/// A product of two matrices: `out[m, n] = a[m, k] · b[k, n]`, all row-major, called with `a`, `b`, `k` and `out`.
///
/// Muon spends its time here, so a faster one than [`plain_product`] can be passed in. Bits are then that one's.
pub type Product = dyn Fn(&[f32], Right<'_>, usize, &mut [f32]) + Send + Sync;

/// Chains that a product's terms are added in: term i goes to chain i mod 4.
const LANES: usize = 4;
/// Rows of `a` and of `b` that are multiplied together, so that what is loaded is used more than once.
const TILE_ROWS: usize = 4;
const TILE_COLUMNS: usize = 2;

/// The plain [`Product`], in one thread: every output is a sum of products over four chains, folded in halves, so that
/// it depends on its two rows alone.
pub fn plain_product(a: &[f32], b: Right<'_>, k: usize, out: &mut [f32]) {
    match b {
        Right::Plain(b) => product_of_rows(a, &transpose(b, b.len() / k.max(1)), k, out),
        Right::Turned(b) => product_of_rows(a, b, k, out),
    }
}

fn product_of_rows(a: &[f32], b: &[f32], k: usize, out: &mut [f32]) {
    assert!(k > 0 && a.len().is_multiple_of(k) && b.len().is_multiple_of(k), "a matrix is not made of rows of {k}");
    let n = b.len() / k;
    assert_eq!(out.len(), a.len() / k * n, "the product's size");
    for (a, out) in a.chunks(TILE_ROWS * k).zip(out.chunks_mut((TILE_ROWS * n).max(1))) {
        for (b, column) in b.chunks(TILE_COLUMNS * k).zip((0..n).step_by(TILE_COLUMNS)) {
            if a.len() == TILE_ROWS * k && b.len() == TILE_COLUMNS * k {
                let sums = tile::<TILE_ROWS, TILE_COLUMNS>(a, b, k);
                for (row, sums) in sums.iter().enumerate() {
                    out[row * n + column..][..TILE_COLUMNS].copy_from_slice(sums);
                }
                continue;
            }
            for (row, a) in a.chunks(k).enumerate() {
                for (i, b) in b.chunks(k).enumerate() {
                    out[row * n + column + i] = tile::<1, 1>(a, b, k)[0][0];
                }
            }
        }
    }
}

/// The products of `R` rows of `a` with `C` rows of `b`.
fn tile<const R: usize, const C: usize>(a: &[f32], b: &[f32], k: usize) -> [[f32; C]; R] {
    let a: [&[f32]; R] = std::array::from_fn(|row| &a[row * k..][..k]);
    let b: [&[f32]; C] = std::array::from_fn(|row| &b[row * k..][..k]);
    let (a_blocks, a_rest) = (a.map(|row| row.as_chunks::<LANES>().0), a.map(|row| row.as_chunks::<LANES>().1));
    let (b_blocks, b_rest) = (b.map(|row| row.as_chunks::<LANES>().0), b.map(|row| row.as_chunks::<LANES>().1));
    let mut sums = [[[0.0f32; LANES]; C]; R];
    for block in 0..k / LANES {
        for row in 0..R {
            for column in 0..C {
                for lane in 0..LANES {
                    sums[row][column][lane] += a_blocks[row][block][lane] * b_blocks[column][block][lane];
                }
            }
        }
    }
    for row in 0..R {
        for column in 0..C {
            for (lane, (a, b)) in a_rest[row].iter().zip(b_rest[column]).enumerate() {
                sums[row][column][lane] += a * b;
            }
        }
    }
    sums.map(|row| row.map(|[s0, s1, s2, s3]| (s0 + s2) + (s1 + s3)))
}

/// Rows and columns that [`transpose`] and [`mirror`] turn together, so that both sides stay in the cache.
const BLOCK: usize = 16;

/// The transpose of a matrix with rows of `columns`.
pub(crate) fn transpose(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len().checked_div(columns).unwrap_or(0);
    let mut out = vec![0.0; matrix.len()];
    for row_begin in (0..rows).step_by(BLOCK) {
        for column_begin in (0..columns).step_by(BLOCK) {
            for row in row_begin..rows.min(row_begin + BLOCK) {
                for column in column_begin..columns.min(column_begin + BLOCK) {
                    out[column * rows + row] = matrix[row * columns + column];
                }
            }
        }
    }
    out
}

/// Writes what stands above the diagonal below it too.
pub(crate) fn mirror(matrix: &mut [f32], rows: usize) {
    for row_begin in (0..rows).step_by(BLOCK) {
        for column_begin in (row_begin..rows).step_by(BLOCK) {
            for row in row_begin..rows.min(row_begin + BLOCK) {
                for column in column_begin.max(row + 1)..rows.min(column_begin + BLOCK) {
                    matrix[column * rows + row] = matrix[row * rows + column];
                }
            }
        }
    }
}
