//! Where the experts of a model go: into memory, or behind a cache of bounded size.

use anyhow::Result;
use cpu::{Cpu, ExpertStats};
use engine::STEP_ROWS;
use formats::{Checkpoint, DType, Tensor};
use serde_json::json;
use tensor::{Bytes, KvFormat, packed};

use crate::failure::{no_memory, usage};
use crate::memory::{free_bytes, parse_size, size};
use crate::plan::Demand;
use crate::plan::forecast::Memory;

/// Kept free for the program itself, its tables and what the system needs beside it: this much and a sixteenth.
const SPARE_BYTES: u64 = 64 << 20;

/// `--expert-cache`.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct ExpertArguments {
    /// Memory for the routed experts of a model that is larger than memory, such as 2G: others are read from the disk
    /// when they are chosen. auto takes all of them into memory if they fit what is free, else as many as do
    #[arg(long, value_name = "auto|SIZE", default_value = "auto", value_parser = parse)]
    expert_cache: ExpertCache,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpertCache {
    Auto,
    Bytes(u64),
}

fn parse(text: &str) -> Result<ExpertCache, String> {
    if text == "auto" {
        return Ok(ExpertCache::Auto);
    }
    parse_size(text).map(ExpertCache::Bytes).map_err(|why| format!("{why}, and not auto"))
}

/// What a model takes, as [`plan`](crate::plan) counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    /// Weights that every row goes through, and embeddings.
    shared: u64,
    /// All routed experts.
    experts: u64,
    /// A cache of one expert of one layer, with the buffers that reading takes.
    least: u64,
    /// Keys and values.
    cache: u64,
    /// Activations of one row of a step.
    row: u64,
}

/// Where experts go, and how many rows a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Bytes of the cache; `None` for all experts in memory.
    pub cache_bytes: Option<u64>,
    /// Rows of a step.
    pub step_rows: usize,
}

impl ExpertArguments {
    /// Decides for `checkpoint`, `context` positions stored as `kv`, and the memory that is free now.
    ///
    /// # Errors
    /// Exit code 2 for a cache that a model has no use for or that holds no expert, 3 if not even that fits.
    pub fn place(self, checkpoint: &Checkpoint, context: usize, kv: KvFormat) -> Result<Placement> {
        self.place_demand(&Demand::new(checkpoint, context, kv)?)
    }

    /// The same for a demand that is known.
    ///
    /// # Errors
    /// As [`place`](Self::place).
    pub fn place_demand(self, demand: &Demand<'_>) -> Result<Placement> {
        let free = free_bytes();
        let placement = if demand.memory.experts > 0 {
            place(self.expert_cache, Need::of(demand.checkpoint, demand), demand.ask.context, free)?
        } else if self.expert_cache == ExpertCache::Auto {
            Placement { cache_bytes: None, step_rows: STEP_ROWS }
        } else {
            return Err(usage("--expert-cache: this model has no routed experts", "leave out --expert-cache"));
        };
        if placement.cache_bytes.is_none() {
            demand.check(free)?;
        }
        Ok(placement)
    }
}

fn place(wanted: ExpertCache, need: Need, context: usize, free: Option<u64>) -> Result<Placement> {
    let in_memory = Placement { cache_bytes: None, step_rows: STEP_ROWS };
    let free = free.unwrap_or(u64::MAX);
    let fixed = need.shared + need.cache + SPARE_BYTES + free / 16;
    let work = |rows: usize| need.row.saturating_mul(rows as u64);
    // A step takes as much of a prompt as there is memory for, so that a prompt reads each expert once.
    let rows = |bytes: u64| {
        usize::try_from(bytes / need.row.max(1)).unwrap_or(context).clamp(STEP_ROWS, context.max(STEP_ROWS))
    };
    match wanted {
        ExpertCache::Bytes(bytes) if bytes >= need.experts => Ok(in_memory),
        ExpertCache::Bytes(bytes) if bytes < need.least => Err(usage(
            format!("--expert-cache {bytes} holds no expert: one with its buffers takes {} bytes", need.least),
            format!("give at least --expert-cache {}M", need.least.div_ceil(1 << 20)),
        )),
        ExpertCache::Bytes(bytes) => {
            let step_rows = rows(free.saturating_sub(fixed).saturating_sub(bytes));
            Ok(Placement { cache_bytes: Some(bytes), step_rows })
        }
        ExpertCache::Auto if free >= fixed.saturating_add(need.experts).saturating_add(work(STEP_ROWS)) => {
            Ok(in_memory)
        }
        ExpertCache::Auto => {
            let left = free.saturating_sub(fixed);
            let step_rows = rows(left / 4);
            let bytes = left.saturating_sub(work(step_rows));
            if bytes < need.least {
                let least = need.shared + need.cache + SPARE_BYTES + work(STEP_ROWS) + need.least;
                let message = format!("{} of memory are free; this model needs {}", size(free), size(least / 15 * 16));
                return Err(no_memory(message, "give a smaller --ctx, end other programs, or use a smaller model"));
            }
            Ok(Placement { cache_bytes: Some(bytes.min(need.experts)), step_rows })
        }
    }
}

impl Placement {
    /// `dev` with the cache, if there is to be one.
    pub fn apply(self, dev: Cpu) -> Cpu {
        match self.cache_bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
            Some(bytes) => dev.with_expert_cache(bytes),
            None => dev,
        }
    }
}

/// Says so if weights that should stay in memory may be paged out.
pub fn warn_unlocked(stats: Option<ExpertStats>) {
    if stats.is_some_and(|stats| !stats.is_locked) {
        eprintln!(
            "note: the system does not let weights be locked in memory, so it may page them out (see `ulimit -l`)"
        );
    }
}

