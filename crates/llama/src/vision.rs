//! The vision tower, its adapter and the projector: tiles of pixels to rows of the decoder's width.

use formats::config::VisionConfig;
use tensor::{Device, KvFormat, OpError, Orientation, PAGE_LEN, Rotation, RowKeys};

use crate::load::Loader;
use crate::rotary::tile_rotation;
use crate::{LlamaError, Probe, Site};

/// Layer norms of the tower: the published config's `norm_eps` is not read by the reference, whose layer norms use
/// their framework's default.
const EPS: f32 = 1e-5;

/// Rows that tiles which are encoded together have at most, where a single one does not have more: small tiles fill the
/// threads together, large ones do alone, and memory is bounded.
const ROWS_TOGETHER: usize = 1024;

/// Vision tower, adapter and projector.
pub struct Vision<D: Device> {
    tile: usize,
    patch: usize,
    /// Patches along one side of a tile.
    grid: usize,
    /// Patches that one output token joins, along one side.
    joined: usize,
    n_heads: usize,
    head_len: usize,
    rotation: Rotation,
    patch_embedding: D::Matrix,
    class: D::Table,
    positions: D::Table,
    norm_before: Norm<D>,
    layers: Vec<Layer<D>>,
    norm_after: Norm<D>,
    adapter: [D::Matrix; 2],
    projector: D::Matrix,
}

pub(crate) struct Norm<D: Device> {
    gain: D::Vector,
    bias: D::Vector,
}

struct Layer<D: Device> {
    norm1: Norm<D>,
    qkv: D::Matrix,
    qkv_bias: D::Vector,
    o: D::Matrix,
    o_bias: D::Vector,
    norm2: Norm<D>,
    fc1: D::Matrix,
    fc1_bias: D::Vector,
    fc2: D::Matrix,
    fc2_bias: D::Vector,
}

/// Where rows stand, and what they see.
struct Seen<'a> {
    rotation: &'a Rotation,
    keys: &'a [RowKeys<'a>],
    slots: &'a [usize],
}

