//! Products of small dense matrices.

/// A product of two matrices: `out[m, n] = a[m, k] · b[n, k]ᵀ`, all row-major, called with `a`, `b`, `k` and `out`.
///
/// Muon spends its time here, so a faster one than [`plain_product`] can be passed in. Bits are then that one's.
pub type Product = dyn Fn(&[f32], &[f32], usize, &mut [f32]) + Send + Sync;

/// Chains that a product's terms are added in: term i goes to chain i mod 4.
const LANES: usize = 4;
/// Rows of `a` and of `b` that are multiplied together, so that what is loaded is used more than once.
const TILE_ROWS: usize = 4;
const TILE_COLUMNS: usize = 2;

/// The plain [`Product`], in one thread: every output is a sum of products over four chains, folded in halves, so that
/// it depends on its two rows alone.
pub fn plain_product(a: &[f32], b: &[f32], k: usize, out: &mut [f32]) {
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
