//! What holds for every quantised format: decoding against an independent implementation, and how much encoding loses.

#![allow(clippy::unwrap_used)] // a test's way to fail

use tensor::quant::Kind;

const SEED: u64 = 20_250_405;

/// A small generator with known numbers (splitmix64).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in 0..1.
    fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.uniform()).cos()
    }
}

fn encode(kind: Kind, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() / kind.len() * kind.bytes()];
    kind.encode(values, &mut bytes);
    bytes
}

fn decode(kind: Kind, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / kind.bytes() * kind.len()];
    kind.decode(bytes, &mut values);
    values
}

/// The integers, scales and offsets of `bytes`.
fn integers(kind: Kind, bytes: &[u8]) -> (Vec<i8>, Vec<f32>, Vec<f32>) {
    let len = bytes.len() / kind.bytes() * kind.len();
    let (mut q, mut scale) = (vec![0; len], vec![0.0; len / kind.group()]);
    let mut offset = scale.clone();
    kind.integers(bytes, &mut q, &mut scale, &mut offset);
    (q, scale, offset)
}

/// The smallest and the largest integer that a format's encoder uses, found by encoding.
fn levels(kind: Kind) -> (i8, i8) {
    let mut random = Random(SEED);
    let values: Vec<f32> = (0..256 * 64).map(|_| random.normal()).collect();
    let (q, ..) = integers(kind, &encode(kind, &values));
    (q.iter().copied().min().unwrap(), q.iter().copied().max().unwrap())
}

/// One record of the goldens: a format's name, blocks, their values.
fn goldens() -> Vec<(String, Vec<u8>, Vec<f32>)> {
    fn take<'a>(rest: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (head, tail) = rest.split_at(n);
        *rest = tail;
        head
    }
    let mut rest: &[u8] = include_bytes!("data/quant_goldens.bin");
    let mut records = Vec::new();
    while !rest.is_empty() {
        let name_len = usize::from(take(&mut rest, 1)[0]);
        let name = String::from_utf8(take(&mut rest, name_len).to_vec()).unwrap();
        let n_values = u32::from_le_bytes(take(&mut rest, 4).try_into().unwrap()) as usize;
        let n_bytes = u32::from_le_bytes(take(&mut rest, 4).try_into().unwrap()) as usize;
        let bytes = take(&mut rest, n_bytes).to_vec();
        let values = take(&mut rest, 4 * n_values).as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
        records.push((name, bytes, values));
    }
    records
}

/// Equality, not closeness: the products of an f16 (11 bits) with a group scale (7 bits at most, or a power of two) and
/// an integer (6 bits at most, 8 where there is no group scale) fit an f32's 24 bits, so in either implementation only
/// the addition of the offset rounds, once.
#[test]
fn blocks_decode_to_the_values_of_an_independent_implementation() {
    let goldens = goldens();
    let mut n_values = 0;
    for kind in Kind::ALL {
        let (_, bytes, expected) = goldens.iter().find(|(name, ..)| name == kind.name()).unwrap();
        let got = decode(*kind, bytes);
        assert_eq!(got.len(), expected.len());
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert_eq!(got, expected, "{kind:?} value {i}");
        }
        n_values += got.len();
    }
    println!("{n_values} values of {} formats", Kind::ALL.len());
    assert!(n_values >= 2048 * Kind::ALL.len() / 2);
}

#[test]
fn zeros_stay_zeros() {
    for kind in Kind::ALL {
        for zero in [0.0, -0.0, 1e-40, -1e-9] {
            let bytes = encode(*kind, &[zero; 256]);
            assert_eq!(decode(*kind, &bytes), [0.0; 256], "{kind:?}: {zero}");
            assert_eq!(integers(*kind, &bytes).0, [0; 256], "{kind:?}: {zero}");
        }
    }
}

/// A constant takes an outermost level, so all that is lost is the rounding of one f16: half of 2⁻¹⁰, and a few f32
/// roundings.
#[test]
fn a_constant_block_is_exact_to_half_precision() {
    for kind in Kind::ALL {
        for constant in [1.0f32, -1.0, 0.3, -0.3, 3.7, -1000.0, 12_345.678] {
            for value in decode(*kind, &encode(*kind, &[constant; 256])) {
                let error = (value - constant).abs() / constant.abs();
                assert!(error <= 1.0 / 2048.0 + 1e-6, "{kind:?}: {constant} became {value}");
            }
        }
    }
}

