//! LoRA adapters beside the toys' maps: goldens of an independent program, equal bits, refusals.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions};
use formats::{Checkpoint, Lora};
use it::exported::{bits, export, toy, write};
use it::{Goldens, Toy};
use llama::{LlamaError, Model, merged};
use tensor::{Device, Reference};

/// Absolute. The goldens are of a float64 program with merged weights, which is up to 4.4e-6 from transformers where
/// nothing is adapted, and the goldens of that are met within 2e-5; additions make activations and logits up to twice as
/// large, and so their rounding.
const TOLERANCE: f32 = 4e-5;

/// Adapters, and the toys that they are for.
const CASES: [(&str, &str); 5] =
    [("llama", "llama"), ("scout", "scout"), ("text", "text"), ("experts", "scout"), ("gate_up", "text")];

fn adapter(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lora").join(name)
}

fn cpu(n_threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: NonZeroUsize::new(n_threads), ..Default::default() })
}

fn load<D: Device>(dev: D, model: &Path, lora: &Lora) -> Result<Toy<D>> {
    let mut toy = Toy::load(dev, model)?;
    toy.model.adapt(&toy.dev, &Checkpoint::open(model)?.config, lora)?;
    Ok(toy)
}

/// The toy `llama` as a GGUF file, whose rows of q and k lie in another order.
fn gguf(folder: &Path, to: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{to}.gguf"));
    write(&path, &export(&toy("llama"), to)?.0, 7)?;
    Ok(path)
}

/// Compares all goldens of the adapter `name` with what `toy` gives; how many there were, and the largest difference.
fn compare<D: Device>(name: &str, toy: &Toy<D>) -> Result<(usize, f32)> {
    let (mut n_compared, mut largest) = (0, 0.0f32);
    for (prompt, golden) in Goldens::open(&adapter(name))?.prompts() {
        let seen = toy.run(&golden.ids("input_ids")?, None, usize::MAX)?;
        for tensor in golden.names().filter(|tensor| *tensor != "input_ids") {
            let want = golden.values(tensor)?;
            let got = seen.get(tensor).with_context(|| format!("{name}/{prompt}: {tensor} was not seen"))?;
            assert_eq!(got.len(), want.len(), "{name}/{prompt}: {tensor}");
            let far = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far <= TOLERANCE, "{name}/{prompt}: {tensor} is {far} away");
            largest = largest.max(far);
            n_compared += 1;
        }
    }
    println!("{name}: {n_compared} tensors, largest difference {largest:.1e}");
    Ok((n_compared, largest))
}

/// Mutations: `scale` left out, `Scaling::Root` taken for `Rank`, gate and up exchanged, the last pattern first.
#[test]
fn adapted_toys_give_what_an_independent_program_gives_with_merged_weights() -> Result<()> {
    let mut n_compared = 0;
    for (name, model) in CASES {
        let lora = Lora::open(&adapter(name))?;
        n_compared += compare(name, &load(Reference, &toy(model), &lora)?)?.0;
        n_compared += compare(name, &load(cpu(2), &toy(model), &lora)?)?.0;
    }
    assert!(n_compared >= 2 * (5 * 2 + 2 * (4 + 6 + 8 + 8 + 6)), "{n_compared}");
    Ok(())
}

/// Mutation: rows of B as they are.
#[test]
fn an_adapter_fits_the_reordered_rows_of_a_gguf_model() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = gguf(folder.path(), "f32")?;
    let lora = Lora::open(&adapter("llama"))?;
    let (n_compared, _) = compare("llama", &load(cpu(2), &path, &lora)?)?;
    ensure!(n_compared >= 10, "{n_compared}");
    Ok(())
}

/// GGUF files have gate and up of experts apart, and all experts output by output.
#[test]
fn merged_weights_of_folders_and_gguf_files_give_what_the_adapter_gives() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut n_compared = 0;
    for (name, model) in CASES {
        let lora = Lora::open(&adapter(name))?;
        let mut paths = vec![toy(model)];
        // Layers with experts here and there have no place in GGUF's metadata.
        if model != "text" {
            paths.push(folder.path().join(format!("{name}.gguf")));
            write(&paths[1], &export(&toy(model), "f32")?.0, 7)?;
        }
        for path in paths {
            let mut checkpoint = Checkpoint::open(&path)?;
            for tensor in merged(&checkpoint, &lora)? {
                checkpoint.tensors.insert(tensor.name.clone(), tensor);
            }
            let mut toy = Toy::load(cpu(1), &path)?;
            toy.model = Model::load(&toy.dev, &checkpoint, &mut |_| {})?;
            n_compared += compare(name, &toy)?.0;
        }
    }
    ensure!(n_compared >= 8 * 2 + 2 * (2 * (4 + 8 + 8) + 6 + 6), "{n_compared}");
    Ok(())
}

