//! `puna bench`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use comfy_table::{Table, presets};
use cpu::{Cpu, Roofs};
use serde_json::{Value, json};

use crate::bench::ours::{Ours, Share};
use crate::bench::peer::LlamaCpp;
use crate::bench::{Engine, Test, median};
use crate::failure::usage;
use crate::model;
use crate::output::line;
use crate::plan::forecast::{Ask, Memory, Speed};
use crate::plan::subject::Subject;
use crate::plan::{self, learned, system};

/// Measure speed: reading prompts, decoding, loading, and the share of what the machine allows
///
/// Roofs (memory, int8, f32) are measured in the same run. With --against, another engine runs the same tests in
/// alternation, and ratios of neighbouring runs are printed with their spread.
#[derive(clap::Args)]
pub struct Bench {
    /// A GGUF file or a Hugging Face folder
    #[arg(short, long, env = "PUNA_MODEL", required_unless_present = "roofs")]
    model: Option<PathBuf>,
    /// Only measure what the machine allows
    #[arg(long)]
    roofs: bool,
    /// Lengths of prompts to read
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "64,512,2048")]
    prefill: Vec<usize>,
    /// Tokens already there when decoding
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "0,2048,8192")]
    depth: Vec<usize>,
    /// Sequences that decode together
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8,16")]
    batch: Vec<usize>,
    /// Steps of a decoding test
    #[arg(long, value_name = "N", default_value_t = 64)]
    tokens: usize,
    /// Runs of each test, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Another engine to alternate with
    #[arg(long, value_name = "ENGINE")]
    against: Option<Peer>,
    /// The Python that has the other engine
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Forecast each figure first, from rates measured in the same minute, and print both
    #[arg(long)]
    forecast: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// How keys and values are stored
    #[command(flatten)]
    cache: model::CacheArguments,
    #[command(flatten)]
    device: model::DeviceArguments,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// llama.cpp, from the Python wheel of this name
    Xllamacpp,
}

/// One test's figures.
struct Row {
    test: Test,
    /// Seconds of every run.
    ours: Vec<f64>,
    /// The other engine's.
    theirs: Vec<f64>,
    share: Share,
    /// Seconds that were forecast.
    forecast: Option<f64>,
}

/// A loaded model, what is known of it, and what loading it took.
struct Loaded {
    ours: Ours,
    subject: Subject,
    memory: Memory,
    key: learned::Key,
    load_s: f64,
}

impl Row {
    fn speed(&self, seconds: &[f64]) -> f64 {
        self.test.n_tokens() as f64 / median(seconds)
    }

    /// The ratios of neighbouring runs: median, least, most.
    fn ratios(&self) -> Option<[f64; 3]> {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| theirs / ours).collect();
        let least = ratios.iter().copied().reduce(f64::min)?;
        let most = ratios.iter().copied().reduce(f64::max)?;
        Some([median(&ratios), least, most])
    }

    fn json(&self, threads: usize) -> Value {
        let [tokens, depth, batch] = self.test.numbers();
        let mut object = json!({
            "test": self.test.name(), "tokens": tokens, "depth": depth, "batch": batch, "threads": threads,
            "tok_per_s": round(self.speed(&self.ours)), "roof": self.share.roof,
            "roof_share": round(self.share.share), "runs_s": self.ours,
        });
        if let Some(seconds) = self.forecast {
            object["forecast_tok_per_s"] = json!(round(self.test.n_tokens() as f64 / seconds));
        }
        if let Some([ratio, least, most]) = self.ratios() {
            object["against"] = json!({
                "tok_per_s": round(self.speed(&self.theirs)), "ratio": round(ratio), "least": round(least),
                "most": round(most), "runs_s": self.theirs,
            });
        }
        object
    }
}

