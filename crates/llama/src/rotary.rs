//! Angles of rotary position embedding.

use formats::config::{Rope, RopeScaling};
use tensor::{Pairing, Rotation, math};

/// The frequencies of a head's pairs, radians a position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frequencies {
    pairing: Pairing,
    /// `[C/2]`, rounded to f32 as the reference does.
    values: Vec<f32>,
}

impl Frequencies {
    /// θ^(−2m/C), scaled as `rope` says. `divisors`, where the scaling is [`RopeScaling::Divisors`], is the file's
    /// `rope_freqs.weight`, one a pair.
    pub(crate) fn new(rope: &Rope, pairing: Pairing, head_len: usize, divisors: &[f32]) -> Self {
        let frequency = |m: usize| {
            let base = math::pow(f64::from(rope.theta), -2.0 * m as f64 / head_len as f64);
            match rope.scaling {
                RopeScaling::None => base,
                RopeScaling::Linear { factor } => base / f64::from(factor),
                RopeScaling::Llama3 { factor, low, high, original } => {
                    llama3(base, f64::from(factor), f64::from(low), f64::from(high), original as f64)
                }
                RopeScaling::Divisors => base / f64::from(divisors.get(m).copied().unwrap_or(1.0)),
            }
        };
        Self { pairing, values: (0..head_len / 2).map(|m| frequency(m) as f32).collect() }
    }

    /// What a GGUF file has as `rope_freqs.weight`: one divisor a pair that gives the frequencies scaled by `rope`.
    /// `None` where nothing is scaled by wavelength.
    pub(crate) fn divisors(rope: &Rope, head_len: usize) -> Option<Vec<f32>> {
        let base = |m: usize| math::pow(f64::from(rope.theta), -2.0 * m as f64 / head_len as f64);
        let is_scaled = matches!(rope.scaling, RopeScaling::Llama3 { .. });
        is_scaled.then(|| (0..head_len / 2).map(|m| divisor(rope, base(m))).collect())
    }

    /// The angles of rows at `positions`: the product in f32, as the reference computes it.
    pub(crate) fn rotation(&self, positions: impl Iterator<Item = usize>) -> Rotation {
        let angles = positions.flat_map(|p| self.values.iter().map(move |f| p as f32 * f));
        let (sin, cos) = angles.map(|angle| math::sin_cos(f64::from(angle))).unzip();
        Rotation { pairing: self.pairing, n_pairs: self.values.len(), cos, sin }
    }
}

/// The f32 that `frequency` is divided by to be scaled as `rope` says. Where there is one, it is one that gives the nearest
/// f32 of the scaled frequency to the bit; between the bands there may be none, and the nearest divisor is an ulp off.
fn divisor(rope: &Rope, frequency: f64) -> f32 {
    let RopeScaling::Llama3 { factor, low, high, original } = rope.scaling else { return 1.0 };
    let scaled = llama3(frequency, f64::from(factor), f64::from(low), f64::from(high), original as f64);
    let near = (frequency / scaled) as f32;
    let mut around = [near, near.next_up(), near.next_down()].into_iter();
    around.find(|divisor| (frequency / f64::from(*divisor)) as f32 == scaled as f32).unwrap_or(near)
}

/// Llama 3's scaling by wavelength λ = 2π/f: kept below `original / high`, divided by `factor` above
/// `original / low`, blended between. With low = high, as in Scout, the band is empty and never evaluated.
fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = std::f64::consts::TAU / frequency;
    if wavelength < original / high {
        frequency
    } else if wavelength > original / low {
        frequency / factor
    } else {
        let kept = (original / wavelength - low) / (high - low);
        frequency * ((1.0 - kept) / factor + kept)
    }
}

/// The angles of an image tile's rows: `grid` × `grid` patches row-major, then the class token, which does not turn.
///
/// The first half of a head's pairs turns by column + 1, the second by row + 1; both halves have the frequencies
/// θ^(−2k / (C/2)).
pub(crate) fn tile_rotation(theta: f32, head_len: usize, grid: usize) -> Rotation {
    let n_pairs = head_len / 2;
    let frequency = |k: usize| math::pow(f64::from(theta), -2.0 * k as f64 / n_pairs as f64) as f32;
    let frequencies: Vec<f32> = (0..n_pairs / 2).map(frequency).collect();
    let mut cos = Vec::with_capacity((grid * grid + 1) * n_pairs);
    let mut sin = Vec::with_capacity(cos.capacity());
    for patch in 0..grid * grid {
        for coordinate in [patch % grid, patch / grid] {
            for frequency in &frequencies {
                let (s, c) = math::sin_cos(f64::from((coordinate + 1) as f32 * frequency));
                sin.push(s);
                cos.push(c);
            }
        }
    }
    cos.resize(cos.len() + n_pairs, 1.0);
    sin.resize(sin.len() + n_pairs, 0.0);
    Rotation { pairing: Pairing::Interleaved, n_pairs, cos, sin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scout_divides_29_of_64_frequencies_by_16() {
        let scaling = RopeScaling::Llama3 { factor: 16.0, low: 1.0, high: 1.0, original: 8192 };
        let scaled = Frequencies::new(&Rope { theta: 500_000.0, scaling }, Pairing::Interleaved, 128, &[]);
        let plain = Rope { theta: 500_000.0, scaling: RopeScaling::None };
        let plain = Frequencies::new(&plain, Pairing::Interleaved, 128, &[]);
        let ratios: Vec<f32> = plain.values.iter().zip(&scaled.values).map(|(p, s)| p / s).collect();
        assert!(ratios[..35].iter().all(|r| *r == 1.0));
        assert!(ratios[35..].iter().all(|r| (r - 16.0).abs() < 1e-5));
    }

    #[test]
    fn divisors_give_the_frequencies_of_the_config() {
        for (factor, low, high, head_len) in [
            (8.0, 1.0, 4.0, 128),  // Llama 3.1
            (32.0, 1.0, 4.0, 64),  // Llama 3.2
            (16.0, 1.0, 1.0, 128), // Scout
        ] {
            let scaling = RopeScaling::Llama3 { factor, low, high, original: 8192 };
            let rope = Rope { theta: 500_000.0, scaling };
            let divisors = Frequencies::divisors(&rope, head_len).unwrap_or_default();
            assert_eq!(divisors.len(), head_len / 2);
            assert!(divisors.contains(&1.0) && divisors.contains(&factor));
            let from_file = Rope { theta: 500_000.0, scaling: RopeScaling::Divisors };
            let of_file = Frequencies::new(&from_file, Pairing::Halves, head_len, &divisors).values;
            let of_config = Frequencies::new(&rope, Pairing::Halves, head_len, &[]).values;
            // To the bit outside of the blended band, which Llama 4 does not have, and within an ulp inside.
            assert!(low < high || of_file == of_config, "{rope:?}");
            for (got, want) in of_file.iter().zip(&of_config) {
                assert!((want.next_down()..=want.next_up()).contains(got), "{got} {want}");
            }
        }
        assert_eq!(Frequencies::divisors(&Rope { theta: 1e4, scaling: RopeScaling::None }, 64), None);
    }

    #[test]
    fn the_class_token_does_not_turn() {
        let rotation = tile_rotation(10_000.0, 88, 24);
        assert_eq!(rotation.cos.len(), 577 * 44);
        assert!(rotation.cos[576 * 44..].iter().all(|c| *c == 1.0));
        assert!(rotation.sin[576 * 44..].iter().all(|s| *s == 0.0));
    }
}
