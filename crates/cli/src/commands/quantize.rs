//! `puna quantize`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use llama::{PackError, PackedPlan};

use crate::failure::usage;
use crate::interrupt::{INTERRUPTED, Watch};
use crate::model;
use crate::output::{byte_bar, line};

/// Write a model in another format
///
/// A packed file holds the weights as the kernels of this program read them: it is mapped, not loaded, so a model starts
/// at once. Other programs do not read it.
#[derive(clap::Args)]
pub struct Quantize {
    /// A GGUF file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The .puna file to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    to: Target,
    /// Overwrite OUT
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    device: model::DeviceArguments,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy)]
enum Target {
    /// The same numbers as kernels read them
    Packed,
}

impl Quantize {
    pub fn run(self) -> Result<ExitCode> {
        let Target::Packed = self.to;
        let checkpoint = model::open_checkpoint(&self.input, None)?;
        if self.output.extension() != Some(OsStr::new("puna")) {
            let message = format!("{} does not end in .puna", self.output.display());
            return Err(usage(message, "packed files are known by their name: write OUT as NAME.puna"));
        }
        if !self.force && std::fs::symlink_metadata(&self.output).is_ok() {
            return Err(usage(format!("{} exists", self.output.display()), "--force overwrites it"));
        }
        let plan = PackedPlan::new(&self.output, &checkpoint).map_err(refused)?;
        let (bytes, (n_tensors, n_packed)) = (plan.file_bytes(), plan.n_tensors());
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
        line(&format!("{}: {bytes} bytes, {n_packed} of {n_tensors} tensors packed", self.output.display()))?;
        Ok(ExitCode::SUCCESS)
    }
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
