//! A forecast as a table and as JSON.

use std::fmt::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::forecast::{Ask, Memory, Speed, Time, Verdict, bytes, image_tokens, is_moe, one_expert_bytes, token_bytes};
use super::learned::Correction;
use super::machine::{GIB, Machine};
use super::subject::Subject;
use super::{better, usual_ram};

/// The JSON's layout.
const VERSION: u32 = 1;

/// All that is said of one model.
pub struct Forecast {
    /// The model.
    pub name: String,
    /// Memory by what takes it.
    pub memory: Memory,
    /// Bytes of experts in memory.
    pub cached: usize,
    /// Whether it fits.
    pub verdict: Verdict,
    disk_bytes: usize,
    is_moe: bool,
    parameters: formats::config::Parameters,
    token_bytes: usize,
    one_expert: usize,
    /// One token of an empty context; `None` if the model does not fit.
    decode: Option<Time>,
    /// One token of a full context.
    decode_full: Option<Time>,
    prompt_tokens: usize,
    prompt: Option<Time>,
    image: Option<(usize, f64)>,
    better: Vec<String>,
    correction: Correction,
}

/// What a forecast is made for.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// What is asked for.
    pub ask: Ask,
    /// On which machine.
    pub machine: &'a Machine,
    /// Tokens of the prompt whose first token is forecast.
    pub prompt_tokens: usize,
}

impl Setting<'_> {
    /// Bytes that a model may take.
    pub fn room(&self) -> usize {
        bytes(self.machine.ram_gib).saturating_sub(bytes(self.machine.system_gib))
    }

    /// A model at the hit rate that its memory gives.
    fn speed<'a>(&'a self, subject: &'a Subject, cached: usize, memory: &Memory) -> Speed<'a> {
        let hit = if memory.experts == 0 { 1.0 } else { cached as f64 / memory.experts as f64 };
        Speed { subject, machine: self.machine, kv: self.ask.kv, hit }
    }
}

impl Forecast {
    /// Of `subject`. `correct` gives what was measured of it before, against what is forecast now.
    ///
    /// # Errors
    /// If the context can not be counted.
    pub fn of(
        subject: &Subject,
        setting: &Setting<'_>,
        correct: &dyn Fn(&Speed<'_>) -> Result<Correction>,
    ) -> Result<Self> {
        let ask = &setting.ask;
        let memory = Memory::of(subject, ask)?;
        let (cached, verdict) = memory.place(subject, setting.room());
        let speed = setting.speed(subject, cached, &memory);
        let correction = correct(&speed)?;
        let fits = verdict != Verdict::DoesNotFit;
        let decode = |depth: usize| -> Result<Option<Time>> {
            let time = if fits { Some(speed.decode(depth, ask.n_sequences)?) } else { None };
            Ok(time.map(|time| Time { compute_s: time.compute_s * correction.decode, ..time }))
        };
        let prompt_tokens = setting.prompt_tokens.min(ask.context);
        let prompt = if fits { Some(speed.prefill(prompt_tokens, 0)?) } else { None };
        let prompt = prompt.map(|time| Time { compute_s: time.compute_s * correction.prefill, ..time });
        let image = match ask.n_images {
            0 => None,
            n => speed.tile()?.map(|seconds| (n * image_tokens(subject), seconds)),
        };
        Ok(Self {
            name: subject.name.clone(),
            memory,
            cached,
            verdict,
            disk_bytes: subject.disk_bytes,
            is_moe: is_moe(subject),
            parameters: subject.config.parameters(),
            token_bytes: token_bytes(subject),
            one_expert: one_expert_bytes(subject),
            decode: decode(0)?,
            decode_full: decode(ask.context - 1)?,
            prompt_tokens,
            prompt,
            image,
            better: suggestions(subject, setting, &memory)?,
            correction,
        })
    }

    fn hit(&self) -> f64 {
        if self.memory.experts == 0 { 1.0 } else { self.cached as f64 / self.memory.experts as f64 }
    }

    /// One object of the report.
    pub fn json(&self, n_sequences: usize) -> Value {
        let memory = &self.memory;
        let rate = |time: Time| {
            let rate = |seconds: f64| round(n_sequences as f64 / seconds);
            json!({"tok_per_s": [rate(time.slow()), rate(time.fast())], "compute_s": round(time.compute_s),
                "disk_s": round(time.disk_s)})
        };
        json!({
            "model": self.name,
            "verdict": match self.verdict {
                Verdict::Fits => "fits",
                Verdict::Streams => "streams",
                Verdict::DoesNotFit => "does_not_fit",
            },
            "parameters": self.parameters.total,
            "active_parameters": self.parameters.active,
            "disk_bytes": self.disk_bytes,
            "memory": {
                "always_bytes": memory.always, "experts_bytes": memory.experts, "experts_cached_bytes": self.cached,
                "kv_bytes": memory.kv, "work_bytes": memory.work, "process_bytes": memory.process,
                "need_bytes": memory.need(), "peak_bytes": memory.peak(),
            },
            "expert_hit_rate": round(self.hit()),
            "token_bytes": self.token_bytes,
            "expert_bytes": self.one_expert,
            "decode": self.decode.map(rate),
            "decode_full_context": self.decode_full.map(rate),
            "first_token": self.prompt.map(|time| json!({"prompt_tokens": self.prompt_tokens,
                "seconds": [round(time.fast()), round(time.slow())], "disk_s": round(time.disk_s)})),
            "images": self.image.map(|(tokens, tile_s)| json!({"tokens": tokens, "tile_s": round(tile_s)})),
            "better": self.better,
            "basis": self.basis(),
            "figures": self.correction.n_figures,
        })
    }

    fn basis(&self) -> &'static str {
        if self.correction.n_figures > 0 { "measured" } else { "forecast" }
    }
}

