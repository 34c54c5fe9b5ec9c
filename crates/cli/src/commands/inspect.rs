//! `puna inspect`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use engine::Limits;
use engine::media::audio::{RATE_HZ, decode};
use engine::media::{Size, grid};
use formats::config::{Architecture, Ffn, LayerConfig, ModelConfig, RopeScaling, TextConfig};
use formats::{Checkpoint, Tensor};
use serde_json::{Value, json};
use tensor::Pairing;

use crate::attachments::{self, Kind};
use crate::built_in;
use crate::failure::usage;
use crate::model;
use crate::output::{line, thousands};

/// Show what a model's files hold
///
/// Config, parameter counts, layers, tensors, tokenizer, chat template, and what images cost. A config.json alone is
/// enough for all that does not need weights.
#[derive(clap::Args)]
pub struct Inspect {
    /// A GGUF file, a Hugging Face folder, or a config.json; nano is the model that is part of this program
    #[arg(env = "PUNA_MODEL", default_value = built_in::NAME)]
    model: PathBuf,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// List every layer
    #[arg(long)]
    layers: bool,
    /// Print the chat template as it stands in the files
    #[arg(long)]
    template: bool,
    /// What an image of this size in pixels costs; may be given several times
    #[arg(long, value_name = "WIDTHxHEIGHT")]
    image_size: Vec<String>,
    /// What this sound costs; may be given several times
    #[arg(long, value_name = "FILE")]
    audio: Vec<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// A GGUF file with the vision tower and the audio encoder
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,
}

impl Inspect {
    pub fn run(self) -> Result<()> {
        let checkpoint = model::open_checkpoint(&self.model, self.mmproj.as_deref())?;
        if self.template {
            let template = chat_template(&checkpoint)?.context("the files hold no chat template")?;
            return Ok(line(&template)?);
        }
        let sizes = self.image_size.iter().map(|text| parse_size(text)).collect::<Result<Vec<_>>>()?;
        let costs = image_costs(&checkpoint, &sizes)?;
        let clips = clip_costs(&checkpoint, &self.audio)?;
        if self.json {
            return Ok(line(&self.report(&checkpoint, &costs, &clips)?.to_string())?);
        }
        for (title, value) in facts(&checkpoint)? {
            line(&format!("{title:<14} {value}"))?;
        }
        line("")?;
        line(&layer_table(&checkpoint.config, self.layers))?;
        if self.tensors {
            line(&tensor_table(&checkpoint))?;
        }
        if !costs.is_empty() {
            line(&cost_table(&costs))?;
        }
        if !clips.is_empty() {
            line(&clip_table(&clips))?;
        }
        Ok(())
    }

    fn report(&self, checkpoint: &Checkpoint, costs: &[Cost], clips: &[ClipCost]) -> Result<Value> {
        let tensors: Vec<Value> = tensors(checkpoint)
            .map(|t| json!({ "name": t.name, "type": t.dtype.name(), "shape": t.shape, "bytes": t.bytes.len() }))
            .collect();
        let parameters = checkpoint.config.parameters();
        let facts = facts(checkpoint)?.into_iter().map(|(title, value)| (title.replace(' ', "_"), json!(value)));
        let layers: Vec<Value> = checkpoint.config.text.layers.iter().map(layer_json).collect();
        let costs: Vec<Value> = costs.iter().map(Cost::json).collect();
        Ok(json!({
            "version": 1,
            "summary": facts.collect::<serde_json::Map<_, _>>(),
            "parameters": {
                "total": parameters.total,
                "routed_experts": parameters.routed_experts,
                "vision_tower": parameters.vision_tower,
                "projector": parameters.projector,
                "audio_encoder": parameters.audio_encoder,
                "audio_projector": parameters.audio_projector,
            },
            "layers": layers,
            "tensors": tensors,
            "images": costs,
            "audio": clips.iter().map(ClipCost::json).collect::<Vec<_>>(),
        }))
    }
}

