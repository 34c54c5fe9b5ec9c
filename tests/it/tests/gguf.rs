//! GGUF files of Llama 4 with their projector: the same bits as the Hugging Face folder they were made of.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions, ExpertStats};
use formats::gguf::{self, Array, Value};
use formats::{Checkpoint, DType, NewTensor, Tensor};
use it::{Goldens, Toy};
use llama::{Batch, Input, PackedPlan, PageRun, Row};
use serde_json::json;
use tensor::quant::Kind;
use tensor::{Device, Format, KvFormat, PAGE_LEN, Reference, packed};

const N_LAYERS: usize = 8;
const N_VISION_LAYERS: usize = 2;

/// A tensor on its way to a GGUF file.
struct Converted {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The toy Scout, changed in what GGUF files do not store: chunks, temperature and rope scaling have published values.
struct Source {
    tensors: BTreeMap<String, Tensor>,
}

impl Source {
    fn write(folder: &Path) -> Result<Self> {
        let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/toy/scout");
        std::fs::create_dir_all(folder)?;
        std::fs::copy(toy.join("model.safetensors"), folder.join("model.safetensors"))?;
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(toy.join("config.json"))?)?;
        let text = &mut config["text_config"];
        text["attention_chunk_size"] = json!(8192);
        text["floor_scale"] = json!(8192);
        text["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 10000.0});
        std::fs::write(folder.join("config.json"), config.to_string())?;
        let file = folder.join("model.safetensors");
        let tensors = formats::safetensors::parse(&file, &formats::map_file(&file)?)?;
        Ok(Self { tensors: tensors.into_iter().map(|t| (t.name.clone(), t)).collect() })
    }

    fn get(&self, from: &str, to: impl Into<String>) -> Result<Converted> {
        let tensor = self.tensors.get(from).with_context(|| format!("no tensor {from}"))?;
        let mut values = vec![0.0; tensor.n_values()];
        Format::F32.decode(&tensor.bytes, &mut values);
        Ok(Converted { name: to.into(), shape: tensor.shape.clone(), values })
    }

    /// Columns `begin..end` of each expert's `[n_in, n_out]`, transposed to `[E, n_out, n_in]`.
    fn experts(&self, from: &str, to: String, columns: std::ops::Range<usize>) -> Result<Converted> {
        let Converted { shape, values, .. } = self.get(from, "")?;
        let [n_experts, n_in, n_out] = shape[..] else { anyhow::bail!("{from} has no three axes") };
        let mut turned = Vec::new();
        for expert in 0..n_experts {
            for column in columns.clone() {
                turned.extend((0..n_in).map(|row| values[(expert * n_in + row) * n_out + column]));
            }
        }
        Ok(Converted { name: to, shape: vec![n_experts, columns.len(), n_in], values: turned })
    }

    fn decoder(&self) -> Result<Vec<Converted>> {
        let top = "language_model.";
        let mut all = vec![
            self.get(&format!("{top}model.embed_tokens.weight"), "token_embd.weight")?,
            self.get(&format!("{top}model.norm.weight"), "output_norm.weight")?,
            self.get(&format!("{top}lm_head.weight"), "output.weight")?,
        ];
        for n in 0..N_LAYERS {
            let from = |name: &str| format!("{top}model.layers.{n}.{name}");
            let to = |name: &str| format!("blk.{n}.{name}.weight");
            for (own, gguf) in [
                ("input_layernorm", "attn_norm"),
                ("self_attn.q_proj", "attn_q"),
                ("self_attn.k_proj", "attn_k"),
                ("self_attn.v_proj", "attn_v"),
                ("self_attn.o_proj", "attn_output"),
                ("post_attention_layernorm", "ffn_norm"),
                ("feed_forward.router", "ffn_gate_inp"),
                ("feed_forward.shared_expert.gate_proj", "ffn_gate_shexp"),
                ("feed_forward.shared_expert.up_proj", "ffn_up_shexp"),
                ("feed_forward.shared_expert.down_proj", "ffn_down_shexp"),
            ] {
                all.push(self.get(&from(&format!("{own}.weight")), to(gguf))?);
            }
            let gate_up = from("feed_forward.experts.gate_up_proj");
            all.push(self.experts(&gate_up, to("ffn_gate_exps"), 0..32)?);
            all.push(self.experts(&gate_up, to("ffn_up_exps"), 32..64)?);
            all.push(self.experts(&from("feed_forward.experts.down_proj"), to("ffn_down_exps"), 0..32)?);
        }
        Ok(all)
    }

