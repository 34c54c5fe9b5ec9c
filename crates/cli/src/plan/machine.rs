//! What a machine can do: measured here, read from a file, or a preset.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tensor::Format;

use crate::failure::usage;

/// Bytes in a gibibyte.
pub const GIB: f64 = (1u64 << 30) as f64;

/// Rates of a machine, all threads together. What is absent follows from what is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What it is called.
    pub name: String,
    /// Threads that compute.
    pub threads: usize,
    /// Memory, in GiB.
    pub ram_gib: f64,
    /// What the system and other programs take of it, in GiB.
    #[serde(default = "system_gib")]
    pub system_gib: f64,
    /// Reading memory, in GB/s.
    pub memory_gb_s: f64,
    /// Reading the disk past all caches, in GB/s; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_gb_s: Option<f64>,
    /// The last-level cache, in MiB.
    #[serde(default)]
    pub cache_mib: f64,
    /// Reading it, in GB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_gb_s: Option<f64>,
    /// Operations on eight-bit integers, in 10⁹/s; a multiply-add is two.
    pub int8_gop_s: f64,
    /// Operations in f32, in 10⁹/s.
    pub f32_gflop_s: f64,
    /// What an op costs that does next to nothing, in microseconds.
    #[serde(default = "overhead_us")]
    pub overhead_us: f64,
    /// Numbers that norms, gates and copies write, in 10⁹/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values_g_s: Option<f64>,
    /// Multiply-adds of attention for one row, and for many, in 10⁹/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_g_s: Option<[f64; 2]>,
    /// Kernels by weight format, as measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kernels: BTreeMap<String, Kernel>,
}

/// One weight format's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Packed bytes that one row goes through when they come from memory, in GB/s.
    pub memory_gb_s: f64,
    /// Multiply-adds of one row with weights in the cache, in 10⁹/s.
    pub one_row_g_s: f64,
    /// Multiply-adds of many rows, in 10⁹/s.
    pub many_rows_g_s: f64,
}

/// The system's share where nobody measured it: the forecast table of the specification has it.
fn system_gib() -> f64 {
    3.0
}

/// Two barriers of 61 ns and the bookkeeping of an op.
fn overhead_us() -> f64 {
    2.0
}

/// Shares of a roof that kernels reach where they were not measured. From docs/log.md, "one kernel family": Q4_0 76 %
/// of int8 from four rows on, Q4_K 65 %, Q8_0 70 %, Q6_K 57 %; f32 reaches about half of its roof.
const MANY_ROWS: [(&str, f64); 4] = [("Q4_0", 0.76), ("Q4_K", 0.65), ("Q8_0", 0.70), ("Q6_K", 0.57)];
const OTHER_FORMATS: f64 = 0.6;
const DENSE: f64 = 0.5;
/// One row takes weights apart for itself alone: a third of many rows' rate.
const ONE_ROW: f64 = 0.33;

/// Machines by name: those of the specification's forecast table. Arithmetic is the measured 470 GOP/s and 118 GFLOP/s a
/// core of a Zen 4 (docs/log.md), times the cores.
pub const PRESETS: [(&str, f64, f64, f64, usize); 5] = [
    ("desktop-32", 32.0, 70.0, 5.0, 8),
    ("desktop-64", 64.0, 70.0, 5.0, 8),
    ("desktop-128", 128.0, 70.0, 5.0, 8),
    ("workstation-256", 256.0, 200.0, 7.0, 16),
    ("vm-23", 23.0, 20.0, 1.5, 2),
];

impl Machine {
    /// The preset called `name`.
    pub fn preset(name: &str) -> Option<Self> {
        let (name, ram_gib, memory_gb_s, disk_gb_s, cores) = PRESETS.into_iter().find(|(known, ..)| *known == name)?;
        Some(Self {
            name: name.to_owned(),
            threads: cores,
            ram_gib,
            system_gib: system_gib(),
            memory_gb_s,
            disk_gb_s: Some(disk_gb_s),
            cache_mib: 0.0,
            cache_gb_s: None,
            int8_gop_s: 470.0 * cores as f64,
            f32_gflop_s: 118.0 * cores as f64,
            overhead_us: overhead_us(),
            values_g_s: None,
            attention_g_s: None,
            kernels: BTreeMap::new(),
        })
    }

