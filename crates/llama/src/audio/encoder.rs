//! A Whisper-type encoder: two convolutions, positions, transformer layers.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;

use formats::Tensor;
use formats::config::AudioEncoderConfig;
use tensor::{Device, KvFormat, OpError, Orientation, PAGE_LEN, RowKeys, WeightSource, math};

use super::{AudioChunk, HUGGING_FACE, Names, WHISPER};
use crate::load::Loader;
use crate::vision::Norm;
use crate::{LlamaError, Probe, Site};

/// Columns that a convolution reads for one output.
const TAPS: usize = 3;

/// An audio encoder.
pub struct AudioEncoder<D: Device> {
    n_mels: usize,
    width: usize,
    n_heads: usize,
    n_frames: usize,
    block: Option<NonZeroUsize>,
    stem: [Convolution<D>; 2],
    positions: D::Table,
    layers: Vec<Layer<D>>,
    norm: Norm<D>,
}

struct Convolution<D: Device> {
    /// `[n_out, 3 · n_in]`, inputs tap by tap: gathering three rows makes one input of it.
    kernel: D::Matrix,
    bias: D::Vector,
}

struct Layer<D: Device> {
    attention_norm: Norm<D>,
    qkv: D::Matrix,
    qkv_bias: D::Vector,
    o: D::Matrix,
    o_bias: D::Vector,
    ffn_norm: Norm<D>,
    fc1: D::Matrix,
    fc1_bias: D::Vector,
    fc2: D::Matrix,
    fc2_bias: D::Vector,
}

/// Some frames of a chunk, and what they read of it.
pub(super) struct Part<'a> {
    /// Which column of the chunk is the first of `columns`.
    pub(super) first: usize,
    /// Mel columns, column by column, `[_, M]`: `2·begin − 2 ..= 2·end` of the frames, as far as the chunk goes. What is not
    /// there counts as zero.
    pub(super) columns: &'a [f32],
    pub(super) frames: Range<usize>,
}

/// Keys and values of the frames of a chunk, or of several.
pub(super) struct FrameCache<D: Device> {
    /// One a layer where frames come block by block; a single one, used again by each layer, where they come at once.
    layers: Vec<D::Pages>,
    pages: Vec<u32>,
}

impl<D: Device> AudioEncoder<D> {
    /// Loads the encoder that `config` describes from `tensors`: those of a Whisper model, whose decoder is not looked
    /// at, or of any model that has one.
    ///
    /// # Errors
    /// [`LlamaError::Missing`] or [`LlamaError::Weight`] where the tensors are not what the config describes.
    pub fn load(dev: &D, config: &AudioEncoderConfig, tensors: &BTreeMap<String, Tensor>) -> Result<Self, LlamaError> {
        let progress: &mut dyn FnMut(usize) = &mut |_| {};
        let mut loader = Loader::stored(dev, tensors, progress);
        let [prefix, _] = WHISPER.found(&HUGGING_FACE, &|name| loader.has(name));
        Self::load_from(&mut loader, config, prefix, &HUGGING_FACE)
    }

