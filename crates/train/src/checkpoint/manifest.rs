//! The list of a checkpoint's files, which is written last: a checkpoint with one was written to its end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The name of the list itself.
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const WEIGHTS: &str = "weights.safetensors";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
pub(super) const AVERAGES: &str = "averages.safetensors";
pub(super) const STATE: &str = "state.json";
/// What it lists.
pub(super) const FILES: [&str; 4] = [WEIGHTS, OPTIMIZER, AVERAGES, STATE];

/// The version of the layout.
const VERSION: u32 = 1;
/// More than a list of so few files has, in bytes.
pub(super) const LIMIT_BYTES: u64 = 64 << 10;

/// What a file has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) bytes: u64,
    /// In hexadecimal.
    pub(super) blake3: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    pub(super) step: u64,
    pub(super) files: BTreeMap<String, Listed>,
    /// BLAKE3 of everything above, so that a flipped bit of the list is not taken for one of a file.
    blake3: String,
}

impl Manifest {
    pub(super) fn new(step: u64, files: BTreeMap<String, Listed>) -> Self {
        let mut manifest = Self { version: VERSION, step, files, blake3: String::new() };
        manifest.blake3 = manifest.digest();
        manifest
    }

    fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{} {}", self.version, self.step).as_bytes());
        for (name, Listed { bytes, blake3 }) in &self.files {
            hasher.update(format!("\n{bytes} {blake3} {name}").as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The list as a file.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; anything else is refused, with the reason.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if manifest.version != VERSION {
            return Err(format!("version is {}; this program reads {VERSION}", manifest.version));
        }
        let is_as_written = manifest.to_bytes().is_ok_and(|written| written == bytes);
        if !is_as_written || manifest.blake3 != manifest.digest() {
            return Err("its checksum does not hold".into());
        }
        if !manifest.files.keys().eq(FILES.map(String::from).iter().collect::<std::collections::BTreeSet<_>>()) {
            return Err(format!("lists {:?} instead of {FILES:?}", manifest.files.keys()));
        }
        Ok(manifest)
    }
}
