//! Adapters beside frozen weights: their gradients, what stays as it is, preferences.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions};
use formats::{Checkpoint, DType, Lora, LowRank, Tensor, is_routed, safetensors};
use llama::{Model, merged};
use tensor::quant::Kind;
use tensor::{Adjoint, Format, Reference};
use train::data::Step;
use train::lora::{LoraSettings, fresh, targets};
use train::optim::{AdamW, Compute, Optimizer, Settings, Threads};
use train::{Objective, Preference, Sequence, Tape, TrainError, Trainer, Weights, evaluate, log_probabilities};

/// Routers' own losses would go on with a model's weights, not with an adapter's.
const OBJECTIVE: Objective = Objective { balance: 0.0, router_z: 0.0, logit_rows: 7, memory: train::Memory::KeepAll };

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn toy(name: &str) -> Result<Checkpoint> {
    Ok(Checkpoint::open(&data("toy").join(name))?)
}

fn adapter(name: &str) -> Result<Lora> {
    Ok(Lora::open(&data("lora").join(name))?)
}

fn cpu(n_threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: NonZeroUsize::new(n_threads), ..Default::default() })
}

/// Texts of tokens below 100.
fn sequences(seed: u32, lens: &[u32]) -> Vec<Sequence> {
    let ids =
        |(i, len): (u32, &u32)| (0..*len).map(|t| 3 + (t * t * 7 + t * (seed + i) + i) % 90).collect::<Vec<u32>>();
    (0..).zip(lens).map(ids).map(|ids| Sequence::text(&ids)).collect()
}

type Gradients = BTreeMap<String, Vec<f32>>;

/// The gradients of what `is_trained` names of `checkpoint` with `lora` beside it.
fn gradients<D: Adjoint>(
    dev: D,
    (checkpoint, lora): (&Checkpoint, Option<&Lora>),
    is_trained: fn(&str) -> bool,
    sequences: &[Sequence],
) -> Result<Gradients> {
    let tape = Tape::new(Arc::new(dev), is_trained);
    let mut model = Model::load(&tape, checkpoint, &mut |_| {})?;
    if let Some(lora) = lora {
        model.adapt(&tape, &checkpoint.config, lora)?;
    }
    let total = sequences.iter().map(Sequence::weight).sum();
    OBJECTIVE.accumulate(&tape, &model, sequences, (total, 1.0))?;
    Ok(tape.take_gradients())
}

