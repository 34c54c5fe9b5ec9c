//! Training end to end: equal to PyTorch's, step by step.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use cpu::{Cpu, CpuOptions};
use formats::Checkpoint;
use it::hearing::Vectors;
use train::checkpoint::{Checkpoints, Disk, Fallback};
use train::optim::{AdamW, Compute, Optimizer, Outcome, Settings, Threads};
use train::schedule::{Schedule, Shape};
use train::{End, Feed, Objective, Plan, Run, Sequence, Trainer, Weights};

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

/// A run of the toy on numbers that repeat, saved every third step to `folder`.
fn run(folder: &Path) -> Result<Run<Cpu, Disk>> {
    let ids: Vec<u32> = (0..2000).map(|i| 3 + i * i % 29).collect();
    let weights = Weights::of(Checkpoint::open(&data("toy/text"))?)?;
    let schedule = Schedule { warm_up: 4, then: Shape::StableDecay { steps: N_STEPS, decay: 8, floor: 0.1 } };
    let plan = Plan { steps: N_STEPS, batch: 2, save_every: 3, evaluate_every: 7 };
    let checkpoints = Checkpoints::open(Disk, folder)?;
    Ok(Run::new(trainer(weights, 24, 2), Feed::new(ids, 16, 0.05, 5), (schedule, plan), checkpoints))
}

const N_STEPS: u64 = 20;

fn bits(run: &Run<Cpu, Disk>) -> Vec<u32> {
    run.trainer().weights().tensors().flat_map(|(_, _, values)| values).map(|value| value.to_bits()).collect()
}

#[test]
fn resuming_after_any_step_gives_the_same_bits_as_never_stopping() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut straight = run(&folder.path().join("straight"))?;
    let mut losses = Vec::new();
    let end = straight.go(&|| false, &mut |event| {
        if let train::Event::Step { done, .. } = event {
            losses.push(done.losses.mean());
        }
    })?;
    ensure!(end == End::Done && losses.len() == 20);
    ensure!(losses[19] < losses[0] - 0.5, "nothing was learnt: {losses:?}");
    let want = bits(&straight);
    let mut n_compared = 0;
    for stopped in 1..N_STEPS {
        let folder = folder.path().join(format!("stopped-{stopped}"));
        let mut first = run(&folder)?;
        let n_told = std::cell::Cell::new(0);
        let end = first.go(&|| n_told.get() == stopped, &mut |event| {
            if let train::Event::Step { step, .. } = event {
                n_told.set(*step);
            }
        })?;
        ensure!(end == End::Stopped && first.step() == stopped);
        drop(first);
        let mut second = run(&folder)?;
        let loaded = Checkpoints::open(Disk, &folder)?.load(Fallback::Refuse)?;
        second.resume(loaded.ok_or_else(|| anyhow::anyhow!("no checkpoint"))?)?;
        ensure!(second.step() == stopped, "it goes on after step {}", second.step());
        ensure!(second.go(&|| false, &mut |_| {})? == End::Done);
        ensure!(bits(&second) == want, "stopped after step {stopped}, the bits differ");
        n_compared += 1;
    }
    println!("{n_compared} stops, {} weights each, equal to the bit", want.len());
    ensure!(n_compared == 19);
    Ok(())
}
