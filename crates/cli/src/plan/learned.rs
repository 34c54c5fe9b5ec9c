//! What was measured before: `puna bench` and `puna run` leave their figures in the user's cache folder, and `puna plan`
//! corrects its forecast by them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::forecast::Speed;
use super::system;
use crate::bench::{Test, median};

/// The file's layout.
const VERSION: u32 = 1;
/// Models that are remembered; the oldest is forgotten first.
const MOST: usize = 256;

/// A model on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The processor.
    pub machine: String,
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: String,
    /// The model's file or folder name.
    pub model: String,
    /// Bytes of its files.
    pub disk_bytes: usize,
}

/// One measured figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub test: Test,
    /// Seconds of it.
    pub seconds: f64,
}

/// All that is known of one model on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose figures these are.
    pub key: Key,
    /// The last figure of each test.
    pub figures: Vec<Figure>,
    /// Bytes a second that experts were read from disk with, if any were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<f64>,
    /// Share of expert reads that found one in memory, if any were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit: Option<f64>,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    version: u32,
    entries: Vec<Entry>,
}

impl Key {
    /// Of a model in this process.
    pub fn new(dev: &cpu::Cpu, model: &std::path::Path, disk_bytes: usize) -> Self {
        Self {
            machine: system::cpu_name(),
            threads: dev.threads(),
            isa: dev.isa().name().to_owned(),
            model: model.file_name().unwrap_or(model.as_os_str()).to_string_lossy().into_owned(),
            disk_bytes,
        }
    }
}

/// Where figures are kept: `PUNA_CACHE_DIR`, else `puna` in the user's cache folder as the platform has it.
fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(own) = set("PUNA_CACHE_DIR") {
        return Some(own);
    }
    let platform = if cfg!(windows) {
        set("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        set("HOME").map(|home| home.join("Library/Caches"))
    } else {
        // The specification of base directories ignores relative paths.
        set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| set("HOME").map(|home| home.join(".cache")))
    };
    platform.map(|folder| folder.join("puna"))
}

fn file() -> Option<PathBuf> {
    Some(folder()?.join("measured.json"))
}

/// What the file holds; nothing if it is missing, broken or of another version: it is a cache.
fn load() -> File {
    let text = file().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    serde_json::from_str::<File>(&text).ok().filter(|file| file.version == VERSION).unwrap_or_default()
}

/// What is known of `key`.
pub fn find(key: &Key) -> Option<Entry> {
    load().entries.into_iter().find(|entry| entry.key == *key)
}

/// Keeps `figures` of `key`, each in the place of an earlier one of the same test. A folder that can not be written
/// costs the figures and nothing else.
pub fn store(key: Key, figures: &[Figure]) {
    let Some(path) = file().filter(|_| !figures.is_empty()) else { return };
    let mut entries = load().entries;
    let at = entries.iter().position(|entry| entry.key == key);
    let mut entry = match at {
        Some(at) => entries.remove(at),
        None => Entry { key, figures: Vec::new(), disk: None, hit: None },
    };
    for figure in figures.iter().filter(|figure| figure.seconds.is_finite() && figure.seconds > 0.0) {
        entry.figures.retain(|old| old.test != figure.test);
        entry.figures.push(*figure);
    }
    let n_old = (entry.figures.len()).saturating_sub(MOST);
    entry.figures.drain(..n_old);
    entries.push(entry);
    let n_old = entries.len().saturating_sub(MOST);
    entries.drain(..n_old);
    let Ok(text) = serde_json::to_string(&File { version: VERSION, entries }) else { return };
    let temporary = path.with_extension(format!("{}", std::process::id()));
    let written = path.parent().map(std::fs::create_dir_all).transpose();
    let written =
        written.and_then(|_| std::fs::write(&temporary, text)).and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        // Nothing was promised; what is half written goes.
        let _ = std::fs::remove_file(&temporary);
    }
}

/// Seconds measured over seconds forecast, the median of prompts and of decoding steps; 1 where nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correction {
    /// Of prompts.
    pub prefill: f64,
    /// Of decoding.
    pub decode: f64,
    /// Figures behind them.
    pub n_figures: usize,
}

impl Correction {
    /// Nothing is known.
    pub const NONE: Self = Self { prefill: 1.0, decode: 1.0, n_figures: 0 };

    /// By what `entry` holds, against what `speed` forecasts for the same tests.
    ///
    /// # Errors
    /// If a test can not be forecast.
    pub fn of(entry: &Entry, speed: &Speed<'_>) -> anyhow::Result<Self> {
        let (mut prefill, mut decode) = (Vec::new(), Vec::new());
        for figure in &entry.figures {
            let ratio = figure.seconds / speed.test(figure.test)?;
            match figure.test {
                Test::Prefill { .. } => prefill.push(ratio),
                Test::Decode { .. } => decode.push(ratio),
                Test::Tile { .. } | Test::Clip { .. } => {}
            }
        }
        let of = |ratios: &[f64]| if ratios.is_empty() { 1.0 } else { median(ratios) };
        Ok(Self { prefill: of(&prefill), decode: of(&decode), n_figures: entry.figures.len() })
    }
}