/// Four significant digits; what can not be said (a disk that nobody measured) becomes null in JSON.
fn round(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// What would do better: a smaller quantisation here, or more memory.
fn suggestions(subject: &Subject, setting: &Setting<'_>, memory: &Memory) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let room = setting.room();
    if memory.place(subject, room).1 == Verdict::Fits {
        return Ok(lines);
    }
    if let Some(other) = better(subject, &setting.ask, room)? {
        let other_memory = Memory::of(&other, &setting.ask)?;
        let (cached, _) = other_memory.place(&other, room);
        let speed = setting.speed(&other, cached, &other_memory);
        let rate = rates(speed.decode(0, setting.ask.n_sequences)?, setting.ask.n_sequences);
        let share = 100.0 * cached as f64 / other_memory.experts.max(1) as f64;
        let cached = if cached < other_memory.experts { format!(" ({share:.0}% cached)") } else { String::new() };
        lines.push(format!("{} {rate}{cached}", other.name));
    }
    let ram = usual_ram(memory.need(), setting.machine.system_gib);
    let speed = setting.speed(subject, memory.experts, memory);
    let rate = rates(speed.decode(0, setting.ask.n_sequences)?, setting.ask.n_sequences);
    lines.push(format!("{ram:.0} GiB RAM: {} {rate}", subject.name));
    Ok(lines)
}

/// Tokens a second, all sequences together: `1.7-2.2 tok/s`.
fn rates(time: Time, n_sequences: usize) -> String {
    let rate = |seconds: f64| {
        let rate = n_sequences as f64 / seconds;
        if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
    };
    let (slow, fast) = (rate(time.slow()), rate(time.fast()));
    if time.disk_s.is_infinite() {
        "unknown (no disk rate)".to_owned()
    } else if slow == fast {
        format!("{slow} tok/s")
    } else {
        format!("{slow}-{fast} tok/s")
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s.is_infinite() => "unknown".to_owned(),
        s if s < 0.1 => format!("{:.0} ms", 1e3 * s),
        s if s < 10.0 => format!("{s:.1} s"),
        s => format!("{s:.0} s"),
    }
}

/// `20.6 GiB`, `153 MiB`.
pub fn size(bytes: usize) -> String {
    let gib = bytes as f64 / GIB;
    match gib {
        gib if gib >= 0.95 => format!("{gib:.1} GiB"),
        gib if gib * 1024.0 >= 9.95 => format!("{:.0} MiB", gib * 1024.0),
        gib => format!("{:.1} MiB", gib * 1024.0),
    }
}

fn disk_size(bytes: usize) -> String {
    let gb = bytes as f64 / 1e9;
    if gb >= 0.995 { format!("{gb:.1} GB") } else { format!("{:.1} MB", 1e3 * gb) }
}

/// `32k` for a context of 32768.
fn tokens(n: usize) -> String {
    match n {
        n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{}M", n >> 20),
        n if n >= 1024 && n.is_multiple_of(1024) => format!("{}k", n >> 10),
        n => n.to_string(),
    }
}

fn kv_name(kv: tensor::KvFormat) -> &'static str {
    match kv {
        tensor::KvFormat::F32 => "f32",
        tensor::KvFormat::F16 => "f16",
        tensor::KvFormat::Q8 => "q8",
    }
}