fn is_half(name: &str) -> bool {
    name.contains(".lora_")
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    let format = tensor.dtype.format().context("numbers")?;
    let mut values = vec![0.0; tensor.n_values()];
    format.decode(&tensor.bytes, &mut values);
    Ok(values)
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The model's own gradients are held against PyTorch's elsewhere. With W + scale · B · A for W, that of A is
/// scale · Bᵀ · dW and that of B scale · dW · Aᵀ.
#[test]
fn gradients_of_halves_are_those_of_the_merged_model() -> Result<()> {
    let mut n_compared = 0;
    for (name, model) in [("llama", "llama"), ("text", "text"), ("scout", "scout"), ("experts", "scout")] {
        let (checkpoint, lora, batch) = (toy(model)?, adapter(name)?, sequences(5, &[19, 33]));
        let mut whole = checkpoint.clone();
        for tensor in merged(&checkpoint, &lora)? {
            whole.tensors.insert(tensor.name.clone(), tensor);
        }
        let of_maps = gradients(cpu(2), (&whole, None), |_| true, &batch)?;
        let got = gradients(cpu(2), (&checkpoint, Some(&lora)), is_half, &batch)?;
        ensure!(got.len() == 2 * lora.maps.len() && got.keys().all(|name| is_half(name)), "{name}: {:?}", got.keys());
        for (module, LowRank { rank, scale, a, b }) in &lora.maps {
            let (a_values, b_values, n_in) = (values(a)?, values(b)?, a.shape[1]);
            let (mut want_a, mut want_b) = (vec![0.0f64; a_values.len()], vec![0.0f64; b_values.len()]);
            if is_routed(module) {
                // [experts, inputs, outputs]; A is [experts, rank, outputs], B here [experts, rank, inputs].
                let n_out = a.shape[1];
                for (at, d) in of_maps[module].iter().enumerate() {
                    let (expert, input, output) = (at / (b.shape[1] * n_out), at / n_out % b.shape[1], at % n_out);
                    for row in expert * rank..(expert + 1) * rank {
                        let d = f64::from(*scale) * f64::from(*d);
                        want_a[row * n_out + output] += f64::from(b_values[row * b.shape[1] + input]) * d;
                        want_b[row * b.shape[1] + input] += f64::from(a_values[row * n_out + output]) * d;
                    }
                }
            }
            let full = of_maps.get(&format!("{module}.weight")).map_or(&[][..], Vec::as_slice);
            for (out, row) in full.chunks_exact(n_in).enumerate() {
                for (r, (i, d)) in (0..*rank).flat_map(|r| row.iter().enumerate().map(move |entry| (r, entry))) {
                    let d = f64::from(*scale) * f64::from(*d);
                    want_a[r * n_in + i] += f64::from(b_values[out * rank + r]) * d;
                    want_b[out * rank + r] += f64::from(a_values[r * n_in + i]) * d;
                }
            }
            for (half, want) in [(a, want_a), (b, want_b)] {
                let got = &got[&half.name];
                let far = norm(got.iter().zip(&want).map(|(got, want)| f64::from(*got) - want));
                // Sums of some hundred f32 products on either side.
                ensure!(far <= 1e-4 * norm(want.iter().copied()), "{}: {far}", half.name);
                n_compared += want.len();
            }
        }
    }
    println!("{n_compared} derivatives");
    ensure!(n_compared > 20_000, "{n_compared}");
    Ok(())
}

/// Along a direction in which every number of a half goes up or down. Losses are means of f32 logits' cross-entropies,
/// good to 1e-6; over twice the step that is 3e-5. The step's own error was seen to be as large.
#[test]
fn gradients_of_halves_are_differences_of_losses() -> Result<()> {
    let step = 1.0 / 64.0;
    let (checkpoint, lora, batch) = (toy("llama")?, adapter("llama")?, sequences(2, &[21]));
    let loss = |lora: &Lora| -> Result<f64> {
        let tape = Tape::new(Arc::new(Reference), is_half);
        let mut model = Model::load(&tape, &checkpoint, &mut |_| {})?;
        model.adapt(&tape, &checkpoint.config, lora)?;
        Ok(evaluate(&tape, &model, &batch, 100)?.mean())
    };
    let got = gradients(Reference, (&checkpoint, Some(&lora)), is_half, &batch)?;
    let same = gradients(cpu(2), (&checkpoint, Some(&lora)), is_half, &batch)?;
    ensure!(got == same, "gradients of two devices differ");
    let sign = |i: usize| if (i * 7919) % 5 < 2 { -1.0f32 } else { 1.0 };
    let mut n_compared = 0;
    for module in lora.maps.keys().filter(|module| module.contains("layers.1.") || module.contains("layers.3.")) {
        for half in ['a', 'b'] {
            let moved = |by: f32| -> Result<Lora> {
                let mut moved = lora.clone();
                let map = moved.maps.get_mut(module).context("a map")?;
                let tensor = if half == 'a' { &mut map.a } else { &mut map.b };
                let numbers = values(tensor)?.into_iter().enumerate().map(|(i, x)| x + by * sign(i));
                tensor.bytes = numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into();
                tensor.dtype = DType::Weight(Format::F32);
                Ok(moved)
            };
            let map = &lora.maps[module];
            let gradient = &got[if half == 'a' { &map.a.name } else { &map.b.name }];
            let along: f64 = gradient.iter().enumerate().map(|(i, g)| f64::from(*g) * f64::from(sign(i))).sum();
            // A step of a half as a whole is as long as the root of its size.
            let h = step / (gradient.len() as f32).sqrt();
            let slope = (loss(&moved(h)?)? - loss(&moved(-h)?)?) / (2.0 * f64::from(h));
            let most = norm(gradient.iter().map(|g| f64::from(*g))) * (gradient.len() as f64).sqrt();
            ensure!(
                (along - slope).abs() <= 1e-3 * (gradient.len() as f64).sqrt().max(most),
                "{module} {half}: {along} {slope}"
            );
            n_compared += 1;
        }
    }
    ensure!(n_compared == 28, "{n_compared}");
    Ok(())
}

fn trainer(weights: Weights, lr: f64, n_threads: usize) -> Trainer<Cpu> {
    let adamw = AdamW { lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
    let settings = Settings { adamw, muon: None, norm_limit: Some(1.0), average_decay: None };
    let threads = Threads::new(NonZeroUsize::new(n_threads).unwrap_or(NonZeroUsize::MIN));
    let optimizer = Optimizer::new(settings, Compute::plain(threads));
    Trainer::new(Arc::new(cpu(n_threads)), (weights, Arc::new(|_| true)), optimizer, (OBJECTIVE, 64))
}

fn settings(targets: &[&str]) -> LoraSettings {
    LoraSettings { rank: 4, alpha: 8.0, targets: targets.iter().map(|name| (*name).to_owned()).collect(), seed: 3 }
}

/// `checkpoint` with its maps in Q8_0.
fn quantised(mut checkpoint: Checkpoint) -> Checkpoint {
    let format = Format::Block(Kind::Q8_0);
    for tensor in checkpoint.tensors.values_mut().filter(|tensor| tensor.name.ends_with("proj.weight")) {
        let mut numbers = vec![0.0; tensor.n_values()];
        Format::F32.decode(&tensor.bytes, &mut numbers);
        let mut bytes = vec![0; format.row_bytes(numbers.len()).unwrap_or(0)];
        format.encode(&numbers, &mut bytes);
        (tensor.bytes, tensor.dtype) = (bytes.into(), DType::Weight(format));
    }
    checkpoint
}

/// The same numbers in f32.
fn dequantised(mut checkpoint: Checkpoint) -> Result<Checkpoint> {
    for tensor in checkpoint.tensors.values_mut() {
        let numbers = values(tensor)?;
        tensor.bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into();
        tensor.dtype = DType::Weight(Format::F32);
    }
    Ok(checkpoint)
}

/// Rows go to eight bits before quantised maps: half a step of the largest of 32 numbers, 0.4 %, in each of 28 maps one
/// after another, which adds up to 2 % as their root; the bound is three times that. Gradients see the numbers that
/// weights decode to.
#[test]
fn gradients_beside_quantised_weights_are_nearly_those_beside_the_same_in_f32() -> Result<()> {
    let (base, lora, batch) = (quantised(toy("llama")?), adapter("llama")?, sequences(4, &[30]));
    let got = gradients(cpu(2), (&base, Some(&lora)), is_half, &batch)?;
    let want = gradients(cpu(2), (&dequantised(base)?, Some(&lora)), is_half, &batch)?;
    let all = |gradients: &Gradients| gradients.values().flatten().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let (got, want) = (all(&got), all(&want));
    let far = norm(got.iter().zip(&want).map(|(a, b)| a - b)) / norm(want.iter().copied());
    println!("{far:.4} of {} derivatives", want.len());
    ensure!(got.len() == want.len() && far > 0.0 && far < 0.06, "{far}");
    Ok(())
}

#[test]
fn training_beside_frozen_weights_changes_the_adapter_alone() -> Result<()> {
    let experts: &[&str] = &["experts.gate_up_proj", "experts.down_proj"];
    for (name, base, chosen) in [
        ("llama", toy("llama")?, &[][..]),
        ("q8_0", quantised(toy("llama")?), &[]),
        ("text", toy("text")?, &[]),
        ("experts", toy("text")?, experts),
    ] {
        let before: BTreeMap<String, Vec<u8>> =
            base.tensors.values().map(|t| (t.name.clone(), t.bytes.to_vec())).collect();
        let lora = fresh(&base.config, &settings(chosen))?;
        ensure!(lora.maps.keys().all(|module| is_routed(module) != chosen.is_empty()), "{:?}", lora.maps.keys());
        let n_maps = lora.maps.len();
        let batch = sequences(9, &[24, 24, 17]);
        let mut runs = Vec::new();
        for n_threads in [1, 2] {
            let mut trainer = trainer(Weights::beside(base.clone(), &lora)?, 1e-2, n_threads);
            let first = trainer.evaluate(&batch)?.mean();
            for i in 0..8 {
                let done = trainer.step(&batch, 1.0)?.losses.mean();
                ensure!(i > 0 || (done - first).abs() < 1e-12, "{name}: {done} is measured as {first}");
            }
            let last = trainer.evaluate(&batch)?.mean();
            ensure!(last < first - 0.1, "{name}: from {first} to {last}");
            ensure!(trainer.weights().tensors().count() == 2 * n_maps, "{name}");
            ensure!(trainer.weights().tensors().all(|(name, _, _)| is_half(name)), "{name}");
            ensure!(trainer.optimizer().state().iter().all(|moment| is_half(&moment.name)), "{name}");
            let trained = trainer.weights().lora().context("an adapter")?;
            runs.push(
                trained.maps.values().flat_map(|map| [map.a.bytes.to_vec(), map.b.bytes.to_vec()]).collect::<Vec<_>>(),
            );
            println!("{name}: {n_maps} maps, from {first:.3} to {last:.3}");
        }
        ensure!(runs[0] == runs[1], "{name}: bits depend on the number of threads");
        ensure!(base.tensors.values().all(|t| before[&t.name] == t.bytes[..]), "{name}: the model has changed");
    }
    Ok(())
}

/// The names and numbers of a folder's file, whatever the order of its tensors.
fn numbers(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let file = folder.join("adapter_model.safetensors");
    let tensors = safetensors::parse(&file, &std::fs::read(&file)?.into())?;
    Ok(tensors.into_iter().map(|tensor| (tensor.name, tensor.bytes.to_vec())).collect())
}

#[test]
fn a_written_adapter_is_read_back_the_same() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, chosen, wanted) in [
        ("llama", &["q_proj", "v_proj"][..], vec!["q_proj", "v_proj"]),
        ("text", &["q_proj", "shared_expert.up_proj"], vec![]),
        ("scout", &["k_proj"], vec![]),
        ("text", &["experts.down_proj", "o_proj"], vec!["experts.down_proj", "o_proj"]),
        ("scout", &["gate_up_proj", "experts.down_proj"], vec![]),
    ] {
        let base = toy(name)?;
        let lora = fresh(&base.config, &settings(chosen))?;
        let names = targets(&base.config, &lora);
        // Names that other maps end in too are written in full: dense layers and a tower have up_proj and k_proj.
        let in_full: Vec<String> = lora.maps.keys().cloned().collect();
        ensure!(if wanted.is_empty() { names == in_full } else { names == wanted }, "{name}: {names:?}");
        lora.write(folder.path(), "toy", &names)?;
        let read = Lora::open(folder.path())?;
        ensure!(read.maps.len() == lora.maps.len() && !lora.maps.is_empty(), "{name}");
        for (module, map) in &lora.maps {
            let same = &read.maps[module];
            ensure!(same.rank == 4 && same.scale == 2.0 && same.a.bytes[..] == map.a.bytes[..], "{name}: {module}");
            ensure!(same.b.bytes.iter().all(|byte| *byte == 0) && same.b.shape == map.b.shape, "{name}: {module}");
        }
    }
    // Ranks, scales and numbers of their own.
    for (name, model) in [("llama", "llama"), ("experts", "scout"), ("gate_up", "text")] {
        let lora = adapter(name)?;
        lora.write(folder.path(), "toy", &targets(&toy(model)?.config, &lora))?;
        let read = Lora::open(folder.path())?;
        ensure!(read.maps.keys().eq(lora.maps.keys()), "{name}: {:?}", read.maps.keys());
        for (module, map) in &lora.maps {
            let same = &read.maps[module];
            ensure!(same.rank == map.rank && (same.scale - map.scale).abs() <= 1e-6 * map.scale, "{name}: {module}");
            for (got, want) in [(&same.a, &map.a), (&same.b, &map.b)] {
                let is_same = got.name == want.name && got.shape == want.shape && got.bytes[..] == want.bytes[..];
                ensure!(is_same, "{name}: {}", want.name);
            }
        }
        ensure!(numbers(folder.path())? == numbers(&data("lora").join(name))?, "{name}: another file");
    }
    Ok(())
}