/// The root mean square error that a group may have at most.
///
/// The search begins with the step that spans the group: the largest magnitude over the number of levels on its side
/// (an integer off by one step at most, for the other side may have a level less), or, with offsets, the range over the
/// number of steps (half a step at most). What it finds is no worse. Then the parameters are rounded:
///
/// * In a block of one group to f16, by 2⁻¹¹ of themselves or 2⁻²⁴, whichever is more. The largest level is then off by
///   that part of the range. An offset is rounded down, by 2⁻¹⁰ or 2⁻²⁴ at most, which widens the range.
/// * In a block of several groups to integers times an f16. The largest integer is at least twice (with offsets; else
///   four times) the largest level. A parameter is off by half a unit (without offsets one) at most, and each level
///   moves by at most that. 63/62 is there because the largest group's own integer may be one lower than it could.
///
/// f32 operations add a few 2⁻²⁴ of the largest magnitude.
fn allowed(kind: Kind, [low, high]: [f32; 2], values: &[f32], scales: &[f32], offsets: &[f32]) -> f32 {
    const SMALLEST: f32 = 1.0 / (1u32 << 24) as f32;
    let largest = |x: &[f32]| x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let (peak, nested) = (largest(values), kind.len() > kind.group());
    let (range, mut step) = if kind.has_offsets() {
        // Formats with integer minimums cannot begin above 0.
        let begin = values.iter().copied().fold(if nested { 0.0 } else { f32::MAX }, f32::min);
        let end = values.iter().copied().fold(begin, f32::max);
        let widening = if nested { 0.0 } else { peak / 1024.0 + SMALLEST };
        (end - begin + widening, (end - begin + widening) / high / 2.0)
    } else {
        (peak, if low == -high { peak / high / 2.0 } else { peak / -low })
    };
    if nested {
        step += 63.0 / 62.0 / 4.0 * (largest(scales) + largest(offsets) / high);
    } else {
        step += range / 2048.0;
    }
    step + SMALLEST + 4.0 * SMALLEST * peak
}

#[test]
fn no_group_loses_more_than_its_step_allows() {
    let mut random = Random(SEED);
    let mut n_groups = 0;
    for kind in Kind::ALL {
        let (low, high) = levels(*kind);
        let levels = [f32::from(low), f32::from(high)];
        for round in 0..400 {
            let mut values = vec![0.0f32; 256];
            let size = (random.uniform() * 24.0 - 14.0).exp2();
            let mean = [0.0, random.normal(), 10.0 * random.normal()][round % 3];
            for group in values.chunks_exact_mut(16) {
                let spread = if round % 2 == 0 { (-10.0 * random.uniform()).exp2() } else { 1.0 };
                group.fill_with(|| size * (mean + spread * random.normal()));
            }
            let bytes = encode(*kind, &values);
            let decoded = decode(*kind, &bytes);
            let (_, scale, offset) = integers(*kind, &bytes);
            let n_in_block = kind.len() / kind.group();
            let pairs = values.chunks_exact(kind.group()).zip(decoded.chunks_exact(kind.group()));
            for (g, (values, decoded)) in pairs.enumerate() {
                let block = g / n_in_block * n_in_block..(g / n_in_block + 1) * n_in_block;
                let squares: f32 = values.iter().zip(decoded).map(|(v, d)| (v - d) * (v - d)).sum();
                let rms = (squares / values.len() as f32).sqrt();
                let allowed = allowed(*kind, levels, values, &scale[block.clone()], &offset[block]);
                assert!(rms <= allowed, "{kind:?} round {round} group {g}: {rms} of {allowed}, {values:?}");
                n_groups += 1;
            }
        }
    }
    println!("{n_groups} groups, seed {SEED}");
    assert!(n_groups > 20_000);
}

/// Each value takes the level nearest to it: with the scale and offset as stored, no other integer is closer by more
/// than the rounding of the f32 operations, a few units of 2⁻²⁴ of the largest term.
#[test]
fn every_value_takes_its_nearest_level() {
    let mut random = Random(SEED);
    for kind in Kind::ALL {
        let (low, high) = levels(*kind);
        let values: Vec<f32> = (0..4096).map(|_| random.normal()).collect();
        let (q, scale, offset) = integers(*kind, &encode(*kind, &values));
        for (i, (value, q)) in values.iter().zip(q).enumerate() {
            let (scale, offset) = (scale[i / kind.group()], offset[i / kind.group()]);
            let error = |q: i8| (scale * f32::from(q) + offset - value).abs();
            let nearest = (low..=high).map(error).fold(f32::MAX, f32::min);
            assert!(error(q) <= nearest + 1e-6 * (1.0 + value.abs()), "{kind:?} value {i}: {value} took {q}");
        }
    }
}

