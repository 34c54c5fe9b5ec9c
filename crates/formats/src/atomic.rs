//! Writing a file so that its name never stands for half of it.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::FormatError;

/// A file on its way: a temporary name beside its own until [`finish`](Self::finish). Dropped before that, it is removed
/// and whatever had the name is as it was.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    folder: PathBuf,
    partial: PathBuf,
    /// `None` once it has its name.
    out: Option<BufWriter<File>>,
}

impl NewFile {
    /// Opens a temporary file beside `path`.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] if `path` names no file, [`FormatError::Io`] if the folder can not be written.
    pub(crate) fn create(path: &Path) -> Result<Self, FormatError> {
        let Some(name) = path.file_name() else {
            return Err(FormatError::unsupported(path, "path", "names no file to write"));
        };
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = folder.join(partial);
        // A leftover of a process with the same id; if it is something else, creating the file says so.
        let _ = std::fs::remove_file(&partial);
        let file = OpenOptions::new().write(true).create_new(true).open(&partial);
        let out = file.map_err(|e| FormatError::io(path, e))?;
        Ok(Self { path: path.into(), folder, partial, out: Some(BufWriter::new(out)) })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.write_all(bytes).map_err(|e| FormatError::io(&self.path, e))
    }

    /// Syncs the file, gives it its name and syncs the folder.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub(crate) fn finish(mut self) -> Result<(), FormatError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let synced = out.flush().and_then(|()| out.get_ref().sync_all());
        let named = synced.and_then(|()| std::fs::rename(&self.partial, &self.path));
        named.map_err(|e| FormatError::io(&self.path, e))?;
        self.out = None;
        sync_folder(&self.folder).map_err(|e| FormatError::io(&self.folder, e))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            // The reason why it was given up is the one to report; there is nothing to do about a leftover.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Writes `path` through `fill`, as [`NewFile`].
///
/// # Errors
/// As [`NewFile`], and what `fill` returns.
pub(crate) fn write(
    path: &Path,
    fill: impl FnOnce(&mut NewFile) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let mut file = NewFile::create(path)?;
    fill(&mut file)?;
    file.finish()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(()) // a folder is no file that could be synced
}