#[test]
fn an_adapter_that_can_not_be_is_refused_by_name() -> Result<()> {
    let config = toy("text")?.config;
    for (changed, wants) in [
        (LoraSettings { rank: 0, ..settings(&[]) }, "rank 0"),
        (LoraSettings { alpha: 0.0, ..settings(&[]) }, "alpha 0"),
        (LoraSettings { alpha: f64::NAN, ..settings(&[]) }, "alpha NaN"),
        (settings(&["q_proj", "router"]), "\"router\""),
        (settings(&["proj"]), "down_proj, experts.down_proj, experts.gate_up_proj, gate_proj"),
    ] {
        let refused = fresh(&config, &changed).err().context("refused")?.to_string();
        ensure!(refused.contains(wants), "{refused}");
    }
    Ok(())
}

/// Two pairs of a common beginning.
fn pairs() -> Vec<[Sequence; 2]> {
    let answer = |seed: u32, shift: u32| {
        let ids: Vec<u32> = (0..20).map(|t| if t < 9 { 3 + t * seed } else { 3 + (t * t + shift) % 80 }).collect();
        let mut sequence = Sequence::text(&ids);
        sequence.weights[..8].fill(0.0);
        sequence
    };
    [(2, [5, 40]), (4, [11, 60])].map(|(seed, shifts)| shifts.map(|shift| answer(seed, shift))).to_vec()
}

