//! `puna trace`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use formats::{DType, NewTensor};
use llama::{Batch, Input, Model, PageRun, Row, Site};
use tensor::{Device, Format, KvFormat, PAGE_LEN, Reference};

use crate::failure::usage;
use crate::model;
use crate::output::{line, token_bar};

/// Write every intermediate tensor of a forward pass to a file
///
/// The tool to check Puna against another implementation. The file holds input_ids, embeds,
/// layer.N.{attn,ffn,out,router_logits}, final_norm and logits of all positions, and vision.* where there are pixels.
#[derive(clap::Args)]
pub struct Trace {
    /// A GGUF file or a Hugging Face folder
    model: PathBuf,
    /// Token ids, comma-separated, as they are: no start token is added
    #[arg(long, value_delimiter = ',', required_unless_present = "ids_file")]
    ids: Vec<u32>,
    /// A file of token ids separated by commas or white space
    #[arg(long, conflicts_with = "ids")]
    ids_file: Option<PathBuf>,
    /// A safetensors file with one f32 tensor [tiles, 3, side, side]: normalised tiles for the placeholders in the ids
    #[arg(long)]
    pixels: Option<PathBuf>,
    /// The safetensors file to write
    #[arg(long)]
    out: PathBuf,
    /// Only tensors whose name starts with one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rows of one step
    #[arg(long, default_value_t = 256)]
    piece: usize,
    #[command(flatten)]
    device: model::DeviceArguments,
    #[command(flatten)]
    precision: model::PrecisionArgument,
    /// Compute on the slow device that defines every result
    #[arg(long)]
    reference: bool,
    /// A GGUF file with the vision tower and the audio encoder
    #[arg(long)]
    mmproj: Option<PathBuf>,
    #[command(flatten)]
    lora: model::LoraArguments,
}

/// Name, shape and values of each tensor.
type Seen = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

impl Trace {
    pub fn run(self) -> Result<()> {
        let ids = match &self.ids_file {
            None => self.ids.clone(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
                let words = text.split([',', ' ', '\n', '\t', '\r']).filter(|word| !word.is_empty());
                let id = |word: &str| word.parse().with_context(|| format!("\"{word}\" in {}", path.display()));
                words.map(id).collect::<Result<Vec<u32>>>()?
            }
        };
        if ids.is_empty() || self.piece == 0 {
            return Err(usage("there is nothing to trace", "give --ids 1,2,3 and a --piece of at least 1"));
        }
        let seen = if self.reference {
            self.trace(Reference, &ids)?
        } else {
            self.trace(self.device.open_with(self.precision), &ids)?
        };
        self.write(&ids, seen)
    }

