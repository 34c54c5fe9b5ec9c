//! Gradients against PyTorch's autograd, and against themselves.
//!
//! The goldens lie in `tests/data/train`, made by `scripts/make_train_goldens.py`; a folder made with `--full`, which has
//! every value, is checked in addition if `PUNA_TRAIN_GOLDENS` names it.

use std::collections::BTreeMap;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions};

use formats::Checkpoint;
use it::hearing::Vectors;
use it::{Goldens, Prompt, toys};
use llama::{Input, Model};
use tensor::{Adjoint, Reference};
use train::{Chunk, Losses, Media, Memory, Objective, Sequence, Tape};

/// Of a tensor's largest gradient. Rounding of 24 bits through eight layers, twice, comes to a few 1e-6 in either order.
const TOLERANCE: f32 = 1e-4;

/// As in the script: one value in so many is kept.
const STRIDE: usize = 13;

/// As in the script.
const OBJECTIVE: Objective = Objective { balance: 0.01, router_z: 0.001, logit_rows: 7, memory: Memory::KeepAll };

fn cpu(n_threads: usize) -> Arc<Cpu> {
    Arc::new(Cpu::new(CpuOptions { threads: NonZeroUsize::new(n_threads), ..Default::default() }))
}

/// Folders of goldens: the repository's, then the one that `PUNA_TRAIN_GOLDENS` names.
fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/train");
    std::iter::once(own).chain(std::env::var_os("PUNA_TRAIN_GOLDENS").map(PathBuf::from)).collect()
}

/// A prompt of which every next token is to be learnt.
fn sequence(prompt: Prompt<'_>, checkpoint: &Checkpoint) -> Result<Sequence> {
    let ids = prompt.ids("input_ids")?;
    let mut sequence = Sequence::text(&ids);
    // The last token says nothing, but its routers count.
    sequence.inputs.extend(ids.last().map(|id| Input::Token(*id)));
    sequence.targets.push(0);
    sequence.weights.push(0.0);
    if prompt.has("pixel_values") {
        let patch = checkpoint.config.image_tokens.as_ref().context("image tokens")?.patch;
        let places = sequence.inputs.iter_mut().filter(|input| **input == Input::Token(patch));
        places.enumerate().for_each(|(row, input)| *input = Input::Feature { features: 0, row });
        sequence.media.push(Media::Image(prompt.values("pixel_values")?));
    }
    Ok(sequence)
}

/// Losses and gradients of one sequence.
fn gradients<D: Adjoint>(
    dev: &Arc<D>,
    checkpoint: &Checkpoint,
    sequence: &Sequence,
    objective: &Objective,
) -> Result<(Losses, BTreeMap<String, Vec<f32>>)> {
    let tape = Tape::new(Arc::clone(dev), |_| true);
    let model = Model::load(&tape, checkpoint, &mut |_| {})?;
    let total = sequence.weight();
    let losses = objective.accumulate(&tape, &model, std::slice::from_ref(sequence), (total, 1.0))?;
    Ok((losses, tape.take_gradients()))
}

fn near(got: f64, want: f32, tolerance: f64, what: &str) -> Result<()> {
    ensure!((got - f64::from(want)).abs() <= tolerance, "{what} is {got}, autograd says {want}");
    Ok(())
}

