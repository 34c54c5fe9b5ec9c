//! The arithmetic: memory, and time from what a step reads and multiplies.

use anyhow::Result;
use cpu::{Map, Op};
use engine::{CachePlan, STEP_ROWS};
use formats::config::Ffn;
use llama::{Batch, Input, PageRun, Row};
use tensor::{KvFormat, PAGE_LEN};

use super::machine::{GIB, Machine};
use super::subject::Subject;
use crate::bench::Test;

/// Rows that one sweep over a map serves: beyond, its weights are read again.
const SWEEP_ROWS: f64 = 64.0;
/// Share of the last-level cache that a model may take and still be read from there.
const CACHE_SHARE: f64 = 0.8;
/// Pieces of a prompt that are forecast one by one; of longer prompts three stand for all.
const MOST_PIECES: usize = 32;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Positions of each sequence.
    pub context: usize,
    /// Sequences at a time.
    pub n_sequences: usize,
    /// How keys and values are stored.
    pub kv: KvFormat,
    /// Images in a conversation.
    pub n_images: usize,
    /// Tiles of each of them.
    pub n_tiles: usize,
    /// Bytes that this process takes before any model is there.
    pub process_bytes: usize,
}

/// Bytes of memory, by what takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Packed weights that every row needs, and the embedding table, which stays in its file.
    pub always: usize,
    /// Packed routed experts.
    pub experts: usize,
    /// Keys and values.
    pub kv: usize,
    /// Buffers of steps and of the vision tower, images' rows.
    pub work: usize,
    /// The process itself.
    pub process: usize,
    /// Of the embedding table, what nobody will have looked at.
    pub untouched: usize,
}

/// How a model and a machine go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is in memory.
    Fits,
    /// Some experts are read from disk as they are needed.
    Streams,
    /// Not even that.
    DoesNotFit,
}

impl Verdict {
    /// As the table prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fits => "FITS",
            Self::Streams => "FITS, streaming",
            Self::DoesNotFit => "DOES NOT FIT",
        }
    }
}

impl Memory {
    /// Of `subject` as `ask` wants it.
    ///
    /// # Errors
    /// If the context can not be counted.
    pub fn of(subject: &Subject, ask: &Ask) -> Result<Self> {
        let plan = CachePlan::for_sequences(&subject.model, ask.context, ask.n_sequences, ask.kv, STEP_ROWS)?;
        Ok(Self {
            always: subject.fixed_bytes() + subject.weights.tables + subject.header_bytes,
            experts: subject.expert_bytes(),
            kv: plan.bytes,
            work: work(subject, ask)?,
            process: ask.process_bytes,
            untouched: untouched_tables(subject, ask.context),
        })
    }

    /// All that has to be in memory for nothing to be read from disk.
    pub fn need(&self) -> usize {
        self.without_experts() + self.experts
    }

    /// The same without experts.
    pub fn without_experts(&self) -> usize {
        self.always + self.kv + self.work + self.process
    }

    /// What the process will be seen to take at most.
    pub fn peak(&self) -> usize {
        self.need() - self.untouched
    }

    /// Bytes of experts that are in memory if `room` is free for this process in all, and what that means. Streaming
    /// needs the experts of one row.
    pub fn place(&self, subject: &Subject, room: usize) -> (usize, Verdict) {
        let cached = room.saturating_sub(self.without_experts()).min(self.experts);
        if room < self.without_experts() {
            (0, Verdict::DoesNotFit)
        } else if cached == self.experts {
            (cached, Verdict::Fits)
        } else if cached >= subject.footprint.chosen_bytes() {
            (cached, Verdict::Streams)
        } else {
            (cached, Verdict::DoesNotFit)
        }
    }
}

/// Bytes of tables that nobody looks at while `n_tokens` random rows are read: a fault maps the pages around it too.
fn untouched_tables(subject: &Subject, n_tokens: usize) -> usize {
    /// Bytes that Linux maps around a fault in a file, its default.
    const AROUND: f64 = 65536.0;
    let tables = subject.weights.tables as f64;
    if tables == 0.0 {
        return 0;
    }
    (tables * (-(n_tokens as f64) * AROUND / tables).exp()) as usize
}

/// Bytes of the buffers that steps need, found by taking the largest ones without numbers.
///
/// # Errors
/// If a step refuses.
pub fn work(subject: &Subject, ask: &Ask) -> Result<usize> {
    let mut images = 0;
    if let Some(vision) = subject.model.vision.as_ref().filter(|_| ask.n_images > 0) {
        let tile = vision.tile();
        vision.forward(&subject.dev, &vec![0.0; 3 * tile * tile], &mut ())?;
        if let Some(config) = &subject.config.vision {
            let n_rows = (config.grid() * config.grid() + 1).next_multiple_of(PAGE_LEN);
            // Keys and values of the tower, the pixels of all tiles of one image twice, and the rows of every image.
            let pixels = 2 * 3 * tile * tile * ask.n_tiles;
            let rows = ask.n_images * ask.n_tiles * config.tokens_per_tile() * subject.config.text.hidden_size;
            images = 4 * (2 * n_rows * config.hidden_size + pixels + rows);
        }
    }
    step(subject, ask.kv, 1, [0, ask.context.min(STEP_ROWS)])?;
    step(subject, ask.kv, ask.n_sequences, [0, 1])?;
    subject.dev.take_log();
    Ok(subject.dev.peak_bytes() + images)
}

