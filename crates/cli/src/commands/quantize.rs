//! `puna quantize`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use formats::Checkpoint;
use formats::gguf::{Layout, Value, Writer};
use llama::export::{Export, ExportTensor, RECIPES, Recipe};
use llama::{PackError, PackedPlan};
use serde_json::json;

use crate::failure::usage;
use crate::interrupt::{INTERRUPTED, Watch};
use crate::output::{byte_bar, line, thousands};
use crate::{model, ordered};

/// Numbers that a thread takes at a time.
const PIECE_VALUES: usize = 1 << 20;

/// Write a model in another format
///
/// Reads a GGUF model of any format or a Hugging Face folder and writes a GGUF file that other programs read too. A
/// folder's vision tower and audio encoder go to a second file, mmproj-OUT, in eight bits at least. Norms, biases and the router stay f32; the output map keeps
/// at least six bits. q4_k_m, q4_k_s and q5_k_m are the usual mixtures, in which some layers get more bits; the other
/// names use one format throughout.
///
/// packed takes a GGUF file and writes its weights as the kernels of this program read them: such a file is mapped, not
/// loaded, so a model starts at once. Other programs do not read it.
#[derive(clap::Args)]
pub struct Quantize {
    /// A GGUF file or a Hugging Face folder
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The .gguf file to write; .puna for packed
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
    #[command(flatten)]
    device: model::DeviceArguments,
}

/// What `--to` names.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// A GGUF file by this recipe.
    Gguf(&'static Recipe),
    /// The same numbers as kernels read them.
    Packed,
}

/// The name of [`Target::Packed`].
const PACKED: &str = "packed";

fn target_parser() -> impl TypedValueParser<Value = Target> {
    let names = PossibleValuesParser::new(RECIPES.iter().map(|recipe| recipe.name).chain([PACKED]));
    names.try_map(|name| match name.eq_ignore_ascii_case(PACKED) {
        true => Ok(Target::Packed),
        false => Recipe::named(&name).map(Target::Gguf).ok_or("no such format"),
    })
}

/// A file to be written.
struct New {
    path: PathBuf,
    export: Export,
    layout: Layout,
}

/// A file that was written.
struct Written {
    path: PathBuf,
    bytes: usize,
    /// Tensors and their bytes by format.
    formats: BTreeMap<&'static str, (usize, usize)>,
}

impl Quantize {
    /// What writes `output` by the recipe `recipe`.
    ///
    /// # Errors
    /// If there is no such recipe.
    pub fn new(
        input: PathBuf,
        output: PathBuf,
        recipe: &str,
        force: bool,
        device: model::DeviceArguments,
    ) -> Result<Self> {
        let to = Target::Gguf(Recipe::named(recipe).context("there is no such recipe")?);
        Ok(Self { input, output, to, force, json: false, device })
    }

    /// Writes `checkpoint` instead of the input's own weights.
    ///
    /// # Errors
    /// As the command itself.
    pub fn export_as(&self, checkpoint: &Checkpoint) -> Result<ExitCode> {
        match self.to {
            Target::Gguf(recipe) => self.export(checkpoint, recipe),
            Target::Packed => self.pack(checkpoint),
        }
    }

    pub fn run(self) -> Result<ExitCode> {
        self.export_as(&model::open_weights(&self.input)?)
    }

    /// Refuses an OUT that does not end in `extension`.
    fn check_name(&self, extension: &str, why: &str) -> Result<()> {
        if self.output.extension() == Some(OsStr::new(extension)) {
            return Ok(());
        }
        let message = format!("{} does not end in .{extension}", self.output.display());
        Err(usage(message, format!("{why}: write OUT as NAME.{extension}")))
    }

