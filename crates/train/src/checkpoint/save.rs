//! Writing a checkpoint's files.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use formats::{DType, TensorInfo, safetensors};
use half::bf16;
use serde_json::Value;
use tensor::Format;

use super::manifest::{self, AVERAGES, Listed, MANIFEST, Manifest, OPTIMIZER, STATE, WEIGHTS};
use super::storage::NewFile;
use super::{CheckpointError, Storage};

/// A run at one step: all that it takes to go on with the same bits.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// Steps behind it.
    pub step: u64,
    /// The model.
    pub weights: &'a [SavedTensor<'a>],
    /// What the optimiser remembers.
    pub optimizer: &'a [SavedTensor<'a>],
    /// Moving averages of the weights.
    pub averages: &'a [SavedTensor<'a>],
    /// Counters, schedule, where the data stands, random numbers.
    pub state: &'a Value,
}

/// A tensor of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct SavedTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Outermost axis first.
    pub shape: &'a [usize],
    /// Row by row.
    pub values: Values<'a>,
}

/// Numbers of a tensor.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// In 32 bits.
    F32(&'a [f32]),
    /// In 16.
    Bf16(&'a [bf16]),
}

impl Values<'_> {
    fn dtype(self) -> DType {
        DType::Weight(match self {
            Self::F32(_) => Format::F32,
            Self::Bf16(_) => Format::BF16,
        })
    }

    fn size_bytes(self) -> usize {
        match self {
            Self::F32(values) => size_of_val(values),
            Self::Bf16(values) => size_of_val(values),
        }
    }

    /// Writes all numbers, little-endian.
    fn write(self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::F32(values) => write_pieces(values, |value| value.to_le_bytes(), out),
            Self::Bf16(values) => write_pieces(values, |value| value.to_le_bytes(), out),
        }
    }
}

/// Writes `values` in pieces, so that a copy of a large tensor is never whole in memory.
fn write_pieces<T: Copy, const N: usize>(
    values: &[T],
    to_bytes: impl Fn(T) -> [u8; N],
    out: &mut impl Write,
) -> io::Result<()> {
    const PIECE_LEN: usize = 1 << 16;
    let mut bytes = Vec::with_capacity(PIECE_LEN.min(values.len()) * N);
    for piece in values.chunks(PIECE_LEN) {
        bytes.clear();
        piece.iter().for_each(|value| bytes.extend(to_bytes(*value)));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Makes the folder `path` with all files of `snapshot`, the manifest last, all of them durable.
pub(super) fn write(storage: &impl Storage, path: &Path, snapshot: &Snapshot<'_>) -> Result<(), CheckpointError> {
    storage.create_folder(path).map_err(CheckpointError::io(path))?;
    let mut files = BTreeMap::new();
    let Snapshot { step, weights, optimizer, averages, state } = *snapshot;
    for (name, tensors) in [(WEIGHTS, weights), (OPTIMIZER, optimizer), (AVERAGES, averages)] {
        let file = path.join(name);
        let infos: Vec<(TensorInfo<'_>, usize)> = tensors
            .iter()
            .map(|SavedTensor { name, shape, values }| {
                (TensorInfo { name, dtype: values.dtype(), shape }, values.size_bytes())
            })
            .collect();
        let header = safetensors::header(&file, &infos)?;
        let listed = write_file(storage, &file, |out| {
            out.write_all(&header)?;
            tensors.iter().try_for_each(|tensor| tensor.values.write(out))
        });
        files.insert(name.into(), listed?);
    }
    let file = path.join(STATE);
    let state = serde_json::to_vec_pretty(state).map_err(|e| CheckpointError::io(&file)(e.into()))?;
    files.insert(STATE.into(), write_file(storage, &file, |out| out.write_all(&state))?);

    let file = path.join(manifest::MANIFEST);
    let listed = Manifest::new(step, files).to_bytes().map_err(|e| CheckpointError::io(&file)(e.into()))?;
    write_file(storage, &path.join(MANIFEST), |out| out.write_all(&listed))?;
    storage.sync_folder(path).map_err(CheckpointError::io(path))
}

/// A file that is hashed while it is written.
struct Hashed {
    file: Box<dyn NewFile>,
    hasher: blake3::Hasher,
    size_bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..n_written).unwrap_or(bytes));
        self.size_bytes += n_written as u64;
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes `path` through `fill` and syncs it.
fn write_file(
    storage: &impl Storage,
    path: &Path,
    fill: impl FnOnce(&mut Hashed) -> io::Result<()>,
) -> Result<Listed, CheckpointError> {
    let write = || {
        let mut out = Hashed { file: storage.create(path)?, hasher: blake3::Hasher::new(), size_bytes: 0 };
        fill(&mut out)?;
        out.flush()?;
        out.file.sync()?;
        Ok(Listed { bytes: out.size_bytes, blake3: out.hasher.finalize().to_hex().to_string() })
    };
    write().map_err(CheckpointError::io(path))
}
