//! Random numbers as a function of a counter: nothing is remembered, so nothing can be shared by mistake.

/// A number in [0, 1) with 53 random bits for the token at `position` of sample `sample` of a request with `seed`.
///
/// Philox 4×32 with ten rounds (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011); the
/// key is the seed, the counter the position and the sample.
pub fn uniform(seed: u64, sample: u32, position: u64) -> f64 {
    let [a, b, ..] = philox(low_high(position, sample), [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 * (1.0 / (1u64 << 53) as f64)
}

fn low_high(position: u64, sample: u32) -> [u32; 4] {
    [position as u32, (position >> 32) as u32, sample, 0]
}

/// The ten rounds of Philox 4×32.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let left = u64::from(counter[0]) * 0xd251_1f53;
        let right = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (right >> 32) as u32 ^ counter[1] ^ key[0],
            right as u32,
            (left >> 32) as u32 ^ counter[3] ^ key[1],
            left as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        // The known answers that come with the authors' Random123 library.
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        for (counter, key, want) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ] {
            assert_eq!(philox(counter, key), want);
        }
    }

    #[test]
    fn every_part_of_the_counter_changes_the_number() {
        let base = uniform(7, 1, 100);
        let others =
            [uniform(8, 1, 100), uniform(7 | 1 << 40, 1, 100), uniform(7, 2, 100), uniform(7, 1, 101 | 1 << 40)];
        assert!(others.iter().all(|other| *other != base), "{base} {others:?}");
        assert!((0..10_000).all(|position| (0.0..1.0).contains(&uniform(u64::MAX, 3, position))));
    }
}