/// Tiles of the largest image: a canvas of sixteen and the whole once more.
pub const MOST_TILES: usize = 17;

/// Takes `n_sequences` that hold `depth` positions `n_rows` further, without numbers.
fn step(subject: &Subject, kv: KvFormat, n_sequences: usize, [depth, n_rows]: [usize; 2]) -> Result<Vec<Op>> {
    let decoder = &subject.model.decoder;
    let end = depth + n_rows;
    let chunk_begin = decoder.chunk().map_or(0, |chunk| depth - depth % chunk);
    let pages = |begin: usize| (0..u32::try_from((end - begin).div_ceil(PAGE_LEN)).unwrap_or(u32::MAX)).collect();
    // A list for each sequence: what lies in the same pages is read once.
    let lists = |begin| (0..n_sequences).map(|_| pages(begin)).collect::<Vec<Vec<u32>>>();
    let chunk_page = chunk_begin / PAGE_LEN * PAGE_LEN;
    let (global, chunked) = (lists(0), lists(chunk_page));
    let mut rows = Vec::with_capacity(n_sequences * n_rows);
    for (global, chunked) in global.iter().zip(&chunked) {
        rows.extend((depth..end).map(|position| Row {
            input: Input::Token(0),
            position,
            global: PageRun { pages: global, first_position: 0 },
            chunked: PageRun { pages: chunked, first_position: chunk_page },
            wants_logits: position + 1 == end,
        }));
    }
    let dev = &subject.dev;
    dev.take_log();
    let mut cache = decoder.cache(dev, end.div_ceil(PAGE_LEN), end.div_ceil(PAGE_LEN), kv)?;
    let logits = decoder.forward(dev, &mut cache, &Batch { rows: &rows, features: &[] }, &mut ())?;
    logits.map(|logits| tensor::Device::download(dev, &logits));
    Ok(dev.take_log())
}

/// Seconds of computing and of reading experts from disk, which may or may not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Time {
    /// Arithmetic and memory.
    pub compute_s: f64,
    /// The disk.
    pub disk_s: f64,
}

impl Time {
    /// If nothing overlaps.
    pub fn slow(self) -> f64 {
        self.compute_s + self.disk_s
    }

    /// If all that can overlaps.
    pub fn fast(self) -> f64 {
        self.compute_s.max(self.disk_s)
    }
}

/// A model on a machine.
#[derive(Clone, Copy)]
pub struct Speed<'a> {
    /// The model.
    pub subject: &'a Subject,
    /// The machine.
    pub machine: &'a Machine,
    /// How keys and values are stored.
    pub kv: KvFormat,
    /// Share of the experts that is in memory, and so of the reads that find one there if routing is uniform: the worst
    /// case.
    pub hit: f64,
}

