//! `Cpu::product` equals its definition to the bit: each instruction set of this machine, 1 and 2 threads, all strides.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail like tests

use std::num::NonZeroUsize;

use cpu::{Cpu, CpuOptions, Isa, Precision, Product, Strided, Write};
use tensor::{DENSE_BLOCK, Device, OpError, WeightSource};

/// Zero, one, primes, powers of two and their neighbours; two go beyond a block of rows and one of inputs.
const SIZES: [[usize; 3]; 20] = [
    [0, 3, 4],
    [3, 0, 4],
    [3, 4, 0],
    [1, 1, 1],
    [1, 17, 31],
    [2, 16, 16],
    [3, 15, 17],
    [5, 33, 7],
    [6, 64, 64],
    [7, 63, 65],
    [8, 1, 129],
    [11, 13, 127],
    [12, 32, 128],
    [13, 65, 63],
    [31, 17, 257],
    [64, 5, 300],
    [65, 31, 33],
    [127, 16, 15],
    [241, 67, 19],
    [251, 129, 261],
];

/// A matrix in memory whose strides are what they are.
struct Matrix {
    values: Vec<f32>,
    row: usize,
    column: usize,
}

impl Matrix {
    /// `[rows, columns]`, in the `layout`-th of the ways in which it can lie.
    fn new(seed: u64, rows: usize, columns: usize, layout: usize) -> Self {
        let (row, column) =
            [(columns, 1), (1, rows), (columns + 3, 1), (1, rows + 5), (2 * columns, 2), (3, 3 * rows)][layout];
        let len = if rows * columns == 0 { 0 } else { (rows - 1) * row + (columns - 1) * column + 1 };
        Self { values: values(seed, len), row, column }
    }

    fn strided(&self) -> Strided<'_> {
        Strided { values: &self.values, row: self.row, column: self.column }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.row + column * self.column]
    }
}

const LAYOUTS: usize = 6;

/// Numbers in −2…2 with zeros of both signs, large and tiny ones between, that depend on the seed alone.
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let value = |bits: u64| (bits >> 40) as f32 / (1 << 22) as f32 - 2.0;
    (0..len)
        .map(|_| match next() {
            bits if bits % 61 == 0 => -0.0,
            bits if bits % 67 == 0 => value(bits) * 1e6,
            bits if bits % 71 == 0 => value(bits) * 1e-30,
            bits => value(bits),
        })
        .collect()
}

/// The definition in bfloat16: chains of 16 even and of 16 odd inputs.
fn bf16_product(out: &mut [f32], [m, n, k]: [usize; 3], a: &Matrix, b: &Matrix, write: Write) {
    let round = |x: f32| half::bf16::from_f32(x).to_f32();
    for i in 0..m {
        for j in 0..n {
            let chain = |inputs: std::iter::StepBy<std::ops::Range<usize>>| {
                inputs.fold(0.0f32, |sum, c| round(a.at(i, c)).mul_add(round(b.at(j, c)), sum))
            };
            let block = |begin: usize| begin..k.min(begin + 32);
            let of_block = |begin: usize| {
                chain(block(begin).step_by(2)) + chain((begin + 1..block(begin).end.max(begin + 1)).step_by(2))
            };
            let sum = (0..k).step_by(32).fold(0.0f32, |sum, begin| sum + of_block(begin));
            let out = &mut out[i * n + j];
            *out = if write == Write::Add { *out + sum } else { sum };
        }
    }
}

/// The definition.
fn product(out: &mut [f32], [m, n, k]: [usize; 3], a: &Matrix, b: &Matrix, write: Write) {
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0.0f32;
            for begin in (0..k).step_by(DENSE_BLOCK) {
                let block = begin..k.min(begin + DENSE_BLOCK);
                sum += block.fold(0.0f32, |sum, c| a.at(i, c).mul_add(b.at(j, c), sum));
            }
            let out = &mut out[i * n + j];
            *out = if write == Write::Add { *out + sum } else { sum };
        }
    }
}

fn devices(precision: Precision) -> Vec<Cpu> {
    let mut devices = Vec::new();
    for isa in Isa::ALL {
        for threads in [1, 2] {
            let cpu = Cpu::new(CpuOptions { threads: NonZeroUsize::new(threads), isa: Some(*isa), precision });
            if cpu.isa() == *isa {
                devices.push(cpu);
            }
        }
    }
    devices
}

fn assert_same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len());
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.to_bits(), want.to_bits(), "{what}, number {at}: {got} {want}");
    }
}

#[test]
fn a_product_has_the_bits_of_its_definition_wherever_its_operands_lie() {
    has_the_bits_of(product, Precision::F32);
}

#[test]
fn in_bfloat16_too() {
    has_the_bits_of(bf16_product, Precision::Bf16);
}