/// The names of the tower's weights outside of its layers.
pub(crate) struct Names {
    pub(crate) class: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) patch: &'static str,
    pub(crate) norm_before: &'static str,
    pub(crate) norm_after: &'static str,
    pub(crate) adapter: [&'static str; 2],
    pub(crate) projector: &'static str,
    pub(crate) layers: &'static str,
    /// ln1, q, k, v, o, ln2, fc1, fc2.
    pub(crate) inner: [&'static str; 8],
}

pub(crate) const HUGGING_FACE: Names = Names {
    class: "vision_model.class_embedding",
    positions: "vision_model.positional_embedding_vlm",
    patch: "vision_model.patch_embedding.linear.weight",
    norm_before: "vision_model.layernorm_pre",
    norm_after: "vision_model.layernorm_post",
    adapter: ["vision_model.vision_adapter.mlp.fc1.weight", "vision_model.vision_adapter.mlp.fc2.weight"],
    projector: "multi_modal_projector.linear_1.weight",
    layers: "vision_model.model.layers",
    inner: [
        "input_layernorm",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "post_attention_layernorm",
        "mlp.fc1",
        "mlp.fc2",
    ],
};

pub(crate) const GGUF: Names = Names {
    class: "v.class_embd",
    positions: "v.position_embd.weight",
    patch: "v.patch_embd.weight",
    norm_before: "v.pre_ln",
    norm_after: "v.post_ln",
    adapter: ["mm.model.mlp.1.weight", "mm.model.mlp.2.weight"],
    projector: "mm.model.fc.weight",
    layers: "v.blk",
    inner: ["ln1", "attn_q", "attn_k", "attn_v", "attn_out", "ln2", "ffn_up", "ffn_down"],
};

impl<D: Device> Vision<D> {
    pub(crate) fn load(
        loader: &mut Loader<'_, D>,
        config: &VisionConfig,
        text_width: usize,
        is_gguf: bool,
    ) -> Result<Self, LlamaError> {
        let names = if is_gguf { &GGUF } else { &HUGGING_FACE };
        let (width, grid) = (config.hidden_size, config.image_size / config.patch_size);
        let joined = config.joined_patches();
        let patch_len = config.n_channels * config.patch_size * config.patch_size;
        let head_len = width / config.n_heads;
        Ok(Self {
            tile: config.image_size,
            patch: config.patch_size,
            grid,
            joined,
            n_heads: config.n_heads,
            head_len,
            rotation: tile_rotation(config.rope_theta, head_len, grid),
            patch_embedding: loader.linear(names.patch, width, patch_len)?,
            class: loader.table(names.class, 1, width)?,
            positions: loader.table(names.positions, grid * grid + 1, width)?,
            norm_before: Norm::load(loader, names.norm_before, width)?,
            layers: (0..config.n_layers)
                .map(|i| Layer::load(loader, config, &format!("{}.{i}", names.layers), &names.inner))
                .collect::<Result<_, _>>()?,
            norm_after: Norm::load(loader, names.norm_after, width)?,
            adapter: [
                loader.linear(names.adapter[0], config.projector_input_dim, width * joined * joined)?,
                loader.linear(names.adapter[1], config.projector_output_dim, config.projector_input_dim)?,
            ],
            projector: loader.linear(names.projector, text_width, config.vision_output_dim)?,
        })
    }

    /// Rows that one tile becomes.
    pub fn tokens_per_tile(&self) -> usize {
        (self.grid / self.joined).pow(2)
    }

    /// The side of a tile in pixels.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// Encodes tiles, `[n, 3, tile, tile]` normalised pixels, to `[n · tokens_per_tile, D]`.
    ///
    /// # Errors
    /// [`LlamaError::Op`] if `pixels` is no whole number of tiles, or there is none.
    pub fn forward(&self, dev: &D, pixels: &[f32], probe: &mut impl Probe<D>) -> Result<D::Tensor, LlamaError> {
        let tile_len = 3 * self.tile * self.tile;
        if pixels.is_empty() || !pixels.len().is_multiple_of(tile_len) {
            let what = format!("{} pixel values are no tiles of {tile_len}", pixels.len());
            return Err(OpError::shape("vision", what).into());
        }
        let mut all: Option<D::Tensor> = None;
        let together = (ROWS_TOGETHER / (self.grid * self.grid + 1)).max(1);
        for tiles in pixels.chunks(together * tile_len) {
            let rows = self.encode(dev, tiles, probe)?;
            all = Some(match all {
                Some(all) => dev.concat(&all, &rows)?,
                None => rows,
            });
        }
        all.ok_or_else(|| OpError::shape("vision", "no tile").into())
    }

    /// Encodes tiles side by side. They do not see each other.
    fn encode(&self, dev: &D, pixels: &[f32], probe: &mut impl Probe<D>) -> Result<D::Tensor, OpError> {
        let tiles = pixels.chunks_exact(3 * self.tile * self.tile);
        let (n_tiles, n_patches) = (tiles.len(), self.grid * self.grid);
        let n_rows = n_patches + 1;
        let patches: Vec<f32> = tiles.flat_map(|tile| self.patches(tile)).collect();
        let mut x = dev.linear(&self.patch_embedding, None, &dev.upload(&patches, 3 * self.patch * self.patch)?)?;
        probe.see(dev, Site::VisionPatch, &x);
        // The class token comes last in each tile.
        x = dev.concat(&x, &dev.embed(&self.class, &[0])?)?;
        if n_tiles > 1 {
            let class = n_tiles * n_patches;
            let rows = (0..n_tiles).flat_map(|tile| (tile * n_patches..(tile + 1) * n_patches).chain([class]));
            x = dev.rows(&x, &rows.collect::<Vec<_>>())?;
        }
        let ids: Vec<u32> = (0..n_tiles).flat_map(|_| 0..n_rows as u32).collect();
        x = dev.add(&x, &dev.embed(&self.positions, &ids)?)?;
        x = self.norm_before.forward(dev, &x)?;
        probe.see(dev, Site::VisionPreNorm, &x);
        let n_pages = n_rows.div_ceil(PAGE_LEN);
        let pages: Vec<u32> = (0..(n_tiles * n_pages) as u32).collect();
        let mut stored = dev.pages(pages.len(), self.n_heads, self.head_len, KvFormat::F32)?;
        let of_tile = |pages| RowKeys { pages, first_position: 0, begin: 0, end: n_rows };
        let seen = Seen {
            rotation: &self.rotation.repeated(n_tiles),
            keys: &pages.chunks(n_pages).flat_map(|pages| vec![of_tile(pages); n_rows]).collect::<Vec<_>>(),
            slots: &(0..n_tiles)
                .flat_map(|tile| (0..n_rows).map(move |row| tile * n_pages * PAGE_LEN + row))
                .collect::<Vec<_>>(),
        };
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(dev, x, &mut stored, &seen)?;
            probe.see(dev, Site::VisionLayer(i), &x);
        }
        x = self.norm_after.forward(dev, &x)?;
        probe.see(dev, Site::VisionPostNorm, &x);
        // Dropping the class row and joining neighbours is one gather and a reshape.
        let width = dev.shape(&x)[1];
        let neighbours = self.neighbours();
        let rows = (0..n_tiles).flat_map(|tile| neighbours.iter().map(move |row| tile * n_rows + row));
        x = dev.reshape(dev.rows(&x, &rows.collect::<Vec<_>>())?, width * self.joined * self.joined)?;
        for matrix in &self.adapter {
            x = dev.gelu(&dev.linear(matrix, None, &x)?);
        }
        probe.see(dev, Site::VisionAdapter, &x);
        x = dev.linear(&self.projector, None, &x)?;
        probe.see(dev, Site::VisionProjected, &x);
        Ok(x)
    }

    /// The patches of one tile, row-major, each in the order (channel, y, x).
    fn patches(&self, pixels: &[f32]) -> Vec<f32> {
        let (tile, patch) = (self.tile, self.patch);
        let mut values = Vec::with_capacity(pixels.len());
        for index in 0..self.grid * self.grid {
            let (row, column) = (index / self.grid * patch, index % self.grid * patch);
            for channel in 0..3 {
                for y in row..row + patch {
                    let begin = (channel * tile + y) * tile + column;
                    values.extend_from_slice(&pixels[begin..begin + patch]);
                }
            }
        }
        values
    }

    /// Patches in the order in which output tokens join them: by token, then by row and column within it.
    fn neighbours(&self) -> Vec<usize> {
        let side = self.grid / self.joined;
        let mut order = Vec::with_capacity(self.grid * self.grid);
        for token in 0..side * side {
            for inner in 0..self.joined * self.joined {
                let y = token / side * self.joined + inner / self.joined;
                let x = token % side * self.joined + inner % self.joined;
                order.push(y * self.grid + x);
            }
        }
        order
    }
}

