//! Servers of this user that run on this machine: each keeps a small file, `puna ps` reads them.

use std::io;
use std::path::{Path, PathBuf};

/// The folder for what lasts: stored responses, files, batches.
pub fn state_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = if cfg!(windows) {
        set("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        set("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        // The specification of base directories ignores relative paths.
        let own = set("XDG_STATE_HOME").filter(|path| path.is_absolute());
        own.or_else(|| set("HOME").map(|home| home.join(".local/state")))
    };
    folder.map(|folder| folder.join("puna"))
}

/// The folder of the files of running servers.
pub fn folder() -> Option<PathBuf> {
    state_folder().map(|folder| folder.join("running"))
}

/// The file of this process; `None` if there can be none.
pub fn file() -> Option<PathBuf> {
    let folder = folder()?;
    make_private(&folder).ok()?;
    Some(folder.join(format!("{}.json", std::process::id())))
}

/// Makes a folder that nobody else may look into.
///
/// # Errors
/// Those of the file system.
pub fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