/// Holds `got` against the goldens of one prompt; returns the largest difference, of a tensor's largest value.
fn compare(got: &BTreeMap<String, Vec<f32>>, vectors: &Vectors, prompt: &str, at: &str) -> Result<(usize, f32)> {
    let prefix = format!("{prompt}/grad/");
    let (mut n_compared, mut worst) = (0, 0.0f32);
    for name in vectors.tensors.keys().filter_map(|name| name.strip_prefix(&prefix)) {
        let want = vectors.values(&format!("{prefix}{name}"))?;
        let largest = vectors.values(&format!("{prompt}/largest/{name}"))?[0];
        let Some(got) = got.get(name) else {
            ensure!(largest == 0.0, "{at}: {name} has no gradient");
            continue;
        };
        let stride = if got.len() == want.len() { 1 } else { STRIDE };
        ensure!(got.len().div_ceil(stride) == want.len(), "{at}: {name} has {} values", got.len());
        for (i, (got, want)) in got.iter().step_by(stride).zip(&want).enumerate() {
            let difference = (got - want).abs() / largest.max(f32::MIN_POSITIVE);
            ensure!(difference <= TOLERANCE, "{at}: {name}[{i}·{stride}] is {got}, autograd says {want} ({largest})");
            worst = worst.max(difference);
        }
        n_compared += 1;
    }
    ensure!(got.len() >= n_compared, "{at}: gradients that autograd does not have");
    Ok((n_compared, worst))
}

fn every_gradient_agrees<D: Adjoint>(dev: &Arc<D>) -> Result<()> {
    let (mut n_compared, mut worst) = (0, 0.0f32);
    for folder in folders() {
        for toy in toys()? {
            let case = toy.file_name().and_then(|name| name.to_str()).context("a toy's name")?;
            let file = folder.join(format!("{case}.safetensors"));
            if !file.is_file() {
                continue;
            }
            let vectors = Vectors::open(&file)?;
            let checkpoint = Checkpoint::open(&toy)?;
            for (name, prompt) in Goldens::open(&toy)?.prompts() {
                if !vectors.tensors.contains_key(&format!("{name}/loss")) {
                    continue;
                }
                let at = format!("{case}/{name}");
                let (losses, got) = gradients(dev, &checkpoint, &sequence(prompt, &checkpoint)?, &OBJECTIVE)?;
                near(losses.mean(), vectors.values(&format!("{name}/loss"))?[0], 2e-5, &at)?;
                let auxiliary = |loss: &train::RouterLoss| {
                    f64::from(OBJECTIVE.balance) * loss.balance + f64::from(OBJECTIVE.router_z) * loss.z
                };
                let whole = losses.mean() + losses.routers.iter().map(auxiliary).sum::<f64>();
                near(whole, vectors.values(&format!("{name}/whole"))?[0], 2e-5, &at)?;
                let (n, difference) = compare(&got, &vectors, name, &at)?;
                println!("{at}: {n} tensors, largest difference {difference:.1e} of the tensor's largest value");
                (n_compared, worst) = (n_compared + n, worst.max(difference));
            }
        }
    }
    println!("{n_compared} gradients, largest difference {worst:.1e}");
    ensure!(n_compared > 500, "only {n_compared} gradients were compared");
    Ok(())
}

#[test]
fn every_gradient_agrees_on_the_reference_device() -> Result<()> {
    every_gradient_agrees(&Arc::new(Reference))
}

#[test]
fn every_gradient_agrees_on_the_cpu_device() -> Result<()> {
    every_gradient_agrees(&cpu(2))
}

#[test]
fn gradients_are_the_same_to_the_bit_on_every_device_and_when_layers_are_computed_again() -> Result<()> {
    let mut n_compared = 0;
    for toy in toys()? {
        let checkpoint = Checkpoint::open(&toy)?;
        for (name, prompt) in Goldens::open(&toy)?.prompts() {
            let sequence = sequence(prompt, &checkpoint)?;
            let (losses, want) = gradients(&Arc::new(Reference), &checkpoint, &sequence, &OBJECTIVE)?;
            let again = Objective { memory: Memory::Recompute, ..OBJECTIVE };
            let others = [
                ("recomputed", gradients(&Arc::new(Reference), &checkpoint, &sequence, &again)?),
                ("one thread", gradients(&cpu(1), &checkpoint, &sequence, &OBJECTIVE)?),
                ("two threads", gradients(&cpu(2), &checkpoint, &sequence, &OBJECTIVE)?),
                ("two threads, recomputed", gradients(&cpu(2), &checkpoint, &sequence, &again)?),
            ];
            for (how, (other_losses, got)) in others {
                let at = format!("{}/{name}, {how}", toy.display());
                ensure!(losses == other_losses, "{at}: {losses:?}, then {other_losses:?}");
                ensure!(got.len() == want.len(), "{at}: {} gradients", got.len());
                for (tensor, want) in &want {
                    let same = got
                        .get(tensor)
                        .is_some_and(|got| got.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits()));
                    ensure!(same, "{at}: {tensor} differs");
                    n_compared += 1;
                }
            }
        }
    }
    println!("{n_compared} gradients equal to the bit");
    ensure!(n_compared > 3000);
    Ok(())
}

