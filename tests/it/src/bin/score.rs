//! Answers what evaluations ask, with the engine alone: what a server says is compared with it.
//!
//! usage: `cargo run -p it --bin score FOLDER <REQUESTS >ANSWERS`, both JSON lines
//!
//! `{"context", "continuation"}` becomes `{"logprob", "is_greedy"}` of the continuation; `{"context", "max_tokens", "stop"}`
//! becomes `{"text"}`, the likeliest continuation. Keys and values are f32.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions};
use engine::{Content, Engine, Known, Sequence};
use it::{Toy, argmax};
use serde_json::{Value, json};
use tensor::KvFormat;
use tokenizer::{SpecialTokens, Specials, Tokenizer};

const CONTEXT: usize = 512;

struct Scorer {
    engine: Engine<Cpu>,
    tokenizer: Arc<Tokenizer>,
}

impl Scorer {
    fn open(folder: &std::path::Path) -> Result<Self> {
        let ranks = std::fs::read(folder.join("tokenizer.model"))?;
        let tokenizer = Arc::new(Tokenizer::from_ranks("tokenizer.model", &ranks, SpecialTokens::llama4())?);
        let Toy { dev, model, .. } = Toy::load(Cpu::new(CpuOptions::default()), folder)?;
        Ok(Self { engine: Engine::new(dev, model, CONTEXT, KvFormat::F32)?, tokenizer })
    }

    /// The logits of what follows `ids`.
    fn logits(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        ensure!(!ids.is_empty(), "nothing follows nothing");
        let mut sequence = Sequence::default();
        let known = ids.iter().map(|id| Known::Token(*id)).collect();
        self.engine.set(&mut sequence, Content { known, media: Vec::new() })?;
        let logits = self.engine.prefill(&mut sequence, &mut |_, _| {})?;
        self.engine.release(sequence);
        Ok(logits)
    }

    fn score(&mut self, context: &str, continuation: &str) -> Result<Value> {
        let ids = self.tokenizer.encode(&format!("{context}{continuation}"));
        let first = self.tokenizer.encode(context).len();
        let (mut sum, mut is_greedy) = (0.0, true);
        for at in first..ids.len() {
            let logits = self.logits(&ids[..at])?;
            let total: f64 = logits.iter().map(|v| f64::from(*v).exp()).sum();
            let id = ids[at] as usize;
            sum += f64::from(logits[id]) - total.ln();
            is_greedy &= argmax(&logits) == id;
        }
        Ok(json!({"logprob": sum, "is_greedy": is_greedy}))
    }

    fn generate(&mut self, context: &str, max_tokens: usize, stop: &[&str]) -> Result<Value> {
        let mut ids = self.tokenizer.encode(context);
        let n_context = ids.len();
        let mut text = String::new();
        while ids.len() < n_context + max_tokens {
            let id = u32::try_from(argmax(&self.logits(&ids)?))?;
            if Some(id) == self.tokenizer.eot() {
                break;
            }
            ids.push(id);
            text = self.tokenizer.decode(&ids[n_context..], Specials::Skip);
            if let Some(at) = stop.iter().filter_map(|stop| text.find(stop)).min() {
                text.truncate(at);
                break;
            }
        }
        Ok(json!({"text": text}))
    }
}

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: score FOLDER <REQUESTS")?;
    let mut scorer = Scorer::open(&folder)?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let context = request["context"].as_str().context("a context")?;
        let answer = match request["continuation"].as_str() {
            Some(continuation) => scorer.score(context, continuation)?,
            None => {
                let max_tokens = usize::try_from(request["max_tokens"].as_u64().context("max_tokens")?)?;
                let stop: Vec<&str> =
                    request["stop"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                scorer.generate(context, max_tokens, &stop)?
            }
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}
