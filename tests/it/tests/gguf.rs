//! GGUF files made of Hugging Face folders: the same bits as the folder.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions};
use formats::config::ModelConfig;
use formats::{Checkpoint, DType, NewTensor, Tensor};
use it::exported::{bits, export, scout, toy, write};
use it::{Goldens, Toy};
use llama::{AudioChunk, Model};
use serde_json::{Value, json};
use tensor::{Device, Format, Reference};

#[test]
fn a_gguf_file_gives_the_bits_of_its_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    scout(&folder.path().join("scout"))?;
    let mut n_images = 0;
    // The dense toy's components pair up otherwise in its folder: scores add them in another order, and frequencies of the
    // blended band may be an ulp off. Eight terms a score and four layers stay within the goldens' own tolerance.
    for (model, second_norm, limit) in [("scout", "ln2", 0.0), ("scout", "attn_post_norm", 0.0), ("llama", "ln2", 2e-5)]
    {
        let source = if model == "scout" { folder.path().join(model) } else { toy(model) };
        let gguf = folder.path().join(format!("{model}-{second_norm}"));
        std::fs::create_dir_all(&gguf)?;
        let (decoder, projector) = export(&source, "f32")?;
        write(&gguf.join("model.gguf"), &decoder, 7)?;
        if let Some(mut projector) = projector {
            // Some converters name the second norm after a later model's.
            projector.tensors.iter_mut().for_each(|t| t.name = t.name.replace(".ln2.", &format!(".{second_norm}.")));
            write(&gguf.join("mmproj-model.gguf"), &projector, 1000)?;
        }
        let of_folder = Toy::load(Cpu::new(CpuOptions::default()), &source)?;
        let of_file = Toy::load(Cpu::new(CpuOptions::default()), &gguf)?;
        assert_eq!(of_file.patch, of_folder.patch);
        for (name, prompt) in Goldens::open(&toy(model))?.prompts() {
            let ids = prompt.ids("input_ids")?;
            let pixels = prompt.has("pixel_values").then(|| prompt.values("pixel_values")).transpose()?;
            n_images += usize::from(pixels.is_some());
            let want = of_folder.run(&ids, pixels.as_deref(), 16)?;
            let got = of_file.run(&ids, pixels.as_deref(), 16)?;
            assert_eq!(got.len(), want.len());
            assert!(limit > 0.0 || bits(&got) == bits(&want), "{model} {name}");
            for (site, want) in &want {
                let got = got.get(site).with_context(|| format!("{model} {name} has no {site}"))?;
                let far = want.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(got.len() == want.len() && far <= limit, "{model} {name} {site}: {far}");
            }
        }
    }
    ensure!(n_images > 0, "no golden of the toys has an image");
    Ok(())
}

/// Mutation: rows of queries that are not brought back into a folder's order.
#[test]
fn a_folder_is_restored_from_what_was_exported() -> Result<()> {
    let folder = tempfile::tempdir()?;
    scout(&folder.path().join("scout"))?;
    let hears = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/audio-tower/mixed_tiny");
    let mut n_values = 0;
    for (name, source) in [("scout", folder.path().join("scout")), ("llama", toy("llama")), ("hears", hears)] {
        let gguf = folder.path().join(format!("{name}.gguf"));
        std::fs::create_dir_all(&gguf)?;
        let (decoder, projector) = export(&source, "f32")?;
        write(&gguf.join("model.gguf"), &decoder, 7)?;
        if let Some(projector) = projector {
            write(&gguf.join("mmproj-model.gguf"), &projector, 1000)?;
        }
        let original = Checkpoint::open(&source)?;
        let restored = llama::export::restored(&original, &Checkpoint::open(&gguf)?)?;
        ensure!(restored.len() == original.tensors.len());
        for (name, tensor) in &original.tensors {
            let DType::Weight(format) = tensor.dtype else { anyhow::bail!("{name} is no weight") };
            let mut want = vec![0.0; tensor.n_values()];
            format.decode(&tensor.bytes, &mut want);
            let other = restored[name].iter().zip(&want).position(|(got, want)| got != want);
            ensure!(restored[name].len() == want.len() && other.is_none(), "{name} at {other:?}");
            n_values += want.len();
        }
        // Another model's file is refused with a tensor's name.
        let other = llama::export::restored(&Checkpoint::open(&toy("text"))?, &Checkpoint::open(&gguf)?);
        ensure!(other.is_err());
    }
    println!("{n_values} values");
    Ok(())
}

