//! A toy that can be spoken to: the toy Scout with a tokenizer, and a vocabulary to match.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use formats::{DType, NewTensor};
use serde_json::{Value, json};
use tensor::Format;
use tokenizer::{SpecialTokens, Tokenizer};

/// The two tensors that have a row for each token.
const BY_TOKEN: [&str; 2] = ["language_model.lm_head.weight", "language_model.model.embed_tokens.weight"];

/// Writes a checkpoint of Llama 4's layout into `folder`: weights, config and a rank file of the 256 bytes.
///
/// It answers nonsense, always the same.
///
/// # Errors
/// If a file can not be read or written.
pub fn write(folder: &Path) -> Result<()> {
    write_with(folder, &[])
}

/// As [`write()`], with the tokens `merged` after the 256 bytes.
///
/// # Errors
/// As [`write()`].
pub fn write_with(folder: &Path, merged: &[&str]) -> Result<()> {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/toy/scout");
    std::fs::create_dir_all(folder)?;
    let ranks = rank_file(merged);
    std::fs::write(folder.join("tokenizer.model"), &ranks)?;
    let tokenizer = Tokenizer::from_ranks("tokenizer.model", ranks.as_bytes(), SpecialTokens::llama4())?;

    let file = toy.join("model.safetensors");
    let tensors = formats::safetensors::parse(&file, &formats::map_file(&file)?)?;
    let widened: Vec<Vec<u8>> = BY_TOKEN
        .iter()
        .map(|name| {
            let tensor = tensors.iter().find(|t| t.name == *name).context("a table by token")?;
            Ok(repeated(&tensor.bytes, tensor.shape[0], tensor.shape[1], tokenizer.vocab_size()))
        })
        .collect::<Result<_>>()?;
    let shapes: Vec<Vec<usize>> = tensors.iter().map(|t| t.shape.to_vec()).collect();
    let by_token = [tokenizer.vocab_size(), 32];
    let stored: Vec<NewTensor<'_>> = tensors
        .iter()
        .zip(&shapes)
        .map(|(tensor, shape)| {
            let (shape, bytes) = match BY_TOKEN.iter().position(|name| *name == tensor.name) {
                Some(i) => (by_token.as_slice(), widened[i].as_slice()),
                None => (shape.as_slice(), &tensor.bytes[..]),
            };
            NewTensor { name: &tensor.name, dtype: DType::Weight(Format::F32), shape, bytes }
        })
        .collect();
    formats::safetensors::write(&folder.join("model.safetensors"), &stored)?;

    let id = |name: &str| tokenizer.control(name).with_context(|| format!("no token {name}"));
    let mut config: Value = serde_json::from_slice(&std::fs::read(toy.join("config.json"))?)?;
    config["boi_token_index"] = json!(id("<|image_start|>")?);
    config["eoi_token_index"] = json!(id("<|image_end|>")?);
    config["image_token_index"] = json!(id("<|patch|>")?);
    config["text_config"]["vocab_size"] = json!(tokenizer.vocab_size());
    config["text_config"]["bos_token_id"] = json!(id("<|begin_of_text|>")?);
    config["text_config"]["eos_token_id"] = json!(id("<|eot|>")?);
    std::fs::write(folder.join("config.json"), config.to_string())?;
    Ok(())
}

/// A rank file with a token for each byte, in their order, then `merged`.
fn rank_file(merged: &[&str]) -> String {
    let tokens = (0..=255u8).map(|byte| vec![byte]).chain(merged.iter().map(|token| token.as_bytes().to_vec()));
    tokens.enumerate().map(|(rank, token)| format!("{} {rank}\n", STANDARD.encode(token))).collect()
}

/// Changes the config in `folder` in what GGUF files do not store: chunks, temperature and rope scaling get the values
/// that their readers assume.
///
/// # Errors
/// If the config can not be read or written.
pub fn assume_published_settings(folder: &Path) -> Result<()> {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let text = &mut config["text_config"];
    text["attention_chunk_size"] = json!(8192);
    text["floor_scale"] = json!(8192);
    std::fs::write(path, config.to_string())?;
    Ok(())
}

/// `n_rows` rows of `width` f32: those of `bytes` again and again, each time smaller, so that no two are equal and bytes are likelier than
/// control tokens.
fn repeated(bytes: &[u8], n_own: usize, width: usize, n_rows: usize) -> Vec<u8> {
    let mut own = vec![0.0; n_own * width];
    Format::F32.decode(bytes, &mut own);
    let mut out = Vec::with_capacity(4 * n_rows * width);
    for row in 0..n_rows {
        let scale = 1.0 / (1 + row / n_own) as f32;
        for column in 0..width {
            out.extend((scale * own[row % n_own * width + column]).to_le_bytes());
        }
    }
    out
}

/// Gives the checkpoint in `folder` an audio tower: chunks of two seconds, four frames a token.
///
/// # Errors
/// If a file can not be read or written.
pub fn add_ears(folder: &Path) -> Result<()> {
    add_ears_with(folder, &json!({}), &json!({}))
}

