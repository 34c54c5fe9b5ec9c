//! Where files of settings are looked for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Command;

use super::file::{File, Kind};

/// The name of a project's file.
const PROJECT_FILE: &str = "puna.toml";

/// Folders that matter.
pub struct Places {
    current: PathBuf,
    home: Option<PathBuf>,
    /// The user's own file, there or not.
    pub user_file: Option<PathBuf>,
}

impl Places {
    /// Those of this process.
    ///
    /// # Errors
    /// If there is no current folder.
    pub fn of_process() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let folder = if cfg!(windows) {
            set("APPDATA")
        } else {
            // The specification of base directories ignores relative paths.
            let own = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
            own.or_else(|| home.as_ref().map(|home| home.join(".config")))
        };
        let current = std::env::current_dir().context("finding the current folder")?;
        Ok(Self { current, home, user_file: folder.map(|folder| folder.join("puna/config.toml")) })
    }

    /// The project's file: in the current folder, or in the nearest one above it up to the project's root, which has a
    /// `.git`, or the user's home. Outside of both only the current folder counts: those above it may be anybody's.
    pub fn project_file(&self) -> Option<PathBuf> {
        let is_last = |folder: &Path| folder.join(".git").exists() || self.home.as_deref() == Some(folder);
        let depth = self.current.ancestors().position(is_last).unwrap_or(0);
        let mut folders = self.current.ancestors().take(depth + 1);
        folders.find_map(|folder| Some(folder.join(PROJECT_FILE)).filter(|path| path.is_file()))
    }

    /// Reads the files that are there, the one that counts more first.
    ///
    /// # Errors
    /// Exit code 2 for a file that can not be read or says what no command knows.
    pub fn read(&self, top: &Command) -> Result<Vec<File>> {
        let user = self.user_file.clone().filter(|path| path.is_file());
        let paths = self.project_file().map(|path| (Kind::Project, path)).into_iter();
        let paths = paths.chain(user.map(|path| (Kind::User, path)));
        paths.map(|(kind, path)| File::open(kind, path, self.home.as_deref(), top)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_ends_at_its_root_and_strangers_folders_are_not_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let inner = root.join("project/a/b");
        std::fs::create_dir_all(&inner).expect("folders");
        let found = |current: &Path, home: Option<&Path>| {
            let places = Places { current: current.into(), home: home.map(Path::to_owned), user_file: None };
            let file = places.project_file()?;
            Some(file.parent()?.strip_prefix(root).ok()?.to_owned())
        };
        std::fs::write(root.join(PROJECT_FILE), "").expect("a file");
        assert_eq!(found(root, None), Some("".into()), "the current folder counts");
        assert_eq!(found(&inner, None), None, "no project, no home");
        assert_eq!(found(&inner, Some(root)), Some("".into()), "up to the home");
        assert_eq!(found(&inner, Some(&root.join("project"))), None, "not above it");
        std::fs::create_dir(root.join("project/.git")).expect("a folder");
        assert_eq!(found(&inner, Some(root)), None, "not above the project");
        for nearer in ["project", "project/a"] {
            std::fs::write(root.join(nearer).join(PROJECT_FILE), "").expect("a file");
            assert_eq!(found(&inner, Some(root)), Some(nearer.into()), "the nearest counts");
        }
    }
}