impl<D: Device> Norm<D> {
    pub(crate) fn load(loader: &Loader<'_, D>, name: &str, width: usize) -> Result<Self, LlamaError> {
        Ok(Self {
            gain: loader.vector(&format!("{name}.weight"), width)?,
            bias: loader.vector(&format!("{name}.bias"), width)?,
        })
    }

    pub(crate) fn forward(&self, dev: &D, x: &D::Tensor) -> Result<D::Tensor, OpError> {
        dev.layer_norm(x, &self.gain, &self.bias, EPS)
    }
}

impl<D: Device> Layer<D> {
    fn load(
        loader: &mut Loader<'_, D>,
        config: &VisionConfig,
        prefix: &str,
        [ln1, q, k, v, o, ln2, fc1, fc2]: &[&str; 8],
    ) -> Result<Self, LlamaError> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let weight = |part: &str| format!("{prefix}.{part}.weight");
        let bias = |part: &str| format!("{prefix}.{part}.bias");
        let qkv = [q, k, v];
        let sources = qkv.map(|part| loader.source(&weight(part), Orientation::OutIn, [1, width, width]));
        let biases = qkv.map(|part| loader.part(&bias(part), width)).into_iter().collect::<Result<Vec<_>, _>>()?;
        // Some converters name the second norm after a later model's.
        let renamed = format!("{prefix}.attn_post_norm");
        let second = if loader.has(&format!("{renamed}.weight")) { renamed } else { format!("{prefix}.{ln2}") };
        Ok(Self {
            norm1: Norm::load(loader, &format!("{prefix}.{ln1}"), width)?,
            qkv: loader.matrix(&sources.into_iter().collect::<Result<Vec<_>, _>>()?)?,
            qkv_bias: loader.dev.vector(&biases)?,
            o: loader.linear(&weight(o), width, width)?,
            o_bias: loader.vector(&bias(o), width)?,
            norm2: Norm::load(loader, &second, width)?,
            fc1: loader.linear(&weight(fc1), inner, width)?,
            fc1_bias: loader.vector(&bias(fc1), inner)?,
            fc2: loader.linear(&weight(fc2), width, inner)?,
            fc2_bias: loader.vector(&bias(fc2), width)?,
        })
    }

    fn forward(&self, dev: &D, x: D::Tensor, stored: &mut D::Pages, seen: &Seen<'_>) -> Result<D::Tensor, OpError> {
        let Seen { rotation, keys, slots } = *seen;
        let width = dev.shape(&x)[1];
        let qkv = dev.linear(&self.qkv, Some(&self.qkv_bias), &self.norm1.forward(dev, &x)?)?;
        let q = dev.rope(&dev.columns(&qkv, 0..width)?, rotation)?;
        let k = dev.rope(&dev.columns(&qkv, width..2 * width)?, rotation)?;
        let v = dev.columns(&qkv, 2 * width..3 * width)?;
        dev.store(stored, &k, &v, slots)?;
        let mixed = dev.attention(&q, stored, keys)?;
        let x = dev.linear_onto(x, &self.o, Some(&self.o_bias), &mixed)?;
        let inner = dev.gelu(&dev.linear(&self.fc1, Some(&self.fc1_bias), &self.norm2.forward(dev, &x)?)?);
        dev.linear_onto(x, &self.fc2, Some(&self.fc2_bias), &inner)
    }
}
