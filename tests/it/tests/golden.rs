//! Parity with an independent implementation, tensor by tensor.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result};
use cpu::{Cpu, CpuOptions};
use it::{Goldens, Prompt, Toy, argmax, toys};
use tensor::{Device, Reference};

/// Absolute, in f32. The goldens' own spread between implementations is 6.3e-6 (two orders of summing); three times
/// that leaves room for one more independent order.
const TOLERANCE: f32 = 2e-5;

fn cpu(n_threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: NonZeroUsize::new(n_threads), ..Default::default() })
}

/// Compares every golden tensor of `prompt` with what `seen` holds; returns how many and the largest difference.
fn compare(prompt: Prompt<'_>, seen: &BTreeMap<String, Vec<f32>>, at: &str) -> Result<(usize, f32)> {
    let inputs = ["input_ids", "pixel_values", "greedy_ids", "greedy_logits"];
    let mut largest = 0.0f32;
    let mut n_compared = 0;
    for name in prompt.names().filter(|name| !inputs.contains(name)) {
        let want = prompt.values(name)?;
        let got = seen.get(name).with_context(|| format!("{at}: {name} was not seen"))?;
        assert_eq!(got.len(), want.len(), "{at}: values of {name}");
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let difference = (got - want).abs();
            assert!(difference <= TOLERANCE, "{at}: {name}[{i}] is {got}, the golden says {want}");
            largest = largest.max(difference);
        }
        n_compared += 1;
    }
    Ok((n_compared, largest))
}

fn every_golden_tensor_agrees<D: Device>(device: impl Fn() -> D) -> Result<()> {
    let (mut n_compared, mut largest) = (0, 0.0f32);
    for folder in toys()? {
        let toy = Toy::load(device(), &folder)?;
        for (name, prompt) in Goldens::open(&folder)?.prompts() {
            let pixels = prompt.has("pixel_values").then(|| prompt.values("pixel_values")).transpose()?;
            let seen = toy.run(&prompt.ids("input_ids")?, pixels.as_deref(), usize::MAX)?;
            let at = format!("{}/{name}", folder.display());
            let (n, difference) = compare(prompt, &seen, &at)?;
            println!("{at}: {n} tensors, largest difference {difference:.1e}");
            n_compared += n;
            largest = largest.max(difference);
        }
    }
    assert!(n_compared > 100, "only {n_compared} tensors were compared");
    println!("{n_compared} tensors, largest difference {largest:.1e}");
    Ok(())
}

#[test]
fn every_golden_tensor_agrees_on_the_reference_device() -> Result<()> {
    every_golden_tensor_agrees(|| Reference)
}

#[test]
fn every_golden_tensor_agrees_on_the_cpu_device() -> Result<()> {
    every_golden_tensor_agrees(|| cpu(2))
}

#[test]
fn reference_and_cpu_agree_to_the_bit_in_any_pieces() -> Result<()> {
    let mut n_compared = 0;
    for folder in toys()? {
        let reference = Toy::load(Reference, &folder)?;
        let toys = [Toy::load(cpu(1), &folder)?, Toy::load(cpu(2), &folder)?];
        for (name, prompt) in Goldens::open(&folder)?.prompts() {
            let ids = prompt.ids("input_ids")?;
            let pixels = prompt.has("pixel_values").then(|| prompt.values("pixel_values")).transpose()?;
            let want = bits(&reference.run(&ids, pixels.as_deref(), usize::MAX)?);
            for (i, toy) in toys.iter().enumerate() {
                for piece in [1, 5, 16, 23, usize::MAX] {
                    let got = bits(&toy.run(&ids, pixels.as_deref(), piece)?);
                    for (tensor, want) in &want {
                        assert_eq!(got.get(tensor), Some(want), "{}/{name}: {tensor}, {piece}", folder.display());
                        n_compared += 1;
                    }
                    assert_eq!(got.len(), want.len(), "{} threads", i + 1);
                }
            }
        }
    }
    println!("{n_compared} tensors equal to the bit");
    assert!(n_compared > 500);
    Ok(())
}

fn bits(seen: &BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<u32>> {
    seen.iter().map(|(name, values)| (name.clone(), values.iter().map(|v| v.to_bits()).collect())).collect()
}

#[test]
fn greedy_continuations_are_the_goldens() -> Result<()> {
    let mut n_tokens = 0;
    for folder in toys()? {
        let toy = Toy::load(cpu(2), &folder)?;
        for (name, prompt) in Goldens::open(&folder)?.prompts() {
            if !prompt.has("greedy_ids") {
                continue;
            }
            let pixels = prompt.has("pixel_values").then(|| prompt.values("pixel_values")).transpose()?;
            let want = prompt.ids("greedy_ids")?;
            let mut ids = prompt.ids("input_ids")?;
            let n_prompt = ids.len();
            for _ in 0..want.len() {
                let seen = toy.run(&ids, pixels.as_deref(), usize::MAX)?;
                let logits = seen.get("logits").context("logits")?;
                let width = logits.len() / ids.len();
                ids.push(u32::try_from(argmax(&logits[logits.len() - width..]))?);
                n_tokens += 1;
            }
            assert_eq!(ids[n_prompt..], want, "{}/{name}", folder.display());
        }
    }
    println!("{n_tokens} greedy tokens equal");
    assert!(n_tokens > 100);
    Ok(())
}

/// The older layout of `config.json` describes the same model.
#[test]
fn both_generations_of_config_give_the_same_bits() -> Result<()> {
    let mut n_compared = 0;
    for folder in toys()? {
        let old = folder.join("config.v4.json");
        if !old.is_file() {
            continue;
        }
        let copy = tempfile::tempdir()?;
        std::fs::copy(&old, copy.path().join("config.json"))?;
        std::fs::copy(folder.join("model.safetensors"), copy.path().join("model.safetensors"))?;
        for (_, prompt) in Goldens::open(&folder)?.prompts() {
            let logits = |path: &Path| -> Result<BTreeMap<String, Vec<u32>>> {
                let pixels = prompt.has("pixel_values").then(|| prompt.values("pixel_values")).transpose()?;
                Ok(bits(&Toy::load(cpu(1), path)?.run(&prompt.ids("input_ids")?, pixels.as_deref(), usize::MAX)?))
            };
            assert_eq!(logits(&folder)?, logits(copy.path())?, "{}", folder.display());
            n_compared += 1;
        }
    }
    assert!(n_compared >= 8, "{n_compared} prompts");
    Ok(())
}