/// Of the encoder and projector: those of `scripts/make_audio_gradient_goldens.py`, and those of the specification if
/// `PUNA_AUDIO_GOLDENS` names their folder.
fn audio_gradients_agree<D: Adjoint>(dev: &Arc<D>) -> Result<usize> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    let own = (data.join("train/hearing.safetensors"), data.join("audio-tower/mixed_tiny"));
    let others = std::env::var_os("PUNA_AUDIO_GOLDENS").map(|folder| {
        let folder = Path::new(&folder);
        (folder.join("llama4_audio_tiny_golden.safetensors"), folder.join("llama4_audio_tiny"))
    });
    let mut n_compared = 0;
    for (file, folder) in std::iter::once(own).chain(others) {
        let vectors = Vectors::open(&file)?;
        let checkpoint = Checkpoint::open(&folder)?;
        let sequence = heard(&vectors, &checkpoint)?;
        let objective = Objective { balance: 0.0, router_z: 0.0, ..OBJECTIVE };
        let (losses, got) = gradients(dev, &checkpoint, &sequence, &objective)?;
        near(losses.mean(), vectors.values("loss")?[0], 2e-5, "the loss")?;
        for name in vectors.tensors.keys().filter_map(|name| name.strip_prefix("grad/")) {
            let want = vectors.values(&format!("grad/{name}"))?;
            let got = got.get(name).with_context(|| format!("{name} has no gradient"))?;
            ensure!(got.len() == want.len(), "{name} has {} values", got.len());
            let largest = want.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let worst = got.iter().zip(&want).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
            ensure!(worst <= TOLERANCE * largest, "{name} differs by {worst} of {largest}");
            n_compared += 1;
        }
    }
    Ok(n_compared)
}

/// The prompt of a clip, and an image before it if there is one, of which the last tokens are learnt.
fn heard(vectors: &Vectors, checkpoint: &Checkpoint) -> Result<Sequence> {
    let mut sequence = Sequence::text(&vectors.ids("input_ids")?);
    let labels = vectors.tensors["labels"].bytes.as_chunks::<8>().0.iter().skip(1);
    for (weight, label) in sequence.weights.iter_mut().zip(labels) {
        *weight = if i64::from_le_bytes(*label) < 0 { 0.0 } else { 1.0 };
    }
    let tokens = &checkpoint.config.audio.as_ref().context("audio")?.tokens;
    let patch = checkpoint.config.image_tokens.as_ref().context("image tokens")?.patch;
    let image = vectors.tensors.contains_key("pixel_values").then(|| vectors.values("pixel_values")).transpose()?;
    let media = image.iter().map(|_| patch).chain([tokens.audio]);
    for (features, token) in media.enumerate() {
        let places = sequence.inputs.iter_mut().filter(|input| **input == Input::Token(token));
        places.enumerate().for_each(|(row, input)| *input = Input::Feature { features, row });
    }
    let (mel, valid) = (vectors.values("input_features")?, vectors.ids("num_mel_frames")?);
    let [_, n_mels, _] = vectors.shape("input_features")? else { anyhow::bail!("the features' shape") };
    let chunks = mel
        .chunks_exact(mel.len() / valid.len())
        .zip(valid)
        .map(|(chunk, valid)| Chunk { columns: it::hearing::transposed(chunk, *n_mels), valid: valid as usize });
    sequence.media = image.into_iter().map(Media::Image).chain([Media::Sound(chunks.collect())]).collect();
    Ok(sequence)
}