/// All forecasts as one JSON object.
pub fn json_report(forecasts: &[Forecast], setting: &Setting<'_>) -> Result<Value> {
    let ask = &setting.ask;
    Ok(json!({
        "version": VERSION,
        "machine": serde_json::to_value(setting.machine)?,
        "context": ask.context, "sequences": ask.n_sequences, "kv": kv_name(ask.kv), "images": ask.n_images,
        "models": forecasts.iter().map(|forecast| forecast.json(ask.n_sequences)).collect::<Vec<_>>(),
        "assumptions": assumptions(forecasts, setting),
    }))
}

/// All forecasts side by side.
pub fn table(forecasts: &[Forecast], setting: &Setting<'_>) -> String {
    let ask = &setting.ask;
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |label: &str, cell: &dyn Fn(&Forecast) -> String| {
        let cells: Vec<String> = forecasts.iter().map(cell).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            rows.push((label.to_owned(), cells));
        }
    };
    row("", &|f| f.name.clone());
    row("weights", &|f| format!("{} on disk", disk_size(f.disk_bytes)));
    row(" always in RAM", &|f| size(f.memory.always));
    row(" experts cached", &|f| match (f.is_moe, f.memory.experts) {
        (true, all) if all > 0 => {
            format!("{:.1} of {} ({:.0}%)", f.cached as f64 / unit(all), size(all), 100.0 * f.hit())
        }
        _ => String::new(),
    });
    row(&format!("KV cache {}, {}", tokens(ask.context), kv_name(ask.kv)), &|f| size(f.memory.kv));
    row("work + system", &|f| size(f.memory.work + f.memory.process + bytes(setting.machine.system_gib)));
    row("verdict", &|f| f.verdict.name().to_owned());
    row("decode", &|f| f.decode.map_or("-".to_owned(), |time| rates(time, ask.n_sequences)));
    row(&format!("decode at {}", tokens(ask.context)), &|f| {
        f.decode_full.map_or("-".to_owned(), |time| rates(time, ask.n_sequences))
    });
    let prompt = forecasts.iter().map(|f| f.prompt_tokens).max().unwrap_or(0);
    row(&format!("first token, {} prompt", tokens(prompt)), &|f| match f.prompt {
        Some(time) if time.disk_s > 0.0 => format!("~{} ({} disk)", duration(time.slow()), duration(time.disk_s)),
        Some(time) => format!("~{}", duration(time.slow())),
        None => "-".to_owned(),
    });
    row(&format!("{} images", ask.n_images), &|f| {
        f.image.map_or(String::new(), |(n, tile)| format!("up to {n} tokens, {} a tile", duration(tile)))
    });
    row("better", &|f| f.better.join(" | "));
    row("forecast error", &|f| match f.correction.n_figures {
        0 => "±20 % speed, ±2 % memory".to_owned(),
        n => format!("measured: {n} figures here"),
    });
    let label = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0) + 2;
    let mut widths = vec![0; forecasts.len()];
    for (_, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count() + 2);
        }
    }
    let mut text = format!("{}\n", machine_line(setting.machine));
    for (name, cells) in &rows {
        let mut line = format!("{name:label$}");
        for (cell, width) in cells.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for assumption in assumptions(forecasts, setting) {
        text.push_str(&format!("assumed: {assumption}\n"));
    }
    text
}

fn unit(bytes: usize) -> f64 {
    if bytes as f64 / GIB >= 0.95 { GIB } else { f64::from(1 << 20) }
}

fn machine_line(machine: &Machine) -> String {
    let disk = machine.disk_gb_s.map_or("disk not measured".to_owned(), |rate| format!("disk {rate:.1} GB/s"));
    format!(
        "machine  {}, {} threads, {:.0} GiB RAM ({:.0} GB/s), {disk}",
        machine.name, machine.threads, machine.ram_gib, machine.memory_gb_s
    )
}

fn assumptions(forecasts: &[Forecast], setting: &Setting<'_>) -> Vec<String> {
    let mut lines = vec![format!(
        "{:.1} GiB for the system and other programs; {} at a time; one step has up to {} rows",
        setting.machine.system_gib,
        match setting.ask.n_sequences {
            1 => "one sequence".to_owned(),
            n => format!("{n} sequences"),
        },
        engine::STEP_ROWS
    )];
    if forecasts.iter().any(|f| f.is_moe) {
        lines.push("rows spread evenly over experts, the worst case for the expert cache".to_owned());
    }
    if forecasts.iter().any(|f| f.verdict == Verdict::Streams) {
        lines.push(
            "a range is no overlap of disk and arithmetic to full overlap; a prompt reads each expert once".to_owned(),
        );
    }
    lines
}
