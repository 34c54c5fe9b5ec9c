//! The vision tower and its adapter.

use crate::json::Section;
use crate::{FormatError, Gguf};

use super::{HEADS_LIMIT, HIDDEN_LIMIT, LAYERS_LIMIT, RopeScaling, check_activation};

/// Longest side of a tile.
const SIDE_LIMIT: usize = 1 << 14;

/// A vision tower with its adapter.
///
/// A tile of `image_size` pixels a side becomes patches of `patch_size`; after the tower, squares of
/// [`joined_patches`](Self::joined_patches) a side become one row, which goes through
/// `intermediate_size → projector_input_dim → projector_output_dim` and the projector to the decoder's width.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Width of the tower.
    pub hidden_size: usize,
    /// Layers.
    pub n_layers: usize,
    /// Heads; `hidden_size / n_heads` is a multiple of 4: half of the pairs turn by column, half by row.
    pub n_heads: usize,
    /// Width of each layer's feed-forward, and of the joined patches: `hidden_size · joined_patches²`.
    pub intermediate_size: usize,
    /// Pixels along one side of a tile.
    pub image_size: usize,
    /// Pixels along one side of a patch.
    pub patch_size: usize,
    /// Colours.
    pub n_channels: usize,
    /// Width between the two maps of the adapter.
    pub projector_input_dim: usize,
    /// Width after the adapter.
    pub projector_output_dim: usize,
    /// Width that the projector takes: the adapter's.
    pub vision_output_dim: usize,
    /// The base θ of the rotation.
    pub rope_theta: f32,
    /// Added to the variance in layer norms. The reference does not read it and has 1e-5.
    pub norm_eps: f32,
    joined: usize,
}

impl VisionConfig {
    /// Patches along one side of the square that becomes one row: 1 / `pixel_shuffle_ratio`.
    pub fn joined_patches(&self) -> usize {
        self.joined
    }

    /// Patches along one side of a tile.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Rows that a tile becomes.
    pub fn tokens_per_tile(&self) -> usize {
        let side = self.grid() / self.joined;
        side * side
    }

    /// Reads the metadata and the adapter's shapes of a projector file (`general.architecture` "clip").
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] if it is another kind of file or another model's projector,
    /// [`FormatError::Corrupt`] or [`FormatError::Missing`] where its numbers are not those of a tower.
    pub fn from_gguf(projector: &Gguf) -> Result<Self, FormatError> {
        parse_gguf(projector)
    }

    /// Checks that the numbers fit each other. `fail` makes the error of the file at hand for a key.
    fn check(self, fail: impl Fn(&str, String) -> FormatError) -> Result<Self, FormatError> {
        let Self { hidden_size, n_heads, image_size, patch_size, joined, .. } = self;
        if !hidden_size.is_multiple_of(n_heads) || !(hidden_size / n_heads).is_multiple_of(4) {
            let why = format!("is {n_heads}; the width {hidden_size} has to be that many multiples of 4");
            return Err(fail("num_attention_heads", why));
        }
        if !image_size.is_multiple_of(patch_size) || !(image_size / patch_size).is_multiple_of(joined) {
            let why = format!("is {image_size}, no whole number of {joined}×{joined} patches of {patch_size}");
            return Err(fail("image_size", why));
        }
        let joined_width = hidden_size.checked_mul(joined * joined);
        if joined_width != Some(self.intermediate_size) {
            let why = format!(
                "is {}; the adapter takes {joined}×{joined} patches of {hidden_size}, which has to be the same",
                self.intermediate_size
            );
            return Err(fail("intermediate_size", why));
        }
        if self.projector_input_dim != self.projector_output_dim {
            let (a, b) = (self.projector_input_dim, self.projector_output_dim);
            return Err(fail("projector_input_dim", format!("is {a}; it has to be the projector_output_dim {b}")));
        }
        if self.vision_output_dim != self.projector_output_dim {
            let (a, b) = (self.vision_output_dim, self.projector_output_dim);
            return Err(fail("vision_output_dim", format!("is {a}; it has to be the projector_output_dim {b}")));
        }
        Ok(self)
    }
}

