//! Figures as a table and as JSON lines.

use std::time::Duration;

use anyhow::Result;
use comfy_table::{Table, presets};
use cpu::{ExpertStats, Roofs};
use serde_json::{Value, json};

use super::ours::Share;
use super::{Test, median};
use crate::output::line;
use crate::{experts, memory, plan};

/// What one engine's runs of a test took.
#[derive(Debug, Default)]
pub struct Runs {
    /// Seconds of every run.
    pub seconds: Vec<f64>,
    /// Processor seconds that others took meanwhile, in all runs together, where that is known.
    pub others_s: Option<f64>,
    /// How the engine was set, where it has more than one setting.
    pub setting: Option<String>,
}

/// One test's figures.
pub struct Row {
    /// What was measured.
    pub test: Test,
    /// This engine's.
    pub ours: Runs,
    /// The other engine's, where there is one.
    pub theirs: Option<Runs>,
    /// Of what the machine allowed in the same minute.
    pub share: Share,
    /// What the machine allowed.
    pub roofs: Roofs,
    /// What the cache of experts did in our runs, if there is one.
    pub experts: Option<ExpertStats>,
    /// Seconds that were forecast, where that was asked for.
    pub forecast: Option<f64>,
}

impl Row {
    fn speed(&self, runs: &Runs) -> f64 {
        self.test.n_tokens() as f64 / median(&runs.seconds)
    }

    /// The ratios of neighbouring runs: median, least, most.
    fn ratios(&self) -> Option<[f64; 3]> {
        let theirs = self.theirs.as_ref()?;
        let pairs = self.ours.seconds.iter().zip(&theirs.seconds);
        let ratios: Vec<f64> = pairs.map(|(ours, theirs)| theirs / ours).collect();
        let least = ratios.iter().copied().reduce(f64::min)?;
        let most = ratios.iter().copied().reduce(f64::max)?;
        Some([median(&ratios), least, most])
    }

    /// One object.
    pub fn json(&self, threads: usize) -> Value {
        let [tokens, depth, batch] = self.test.numbers();
        let mut object = json!({
            "test": self.test.name(), "tokens": tokens, "depth": depth, "batch": batch, "threads": threads,
            "tok_per_s": round(self.speed(&self.ours)), "roof": self.share.roof,
            "roof_share": round(self.share.share), "runs_s": self.ours.seconds,
            "others_cpu_s": self.ours.others_s.map(round),
            "roofs": roofs_json(&self.roofs),
        });
        if let (Some([ratio, least, most]), Some(theirs)) = (self.ratios(), &self.theirs) {
            object["against"] = json!({
                "tok_per_s": round(self.speed(theirs)), "ratio": round(ratio), "least": round(least),
                "most": round(most), "runs_s": theirs.seconds, "others_cpu_s": theirs.others_s.map(round),
                "setting": theirs.setting,
            });
        }
        if let Some(seconds) = self.forecast {
            object["forecast_tok_per_s"] = json!(round(self.test.n_tokens() as f64 / seconds));
        }
        if let Some(stats) = &self.experts {
            object["experts"] = experts::json(stats);
        }
        object
    }
}

/// Memory of this process in bytes, where the system says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// The most that was resident at a time.
    pub peak: Option<u64>,
    /// Resident now: of its own, and of mapped files.
    pub now: Option<(u64, u64)>,
    /// Buffers that steps have needed so far.
    pub work: usize,
    /// Forecasts of the peak and of the buffers.
    pub forecast: Option<[u64; 2]>,
}

impl Memory {
    /// Before anything is known but the forecast.
    pub fn forecast(forecast: Option<plan::forecast::Memory>) -> Self {
        Self {
            forecast: forecast.map(|memory| [memory.peak(), memory.work].map(|bytes| bytes as u64)),
            ..Self::default()
        }
    }

    /// With what is resident now.
    pub fn now(self) -> Self {
        Self { now: memory::resident_bytes(), ..self }
    }
}

/// What it took to be ready.
pub struct Load {
    /// Seconds until the weights were where they compute.
    pub seconds: f64,
    /// Seconds from the same beginning until there were logits after a first token.
    pub first_token_s: f64,
    /// After all tests.
    pub memory: Memory,
}