#[test]
fn bits_of_an_adapted_model_depend_on_no_device_thread_or_piece() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let quantised = gguf(folder.path(), "q8_0")?;
    let mut n_compared = 0;
    for (name, model) in CASES.map(|(name, model)| (name, toy(model))).into_iter().chain([("llama", quantised)]) {
        let lora = Lora::open(&adapter(name))?;
        let reference = load(Reference, &model, &lora)?;
        let alone = Toy::load(cpu(1), &model)?;
        let toys = [load(cpu(1), &model, &lora)?, load(cpu(2), &model, &lora)?];
        for (_, golden) in Goldens::open(&adapter(name))?.prompts() {
            let ids = golden.ids("input_ids")?;
            let want = reference.run(&ids, None, usize::MAX)?;
            for (toy, piece) in toys.iter().flat_map(|toy| [1, 5, 16, usize::MAX].map(|piece| (toy, piece))) {
                assert_eq!(bits(&toy.run(&ids, None, piece)?), bits(&want), "{name}, pieces of {piece}");
                n_compared += want.len();
            }
            let logits = |seen: &BTreeMap<String, Vec<f32>>| seen.get("logits").cloned();
            assert_ne!(logits(&alone.run(&ids, None, usize::MAX)?), logits(&want), "the adapter does something");
        }
    }
    println!("{n_compared} tensors equal to the bit");
    assert!(n_compared > 500);
    Ok(())
}

#[test]
fn experts_that_stay_in_their_file_change_no_bit_of_an_adapted_model() -> Result<()> {
    for name in ["scout", "experts"] {
        let lora = Lora::open(&adapter(name))?;
        let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
        let want = load(cpu(1), &toy("scout"), &lora)?.run(&ids, None, 16)?;
        let got = load(cpu(1).with_expert_cache(1 << 20), &toy("scout"), &lora)?.run(&ids, None, 16)?;
        assert_eq!(bits(&got), bits(&want), "{name}");
    }
    Ok(())
}

/// The refusal of the adapter `llama` for `model` after `change`.
fn refused(model: &str, change: impl Fn(&mut Lora)) -> Result<(String, String)> {
    let mut lora = Lora::open(&adapter("llama"))?;
    change(&mut lora);
    let checkpoint = Checkpoint::open(&toy(model))?;
    let mut loaded = Model::load(&Reference, &checkpoint, &mut |_| {})?;
    match loaded.adapt(&Reference, &checkpoint.config, &lora) {
        Err(LlamaError::Lora { name, why }) => Ok((name, why)),
        Err(other) => Err(other.into()),
        Ok(()) => anyhow::bail!("it was taken"),
    }
}

/// Gives the map of one module to another.
fn moved<'a>(from: &'a str, to: &'a str) -> impl Fn(&mut Lora) + 'a {
    move |lora| {
        if let Some(map) = lora.maps.get(from).cloned() {
            lora.maps.insert(to.into(), map);
        }
    }
}

#[test]
fn what_does_not_fit_the_model_is_refused_with_the_tensor_and_what_would_fit() -> Result<()> {
    let q = "model.layers.0.self_attn.q_proj";
    for (to, says) in [
        ("model.layers.4.self_attn.q_proj", "is for layer 4; the model has 4 layers, counted from 0"),
        ("model.layers.18446744073709551616.self_attn.q_proj", "no map of the decoder's layers"),
        (
            "model.layers.0.self_attn.rotary",
            "none of the maps of layer 0 that can be: self_attn.q_proj, self_attn.k_proj",
        ),
        ("model.layers.0.feed_forward.gate_proj", "mlp.gate_proj, mlp.up_proj, mlp.down_proj"),
        ("model.layers.0.mlp.experts.3.gate_proj", "adapts none of the maps of layer 0 that can be"),
        ("model.layers.0.mlp.experts.down_proj", "adapts none of the maps of layer 0 that can be"),
        ("lm_head", "no map of the decoder's layers"),
        ("vision_model.model.layers.0.self_attn.q_proj", "no map of the decoder's layers"),
        ("model.layers.00.self_attn.q_proj", "another tensor of the file adapts"),
        ("language_model.model.layers.0.self_attn.q_proj", "another tensor of the file adapts"),
    ] {
        let (name, why) = refused("llama", moved(q, to))?;
        ensure!(name.starts_with("base_model.model.") && why.contains(says), "{to}: {name}: {why}");
    }
    let (name, why) = refused("llama", moved("model.layers.0.self_attn.k_proj", q))?;
    ensure!(name == "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight", "{name}");
    ensure!(why == "has the shape [16, 4]; the model asks for [64, 4]", "{why}");
    let (_, why) = refused("scout", |_| {})?;
    ensure!(why.contains("feed_forward.shared_expert.gate_proj"), "{why}");
    ensure!(why.contains("feed_forward.experts.gate_up_proj, feed_forward.experts.down_proj"), "{why}");
    Ok(())
}
