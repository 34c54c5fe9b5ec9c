//! The audio encoder and projector against independent implementations.
//!
//! The repository's vectors lie in `tests/data/audio-tower`, made by `scripts/make_audio_tower_goldens.py`. A folder of
//! the same layout that transformers made is checked in addition if `PUNA_AUDIO_GOLDENS` names it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions, Isa};
use formats::{NewTensor, Tensor};
use it::hearing::{Clip, Vectors, audio_of, difference, encoder_config, folders, small_text, transposed};
use it::{Toy, argmax};
use llama::{Audio, AudioChunk, AudioEncoder, AudioStream, Site, sinusoids};
use serde_json::json;
use tensor::{Device, Reference};

/// Absolute, in f32. Rounding of one product is 2⁻²⁴ of it; sums of 384 of them through two layers of numbers of size 3
/// come to a few 1e-6 in either order.
const FRAMES_TOLERANCE: f32 = 1e-5;

/// The same through a decoder of four layers, for logits of size 10.
const LOGITS_TOLERANCE: f32 = 1e-4;

fn cpu(n_threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: NonZeroUsize::new(n_threads), ..Default::default() })
}

/// Holds `got` against the vector `name`.
fn check(vectors: &Vectors, name: &str, got: &[f32], tolerance: f32, at: &str) -> Result<()> {
    let largest = difference(got, &vectors.values(name)?).with_context(|| format!("{at}: {name}"))?;
    println!("{at}: {name}: largest difference {largest:.1e}");
    ensure!(largest <= tolerance, "{at}: {name} differs by {largest}");
    Ok(())
}

fn encoder_agrees<D: Device>(dev: &D, file: &Path) -> Result<()> {
    let vectors = Vectors::open(file)?;
    let at = file.display().to_string();
    let config = vectors.encoder()?;
    let tensors = vectors.renamed("weight/", "encoder.");
    let encoder = AudioEncoder::load(dev, &encoder_config(&config)?, &tensors)?;
    let mel = vectors.values("in/mel")?;
    let chunks: Vec<&[f32]> = mel.chunks_exact(mel.len() / 2).collect();
    let n_columns = encoder.chunk_columns();
    let chunk = |i: usize, valid: usize| AudioChunk { mel_mc: chunks[i], valid };
    let mut seen: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut probe = |dev: &D, site: Site, x: &D::Tensor| {
        seen.insert(site.to_string(), dev.download(x));
    };
    let first = encoder.forward(dev, &[(chunk(0, n_columns), encoder.n_frames())], &mut probe)?;
    let second = encoder.forward(dev, &[(chunk(1, n_columns), encoder.n_frames())], &mut ())?;
    check(&vectors, "out/full", &[dev.download(&first), dev.download(&second)].concat(), FRAMES_TOLERANCE, &at)?;
    let names = [("act/conv2", "audio.conv2"), ("act/embed", "audio.embeds")];
    let layers = (0..2).map(|i| (format!("act/layer{i}"), format!("audio.layer.{i}")));
    for (name, site) in names.map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter().chain(layers) {
        check(&vectors, &name, &seen[&site], FRAMES_TOLERANCE, &at)?;
    }
    let conv1 = transposed(&seen["audio.conv1"], n_columns);
    check(&vectors, "act/conv1", &conv1, FRAMES_TOLERANCE, &at)?;
    let n_kept = vectors.shape("out/masked")?[1];
    let masked = encoder.forward(dev, &[(chunk(1, 2 * n_kept - 1), n_kept)], &mut ())?;
    check(&vectors, "out/masked", &dev.download(&masked), FRAMES_TOLERANCE, &at)?;
    let blocks = vectors.tensors.keys().filter_map(|name| name.strip_prefix("out/block_causal"));
    let blocks: Vec<String> = blocks.map(str::to_owned).collect();
    ensure!(!blocks.is_empty(), "{at} has no blocks");
    for block in blocks {
        let mut config = config.clone();
        config["attention_block"] = block.parse::<usize>()?.into();
        let encoder = AudioEncoder::load(dev, &encoder_config(&config)?, &tensors)?;
        let frames = encoder.forward(dev, &[(chunk(0, n_columns), encoder.n_frames())], &mut ())?;
        check(&vectors, &format!("out/block_causal{block}"), &dev.download(&frames), FRAMES_TOLERANCE, &at)?;
    }
    Ok(())
}