/// As [`add_ears`], with these keys in `audio_config` and in the preprocessor's file.
///
/// # Errors
/// As [`add_ears`].
pub fn add_ears_with(folder: &Path, encoder: &Value, features: &Value) -> Result<()> {
    const WIDTH: usize = 16;
    const FFN: usize = 32;
    const TEXT: usize = 32;
    let (n_mels, n_frames, stack) = (16, 100, 4);
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("conv1.weight".into(), vec![WIDTH, n_mels, 3]),
        ("conv1.bias".into(), vec![WIDTH]),
        ("conv2.weight".into(), vec![WIDTH, WIDTH, 3]),
        ("conv2.bias".into(), vec![WIDTH]),
        ("embed_positions.weight".into(), vec![n_frames, WIDTH]),
        ("layer_norm.weight".into(), vec![WIDTH]),
        ("layer_norm.bias".into(), vec![WIDTH]),
    ];
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| shapes.push((format!("layers.{layer}.{name}"), shape.to_vec()));
        for norm in ["self_attn_layer_norm", "final_layer_norm"] {
            add(&format!("{norm}.weight"), &[WIDTH]);
            add(&format!("{norm}.bias"), &[WIDTH]);
        }
        for map in ["q_proj", "v_proj", "out_proj"] {
            add(&format!("self_attn.{map}.weight"), &[WIDTH, WIDTH]);
            add(&format!("self_attn.{map}.bias"), &[WIDTH]);
        }
        add("self_attn.k_proj.weight", &[WIDTH, WIDTH]);
        add("fc1.weight", &[FFN, WIDTH]);
        add("fc1.bias", &[FFN]);
        add("fc2.weight", &[WIDTH, FFN]);
        add("fc2.bias", &[WIDTH]);
    }
    let mut added: Vec<(String, Vec<usize>)> =
        shapes.into_iter().map(|(name, shape)| (format!("audio_tower.{name}"), shape)).collect();
    added.push(("audio_projector.linear_1.weight".into(), vec![TEXT, stack * WIDTH]));
    added.push(("audio_projector.linear_2.weight".into(), vec![TEXT, TEXT]));
    let values: Vec<Vec<u8>> = added.iter().map(|(name, shape)| weights(name, shape)).collect();

    let path = folder.join("model.safetensors");
    let file = std::fs::read(&path)?;
    let old = formats::safetensors::parse(&path, &file.into())?;
    let old_shapes: Vec<Vec<usize>> = old.iter().map(|tensor| tensor.shape.to_vec()).collect();
    let dtype = DType::Weight(Format::F32);
    let kept = old.iter().zip(&old_shapes);
    let kept = kept.map(|(old, shape)| NewTensor { name: &old.name, dtype: old.dtype, shape, bytes: &old.bytes[..] });
    let new = added.iter().zip(&values);
    let new = new.map(|((name, shape), bytes)| NewTensor { name, dtype, shape, bytes });
    let all: Vec<NewTensor<'_>> = kept.chain(new).collect();
    formats::safetensors::write(&path, &all)?;

    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let with = |mut own: Value, more: &Value| {
        more.as_object().into_iter().flatten().for_each(|(key, value)| own[key] = value.clone());
        own
    };
    let own = json!({
        "model_type": "voxtral_encoder", "num_mel_bins": n_mels, "hidden_size": WIDTH, "intermediate_size": FFN,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_source_positions": n_frames,
        "activation_function": "gelu", "scale_embedding": false, "attention_block": null,
    });
    config["audio_config"] = with(own, encoder);
    config["audio_projector_config"] = json!({"stack_factor": stack, "hidden_size": TEXT, "hidden_act": "gelu"});
    let tokenizer = folder.join("tokenizer.model");
    let tokenizer = Tokenizer::from_ranks("tokenizer.model", &std::fs::read(tokenizer)?, SpecialTokens::llama4())?;
    for (key, n) in [("boa_token_index", 0), ("audio_token_index", 1), ("eoa_token_index", 2)] {
        let name = format!("<|reserved_special_token_{n}|>");
        config[key] = json!(tokenizer.control(&name).with_context(|| format!("no token {name}"))?);
    }
    std::fs::write(path, config.to_string())?;
    let preprocessor = json!({
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": n_mels, "chunk_length": n_frames / 50,
    });
    std::fs::write(folder.join("audio_preprocessor_config.json"), with(preprocessor, features).to_string())?;
    Ok(())
}

/// Weights of a shape that nobody trained: gains near 1, everything else spread around 0 by its number of inputs.
fn weights(name: &str, shape: &[usize]) -> Vec<u8> {
    let n_inputs: usize = shape.iter().skip(1).product();
    let is_gain = shape.len() == 1 && name.ends_with("norm.weight");
    let spread = 1.0 / (n_inputs.max(4) as f32).sqrt();
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let n: usize = shape.iter().product();
    let values = (0..n).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        if is_gain { 1.0 + 0.1 * uniform } else { 1.7 * spread * uniform }
    });
    values.flat_map(f32::to_le_bytes).collect()
}