/// Weights are packed once and rows for each step, by other code than operands of a product.
#[test]
fn linear_in_bfloat16_has_the_same_bits() {
    let devices = devices(Precision::Bf16);
    for (i, [m, n, k]) in SIZES.into_iter().filter(|[m, n, k]| m * n * k > 0).enumerate() {
        let (a, b) = (Matrix::new(i as u64 + 1, m, k, 0), Matrix::new(i as u64 + 100, n, k, 0));
        let mut want = vec![0.0; m * n];
        bf16_product(&mut want, [m, n, k], &a, &b, Write::Set);
        for cpu in &devices {
            let w = cpu.matrix(&[WeightSource::from_f32(&b.values, n, k).unwrap()]).unwrap();
            let y = cpu.linear(&w, None, &cpu.upload(&a.values, k).unwrap()).unwrap();
            assert_same(&cpu.download(&y), &want, &format!("{cpu:?} [{m}, {n}, {k}]"));
        }
    }
}

fn has_the_bits_of(product: fn(&mut [f32], [usize; 3], &Matrix, &Matrix, Write), precision: Precision) {
    let (devices, mut n_products) = (devices(precision), 0);
    for (size, shape) in SIZES.into_iter().enumerate() {
        let [m, n, k] = shape;
        let mut layouts = (0..LAYOUTS * LAYOUTS).map(|i| (i / LAYOUTS, i % LAYOUTS)).collect::<Vec<_>>();
        if m * n * k > 1 << 18 {
            // The definition takes too long for all of them.
            layouts.retain(|(a, b)| [(0, 0), (0, 1), (1, 1), (3, 4)].contains(&(*a, *b)));
        }
        for (of_a, of_b) in layouts {
            let (a, b) = (Matrix::new(size as u64 + 1, m, k, of_a), Matrix::new(size as u64 + 100, n, k, of_b));
            for write in [Write::Set, Write::Add] {
                let before = values(7, m * n);
                let mut want = before.clone();
                product(&mut want, shape, &a, &b, write);
                for cpu in &devices {
                    let mut got = before.clone();
                    cpu.product(&mut got, shape, a.strided(), b.strided(), write).unwrap();
                    assert_same(&got, &want, &format!("{cpu:?} {shape:?} {of_a} {of_b} {write:?}"));
                    n_products += 1;
                }
            }
        }
    }
    println!("{n_products} products on {} devices", devices.len());
    assert!(n_products > 1000);
}

#[test]
fn products_together_have_the_bits_of_each_alone() {
    let mut n_products = 0;
    // As rows come to experts: many to one, none to another.
    let shapes = [[130, 48, 96], [0, 48, 96], [1, 48, 96], [17, 48, 96], [6, 33, 1], [250, 16, 70]];
    let operands: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(i, [m, n, k])| {
            (Matrix::new(i as u64 + 1, *m, *k, i), Matrix::new(i as u64 + 50, *n, *k, (i + 1) % LAYOUTS))
        })
        .collect();
    let write = |i: usize| if i.is_multiple_of(2) { Write::Set } else { Write::Add };
    let before: Vec<Vec<f32>> = shapes.iter().map(|[m, n, _]| values(9, m * n)).collect();
    for cpu in devices(Precision::F32) {
        let mut outs = before.clone();
        let mut products: Vec<Product<'_>> = outs
            .iter_mut()
            .zip(shapes)
            .zip(&operands)
            .enumerate()
            .map(|(i, ((out, shape), (a, b)))| Product { out, shape, a: a.strided(), b: b.strided(), write: write(i) })
            .collect();
        cpu.products(&mut products).unwrap();
        for (i, ((got, shape), (a, b))) in outs.iter().zip(shapes).zip(&operands).enumerate() {
            let mut want = before[i].clone();
            product(&mut want, shape, a, b, write(i));
            assert_same(got, &want, &format!("{cpu:?} {shape:?}"));
            n_products += 1;
        }
        cpu.products(&mut []).unwrap();
    }
    println!("{n_products} products");
    assert!(n_products >= 12);
}

#[test]
fn a_product_refuses_what_does_not_fit_before_it_writes() {
    let cpu = Cpu::new(CpuOptions::default());
    let numbers = [1.0f32; 12];
    let fits = Strided { values: &numbers, row: 4, column: 1 };
    let short = Strided { values: &numbers[..11], ..fits };
    let far = Strided { row: usize::MAX, ..fits };
    let cases = [
        ([3, 3, 4], 9, short, fits),
        ([3, 3, 4], 9, fits, short),
        ([3, 3, 4], 9, far, fits),
        ([3, 3, 4], 8, fits, fits),
        ([3, 3, 4], 10, fits, fits),
        ([3, 3, 5], 9, fits, fits),
        ([usize::MAX, 2, 0], 0, fits, fits),
        ([0, usize::MAX, 2], 0, fits, fits),
        ([usize::MAX, 1, usize::MAX], 0, fits, fits),
    ];
    for (shape, len, a, b) in cases {
        let (mut first, mut second) = (vec![7.0; 9], vec![7.0; len]);
        let error = cpu
            .products(&mut [
                Product { out: &mut first, shape: [3, 3, 4], a: fits, b: fits, write: Write::Set },
                Product { out: &mut second, shape, a, b, write: Write::Set },
            ])
            .unwrap_err();
        assert!(matches!(error, OpError::Shape { op: "product", .. }), "{error}");
        assert!(first.iter().chain(&second).all(|value| *value == 7.0), "{shape:?}");
    }
    println!("{} refusals", cases.len());
}