    /// The vision tower; `second_norm` is the name of a layer's second norm, of which there are two.
    fn projector(&self, second_norm: &str) -> Result<Vec<Converted>> {
        let top = "vision_model";
        let mut all = vec![
            self.get(&format!("{top}.class_embedding"), "v.class_embd")?,
            self.get(&format!("{top}.patch_embedding.linear.weight"), "v.patch_embd.weight")?,
            self.get(&format!("{top}.positional_embedding_vlm"), "v.position_embd.weight")?,
            self.get(&format!("{top}.vision_adapter.mlp.fc1.weight"), "mm.model.mlp.1.weight")?,
            self.get(&format!("{top}.vision_adapter.mlp.fc2.weight"), "mm.model.mlp.2.weight")?,
            self.get("multi_modal_projector.linear_1.weight", "mm.model.fc.weight")?,
        ];
        for part in ["weight", "bias"] {
            all.push(self.get(&format!("{top}.layernorm_pre.{part}"), format!("v.pre_ln.{part}"))?);
            all.push(self.get(&format!("{top}.layernorm_post.{part}"), format!("v.post_ln.{part}"))?);
            for n in 0..N_VISION_LAYERS {
                for (own, gguf) in [
                    ("input_layernorm", "ln1"),
                    ("self_attn.q_proj", "attn_q"),
                    ("self_attn.k_proj", "attn_k"),
                    ("self_attn.v_proj", "attn_v"),
                    ("self_attn.o_proj", "attn_out"),
                    ("post_attention_layernorm", second_norm),
                    ("mlp.fc1", "ffn_up"),
                    ("mlp.fc2", "ffn_down"),
                ] {
                    let from = format!("{top}.model.layers.{n}.{own}.{part}");
                    all.push(self.get(&from, format!("v.blk.{n}.{gguf}.{part}"))?);
                }
            }
        }
        Ok(all)
    }
}

/// `values` as `format`.
fn encoded(format: Format, values: &[f32]) -> Vec<u8> {
    match format {
        Format::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Format::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        Format::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        Format::Block(kind) => {
            let blocks = values.chunks_exact(kind.len());
            let encode = |block: &[f32]| {
                let mut bytes = vec![0; kind.bytes()];
                kind.encode(block, &mut bytes);
                bytes
            };
            blocks.flat_map(encode).collect()
        }
    }
}

/// Writes `tensors`; those with several rows in `format`.
fn write(path: &Path, metadata: &[(&str, Value)], tensors: &[Converted], format: Format) -> Result<()> {
    let formats: Vec<Format> = tensors.iter().map(|t| if t.shape.len() > 1 { format } else { Format::F32 }).collect();
    let bytes: Vec<Vec<u8>> = tensors.iter().zip(&formats).map(|(t, format)| encoded(*format, &t.values)).collect();
    let stored: Vec<NewTensor<'_>> = tensors
        .iter()
        .zip(formats.iter().zip(&bytes))
        .map(|(t, (format, bytes))| NewTensor { name: &t.name, dtype: DType::Weight(*format), shape: &t.shape, bytes })
        .collect();
    Ok(gguf::write(path, metadata, &stored)?)
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn write_decoder(path: &Path, source: &Source, format: Format) -> Result<()> {
    let named = |id: usize| match id {
        122 => "<|image_start|>".to_owned(),
        123 => "<|image_end|>".to_owned(),
        124 => "<|patch|>".to_owned(),
        id => format!("token {id}"),
    };
    let names: Vec<String> = (0..128).map(named).collect();
    let metadata = [
        ("general.architecture", text("llama4")),
        ("llama4.block_count", Value::U32(8)),
        ("llama4.context_length", Value::U32(4096)),
        ("llama4.embedding_length", Value::U32(32)),
        ("llama4.feed_forward_length", Value::U32(64)),
        ("llama4.expert_feed_forward_length", Value::U32(32)),
        ("llama4.attention.head_count", Value::U32(4)),
        ("llama4.attention.head_count_kv", Value::U32(2)),
        ("llama4.attention.key_length", Value::U32(8)),
        ("llama4.attention.value_length", Value::U32(8)),
        ("llama4.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama4.rope.freq_base", Value::F32(10_000.0)),
        ("llama4.rope.dimension_count", Value::U32(8)),
        ("llama4.expert_count", Value::U32(4)),
        ("llama4.expert_used_count", Value::U32(1)),
        ("llama4.interleave_moe_layer_step", Value::U32(1)),
        ("llama4.vocab_size", Value::U32(128)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("llama4")),
        ("tokenizer.ggml.tokens", Value::Array(Array::of_strings(names.iter().map(String::as_str)))),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
    ];
    write(path, &metadata, &source.decoder()?, format)
}

fn write_projector(path: &Path, tensors: &[Converted]) -> Result<()> {
    let metadata = [
        ("general.architecture", text("clip")),
        ("clip.has_vision_encoder", Value::Bool(true)),
        ("clip.projector_type", text("llama4")),
        ("clip.use_gelu", Value::Bool(true)),
        ("clip.vision.image_size", Value::U32(24)),
        ("clip.vision.patch_size", Value::U32(6)),
        ("clip.vision.embedding_length", Value::U32(32)),
        ("clip.vision.feed_forward_length", Value::U32(128)),
        ("clip.vision.block_count", Value::U32(2)),
        ("clip.vision.projection_dim", Value::U32(32)),
        ("clip.vision.attention.head_count", Value::U32(2)),
        ("clip.vision.attention.layer_norm_epsilon", Value::F32(1e-5)),
        ("clip.vision.image_mean", Value::Array(Array::of_f32(&[0.5; 3]))),
        ("clip.vision.image_std", Value::Array(Array::of_f32(&[0.5; 3]))),
        ("clip.vision.projector.scale_factor", Value::U32(2)),
    ];
    write(path, &metadata, tensors, Format::F32)
}

fn bits(values: &BTreeMap<String, Vec<f32>>) -> BTreeMap<&str, Vec<u32>> {
    values.iter().map(|(name, values)| (name.as_str(), values.iter().map(|v| v.to_bits()).collect())).collect()
}

#[test]
fn a_gguf_file_gives_the_bits_of_its_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = Source::write(&folder.path().join("hf"))?;
    let folder_toy = Toy::load(Cpu::new(CpuOptions::default()), &folder.path().join("hf"))?;
    let goldens = Goldens::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/toy/scout"))?;
    for second_norm in ["ln2", "attn_post_norm"] {
        let of_gguf = folder.path().join(second_norm);
        std::fs::create_dir_all(&of_gguf)?;
        write_decoder(&of_gguf.join("model.gguf"), &source, Format::F32)?;
        write_projector(&of_gguf.join("mmproj-model.gguf"), &source.projector(second_norm)?)?;
        let gguf_toy = Toy::load(Cpu::new(CpuOptions::default()), &of_gguf)?;
        assert_eq!(gguf_toy.patch, folder_toy.patch);
        let mut n_images = 0;
        for (name, prompt) in goldens.prompts() {
            let ids = prompt.ids("input_ids")?;
            let pixels = prompt.has("pixel_values").then(|| prompt.values("pixel_values")).transpose()?;
            n_images += usize::from(pixels.is_some());
            let want = folder_toy.run(&ids, pixels.as_deref(), 16)?;
            let got = gguf_toy.run(&ids, pixels.as_deref(), 16)?;
            assert_eq!(bits(&got), bits(&want), "{name}");
        }
        ensure!(n_images > 0, "no golden of the toy has an image");
    }
    Ok(())
}

#[test]
fn every_stored_format_gives_the_bits_of_reference() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = Source::write(&folder.path().join("hf"))?;
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
    // Rows of the toy are 32 and 64 long: too short for the formats with blocks of 256.
    let blocks = Kind::ALL.iter().copied().filter(|kind| kind.len() == 32).map(Format::Block);
    let mut all: Vec<Vec<u32>> = Vec::new();
    for format in [Format::F32, Format::F16, Format::BF16].into_iter().chain(blocks) {
        let path = folder.path().join(format!("{}.gguf", format.name()));
        write_decoder(&path, &source, format)?;
        let want = Toy::load(Reference, &path)?.run(&ids, None, 16)?;
        for n_threads in [1, 2] {
            let options = CpuOptions { threads: std::num::NonZeroUsize::new(n_threads), isa: None };
            let dev = Cpu::new(options);
            let got = Toy::load(dev, &path)?.run(&ids, None, 7)?;
            assert_eq!(bits(&got), bits(&want), "{} on {n_threads} threads", format.name());
        }
        let logits = want.get("logits").context("logits")?;
        ensure!(logits.iter().all(|v| v.is_finite()), "{}", format.name());
        all.push(logits.iter().map(|v| v.to_bits()).collect());
    }
    assert_eq!(all.len(), 3 + 5);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 3 + 5, "two formats give the same numbers");
    Ok(())
}

