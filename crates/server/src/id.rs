//! Names for things that requests make.

/// A name that nobody can guess: `prefix` and 24 characters.
pub fn fresh(prefix: &str) -> String {
    let mut bytes = [0u8; 12];
    // Without randomness from the system, a name is as good as the time and a counter of the standard library.
    if getrandom::fill(&mut bytes).is_err() {
        use std::hash::{BuildHasher, RandomState};
        let hash = RandomState::new().hash_one(std::time::Instant::now());
        bytes.iter_mut().zip(hash.to_le_bytes()).for_each(|(byte, random)| *byte = random);
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}{hex}")
}

/// A seed for a request that names none. 53 bits pass through any JSON reader unchanged.
pub fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    // Without randomness from the system every answer has the same noise, which is allowed.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes) >> 11
}
