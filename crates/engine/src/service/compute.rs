//! One step through the model. T rows, D model width, V vocabulary.

use llama::{Batch, Cache, LlamaError, Model, Row};
use tensor::Device;

/// Rows whose logits are computed at a time, so that a prompt of which every row's are wanted takes no more memory than
/// that.
pub(super) const LOGIT_ROWS: usize = 64;

/// The model with its keys and values.
pub(super) struct Core<D: Device> {
    pub(super) dev: D,
    pub(super) model: Model<D>,
    pub(super) cache: Cache<D>,
}

/// What is wanted of a row beside its keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Nothing,
    Logits,
    Hidden,
}

/// What a row gave.
pub(super) enum Seen<'a> {
    /// Its numbers are broken: the row holds a NaN or an infinity.
    Broken,
    /// Final hidden state, `[D]`.
    Hidden(&'a [f32]),
    /// `[V]`.
    Logits(&'a [f32]),
}

impl<D: Device> Core<D> {
    /// Computes `rows`, of each of which `wanted` says what to give. `see` gets first the broken rows, then hidden
    /// states, then logits, each in the order of rows.
    pub(super) fn run(
        &mut self,
        (rows, wanted): (&[Row<'_>], &[Wanted]),
        features: &[&D::Tensor],
        see: &mut dyn FnMut(usize, Seen<'_>),
    ) -> Result<(), LlamaError> {
        let decoder = &self.model.decoder;
        let x = decoder.layers(&self.dev, &mut self.cache, &Batch { rows, features }, &mut ())?;
        crate::fault::point("prefill.after_store");
        // A NaN in a row of a prompt would reach the rows after it only where they see it, and not at all through pages
        // of eight bits, so every row is looked at.
        let width = decoder.width().max(1);
        for (row, values) in self.dev.download(&x).chunks_exact(width).enumerate() {
            if values.iter().any(|value| !value.is_finite()) {
                see(row, Seen::Broken);
            }
        }
        let of = |what: Wanted| (0..rows.len()).filter(|row| wanted[*row] == what).collect::<Vec<_>>();
        for part in of(Wanted::Hidden).chunks(LOGIT_ROWS) {
            let hidden = self.dev.download(&decoder.hidden(&self.dev, &x, part)?);
            part.iter().zip(hidden.chunks_exact(width)).for_each(|(row, hidden)| see(*row, Seen::Hidden(hidden)));
        }
        for part in of(Wanted::Logits).chunks(LOGIT_ROWS) {
            let logits = decoder.logits(&self.dev, &decoder.hidden(&self.dev, &x, part)?)?;
            let n_vocab = self.dev.shape(&logits)[1].max(1);
            let logits = self.dev.download(&logits);
            part.iter().zip(logits.chunks_exact(n_vocab)).for_each(|(row, logits)| see(*row, Seen::Logits(logits)));
        }
        Ok(())
    }
}