/// Reads `vision_config`; defaults of `Llama4VisionConfig` in transformers 5.23, which are not the released model's.
pub(super) fn parse(section: &Section<'_>) -> Result<VisionConfig, FormatError> {
    check_activation(section, "gelu")?;
    let ratio_key = "pixel_shuffle_ratio";
    let joined = joined_patches(section.positive(ratio_key, 0.5)?).map_err(|why| section.corrupt(ratio_key, why))?;
    let rope = super::rope::parse(section, 10_000.0)?;
    if rope.scaling != RopeScaling::None {
        return Err(section.unsupported("rope_parameters", "scaling is not supported in the vision tower"));
    }
    let config = VisionConfig {
        hidden_size: section.size("hidden_size", 768, HIDDEN_LIMIT)?,
        n_layers: section.size("num_hidden_layers", 34, LAYERS_LIMIT)?,
        n_heads: section.size("num_attention_heads", 16, HEADS_LIMIT)?,
        intermediate_size: section.size("intermediate_size", 5632, HIDDEN_LIMIT)?,
        image_size: section.size("image_size", 448, SIDE_LIMIT)?,
        patch_size: section.size("patch_size", 14, SIDE_LIMIT)?,
        n_channels: section.size("num_channels", 3, 16)?,
        projector_input_dim: section.size("projector_input_dim", 4096, HIDDEN_LIMIT)?,
        projector_output_dim: section.size("projector_output_dim", 4096, HIDDEN_LIMIT)?,
        vision_output_dim: section.size("vision_output_dim", 7680, HIDDEN_LIMIT)?,
        rope_theta: rope.theta,
        norm_eps: section.positive("norm_eps", 1e-5)?,
        joined,
    };
    config.check(|key, why| section.corrupt(key, why))
}

/// 1 / ratio, if that is a whole number.
fn joined_patches(ratio: f32) -> Result<usize, String> {
    (1..=16u8)
        .find(|n| (ratio * f32::from(*n) - 1.0).abs() < 1e-4)
        .map(usize::from)
        .ok_or_else(|| format!("is {ratio}; it has to be 1 divided by a whole number up to 16"))
}

fn parse_gguf(projector: &Gguf) -> Result<VisionConfig, FormatError> {
    let metadata = &projector.metadata;
    let corrupt = |key: &str, why: String| FormatError::corrupt(metadata.file(), key, why);
    let kind_key = match metadata.get("clip.vision.projector_type") {
        Some(_) => "clip.vision.projector_type",
        None => "clip.projector_type",
    };
    for (key, wanted) in [("general.architecture", "clip"), (kind_key, "llama4")] {
        let got = metadata.get_str(key)?;
        if got != wanted {
            return Err(FormatError::unsupported(metadata.file(), key, format!("is \"{got}\", not \"{wanted}\"")));
        }
    }
    let size = |key: &str, limit: usize| {
        let key = format!("clip.vision.{key}");
        match metadata.find_count(&key)? {
            None => Err(FormatError::missing(metadata.file(), &key)),
            Some(n) if (1..=limit).contains(&n) => Ok(n),
            Some(n) => Err(corrupt(&key, format!("is {n}; it has to be from 1 to {limit}"))),
        }
    };
    // The adapter's widths stand in no key.
    let axes = |name: &str| match projector.tensor(name).map(|tensor| tensor.shape.as_slice()) {
        None => Err(FormatError::missing(metadata.file(), name)),
        Some([n_out, n_in]) => Ok([*n_out, *n_in]),
        Some(other) => Err(corrupt(name, format!("has the shape {other:?}, not two axes"))),
    };
    let joined = metadata.find_count("clip.vision.projector.scale_factor")?.unwrap_or(2);
    if !(1..=16).contains(&joined) {
        return Err(corrupt("clip.vision.projector.scale_factor", format!("is {joined}; it has to be from 1 to 16")));
    }
    let config = VisionConfig {
        hidden_size: size("embedding_length", HIDDEN_LIMIT)?,
        n_layers: size("block_count", LAYERS_LIMIT)?,
        n_heads: size("attention.head_count", HEADS_LIMIT)?,
        intermediate_size: size("feed_forward_length", HIDDEN_LIMIT)?,
        image_size: size("image_size", SIDE_LIMIT)?,
        patch_size: size("patch_size", SIDE_LIMIT)?,
        n_channels: 3, // in no key
        projector_input_dim: axes("mm.model.mlp.1.weight")?[0],
        projector_output_dim: axes("mm.model.mlp.2.weight")?[0],
        vision_output_dim: axes("mm.model.fc.weight")?[1],
        rope_theta: 10_000.0, // in no key; every published tower has it
        norm_eps: metadata.find_f32("clip.vision.attention.layer_norm_epsilon")?.unwrap_or(1e-5),
        joined,
    };
    config.check(|key, why| corrupt(&format!("clip.vision ({key})"), why))
}
