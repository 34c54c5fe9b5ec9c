//! `puna train`.

pub mod follow;
pub mod forecast;
pub mod prepare;
pub mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use cpu::Cpu;
use train::checkpoint::{Checkpoints, Disk, Fallback, Loaded};
use train::{End, Run, Weights};

use crate::failure::usage;
use crate::model::DeviceArguments;
use crate::new_folder::NewFolder;
use crate::output::line;

use follow::First;
use prepare::Prepared;

/// Train a model by a recipe
///
/// Writes to the folder OUT: checkpoints, `metrics.jsonl`, and at the end `report.html` with curves and the model in `model/`,
/// which every other command takes. Ctrl-C saves, writes the model as it is, and stops; `--resume` goes on from the newest checkpoint with the same
/// bits as never stopping.
#[derive(clap::Args)]
pub struct Train {
    /// The recipe, a TOML file
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Where everything is written; by default `runs/` and the recipe's name
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(flatten)]
    resume: ResumeArguments,
    /// Say what would be trained, in how much memory and time, and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

impl Train {
    pub fn run(self) -> Result<ExitCode> {
        let out = match &self.out {
            Some(out) => out.clone(),
            None => Path::new("runs").join(self.recipe.file_stem().context("the recipe has no name")?),
        };
        let prepared = Prepared::read(&self.recipe)?;
        forecast::say(&prepared, &self.device)?;
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        let (checkpoints, loaded) = self.resume.open(&out)?;
        let (skeleton, mut run) = prepared.start(&self.device, checkpoints)?;
        go_on(&mut run, loaded)?;
        let end = follow::follow(&mut run, &out, First::Step)?;
        let title = self.recipe.file_stem().unwrap_or_default().to_string_lossy();
        report::write(&out.join("metrics.jsonl"), &out.join("report.html"), &title)?;
        let folder = out.join("model");
        write_model(&folder, skeleton.path(), &run.trainer().result()?)?;
        if end == End::Stopped {
            line(&format!("stopped after step {}; go on with --resume", run.step()))?;
        }
        line(&format!("{}: the model; try `puna run -m {0} \"…\"`", folder.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether a run goes on, and from which checkpoint.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct ResumeArguments {
    /// Go on from the newest checkpoint in the folder
    #[arg(long)]
    resume: bool,
    /// With --resume: if the newest checkpoint is damaged, take an older one
    #[arg(long, requires = "resume")]
    allow_older: bool,
}

impl ResumeArguments {
    /// Opens the folder of a run, and the checkpoint that it goes on from.
    ///
    /// # Errors
    /// Exit code 2 if there is one and nobody has said `--resume`.
    pub fn open(self, out: &Path) -> Result<(Checkpoints<Disk>, Option<Loaded>)> {
        fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
        let checkpoints = Checkpoints::open(Disk, &out.join("checkpoints"))?;
        let fallback = if self.allow_older { Fallback::Older } else { Fallback::Refuse };
        let loaded = checkpoints.load(fallback)?;
        if loaded.is_some() && !self.resume {
            let message = format!("{} holds a run already", out.display());
            return Err(usage(message, "go on with --resume, or name another folder with --out"));
        }
        Ok((checkpoints, loaded))
    }
}

/// Lets `run` go on from `loaded`, if there is something.
///
/// # Errors
/// If it is of another run.
pub fn go_on(run: &mut Run<Cpu, Disk>, loaded: Option<Loaded>) -> Result<()> {
    let Some(loaded) = loaded else { return Ok(()) };
    for refused in &loaded.refused {
        eprintln!("puna: warning: {refused}; an older checkpoint is used");
    }
    run.resume(loaded)?;
    Ok(line(&format!("going on after step {}", run.step()))?)
}

/// Writes the model as a Hugging Face folder: `weights` beside copies of the files of `skeleton`.
pub fn write_model(folder: &Path, skeleton: &Path, weights: &Weights) -> Result<()> {
    let new = NewFolder::create(folder)?;
    let checkpoint = weights.checkpoint();
    new.write_tensors(checkpoint.tensors.values())?;
    for entry in fs::read_dir(skeleton)? {
        let entry = entry?;
        new.write_bytes(&entry.file_name().to_string_lossy(), &fs::read(entry.path())?)?;
    }
    new.replace()
}
