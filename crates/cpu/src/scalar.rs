//! The kernels for every machine.

use tensor::Pairing;

use crate::column::Column;
use crate::kernels::{Dense, HeadGroup, Integers, Kernels, Lanes, Quantised, ROWS, Scales, shared_kernels};

/// Kernels in the target's basic instructions.
pub(crate) struct Scalar;

impl Kernels for Scalar {
    shared_kernels! {}

    fn dot_quantised(&self, layout: Quantised, weights: &[u8], x: &[Column], acc: &mut [Lanes]) {
        layout.check(weights, x, acc);
        acc.fill([0.0; ROWS]);
        let mut integers = [[0i8; 4]; ROWS * 8];
        let integers = &mut integers[..ROWS * layout.group / 4];
        for (g, group) in weights.chunks_exact(layout.group_bytes()).enumerate() {
            let (head, body) = group.split_at(layout.head_bytes());
            decode(layout.integers, body, integers);
            let (scales, offsets) = head.split_at(ROWS * layout.scales.bytes());
            let (scale, offset) = (widen(layout.scales, scales), widen(layout.scales, offsets));
            for (column, acc) in x.iter().zip(acc.iter_mut()) {
                let column = column.view(layout.group);
                let sums = dot(integers, &column.q[g * layout.group..(g + 1) * layout.group]);
                let x_scale = column.scale[g * layout.group / 32];
                for lane in 0..ROWS {
                    acc[lane] = (sums[lane] as f32).mul_add(scale[lane] * x_scale, acc[lane]);
                    if layout.offsets {
                        acc[lane] = offset[lane].mul_add(column.scaled_sums[g], acc[lane]);
                    }
                }
            }
        }
    }
}

/// Writes a group's integers, piece after piece.
fn decode(integers: Integers, body: &[u8], out: &mut [[i8; 4]]) {
    match integers {
        Integers::Bytes => {
            for (out, raw) in out.iter_mut().zip(body.as_chunks::<4>().0) {
                *out = raw.map(u8::cast_signed);
            }
        }
        Integers::Nibbles { bias } => {
            let pieces = out.as_chunks_mut::<{ 2 * ROWS }>().0.iter_mut();
            for (pair, raw) in pieces.zip(body.as_chunks::<{ 4 * ROWS }>().0) {
                for (row, raw) in raw.as_chunks::<4>().0.iter().enumerate() {
                    pair[row] = raw.map(|byte| (i32::from(byte & 15) + bias) as i8);
                    pair[ROWS + row] = raw.map(|byte| (i32::from(byte >> 4) + bias) as i8);
                }
            }
        }
    }
}

/// Reads one number for each row; zeros where there are none.
fn widen(scales: Scales, raw: &[u8]) -> Lanes {
    let mut lanes = [0.0; ROWS];
    match scales {
        Scales::F16 => {
            for (lane, raw) in lanes.iter_mut().zip(raw.as_chunks::<2>().0) {
                *lane = half::f16::from_le_bytes(*raw).to_f32();
            }
        }
        Scales::F32 => {
            for (lane, raw) in lanes.iter_mut().zip(raw.as_chunks::<4>().0) {
                *lane = f32::from_le_bytes(*raw);
            }
        }
    }
    lanes
}

/// The exact dot products of a group's rows with `x`.
fn dot(integers: &[[i8; 4]], x: &[i8]) -> [i32; ROWS] {
    let mut sums = [0i32; ROWS];
    for (piece, x) in integers.as_chunks::<ROWS>().0.iter().zip(x.as_chunks::<4>().0) {
        for (sum, w) in sums.iter_mut().zip(piece) {
            for (w, x) in w.iter().zip(x) {
                *sum += i32::from(*w) * i32::from(*x);
            }
        }
    }
    sums
}