    pub(super) fn load_from(
        loader: &mut Loader<'_, D>,
        config: &AudioEncoderConfig,
        prefix: &str,
        names: &Names,
    ) -> Result<Self, LlamaError> {
        let width = config.hidden_size;
        let [conv1, conv2] = names.convolutions;
        let convolution = |loader: &mut Loader<'_, D>, name: &str, n_in| {
            Ok::<_, LlamaError>(Convolution {
                kernel: loader.convolution(&format!("{prefix}{name}.weight"), [width, n_in, TAPS])?,
                bias: loader.vector(&format!("{prefix}{name}.bias"), width)?,
            })
        };
        Ok(Self {
            n_mels: config.n_mels,
            width,
            n_heads: config.n_heads,
            n_frames: config.n_frames,
            block: config.block,
            stem: [convolution(loader, conv1, config.n_mels)?, convolution(loader, conv2, width)?],
            positions: loader.table(&format!("{prefix}{}", names.positions), config.n_frames, width)?,
            layers: (0..config.n_layers)
                .map(|i| Layer::load(loader, config, &format!("{prefix}{}.{i}", names.layers), &names.inner))
                .collect::<Result<_, _>>()?,
            norm: Norm::load(loader, &format!("{prefix}{}", names.norm), width)?,
        })
    }

    /// Mel bins of a column.
    pub fn n_mels(&self) -> usize {
        self.n_mels
    }

    /// Frames of a full chunk.
    pub fn n_frames(&self) -> usize {
        self.n_frames
    }

    /// Mel columns of a chunk.
    pub fn chunk_columns(&self) -> usize {
        2 * self.n_frames
    }

    /// Frames that are computed together: a block, or the whole chunk.
    pub(super) fn block(&self) -> usize {
        self.block.map_or(self.n_frames, NonZeroUsize::get)
    }

    /// The first frames of chunks, as many of each as are named beside it, `[Σ n_kept, width]`, normalised. Chunks do not
    /// see each other. Frames beyond the kept ones are not computed and not attended to: the same numbers as with a mask,
    /// without the work.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if there is no chunk, or one is not `[M, C]`, has no valid column or does not have so many frames.
    pub fn forward(
        &self,
        dev: &D,
        chunks: &[(AudioChunk<'_>, usize)],
        probe: &mut impl Probe<D>,
    ) -> Result<D::Tensor, LlamaError> {
        let n_columns = self.chunk_columns();
        let mut values = Vec::with_capacity(chunks.len());
        for &(chunk, n_kept) in chunks {
            if chunk.mel_mc.len() != self.n_mels * n_columns
                || !(1..=n_columns).contains(&chunk.valid)
                || !(1..=self.n_frames).contains(&n_kept)
            {
                let (values, valid) = (chunk.mel_mc.len(), chunk.valid);
                let what =
                    format!("{values} values with {valid} valid columns, {n_kept} frames of {} kept", self.n_frames);
                return Err(OpError::shape("audio", what).into());
            }
            // Kept frames do not see later columns.
            let n_seen = n_columns.min(2 * n_kept + 1);
            let column = |t: usize| (0..self.n_mels).map(move |bin| chunk.mel_mc[bin * n_columns + t]);
            values.push((0..n_seen).flat_map(column).collect::<Vec<f32>>());
        }
        if chunks.is_empty() {
            return Err(OpError::shape("audio", "no chunk").into());
        }
        let kept = values.iter().zip(chunks);
        let parts: Vec<Part<'_>> =
            kept.map(|(values, (_, n_kept))| Part { first: 0, columns: values, frames: 0..*n_kept }).collect();
        let mut cache = self.cache(dev, parts.len(), 1)?;
        Ok(self.encode(dev, &mut cache, &parts, probe)?)
    }

    /// Room for keys and values of a chunk whose frames come block by block.
    pub(super) fn stream_cache(&self, dev: &D) -> Result<FrameCache<D>, OpError> {
        self.cache(dev, 1, self.layers.len().max(1))
    }

    /// Room for keys and values of a chunk whose frames come at once.
    pub(super) fn chunk_cache(&self, dev: &D) -> Result<FrameCache<D>, OpError> {
        self.cache(dev, 1, 1)
    }

    /// Bytes of a cache.
    pub(super) fn cache_bytes(&self, cache: &FrameCache<D>) -> usize {
        let positions = cache.layers.len().saturating_mul(cache.pages.len() * PAGE_LEN);
        positions.saturating_mul(2 * KvFormat::F32.bytes(self.width))
    }

    fn cache(&self, dev: &D, n_chunks: usize, n_layers: usize) -> Result<FrameCache<D>, OpError> {
        let n_pages = n_chunks * self.n_frames.div_ceil(PAGE_LEN);
        let layer = |_| dev.pages(n_pages, self.n_heads, self.width / self.n_heads, KvFormat::F32);
        Ok(FrameCache {
            layers: (0..n_layers).map(layer).collect::<Result<_, _>>()?,
            pages: (0..n_pages as u32).collect(),
        })
    }

    /// The frames of each of `parts`, one part after another. Earlier blocks of their chunks are in `cache`, the pages of
    /// the first part's chunk before those of the second.
    pub(super) fn encode(
        &self,
        dev: &D,
        cache: &mut FrameCache<D>,
        parts: &[Part<'_>],
        probe: &mut impl Probe<D>,
    ) -> Result<D::Tensor, OpError> {
        let mut x = self.stem(dev, parts, probe)?;
        let ids: Vec<u32> = parts.iter().flat_map(|part| part.frames.start as u32..part.frames.end as u32).collect();
        x = dev.add(&x, &dev.embed(&self.positions, &ids)?)?;
        probe.see(dev, Site::AudioEmbeds, &x);
        let block = self.block();
        let n_pages = self.n_frames.div_ceil(PAGE_LEN);
        let FrameCache { layers, pages } = cache;
        let (mut keys, mut slots) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for ((i, part), pages) in parts.iter().enumerate().zip(pages.chunks(n_pages)) {
            keys.extend(part.frames.clone().map(|frame| {
                let end = ((frame / block + 1) * block).min(part.frames.end);
                RowKeys { pages, first_position: 0, begin: 0, end }
            }));
            slots.extend(part.frames.clone().map(|frame| i * n_pages * PAGE_LEN + frame));
        }
        let n_stored = layers.len();
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(dev, x, &mut layers[i % n_stored], &slots, &keys)?;
            probe.see(dev, Site::AudioLayer(i), &x);
        }
        x = self.norm.forward(dev, &x)?;
        probe.see(dev, Site::AudioFrames, &x);
        Ok(x)
    }

    /// Both convolutions: neighbours outside of a chunk are zero columns, for the second one as for the first.
    fn stem(&self, dev: &D, parts: &[Part<'_>], probe: &mut impl Probe<D>) -> Result<D::Tensor, OpError> {
        let [conv1, conv2] = &self.stem;
        let columns: Vec<f32> = parts.iter().flat_map(|part| part.columns).copied().collect();
        // The first convolution's outputs that the second one reads.
        let inner = |part: &Part<'_>| (2 * part.frames.start).saturating_sub(1)..2 * part.frames.end;
        let read = parts.iter().map(|part| {
            let there = part.first..part.first + part.columns.len() / self.n_mels;
            (there, inner(part).collect())
        });
        let x = dev.upload(&columns, self.n_mels)?;
        let x = conv1.forward(dev, &x, &taps(read))?;
        probe.see(dev, Site::AudioConv1, &x);
        let read = parts.iter().map(|part| (inner(part), part.frames.clone().map(|frame| 2 * frame).collect()));
        let x = conv2.forward(dev, &x, &taps(read))?;
        probe.see(dev, Site::AudioConv2, &x);
        Ok(x)
    }
}

/// The rows that a convolution's taps read, of parts that lie one after another: of each the columns that are there, and
/// those around which it reads. The row after the last one stands for columns that are not there.
fn taps(parts: impl Iterator<Item = (Range<usize>, Vec<usize>)> + Clone) -> Vec<usize> {
    let absent = parts.clone().map(|(there, _)| there.len()).sum();
    let mut first = 0;
    let mut rows = Vec::new();
    for (there, read) in parts {
        for at in read.iter().flat_map(|at| [at.checked_sub(1), Some(*at), Some(at + 1)]) {
            let at = at.filter(|at| there.contains(at));
            rows.push(at.map_or(absent, |at| first + at - there.start));
        }
        first += there.len();
    }
    rows
}

impl<D: Device> Convolution<D> {
    /// One output for each three of `taps`, rows of `x`; the row after its last is zero.
    fn forward(&self, dev: &D, x: &D::Tensor, taps: &[usize]) -> Result<D::Tensor, OpError> {
        let width = dev.shape(x)[1];
        let padded = dev.concat(x, &dev.upload(&vec![0.0; width], width)?)?;
        let gathered = dev.reshape(dev.rows(&padded, taps)?, TAPS * width)?;
        Ok(dev.gelu(&dev.linear(&self.kernel, Some(&self.bias), &gathered)?))
    }
}

impl<D: Device> Layer<D> {
    fn load(
        loader: &mut Loader<'_, D>,
        config: &AudioEncoderConfig,
        prefix: &str,
        [ln1, q, k, v, o, ln2, fc1, fc2]: &[&str; 8],
    ) -> Result<Self, LlamaError> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let weight = |part: &str| format!("{prefix}.{part}.weight");
        let bias = |part: &str| format!("{prefix}.{part}.bias");
        let parts = [*q, *k, *v];
        let sources = parts.map(|part| loader.source(&weight(part), Orientation::OutIn, [1, width, width]));
        let sources = sources.into_iter().collect::<Result<Vec<_>, _>>()?;
        // Keys have no bias.
        let [q, _, v] = parts.map(bias);
        let biases = [loader.part(&q, width)?, WeightSource::zeros(width), loader.part(&v, width)?];
        Ok(Self {
            attention_norm: Norm::load(loader, &format!("{prefix}.{ln1}"), width)?,
            qkv: loader.matrix(&sources)?,
            qkv_bias: loader.dev.vector(&biases)?,
            o: loader.linear(&weight(o), width, width)?,
            o_bias: loader.vector(&bias(o), width)?,
            ffn_norm: Norm::load(loader, &format!("{prefix}.{ln2}"), width)?,
            fc1: loader.linear(&weight(fc1), inner, width)?,
            fc1_bias: loader.vector(&bias(fc1), inner)?,
            fc2: loader.linear(&weight(fc2), width, inner)?,
            fc2_bias: loader.vector(&bias(fc2), width)?,
        })
    }

    fn forward(
        &self,
        dev: &D,
        x: D::Tensor,
        stored: &mut D::Pages,
        slots: &[usize],
        keys: &[RowKeys<'_>],
    ) -> Result<D::Tensor, OpError> {
        let width = dev.shape(&x)[1];
        let qkv = dev.linear(&self.qkv, Some(&self.qkv_bias), &self.attention_norm.forward(dev, &x)?)?;
        let q = dev.columns(&qkv, 0..width)?;
        let k = dev.columns(&qkv, width..2 * width)?;
        let v = dev.columns(&qkv, 2 * width..3 * width)?;
        dev.store(stored, &k, &v, slots)?;
        let mixed = dev.attention(&q, stored, keys)?;
        let x = dev.linear_onto(x, &self.o, Some(&self.o_bias), &mixed)?;
        let inner = dev.gelu(&dev.linear(&self.fc1, Some(&self.fc1_bias), &self.ffn_norm.forward(dev, &x)?)?);
        dev.linear_onto(x, &self.fc2, Some(&self.fc2_bias), &inner)
    }
}

/// Fresh positions of an encoder, `[n_frames, width]`: row t has the sines, then the cosines, of t·exp(−i·ln 10000 /
/// (width/2 − 1)) for i from 0 to width/2 − 1. They are not trained. Source: Whisper, `sinusoids`.
pub fn sinusoids(n_frames: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let last = half.saturating_sub(1).max(1) as f64;
    let rates: Vec<f64> = (0..half).map(|i| math::pow(10_000.0, -(i as f64) / last)).collect();
    let mut values = Vec::with_capacity(n_frames * width);
    for frame in 0..n_frames {
        let angles = || rates.iter().map(|rate| math::sin_cos(rate * frame as f64));
        values.extend(angles().map(|(sin, _)| sin));
        values.extend(angles().map(|(_, cos)| cos));
        values.resize((frame + 1) * width, 0.0);
    }
    values
}