#[test]
fn gradients_of_what_hears_agree_on_both_devices() -> Result<()> {
    let n_compared = audio_gradients_agree(&Arc::new(Reference))? + audio_gradients_agree(&cpu(2))?;
    println!("{n_compared} gradients");
    ensure!(n_compared >= 78, "{n_compared} gradients were compared");
    Ok(())
}

#[test]
fn pictures_of_several_sequences_stay_apart() -> Result<()> {
    let checkpoint = Checkpoint::open(&it::exported::toy("scout"))?;
    let goldens = Goldens::open(&it::exported::toy("scout"))?;
    let (_, prompt) = goldens.prompts().find(|(_, prompt)| prompt.has("pixel_values")).context("a picture")?;
    let first = sequence(prompt, &checkpoint)?;
    let mut second = first.clone();
    if let Some(Media::Image(pixels)) = second.media.first_mut() {
        pixels.iter_mut().for_each(|x| *x = -*x);
    }
    let tape = Tape::new(cpu(2), |_| true);
    let model = Model::load(&tape, &checkpoint, &mut |_| {})?;
    let loss = |sequences: &[Sequence]| train::evaluate(&tape, &model, sequences, 100).map(|losses| losses.entropy);
    let both = [first, second];
    let (alone, other) = (loss(&both[..1])?, loss(&both[1..])?);
    ensure!(alone != other && (loss(&both)? - alone - other).abs() < 1e-9, "{alone} {other}");
    let [mut beyond, second] = both;
    // The first row that is not its own would be the second picture's first.
    let n_rows = beyond.inputs.iter().filter(|input| matches!(input, Input::Feature { .. })).count();
    let last = beyond.inputs.iter_mut().rfind(|input| matches!(input, Input::Feature { .. })).context("a row")?;
    *last = Input::Feature { features: 0, row: n_rows };
    ensure!(loss(&[beyond, second]).is_err(), "another picture's row was taken");
    Ok(())
}

/// Many pictures, so that towers take them in several rounds: gradients of a step are the sums of its sequences'.
#[test]
fn gradients_of_pictures_add_up() -> Result<()> {
    const N: usize = 40;
    let checkpoint = Checkpoint::open(&it::exported::toy("scout"))?;
    let goldens = Goldens::open(&it::exported::toy("scout"))?;
    let (_, prompt) = goldens.prompts().find(|(_, prompt)| prompt.has("pixel_values")).context("a picture")?;
    let first = sequence(prompt, &checkpoint)?;
    let sequences: Vec<Sequence> = (0..N)
        .map(|i| {
            let mut sequence = first.clone();
            if let Some(Media::Image(pixels)) = sequence.media.first_mut() {
                let turn = i * 7;
                pixels.rotate_left(turn);
                pixels.iter_mut().for_each(|x| *x *= 1.0 - i as f32 / 25.0);
            }
            sequence
        })
        .collect();
    let tape = Tape::new(cpu(2), |_| true);
    let model = Model::load(&tape, &checkpoint, &mut |_| {})?;
    // Routers' losses are no sums.
    let objective = Objective { balance: 0.0, router_z: 0.0, ..OBJECTIVE };
    let total = sequences.iter().map(Sequence::weight).sum();
    objective.accumulate(&tape, &model, &sequences, (total, 1.0))?;
    let together = tape.take_gradients();
    for sequence in &sequences {
        objective.accumulate(&tape, &model, std::slice::from_ref(sequence), (total, 1.0))?;
    }
    let alone = tape.take_gradients();
    let mut n_compared = 0;
    for (name, want) in &alone {
        let got = together.get(name).with_context(|| format!("{name} has no gradient"))?;
        let largest = want.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            ensure!((got - want).abs() <= TOLERANCE * largest, "{name}[{i}] is {got}, one by one {want} ({largest})");
        }
        n_compared += usize::from(name.contains("vision"));
    }
    ensure!(n_compared > 20, "{n_compared} gradients of the tower were compared");
    Ok(())
}
