//! Functions of f64 from additions, multiplications and divisions alone, so that every platform gives the same bits.

use std::f64::consts::{LN_2, LN_10, PI, SQRT_2};

/// sin(πx). Exact reduction; within 2 units of the last place for |x| < 2⁵⁰.
pub(super) fn sin_pi(x: f64) -> f64 {
    let (quarter, rest) = quarters(x);
    match quarter {
        0 => sin_near(rest),
        1 => cos_near(rest),
        2 => -sin_near(rest),
        _ => -cos_near(rest),
    }
}

/// cos(πx), as [`sin_pi`].
pub(super) fn cos_pi(x: f64) -> f64 {
    let (quarter, rest) = quarters(x);
    match quarter {
        0 => cos_near(rest),
        1 => -sin_near(rest),
        2 => -cos_near(rest),
        _ => sin_near(rest),
    }
}

/// `x` as quarters of a whole turn, of which the rest modulo 4 is returned, and what is left, at most a quarter.
fn quarters(x: f64) -> (u8, f64) {
    let n = (2.0 * x).round();
    (n.rem_euclid(4.0) as u8, x - n / 2.0)
}

/// Taylor's series of sin(πx) for |x| ≤ 1/4; the first term left out is below 2⁻⁵⁴.
fn sin_near(x: f64) -> f64 {
    let y = PI * x;
    let square = y * y;
    // 1/17!, 1/15!, …, 1/3! with alternating signs.
    let series = [
        2.811_457_254_345_520_6e-15,
        -7.647_163_731_819_816e-13,
        1.605_904_383_682_161_3e-10,
        -2.505_210_838_544_172e-8,
        2.755_731_922_398_589e-6,
        -1.984_126_984_126_984e-4,
        8.333_333_333_333_333e-3,
        -0.166_666_666_666_666_66,
    ];
    y + y * square * series.iter().fold(0.0, |sum, term| sum * square + term)
}

/// Taylor's series of cos(πx) for |x| ≤ 1/4; the first term left out is below 2⁻⁵⁶.
fn cos_near(x: f64) -> f64 {
    let y = PI * x;
    let square = y * y;
    // 1/18!, 1/16!, …, 1/2! with alternating signs.
    let series = [
        -1.561_920_696_858_622_6e-16,
        4.779_477_332_387_385e-14,
        -1.147_074_559_772_972_5e-11,
        2.087_675_698_786_81e-9,
        -2.755_731_922_398_589e-7,
        2.480_158_730_158_73e-5,
        -1.388_888_888_888_889e-3,
        4.166_666_666_666_666_4e-2,
        -0.5,
    ];
    1.0 + square * series.iter().fold(0.0, |sum, term| sum * square + term)
}

/// The natural logarithm of a normal number above 0.
pub(super) fn ln(x: f64) -> f64 {
    ln_each([x])[0]
}

/// The natural logarithms of normal numbers above 0, step by step for all of them, so that it is vector arithmetic.
///
/// `x = m · 2ᵏ` with m from √½ to √2; ln m = 2·atanh((m − 1)/(m + 1)), the series' first term left out below 2⁻⁵².
#[inline(always)]
pub(super) fn ln_each<const N: usize>(x: [f64; N]) -> [f64; N] {
    const MANTISSA: u64 = (1 << 52) - 1;
    /// 2⁵² as a float, whose last bits count ones.
    const TWO_52: f64 = 4_503_599_627_370_496.0;
    let (mut exponent, mut s, mut square, mut sum) = ([0.0; N], [0.0; N], [0.0; N], [1.0 / 19.0; N]);
    for i in 0..N {
        let bits = x[i].to_bits();
        let mantissa = f64::from_bits(bits & MANTISSA | 1f64.to_bits());
        let biased = f64::from_bits(bits >> 52 | TWO_52.to_bits()) - TWO_52;
        let is_upper = mantissa > SQRT_2;
        let mantissa = if is_upper { mantissa * 0.5 } else { mantissa };
        exponent[i] = biased - if is_upper { 1022.0 } else { 1023.0 };
        s[i] = (mantissa - 1.0) / (mantissa + 1.0);
        square[i] = s[i] * s[i];
    }
    for odd in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        for i in 0..N {
            sum[i] = sum[i] * square[i] + 1.0 / odd;
        }
    }
    std::array::from_fn(|i| 2.0 * s[i] * sum[i] + exponent[i] * LN_2)
}

/// The logarithms to base 10 of normal numbers above 0.
#[inline(always)]
pub(super) fn log10_each<const N: usize>(x: [f64; N]) -> [f64; N] {
    ln_each(x).map(|ln| ln * (1.0 / LN_10))
}

/// eˣ for |x| < 700: 2ᵏ · eʳ with |r| ≤ ln 2 / 2, Taylor's first term left out below 2⁻⁵².
pub(super) fn exp(x: f64) -> f64 {
    /// The upper bits of ln 2, so that a multiple of it up to 2¹¹ is exact, and the rest.
    const LN_2_PARTS: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    let k = (x / LN_2).round();
    let r = x - k * LN_2_PARTS[0] - k * LN_2_PARTS[1];
    let mut sum = 1.0;
    for n in (1..=14).rev() {
        sum = sum * r / f64::from(n) + 1.0;
    }
    sum * f64::from_bits(((k as i64 + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_agree_with_the_platforms() {
        let mut worst = [0.0f64; 5];
        for i in 0..200_000 {
            let x = f64::from(i) * 0.000_137 - 13.7;
            worst[0] = worst[0].max((sin_pi(x) - (PI * x).sin()).abs());
            worst[1] = worst[1].max((cos_pi(x) - (PI * x).cos()).abs());
            worst[2] = worst[2].max((exp(x) / x.exp() - 1.0).abs());
            let y = x.exp();
            worst[3] = worst[3].max((ln(y) - y.ln()).abs());
            worst[4] = worst[4].max((log10_each([y])[0] - y.log10()).abs());
        }
        println!("largest differences: {worst:?}");
        // The platform's own argument πx is rounded: 14π · 2⁻⁵³. A logarithm up to 14 has a last place of 2⁻⁴⁹.
        assert!(worst.iter().all(|worst| *worst < 8e-15), "{worst:?}");
        assert_eq!([sin_pi(0.0), sin_pi(6.0), cos_pi(0.5), cos_pi(1.0), ln(1.0)], [0.0, 0.0, 0.0, -1.0, 0.0]);
    }
}