    /// Writes GGUF files.
    fn export(&self, checkpoint: &Checkpoint, recipe: &Recipe) -> Result<ExitCode> {
        self.check_name("gguf", "programs know GGUF files by their name")?;
        let files = self.files(checkpoint, recipe).with_context(|| format!("{}", self.input.display()))?;
        let new: Vec<(&Path, usize)> = files.iter().map(|file| (&*file.path, file.layout.file_bytes())).collect();
        self.check_room(&new)?;
        let (watch, mut written) = (Watch::begin(), Vec::new());
        for file in files {
            match self.write(file, &watch)? {
                Some(file) => written.push(file),
                None => return Ok(ExitCode::from(INTERRUPTED)),
            }
        }
        self.report(checkpoint, recipe.name, &written)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Writes a packed file.
    fn pack(&self, checkpoint: &Checkpoint) -> Result<ExitCode> {
        self.check_name("puna", "packed files are known by their name")?;
        self.check_new(&self.output)?;
        let plan = PackedPlan::new(&self.output, checkpoint).map_err(refused)?;
        let bytes = plan.file_bytes();
        self.check_room(&[(&self.output, bytes)])?;
        let formats = BTreeMap::from([("row groups", plan.packed()), ("rows", plan.rows())]);
        let bar = byte_bar("writing", bytes);
        let dev = self.device.open();
        let (watch, pack) = (Watch::begin(), |source: &_, matrix| dev.pack(source, matrix));
        let done = plan.write(&self.output, &pack, &mut |n| {
            bar.inc(n as u64);
            !watch.is_interrupted()
        })?;
        bar.finish_and_clear();
        if !done {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        self.report(checkpoint, PACKED, &[Written { path: self.output.clone(), bytes, formats }])?;
        Ok(ExitCode::SUCCESS)
    }

    /// The files that the model becomes. The model itself comes last: where it is, the others are.
    fn files(&self, checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Vec<New>> {
        let mut files = Vec::new();
        if let Some(projector) = Export::projector(checkpoint, recipe)? {
            let mut name = OsStr::new("mmproj-").to_owned();
            name.push(self.output.file_name().unwrap_or_default());
            files.push((self.output.with_file_name(name), projector));
        }
        let tokenizer = if checkpoint.is_gguf() { Vec::new() } else { model::gguf_tokenizer(checkpoint)? };
        files.push((self.output.clone(), Export::model(checkpoint, recipe, tokenizer)?));
        let new = |(path, export): (PathBuf, Export)| {
            let metadata: Vec<(&str, Value)> = export.metadata.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
            let layout = Layout::new(&path, &metadata, &export.infos())?;
            Ok(New { path, export, layout })
        };
        files.into_iter().map(new).collect()
    }

    /// Refuses a file that is there.
    fn check_new(&self, path: &Path) -> Result<()> {
        match self.force || std::fs::symlink_metadata(path).is_err() {
            true => Ok(()),
            false => Err(usage(format!("{} exists", path.display()), "--force overwrites it")),
        }
    }

    /// Refuses files that are there, and what does not fit the disk.
    fn check_room(&self, files: &[(&Path, usize)]) -> Result<()> {
        files.iter().try_for_each(|(path, _)| self.check_new(path))?;
        let folder = self.output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(usage(
                format!("{} is no folder to write to", folder.display()),
                "name an OUT in a folder that exists",
            ));
        }
        let bytes = files.iter().map(|(_, bytes)| *bytes as u64).fold(0, u64::saturating_add);
        match free_bytes(folder) {
            Some(free) if free < bytes => Err(usage(
                format!(
                    "{} takes {} bytes; {} are free on that disk",
                    self.output.display(),
                    thousands(bytes),
                    thousands(free)
                ),
                "make room, or name an OUT on another disk",
            )),
            _ => Ok(()),
        }
    }

    /// Writes a file, unless it is interrupted.
    fn write(&self, New { path, export, layout }: New, watch: &Watch) -> Result<Option<Written>> {
        let bytes = layout.file_bytes();
        let mut file = Writer::create(&path, layout)
            .map_err(|e| usage(e.to_string(), "name an OUT in a folder that can be written"))?;
        let pieces: Vec<(&ExportTensor, Range<usize>)> = export.tensors.iter().flat_map(pieces).collect();
        let bar = byte_bar("writing", bytes);
        let n_threads = self.device.threads();
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
        Ok(Some(Written { path, bytes, formats }))
    }

    fn report(&self, checkpoint: &Checkpoint, to: &str, written: &[Written]) -> Result<()> {
        let bytes_in: usize = checkpoint.tensors.values().map(|tensor| tensor.bytes.len()).sum();
        if self.json {
            let files: Vec<serde_json::Value> = written.iter().map(Written::json).collect();
            let report = json!({
                "version": 1, "in": self.input.display().to_string(), "in_bytes": bytes_in, "to": to,
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

/// A refusal with its way out.
fn refused(error: PackError) -> anyhow::Error {
    let hint = match error {
        PackError::NotGguf(_) => "write a GGUF file first: puna quantize IN OUT.gguf --to q8_0",
        PackError::Packed(_) => "name the GGUF file that it was made of",
        PackError::Format(_) | PackError::Op(_) => return error.into(),
    };
    usage(error.to_string(), hint)
}
