//! Bits do not depend on company: batches, piece sizes, reuse and page order change nothing.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, Result};
use cpu::{Cpu, CpuOptions};
use engine::{Content, Engine, Known, Sequence};
use it::{Toy, toys};
use proptest::prelude::*;
use tensor::KvFormat;

const CONTEXT: usize = 512;

fn engine(folder: &std::path::Path, n_threads: usize) -> Result<Engine<Cpu>> {
    let options = CpuOptions { threads: NonZeroUsize::new(n_threads), ..Default::default() };
    let toy = Toy::load(Cpu::new(options), folder)?;
    Ok(Engine::new(toy.dev, toy.model, CONTEXT, KvFormat::Q8)?)
}

fn toy(name: &str) -> Result<PathBuf> {
    toys()?.into_iter().find(|path| path.ends_with(format!("toy/{name}"))).context("a toy of that name")
}

fn content<T>(ids: &[u32]) -> Content<T> {
    Content { known: ids.iter().copied().map(Known::Token).collect(), media: Vec::new() }
}

/// Logits after each of the last `n` ids, one row a step.
fn alone(engine: &mut Engine<Cpu>, ids: &[u32]) -> Result<Vec<u32>> {
    let mut sequence = Sequence::default();
    engine.set(&mut sequence, content(ids))?;
    let logits = engine.prefill(&mut sequence, &mut |_, _| {})?;
    engine.release(sequence);
    Ok(logits.iter().map(|v| v.to_bits()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_row_does_not_depend_on_its_step(
        lens in proptest::collection::vec(1usize..90, 1..5),
        n_rows in 1usize..40,
        n_threads in 1usize..3,
        name in prop_oneof![Just("scout"), Just("maverick"), Just("text"), Just("guard"), Just("llama")],
    ) {
        let folder = toy(name).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let mut engine = engine(&folder, n_threads).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let free = engine.n_free_pages();
        let prompts: Vec<Vec<u32>> = lens
            .iter()
            .enumerate()
            .map(|(i, len)| (0..*len).map(|p| 3 + ((p * 7 + i * 13 + p * p) % 90) as u32).collect())
            .collect();
        let want: Vec<Vec<u32>> = prompts.iter().map(|ids| alone(&mut engine, ids).expect("alone")).collect();
        let mut sequences: Vec<Sequence<_>> = prompts.iter().map(|_| Sequence::default()).collect();
        for (sequence, ids) in sequences.iter_mut().zip(&prompts) {
            engine.set(sequence, content(ids)).expect("room");
        }
        let mut got: Vec<Option<Vec<f32>>> = vec![None; prompts.len()];
        while got.iter().any(Option::is_none) {
            let mut all: Vec<&mut Sequence<_>> = sequences.iter_mut().collect();
            let logits = engine.step(&mut all, n_rows).expect("a step");
            for (got, logits) in got.iter_mut().zip(logits) {
                *got = got.take().or(logits);
            }
        }
        for (got, want) in got.iter().flatten().zip(&want) {
            prop_assert_eq!(&got.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), want);
        }
        for sequence in sequences {
            engine.release(sequence);
        }
        prop_assert_eq!(engine.n_free_pages(), free);
    }
}

#[test]
fn a_chunked_layer_keeps_its_chunk_only() -> Result<()> {
    let mut engine = engine(&toy("scout")?, 1)?;
    let (_, free) = engine.n_free_pages();
    let ids: Vec<u32> = (0..100).map(|p| 3 + p % 90).collect();
    let mut sequence = Sequence::default();
    engine.set(&mut sequence, content(&ids))?;
    engine.prefill(&mut sequence, &mut |_, _| {})?;
    // The toy's chunk is 16 positions, one page: position 100 sees 96..=100.
    assert_eq!(free - engine.n_free_pages().1, 1);
    engine.release(sequence);
    assert_eq!(engine.n_free_pages().1, free);
    Ok(())
}

#[test]
fn what_was_computed_for_a_common_beginning_is_kept_and_changes_nothing() -> Result<()> {
    for name in ["scout", "guard", "llama"] {
        let mut engine = engine(&toy(name)?, 2)?;
        let long: Vec<u32> = (0..70).map(|p| 3 + (p * 5) % 90).collect();
        let mut other = long.clone();
        other.truncate(66);
        other.extend([5, 6, 7, 8]);
        let mut sequence = Sequence::default();
        engine.set(&mut sequence, content(&long))?;
        engine.prefill(&mut sequence, &mut |_, _| {})?;
        engine.set(&mut sequence, content(&other))?;
        assert_eq!(sequence.n_computed(), 66, "{name}");
        let logits = engine.prefill(&mut sequence, &mut |_, _| {})?;
        let bits: Vec<u32> = logits.iter().map(|v| v.to_bits()).collect();
        engine.release(sequence);
        assert_eq!(bits, alone(&mut engine, &other)?, "{name}");
    }
    Ok(())
}

#[test]
fn going_back_behind_a_retired_chunk_computes_again() -> Result<()> {
    let mut engine = engine(&toy("scout")?, 1)?;
    let long: Vec<u32> = (0..70).map(|p| 3 + (p * 5) % 90).collect();
    let mut sequence = Sequence::default();
    engine.set(&mut sequence, content(&long))?;
    engine.prefill(&mut sequence, &mut |_, _| {})?;
    engine.set(&mut sequence, content(&long[..40]))?;
    assert_eq!(sequence.n_computed(), 0);
    let logits = engine.prefill(&mut sequence, &mut |_, _| {})?;
    let bits: Vec<u32> = logits.iter().map(|v| v.to_bits()).collect();
    engine.release(sequence);
    assert_eq!(bits, alone(&mut engine, &long[..40])?);
    Ok(())
}