fn facts(checkpoint: &Checkpoint) -> Result<Vec<(&'static str, String)>> {
    let (config, text) = (&checkpoint.config, &checkpoint.config.text);
    let parameters = config.parameters();
    let mut facts = vec![
        ("path", checkpoint.path.display().to_string()),
        ("files", if checkpoint.is_gguf() { "GGUF".into() } else { "Hugging Face".into() }),
        ("architecture", architecture(config.architecture).into()),
        ("parameters", thousands(parameters.total)),
        ("routed experts", thousands(parameters.routed_experts)),
        ("vision tower", thousands(parameters.vision_tower)),
        ("projector", thousands(parameters.projector)),
        ("width", text.hidden_size.to_string()),
        (
            "attention",
            format!("{} heads, {} for keys and values, {} wide", text.n_heads, text.n_kv_heads, text.head_len),
        ),
        ("vocabulary", text.vocab_size.to_string()),
        ("positions", text.max_positions.to_string()),
        ("rotation", rotation(text)),
        ("RMS norm", format!("eps {:e}{}", text.rms_eps, if text.qk_norm { ", also on rotated q and k" } else { "" })),
        ("end tokens", text.eos.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")),
        ("weights", weights(checkpoint)),
    ];
    if let Some(vision) = &config.vision {
        let (layers, width) = (vision.n_layers, vision.hidden_size);
        facts.push(("vision", format!("{layers} layers of {width}, tiles of {} pixels", vision.image_size)));
    }
    if let Some(audio) = &config.audio {
        let (encoder, seconds) = (&audio.encoder, audio.encoder.n_frames as f64 / 50.0);
        let sees = encoder.block.map_or("all".to_owned(), |block| format!("blocks of {block} frames"));
        facts.push((
            "audio",
            format!(
                "{}, {} layers of {}, chunks of {seconds} s, attention over {sees}, {} frames a token",
                audio.preset.name(),
                encoder.n_layers,
                encoder.hidden_size,
                audio.projector.stack,
            ),
        ));
    }
    match model::tokenizer_of(checkpoint) {
        Ok(tokenizer) => facts.push(("tokenizer", format!("{} tokens", tokenizer.vocab_size()))),
        Err(error) => facts.push(("tokenizer", format!("none: {error}"))),
    }
    let template = chat_template(checkpoint)?;
    facts.push((
        "chat template",
        template.map_or("none".into(), |t| format!("{} bytes (--template shows it)", t.len())),
    ));
    Ok(facts)
}

fn architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Llama4 => "Llama 4, text and images",
        Architecture::Llama4Text => "Llama 4, text",
        Architecture::Llama => "Llama",
        Architecture::LlamaAudio => "Llama, text and audio",
    }
}

fn rotation(text: &TextConfig) -> String {
    let pairs = match text.pairing {
        Pairing::Interleaved => "neighbours",
        Pairing::Halves => "halves",
    };
    let scaling = match &text.rope.scaling {
        RopeScaling::None => "not scaled".into(),
        RopeScaling::Linear { factor } => format!("scaled by {factor}"),
        RopeScaling::Llama3 { factor, low, high, original } => {
            format!("scaled by {factor} from {original} positions, bands {low} to {high}")
        }
        RopeScaling::Divisors => "scaled by the divisors in the file".into(),
    };
    format!("theta {}, pairs of {pairs}, {scaling}", text.rope.theta)
}

/// The chat template, from its own file or from the tokenizer's.
fn chat_template(checkpoint: &Checkpoint) -> Result<Option<String>> {
    model::chat_template(checkpoint, model::tokenizer_of(checkpoint).ok().as_ref())
}

/// All tensors: the model's, then those of the file with its towers.
fn tensors(checkpoint: &Checkpoint) -> impl Iterator<Item = &Tensor> {
    checkpoint.tensors.values().chain(checkpoint.projector.iter().flat_map(|projector| &projector.tensors))
}

/// Stored types with their share of the bytes.
fn weights(checkpoint: &Checkpoint) -> String {
    let mut bytes_by_type = std::collections::BTreeMap::new();
    for tensor in tensors(checkpoint) {
        *bytes_by_type.entry(tensor.dtype.name()).or_insert(0usize) += tensor.bytes.len();
    }
    let total: usize = bytes_by_type.values().sum();
    let types: Vec<String> = bytes_by_type
        .iter()
        .map(|(name, bytes)| format!("{name} {:.1} %", 100.0 * *bytes as f64 / total.max(1) as f64))
        .collect();
    match tensors(checkpoint).count() {
        0 => "none, a config alone".into(),
        n => format!("{n} tensors, {} bytes: {}", thousands(total as u64), types.join(", ")),
    }
}

fn describe(layer: &LayerConfig) -> [String; 3] {
    let sees = layer.chunk.map_or("everything".to_owned(), |chunk| format!("chunks of {chunk}"));
    let ffn = match layer.ffn {
        Ffn::Dense { width } => format!("dense {width}"),
        Ffn::Moe { width, n_experts, top_k, shared_width } => {
            format!("{top_k} of {n_experts} experts of {width}, shared {shared_width}")
        }
    };
    [if layer.rotated { "yes" } else { "no" }.to_owned(), sees, ffn]
}

fn layer_json(layer: &LayerConfig) -> Value {
    let ffn = match layer.ffn {
        Ffn::Dense { width } => json!({ "kind": "dense", "width": width }),
        Ffn::Moe { width, n_experts, top_k, shared_width } => json!({
            "kind": "moe", "width": width, "experts": n_experts, "top_k": top_k, "shared_width": shared_width,
        }),
    };
    json!({ "rotated": layer.rotated, "chunk": layer.chunk, "ffn": ffn })
}

/// All layers, or one line for each run of equal ones.
fn layer_table(config: &ModelConfig, every: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["layer", "rotated", "sees", "feed-forward"]);
    let layers = &config.text.layers;
    let mut begin = 0;
    while begin < layers.len() {
        let same = layers[begin..].iter().take_while(|layer| **layer == layers[begin]).count();
        let n = if every { 1 } else { same };
        let label = if n == 1 { begin.to_string() } else { format!("{begin}–{}", begin + n - 1) };
        let [rotated, sees, ffn] = describe(&layers[begin]);
        table.add_row([label, rotated, sees, ffn]);
        begin += n;
    }
    table.to_string()
}