impl Load {
    /// One object.
    pub fn json(&self, threads: usize) -> Value {
        let (own, mapped) = self.memory.now.unzip();
        let (forecast, forecast_work) = self.memory.forecast.map(|[peak, work]| (peak, work)).unzip();
        json!({
            "test": "load", "threads": threads, "seconds": round(self.seconds),
            "first_token_s": round(self.first_token_s), "peak_bytes": self.memory.peak, "own_bytes": own,
            "mapped_bytes": mapped, "forecast_peak_bytes": forecast, "work_bytes": self.memory.work,
            "forecast_work_bytes": forecast_work,
        })
    }

    /// One line.
    pub fn text(&self) -> String {
        let text = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), memory::size);
        let (own, mapped) = self.memory.now.unzip();
        let (peak, own, mapped) = (text(self.memory.peak), text(own), text(mapped));
        let forecast =
            self.memory.forecast.map_or(String::new(), |[peak, _]| format!(" (forecast {})", memory::size(peak)));
        format!(
            "load {:.2} s, first token after {:.2} s\nmemory: {peak} at most{forecast}; now {own} of its own, {mapped} of mapped files",
            self.seconds, self.first_token_s
        )
    }
}

/// Four significant digits.
pub fn round(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn roofs_json(roofs: &Roofs) -> Value {
    let Roofs { memory, int8, f32, barrier } = *roofs;
    json!({
        "memory_bytes_per_s": round(memory), "int8_per_s": round(int8), "f32_per_s": round(f32),
        "barrier_s": round(barrier),
    })
}

/// Prints what the machine allows, as an object or as lines.
///
/// # Errors
/// If standard output is closed.
pub fn print_roofs(roofs: &Roofs, threads: usize, isa: &str, as_json: bool) -> Result<()> {
    if as_json {
        let mut object = json!({"test": "roofs", "threads": threads, "isa": isa});
        if let (Some(object), Value::Object(roofs)) = (object.as_object_mut(), roofs_json(roofs)) {
            object.extend(roofs);
        }
        return Ok(line(&object.to_string())?);
    }
    line(&format!("memory   {:8.1} GB/s", roofs.memory / 1e9))?;
    line(&format!("int8     {:8.0} GOP/s", roofs.int8 / 1e9))?;
    line(&format!("f32      {:8.0} GFLOP/s", roofs.f32 / 1e9))?;
    line(&format!("barrier  {:8.0} ns", Duration::from_secs_f64(roofs.barrier).as_nanos()))?;
    Ok(line(&format!("{threads} threads, {isa}"))?)
}

/// Prints one line a test; columns `others` are the processor seconds that others took in all runs.
///
/// # Errors
/// If standard output is closed.
pub fn print_table(rows: &[Row]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let mut header = vec!["test", "tokens", "depth", "batch", "tok/s", "roof", "share", "others"];
    if rows.iter().any(|row| row.forecast.is_some()) {
        header.extend(["forecast", "error"]);
    }
    if rows.iter().any(|row| row.experts.is_some()) {
        header.extend(["experts in memory", "read", "read/s"]);
    }
    if rows.iter().any(|row| row.theirs.is_some()) {
        header.extend(["other tok/s", "setting", "others", "ratio", "spread"]);
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
            others(&row.ours),
        ];
        if let Some(seconds) = row.forecast {
            cells.push(format!("{:.1}", row.test.n_tokens() as f64 / seconds));
            cells.push(format!("{:+.0} %", 100.0 * (median(&row.ours.seconds) / seconds - 1.0)));
        }
        if let Some(stats) = &row.experts {
            cells.push(format!("{:.0} %", 100.0 * experts::hit_rate(stats)));
            cells.push(memory::size(stats.bytes_read));
            cells.push(memory::size(experts::disk_rate(stats) as u64));
        }
        if let (Some([ratio, least, most]), Some(theirs)) = (row.ratios(), &row.theirs) {
            cells.push(format!("{:.1}", row.speed(theirs)));
            cells.push(theirs.setting.clone().unwrap_or_default());
            cells.push(others(theirs));
            cells.push(format!("{ratio:.2} ×"));
            cells.push(format!("{least:.2}…{most:.2}"));
        }
        table.add_row(cells);
    }
    Ok(line(&table.to_string())?)
}

fn others(runs: &Runs) -> String {
    runs.others_s.map_or("–".to_owned(), |seconds| format!("{seconds:.2} s"))
}
