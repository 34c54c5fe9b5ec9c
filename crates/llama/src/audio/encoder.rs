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

/// Consecutive mel columns of one chunk, column by column: `[_, M]`.
pub(super) struct Columns<'a> {
    /// Which column of the chunk the first is.
    pub(super) first: usize,
    pub(super) values: &'a [f32],
}

/// Keys and values of one chunk's frames.
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

    /// The first `n_kept` frames of a chunk, `[n_kept, width]`, normalised. Frames beyond them are not computed and not
    /// attended to: the same numbers as with a mask, without the work.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if the chunk is not `[M, C]`, has no valid column or `n_kept` frames are not in it.
    pub fn forward(
        &self,
        dev: &D,
        chunk: &AudioChunk<'_>,
        n_kept: usize,
        probe: &mut impl Probe<D>,
    ) -> Result<D::Tensor, LlamaError> {
        let n_columns = self.chunk_columns();
        if chunk.mel_mc.len() != self.n_mels * n_columns
            || !(1..=n_columns).contains(&chunk.valid)
            || !(1..=self.n_frames).contains(&n_kept)
        {
            let (values, valid) = (chunk.mel_mc.len(), chunk.valid);
            let what = format!("{values} values with {valid} valid columns, {n_kept} frames of {} kept", self.n_frames);
            return Err(OpError::shape("audio", what).into());
        }
        // Kept frames do not see later columns.
        let n_seen = n_columns.min(2 * n_kept + 1);
        let column = |t: usize| (0..self.n_mels).map(move |bin| chunk.mel_mc[bin * n_columns + t]);
        let values: Vec<f32> = (0..n_seen).flat_map(column).collect();
        let mut cache = self.chunk_cache(dev)?;
        Ok(self.encode(dev, &mut cache, &Columns { first: 0, values: &values }, 0..n_kept, probe)?)
    }

    /// Room for keys and values of a chunk whose frames come block by block.
    pub(super) fn stream_cache(&self, dev: &D) -> Result<FrameCache<D>, OpError> {
        self.cache(dev, self.layers.len().max(1))
    }

    /// Room for keys and values of a chunk whose frames come at once.
    pub(super) fn chunk_cache(&self, dev: &D) -> Result<FrameCache<D>, OpError> {
        self.cache(dev, 1)
    }

    /// Bytes of a cache.
    pub(super) fn cache_bytes(&self, cache: &FrameCache<D>) -> usize {
        let positions = cache.layers.len().saturating_mul(cache.pages.len() * PAGE_LEN);
        positions.saturating_mul(2 * KvFormat::F32.bytes(self.width))
    }

    fn cache(&self, dev: &D, n_layers: usize) -> Result<FrameCache<D>, OpError> {
        let n_pages = self.n_frames.div_ceil(PAGE_LEN);
        let layer = |_| dev.pages(n_pages, self.n_heads, self.width / self.n_heads, KvFormat::F32);
        Ok(FrameCache {
            layers: (0..n_layers).map(layer).collect::<Result<_, _>>()?,
            pages: (0..n_pages as u32).collect(),
        })
    }

    /// The frames `frames` of a chunk, whose earlier blocks are in `cache`. `columns` hold what these frames read:
    /// `2·begin − 2 ..= 2·end` as far as the chunk goes; what is not there counts as zero.
    pub(super) fn encode(
        &self,
        dev: &D,
        cache: &mut FrameCache<D>,
        columns: &Columns<'_>,
        frames: Range<usize>,
        probe: &mut impl Probe<D>,
    ) -> Result<D::Tensor, OpError> {
        let mut x = self.stem(dev, columns, &frames, probe)?;
        let ids: Vec<u32> = frames.clone().map(|frame| frame as u32).collect();
        x = dev.add(&x, &dev.embed(&self.positions, &ids)?)?;
        probe.see(dev, Site::AudioEmbeds, &x);
        let block = self.block();
        let FrameCache { layers, pages } = cache;
        let keys: Vec<RowKeys<'_>> = frames
            .clone()
            .map(|frame| {
                let end = ((frame / block + 1) * block).min(frames.end);
                RowKeys { pages: &pages[..], first_position: 0, begin: 0, end }
            })
            .collect();
        let slots: Vec<usize> = frames.collect();
        let n_stored = layers.len();
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(dev, x, &mut layers[i % n_stored], &slots, &keys)?;
            probe.see(dev, Site::AudioLayer(i), &x);
        }
        x = self.norm.forward(dev, &x)?;
        probe.see(dev, Site::AudioFrames, &x);
        Ok(x)
    }

    /// Both convolutions: neighbours outside of the chunk are zero columns, for the second one as for the first.
    fn stem(
        &self,
        dev: &D,
        columns: &Columns<'_>,
        frames: &Range<usize>,
        probe: &mut impl Probe<D>,
    ) -> Result<D::Tensor, OpError> {
        let [conv1, conv2] = &self.stem;
        let first_output = (2 * frames.start).saturating_sub(1);
        let n_columns = columns.values.len() / self.n_mels;
        let taps = (first_output..2 * frames.end).flat_map(|t| neighbours(t, columns.first, n_columns));
        let x = dev.upload(columns.values, self.n_mels)?;
        let x = conv1.forward(dev, &x, &taps.collect::<Vec<_>>())?;
        probe.see(dev, Site::AudioConv1, &x);
        let n_outputs = 2 * frames.end - first_output;
        let taps = frames.clone().flat_map(|frame| neighbours(2 * frame, first_output, n_outputs));
        let x = conv2.forward(dev, &x, &taps.collect::<Vec<_>>())?;
        probe.see(dev, Site::AudioConv2, &x);
        Ok(x)
    }
}

/// The rows that the taps of output `at` read, of `n_rows` rows the first of which is row `first`; `n_rows` stands for
/// one that is not there.
fn neighbours(at: usize, first: usize, n_rows: usize) -> [usize; TAPS] {
    let row = |position: Option<usize>| {
        let row = position.and_then(|position| position.checked_sub(first));
        row.filter(|row| *row < n_rows).unwrap_or(n_rows)
    };
    [row(at.checked_sub(1)), row(Some(at)), row(Some(at + 1))]
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