#[test]
fn the_gradient_of_a_preference_is_the_difference_of_its_losses() -> Result<()> {
    let (checkpoint, lora, pairs) = (toy("llama")?, adapter("llama")?, pairs());
    let all: Vec<Sequence> = pairs.iter().flatten().cloned().collect();
    let preference = Preference { beta: 0.3 };
    let tape = Tape::new(Arc::new(cpu(2)), is_half);
    let mut model = Model::load(&tape, &checkpoint, &mut |_| {})?;
    let references = log_probabilities(&tape, &model, &all, 5)?;
    model.adapt(&tape, &checkpoint.config, &lora)?;
    let losses = preference.accumulate((&tape, &model), &OBJECTIVE, &pairs, &references, 2)?;
    let gradients = tape.take_gradients();
    let loss = |model: &Model<Tape<Cpu>>| -> Result<f64> {
        Ok(preference.measure(&log_probabilities(&tape, model, &all, 100)?, &references).mean())
    };
    ensure!((losses.mean() - loss(&model)?).abs() < 1e-9 && losses.weight == 2.0, "{losses:?}");
    ensure!((losses.mean() - std::f64::consts::LN_2).abs() > 1e-3, "the adapter changes nothing: {losses:?}");
    let total = norm(gradients.values().flatten().map(|x| f64::from(*x)));
    // Along the gradient itself, all numbers together; losses are good to 1e-5, as sums over eleven tokens.
    let h = 1.0 / 128.0;
    let mut ends = Vec::new();
    for by in [h, -h] {
        let mut moved = lora.clone();
        for map in moved.maps.values_mut() {
            for tensor in [&mut map.a, &mut map.b] {
                let numbers = values(tensor)?.into_iter().zip(&gradients[&tensor.name]);
                let numbers = numbers.map(|(x, g)| (f64::from(x) + by * f64::from(*g) / total) as f32);
                tensor.bytes = numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into();
                tensor.dtype = DType::Weight(Format::F32);
            }
        }
        model.unadapt();
        model.adapt(&tape, &checkpoint.config, &moved)?;
        ends.push(loss(&model)?);
    }
    let slope = (ends[0] - ends[1]) / (2.0 * h);
    println!("slope {slope}, norm of the gradient {total}");
    ensure!((slope - total).abs() < 2e-3 * total.max(1.0), "{slope} {total}");
    Ok(())
}

#[test]
fn preferred_answers_become_likelier_than_the_others() -> Result<()> {
    let base = toy("text")?;
    let step = Step { pairs: pairs(), ..Step::default() };
    let beside = Weights::beside(base.clone(), &fresh(&base.config, &settings(&[]))?)?;
    for (name, weights, lr) in [("lora", beside, 1e-2), ("full", Weights::of(base)?, 1e-3)] {
        let mut trainer = trainer(weights, lr, 2).preferring(Preference { beta: 0.5 });
        let first = trainer.measure(&step)?;
        ensure!((first.mean() - std::f64::consts::LN_2).abs() < 1e-9, "{name}: {first:?}");
        for _ in 0..6 {
            trainer.learn(&step, 1.0)?;
        }
        let last = trainer.measure(&step)?;
        println!("{name}: from {:.3} to {:.3}", first.mean(), last.mean());
        ensure!(last.mean() < 0.4 && last.preferred == 2, "{name}: {last:?}");
        let refused = trainer.learn(&Step { sequences: sequences(1, &[9]), ..Step::default() }, 1.0);
        ensure!(matches!(refused, Err(TrainError::Sequence { .. })), "{name}");
    }
    Ok(())
}