fn device(n_threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: std::num::NonZeroUsize::new(n_threads), isa: None })
}

/// Writes the packed form of `from` to `to`.
fn pack(from: &Path, to: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(from)?;
    let dev = device(2);
    let plan = PackedPlan::new(to, &checkpoint)?;
    let bytes = plan.file_bytes();
    ensure!(plan.write(to, &|source, matrix| dev.pack(source, matrix), &mut |_| true)?, "it was given up");
    ensure!(std::fs::metadata(to)?.len() == bytes as u64, "the file is not as long as planned");
    Ok(())
}

#[test]
fn a_packed_file_gives_the_bits_of_the_file_it_was_made_of() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = Source::write(&folder.path().join("hf"))?;
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
    let blocks = Kind::ALL.iter().copied().filter(|kind| kind.len() == 32).map(Format::Block);
    let mut n_formats = 0;
    for format in [Format::F32, Format::F16, Format::BF16].into_iter().chain(blocks) {
        let path = folder.path().join(format!("{}.gguf", format.name()));
        write_decoder(&path, &source, format)?;
        let packed = path.with_extension("puna");
        pack(&path, &packed)?;
        let want = Toy::load(device(2), &path)?.run(&ids, None, 16)?;
        for n_threads in [1, 2] {
            let got = Toy::load(device(n_threads), &packed)?.run(&ids, None, 7)?;
            assert_eq!(bits(&got), bits(&want), "{} on {n_threads} threads", format.name());
        }
        let refusal = Toy::load(Reference, &packed).err().context("Reference reads row groups")?;
        assert!(format!("{refusal:#}").contains("only the cpu device reads"), "{refusal:#}");
        n_formats += 1;
    }
    assert_eq!(n_formats, 3 + 5);
    let other = folder.path().join("other.puna");
    let twice = PackedPlan::new(&other, &Checkpoint::open(&folder.path().join("Q8_0.puna"))?).err();
    assert!(twice.context("packed twice")?.to_string().contains("packed already"));
    let mut bytes = std::fs::read(folder.path().join("Q8_0.puna"))?;
    let key = gguf::LAYOUT_KEY.as_bytes();
    let at = bytes.windows(key.len()).position(|window| window == key).context("the key")? + key.len() + 4;
    assert_eq!(bytes[at..at + 4], packed::VERSION.to_le_bytes());
    bytes[at] += 1;
    std::fs::write(&other, bytes)?;
    let error = Checkpoint::open(&other).err().context("another layout is read")?.to_string();
    assert!(error.contains("puna.packed.layout: is 2") && error.contains("another version"), "{error}");
    Ok(())
}

