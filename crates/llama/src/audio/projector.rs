//! Frame stacking, and the two maps to the decoder's width.

use formats::config::{AudioActivation, AudioConfig};
use tensor::{Device, OpError};

use super::Names;
use crate::LlamaError;
use crate::load::Loader;

/// The projector.
pub(super) struct Projector<D: Device> {
    stack: usize,
    activation: AudioActivation,
    eps: f32,
    ln_pre: Option<D::Vector>,
    first: Map<D>,
    ln_mid: Option<D::Vector>,
    second: Map<D>,
    ln_post: Option<D::Vector>,
}

struct Map<D: Device> {
    weight: D::Matrix,
    bias: Option<D::Vector>,
}

impl<D: Device> Projector<D> {
    pub(super) fn load(
        loader: &mut Loader<'_, D>,
        audio: &AudioConfig,
        text_width: usize,
        (prefix, names): (&str, &Names),
    ) -> Result<Self, LlamaError> {
        let config = &audio.projector;
        let (stacked, inner) = (config.stack * audio.encoder.hidden_size, config.inner_size());
        let gain = |there: bool, name: &str, width: usize| {
            there.then(|| loader.vector(&format!("{prefix}{name}.weight"), width)).transpose()
        };
        let [pre, mid, post] = names.norms;
        let ln_pre = gain(config.ln_pre, pre, stacked)?;
        let ln_mid = gain(config.ln_mid, mid, inner)?;
        let ln_post = gain(config.ln_post, post, text_width)?;
        let mut map = |name: &str, n_out, n_in| {
            Ok::<_, LlamaError>(Map {
                weight: loader.linear(&format!("{prefix}{name}.weight"), n_out, n_in)?,
                bias: match config.bias {
                    true => Some(loader.vector(&format!("{prefix}{name}.bias"), n_out)?),
                    false => None,
                },
            })
        };
        Ok(Self {
            stack: config.stack,
            activation: config.activation,
            eps: config.norm_eps,
            ln_pre,
            first: map(names.maps[0], config.hidden_size, stacked)?,
            ln_mid,
            second: map(names.maps[1], text_width, inner)?,
            ln_post,
        })
    }

    /// Frames that a row joins.
    pub(super) fn stack(&self) -> usize {
        self.stack
    }

    /// Rows of the frames of chunks, of which each has so many as `lens` says; a chunk's last row's missing frames are zero.
    pub(super) fn forward(&self, dev: &D, frames: D::Tensor, lens: &[usize]) -> Result<D::Tensor, OpError> {
        let [n_frames, width] = dev.shape(&frames);
        let frames = match lens.iter().all(|len| len.is_multiple_of(self.stack)) {
            true => frames,
            false => {
                let mut rows = Vec::with_capacity(n_frames + lens.len() * self.stack);
                let mut first = 0;
                for len in lens {
                    rows.extend(first..first + len);
                    // Behind the last frame stands a zero.
                    rows.resize(rows.len().next_multiple_of(self.stack), n_frames);
                    first += len;
                }
                dev.rows(&dev.concat(&frames, &dev.upload(&vec![0.0; width], width)?)?, &rows)?
            }
        };
        let x = self.normed(dev, dev.reshape(frames, self.stack * width)?, self.ln_pre.as_ref())?;
        let x = self.first.forward(dev, &x)?;
        let x = match self.activation {
            AudioActivation::Gelu => dev.gelu(&x),
            AudioActivation::SwiGlu => swiglu_of_second(dev, &x)?,
        };
        let x = self.normed(dev, x, self.ln_mid.as_ref())?;
        self.normed(dev, self.second.forward(dev, &x)?, self.ln_post.as_ref())
    }

    fn normed(&self, dev: &D, x: D::Tensor, gain: Option<&D::Vector>) -> Result<D::Tensor, OpError> {
        let width = dev.shape(&x)[1];
        match gain {
            Some(gain) => dev.rms_norm(&x, Some(gain), width, self.eps),
            None => Ok(x),
        }
    }
}

impl<D: Device> Map<D> {
    fn forward(&self, dev: &D, x: &D::Tensor) -> Result<D::Tensor, OpError> {
        dev.linear(&self.weight, self.bias.as_ref(), x)
    }
}

/// `silu(second half) · first half`: the op has the gate first, so the halves change places. No op lays two tensors side
/// by side: each gate goes above its value, and the pair becomes one row.
fn swiglu_of_second<D: Device>(dev: &D, x: &D::Tensor) -> Result<D::Tensor, OpError> {
    let [n_rows, width] = dev.shape(x);
    let value = dev.columns(x, 0..width / 2)?;
    let gate = dev.columns(x, width / 2..width)?;
    let pairs: Vec<usize> = (0..n_rows).flat_map(|row| [row, n_rows + row]).collect();
    let turned = dev.rows(&dev.concat(&gate, &value)?, &pairs)?;
    dev.swiglu(&dev.reshape(turned, width)?)
}
