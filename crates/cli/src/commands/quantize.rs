//! `puna quantize`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use formats::Checkpoint;
use formats::gguf::{Layout, Value, Writer};
use llama::export::{Export, ExportTensor, RECIPES, Recipe};
use serde_json::json;

use crate::failure::{no_memory, usage};
use crate::interrupt::{INTERRUPTED, Watch};
use crate::output::{byte_bar, line, thousands};
use crate::{model, ordered};

/// Numbers that a thread takes at a time.
const PIECE_VALUES: usize = 1 << 20;

/// Write a model in another format
///
/// Reads a GGUF model of any format and writes a GGUF file that other programs read too. Norms, biases and the router
/// stay f32; the output map keeps at least six bits. q4_k_m, q4_k_s and q5_k_m are the usual mixtures, in which some
/// layers get more bits; the other names use one format throughout.
#[derive(clap::Args)]
pub struct Quantize {
    /// A GGUF file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The .gguf file to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What to write
    #[arg(long, value_name = "FORMAT", ignore_case = true, value_parser = target_parser())]
    to: Target,
    /// Overwrite OUT
    #[arg(long)]
    force: bool,
    /// One JSON object with the sizes
    #[arg(long)]
    json: bool,
    /// Threads; all cores if absent
    #[arg(long, env = "PUNA_THREADS")]
    threads: Option<NonZeroUsize>,
}

/// What `--to` names.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// A GGUF file by this recipe.
    Gguf(&'static Recipe),
}

fn target_parser() -> impl TypedValueParser<Value = Target> {
    let names = PossibleValuesParser::new(RECIPES.iter().map(|recipe| recipe.name));
    names.try_map(|name| Recipe::named(&name).map(Target::Gguf).ok_or("no such format"))
}

/// A file that was written.
struct Written {
    path: PathBuf,
    bytes: usize,
    /// Tensors and their bytes by format.
    formats: BTreeMap<&'static str, (usize, usize)>,
}

impl Quantize {
    pub fn run(self) -> Result<ExitCode> {
        let Target::Gguf(recipe) = self.to;
        let checkpoint = model::open_checkpoint(&self.input, None)?;
        if checkpoint.tensors.is_empty() {
            let message = format!("{} holds no weights, a config alone", self.input.display());
            return Err(usage(message, "name a GGUF file"));
        }
        if self.output.extension() != Some(OsStr::new("gguf")) {
            let message = format!("{} does not end in .gguf", self.output.display());
            return Err(usage(message, "programs know GGUF files by their name: write OUT as NAME.gguf"));
        }
        let export = Export::model(&checkpoint, recipe).with_context(|| format!("{}", self.input.display()))?;
        let watch = Watch::begin();
        let Some(written) = self.write(&self.output, &export, &watch)? else {
            return Ok(ExitCode::from(INTERRUPTED));
        };
        self.report(&checkpoint, recipe, &[written])?;
        Ok(ExitCode::SUCCESS)
    }

    /// Writes `export` to `path`, unless it is interrupted.
    fn write(&self, path: &Path, export: &Export, watch: &Watch) -> Result<Option<Written>> {
        let metadata: Vec<(&str, Value)> = export.metadata.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        let layout = Layout::new(path, &metadata, &export.infos())?;
        let bytes = layout.file_bytes();
        self.check_room(path, bytes)?;
        let mut file = Writer::create(path, layout)?;
        let pieces: Vec<(&ExportTensor, Range<usize>)> = export.tensors.iter().flat_map(pieces).collect();
        let bar = byte_bar("writing", bytes);
        let n_threads = self.threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        let done = ordered::each(
            pieces.len(),
            n_threads,
            |index| {
                let (tensor, rows) = &pieces[index];
                tensor.encode(rows.clone())
            },
            |_, piece| {
                if watch.is_interrupted() {
                    return Err(None);
                }
                bar.inc(piece.len() as u64);
                file.write(&piece).map_err(Some)
            },
        );
        bar.finish_and_clear();
        match done {
            Err(None) => return Ok(None),
            Err(Some(error)) => return Err(error.into()),
            Ok(()) if watch.is_interrupted() => return Ok(None),
            Ok(()) => file.finish()?,
        }
        let mut formats: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for tensor in &export.tensors {
            let (n, bytes) = formats.entry(tensor.format.name()).or_default();
            (*n, *bytes) = (*n + 1, *bytes + tensor.size_bytes());
        }
        Ok(Some(Written { path: path.into(), bytes, formats }))
    }

    /// Refuses a file that is there, and one that does not fit the disk.
    fn check_room(&self, path: &Path, bytes: usize) -> Result<()> {
        if !self.force && std::fs::symlink_metadata(path).is_ok() {
            return Err(usage(format!("{} exists", path.display()), "--force overwrites it"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match free_bytes(folder) {
            Some(free) if free < bytes as u64 => Err(no_memory(
                format!("{} takes {bytes} bytes; {free} bytes of the disk are free", path.display()),
                "make room, or name an OUT on another disk",
            )),
            _ => Ok(()),
        }
    }

    fn report(&self, checkpoint: &Checkpoint, recipe: &Recipe, written: &[Written]) -> Result<()> {
        let bytes_in: usize = checkpoint.tensors.values().map(|tensor| tensor.bytes.len()).sum();
        if self.json {
            let files: Vec<serde_json::Value> = written.iter().map(Written::json).collect();
            let report = json!({
                "version": 1, "in": self.input.display().to_string(), "in_bytes": bytes_in, "to": recipe.name,
                "files": files,
            });
            return Ok(line(&report.to_string())?);
        }
        line(&format!("{}: {} bytes of weights", self.input.display(), thousands(bytes_in as u64)))?;
        for file in written {
            line(&file.text())?;
        }
        Ok(())
    }
}

impl Written {
    fn json(&self) -> serde_json::Value {
        let format = |(name, (n, bytes)): (&&str, &(usize, usize))| {
            ((*name).to_owned(), json!({ "tensors": n, "bytes": bytes }))
        };
        let formats: serde_json::Map<String, serde_json::Value> = self.formats.iter().map(format).collect();
        json!({ "path": self.path.display().to_string(), "bytes": self.bytes, "formats": formats })
    }

    fn text(&self) -> String {
        let format =
            |(name, (n, bytes)): (&&str, &(usize, usize))| format!("{n} in {name} ({})", thousands(*bytes as u64));
        let formats: Vec<String> = self.formats.iter().map(format).collect();
        let bytes = thousands(self.bytes as u64);
        format!("{}: {bytes} bytes; tensors: {}", self.path.display(), formats.join(", "))
    }
}

/// Cuts a tensor into runs of rows.
fn pieces(tensor: &ExportTensor) -> impl Iterator<Item = (&ExportTensor, Range<usize>)> {
    let step = (PIECE_VALUES / tensor.row_len().max(1)).max(1);
    let n_rows = tensor.n_rows();
    (0..n_rows).step_by(step).map(move |begin| (tensor, begin..n_rows.min(begin.saturating_add(step))))
}

/// Bytes that can still be written to the file system of `folder`, where the system says.
#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}
