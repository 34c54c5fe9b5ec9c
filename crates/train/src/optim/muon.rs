//! Muon: momentum whose matrices are made nearly orthogonal. <https://kellerjordan.github.io/posts/muon/>; with the scale
//! of <https://arxiv.org/abs/2502.16982> it takes AdamW's learning rate and weight decay.

use super::piece::Piece;
use super::product::{Product, Right, mirror, transpose};
use super::rules::{Matrices, Side};

/// Coefficients of the Newton–Schulz polynomial `a·x + b·x³ + c·x⁵`, which drives singular values to about 1.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// How often it is applied.
const N_ITERATIONS: usize = 5;
/// Smallest norm that a matrix is divided by.
const EPS: f32 = 1e-7;

/// What Muon is set to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Muon {
    /// Learning rate at the schedule's peak.
    pub lr: f64,
    /// Decay of the momentum, which is Nesterov's.
    pub momentum: f64,
    /// Share of a weight, times the learning rate, that a step takes from it.
    pub weight_decay: f64,
    /// How a step grows with the matrix.
    pub scale: Scale,
}

/// How a step of Muon grows with a matrix that maps `n_in` numbers to `n_out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// √max(1, n_out / n_in), as first published.
    Shape,
    /// 0.2·√max(n_out, n_in): steps are as large as AdamW's (arXiv 2502.16982, section 2.2).
    AdamW,
}

impl Scale {
    /// The factor of a matrix's step.
    fn factor(self, n_out: usize, n_in: usize) -> f64 {
        // Axes are far below 2⁵³.
        let (n_out, n_in) = (n_out as f64, n_in as f64);
        match self {
            Self::Shape => (n_out / n_in).max(1.0).sqrt(),
            Self::AdamW => 0.2 * n_out.max(n_in).sqrt(),
        }
    }
}

/// One step's numbers, the same for all matrices of a parameter.
#[derive(Clone, Copy)]
pub(crate) struct MuonStep<'a> {
    kept: f32,
    rate: f32,
    /// Share of a new gradient in the momentum.
    share: f32,
    clip: f32,
    matrices: Matrices,
    product: &'a Product,
}

impl Muon {
    /// The numbers of a step at `factor` of the peak, for a parameter of such `matrices`.
    pub(crate) fn at<'a>(&self, factor: f64, clip: f32, matrices: Matrices, product: &'a Product) -> MuonStep<'a> {
        let lr = self.lr * factor;
        let (rows, columns) = (matrices.rows, matrices.columns / matrices.parts);
        let (n_out, n_in) = match matrices.rows_are {
            Side::Outputs => (rows, columns),
            Side::Inputs => (columns, rows),
        };
        MuonStep {
            kept: (1.0 - lr * self.weight_decay) as f32,
            rate: (lr * self.scale.factor(n_out, n_in)) as f32,
            share: (1.0 - self.momentum) as f32,
            clip,
            matrices,
            product,
        }
    }
}

impl MuonStep<'_> {
    /// Updates the values and the momentum of one matrix.
    pub(crate) fn apply(&self, piece: &mut Piece<'_>) {
        let [momenta, _] = &mut piece.moments;
        // Both averages as `torch.lerp` forms them: from the nearer end.
        let mut update: Vec<f32> = momenta
            .iter_mut()
            .zip(piece.gradient)
            .map(|(momentum, gradient)| {
                let gradient = gradient * self.clip;
                *momentum += self.share * (gradient - *momentum);
                *momentum - self.share * (*momentum - gradient)
            })
            .collect();
        let Matrices { rows, columns, parts, .. } = self.matrices;
        let width = columns / parts;
        for part in 0..parts {
            let gathered = update.chunks(columns).flat_map(|row| &row[part * width..][..width]).copied().collect();
            let orthogonal = orthogonalize(gathered, rows, self.product);
            for (row, orthogonal) in update.chunks_mut(columns).zip(orthogonal.chunks(width)) {
                row[part * width..][..width].copy_from_slice(orthogonal);
            }
        }
        for (value, update) in piece.values.iter_mut().zip(&update) {
            *value = *value * self.kept - self.rate * update;
        }
    }
}

/// The matrix of `rows` rows with the same singular vectors and singular values near 1 (0.7 to 1.2 where they were not
/// tiny beside the others).
pub(crate) fn orthogonalize(matrix: Vec<f32>, rows: usize, product: &Product) -> Vec<f32> {
    let columns = matrix.len() / rows;
    if rows > columns {
        return transpose(&orthogonalize_wide(transpose(&matrix, columns), columns, product), rows);
    }
    orthogonalize_wide(matrix, rows, product)
}

/// [`orthogonalize`] where there are no more rows than columns, so that the Gram matrix is the small one.
fn orthogonalize_wide(mut x: Vec<f32>, rows: usize, product: &Product) -> Vec<f32> {
    let columns = x.len() / rows;
    let [a, b, c] = COEFFICIENTS;
    let norm = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
    let norm = norm.max(EPS);
    x.iter_mut().for_each(|x| *x /= norm);
    let (mut gram, mut square) = (vec![0.0; rows * rows], vec![0.0; rows * rows]);
    let mut turned = vec![0.0; x.len()];
    for _ in 0..N_ITERATIONS {
        gram_matrix(&x, columns, product, &mut gram);
        // The Gram matrix is its own transpose, so this is its square, and it stands for either factor.
        gram_matrix(&gram, rows, product, &mut square);
        for (gram, square) in gram.iter_mut().zip(&square) {
            *gram = b * *gram + c * square;
        }
        product(&gram, Right::Plain(&x), rows, &mut turned);
        for (x, turned) in x.iter_mut().zip(&turned) {
            *x = a * *x + turned;
        }
    }
    x
}

/// Rows whose products with each other and with all later rows are made together.
const BAND: usize = 64;

/// The products of the rows of `x`, each `columns` long, with each other. That of two rows is the same in either order, to
/// the bit, so only one of the two is computed.
fn gram_matrix(x: &[f32], columns: usize, product: &Product, out: &mut [f32]) {
    let rows = x.len() / columns;
    let mut band = vec![0.0; BAND.min(rows) * rows];
    for first in (0..rows).step_by(BAND) {
        let (n, width) = (BAND.min(rows - first), rows - first);
        let later = &x[first * columns..];
        let band = &mut band[..n * width];
        product(&later[..n * columns], Right::Turned(later), columns, band);
        for (i, products) in (first..).zip(band.chunks_exact(width)) {
            out[i * rows + first..(i + 1) * rows].copy_from_slice(products);
        }
    }
    mirror(out, rows);
}
