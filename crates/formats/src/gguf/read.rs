//! A position in the header of a GGUF file.

use std::path::Path;

use crate::FormatError;

/// Reads little-endian values one after another; a read past the end is an error that names the field.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a Path, bytes: &'a [u8]) -> Self {
        Self { file, bytes, at: 0 }
    }

    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn file_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self, len: usize, field: &str) -> Result<&'a [u8], FormatError> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| {
            let left = self.bytes.len() - self.at;
            FormatError::corrupt(self.file, field, format!("needs {len} bytes at {}; {left} are left", self.at))
        })?;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32, FormatError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &str) -> Result<u64, FormatError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `each` bytes: no more than the rest of the file can hold.
    pub(super) fn count(&mut self, field: &str, each: usize) -> Result<usize, FormatError> {
        let count = self.u64(field)?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(count).ok().filter(|n| n.checked_mul(each).is_some_and(|bytes| bytes <= left)) {
            Some(count) => Ok(count),
            None => Err(FormatError::corrupt(self.file, field, format!("is {count}; {left} bytes are left"))),
        }
    }

    /// A string of at most `limit_bytes`.
    pub(super) fn text(&mut self, field: &str, limit_bytes: usize) -> Result<&'a str, FormatError> {
        let len = self.count(field, 1)?;
        if len > limit_bytes {
            let why = format!("is {len} bytes long; the limit is {limit_bytes}");
            return Err(FormatError::corrupt(self.file, field, why));
        }
        let at = self.at;
        let text = str::from_utf8(self.take(len, field)?);
        text.map_err(|e| FormatError::corrupt(self.file, field, format!("is no text at {at}: {e}")))
    }
}
