//! Writing GGUF files.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::{ALIGNMENT, ALIGNMENT_KEY, MAGIC, Value, types};
use crate::{FormatError, NewTensor, atomic};

/// Writes `metadata` and `tensors` to `path` as GGUF version 3: to a temporary file, synced, then renamed. The data is
/// aligned to 32 bytes, or to the `general.alignment` of the metadata.
///
/// # Errors
/// [`FormatError::Unsupported`] for types that GGUF files can not hold; [`FormatError::Corrupt`] if a name repeats, the
/// alignment is no power of two, a shape has no axis, more than four or an empty one, or the bytes do not fit the shape;
/// [`FormatError::Io`].
pub fn write(path: &Path, metadata: &[(&str, Value)], tensors: &[NewTensor<'_>]) -> Result<(), FormatError> {
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
    put_infos(path, &mut header, tensors, alignment)?;
    let padding = |len: usize| vec![0u8; len.next_multiple_of(alignment) - len];
    atomic::write(path, |out| {
        out.write_all(&header)?;
        out.write_all(&padding(header.len()))?;
        tensors.iter().try_for_each(|tensor| {
            out.write_all(tensor.bytes)?;
            out.write_all(&padding(tensor.bytes.len()))
        })
    })
}

fn put_infos(
    path: &Path,
    header: &mut Vec<u8>,
    tensors: &[NewTensor<'_>],
    alignment: usize,
) -> Result<(), FormatError> {
    let mut names = BTreeSet::new();
    let mut begin = 0usize;
    for NewTensor { name, dtype, shape, bytes } in tensors {
        let corrupt = |why: &str| FormatError::corrupt(path, name, why);
        if name.is_empty() || !names.insert(*name) {
            return Err(corrupt("the name is empty or taken"));
        }
        let id = types::id(*dtype)
            .ok_or_else(|| FormatError::unsupported(path, name, format!("GGUF files can not hold {}", dtype.name())))?;
        let n_axes = u32::try_from(shape.len()).ok().filter(|n| matches!(n, 1..=4) && !shape.contains(&0));
        let n_axes = n_axes.ok_or_else(|| corrupt("the shape has not 1 to 4 axes, or an empty one"))?;
        if dtype.size_bytes(shape) != Some(bytes.len()) {
            return Err(corrupt(&format!("{} {shape:?} is not {} bytes", dtype.name(), bytes.len())));
        }
        put_text(header, name);
        header.extend(n_axes.to_le_bytes());
        shape.iter().rev().for_each(|axis| put_len(header, *axis));
        header.extend(id.to_le_bytes());
        put_len(header, begin);
        let end = begin.checked_add(bytes.len()).and_then(|end| end.checked_next_multiple_of(alignment));
        begin = end.ok_or_else(|| corrupt("the file would be too long"))?;
    }
    Ok(())
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
