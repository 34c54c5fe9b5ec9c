//! `puna ps`.

use std::path::Path;

use anyhow::Result;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::memory::size;
use crate::output::line;
use crate::running;

/// A server's file is as old as this at most, in seconds: it is written every few seconds.
const FRESH_S: u64 = 30;

/// Show the servers that run on this machine
#[derive(clap::Args)]
pub struct Ps {
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Ps {
    pub fn run(self) -> Result<()> {
        let mut servers: Vec<Value> = running::folder().map(|folder| read(&folder)).unwrap_or_default();
        servers.sort_by_key(|server| server["pid"].as_u64());
        if self.json {
            return Ok(line(&json!({"version": 1, "servers": servers}).to_string())?);
        }
        if servers.is_empty() {
            eprintln!("no server runs; `puna serve -m MODEL` starts one");
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["MODEL", "PID", "UPTIME", "RAM", "CTX", "REQ", "TOK/S", "URL"]);
        for server in &servers {
            table.add_row(row(server));
        }
        Ok(line(&table.to_string())?)
    }
}

fn row(server: &Value) -> [String; 8] {
    let number = |name: &str| server[name].as_u64().unwrap_or(0);
    let text = |name: &str| server[name].as_str().unwrap_or("?").to_owned();
    let pages = |name: &str| server["pages"][name].as_u64().unwrap_or(0);
    let used = (pages("sequences") + pages("cache")) as f64 / pages("all").max(1) as f64;
    let seconds = number("uptime_s");
    let uptime = match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes:02}m"),
    };
    [
        text("model"),
        number("pid").to_string(),
        uptime,
        server["memory_bytes"].as_u64().map_or("?".into(), size),
        format!("{} ({:.0}%)", number("context"), 100.0 * used),
        format!("{}+{}", number("running"), number("waiting")),
        format!("{:.1}", server["tokens_per_s"].as_f64().unwrap_or(0.0)),
        text("url"),
    ]
}

/// What running servers say. A file whose process is gone is taken away.
fn read(folder: &Path) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut servers = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let parsed = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let Some(mut server) = parsed else { continue };
        if !is_fresh(&server) {
            let _ = std::fs::remove_file(&path);
            continue;
        }
        if let Some(bytes) = server["pid"].as_u64().and_then(resident_bytes) {
            server["memory_bytes"] = bytes.into();
        }
        servers.push(server);
    }
    servers
}

/// Whether a server has written its file lately. Another process may have its number by now: the number alone says nothing.
fn is_fresh(server: &Value) -> bool {
    server["at"].as_u64().is_some_and(|at| now().saturating_sub(at) <= FRESH_S)
}

/// Seconds since 1970.
fn now() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "servers write the time of day into their files")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a process has in memory; `None` where the system does not say.
fn resident_bytes(pid: u64) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_gone_are_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = now();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        write("1.json", json!({"pid": 1, "model": "a", "at": now, "uptime_s": 3723}).to_string());
        write("2.json", json!({"pid": 2, "model": "b", "at": now - 3600}).to_string());
        write("3.json", "{".into());
        write("4.tmp", json!({"pid": 4, "at": now}).to_string());
        let servers = read(folder.path());
        assert_eq!(servers.len(), 1, "{servers:?}");
        assert_eq!(row(&servers[0])[..3], ["a", "1", "1h02m"]);
        assert!(!folder.path().join("2.json").exists() && folder.path().join("3.json").exists());
    }
}