#[test]
fn every_stored_format_gives_the_bits_of_reference() -> Result<()> {
    let folder = tempfile::tempdir()?;
    scout(&folder.path().join("scout"))?;
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
    let mut all: Vec<Vec<u32>> = Vec::new();
    // Rows of the toy are 32 and 64 long: too short for the formats with blocks of 256.
    let names = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"];
    for name in names {
        let path = folder.path().join(format!("{name}.gguf"));
        let (decoder, _) = export(&folder.path().join("scout"), name)?;
        write(&path, &decoder, 5)?;
        let want = Toy::load(Reference, &path)?.run(&ids, None, 16)?;
        for n_threads in [1, 2] {
            let options = CpuOptions { threads: std::num::NonZeroUsize::new(n_threads), ..Default::default() };
            let got = Toy::load(Cpu::new(options), &path)?.run(&ids, None, 7)?;
            assert_eq!(bits(&got), bits(&want), "{name} on {n_threads} threads");
        }
        let logits = want.get("logits").context("logits")?;
        ensure!(logits.iter().all(|v| v.is_finite()), "{name}");
        all.push(logits.iter().map(|v| v.to_bits()).collect());
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), names.len(), "two formats give the same numbers");
    Ok(())
}

#[test]
fn what_other_files_have_no_key_for_stands_under_our_own() -> Result<()> {
    // Another chunk, another scaling of queries; another period, and a layer that is unrotated out of turn.
    let folder = tempfile::tempdir()?;
    let turned = folder.path().join("turned");
    std::fs::create_dir(&turned)?;
    std::fs::copy(toy("scout").join("model.safetensors"), turned.join("model.safetensors"))?;
    let text = std::fs::read_to_string(toy("scout").join("config.json"))?;
    let mut config: Value = serde_json::from_str(&text)?;
    config["text_config"]["no_rope_layers"] = json!([1, 1, 0, 1, 1, 1, 0, 0]);
    let types = ["full_attention", "chunked_attention", "chunked_attention", "full_attention"];
    config["text_config"]["layer_types"] = json!([types, types].concat());
    std::fs::write(turned.join("config.json"), config.to_string())?;
    for source in [toy("scout"), toy("maverick"), turned] {
        let file = folder.path().join("model.gguf");
        let (decoder, projector) = export(&source, "f32")?;
        ensure!(decoder.metadata.iter().any(|(key, _)| key.starts_with("puna.attention.")), "{}", source.display());
        write(&file, &decoder, 64)?;
        let beside = folder.path().join("mmproj-model.gguf");
        std::fs::remove_file(&beside).ok();
        projector.iter().try_for_each(|projector| write(&beside, projector, 64))?;
        let ids: Vec<u32> = (0..50).map(|i| 3 + i * 7 % 100).collect();
        let want = Toy::load(Cpu::new(CpuOptions::default()), &source)?.run(&ids, None, 16)?;
        let got = Toy::load(Cpu::new(CpuOptions::default()), &file)?.run(&ids, None, 16)?;
        assert_eq!(bits(&got), bits(&want), "{}", source.display());
    }
    Ok(())
}

