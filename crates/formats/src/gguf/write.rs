//! Writing GGUF files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{ALIGNMENT, ALIGNMENT_KEY, MAGIC, Value, types};
use crate::atomic::NewFile;
use crate::{FormatError, NewTensor, TensorInfo};

/// Writes `metadata` and `tensors` to `path` as GGUF version 3: to a temporary file, synced, then renamed. The data is
/// aligned to 32 bytes, or to the `general.alignment` of the metadata.
///
/// # Errors
/// As [`Layout::new`]; [`FormatError::Corrupt`] if the bytes do not fit the shape; [`FormatError::Io`].
pub fn write(path: &Path, metadata: &[(&str, Value)], tensors: &[NewTensor<'_>]) -> Result<(), FormatError> {
    let infos: Vec<TensorInfo<'_>> = tensors.iter().map(NewTensor::info).collect();
    let layout = Layout::new(path, metadata, &infos)?;
    for (NewTensor { name, dtype, shape, bytes }, len) in tensors.iter().zip(&layout.lens) {
        if bytes.len() != *len {
            let why = format!("{} {shape:?} is not {} bytes", dtype.name(), bytes.len());
            return Err(FormatError::corrupt(path, name, why));
        }
    }
    let mut writer = Writer::create(path, layout)?;
    tensors.iter().try_for_each(|tensor| writer.write(tensor.bytes))?;
    writer.finish()
}

/// Where everything will stand in a GGUF file, known before the first tensor's bytes are.
#[derive(Debug)]
pub struct Layout {
    /// Up to where the tensors begin.
    header: Vec<u8>,
    /// Bytes of each tensor.
    lens: Vec<usize>,
    alignment: usize,
    file_bytes: usize,
}

impl Layout {
    /// Describes a file of version 3. Its data is aligned to 32 bytes, or to the `general.alignment` of the metadata.
    /// `path` is for errors; nothing is written yet.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for types that GGUF files can not hold; [`FormatError::Corrupt`] if a name repeats,
    /// the alignment is no power of two, a shape has no axis, more than four or an empty one, or no whole number of
    /// blocks in a row.
    pub fn new(path: &Path, metadata: &[(&str, Value)], tensors: &[TensorInfo<'_>]) -> Result<Self, FormatError> {
        let mut alignment = Some(ALIGNMENT);
        let mut header = Vec::from(MAGIC);
        header.extend(3u32.to_le_bytes());
        put_len(&mut header, tensors.len());
        put_len(&mut header, metadata.len());
        let mut keys = BTreeSet::new();
        for (key, value) in metadata {
            if key.is_empty() || !keys.insert(*key) {
                return Err(FormatError::corrupt(path, key, "the key is empty or taken"));
            }
            if *key == ALIGNMENT_KEY {
                alignment = value.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| n.is_power_of_two());
            }
            put_text(&mut header, key);
            header.extend(value.type_id().to_le_bytes());
            put_value(&mut header, value);
        }
        let alignment = alignment.ok_or_else(|| FormatError::corrupt(path, ALIGNMENT_KEY, "is no power of two"))?;
        let lens = put_infos(path, &mut header, tensors, alignment)?;
        header.resize(header.len().next_multiple_of(alignment), 0);
        // Can not overflow: the offsets of the tensors have been added up.
        let file_bytes = lens.iter().fold(header.len(), |sum, len| sum.saturating_add(len.next_multiple_of(alignment)));
        Ok(Self { header, lens, alignment, file_bytes })
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> usize {
        self.file_bytes
    }
}

/// A GGUF file that is fed tensor by tensor: it has a temporary name until [`finish`](Self::finish), and is removed if it
/// is dropped before.
#[derive(Debug)]
pub struct Writer {
    file: NewFile,
    path: PathBuf,
    layout: Layout,
    /// Tensors that are complete.
    n_done: usize,
    /// Bytes of the current tensor that are written.
    n_written: usize,
}

impl Writer {
    /// Opens the file and writes what stands before the tensors.
    ///
    /// # Errors
    /// [`FormatError::Io`] if the folder can not be written, [`FormatError::Unsupported`] if `path` names no file.
    pub fn create(path: &Path, layout: Layout) -> Result<Self, FormatError> {
        let mut file = NewFile::create(path)?;
        file.write(&layout.header)?;
        Ok(Self { file, path: path.into(), layout, n_done: 0, n_written: 0 })
    }

    /// Appends `bytes`, the whole next tensor or the next piece of it.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if the tensor has not that many bytes left; [`FormatError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let len = self.layout.lens.get(self.n_done).copied().unwrap_or(0);
        if bytes.len() > len - self.n_written {
            let why = format!("{} bytes come after {} of {len}", bytes.len(), self.n_written);
            return Err(FormatError::corrupt(&self.path, "tensor data", why));
        }
        self.file.write(bytes)?;
        self.n_written += bytes.len();
        if self.n_written == len && !bytes.is_empty() {
            self.file.write(&vec![0; len.next_multiple_of(self.layout.alignment) - len])?;
            (self.n_done, self.n_written) = (self.n_done + 1, 0);
        }
        Ok(())
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if bytes of a tensor are missing; [`FormatError::Io`].
    pub fn finish(self) -> Result<(), FormatError> {
        if self.n_done != self.layout.lens.len() {
            let why = format!("{} of {} tensors are complete", self.n_done, self.layout.lens.len());
            return Err(FormatError::corrupt(&self.path, "tensor data", why));
        }
        self.file.finish()
    }
}

/// Describes `tensors` and returns the bytes of each.
fn put_infos(
    path: &Path,
    header: &mut Vec<u8>,
    tensors: &[TensorInfo<'_>],
    alignment: usize,
) -> Result<Vec<usize>, FormatError> {
    let mut names = BTreeSet::new();
    let mut begin = 0usize;
    let mut lens = Vec::with_capacity(tensors.len());
    for TensorInfo { name, dtype, shape } in tensors {
        let corrupt = |why: &str| FormatError::corrupt(path, name, why);
        if name.is_empty() || !names.insert(*name) {
            return Err(corrupt("the name is empty or taken"));
        }
        let id = types::id(*dtype)
            .ok_or_else(|| FormatError::unsupported(path, name, format!("GGUF files can not hold {}", dtype.name())))?;
        let n_axes = u32::try_from(shape.len()).ok().filter(|n| matches!(n, 1..=4) && !shape.contains(&0));
        let n_axes = n_axes.ok_or_else(|| corrupt("the shape has not 1 to 4 axes, or an empty one"))?;
        let len = dtype.size_bytes(shape);
        let len = len.ok_or_else(|| corrupt(&format!("{} {shape:?} is no whole number of blocks", dtype.name())))?;
        put_text(header, name);
        header.extend(n_axes.to_le_bytes());
        shape.iter().rev().for_each(|axis| put_len(header, *axis));
        header.extend(id.to_le_bytes());
        put_len(header, begin);
        let end = begin.checked_add(len).and_then(|end| end.checked_next_multiple_of(alignment));
        begin = end.ok_or_else(|| corrupt("the file would be too long"))?;
        lens.push(len);
    }
    Ok(lens)
}

/// A length before its string.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // usize is at most 64 bits wide on every platform that Rust knows.
    out.extend(u64::try_from(len).unwrap_or(u64::MAX).to_le_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => out.extend(n.to_le_bytes()),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::F32(n) => out.extend(n.to_le_bytes()),
        Value::Bool(n) => out.push(u8::from(*n)),
        Value::String(text) => put_text(out, text),
        Value::Array(array) => {
            let (element, len, bytes) = array.parts();
            out.extend(element.to_le_bytes());
            put_len(out, len);
            out.extend_from_slice(bytes);
        }
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F64(n) => out.extend(n.to_le_bytes()),
    }
}
