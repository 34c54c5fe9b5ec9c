//! How fast a model learns: `cargo bench -p train --bench step -- [--size small|real] [--threads N] [--steps N]
//! [--precision f32|bf16] [--recompute]`. One JSON line: tokens a second (the median of the steps), GFLOP/s, the share of the f32 roof and the
//! peak of memory.
//!
//! `real` is 24.5 M parameters: 6 layers of width 256, 8 experts of 512 and a shared one, sequences of 256, 8 a step.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cpu::{Cpu, CpuOptions, Precision};
use formats::Checkpoint;
use train::optim::{AdamW, Compute, Optimizer, Settings, Threads};
use train::{Memory, Objective, Sequence, Trainer, Weights};

struct Shape {
    width: usize,
    ffn: usize,
    vocab: usize,
    len: usize,
    batch: usize,
}

fn config(shape: &Shape) -> String {
    let Shape { width, ffn, vocab, .. } = shape;
    format!(
        r#"{{"model_type": "llama4_text", "vocab_size": {vocab}, "hidden_size": {width}, "intermediate_size": {ffn},
        "intermediate_size_mlp": {ffn}, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": {head}, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "num_local_experts": 8,
        "num_experts_per_tok": 1, "interleave_moe_layer_step": 1, "use_qk_norm": true, "attn_temperature_tuning": true,
        "floor_scale": 8192, "attn_scale": 0.1, "attention_chunk_size": 8192, "no_rope_layer_interval": 4,
        "tie_word_embeddings": false, "attention_bias": false, "hidden_act": "silu", "bos_token_id": 1,
        "eos_token_id": 2, "rope_theta": 10000.0, "rope_scaling": null}}"#,
        head = width / 4
    )
}

/// Multiply-adds of one token forward, but for attention's scores.
fn multiply_adds(shape: &Shape) -> usize {
    let Shape { width, ffn, vocab, .. } = *shape;
    let attention = width * width * 3;
    let experts = 2 * 3 * width * ffn + 8 * width;
    6 * (attention + experts) + width * vocab
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let value = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1));
    let shape = match value("--size").map(String::as_str) {
        Some("real") => Shape { width: 256, ffn: 512, vocab: 4096, len: 256, batch: 8 },
        None | Some("small") => Shape { width: 64, ffn: 64, vocab: 128, len: 32, batch: 2 },
        Some(other) => bail!("--size {other} is neither small nor real"),
    };
    let n_steps: usize = value("--steps").map_or(Ok(5), |n| n.parse())?;
    let threads = value("--threads").map(|n| n.parse()).transpose()?;
    let precision = match value("--precision").map(String::as_str) {
        None | Some("f32") => Precision::F32,
        Some("bf16") => Precision::Bf16,
        Some(other) => bail!("--precision {other} is neither f32 nor bf16"),
    };
    let memory = if args.iter().any(|arg| arg == "--recompute") { Memory::Recompute } else { Memory::KeepAll };
    let dev = Arc::new(Cpu::new(CpuOptions { threads, isa: None, precision }));
    let folder = std::env::temp_dir().join(format!("train-bench-{}.json", std::process::id()));
    std::fs::write(&folder, config(&shape))?;
    let template = Checkpoint::open(Path::new(&folder));
    std::fs::remove_file(&folder)?;
    let weights = Weights::fresh(template?, 1)?;
    let n_parameters = weights.n_values();
    let n_threads = NonZeroUsize::new(dev.threads()).context("a thread")?;
    let adamw = AdamW { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 };
    let settings = Settings { adamw, muon: None, norm_limit: Some(1.0), average_decay: None };
    let optimizer = Optimizer::new(settings, Compute::plain(Threads::new(n_threads)));
    let objective = Objective { memory, ..Objective::default() };
    let rows = shape.len * shape.batch;
    let mut trainer = Trainer::new(Arc::clone(&dev), (weights, Arc::new(|_| true)), optimizer, (objective, rows));
    let mut state = 1u32;
    let mut token = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % shape.vocab as u32
    };
    let mut seconds = Vec::new();
    for _ in 0..=n_steps {
        let batch = (0..shape.batch).map(|_| Sequence::text(&(0..=shape.len).map(|_| token()).collect::<Vec<_>>()));
        let batch: Vec<Sequence> = batch.collect();
        let begin = Instant::now();
        trainer.step(&batch, 1.0)?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    // The first step asks the system for memory.
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    let rate = rows as f64 / seconds[seconds.len() / 2];
    let gflops = 6.0 * multiply_adds(&shape) as f64 * rate / 1e9;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("0", str::trim).replace(" kB", "");
    println!(
        r#"{{"test": "train", "parameters": {n_parameters}, "threads": {n_threads}, "tok_per_s": {rate:.0}, "gflop_per_s": {gflops:.1}, "peak_kib": {peak}, "memory": "{memory:?}", "precision": "{precision:?}"}}"#
    );
    Ok(())
}
