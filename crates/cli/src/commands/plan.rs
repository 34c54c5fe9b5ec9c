//! `puna plan`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use cpu::Cpu;

use crate::built_in;
use crate::failure::{self, usage};
use crate::model;
use crate::output::{line, write};
use crate::plan::forecast::{Ask, MOST_TILES, Verdict};
use crate::plan::learned::{self, Correction};
use crate::plan::machine::{Machine, PRESETS};
use crate::plan::report::{self, Forecast, Setting};
use crate::plan::subject::{Parts, Subject};
use crate::plan::{self, Reference, probe};

/// Forecast memory and speed, before a model is loaded or even here
///
/// A model is a GGUF file, a Hugging Face folder, a config.json alone, or one of scout and maverick, also with a
/// quantisation: scout:q4. Ends with exit code 3 if one does not fit at all.
#[derive(clap::Args)]
pub struct Plan {
    /// Models to forecast, side by side; nano is the one that is part of this program
    #[arg(value_name = "MODEL", env = "PUNA_MODEL", default_value = built_in::NAME)]
    models: Vec<String>,
    /// The quantisation of models that are forecast from their config: q2, q3, q4, q5, q6, q8, bf16, or a format's name
    #[arg(long, value_name = "NAME")]
    quant: Option<String>,
    #[command(flatten)]
    cache: model::CacheArguments,
    /// Sequences at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    parallel: usize,
    /// Tokens of the prompt whose first token is forecast
    #[arg(long, value_name = "TOKENS", default_value_t = 4096)]
    prompt: usize,
    /// Images in a conversation: their tokens, and the vision tower's memory and time
    #[arg(long, value_name = "N", default_value_t = 0)]
    images: usize,
    /// The machine: auto measures this one; a preset, or a JSON file as --json prints it
    #[arg(long, value_name = "auto|PRESET|FILE", default_value = "auto")]
    hw: String,
    /// Memory of the machine in GiB instead of what it has, such as 64 or 64GiB
    #[arg(long, value_name = "GIB", value_parser = parse_gib, allow_negative_numbers = true)]
    ram: Option<f64>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: model::DeviceArguments,
}

fn parse_gib(text: &str) -> Result<f64, String> {
    let lower = text.to_lowercase();
    let number = ["gib", "gb", "g"].iter().find_map(|unit| lower.strip_suffix(unit)).unwrap_or(&lower);
    match number.trim().parse::<f64>() {
        Ok(gib) if gib.is_finite() && gib > 0.0 && gib <= 1e6 => Ok(gib),
        _ => Err(format!("\"{text}\" is no size of memory in GiB, such as 64")),
    }
}

/// What a model's correction is looked up by.
struct Known {
    subject: Subject,
    key: Option<learned::Key>,
}

impl Plan {
    pub fn run(self) -> Result<ExitCode> {
        let process_bytes = plan::process_bytes();
        if self.parallel == 0 || self.prompt == 0 {
            return Err(usage("--parallel and --prompt count from 1", "leave out what is not wanted"));
        }
        let dev = self.device.open();
        let references = self.models.iter().map(|text| Reference::find(text)).collect::<Result<Vec<_>>>()?;
        let most = references.iter().map(|reference| reference.config().text.max_positions).min().unwrap_or(0);
        let context = self.cache.context(most)?;
        let kv = self.cache.kv(context);
        let subjects = self.models.iter().zip(&references).map(|(text, reference)| self.subject(text, reference, &dev));
        let subjects = subjects.collect::<Result<Vec<_>>>()?;
        let ask =
            Ask { context, n_sequences: self.parallel, kv, n_images: self.images, n_tiles: MOST_TILES, process_bytes };
        let mut machine = self.machine(&dev, &subjects, kv)?;
        if let Some(ram) = self.ram {
            // Another machine of the same kind: the usual share for its system.
            machine.system_gib = machine.system_gib.min(3.0);
            machine.ram_gib = ram;
        }
        let setting = Setting { ask, machine: &machine, prompt_tokens: self.prompt };
        if machine.disk_gb_s.is_none() && self.hw == "auto" && streams(&subjects, &setting)? {
            machine.disk_gb_s = self.probe_disk();
        }
        let setting = Setting { ask, machine: &machine, prompt_tokens: self.prompt };
        let forecasts = subjects.iter().map(|known| {
            let entry = known.key.as_ref().filter(|_| self.hw == "auto").and_then(learned::find);
            Forecast::of(&known.subject, &setting, &|speed| {
                entry.as_ref().map_or(Ok(Correction::NONE), |entry| Correction::of(entry, speed))
            })
        });
        let forecasts = forecasts.collect::<Result<Vec<_>>>()?;
        if self.json {
            line(&report::json_report(&forecasts, &setting)?.to_string())?;
        } else {
            write(&report::table(&forecasts, &setting))?;
        }
        let fits = forecasts.iter().all(|forecast| forecast.verdict != Verdict::DoesNotFit);
        Ok(if fits { ExitCode::SUCCESS } else { ExitCode::from(failure::MEMORY) })
    }