#[test]
fn a_model_that_gguf_files_can_not_tell_is_refused() -> Result<()> {
    let refused = export(&toy("text"), "f32").err().context("experts without a period")?.to_string();
    ensure!(refused.contains("interleave_moe_layer_step"), "{refused}");
    let folder = tempfile::tempdir()?;
    scout(folder.path())?;
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    config["vision_config"]["rope_theta"] = json!(500.0);
    config["vision_config"]["rope_parameters"] = Value::Null;
    std::fs::write(path, config.to_string())?;
    let refused = export(folder.path(), "f32").err().context("another base of the tower's rotation")?.to_string();
    ensure!(refused.contains("vision_config") && refused.contains("500"), "{refused}");
    Ok(())
}

/// A Llama 4 that sees and hears: every setting of encoder, projector and features differs from what is usual.
fn llama4(encoder: &Value, projector: &Value) -> Value {
    let mut config: Value =
        serde_json::from_str(include_str!("../../data/audio-tower/mixed_tiny/config.json")).unwrap_or_default();
    for (section, own) in [("audio_config", encoder), ("audio_projector_config", projector)] {
        own.as_object().into_iter().flatten().for_each(|(key, value)| config[section][key] = value.clone());
    }
    config
}

/// A dense model that hears, with `more` at the top.
fn dense(kind: &str, more: &Value) -> Value {
    let mut config = json!({
        "model_type": kind,
        "text_config": {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 64, "vocab_size": 64, "head_dim": 8},
        "audio_config": {"hidden_size": 32, "num_mel_bins": 8, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_source_positions": 40},
    });
    more.as_object().into_iter().flatten().for_each(|(key, value)| config[key] = value.clone());
    config
}

/// Writes a folder of the model that `config` describes, of weights that nobody trained, with these settings of features.
fn untrained(folder: &Path, config: &Value, features: &Value) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let parsed = ModelConfig::parse(Path::new("config.json"), config.to_string().as_bytes())?;
    let mut state = 11u64;
    let blanks = llama::blanks(&parsed)?;
    let values: Vec<Vec<u8>> = blanks
        .iter()
        .map(|blank| {
            let (center, spread) = if blank.shape.len() == 1 { (1.0, 0.3) } else { (0.0, 1.0) };
            let n: usize = blank.shape.iter().product();
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let uniform = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                center + spread * uniform / (blank.n_in as f32).sqrt()
            };
            (0..n).flat_map(|_| next().to_le_bytes()).collect()
        })
        .collect();
    let new =
        |(blank, bytes): (&'_ llama::Blank, &'_ Vec<u8>)| (blank.name.clone(), blank.shape.clone(), bytes.clone());
    let all: Vec<_> = blanks.iter().zip(&values).map(new).collect();
    let dtype = DType::Weight(Format::F32);
    let tensors: Vec<NewTensor<'_>> =
        all.iter().map(|(name, shape, bytes)| NewTensor { name, dtype, shape, bytes }).collect();
    formats::safetensors::write(&folder.join("model.safetensors"), &tensors)?;
    std::fs::write(folder.join("config.json"), config.to_string())?;
    std::fs::write(folder.join("audio_preprocessor_config.json"), features.to_string())?;
    let images = json!({"size": {"height": 24, "width": 24}, "max_patches": 3, "resize_to_max_canvas": true,
        "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 0.003});
    Ok(std::fs::write(folder.join("preprocessor_config.json"), images.to_string())?)
}

/// What a model makes of a clip: rows of its chunks, the second of which is not full.
fn heard(checkpoint: &Checkpoint) -> Result<Vec<f32>> {
    let model = Model::load(&Reference, checkpoint, &mut |_| {})?;
    let audio = model.audio.context("the model does not hear")?;
    let (n_mels, columns) = (audio.encoder().n_mels(), audio.encoder().chunk_columns());
    let mel: Vec<f32> = (0..n_mels * columns).map(|i| (i as f32 * 0.37).sin()).collect();
    let chunks = [columns, columns / 2 + 3].map(|valid| AudioChunk { mel_mc: &mel, valid });
    Ok(Reference.download(&audio.forward(&Reference, &chunks, &mut ())?))
}

#[test]
fn a_model_that_hears_hears_the_same_from_its_file() -> Result<()> {
    let features = |more: Value| {
        let mut all = json!({"feature_extractor_type": "WhisperFeatureExtractor"});
        more.as_object().into_iter().flatten().for_each(|(key, value)| all[key] = value.clone());
        all
    };
    let plain = features(json!({}));
    let other = features(json!({"log_mel_max": 1.5, "pad_to": "hop", "padding_mode": "chunk"}));
    let wide = json!({"hidden_size": 32, "intermediate_size": 96, "attention_block": 4});
    let full = json!({"stack_factor": 2, "hidden_act": "swiglu", "hidden_size": 64, "bias": true, "ln_pre": true,
        "ln_mid": true, "ln_post": true, "norm_eps": 1e-4});
    let ultravox =
        |mid: bool| json!({"stack_factor": 8, "hidden_size": 64, "projector_ln_mid": mid, "audio_token_index": 9});
    let models = [
        ("llama4", llama4(&wide, &json!({})), &plain),
        ("llama4-full", llama4(&wide, &full), &other),
        ("voxtral", dense("voxtral", &json!({"audio_token_id": 7})), &plain),
        ("ultravox-0.4", dense("ultravox", &ultravox(false)), &plain),
        ("ultravox-0.5", dense("ultravox", &ultravox(true)), &plain),
    ];
    let folder = tempfile::tempdir()?;
    for (name, config, features) in models {
        let source = folder.path().join(name);
        untrained(&source, &config, features)?;
        let of_folder = Checkpoint::open(&source)?;
        let want = heard(&of_folder)?;
        for (recipe, format, limit) in [("f32", "F32", 0.0), ("q8_0", "Q8_0", 0.03), ("q4_0", "Q8_0", 0.03)] {
            let at = folder.path().join(format!("{name}-{recipe}"));
            std::fs::create_dir(&at)?;
            let (decoder, projector) = export(&source, recipe)?;
            write(&at.join("model.gguf"), &decoder, 50)?;
            write(&at.join("mmproj-model.gguf"), &projector.context("no projector")?, 3)?;
            let of_file = Checkpoint::open(&at)?;
            assert_eq!(of_file.config.audio, of_folder.config.audio, "{name}");
            assert_eq!(of_file.audio_preprocessor, of_folder.audio_preprocessor, "{name}");
            assert_eq!(of_file.config.image_tokens, of_folder.config.image_tokens, "{name}");
            if of_file.config.vision.is_some() {
                let tiles =
                    |c: &Checkpoint| c.preprocessor.as_ref().map(|p| (p.max_tiles, p.resize_to_max_canvas, p.mean));
                assert_eq!(tiles(&of_file), tiles(&of_folder), "{name}");
            }
            let tensors = &of_file.projector.as_ref().context("no projector is found")?.tensors;
            let query = tensors.iter().find(|tensor| tensor.name == "a.blk.1.attn_q.weight").context("no map")?;
            assert_eq!(query.dtype.name(), format, "{name} {recipe}");
            let still = |t: &&Tensor| t.name.starts_with("a.conv") || t.name.contains("ln") || t.name.contains("norm");
            assert!(tensors.iter().filter(still).all(|t| t.dtype.name() == "F32"), "{name} {recipe}");
            let got = heard(&of_file)?;
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
            let far = square(&mut got.iter().zip(&want).map(|(a, b)| a - b)) / square(&mut want.iter().copied());
            ensure!(got.len() == want.len() && far.sqrt() <= limit, "{name} {recipe}: {}", far.sqrt());
            if name == "llama4-full" && recipe == "f32" {
                let run = |path: &Path| Toy::load(Reference, path)?.run(&[1, 5, 9, 30, 77, 3, 3, 8], None, 8);
                assert_eq!(bits(&run(&at)?), bits(&run(&source)?), "{name}");
            }
        }
    }
    Ok(())
}
