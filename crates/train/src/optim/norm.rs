//! The norm of all gradients together.

use super::piece::PIECE_LEN;
use super::threads::Threads;

/// Chains of a piece's sum.
const LANES: usize = 8;

/// The Euclidean norm of all values of `gradients`: not finite exactly if one of them is not.
///
/// Squares are added in f64: within pieces of 65,536 over eight chains, then piece after piece in the order given. A
/// square of an f32 and their sum never overflow an f64.
pub fn global_norm(gradients: &[&[f32]], threads: Threads) -> f64 {
    let pieces: Vec<&[f32]> = gradients.iter().flat_map(|gradient| gradient.chunks(PIECE_LEN)).collect();
    let mut sums = vec![0.0f64; pieces.len()];
    threads.for_each(pieces.into_iter().zip(&mut sums).collect(), |(piece, sum)| *sum = sum_squares(piece));
    sums.iter().sum::<f64>().sqrt()
}

fn sum_squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] += f64::from(block[lane]) * f64::from(block[lane]);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*value) * f64::from(*value);
    }
    lanes.iter().sum()
}