/// The three forms that experts can be read from, input-major, row by row and packed, each with two sizes of a cache that
/// holds some experts and not all.
fn forms(folder: &Path) -> Result<[(std::path::PathBuf, [usize; 2]); 3]> {
    let source = Source::write(&folder.join("hf"))?;
    let (rows, packed) = (folder.join("model.gguf"), folder.join("model.puna"));
    write_decoder(&rows, &source, Format::Block(Kind::Q4_0))?;
    pack(&rows, &packed)?;
    Ok([(folder.join("hf"), [150_000, 300_000]), (rows, [50_000, 70_000]), (packed, [450_000, 600_000])])
}

/// Experts of one map of one layer that there are.
const N_UNITS: u64 = 2 * N_LAYERS as u64 * 4;

/// The logits of every row, in pieces of `piece`, with nobody looking: who looks makes the model compute some maps twice.
fn logits(toy: &Toy<Cpu>, ids: &[u32], piece: usize) -> Result<Vec<u32>> {
    let n_pages = ids.len().div_ceil(PAGE_LEN);
    let mut cache = toy.model.decoder.cache(&toy.dev, n_pages, n_pages, KvFormat::F32)?;
    let pages: Vec<u32> = (0..u32::try_from(n_pages)?).collect();
    let run = PageRun { pages: &pages, first_position: 0 };
    let row = |position: usize| {
        let input = Input::Token(ids[position]);
        Row { input, position, global: run, chunked: run, wants_logits: true }
    };
    let mut all = Vec::new();
    for begin in (0..ids.len()).step_by(piece) {
        let rows: Vec<Row<'_>> = (begin..ids.len().min(begin + piece)).map(row).collect();
        let batch = Batch { rows: &rows, features: &[] };
        let logits = toy.model.decoder.forward(&toy.dev, &mut cache, &batch, &mut ())?.context("logits")?;
        all.extend(toy.dev.download(&logits).iter().map(|value| value.to_bits()));
    }
    Ok(all)
}