#[test]
fn the_encoder_agrees_tensor_by_tensor() -> Result<()> {
    for folder in folders() {
        let file = folder.join("encoder.safetensors");
        encoder_agrees(&Reference, &file)?;
        encoder_agrees(&cpu(2), &file)?;
    }
    Ok(())
}

/// The model around a projector of `projector.safetensors`, by its name there.
fn projector_config(name: &str, vectors: &Vectors, encoder: &serde_json::Value) -> Result<serde_json::Value> {
    let shape = |tensor: &str| vectors.shape(&format!("{name}/weight/{tensor}"));
    let text = small_text(shape("linear_2.weight")?[0]);
    let stack = shape("linear_1.weight")?[1] / vectors.shape("in/full")?[1];
    Ok(match name {
        "mlp4" => json!({"model_type": "voxtral", "text_config": text, "audio_config": encoder, "audio_token_id": 7}),
        _ => json!({"model_type": "ultravox", "text_config": text, "audio_config": encoder, "audio_token_index": 7,
            "stack_factor": stack, "hidden_size": shape("linear_1.weight")?[0],
            "projector_ln_mid": name == "ultravox_mid"}),
    })
}

fn projectors_agree<D: Device>(dev: &D, folder: &Path) -> Result<usize> {
    let vectors = Vectors::open(&folder.join("projector.safetensors"))?;
    let encoder = Vectors::open(&folder.join("encoder.safetensors"))?;
    let mut n_compared = 0;
    for name in ["mlp4", "ultravox_mid", "ultravox_post"] {
        let config = projector_config(name, &vectors, &encoder.encoder()?)?;
        let mut tensors = encoder.renamed("weight/", "audio_tower.");
        tensors.extend(vectors.renamed(&format!("{name}/weight/"), "multi_modal_projector."));
        let audio = audio_of(dev, &config, &json!({}), &tensors)?;
        for length in ["full", "masked"] {
            let input = format!("in/{length}");
            let frames = dev.upload(&vectors.values(&input)?, vectors.shape(&input)?[1])?;
            let rows = dev.download(&audio.project(dev, frames)?);
            let at = folder.display().to_string();
            check(&vectors, &format!("{name}/out/{length}"), &rows, FRAMES_TOLERANCE, &at)?;
            n_compared += 1;
        }
    }
    Ok(n_compared)
}

#[test]
fn the_three_projectors_agree() -> Result<()> {
    for folder in folders() {
        assert_eq!(projectors_agree(&Reference, &folder)? + projectors_agree(&cpu(2), &folder)?, 12);
    }
    Ok(())
}

#[test]
fn fresh_positions_are_whispers() -> Result<()> {
    let mut n_compared = 0;
    for folder in folders() {
        let vectors = Vectors::open(&folder.join("encoder.safetensors"))?;
        let names = vectors.tensors.keys().filter_map(|name| name.strip_prefix("sinusoids/"));
        for shape in names.filter_map(|name| name.strip_suffix("/rows")) {
            let (n_frames, width) = shape.split_once('x').context("frames x width")?;
            let (n_frames, width) = (n_frames.parse()?, width.parse()?);
            let all = sinusoids(n_frames, width);
            let rows = [0, 1, 2, 777, 1499].map(|row| &all[row * width..(row + 1) * width]).concat();
            // Sines of angles up to 1499 whose rates are exact to 2⁻⁵⁰.
            check(&vectors, &format!("sinusoids/{shape}/rows"), &rows, 1e-6, "sinusoids")?;
            n_compared += 1;
        }
    }
    assert!(n_compared > 0);
    Ok(())
}

/// Each checkpoint of a folder with its vectors.
fn models(folder: &Path, kind: &str) -> Result<(std::path::PathBuf, Vectors)> {
    Ok((folder.join(kind), Vectors::open(&folder.join(format!("{kind}_golden.safetensors")))?))
}

fn clip(vectors: &Vectors) -> Result<Clip> {
    let mel = vectors.values("input_features")?;
    let shape = vectors.shape("input_features")?;
    let valid = match vectors.tensors.contains_key("num_mel_frames") {
        true => vectors.ids("num_mel_frames")?.into_iter().map(|n| n as usize).collect(),
        false => vec![shape[2]; shape[0]],
    };
    Ok(Clip { mel, valid })
}

