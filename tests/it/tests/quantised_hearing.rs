//! An audio encoder in eight bits against the one that it was made of.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions, Isa};
use formats::config::ModelConfig;
use formats::{DType, Tensor};
use it::hearing::{audio_of, small_text};
use llama::{AudioChunk, LlamaError, quantise_audio};
use serde_json::{Value, json};
use tensor::quant::Kind;
use tensor::{Bytes, Device, Format, Reference};

const Q8_0: Format = Format::Block(Kind::Q8_0);
const MELS: usize = 8;
const FRAMES: usize = 20;
const LAYERS: usize = 2;
/// The text model's width.
const TEXT: usize = 24;

/// The largest share that the root mean square of the difference has of the rows': every product is of two numbers that
/// were rounded to about 1/250 of the largest of 32, which many of them together average out.
const TOLERANCE: f64 = 0.02;

/// An encoder of the width `d` with a projector, of random weights, and its model's config.
fn model(d: usize) -> (Value, BTreeMap<String, Tensor>) {
    let mut state = 7u64;
    let mut tensors = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize], center: f32| {
        let scale = 2.0 / (shape.iter().skip(1).product::<usize>() as f32).sqrt();
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            center + scale * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
        };
        let bytes: Vec<u8> = (0..shape.iter().product()).flat_map(|_: usize| next().to_le_bytes()).collect();
        let dtype = DType::Weight(Format::F32);
        let tensor = Tensor { name: name.into(), dtype, shape: shape.to_vec(), bytes: Bytes::new(bytes) };
        tensors.insert(name.to_owned(), tensor);
    };
    let norm = |add: &mut dyn FnMut(&str, &[usize], f32), name: &str| {
        add(&format!("{name}.weight"), &[d], 1.0);
        add(&format!("{name}.bias"), &[d], 0.0);
    };
    for (name, n_in) in [("conv1", MELS), ("conv2", d)] {
        add(&format!("audio_tower.{name}.weight"), &[d, n_in, 3], 0.0);
        add(&format!("audio_tower.{name}.bias"), &[d], 0.0);
    }
    add("audio_tower.embed_positions.weight", &[FRAMES, d], 0.0);
    for layer in (0..LAYERS).map(|layer| format!("audio_tower.layers.{layer}")) {
        for (map, n_out, n_in) in [
            ("self_attn.q_proj", d, d),
            ("self_attn.k_proj", d, d),
            ("self_attn.v_proj", d, d),
            ("self_attn.out_proj", d, d),
            ("fc1", 4 * d, d),
            ("fc2", d, 4 * d),
        ] {
            add(&format!("{layer}.{map}.weight"), &[n_out, n_in], 0.0);
            if map != "self_attn.k_proj" {
                add(&format!("{layer}.{map}.bias"), &[n_out], 0.0);
            }
        }
        norm(&mut add, &format!("{layer}.self_attn_layer_norm"));
        norm(&mut add, &format!("{layer}.final_layer_norm"));
    }
    norm(&mut add, "audio_tower.layer_norm");
    add("multi_modal_projector.linear_1.weight", &[TEXT, 4 * d], 0.0);
    add("multi_modal_projector.linear_2.weight", &[TEXT, TEXT], 0.0);
    let encoder = json!({"hidden_size": d, "num_mel_bins": MELS, "intermediate_size": 4 * d, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "max_source_positions": FRAMES});
    let config =
        json!({"model_type": "voxtral", "text_config": small_text(TEXT), "audio_config": encoder, "audio_token_id": 7});
    (config, tensors)
}

fn parsed(config: &Value) -> Result<ModelConfig> {
    Ok(ModelConfig::parse(Path::new("config.json"), config.to_string().as_bytes())?)
}

/// The rows of one full chunk.
fn rows<D: Device>(dev: &D, config: &Value, tensors: &BTreeMap<String, Tensor>) -> Result<Vec<f32>> {
    let audio = audio_of(dev, config, &json!({}), tensors)?;
    let mel: Vec<f32> = (0..MELS * 2 * FRAMES).map(|i| (i as f32 * 0.37).sin()).collect();
    let chunk = AudioChunk { mel_mc: &mel, valid: 2 * FRAMES };
    Ok(dev.download(&audio.forward(dev, &[chunk], &mut ())?))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn an_encoder_in_eight_bits_stays_near_the_one_that_it_was_made_of() -> Result<()> {
    let (config, stored) = model(64);
    let mut tensors = stored.clone();
    let n_maps = quantise_audio(&mut tensors, &parsed(&config)?, Q8_0)?;
    assert_eq!(n_maps, 6 * LAYERS);
    let changed = tensors.iter().filter(|(name, tensor)| tensor.dtype != stored[*name].dtype).count();
    assert_eq!((changed, tensors.len()), (n_maps, stored.len()));
    assert_eq!(quantise_audio(&mut tensors, &parsed(&config)?, Q8_0)?, 0, "what is quantised stays");
    let (want, got) = (rows(&Reference, &config, &stored)?, rows(&Reference, &config, &tensors)?);
    ensure!(got.len() == want.len() && want.len() == FRAMES / 4 * TEXT, "{} rows' numbers", got.len());
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let difference = square(&mut got.iter().zip(&want).map(|(got, want)| got - want));
    let share = (difference / square(&mut want.iter().copied())).sqrt();
    println!("{n_maps} maps in eight bits; the difference is {share:.4} of the rows");
    ensure!(share > 0.0 && share <= TOLERANCE, "a difference of {share}");
    Ok(())
}

#[test]
fn an_encoder_in_eight_bits_has_the_same_bits_on_every_device() -> Result<()> {
    let (config, mut tensors) = model(32);
    quantise_audio(&mut tensors, &parsed(&config)?, Q8_0)?;
    let want = bits(&rows(&Reference, &config, &tensors)?);
    let mut n_devices = 0;
    for isa in Isa::ALL.iter().copied().filter(|isa| *isa <= Isa::detect()) {
        for n_threads in [1, 2] {
            let dev =
                Cpu::new(CpuOptions { threads: NonZeroUsize::new(n_threads), isa: Some(isa), ..Default::default() });
            assert_eq!(bits(&rows(&dev, &config, &tensors)?), want, "{isa:?}, {n_threads} threads");
            n_devices += 1;
        }
    }
    println!("{n_devices} devices equal to the bit");
    ensure!(n_devices >= 2, "{n_devices} devices");
    Ok(())
}

#[test]
fn an_encoder_whose_rows_are_no_whole_blocks_is_refused_as_it_is() -> Result<()> {
    let (config, stored) = model(16);
    let mut tensors = stored.clone();
    let error = quantise_audio(&mut tensors, &parsed(&config)?, Q8_0).err().context("it was taken")?;
    ensure!(matches!(error, LlamaError::Weight { .. }), "{error}");
    let same = tensors.values().zip(stored.values()).filter(|(got, stored)| got.dtype == stored.dtype).count();
    assert_eq!(same, stored.len());
    println!("{same} tensors as they were: {error}");
    Ok(())
}