    fn trace<D: Device>(&self, dev: D, ids: &[u32]) -> Result<Seen> {
        let checkpoint = model::open_checkpoint(&self.model, self.mmproj.as_deref())?;
        let n_vocab = checkpoint.config.text.vocab_size;
        if let Some(id) = ids.iter().find(|id| usize::try_from(**id).is_ok_and(|id| id >= n_vocab)) {
            return Err(usage(format!("id {id} is not one of the model's {n_vocab} tokens"), "give ids below that"));
        }
        let model = model::load_with(&dev, &checkpoint, self.lora.open()?.as_ref())?;
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|prefix| name.starts_with(prefix));
        let mut seen = Seen::new();
        let mut probe = |dev: &D, site: Site, x: &D::Tensor| {
            let name = site.to_string();
            if wanted(&name) {
                let [n_rows, width] = dev.shape(x);
                let is_tile = name.starts_with("vision.");
                // Every vision tensor is seen once a tile, [rows, width]; the others grow by rows.
                let entry = seen.entry(name).or_insert_with(|| match is_tile {
                    true => (vec![0, n_rows, width], Vec::new()),
                    false => (vec![0, width], Vec::new()),
                });
                entry.0[0] += if is_tile { 1 } else { n_rows };
                entry.1.extend(dev.download(x));
            }
        };
        let features = match &self.pixels {
            None => None,
            Some(path) => {
                let vision = model.vision.as_ref().context("this model has no vision tower: give --mmproj")?;
                Some(vision.forward(&dev, &pixels(path)?, &mut probe)?)
            }
        };
        let patch = checkpoint.config.image_tokens.as_ref().map(|tokens| tokens.patch);
        let n_features = features.as_ref().map_or(0, |x| dev.shape(x)[0]);
        let inputs = inputs(ids, patch, n_features)?;
        let features: Vec<&D::Tensor> = features.iter().collect();
        forward(&dev, &model, &inputs, &features, self.piece, &mut probe)?;
        Ok(seen)
    }

    fn write(&self, ids: &[u32], seen: Seen) -> Result<()> {
        let ids_bytes: Vec<u8> = ids.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
        let mut tensors = vec![("input_ids".to_owned(), DType::I64, vec![1, ids.len()], ids_bytes)];
        for (name, (mut shape, values)) in seen {
            // As the reference implementation shapes them: a batch of one sequence, except for router logits.
            if !name.starts_with("vision.") && !name.ends_with("router_logits") {
                shape.insert(0, 1);
            }
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push((name, DType::Weight(Format::F32), shape, bytes));
        }
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| NewTensor { name, dtype: *dtype, shape, bytes });
        formats::safetensors::write(&self.out, &views.collect::<Vec<_>>())?;
        line(&format!("{} tensors of {} positions in {}", tensors.len(), ids.len(), self.out.display()))?;
        Ok(())
    }
}

/// The only f32 tensor of the file, or the one named `pixel_values`.
fn pixels(path: &std::path::Path) -> Result<Vec<f32>> {
    let tensors = formats::safetensors::parse(path, &formats::map_file(path)?)?;
    let named =
        tensors.iter().find(|t| t.name == "pixel_values").or_else(|| tensors.first().filter(|_| tensors.len() == 1));
    let tensor = named.filter(|t| t.dtype == DType::Weight(Format::F32));
    let tensor = tensor.with_context(|| format!("{} has no f32 tensor \"pixel_values\"", path.display()))?;
    let mut values = vec![0.0; tensor.n_values()];
    Format::F32.decode(&tensor.bytes, &mut values);
    Ok(values)
}

fn inputs(ids: &[u32], patch: Option<u32>, n_features: usize) -> Result<Vec<Input>> {
    let mut n_used = 0;
    let mut input = |id: u32| {
        if n_features > 0 && Some(id) == patch {
            n_used += 1;
            Input::Feature { features: 0, row: n_used - 1 }
        } else {
            Input::Token(id)
        }
    };
    let inputs = ids.iter().map(|id| input(*id)).collect();
    if n_used != n_features {
        return Err(usage(
            format!("{n_used} placeholder ids for {n_features} rows of image features"),
            "give one placeholder id a feature row: --ids and --pixels must belong together",
        ));
    }
    Ok(inputs)
}

fn forward<D: Device>(
    dev: &D,
    model: &Model<D>,
    inputs: &[Input],
    features: &[&D::Tensor],
    piece: usize,
    probe: &mut impl llama::Probe<D>,
) -> Result<()> {
    let n_pages = inputs.len().div_ceil(PAGE_LEN);
    let mut cache = model.decoder.cache(dev, n_pages, n_pages, KvFormat::F32)?;
    let pages: Vec<u32> = (0..u32::try_from(n_pages)?).collect();
    let run = PageRun { pages: &pages, first_position: 0 };
    let bar = token_bar("tracing", inputs.len());
    for (i, piece_inputs) in inputs.chunks(piece).enumerate() {
        let row = |(j, input): (usize, &Input)| {
            let position = i * piece + j;
            Row { input: *input, position, global: run, chunked: run, wants_logits: true }
        };
        let rows: Vec<Row<'_>> = piece_inputs.iter().enumerate().map(row).collect();
        model.decoder.forward(dev, &mut cache, &Batch { rows: &rows, features }, probe)?;
        bar.inc(rows.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}