/// True of formats whose scales are not themselves integers, for blocks that use their outermost levels: the search
/// tries the step that spans the range, and solving for it gives the f16 numbers back.
#[test]
fn values_on_the_grid_of_a_block_survive() {
    let mut random = Random(SEED);
    for kind in Kind::ALL.iter().filter(|kind| kind.len() == kind.group()) {
        let (low, high) = levels(*kind);
        let mut n_blocks = 0;
        for _ in 0..500 {
            let mut bytes: Vec<u8> = (0..kind.bytes()).map(|_| random.bits() as u8).collect();
            let scale = half::f16::from_f32(0.01 + random.uniform());
            bytes[..2].copy_from_slice(&scale.to_le_bytes());
            if kind.has_offsets() {
                bytes[2..4].copy_from_slice(&half::f16::from_f32(4.0 * random.normal()).to_le_bytes());
            }
            let (q, ..) = integers(*kind, &bytes);
            let spans = q.contains(&low) && (q.contains(&high) || !kind.has_offsets());
            if spans && q.iter().all(|&q| q >= low) {
                let values = decode(*kind, &bytes);
                assert_eq!(decode(*kind, &encode(*kind, &values)), values, "{kind:?}");
                n_blocks += 1;
            }
        }
        println!("{kind:?}: {n_blocks} blocks, seed {SEED}");
        assert!(n_blocks > 20, "{kind:?}");
    }
}

#[test]
fn hostile_values_never_make_a_scale_that_is_not_finite() {
    let tame = [0.0, 1.0, -3.5, 65504.0, 1e-3];
    let hostile = [1e30, -1e30, f32::MAX, f32::MIN, 1e-40, -1e-40, f32::MIN_POSITIVE, 1e-8, 7e-6, 65_505.0, 3e8];
    let mut random = Random(SEED);
    let mut n_blocks = 0;
    for kind in Kind::ALL {
        for round in 0..400 {
            let n_hostile = 1 + random.below(hostile.len());
            let values: Vec<f32> = (0..kind.len())
                .map(|_| match round % 3 {
                    0 => hostile[random.below(n_hostile)],
                    1 if random.below(8) > 0 => tame[random.below(tame.len())] * random.normal(),
                    1 => hostile[random.below(n_hostile)],
                    _ => f32::from_bits(random.bits() as u32 & 0xff7f_ffff), // any finite number
                })
                .collect();
            let bytes = encode(*kind, &values);
            let (_, scale, offset) = integers(*kind, &bytes);
            assert!(scale.iter().chain(&offset).all(|v| v.is_finite()), "{kind:?}: {values:?}");
            assert!(decode(*kind, &bytes).iter().all(|v| v.is_finite()), "{kind:?}: {values:?}");
            n_blocks += 1;
        }
    }
    println!("{n_blocks} blocks, seed {SEED}");
    assert_eq!(n_blocks, 400 * Kind::ALL.len());
}

#[test]
fn a_block_with_a_value_that_is_not_finite_decodes_to_nan_and_its_neighbours_do_not() {
    for kind in Kind::ALL {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 3 * kind.len()];
            values[kind.len() + 5] = broken;
            let decoded = decode(*kind, &encode(*kind, &values));
            for (i, value) in decoded.iter().enumerate() {
                assert_eq!(value.is_nan(), i / kind.len() == 1, "{kind:?}: value {i} is {value}");
            }
        }
    }
}

#[test]
fn values_beyond_a_format_become_the_largest_it_has_and_leave_other_groups_alone() {
    for kind in Kind::ALL {
        for huge in [1e30, -1e30, f32::MAX, f32::MIN] {
            let mut values = [0.0; 256];
            values[..32].fill(huge);
            let decoded = decode(*kind, &encode(*kind, &values));
            for value in &decoded[..32] {
                assert!(value.abs() >= 65504.0 && value.signum() == huge.signum(), "{kind:?}: {huge} became {value}");
            }
            assert_eq!(decoded[32..], [0.0; 224], "{kind:?} beside {huge}");
        }
    }
}

/// Root mean square errors, on the same values, of the encoders that most published files were made with: ggml's
/// `ggml_quantize_chunk` without an importance matrix, called through PyPI `xllamacpp`. (On other normal values PyPI
/// `gguf`'s `quantize`, which has the first five, gave the same five digits.) Ours may be no worse.
#[test]
fn normal_weights_lose_no_more_than_with_the_common_encoders() {
    let common = [
        ("Q8_0", 0.005366),
        ("Q4_0", 0.08618),
        ("Q4_1", 0.07834),
        ("Q5_0", 0.04273),
        ("Q5_1", 0.03796),
        ("Q2_K", 0.29768),
        ("Q3_K", 0.15110),
        ("Q4_K", 0.07151),
        ("Q5_K", 0.03622),
        ("Q6_K", 0.01779),
    ];
    let mut random = Random(SEED);
    let values: Vec<f32> = (0..1 << 18).map(|_| random.normal()).collect();
    for (name, common) in common {
        let kind = Kind::ALL.iter().find(|kind| kind.name() == name).unwrap();
        let decoded = decode(*kind, &encode(*kind, &values));
        let squares: f64 = values.iter().zip(decoded).map(|(v, d)| f64::from(v - d).powi(2)).sum();
        let rms = (squares / values.len() as f64).sqrt();
        println!("{name}: {rms:.6}, common {common}");
        assert!(rms <= common, "{name}: {rms}, common {common}");
    }
}