    /// The machine that the JSON file `path` describes: the object that `plan --json` prints as `machine`.
    ///
    /// # Errors
    /// Exit code 2 if it can not be read or a number makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        let hint = "write what `puna plan MODEL --json` prints as \"machine\", or name a preset";
        let fail = |why: String| usage(format!("--hw {}: {why}", path.display()), hint);
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let this: Self = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        match this.wrong() {
            Some((field, value)) => Err(fail(format!("{field} is {value}; it has to be above 0"))),
            None => Ok(this),
        }
    }

    /// A number that is no rate or size.
    fn wrong(&self) -> Option<(String, f64)> {
        let mut numbers = vec![
            ("threads".to_owned(), self.threads as f64),
            ("ram_gib".to_owned(), self.ram_gib),
            ("memory_gb_s".to_owned(), self.memory_gb_s),
            ("disk_gb_s".to_owned(), self.disk_gb_s.unwrap_or(1.0)),
            ("cache_gb_s".to_owned(), self.cache_gb_s.unwrap_or(1.0)),
            ("int8_gop_s".to_owned(), self.int8_gop_s),
            ("f32_gflop_s".to_owned(), self.f32_gflop_s),
            ("overhead_us".to_owned(), self.overhead_us),
            ("values_g_s".to_owned(), self.values_g_s.unwrap_or(1.0)),
        ];
        numbers.extend(self.attention_g_s.unwrap_or([1.0; 2]).map(|rate| ("attention_g_s".to_owned(), rate)));
        for (format, kernel) in &self.kernels {
            for rate in [kernel.memory_gb_s, kernel.one_row_g_s, kernel.many_rows_g_s] {
                numbers.push((format!("kernels.{format}"), rate));
            }
        }
        // These two may be 0.
        let sizes = [("system_gib", self.system_gib), ("cache_mib", self.cache_mib)];
        let size = sizes.into_iter().find(|(_, value)| !value.is_finite() || *value < 0.0);
        let size = size.map(|(field, value)| (field.to_owned(), value));
        size.or_else(|| numbers.into_iter().find(|(_, value)| !value.is_finite() || *value <= 0.0))
    }

    /// How fast weights of `format` are multiplied.
    pub fn kernel(&self, format: Format) -> Kernel {
        if let Some(kernel) = self.kernels.get(format.name()) {
            return *kernel;
        }
        let many = match format {
            Format::Block(kind) => {
                let share = MANY_ROWS.iter().find(|(name, _)| *name == kind.name()).map_or(OTHER_FORMATS, |(_, s)| *s);
                self.int8_gop_s / 2.0 * share
            }
            _ => self.f32_gflop_s / 2.0 * DENSE,
        };
        Kernel { memory_gb_s: self.memory_gb_s, one_row_g_s: many * ONE_ROW, many_rows_g_s: many }
    }

    /// Multiply-adds of attention a second for `n_rows` rows of a sequence.
    pub fn attention(&self, n_rows: usize) -> f64 {
        let rates = self.attention_g_s.unwrap_or([self.f32_gflop_s / 2.0 * ONE_ROW, self.f32_gflop_s / 2.0 * DENSE]);
        1e9 * rates[usize::from(n_rows >= 8)]
    }

    /// Numbers a second of elementwise ops.
    pub fn values(&self) -> f64 {
        // Each reads two numbers for one that it writes, out of a cache at twice the memory's rate.
        1e9 * self.values_g_s.unwrap_or(self.memory_gb_s * 2.0 / 12.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_passes_through_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("hw.json");
        let mut machine = Machine::preset("desktop-32").expect("a preset");
        let kernel = Kernel { memory_gb_s: 60.0, one_row_g_s: 100.0, many_rows_g_s: 900.0 };
        machine.kernels.insert("Q4_K".to_owned(), kernel);
        std::fs::write(&file, serde_json::to_string(&machine).expect("JSON")).expect("written");
        assert_eq!(Machine::read(&file).expect("read"), machine);
        assert_eq!(machine.kernel(Format::Block(tensor::quant::Kind::Q4_K)), kernel);
        for (from, to, word) in [
            ("\"memory_gb_s\":70.0", "\"memory_gb_s\":0.0", "memory_gb_s is 0"),
            ("\"ram_gib\":32.0", "\"ram_gib\":-1.0", "ram_gib is -1"),
            ("\"system_gib\":3.0", "\"system_gib\":-3.0", "system_gib is -3"),
            ("\"threads\":8", "\"threads\":0", "threads is 0"),
            ("\"threads\":8", "\"thread\":8", "unknown field"),
            ("100.0", "-1.0", "kernels.Q4_K is -1"),
        ] {
            let text = serde_json::to_string(&machine).expect("JSON");
            assert!(text.contains(from), "{from}");
            std::fs::write(&file, text.replace(from, to)).expect("written");
            let error = Machine::read(&file).expect_err(to).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
