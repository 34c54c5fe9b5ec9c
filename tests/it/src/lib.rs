//! What the integration tests share: toy checkpoints with goldens from an independent implementation.
//!
//! The toys lie in `tests/data/toy`, made by `scripts/make_toy_llama4.py`. More folders of the same layout can be
//! checked by naming their parent in `PUNA_GOLDENS`.

pub mod exported;
pub mod hearing;
pub mod serving;
pub mod speaking;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use formats::{Checkpoint, DType, Tensor};
use llama::{AudioChunk, Batch, Cache, Input, Model, PageRun, Row, Site};
use tensor::{Device, Format, KvFormat, PAGE_LEN};

/// Folders of toy checkpoints: the repository's, then those under `PUNA_GOLDENS`.
///
/// # Errors
/// If a folder can not be listed.
pub fn toys() -> Result<Vec<PathBuf>> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/toy");
    let parents = std::iter::once(own).chain(std::env::var_os("PUNA_GOLDENS").map(PathBuf::from));
    let mut folders = Vec::new();
    for parent in parents {
        for entry in std::fs::read_dir(&parent).with_context(|| format!("listing {}", parent.display()))? {
            let path = entry?.path();
            if path.join("golden.safetensors").is_file() {
                folders.push(path);
            }
        }
    }
    folders.sort();
    ensure!(folders.len() >= 5, "only {} toy checkpoints found", folders.len());
    Ok(folders)
}

/// The goldens of one checkpoint: prompt, then tensor name.
pub struct Goldens {
    by_prompt: BTreeMap<String, BTreeMap<String, Tensor>>,
}

impl Goldens {
    /// Reads `golden.safetensors` of `folder`.
    ///
    /// # Errors
    /// If it can not be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = folder.join("golden.safetensors");
        let mut by_prompt: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for tensor in formats::safetensors::parse(&file, &formats::map_file(&file)?)? {
            let (prompt, name) = tensor.name.split_once('/').context("golden names are prompt/name")?;
            by_prompt.entry(prompt.into()).or_default().insert(name.into(), tensor.clone());
        }
        Ok(Self { by_prompt })
    }

    /// The prompts, by name.
    pub fn prompts(&self) -> impl Iterator<Item = (&str, Prompt<'_>)> {
        self.by_prompt.iter().map(|(name, tensors)| (name.as_str(), Prompt { tensors }))
    }
}

/// The goldens of one prompt.
#[derive(Clone, Copy)]
pub struct Prompt<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
}

impl Prompt<'_> {
    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The f32 values of `name`.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensors.get(name).with_context(|| format!("no golden {name}"))?;
        ensure!(tensor.dtype == DType::Weight(Format::F32), "{name} is {}", tensor.dtype.name());
        let mut values = vec![0.0; tensor.bytes.len() / 4];
        Format::F32.decode(&tensor.bytes, &mut values);
        Ok(values)
    }

    /// The ids of `name`.
    ///
    /// # Errors
    /// If there is no such tensor or an id is no token.
    pub fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let tensor = self.tensors.get(name).with_context(|| format!("no golden {name}"))?;
        let ids = tensor.bytes.as_chunks::<8>().0.iter().map(|raw| u32::try_from(i64::from_le_bytes(*raw)));
        ids.map(|id| id.context("an id is out of range")).collect()
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

/// A loaded toy on a device.
pub struct Toy<D: Device> {
    /// The device.
    pub dev: D,
    /// The model.
    pub model: Model<D>,
    /// The token that image features replace.
    pub patch: Option<u32>,
    /// The token that rows of audio replace.
    pub audio: Option<u32>,
}

impl<D: Device> Toy<D> {
    /// Loads `folder`.
    ///
    /// # Errors
    /// If the checkpoint does not load.
    pub fn load(dev: D, folder: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let model = Model::load(&dev, &checkpoint, &mut |_| {})?;
        let patch = checkpoint.config.image_tokens.as_ref().map(|tokens| tokens.patch);
        let audio = checkpoint.config.audio.as_ref().map(|audio| audio.tokens.audio);
        Ok(Self { dev, model, patch, audio })
    }