fn voxtral_agrees<D: Device>(dev: D, folder: &Path) -> Result<()> {
    let (path, vectors) = models(folder, "voxtral_tiny")?;
    let toy = Toy::load(dev, &path)?;
    let clip = clip(&vectors)?;
    let seen = toy.run_heard(&vectors.ids("input_ids")?, None, &clip.chunks(), usize::MAX)?;
    let at = path.display().to_string();
    check(&vectors, "audio_embeds", &seen["audio.rows"], FRAMES_TOLERANCE, &at)?;
    check(&vectors, "logits", &seen["logits"], LOGITS_TOLERANCE, &at)
}

#[test]
fn voxtral_agrees_from_its_chunks_to_its_logits() -> Result<()> {
    for folder in folders() {
        voxtral_agrees(Reference, &folder)?;
        voxtral_agrees(cpu(2), &folder)?;
    }
    Ok(())
}

fn llama4_agrees<D: Device>(dev: D, folder: &Path) -> Result<()> {
    let (path, vectors) = models(folder, "llama4_audio_tiny")?;
    let toy = Toy::load(dev, &path)?;
    let clip = clip(&vectors)?;
    // Ours has no vision tower: the image beside a clip is in the other folder's.
    let pixels = vectors.tensors.contains_key("pixel_values").then(|| vectors.values("pixel_values")).transpose()?;
    let at = path.display().to_string();
    let mut ids = vectors.ids("input_ids")?;
    let n_rows: Vec<usize> = vectors.ids("num_audio_tokens")?.into_iter().map(|n| n as usize).collect();
    let audio = toy.model.audio.as_ref().context("audio")?;
    assert_eq!(clip.valid.iter().map(|valid| audio.rows(*valid)).collect::<Vec<_>>(), n_rows);
    let seen = toy.run_heard(&ids, pixels.as_deref(), &clip.chunks(), usize::MAX)?;
    check(&vectors, "audio_embeds", &seen["audio.rows"], FRAMES_TOLERANCE, &at)?;
    if pixels.is_some() {
        check(&vectors, "image_embeds", &seen["vision.projected"], FRAMES_TOLERANCE, &at)?;
    }
    check(&vectors, "inputs_embeds", &seen["embeds"], FRAMES_TOLERANCE, &at)?;
    check(&vectors, "logits", &seen["logits"], LOGITS_TOLERANCE, &at)?;
    let greedy = vectors.ids("greedy")?;
    ensure!(greedy.len() == 8, "{at} has {} greedy tokens", greedy.len());
    for want in greedy {
        let seen = toy.run_heard(&ids, pixels.as_deref(), &clip.chunks(), usize::MAX)?;
        let width = toy.model.decoder.vocab_size();
        assert_eq!(argmax(&seen["logits"][seen["logits"].len() - width..]), want as usize, "{at}");
        ids.push(want);
    }
    Ok(())
}

#[test]
fn an_image_and_a_clip_in_one_prompt_agree_from_rows_to_greedy_tokens() -> Result<()> {
    for folder in folders() {
        llama4_agrees(Reference, &folder)?;
        llama4_agrees(cpu(2), &folder)?;
    }
    Ok(())
}

/// Writes `tensors` and `config` as the checkpoint `folder`.
fn write_folder(folder: &Path, config: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("config.json"), config)?;
    let new = tensors.iter().map(|(name, t)| NewTensor { name, dtype: t.dtype, shape: &t.shape, bytes: &t.bytes });
    Ok(formats::safetensors::write(&folder.join("model.safetensors"), &new.collect::<Vec<_>>())?)
}

fn rows_of(folder: &Path, clip: &Clip) -> Result<Vec<u32>> {
    let toy = Toy::load(Reference, folder)?;
    rows(&Reference, toy.model.audio.as_ref().context("audio")?, &clip.chunks())
}

