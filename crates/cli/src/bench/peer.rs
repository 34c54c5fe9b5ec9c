//! llama.cpp under the same measurement, as a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Test;
use crate::failure::usage;

/// Drives the wheel `xllamacpp`; see its head for what it is asked and answers.
const PROGRAM: &str = include_str!("llama_cpp.py");

/// A llama.cpp that holds the model.
pub struct LlamaCpp {
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    version: String,
    setting: Option<String>,
}

impl LlamaCpp {
    /// Starts `python` with the model.
    ///
    /// # Errors
    /// If there is no such interpreter, or it lacks `xllamacpp`.
    pub fn start(python: &str, model: &Path, threads: usize, context: usize) -> Result<Self> {
        let mut command = Command::new(python);
        command.args(["-c", PROGRAM]).arg(model).args([threads.to_string(), context.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let hint = "pip install xllamacpp, and name that Python with --python";
        let mut process = command.spawn().map_err(|e| usage(format!("\"{python}\" does not start: {e}"), hint))?;
        let requests = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().context("the peer's output is a pipe")?);
        let mut this = Self { process, requests, answers, version: String::new(), setting: None };
        let ready = this.read().map_err(|e| usage(format!("llama.cpp does not start in \"{python}\": {e}"), hint))?;
        this.version = ready["version"].as_str().unwrap_or("unknown").to_owned();
        Ok(this)
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("it ended without an answer");
        }
        let answer: Value = serde_json::from_str(&line)?;
        match answer["error"].as_str() {
            Some(error) => bail!("{error}"),
            None => Ok(answer),
        }
    }
}

impl super::Engine for LlamaCpp {
    fn run(&mut self, test: Test) -> Result<f64> {
        let [tokens, depth, batch] = test.numbers();
        let request = json!({"test": test.name(), "tokens": tokens, "depth": depth, "batch": batch});
        let requests = self.requests.as_mut().context("llama.cpp was already told to end")?;
        writeln!(requests, "{request}")?;
        requests.flush()?;
        let answer = self.read().context("llama.cpp")?;
        self.setting = answer["setting"].as_str().map(str::to_owned);
        answer["seconds"].as_f64().context("llama.cpp gave no seconds")
    }

    fn process(&self) -> Option<u32> {
        Some(self.process.id())
    }

    fn setting(&self) -> Option<&str> {
        self.setting.as_deref()
    }
}

impl Drop for LlamaCpp {
    fn drop(&mut self) {
        // A closed input ends it; whatever it does then, it is not waited for without being told to stop.
        self.requests = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