/// Four significant digits.
fn round(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

impl Bench {
    pub fn run(self) -> Result<()> {
        let dev = self.device.open();
        let (threads, isa) = (dev.threads(), dev.isa());
        if self.roofs || self.model.is_none() {
            let roofs = dev.roofs(Duration::from_secs(2));
            return self.print_roofs(&roofs, threads, &format!("{isa:?}"));
        }
        let tests = self.tests()?;
        let context = tests.iter().map(|test| test.n_positions()).max().unwrap_or(0) + tensor::PAGE_LEN;
        let Loaded { mut ours, subject, memory, key, load_s } = self.load(dev, context)?;
        let mut theirs = match self.against {
            Some(Peer::Xllamacpp) => {
                let path = self.model.as_deref().unwrap_or(std::path::Path::new(""));
                Some(LlamaCpp::start(&self.python, path, threads, context)?)
            }
            None => None,
        };
        if let Some(theirs) = &theirs {
            eprintln!("against llama.cpp {}", theirs.version());
        }
        let mut rows = Vec::new();
        let mut peak = system::process("VmHWM:");
        for test in tests {
            let row = self.measure(test, &mut ours, theirs.as_mut(), &subject)?;
            // Counted anew since the roofs were measured, whose buffers are not the model's.
            peak = peak.max(system::process("VmHWM:"));
            if self.json {
                line(&row.json(threads).to_string())?;
            }
            rows.push(row);
        }
        let figures: Vec<learned::Figure> =
            rows.iter().map(|row| learned::Figure { test: row.test, seconds: median(&row.ours) }).collect();
        learned::store(key, &figures);
        let work = ours.work_bytes();
        if self.json {
            let load = json!({"test": "load", "seconds": round(load_s), "peak_bytes": peak,
                "forecast_peak_bytes": memory.peak(), "work_bytes": work, "forecast_work_bytes": memory.work});
            return Ok(line(&load.to_string())?);
        }
        print_table(&rows)?;
        let gb = |bytes: f64| format!("{:.2} GB", bytes / 1e9);
        let peak = peak.map_or("unknown".to_owned(), |peak| gb(peak as f64));
        let forecast = gb(memory.peak() as f64);
        Ok(line(&format!("load {load_s:.2} s, peak memory {peak} (forecast {forecast}), {threads} threads, {isa:?}"))?)
    }

    fn tests(&self) -> Result<Vec<Test>> {
        if self.runs == 0 || self.tokens == 0 || self.batch.contains(&0) || self.prefill.contains(&0) {
            return Err(usage("--runs, --tokens, --batch and --prefill count from 1", "leave out what is not wanted"));
        }
        let mut tests: Vec<Test> =
            self.prefill.iter().map(|tokens| Test::Prefill { tokens: *tokens, depth: 0 }).collect();
        let tokens = self.tokens;
        tests.extend(self.depth.iter().map(|depth| Test::Decode { tokens, depth: *depth, batch: 1 }));
        let batches = self.batch.iter().filter(|batch| **batch > 1 || !self.depth.contains(&0));
        tests.extend(batches.map(|batch| Test::Decode { tokens, depth: 0, batch: *batch }));
        Ok(tests)
    }

    fn load(&self, dev: Cpu, context: usize) -> Result<Loaded> {
        let process_bytes = plan::process_bytes();
        let path = self.model.as_deref().unwrap_or(std::path::Path::new(""));
        let began = Instant::now();
        let checkpoint = model::open_checkpoint(path, None)?;
        let kv = self.cache.kv(context);
        plan::check(&checkpoint, context, kv)?;
        let subject = Subject::stored("", &checkpoint)?;
        let n_sequences = self.batch.iter().copied().max().unwrap_or(1);
        // All sequences share one context here, so the keys and values are those of one long sequence.
        let ask = Ask { context, n_sequences: 1, kv, n_images: 0, process_bytes };
        let work = plan::forecast::work(&subject, &Ask { n_sequences, ..ask })?;
        let memory = Memory { work, ..Memory::of(&subject, &ask)? };
        let key = learned::Key::new(&dev, path, subject.disk_bytes);
        let loaded = model::load(&dev, &checkpoint)?;
        let engine = engine::Engine::new(dev, loaded, context, kv)?;
        let ours = Ours::new(engine, subject.footprint.clone());
        Ok(Loaded { ours, subject, memory, key, load_s: began.elapsed().as_secs_f64() })
    }

    fn measure(
        &self,
        test: Test,
        ours: &mut Ours,
        mut theirs: Option<&mut LlamaCpp>,
        subject: &Subject,
    ) -> Result<Row> {
        // Of the same minute as the test: memory's rate drifts on shared machines.
        let roofs = ours.roofs(Duration::from_millis(400));
        let forecast = match self.forecast {
            true => {
                let kv = ours.kv();
                let machine = plan::probe::measure(ours.device(), &plan::formats(subject), kv)?;
                Some(Speed { subject, machine: &machine, kv, hit: 1.0 }.test(test)?)
            }
            false => None,
        };
        system::reset_peak();
        let (mut seconds, mut other) = (Vec::new(), Vec::new());
        for run in 0..=self.runs {
            let mine = ours.run(test)?;
            let its = theirs.as_deref_mut().map(|theirs| theirs.run(test)).transpose()?;
            if run > 0 {
                seconds.push(mine);
                other.extend(its);
            }
        }
        let share = ours.share(test, median(&seconds), &roofs)?;
        Ok(Row { test, ours: seconds, theirs: other, share, forecast })
    }

    fn print_roofs(&self, roofs: &Roofs, threads: usize, isa: &str) -> Result<()> {
        let Roofs { memory, int8, f32, barrier } = *roofs;
        if self.json {
            let object = json!({
                "test": "roofs", "threads": threads, "isa": isa, "memory_bytes_per_s": round(memory),
                "int8_per_s": round(int8), "f32_per_s": round(f32), "barrier_s": round(barrier),
            });
            return Ok(line(&object.to_string())?);
        }
        line(&format!("memory   {:8.1} GB/s", memory / 1e9))?;
        line(&format!("int8     {:8.0} GOP/s", int8 / 1e9))?;
        line(&format!("f32      {:8.0} GFLOP/s", f32 / 1e9))?;
        line(&format!("barrier  {:8.0} ns", barrier * 1e9))?;
        Ok(line(&format!("{threads} threads, {isa}"))?)
    }
}

fn print_table(rows: &[Row]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let against = rows.iter().any(|row| !row.theirs.is_empty());
    let mut header = vec!["test", "tokens", "depth", "batch", "tok/s", "roof", "share"];
    let forecast = rows.iter().any(|row| row.forecast.is_some());
    if forecast {
        header.extend(["forecast", "error"]);
    }
    if against {
        header.extend(["other tok/s", "ratio", "spread"]);
    }
    table.set_header(header);
    for row in rows {
        let [tokens, depth, batch] = row.test.numbers();
        let mut cells = vec![
            row.test.name().to_owned(),
            tokens.to_string(),
            depth.to_string(),
            batch.to_string(),
            format!("{:.1}", row.speed(&row.ours)),
            row.share.roof.to_owned(),
            format!("{:.0} %", 100.0 * row.share.share),
        ];
        if let Some(seconds) = row.forecast {
            cells.push(format!("{:.1}", row.test.n_tokens() as f64 / seconds));
            cells.push(format!("{:+.0} %", 100.0 * (median(&row.ours) / seconds - 1.0)));
        }
        if let Some([ratio, least, most]) = row.ratios() {
            cells.push(format!("{:.1}", row.speed(&row.theirs)));
            cells.push(format!("{ratio:.2} ×"));
            cells.push(format!("{least:.2}…{most:.2}"));
        }
        table.add_row(cells);
    }
    Ok(line(&table.to_string())?)
}