#[test]
fn every_layout_of_a_model_that_hears_gives_the_same_rows() -> Result<()> {
    let (path, vectors) = models(&folders().swap_remove(0), "voxtral_tiny")?;
    let clip = clip(&vectors)?;
    let want = rows_of(&path, &clip)?;
    let tensors = Vectors::open(&path.join("model.safetensors"))?;
    let config = std::fs::read_to_string(path.join("config.json"))?;
    let temporary = tempfile::tempdir()?;
    // The newer layout.
    let mut newer = tensors.renamed("language_model.model.", "model.language_model.");
    newer.extend(tensors.renamed("language_model.lm_head", "lm_head"));
    newer.extend(tensors.renamed("audio_tower.", "model.audio_tower."));
    newer.extend(tensors.renamed("multi_modal_projector.", "model.multi_modal_projector."));
    assert_eq!(newer.len(), tensors.tensors.len());
    write_folder(&temporary.path().join("newer"), &config, &newer)?;
    assert_eq!(rows_of(&temporary.path().join("newer"), &clip)?, want);
    // A lone encoder under both of Whisper's prefixes, with a decoder that nobody looks at.
    let mut section: serde_json::Value = serde_json::from_str(&config)?;
    let section = section["audio_config"].take();
    let mel = &clip.mel[..clip.mel.len() / clip.valid.len()];
    let mut frames = Vec::new();
    for prefix in ["model.encoder.", "encoder.", "audio_tower."] {
        let mut whisper = tensors.renamed("audio_tower.", prefix);
        whisper.extend(tensors.renamed("language_model.model.", "model.decoder."));
        let encoder = AudioEncoder::load(&Reference, &encoder_config(&section)?, &whisper)?;
        let chunk = AudioChunk { mel_mc: mel, valid: clip.valid[0] };
        frames.push(Reference.download(&encoder.forward(&Reference, &[(chunk, encoder.n_frames())], &mut ())?));
    }
    assert!(frames[0] == frames[1] && frames[0] == frames[2]);
    Ok(())
}

#[test]
fn ultravox_takes_its_encoder_and_its_text_model_from_the_folders_beside_it() -> Result<()> {
    let own = folders().swap_remove(0);
    let (path, vectors) = models(&own, "voxtral_tiny")?;
    let projectors = Vectors::open(&own.join("projector.safetensors"))?;
    let voxtral = Vectors::open(&path.join("model.safetensors"))?;
    let config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path.join("config.json"))?)?;
    let temporary = tempfile::tempdir()?;
    let at = |name: &str| temporary.path().join(name);
    let ultravox = |text: bool| {
        let mut all = json!({"model_type": "ultravox", "audio_model_id": "somebody/whisper-odd", "audio_token_index": 7,
            "text_model_id": "somebody/llama-odd", "hidden_size": 32, "stack_factor": 8, "projector_ln_mid": true});
        if text {
            all["text_config"] = config["text_config"].clone();
            all["audio_config"] = config["audio_config"].clone();
        }
        all.to_string()
    };
    let projector = projectors.renamed("ultravox_mid/weight/", "multi_modal_projector.");
    write_folder(&at("ultravox"), &ultravox(false), &projector)?;
    let missing = format!("{:#}", Toy::load(Reference, &at("ultravox")).err().context("loaded without its parts")?);
    assert!(missing.contains("whisper-odd") && missing.contains("audio_model_id"), "{missing}");
    let mut whisper = config["audio_config"].clone();
    whisper["model_type"] = "whisper".into();
    write_folder(&at("whisper-odd"), &whisper.to_string(), &voxtral.renamed("audio_tower.", "model.encoder."))?;
    let mut text = voxtral.renamed("language_model.model.", "model.");
    text.extend(voxtral.renamed("language_model.lm_head", "lm_head"));
    write_folder(&at("llama-odd"), &config["text_config"].to_string(), &text)?;
    let processor =
        json!({"audio_padding": "max_length", "audio_context_size": 40, "encoder_ds_factor": 2, "stack_factor": 8});
    std::fs::write(at("ultravox").join("processor_config.json"), processor.to_string())?;
    let settings = formats::Checkpoint::open(&at("ultravox"))?.audio_preprocessor.context("how it takes clips")?;
    assert_eq!(settings.pad_to, formats::config::PadTo::Chunk);
    // All in one folder, for comparison.
    let mut whole = voxtral.renamed("language_model.", "language_model.");
    whole.extend(voxtral.renamed("audio_tower.", "audio_tower."));
    whole.extend(projector);
    write_folder(&at("whole"), &ultravox(true), &whole)?;
    let clip = clip(&vectors)?;
    assert_eq!(rows_of(&at("ultravox"), &clip)?, rows_of(&at("whole"), &clip)?);
    let logits = |folder: &Path| -> Result<Vec<u32>> {
        let toy = Toy::load(Reference, folder)?;
        Ok(bits(&toy.run(&[1, 2, 3], None, usize::MAX)?["logits"]))
    };
    assert_eq!(logits(&at("ultravox"))?, logits(&at("whole"))?);
    Ok(())
}

