//! Training end to end: equal to PyTorch's, step by step.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use cpu::{Cpu, CpuOptions};
use formats::Checkpoint;
use it::hearing::Vectors;
use tokenizer::{ChatFormat, Llama4Chat, SpecialTokens, Tokenizer};
use train::checkpoint::{Checkpoints, Disk, Fallback};
use train::data::{Encoder, Feed, FeedSettings, Ingredient, Makers, Mixture, MixtureSettings, Source};
use train::optim::{AdamW, Compute, Optimizer, Outcome, Settings, Threads};
use train::schedule::{Schedule, Shape};
use train::{End, Objective, Plan, Run, Sequence, Stage, Trainer, Weights};

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
    let dev = Arc::new(Cpu::new(CpuOptions { threads, ..Default::default() }));
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

/// A run of the toy in two stages, on a text and on sums, saved every third step to `folder`. The second trains only
/// what is inside of layers.
fn run(folder: &Path) -> Result<Run<Cpu, Disk>> {
    let toy = folder.with_extension("toy");
    it::speaking::write(&toy)?;
    let text = toy.join("text.txt");
    let lines: Vec<String> = (0..400).map(|i| format!("line {i} of {}\n", i * i % 29)).collect();
    std::fs::write(&text, lines.concat())?;
    let ranks = std::fs::read(toy.join("tokenizer.model"))?;
    let encoder = || -> Result<Encoder> {
        let tokenizer = Tokenizer::from_ranks("ranks", &ranks, SpecialTokens::llama4())?;
        let format = ChatFormat::Llama4(Llama4Chat::new(&tokenizer)?);
        Ok(Encoder::new(tokenizer, Some(format)))
    };
    let stage = |name: &str, sources: Vec<Source>, steps: u64, begins: &'static str| -> Result<Stage> {
        let ingredients = sources.into_iter().map(|source| Ingredient { source, weight: 1.0 }).collect();
        let mixture = Mixture::new(ingredients, MixtureSettings { seed: 5, ..MixtureSettings::default() })?;
        let feed = Feed::new(mixture, encoder()?, FeedSettings { rows: 48, cut: 24, window: 3 })?;
        let trained = Arc::new(move |name: &str| name.starts_with(begins));
        Ok(Stage { name: name.into(), steps, factor: 1.0, trained, feed, held_out: Vec::new() })
    };
    let sums = Makers::default().named("arithmetic")?.into_iter().map(Source::Generator);
    let stages = vec![
        stage("text", vec![Source::File(text.clone())], 9, "")?,
        stage("sums", sums.chain([Source::File(text)]).collect(), N_STEPS - 9, "language_model.model.layers")?,
    ];
    let weights = Weights::of(Checkpoint::open(&toy)?)?;
    let schedule = Schedule { warm_up: 4, then: Shape::StableDecay { steps: N_STEPS, decay: 8, floor: 0.1 } };
    let plan = Plan { save_every: 3, evaluate_every: 7 };
    let checkpoints = Checkpoints::open(Disk, folder)?;
    Ok(Run::new(trainer(weights, 24, 2), stages, (schedule, plan), checkpoints))
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