fn stats(toy: &Toy<Cpu>) -> Result<ExpertStats> {
    toy.dev.expert_stats().context("there is a cache")
}

#[test]
fn experts_in_their_files_give_the_same_bits_with_a_cache_of_any_size() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
    let mut n_runs = 0;
    for (path, [small, large]) in forms(folder.path())? {
        let want = logits(&Toy::load(device(2), &path)?, &ids, 16)?;
        for (n_threads, limit_bytes) in [(1, 0), (2, 0), (1, small), (2, large), (2, 1 << 30)] {
            let what = format!("{} with {limit_bytes} bytes on {n_threads} threads", path.display());
            let toy = Toy::load(device(n_threads).with_expert_cache(limit_bytes), &path)?;
            // All rows in one step: each expert that is chosen is read once.
            assert!(logits(&toy, &ids, ids.len())? == want, "{what}");
            let whole = stats(&toy)?;
            assert!((N_LAYERS as u64 * 2..=N_UNITS).contains(&whole.n_asked), "{what}: {whole:?}");
            assert_eq!(whole.n_hits, 0, "{what}: an expert was wanted twice in one step");
            assert!(whole.bytes_read > 0 && whole.bytes_read.is_multiple_of(whole.n_asked), "{what}: {whole:?}");
            // Row by row, as answers are made.
            assert!(logits(&toy, &ids, 1)? == want, "{what}");
            let single = stats(&toy)?.since(&whole);
            assert_eq!(single.n_asked, 2 * (N_LAYERS * ids.len()) as u64, "{what}");
            let n_read = single.n_asked - single.n_hits;
            if limit_bytes == 1 << 30 {
                assert_eq!(n_read, 0, "{what}: everything fits and was read before");
            } else if limit_bytes == 0 {
                assert!(n_read > 4 * N_UNITS, "{what}: {n_read} of {} were read", single.n_asked);
                assert!(single.cache_bytes < 100_000, "{what}: {single:?}");
            } else {
                assert!(single.n_hits > 0 && n_read > 0 && single.cache_bytes <= limit_bytes, "{what}: {single:?}");
            }
            n_runs += 1;
        }
    }
    assert_eq!(n_runs, 15);
    Ok(())
}

#[test]
fn a_file_that_shrinks_fails_the_step_that_needs_it_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
    for (path, _) in forms(folder.path())? {
        let file = if path.is_dir() { path.join("model.safetensors") } else { path.clone() };
        let content = std::fs::read(&file)?;
        let toy = Toy::load(device(2).with_expert_cache(0), &path)?;
        let want = toy.run(&ids, None, 16)?;
        let open = || std::fs::File::options().write(true).open(&file);
        open()?.set_len(4096)?;
        let error = toy.run(&ids, None, 16).err().context("it computed with experts that are gone")?;
        let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
        assert!(format!("{error:#}").contains(name), "{error:#}");
        assert!(format!("{error:#}").contains("shortened"), "{error:#}");
        std::io::Write::write_all(&mut open()?, &content)?;
        assert_eq!(bits(&toy.run(&ids, None, 16)?), bits(&want), "{}", path.display());
    }
    Ok(())
}