    fn subject(&self, text: &str, reference: &Reference, dev: &Cpu) -> Result<Known> {
        let quant = self.quant.as_deref().map(plan::recipe).transpose()?;
        let name = Path::new(text).file_name().map_or(text.into(), |name| name.to_string_lossy());
        Ok(match (reference, quant) {
            (Reference::Stored(checkpoint), None) => {
                let subject = Subject::stored(&name, checkpoint, None)?;
                let key = learned::Key::new(dev, Path::new(text), subject.disk_bytes);
                Known { subject, key: Some(key) }
            }
            (reference, quant) => {
                let of_name = match reference {
                    Reference::Config(_, recipe) => *recipe,
                    Reference::Stored(_) => None,
                };
                let recipe = quant.or(of_name).map_or_else(|| plan::recipe("q4"), Ok)?;
                let name =
                    if of_name.is_some() { name.rsplit_once(':').map_or(&*name, |(name, _)| name) } else { &name };
                let parts = if self.images > 0 { Parts::All } else { Parts::Text };
                Known { subject: Subject::described(name, reference.config(), parts, recipe)?, key: None }
            }
        })
    }

    fn machine(&self, dev: &Cpu, subjects: &[Known], kv: tensor::KvFormat) -> Result<Machine> {
        if self.hw != "auto" {
            if let Some(preset) = Machine::preset(&self.hw) {
                return Ok(preset);
            }
            if !Path::new(&self.hw).exists() {
                let names: Vec<&str> = PRESETS.iter().map(|(name, ..)| *name).collect();
                let hint = format!("auto, a JSON file, or one of {}", names.join(", "));
                return Err(usage(format!("--hw \"{}\" is neither a file nor a preset", self.hw), hint));
            }
            return Machine::read(Path::new(&self.hw));
        }
        let mut formats = Vec::new();
        for known in subjects {
            for format in plan::formats(&known.subject) {
                if !formats.contains(&format) {
                    formats.push(format);
                }
            }
        }
        let machine = probe::measure(dev, &formats, kv)?;
        if machine.ram_gib == 0.0 && self.ram.is_none() {
            return Err(usage("this system does not say how much memory there is", "give --ram GIB"));
        }
        Ok(machine)
    }

    /// Of the file system of the first model that is here, else of this folder's.
    fn probe_disk(&self) -> Option<f64> {
        let stored = self.models.iter().map(Path::new).find(|path| path.exists());
        probe::disk(stored.unwrap_or(Path::new("."))).map(|rate| rate / 1e9)
    }
}

/// Whether some model has experts to read from disk.
fn streams(subjects: &[Known], setting: &Setting<'_>) -> Result<bool> {
    for known in subjects {
        let memory = plan::forecast::Memory::of(&known.subject, &setting.ask)?;
        if memory.experts > 0 && memory.place(&known.subject, setting.room()).1 != Verdict::Fits {
            return Ok(true);
        }
    }
    Ok(false)
}