    /// Runs `ids` in pieces of `piece` rows and returns every tensor seen, rows of all pieces (tiles) one after
    /// another.
    ///
    /// # Errors
    /// If the model refuses a step.
    pub fn run(&self, ids: &[u32], pixels: Option<&[f32]>, piece: usize) -> Result<BTreeMap<String, Vec<f32>>> {
        self.run_heard(ids, pixels, &[], piece)
    }

    /// As [`run`](Self::run), with the chunks of a clip.
    ///
    /// # Errors
    /// If the model refuses a step.
    pub fn run_heard(
        &self,
        ids: &[u32],
        pixels: Option<&[f32]>,
        chunks: &[AudioChunk<'_>],
        piece: usize,
    ) -> Result<BTreeMap<String, Vec<f32>>> {
        let mut seen: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        let mut probe = |dev: &D, site: Site, x: &D::Tensor| {
            seen.entry(site.to_string()).or_default().extend(dev.download(x));
        };
        let image = match (pixels, &self.model.vision) {
            (Some(pixels), Some(vision)) => Some(vision.forward(&self.dev, pixels, &mut probe)?),
            (None, _) => None,
            (Some(_), None) => bail!("pixels for a model without a vision tower"),
        };
        let audio = match (chunks.is_empty(), &self.model.audio) {
            (false, Some(audio)) => Some(audio.forward(&self.dev, chunks, &mut probe)?),
            (true, _) => None,
            (false, None) => bail!("chunks for a model that does not hear"),
        };
        let inputs = self.inputs(ids, [(self.patch, image.as_ref()), (self.audio, audio.as_ref())])?;
        let features: Vec<&D::Tensor> = image.iter().chain(&audio).collect();
        let (mut cache, pages) = self.cache(ids.len())?;
        let run = PageRun { pages: &pages, first_position: 0 };
        for begin in (0..ids.len()).step_by(piece) {
            let end = ids.len().min(begin + piece);
            let rows: Vec<Row<'_>> = (begin..end)
                .map(|position| {
                    let input = inputs[position];
                    Row { input, position, global: run, chunked: run, wants_logits: true }
                })
                .collect();
            let batch = Batch { rows: &rows, features: &features };
            self.model.decoder.forward(&self.dev, &mut cache, &batch, &mut probe)?;
        }
        Ok(seen)
    }

    fn cache(&self, len: usize) -> Result<(Cache<D>, Vec<u32>)> {
        let n_pages = len.div_ceil(PAGE_LEN);
        let cache = self.model.decoder.cache(&self.dev, n_pages, n_pages, KvFormat::F32)?;
        // Pages in no natural order, as in use.
        Ok((cache, (0..u32::try_from(n_pages)?).rev().collect()))
    }

    /// Tokens, and in the places of each kind's token the rows of that kind, which are stacked in order.
    fn inputs(&self, ids: &[u32], kinds: [(Option<u32>, Option<&D::Tensor>); 2]) -> Result<Vec<Input>> {
        let mut inputs: Vec<Input> = ids.iter().map(|id| Input::Token(*id)).collect();
        let mut features = 0;
        for (token, x) in kinds {
            let Some(x) = x else { continue };
            let places = inputs.iter_mut().filter(|input| token.is_some_and(|token| **input == Input::Token(token)));
            let n_used = places.enumerate().map(|(row, input)| *input = Input::Feature { features, row }).count();
            let n_rows = self.dev.shape(x)[0];
            ensure!(n_used == n_rows, "{n_used} placeholders for {n_rows} feature rows");
            features += 1;
        }
        Ok(inputs)
    }
}

/// The index of the largest value; the first of equals.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}