/// The encoder of the vectors with a projector, as part of a small model. `block` frames see each other.
fn heard<D: Device>(dev: &D, folder: &Path, block: Option<usize>, settings: &serde_json::Value) -> Result<Audio<D>> {
    let vectors = Vectors::open(&folder.join("encoder.safetensors"))?;
    let projectors = Vectors::open(&folder.join("projector.safetensors"))?;
    let mut encoder = vectors.encoder()?;
    encoder["attention_block"] = block.into();
    let config = projector_config("mlp4", &projectors, &encoder)?;
    let mut tensors = vectors.renamed("weight/", "audio_tower.");
    tensors.extend(projectors.renamed("mlp4/weight/", "multi_modal_projector."));
    audio_of(dev, &config, settings, &tensors)
}

/// The vectors' two chunks, the second with `valid` valid columns and the rest of it as after silence.
fn two_chunks(folder: &Path, valid: usize) -> Result<Clip> {
    let vectors = Vectors::open(&folder.join("encoder.safetensors"))?;
    let n_columns = vectors.shape("in/mel")?[2];
    Ok(Clip { mel: vectors.values("in/mel")?, valid: vec![n_columns, valid] })
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn rows<D: Device>(dev: &D, audio: &Audio<D>, chunks: &[AudioChunk<'_>]) -> Result<Vec<u32>> {
    Ok(bits(&dev.download(&audio.forward(dev, chunks, &mut ())?)))
}

/// The clip pushed in pieces whose lengths `piece_len` gives, then committed.
fn streamed(dev: &Cpu, audio: &Audio<Cpu>, clip: &Clip, piece_len: &mut dyn FnMut() -> usize) -> Result<Vec<u32>> {
    let (n_mels, chunk) = (audio.encoder().n_mels(), audio.encoder().chunk_columns());
    let columns = clip.columns(n_mels);
    let n_valid = (clip.valid.len() - 1) * chunk + clip.valid.last().context("a chunk")?;
    let mut stream = AudioStream::default();
    let mut got = Vec::new();
    // Columns are certain until two before the clip's end; the rest comes with the end.
    let n_certain = n_valid.saturating_sub(2);
    let mut at = 0;
    while at < n_certain {
        let end = n_certain.min(at + piece_len());
        if let Some(rows) = stream.push(dev, audio, &columns[at * n_mels..end * n_mels], &mut ())? {
            got.extend(bits(&dev.download(&rows)));
        }
        at = end;
        assert_eq!(stream.n_columns(audio), at);
    }
    if let Some(rows) = stream.commit(dev, audio, &columns[at * n_mels..], n_valid, &mut ())? {
        got.extend(bits(&dev.download(&rows)));
    }
    Ok(got)
}

#[test]
fn a_stream_gives_the_offline_rows_however_it_is_split() -> Result<()> {
    let dev = cpu(2);
    let mut n_compared = 0;
    for folder in folders() {
        let n_frames = heard(&dev, &folder, None, &json!({}))?.encoder().n_frames();
        let full = 2 * n_frames;
        for mode in ["valid", "chunk"] {
            for block in [None, Some(4), Some(n_frames / 5), Some(n_frames)] {
                let audio = heard(&dev, &folder, block, &json!({"padding_mode": mode}))?;
                for valid in [1, 2, 3, 7, 8, full - 1, full] {
                    let clip = two_chunks(&folder, valid)?;
                    let want = rows(&dev, &audio, &clip.chunks())?;
                    let mut seed = 1u32;
                    let mut random = || {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        1 + (seed >> 16) as usize % 31
                    };
                    let splits: [&mut dyn FnMut() -> usize; 4] = [&mut || 1, &mut || 7, &mut || 1000, &mut random];
                    for split in splits {
                        assert_eq!(streamed(&dev, &audio, &clip, split)?, want, "{mode} {block:?} {valid}");
                        n_compared += 1;
                    }
                }
            }
        }
    }
    println!("{n_compared} streams equal to the bit");
    assert!(n_compared >= 200);
    Ok(())
}

#[test]
fn a_clips_rows_do_not_change_with_the_batch() -> Result<()> {
    let dev = cpu(2);
    for folder in folders() {
        let audio = heard(&dev, &folder, None, &json!({"padding_mode": "valid"}))?;
        let clip = two_chunks(&folder, 13)?;
        let chunks = clip.chunks();
        let [a, b] = chunks.as_slice() else { anyhow::bail!("two chunks") };
        let alone = [rows(&dev, &audio, &[*a])?, rows(&dev, &audio, &[*b])?];
        assert_eq!(rows(&dev, &audio, &[*b, *a, *b])?, [&alone[1][..], &alone[0], &alone[1]].concat());
        // Nothing that lies beyond the valid columns' reach is read.
        let mut changed = clip.mel.clone();
        let n_columns = audio.encoder().chunk_columns();
        let last_read = 2 * audio.frames(13);
        let second = changed.len() / 2;
        for bin in 0..audio.encoder().n_mels() {
            changed[second + bin * n_columns + last_read + 1..second + (bin + 1) * n_columns].fill(f32::NAN);
        }
        let other = Clip { mel: changed, valid: clip.valid.clone() };
        assert_eq!(rows(&dev, &audio, &other.chunks()[1..])?, alone[1]);
    }
    Ok(())
}

#[test]
fn a_block_does_not_see_what_comes_after_it() -> Result<()> {
    let dev = cpu(2);
    for folder in folders() {
        let block = 4;
        let audio = heard(&dev, &folder, Some(block), &json!({}))?;
        let clip = two_chunks(&folder, 2)?;
        let chunk = clip.chunks()[0];
        let want = rows(&dev, &audio, &[chunk])?;
        let n_columns = audio.encoder().chunk_columns();
        for j in 0..3 {
            // The last frame of block j reads one column after the block.
            let first_unread = 2 * block * (j + 1) + 1;
            let mut changed = chunk.mel_mc.to_vec();
            changed.chunks_exact_mut(n_columns).for_each(|bin| bin[first_unread..].fill(0.25));
            let got = rows(&dev, &audio, &[AudioChunk { mel_mc: &changed, valid: n_columns }])?;
            let (width, n_same) = (want.len() / audio.rows(n_columns), block * (j + 1) / 4);
            assert_eq!(got[..n_same * width], want[..n_same * width], "block {j}");
            assert_ne!(got[n_same * width..], want[n_same * width..], "block {j}");
        }
    }
    Ok(())
}

#[test]
fn reference_and_cpu_agree_to_the_bit_on_every_instruction_set() -> Result<()> {
    let mut n_compared = 0;
    for folder in folders() {
        for block in [None, Some(4)] {
            let clip = two_chunks(&folder, 13)?;
            let settings = json!({"padding_mode": "valid"});
            let reference = heard(&Reference, &folder, block, &settings)?;
            let want = rows(&Reference, &reference, &clip.chunks())?;
            for n_threads in [1, 2] {
                for isa in Isa::ALL.iter().copied().filter(|isa| *isa <= Isa::detect()) {
                    let dev = Cpu::new(CpuOptions {
                        threads: NonZeroUsize::new(n_threads),
                        isa: Some(isa),
                        ..Default::default()
                    });
                    let audio = heard(&dev, &folder, block, &settings)?;
                    assert_eq!(rows(&dev, &audio, &clip.chunks())?, want, "{isa:?}, {n_threads} threads");
                    n_compared += 1;
                }
            }
        }
    }
    println!("{n_compared} devices equal to the bit");
    assert!(n_compared >= 4);
    Ok(())
}

#[test]
fn inputs_of_another_size_are_refused() -> Result<()> {
    let folder = folders().swap_remove(0);
    let audio = heard(&Reference, &folder, Some(4), &json!({}))?;
    let clip = two_chunks(&folder, 3)?;
    let chunk = clip.chunks()[0];
    let refused = |chunk: AudioChunk<'_>| audio.forward(&Reference, &[chunk], &mut ()).is_err();
    assert!(!refused(chunk));
    assert!(refused(AudioChunk { valid: 0, ..chunk }));
    assert!(refused(AudioChunk { valid: chunk.valid + 1, ..chunk }));
    assert!(refused(AudioChunk { mel_mc: &chunk.mel_mc[1..], ..chunk }));
    assert!(audio.forward(&Reference, &[], &mut ()).is_err());
    let mut stream = AudioStream::default();
    assert!(stream.push(&Reference, &audio, &[0.0], &mut ()).is_err());
    let n_mels = audio.encoder().n_mels();
    stream.push(&Reference, &audio, &vec![0.0; 4 * n_mels], &mut ())?;
    // Four columns came: a clip of three, or of six without its end, is a mistake.
    assert!(stream.commit(&Reference, &audio, &[], 3, &mut ()).is_err());
    let stream = AudioStream::default();
    assert!(stream.commit(&Reference, &audio, &vec![0.0; 4 * n_mels], 6, &mut ()).is_err());
    assert!(AudioStream::default().commit(&Reference, &audio, &[], 0, &mut ()).is_err());
    let config = encoder_config(&Vectors::open(&folder.join("encoder.safetensors"))?.encoder()?)?;
    assert!(AudioEncoder::load(&Reference, &config, &BTreeMap::new()).is_err());
    Ok(())
}
