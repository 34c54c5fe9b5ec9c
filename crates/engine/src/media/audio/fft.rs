//! The discrete Fourier transform of 400 real numbers, for four frames at once.

use std::ops::{Add, Mul, Sub};

use super::math::{cos_pi, sin_pi};

/// Frames that are transformed side by side.
pub(super) const LANES: usize = 4;
/// Length of the transform.
pub(super) const LEN: usize = 400;
/// Different frequencies of a real signal.
pub(super) const BINS: usize = LEN / 2 + 1;
/// Length of the complex transform inside.
const HALF: usize = LEN / 2;

/// One number of each frame.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Lanes(pub [f64; LANES]);

impl Lanes {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Add for Lanes {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Lanes {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul for Lanes {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
}

impl Mul<f64> for Lanes {
    type Output = Self;
    #[inline(always)]
    fn mul(self, factor: f64) -> Self {
        Self(self.0.map(|a| a * factor))
    }
}

/// One complex number of each frame.
#[derive(Debug, Clone, Copy, Default)]
struct Complex {
    re: Lanes,
    im: Lanes,
}

impl Add for Complex {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Complex {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Complex {
    #[inline(always)]
    fn turned(self, [cos, sin]: [f64; 2]) -> Self {
        Self { re: self.re * cos - self.im * sin, im: self.re * sin + self.im * cos }
    }

    #[inline(always)]
    fn scaled(self, factor: f64) -> Self {
        Self { re: self.re * factor, im: self.im * factor }
    }

    /// Times −i.
    #[inline(always)]
    fn turned_back(self) -> Self {
        Self { re: self.im, im: Lanes::default() - self.re }
    }
}

/// Tables for the transform.
///
/// 200 complex numbers, even samples real and odd ones imaginary, go through steps of radix 4, 2, 5 and 5 that sort
/// themselves (Stockham's form); then the two halves are told apart.
#[derive(Debug)]
pub(super) struct Fft {
    /// exp(−2πik/400) as cosine and sine.
    roots: [[f64; 2]; LEN],
}

/// Where a transform works.
pub(super) struct Scratch([[Complex; HALF]; 2]);

impl Scratch {
    pub fn new() -> Box<Self> {
        Box::new(Self([[Complex::default(); HALF]; 2]))
    }
}

impl Fft {
    pub fn new() -> Self {
        let angle = |k: usize| k as f64 * 2.0 / LEN as f64;
        Self { roots: std::array::from_fn(|k| [cos_pi(angle(k)), -sin_pi(angle(k))]) }
    }

    /// The squared magnitudes of the transform of `x` go to `power`.
    pub fn power(&self, x: &[Lanes; LEN], scratch: &mut Scratch, power: &mut [Lanes; BINS]) {
        let [a, b] = &mut scratch.0;
        for (pair, z) in x.as_chunks::<2>().0.iter().zip(a.iter_mut()) {
            *z = Complex { re: pair[0], im: pair[1] };
        }
        self.step(a, b, 1, radix_4);
        self.step(b, a, 4, radix_2);
        self.step(a, b, 8, radix_5);
        self.step(b, a, 40, radix_5);
        for k in 0..BINS {
            let (z, mirrored) = (a[k % HALF], a[(HALF - k) % HALF]);
            let mirrored = Complex { re: mirrored.re, im: Lanes::default() - mirrored.im };
            let (even, odd) = ((z + mirrored).scaled(0.5), (z - mirrored).scaled(0.5).turned_back());
            let bin = even + odd.turned(self.roots[k]);
            power[k] = bin.re * bin.re + bin.im * bin.im;
        }
    }

    /// One step: `stride` transforms, each shorter by the factor R than before.
    #[inline(always)]
    fn step<const R: usize>(
        &self,
        from: &[Complex; HALF],
        to: &mut [Complex; HALF],
        stride: usize,
        butterfly: impl Fn([Complex; R]) -> [Complex; R],
    ) {
        let len = HALF / stride / R;
        for p in 0..len {
            for q in 0..stride {
                let parts = butterfly(std::array::from_fn(|k| from[q + stride * (p + k * len)]));
                for (j, part) in parts.into_iter().enumerate() {
                    // A root of HALF is every second one of LEN, and the first is 1.
                    let is_turned = p > 0 && j > 0;
                    let part = if is_turned { part.turned(self.roots[2 * j * p * stride]) } else { part };
                    to[q + stride * (R * p + j)] = part;
                }
            }
        }
    }
}

#[inline(always)]
fn radix_2([a, b]: [Complex; 2]) -> [Complex; 2] {
    [a + b, a - b]
}

#[inline(always)]
fn radix_4([a, b, c, d]: [Complex; 4]) -> [Complex; 4] {
    let (even_sum, even_difference) = (a + c, a - c);
    let (odd_sum, odd_difference) = (b + d, (b - d).turned_back());
    [even_sum + odd_sum, even_difference + odd_difference, even_sum - odd_sum, even_difference - odd_difference]
}

#[inline(always)]
fn radix_5([a, b, c, d, e]: [Complex; 5]) -> [Complex; 5] {
    /// Cosine and sine of one and two fifths of a turn.
    const COS: [f64; 2] = [0.309_016_994_374_947_45, -0.809_016_994_374_947_5];
    const SIN: [f64; 2] = [0.951_056_516_295_153_5, 0.587_785_252_292_473_1];
    let (outer_sum, outer_difference) = (b + e, (b - e).turned_back());
    let (inner_sum, inner_difference) = (c + d, (c - d).turned_back());
    let first = a + outer_sum.scaled(COS[0]) + inner_sum.scaled(COS[1]);
    let second = a + outer_sum.scaled(COS[1]) + inner_sum.scaled(COS[0]);
    let first_turned = outer_difference.scaled(SIN[0]) + inner_difference.scaled(SIN[1]);
    let second_turned = outer_difference.scaled(SIN[1]) - inner_difference.scaled(SIN[0]);
    [
        a + outer_sum + inner_sum,
        first + first_turned,
        second + second_turned,
        second - second_turned,
        first - first_turned,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_sum_that_defines_it() {
        let mut noise = 1u32;
        let mut next = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(noise) / 2_147_483_648.0 - 1.0
        };
        let x: [Lanes; LEN] = std::array::from_fn(|_| Lanes(std::array::from_fn(|_| next())));
        let mut power = [Lanes::default(); BINS];
        Fft::new().power(&x, &mut Scratch::new(), &mut power);
        let mut worst = 0.0f64;
        for (bin, got) in power.iter().enumerate() {
            for lane in 0..LANES {
                let sum = |f: fn(f64) -> f64| -> f64 {
                    (0..LEN).map(|j| x[j].0[lane] * f((bin * j % LEN) as f64 * 2.0 / LEN as f64)).sum()
                };
                let (re, im) = (sum(cos_pi), sum(sin_pi));
                worst = worst.max((re * re + im * im - got.0[lane]).abs());
            }
        }
        println!("largest difference of a power: {worst:e}");
        // Powers up to about 1000 from sums of 400 products: some 100 units of 2⁻⁵³ · 1000.
        assert!(worst < 1e-10, "{worst:e}");
    }
}
