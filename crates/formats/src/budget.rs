//! What a parser may allocate: the file's size and 1 MiB.

use std::path::Path;

use crate::FormatError;

/// Allowed beyond the file's own size.
const SPARE: usize = 1 << 20;

/// Kept back for errors, paths and fixed tables.
const RESERVE: usize = 64 << 10;

/// What a description of a file's contents will take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Need {
    /// Tensors in the file.
    pub(crate) n_tensors: usize,
    /// Bytes of all their names.
    pub(crate) names_bytes: usize,
    /// Metadata keys.
    pub(crate) n_keys: usize,
    /// Bytes of all copied metadata keys and strings.
    pub(crate) strings_bytes: usize,
    /// The longest JSON string, escapes included.
    pub(crate) longest_string: usize,
}

impl Need {
    /// Refuses a file whose description would take more than its size and 1 MiB.
    ///
    /// A tensor costs its description, its entry in a map and its name in both; a key its entry in a map. A JSON string
    /// passes a scratch buffer that grows in doubles, and an error text, before it is looked at.
    pub(crate) fn check(self, file: &Path, field: &str, file_bytes: usize) -> Result<(), FormatError> {
        let Self { n_tensors, names_bytes, n_keys, strings_bytes, longest_string } = self;
        let parts = [(n_tensors, 512), (names_bytes, 2), (n_keys, 192), (strings_bytes, 1), (longest_string, 8)];
        let bytes = parts.iter().try_fold(RESERVE, |sum, (n, each)| sum.checked_add(n.checked_mul(*each)?));
        let allowed = file_bytes.saturating_add(SPARE);
        match bytes {
            Some(bytes) if bytes <= allowed => Ok(()),
            _ => Err(FormatError::corrupt(
                file,
                field,
                format!(
                    "{n_tensors} tensors with {names_bytes} bytes of names, {n_keys} keys and a string of \
                     {longest_string} bytes are too many to describe for a file of {file_bytes} bytes"
                ),
            )),
        }
    }
}
