//! Writing a file so that its name never stands for half of it.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::FormatError;

/// Writes `path` through `fill`: to a temporary name beside it, synced, renamed, and the folder synced. On an error the
/// temporary file is removed and `path` is as it was.
pub(crate) fn write(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), FormatError> {
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
    let written = write_partial(&partial, fill).and_then(|()| std::fs::rename(&partial, path));
    if let Err(e) = written {
        // The first error is the one to report; the leftover may not even exist.
        let _ = std::fs::remove_file(&partial);
        return Err(FormatError::io(path, e));
    }
    sync_folder(&folder).map_err(|e| FormatError::io(&folder, e))
}

fn write_partial(
    partial: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    // A leftover of a process with the same id; if it is something else, creating the file says so.
    let _ = std::fs::remove_file(partial);
    let mut out = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(partial)?);
    fill(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(()) // a folder is no file that could be synced
}
