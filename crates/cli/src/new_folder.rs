//! A folder that is there whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::{NewTensor, Tensor};
use serde_json::Value;

use crate::failure::usage;

/// A folder on its way: a temporary name beside its own until all of it is written. Dropped before that, it is removed.
pub struct NewFolder {
    path: PathBuf,
    partial: PathBuf,
    is_done: bool,
}

impl NewFolder {
    /// Begins the folder `path`.
    ///
    /// # Errors
    /// If the name is none, or a folder can not be made beside it.
    pub fn create(path: &Path) -> Result<Self> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(usage(format!("{} names no folder", path.display()), "write OUT as a new folder's name"));
        };
        let partial = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        fs::create_dir(&partial).with_context(|| format!("creating {}", partial.display()))?;
        Ok(Self { path: path.into(), partial, is_done: false })
    }

    /// Writes `tensors` as its `model.safetensors`, as they are stored.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn write_tensors<'a>(&self, tensors: impl Iterator<Item = &'a Tensor>) -> Result<()> {
        let tensors: Vec<NewTensor<'_>> =
            tensors.map(|t| NewTensor { name: &t.name, dtype: t.dtype, shape: &t.shape, bytes: &t.bytes }).collect();
        Ok(formats::safetensors::write(&self.partial.join("model.safetensors"), &tensors)?)
    }

    /// Where its files are while they are written.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Writes a file of it.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn write(&self, name: &str, value: &Value) -> Result<()> {
        self.write_bytes(name, format!("{value:#}\n").as_bytes())
    }

    /// Writes a file of it.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.partial.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().with_context(|| format!("writing {}", path.display()))
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// If there is one of that name with something in it.
    pub fn finish(mut self) -> Result<()> {
        fs::rename(&self.partial, &self.path).with_context(|| format!("naming {}", self.path.display()))?;
        self.is_done = true;
        Ok(())
    }

    /// Gives the folder its name, in place of one that may be there.
    ///
    /// # Errors
    /// If that can not be moved away.
    pub fn replace(self) -> Result<()> {
        let old = self.partial.with_extension("old");
        if self.path.exists() {
            fs::rename(&self.path, &old).with_context(|| format!("moving {}", self.path.display()))?;
        }
        self.finish()?;
        match fs::remove_dir_all(&old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", old.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.is_done {
            // Why it was given up is what is reported.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}
