//! Training end to end: equal to PyTorch's, step by step.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use cpu::{Cpu, CpuOptions};
use formats::Checkpoint;
use it::hearing::Vectors;
use train::optim::{AdamW, Compute, Optimizer, Outcome, Settings, Threads};
use train::{Objective, Sequence, Trainer, Weights};

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(name)
}

/// As in `scripts/make_train_goldens.py`.
fn trainer(weights: Weights, rows: usize, n_threads: usize) -> Trainer<Cpu> {
    let threads = NonZeroUsize::new(n_threads);
    let adamw = AdamW { lr: 2e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 };
    let settings = Settings { adamw, muon: None, norm_limit: Some(1.0), average_decay: None };
    let compute = Compute::plain(threads.map_or(Threads::ONE, Threads::new));
    let objective = Objective { balance: 0.0, router_z: 0.0, ..Objective::default() };
    let dev = Arc::new(Cpu::new(CpuOptions { threads, isa: None }));
    Trainer::new(dev, (weights, Arc::new(|_| true)), Optimizer::new(settings, compute), (objective, rows))
}

/// Two sequences for each of ten steps, and the losses that PyTorch had.
fn steps(case: &str) -> Result<(Vec<[Sequence; 2]>, Vec<f64>)> {
    let vectors = Vectors::open(&data("train").join(format!("{case}.safetensors")))?;
    let ids = vectors.ids("steps/ids")?;
    let mut rest = ids.as_slice();
    let mut sequences = Vec::new();
    for len in vectors.ids("steps/lens")? {
        let (sequence, after) = rest.split_at(usize::try_from(len)?);
        sequences.push(Sequence::text(sequence));
        rest = after;
    }
    let losses = &vectors.tensors["steps/loss"].bytes;
    let losses = losses.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw)).collect();
    Ok((sequences.as_chunks::<2>().0.to_vec(), losses))
}

#[test]
fn ten_steps_lose_what_pytorch_loses() -> Result<()> {
    let mut n_compared = 0;
    for case in ["text", "llama", "scout"] {
        let (batches, losses) = steps(case)?;
        let weights = Weights::of(Checkpoint::open(&data("toy").join(case))?)?;
        // Both sequences at once, and one after the other.
        for (rows, n_threads) in [(1000, 2), (1, 1)] {
            let mut trainer = trainer(weights.clone(), rows, n_threads);
            let mut largest = 0.0f64;
            for (i, (batch, want)) in batches.iter().zip(&losses).enumerate() {
                let step = trainer.step(batch, 1.0)?;
                ensure!(matches!(step.outcome, Outcome::Applied { .. }), "{case}, step {i} was skipped");
                let difference = (step.losses.mean() - want).abs();
                ensure!(difference < 1e-4, "{case}, step {i}: {} instead of {want}", step.losses.mean());
                largest = largest.max(difference);
                n_compared += 1;
            }
            println!("{case}: losses {:?} differ by at most {largest:.1e}", losses);
        }
    }
    ensure!(n_compared == 60, "{n_compared} losses were compared");
    Ok(())
}

#[test]
fn weights_are_the_same_to_the_bit_with_any_number_of_threads() -> Result<()> {
    let (batches, _) = steps("text")?;
    let weights = Weights::of(Checkpoint::open(&data("toy/text"))?)?;
    let mut trainers = [1, 2, 3].map(|n_threads| trainer(weights.clone(), 1000, n_threads));
    for batch in &batches[..4] {
        for trainer in &mut trainers {
            trainer.step(batch, 0.5)?;
        }
    }
    let bits = |trainer: &Trainer<Cpu>| -> Vec<u32> {
        trainer.weights().tensors().flat_map(|(_, _, values)| values).map(|value| value.to_bits()).collect()
    };
    let want = bits(&trainers[0]);
    ensure!(want.len() > 10_000 && trainers.iter().all(|trainer| bits(trainer) == want));
    Ok(())
}
