//! Forecasts: what a model takes in memory and how fast it runs, before it is loaded or even here.
//!
//! It stands in `cli` because it needs both the layout of the `cpu` crate and the pages of `engine`, and no crate below
//! may see the two. Nothing is computed twice: the loader and the decoder run over [`cpu::Outline`].

pub mod forecast;
pub mod learned;
pub mod machine;
pub mod probe;
mod recipe;
pub mod report;
pub mod subject;
pub mod system;

use anyhow::Result;
use formats::{Checkpoint, Lora};
use tensor::{Format, KvFormat};

use crate::failure::no_memory;
use crate::memory;
use forecast::{Ask, Memory, Verdict, bytes};
use machine::GIB;
use recipe::{DESCENDING, Recipe};
use subject::{Parts, Subject};

pub use subject::{Reference, recipe};

/// What a process grows by when it runs a model, beside the model: pages of code that kernels touch first, threads'
/// stacks, the descriptions of tensors. Measured on three models; docs/log.md, "what a model takes".
const RUNNING_BYTES: usize = 5 << 19;

/// Bytes of this process beside a model: what it has before one is there, and what running adds.
pub fn process_bytes() -> usize {
    let now = memory::process("VmRSS:").and_then(|bytes| usize::try_from(bytes).ok());
    now.unwrap_or(6 << 20) + RUNNING_BYTES
}

/// What a stored model takes for its conversations.
pub struct Demand<'a> {
    /// The model's files.
    pub checkpoint: &'a Checkpoint,
    /// The adapter beside it.
    pub lora: Option<&'a Lora>,
    subject: Subject,
    /// The conversations.
    pub ask: Ask,
    /// What it takes, without the process itself.
    pub memory: Memory,
}

impl<'a> Demand<'a> {
    /// Of `checkpoint` for one sequence of `context` positions stored as `kv`.
    ///
    /// # Errors
    /// Those of laying it out.
    pub fn new(checkpoint: &'a Checkpoint, context: usize, kv: KvFormat) -> Result<Self> {
        Self::of_many((checkpoint, None), context, 1, kv)
    }

    /// The same for `n_sequences`, with an adapter beside the model.
    ///
    /// # Errors
    /// Those of laying it out; exit code 2 for an adapter of another model.
    pub fn of_many(
        (checkpoint, lora): (&'a Checkpoint, Option<&'a Lora>),
        context: usize,
        n_sequences: usize,
        kv: KvFormat,
    ) -> Result<Self> {
        let subject = Subject::stored(&checkpoint.path.display().to_string(), checkpoint, lora)?;
        let ask = Ask { context, n_sequences, kv, n_images: 0, n_tiles: 0, process_bytes: 0 };
        let memory = Memory::of(&subject, &ask)?;
        Ok(Self { checkpoint, lora, subject, ask, memory })
    }

    /// Refuses a model that does not fit into `free` bytes, before anything of it is loaded. Where the system does not
    /// say what is free, everything fits.
    ///
    /// # Errors
    /// Exit code 3, with what would fit.
    pub fn check(&self, free: Option<u64>) -> Result<()> {
        let Self { checkpoint, subject, ask, memory, .. } = self;
        let Some(free) = free.and_then(|bytes| usize::try_from(bytes).ok()).filter(|free| memory.need() > *free) else {
            return Ok(());
        };
        let name = checkpoint.path.display();
        let of = |bytes: usize| report::size(bytes);
        let message = format!(
            "{name} needs {} of memory ({} weights, {} keys and values of {} tokens{}, {} work); {} are free",
            of(memory.need()),
            of(memory.always + memory.experts),
            of(memory.kv),
            ask.context,
            if ask.n_sequences > 1 { format!(" × {}", ask.n_sequences) } else { String::new() },
            of(memory.work),
            of(free)
        );
        let mut smaller = *ask;
        // The largest context of a power of two that fits.
        while smaller.context > 512 {
            smaller.context = (smaller.context / 2).next_power_of_two();
            if Memory::of(subject, &smaller)?.need() <= free {
                return Err(no_memory(message, format!("--ctx {} fits", smaller.context)));
            }
        }
        Err(no_memory(message, format!("`puna plan {name}` says which quantisation or how much memory would do")))
    }
}

/// Formats that the maps of `subject` have: what a probe has to measure.
pub fn formats(subject: &Subject) -> Vec<Format> {
    let mut formats: Vec<Format> = Vec::new();
    subject.model.decoder.visit(&mut |_, matrix| {
        for format in matrix.formats() {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
    });
    if subject.model.vision.is_some() && !formats.contains(&Format::F16) {
        formats.push(Format::F16);
    }
    formats
}

/// The largest usual mixture of the same model that fits `room`, or streams less than `subject` does.
///
/// # Errors
/// Those of laying it out.
pub fn better(subject: &Subject, ask: &Ask, room: usize) -> Result<Option<Subject>> {
    let memory = Memory::of(subject, ask)?;
    let (cached, verdict) = memory.place(subject, room);
    if verdict == Verdict::Fits {
        return Ok(None);
    }
    let share = |cached: usize, memory: &Memory| cached as f64 / memory.experts.max(1) as f64;
    let base = subject.name.rsplit_once(':').filter(|(_, quant)| Recipe::find(quant).is_some());
    let base = base.map_or(subject.name.as_str(), |(base, _)| base);
    let mut best: Option<(Verdict, f64, Subject)> = None;
    for recipe in DESCENDING.iter().filter_map(|name| Recipe::find(name)) {
        let other = Subject::described(base, &subject.config, Parts::All, recipe)?;
        let other_memory = Memory::of(&other, ask)?;
        if other_memory.need() >= memory.need() {
            continue;
        }
        let (other_cached, other_verdict) = other_memory.place(&other, room);
        match other_verdict {
            Verdict::Fits => return Ok(Some(other)),
            Verdict::DoesNotFit => {}
            Verdict::Streams => {
                let other_share = share(other_cached, &other_memory);
                let least = if verdict == Verdict::Streams { share(cached, &memory) } else { 0.0 };
                if other_share > best.as_ref().map_or(least, |(_, share, _)| *share) {
                    best = Some((other_verdict, other_share, other));
                }
            }
        }
    }
    Ok(best.map(|(.., subject)| subject))
}

/// The usual size of memory that holds all of `need` and `system_gib` beside it, in GiB.
pub fn usual_ram(need: usize, system_gib: f64) -> f64 {
    let sizes = (1..=20).flat_map(|power| [f64::from(1 << power), 1.5 * f64::from(1 << power)]);
    sizes.clone().find(|gib| bytes(*gib) >= need + bytes(system_gib)).unwrap_or((need as f64 / GIB).ceil())
}

#[cfg(test)]
mod tests;