impl Speed<'_> {
    /// One step of `n_sequences` that hold `depth` positions each.
    ///
    /// # Errors
    /// As [`Memory::of`].
    pub fn decode(&self, depth: usize, n_sequences: usize) -> Result<Time> {
        let ops = step(self.subject, self.kv, n_sequences, [depth, 1])?;
        Ok(Time { compute_s: self.seconds(&ops), disk_s: self.disk(routed(&ops)) })
    }

    /// Reading a prompt of `n_tokens` after `depth` others, in the engine's pieces. Experts that are not in memory are
    /// read once.
    ///
    /// # Errors
    /// As [`Memory::of`].
    pub fn prefill(&self, n_tokens: usize, depth: usize) -> Result<Time> {
        let piece = |index: usize| -> Result<f64> {
            let begin = index * STEP_ROWS;
            let n_rows = STEP_ROWS.min(n_tokens - begin);
            Ok(self.seconds(&step(self.subject, self.kv, 1, [depth + begin, n_rows])?))
        };
        let n_pieces = n_tokens.div_ceil(STEP_ROWS);
        let compute_s = if n_pieces <= MOST_PIECES {
            (0..n_pieces).map(piece).sum::<Result<f64>>()?
        } else {
            // What a piece takes grows in proportion to its depth: Simpson's rule is exact.
            let [first, middle, last] = [piece(0)?, piece(n_pieces / 2)?, piece(n_pieces - 2)?];
            n_pieces as f64 * (first + 4.0 * middle + last) / 6.0
        };
        let touched: f64 = self
            .subject
            .footprint
            .routed
            .iter()
            .map(|routed| {
                let n = routed.n_experts as f64;
                let share = 1.0 - (1.0 - routed.top_k as f64 / n).powf(n_tokens as f64);
                share * n * routed.one.bytes as f64
            })
            .sum();
        Ok(Time { compute_s, disk_s: self.disk(touched) })
    }

    /// One tile through the vision tower.
    ///
    /// # Errors
    /// If the tower refuses its own shape.
    pub fn tile(&self) -> Result<Option<f64>> {
        let Some(vision) = &self.subject.model.vision else { return Ok(None) };
        let tile = vision.tile();
        self.subject.dev.take_log();
        vision.forward(&self.subject.dev, &vec![0.0; 3 * tile * tile], &mut ())?;
        Ok(Some(self.seconds(&self.subject.dev.take_log())))
    }

    /// Seconds of one of `puna bench`'s tests.
    ///
    /// # Errors
    /// As [`Memory::of`].
    pub fn test(&self, test: Test) -> Result<f64> {
        Ok(match test {
            Test::Prefill { tokens, depth } => self.prefill(tokens, depth)?.slow(),
            Test::Decode { tokens, depth, batch } => tokens as f64 * self.decode(depth + tokens / 2, batch)?.slow(),
            Test::Tile { .. } => self.tile()?.unwrap_or(f64::NAN),
            // Not forecast.
            Test::Clip { .. } => f64::NAN,
        })
    }

    fn disk(&self, bytes: f64) -> f64 {
        let missing = (1.0 - self.hit) * bytes;
        if missing <= 0.0 {
            return 0.0;
        }
        self.machine.disk_gb_s.map_or(f64::INFINITY, |rate| missing / (1e9 * rate))
    }

    fn seconds(&self, ops: &[Op]) -> f64 {
        let all: f64 = ops
            .iter()
            .map(|op| match op {
                Op::Linear(map) => map.bytes,
                Op::Attention { bytes, .. } => *bytes,
                Op::Values { .. } => 0.0,
            })
            .sum();
        let in_cache = all <= CACHE_SHARE * self.machine.cache_mib * f64::from(1 << 20);
        ops.iter().map(|op| self.op(op, in_cache)).sum()
    }

    fn op(&self, op: &Op, in_cache: bool) -> f64 {
        let machine = self.machine;
        let overhead = machine.overhead_us / 1e6;
        let from = match (in_cache, machine.cache_gb_s) {
            (true, Some(rate)) => 1e9 * rate,
            _ => 1e9 * machine.memory_gb_s,
        };
        match *op {
            Op::Linear(map) => overhead + self.map(&map, in_cache.then_some(from)),
            Op::Attention { products, n_rows, bytes } => {
                overhead + (products / machine.attention(n_rows)).max(bytes / from)
            }
            // Spread over threads only where that is worth it.
            Op::Values { n } => overhead / 4.0 + n as f64 / machine.values(),
        }
    }

    /// Rows through maps: reading them or multiplying, whichever takes longer.
    fn map(&self, map: &Map, cache: Option<f64>) -> f64 {
        let kernel = self.machine.kernel(map.format);
        let rows = (map.n_rows as f64 / map.n_matrices.max(1e-9)).max(1.0);
        let one_matrix = map.n_out as f64 * map.n_in as f64;
        // Of each weight: taking it apart once for up to eight rows, and multiplying it with each. Both follow from the
        // rates at one row and at many: 1/one = apart + row, 1/many = apart/8 + row.
        let (one, many) = (1.0 / (1e9 * kernel.one_row_g_s), 1.0 / (1e9 * kernel.many_rows_g_s));
        let apart = ((one - many) * 8.0 / 7.0).clamp(0.0, 8.0 * many);
        let row = many - apart / 8.0;
        let multiply = map.n_matrices * one_matrix * (apart * (rows / 8.0).ceil() + row * rows);
        let read = map.bytes * (rows / SWEEP_ROWS).ceil() / cache.unwrap_or(1e9 * kernel.memory_gb_s);
        multiply.max(read)
    }
}

/// Bytes of experts that `ops` read.
fn routed(ops: &[Op]) -> f64 {
    let bytes = |op: &Op| match op {
        Op::Linear(map) if map.routed => map.bytes,
        _ => 0.0,
    };
    ops.iter().map(bytes).sum()
}

/// Bytes of weights that a decoded token reads.
pub fn token_bytes(subject: &Subject) -> usize {
    let footprint = &subject.footprint;
    footprint.every_row.bytes + footprint.output.bytes + footprint.chosen_bytes()
}

/// Bytes of one expert.
pub fn one_expert_bytes(subject: &Subject) -> usize {
    subject.footprint.routed.first().map_or(0, |routed| routed.one.bytes)
}

/// Tokens of the largest image: every tile's rows, and its separators.
pub fn image_tokens(subject: &Subject) -> usize {
    subject.config.vision.as_ref().map_or(0, |vision| MOST_TILES * (vision.tokens_per_tile() + 1) + 2)
}

/// Whether the model has routed experts.
pub fn is_moe(subject: &Subject) -> bool {
    subject.config.text.layers.iter().any(|layer| matches!(layer.ffn, Ffn::Moe { .. }))
}

/// `gib` in bytes.
pub fn bytes(gib: f64) -> usize {
    (gib * GIB) as usize
}