fn tensor_table(checkpoint: &Checkpoint) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["tensor", "type", "shape", "bytes"]);
    for tensor in tensors(checkpoint) {
        let shape = format!("{:?}", tensor.shape);
        table.add_row([&tensor.name, tensor.dtype.name(), &shape, &thousands(tensor.bytes.len() as u64)]);
    }
    table.to_string()
}

/// What an image becomes.
struct Cost {
    size: Size,
    rows: usize,
    cols: usize,
    tiles: usize,
    tokens: usize,
}

/// What images of `sizes` cost, or of a few common sizes if none is named.
fn image_costs(checkpoint: &Checkpoint, sizes: &[Size]) -> Result<Vec<Cost>> {
    let Some(config) = model::tile_config(checkpoint)? else {
        return match sizes {
            [] => Ok(Vec::new()),
            _ => Err(usage("this model does not take images", "name a model with a vision tower, or give --mmproj")),
        };
    };
    let common = [(336, 336), (640, 480), (1024, 1024), (1920, 1080), (4000, 3000)];
    let common: Vec<Size> = common.into_iter().filter_map(|(width, height)| Size::new(height, width)).collect();
    let cost = |size: &Size| {
        let grid = grid(*size, &config);
        let (rows, cols) = (grid.rows, grid.cols);
        Cost { size: *size, rows, cols, tiles: grid.n_tiles(), tokens: config.n_tokens(grid) }
    };
    Ok(if sizes.is_empty() { &common } else { sizes }.iter().map(cost).collect())
}

impl Cost {
    fn json(&self) -> Value {
        json!({
            "width": self.size.width(), "height": self.size.height(), "rows": self.rows, "columns": self.cols,
            "tiles": self.tiles, "tokens": self.tokens,
        })
    }
}

fn parse_size(text: &str) -> Result<Size> {
    let size = text.split_once(['x', '×']).and_then(|(w, h)| Size::new(h.parse().ok()?, w.parse().ok()?));
    size.ok_or_else(|| {
        usage(format!("\"{text}\" is no size"), "write it as WIDTHxHEIGHT in pixels: --image-size 1920x1080")
    })
}

fn cost_table(costs: &[Cost]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["image", "rows × columns", "tiles", "tokens"]);
    for cost in costs {
        let (size, grid) = (cost.size.to_string(), format!("{}×{}", cost.rows, cost.cols));
        table.add_row([size, grid, cost.tiles.to_string(), cost.tokens.to_string()]);
    }
    table.to_string()
}

/// What a clip becomes.
struct ClipCost {
    name: String,
    seconds: f64,
    chunks: usize,
    tokens: usize,
}

/// What the clips in `files` cost, or of a few common lengths if none is named.
fn clip_costs(checkpoint: &Checkpoint, files: &[PathBuf]) -> Result<Vec<ClipCost>> {
    const COMMON_SECONDS: [u32; 5] = [1, 10, 30, 60, 600];
    let Some(config) = model::clip_config(checkpoint)? else {
        return match files {
            [] => Ok(Vec::new()),
            _ => Err(usage(
                "this model does not take audio",
                "name a model with an audio tower; puna graft-audio makes one",
            )),
        };
    };
    let tokenizer = model::tokenizer_of(checkpoint).ok();
    let markers = model::audio_ids(checkpoint, tokenizer.as_ref()).map_or(0, |ids| ids.n_markers());
    let chunk_frames = config.mel().settings().chunk_frames as u64;
    let cost = |name: String, n_samples: u64| {
        let cost = config.cost(n_samples);
        ClipCost {
            name,
            seconds: n_samples as f64 / f64::from(RATE_HZ),
            chunks: cost.mel_frames.div_ceil(chunk_frames) as usize,
            tokens: cost.tokens as usize + markers,
        }
    };
    if files.is_empty() {
        return Ok(COMMON_SECONDS.map(|seconds| cost(format!("{seconds} s"), u64::from(seconds * RATE_HZ))).into());
    }
    let of_file = |path: &PathBuf| {
        let file = attachments::open(Kind::Audio, path)?;
        let clip = decode(&file.bytes, None, &Limits::default(), &|| false)
            .map_err(|error| usage(format!("--audio {}: {error}", path.display()), "give another file"))?;
        Ok(cost(path.display().to_string(), clip.samples().len() as u64))
    };
    files.iter().map(of_file).collect()
}

impl ClipCost {
    fn json(&self) -> Value {
        json!({ "name": self.name, "seconds": self.seconds, "chunks": self.chunks, "tokens": self.tokens })
    }
}

fn clip_table(costs: &[ClipCost]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["audio", "seconds", "chunks", "tokens"]);
    for cost in costs {
        let seconds = format!("{:.2}", cost.seconds);
        table.add_row([cost.name.clone(), seconds, cost.chunks.to_string(), cost.tokens.to_string()]);
    }
    table.to_string()
}
