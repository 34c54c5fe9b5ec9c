//! Weights as numbers that products read.

use tensor::{Bytes, Format, OpError, Orientation, WeightSource};

use crate::product::Strided;

/// A matrix of a weight, read in place where it is stored in f32.
pub(crate) struct Numbers {
    stored: Option<Bytes>,
    decoded: Vec<f32>,
    orientation: Orientation,
    shape: [usize; 2],
}

impl Numbers {
    /// Matrix `matrix` of `part`.
    pub(crate) fn of(part: &WeightSource, matrix: usize) -> Result<Self, OpError> {
        let [n_matrices, n_out, n_in] = part.shape();
        let outside = || OpError::Index { op: "adjoint", index: matrix, len: n_matrices };
        let range = part.matrix_range(matrix).ok_or_else(outside)?;
        let stored = part.stored("linear_adjoint")?.slice(range).ok_or_else(outside)?;
        let (orientation, shape) = (part.orientation(), [n_out, n_in]);
        if part.format() == Format::F32
            && orientation != Orientation::Packed
            && bytemuck::try_cast_slice::<u8, f32>(&stored).is_ok()
        {
            return Ok(Self { stored: Some(stored), decoded: Vec::new(), orientation, shape });
        }
        let mut decoded = vec![0.0; n_out * n_in];
        for (out, row) in decoded.chunks_exact_mut(n_in.max(1)).enumerate() {
            part.decode_row(matrix, out, row)?;
        }
        Ok(Self { stored: None, decoded, orientation: Orientation::OutIn, shape })
    }

    /// A row for each output.
    pub(crate) fn straight(&self) -> Strided<'_> {
        let stored = self.stored.as_ref().and_then(|bytes| bytemuck::try_cast_slice(bytes).ok());
        let (values, [n_out, n_in]) = (stored.unwrap_or(&self.decoded), self.shape);
        match self.orientation {
            Orientation::InOut => Strided { values, row: 1, column: n_out },
            _ => Strided { values, row: n_in, column: 1 },
        }
    }

    /// A row for each input.
    pub(crate) fn turned(&self) -> Strided<'_> {
        let Strided { values, row, column } = self.straight();
        Strided { values, row: column, column: row }
    }
}