impl Need {
    fn of(checkpoint: &Checkpoint, demand: &Demand<'_>) -> Self {
        let Memory { always, experts, kv, work, .. } = demand.memory;
        let rows = demand.ask.context.clamp(1, STEP_ROWS);
        Self {
            shared: always as u64,
            experts: experts as u64,
            least: least(checkpoint),
            cache: kv as u64,
            row: work.div_ceil(rows) as u64,
        }
    }
}

/// Bytes of a cache that holds one expert of one layer, with the buffers that reading and packing it takes.
fn least(checkpoint: &Checkpoint) -> u64 {
    let (mut one, mut buffers) = (0, 0);
    for tensor in checkpoint.tensors.values().filter(|tensor| is_routed(&tensor.name)) {
        if let Some(n_experts) = tensor.shape.first().filter(|n_experts| **n_experts > 1) {
            let n_experts = *n_experts as u64;
            // Every layer's experts are as large as the others'.
            let room = Bytes::room(usize::try_from(in_memory(tensor) / n_experts).unwrap_or(0)) as u64;
            one = one.max(room);
            if matches!(tensor.dtype, DType::Weight(_)) {
                buffers = buffers.max(Bytes::room(tensor.bytes.len()) as u64 / n_experts + room / 64);
            }
        }
    }
    // Gate, up and down are equally large; two stored units of gate and up wait to be packed.
    3 * one + 4 * buffers
}

/// Whether the tensor holds routed experts, by the names of either kind of file.
fn is_routed(name: &str) -> bool {
    name.contains("_exps.") || name.contains(".experts.")
}

/// Bytes of a tensor once it is loaded.
fn in_memory(tensor: &Tensor) -> u64 {
    let bytes = match (tensor.dtype, tensor.shape.as_slice()) {
        (DType::Weight(format), [matrices @ .., n_out, n_in]) => {
            packed::size_bytes(format, [matrices.iter().product(), *n_out, *n_in])
        }
        _ => None,
    };
    bytes.unwrap_or(tensor.bytes.len()) as u64
}

/// What the cache did, as JSON.
pub fn json(stats: &ExpertStats) -> serde_json::Value {
    json!({
        "asked": stats.n_asked, "hits": stats.n_hits, "hit_rate": hit_rate(stats), "bytes_read": stats.bytes_read,
        "disk_bytes_per_s": disk_rate(stats), "reading_s": stats.reading.as_secs_f64(),
        "waiting_s": stats.waiting.as_secs_f64(), "cache_bytes": stats.cache_bytes, "locked": stats.is_locked,
    })
}

/// What the cache did, in a line.
pub fn text(stats: &ExpertStats) -> String {
    format!(
        "experts: {} of {} in memory ({:.0} %), {} read at {}/s, waited {:.2} s; the cache holds {}",
        stats.n_hits,
        stats.n_asked,
        100.0 * hit_rate(stats),
        size(stats.bytes_read),
        size(disk_rate(stats) as u64),
        stats.waiting.as_secs_f64(),
        size(stats.cache_bytes as u64),
    )
}

/// Of the experts that rows went through, the share that was in memory.
pub fn hit_rate(stats: &ExpertStats) -> f64 {
    stats.n_hits as f64 / stats.n_asked.max(1) as f64
}

/// Bytes read in a second of reading.
pub fn disk_rate(stats: &ExpertStats) -> f64 {
    let seconds = stats.reading.as_secs_f64();
    if seconds > 0.0 { (stats.bytes_read as f64 / seconds).round() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: Need = Need { shared: 1 << 30, experts: 8 << 30, least: 100 << 20, cache: 1 << 29, row: 1 << 18 };

    #[test]
    fn everything_in_memory_if_it_fits_else_what_is_left() {
        let auto = |free| place(ExpertCache::Auto, NEED, 4096, free);
        assert_eq!(auto(None).ok().map(|p| p.cache_bytes), Some(None));
        assert_eq!(auto(Some(16 << 30)).ok(), Some(Placement { cache_bytes: None, step_rows: STEP_ROWS }));
        let placed = auto(Some(6 << 30)).expect("some fit");
        let bytes = placed.cache_bytes.expect("a cache");
        let all = NEED.shared + NEED.cache + bytes + NEED.row * placed.step_rows as u64;
        assert!(all < 6 << 30 && all > 5 << 30, "{all}");
        // A quarter of what is left goes to the rows of a step, which are all rows if there is that much.
        assert_eq!(placed.step_rows, 4096);
        assert!(auto(Some(2 << 30)).is_ok_and(|p| p.step_rows < 4096));
        assert!(auto(Some(1 << 30)).is_err_and(|e| e.to_string().contains("1.00 GiB of memory are free")));
    }

    #[test]
    fn a_cache_that_holds_no_expert_is_refused_with_the_least_that_does() {
        let of = |bytes| place(ExpertCache::Bytes(bytes), NEED, 4096, Some(16 << 30));
        assert_eq!(of(2 << 30).ok().and_then(|p| p.cache_bytes), Some(2 << 30));
        assert_eq!(of(8 << 30).ok().map(|p| p.cache_bytes), Some(None));
        assert!(of((100 << 20) - 1).is_err_and(|e| e.to_string().contains("holds no expert")));
        assert_eq!((parse("auto"), parse("2G")), (Ok(ExpertCache::Auto), Ok(ExpertCache::Bytes(2 << 30))));
        assert!(parse("much").is_err_and(|why| why.contains("\"much\"")));
    }
}
