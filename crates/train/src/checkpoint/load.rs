//! Reading a checkpoint back, if it is what was written.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use formats::{Tensor, safetensors};
use serde_json::Value;
use tensor::Bytes;

use super::manifest::{AVERAGES, FILES, LIMIT_BYTES, MANIFEST, Manifest, OPTIMIZER, STATE, WEIGHTS};
use super::name::{Name, REFUSED};
use super::{CheckpointError, Checkpoints, Storage};

/// What to do when the newest checkpoint is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Fail: work since the one before would be done again, which somebody should decide.
    Refuse,
    /// Take the newest that is sound, and put `.refused` behind the names of those that are newer, so that later saves
    /// of fewer steps are not taken for older ones.
    Older,
}

/// A checkpoint that was read, all of it with the checksums of its manifest.
#[derive(Debug)]
pub struct Loaded {
    /// Steps behind it.
    pub step: u64,
    /// The model.
    pub weights: Vec<Tensor>,
    /// What the optimiser remembers.
    pub optimizer: Vec<Tensor>,
    /// Moving averages of the weights.
    pub averages: Vec<Tensor>,
    /// Counters, schedule, where the data stands, random numbers.
    pub state: Value,
    /// Newer ones that are damaged, newest first: to be warned of.
    pub refused: Vec<Refused>,
}

/// A damaged checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its folder's name.
    pub checkpoint: String,
    /// The file of it that is not what was written.
    pub file: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {}", self.checkpoint, self.file, self.why)
    }
}

/// A file and what is wrong with it.
type Fault = (&'static str, String);

impl<S: Storage> Checkpoints<S> {
    /// Reads the newest checkpoint; `None` where there is none.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if it is not what was written and `fallback` allows no other or no other is sound;
    /// [`CheckpointError::Io`] if the folder can not be read, or a refused checkpoint not be renamed.
    pub fn load(&self, fallback: Fallback) -> Result<Option<Loaded>, CheckpointError> {
        let names = self.names()?;
        let mut found: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        let mut refused = Vec::new();
        for name in found {
            let (file, why) = match read(&self.storage, &self.path(name)) {
                Ok(loaded) if loaded.step == name.step => {
                    self.set_aside(&refused, &names)?;
                    return Ok(Some(Loaded { refused, ..loaded }));
                }
                Ok(loaded) => (MANIFEST, format!("is of step {}", loaded.step)),
                Err(fault) => fault,
            };
            refused.push(Refused { checkpoint: name.to_string(), file, why });
            if fallback == Fallback::Refuse {
                break;
            }
        }
        if refused.is_empty() {
            return Ok(None);
        }
        Err(CheckpointError::Damaged { folder: self.folder.clone(), refused })
    }

    fn set_aside(&self, refused: &[Refused], names: &[String]) -> Result<(), CheckpointError> {
        for Refused { checkpoint, .. } in refused {
            let mut away = format!("{checkpoint}{REFUSED}");
            while names.contains(&away) {
                away.push_str(REFUSED);
            }
            self.rename(&self.folder.join(checkpoint), &self.folder.join(away))?;
        }
        Ok(())
    }
}

/// Whether the checkpoint at `path` has a manifest and all files in the sizes that it lists. Their bytes are not read.
pub(super) fn is_complete(storage: &impl Storage, path: &Path) -> bool {
    let Ok(manifest) = read_manifest(storage, path) else { return false };
    manifest.files.iter().all(|(name, listed)| {
        let opened = storage.open(&path.join(name));
        opened.is_ok_and(|(_, size_bytes)| size_bytes == listed.bytes)
    })
}

fn read_manifest(storage: &impl Storage, path: &Path) -> Result<Manifest, Fault> {
    let read = || {
        let (file, _) = storage.open(&path.join(MANIFEST))?;
        let mut bytes = Vec::new();
        file.take(LIMIT_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|e: io::Error| (MANIFEST, e.to_string()))?;
    Manifest::parse(&bytes).map_err(|why| (MANIFEST, why))
}

/// Reads and checks the checkpoint at `path`.
fn read(storage: &impl Storage, path: &Path) -> Result<Loaded, Fault> {
    let manifest = read_manifest(storage, path)?;
    let read_file =
        |name: &'static str| read_listed(storage, &path.join(name), &manifest, name).map_err(|why| (name, why));
    let tensors = |name: &'static str| {
        let bytes = Bytes::new(read_file(name)?);
        safetensors::parse(&path.join(name), &bytes).map_err(|e| (name, e.to_string()))
    };
    Ok(Loaded {
        step: manifest.step,
        weights: tensors(WEIGHTS)?,
        optimizer: tensors(OPTIMIZER)?,
        averages: tensors(AVERAGES)?,
        state: serde_json::from_slice(&read_file(STATE)?).map_err(|e| (STATE, e.to_string()))?,
        refused: Vec::new(),
    })
}

/// The bytes of one file, which are those that the manifest lists.
fn read_listed(storage: &impl Storage, path: &Path, manifest: &Manifest, name: &str) -> Result<Vec<u8>, String> {
    let listed = manifest.files.get(name).ok_or_else(|| format!("is not among {FILES:?}"))?;
    let (mut file, size_bytes) = storage.open(path).map_err(|e| e.to_string())?;
    if size_bytes != listed.bytes {
        return Err(format!("has {size_bytes} bytes; {} were written", listed.bytes));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if blake3::hash(&bytes).to_hex().as_str() != listed.blake3 {
        return Err("its checksum does not hold".into());
    }
    Ok(bytes)
}
