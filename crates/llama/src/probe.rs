//! Looking at intermediate tensors, for `puna trace` and tests.

use std::fmt;

use tensor::Device;

/// Where in the model a tensor was seen. Displays as the name that traces and goldens use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Site {
    /// Token embeddings with image features written in, `[T, D]`.
    Embeds,
    /// Self-attention's output of a layer, `[T, D]`.
    Attention(usize),
    /// Router logits of a layer, `[T, E]`.
    Router(usize),
    /// Feed-forward output of a layer, `[T, D]`.
    FeedForward(usize),
    /// Residual stream after a layer, `[T, D]`.
    Layer(usize),
    /// After the last norm, `[T, D]`, rows that want logits only.
    FinalNorm,
    /// `[T, V]`, rows that want logits only.
    Logits,
    /// Patch embedding of one tile, `[patches, width]`.
    VisionPatch,
    /// After the first layer norm, class token last, `[patches + 1, width]`.
    VisionPreNorm,
    /// After a vision layer, `[patches + 1, width]`.
    VisionLayer(usize),
    /// After the last layer norm, `[patches + 1, width]`.
    VisionPostNorm,
    /// The adapter's output, `[tokens a tile, width]`.
    VisionAdapter,
    /// Projected to the decoder's width, `[tokens a tile, D]`.
    VisionProjected,
    /// The first convolution's outputs, `[2F, width]`.
    AudioConv1,
    /// The second convolution's, `[F, width]`.
    AudioConv2,
    /// With positions, `[F, width]`.
    AudioEmbeds,
    /// After a layer of the audio encoder, `[F, width]`.
    AudioLayer(usize),
    /// After the encoder's last layer norm, `[F, width]`.
    AudioFrames,
    /// Projected to the decoder's width, `[T, D]`.
    AudioRows,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embeds => f.write_str("embeds"),
            Self::Attention(layer) => write!(f, "layer.{layer}.attn"),
            Self::Router(layer) => write!(f, "layer.{layer}.router_logits"),
            Self::FeedForward(layer) => write!(f, "layer.{layer}.ffn"),
            Self::Layer(layer) => write!(f, "layer.{layer}.out"),
            Self::FinalNorm => f.write_str("final_norm"),
            Self::Logits => f.write_str("logits"),
            Self::VisionPatch => f.write_str("vision.patch"),
            Self::VisionPreNorm => f.write_str("vision.pre_ln"),
            Self::VisionLayer(layer) => write!(f, "vision.layer.{layer}"),
            Self::VisionPostNorm => f.write_str("vision.post_ln"),
            Self::VisionAdapter => f.write_str("vision.adapter"),
            Self::VisionProjected => f.write_str("vision.projected"),
            Self::AudioConv1 => f.write_str("audio.conv1"),
            Self::AudioConv2 => f.write_str("audio.conv2"),
            Self::AudioEmbeds => f.write_str("audio.embeds"),
            Self::AudioLayer(layer) => write!(f, "audio.layer.{layer}"),
            Self::AudioFrames => f.write_str("audio.frames"),
            Self::AudioRows => f.write_str("audio.rows"),
        }
    }
}

/// Sees tensors as they are computed. `()` looks away.
pub trait Probe<D: Device> {
    /// Called once for each site a step passes; for vision sites once a tile, for audio
    /// sites once a chunk, or once a block of a stream.
    fn see(&mut self, dev: &D, site: Site, x: &D::Tensor);

    /// Whether anybody looks. What is fused away, the outputs of attention and feed-forward before they are added to
    /// the residual stream, is computed a second time for whoever does.
    fn looks(&self) -> bool {
        true
    }
}

impl<D: Device> Probe<D> for () {
    fn see(&mut self, _: &D, _: Site, _: &D::Tensor) {}

    fn looks(&self) -> bool {
        false
    }
}

impl<D: Device, F: FnMut(&D, Site, &D::Tensor)> Probe<D> for F {
    fn see(&mut self, dev: &D, site: Site, x: &D::Tensor) {
        self(dev, site, x);
    }
}
