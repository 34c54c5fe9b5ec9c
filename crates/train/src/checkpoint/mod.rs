//! Checkpoints that survive a kill, a full disk and a loss of power.
//!
//! A checkpoint is a folder `step-000123` of safetensors and JSON. It is written under a temporary name, every file synced,
//! the manifest with sizes and BLAKE3 of all files last, and gets its name when all of that is on the disk.
//! What has a checkpoint's name but does not hold what its manifest says is refused with the file's name. The two newest
//! are kept; files that are not ours are left alone. One run at a time may write to a folder.

mod load;
mod manifest;
mod name;
mod save;
mod storage;

pub use load::{Fallback, Loaded, Refused};
pub use save::{SavedTensor, Snapshot, Values};
pub use storage::{Disk, NewFile, Storage};

use std::io;
use std::path::{Path, PathBuf};

use formats::FormatError;

use name::{Name, RETIRED};

/// Complete checkpoints that are kept.
pub const N_KEPT: usize = 2;

/// Why a checkpoint was not saved or not loaded. The others are as they were.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused: the disk is full, or worse.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What is to be saved can not be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The newest checkpoint, or each of them, is damaged.
    #[error("{}: {}", folder.display(), refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Damaged {
        /// The folder of checkpoints.
        folder: PathBuf,
        /// Newest first.
        refused: Vec<Refused>,
    },
}

impl CheckpointError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }
}

/// A folder of checkpoints.
#[derive(Debug)]
pub struct Checkpoints<S> {
    storage: S,
    folder: PathBuf,
}

/// What a save left behind.
#[derive(Debug)]
pub struct Saved {
    /// The checkpoint.
    pub path: PathBuf,
    /// Why older ones could not be removed, which the disk's space may need a look for.
    pub not_removed: Vec<CheckpointError>,
}

impl<S: Storage> Checkpoints<S> {
    /// The checkpoints in `folder`, which is made if its parent is there.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn open(storage: S, folder: &Path) -> Result<Self, CheckpointError> {
        match storage.create_folder(folder) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.map_err(CheckpointError::io(folder))?;
                let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                storage.sync_folder(parent).map_err(CheckpointError::io(parent))?;
            }
        }
        Ok(Self { storage, folder: folder.into() })
    }

    /// The file system below.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Writes `snapshot` as a checkpoint of its own, which is durable when this returns, and removes all but the newest
    /// [`N_KEPT`].
    ///
    /// # Errors
    /// [`CheckpointError::Io`] or [`CheckpointError::Format`]; earlier checkpoints are untouched and the run can go on.
    pub fn save(&self, snapshot: &Snapshot<'_>) -> Result<Saved, CheckpointError> {
        for leftover in self.names()?.iter().filter(|name| Name::is_leftover(name)) {
            // What stays is passed by, as another's file is.
            let _ = self.remove(&self.folder.join(leftover));
        }
        let names = self.names()?;
        let name = Name::free(snapshot.step, &names);
        let (path, partial) = (self.path(name), self.folder.join(format!("{name}{}", name::PARTIAL)));
        let written = save::write(&self.storage, &partial, snapshot);
        let named = written.and_then(|()| self.rename(&partial, &path));
        if let Err(e) = named {
            // The first error is the one to report; a leftover is removed by the next save.
            let _ = self.remove(&partial);
            return Err(e);
        }
        Ok(Saved { path, not_removed: self.retire(name, &names) })
    }

    /// Removes all complete checkpoints among `names` but the newest, which `new` is one of.
    fn retire(&self, new: Name, names: &[String]) -> Vec<CheckpointError> {
        let mut others: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
        others.sort_unstable_by(|a, b| b.cmp(a));
        let complete =
            others.into_iter().filter(|name| *name != new && load::is_complete(&self.storage, &self.path(*name)));
        let retired: Vec<Name> = complete.skip(N_KEPT - 1).collect();
        let removed = retired.into_iter().map(|name| {
            // Under another name first: what is half removed must not look like a damaged checkpoint.
            let away = self.folder.join(format!("{name}{RETIRED}"));
            self.rename(&self.path(name), &away)?;
            self.remove(&away)
        });
        removed.filter_map(Result::err).collect()
    }

    fn path(&self, name: Name) -> PathBuf {
        self.folder.join(name.to_string())
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        self.storage.list(&self.folder).map_err(CheckpointError::io(&self.folder))
    }

    /// Gives a checkpoint another name, durably.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), CheckpointError> {
        self.storage.rename(from, to).map_err(CheckpointError::io(to))?;
        self.storage.sync_folder(&self.folder).map_err(CheckpointError::io(&self.folder))
    }

    /// Removes a checkpoint's files, and the folder if nothing else is in it.
    fn remove(&self, path: &Path) -> Result<(), CheckpointError> {
        for file in manifest::FILES.into_iter().chain([manifest::MANIFEST]) {
            let file = path.join(file);
            match self.storage.remove_file(&file) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(CheckpointError::io(&file))?,
            }
        }
        self.storage.remove_folder(path).map_err(CheckpointError::io(path))
    }
}
