//! Mapping a file: the one unsafe function of this crate.

use std::path::Path;

use tensor::Bytes;

use crate::FormatError;

/// Maps the regular file `path` for reading. An empty file gives no bytes.
///
/// The mapping shows the file as it is: while it is used, nobody may shorten or rewrite the file. Shortening it ends the
/// process at the next access, as with every program that maps its weights.
///
/// # Errors
/// [`FormatError::Io`] if the file can not be opened or mapped, [`FormatError::Unsupported`] if it is no regular file.
#[allow(unsafe_code)]
pub fn map_file(path: &Path) -> Result<Bytes, FormatError> {
    // Looked at before opening: opening a pipe would wait for its writer.
    let about = std::fs::metadata(path).map_err(|e| FormatError::io(path, e))?;
    if !about.is_file() {
        return Err(FormatError::unsupported(path, "file", "is no regular file, so it can not be mapped"));
    }
    if about.len() == 0 {
        return Ok(Bytes::from(Vec::new()));
    }
    let file = std::fs::File::open(path).map_err(|e| FormatError::io(path, e))?;
    // SAFETY: the mapping is private and read-only and outlives `file`. What remains is that another process changes
    // the file under us, which no program can prevent; everything parsed from the mapping is copied when it is checked,
    // and tensor data is read as plain numbers, of which every bit pattern is valid.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| FormatError::io(path, e))?;
    Ok(Bytes::new(map))
}
