//! A tensor of a checkpoint on its way to a file: other rows, other order, another format.

use std::ops::Range;

use formats::{DType, Tensor, TensorInfo};
use tensor::{Bytes, Format};

use crate::LlamaError;

/// Which stored number goes where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As stored.
    Same,
    /// Rows of a head from (member, pair) order, as Hugging Face's half-rotation has them, to (pair, member) order.
    /// `half` is half of a head's rows.
    Pairs { half: usize },
    /// Of matrices stored `[n_in, n_stored]` the columns from `first` on become rows.
    Columns { first: usize, n_stored: usize },
}

/// A tensor to be written: what it will be, and where its numbers come from.
#[derive(Debug, Clone)]
pub struct ExportTensor {
    /// Its name in the new file.
    pub name: String,
    /// Its format there.
    pub format: Format,
    /// Its shape there, outermost axis first.
    pub shape: Vec<usize>,
    stored: Format,
    bytes: Bytes,
    order: Order,
    /// Rows as `order` sees them, of all matrices; a vector whose entries move is as many rows of one number.
    n_rows: usize,
    row_len: usize,
    /// Rows of one matrix.
    n_out: usize,
}

impl ExportTensor {
    /// `source` as `shape` under another name. Numbers are read in `order`, which `shape` is the result of.
    ///
    /// # Errors
    /// [`LlamaError::Weight`] if `source` is not stored as numbers that a weight can be, or in another shape.
    pub(super) fn new(
        source: &Tensor,
        name: String,
        shape: Vec<usize>,
        order: Order,
        format: Format,
    ) -> Result<Self, LlamaError> {
        let wrong = |why: String| LlamaError::Weight { name: source.name.clone(), why };
        let DType::Weight(stored) = source.dtype else {
            return Err(wrong(format!("is stored as {}, not as numbers that a weight can be", source.dtype.name())));
        };
        let n_out = shape.iter().rev().nth(1).copied().unwrap_or(1);
        let mut wanted = shape.clone();
        if let (Order::Columns { n_stored, .. }, [.., out, input]) = (order, wanted.as_mut_slice()) {
            (*out, *input) = (*input, n_stored);
        }
        if squeezed(&source.shape) != squeezed(&wanted) {
            return Err(wrong(format!("has the shape {:?}; the config asks for {wanted:?}", source.shape)));
        }
        if order != Order::Same && matches!(stored, Format::Block(_)) {
            return Err(wrong(format!("is stored as {}, whose rows can not be reordered", stored.name())));
        }
        let n_values = source.n_values();
        let row_len = match (order, shape.len()) {
            (Order::Pairs { .. }, 1) => 1,
            _ => shape.last().copied().unwrap_or(1),
        };
        let n_rows = match order {
            Order::Columns { .. } => shape.iter().rev().skip(1).product(),
            _ => n_values / row_len.max(1),
        };
        Ok(Self { name, format, shape, stored, bytes: source.bytes.clone(), order, n_rows, row_len, n_out })
    }

    /// Its description, for the file's layout.
    pub fn info(&self) -> TensorInfo<'_> {
        TensorInfo { name: &self.name, dtype: DType::Weight(self.format), shape: &self.shape }
    }

    /// Rows that [`encode`](Self::encode) counts.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Numbers in one of them.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// How the numbers are stored now.
    pub fn stored(&self) -> Format {
        self.stored
    }

    /// Bytes in the new file.
    pub fn size_bytes(&self) -> usize {
        // The shape is that of stored bytes, in a format of at most 4 bytes a number.
        DType::Weight(self.format).size_bytes(&self.shape).unwrap_or(usize::MAX)
    }

    /// The rows `rows` as they will stand in the new file.
    ///
    /// What is in the new format already keeps its bytes.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn encode(&self, rows: Range<usize>) -> Vec<u8> {
        assert!(rows.start <= rows.end && rows.end <= self.n_rows, "rows {rows:?} of {}", self.n_rows);
        let same = self.stored == self.format;
        let (stored_row, new_row) = (self.row_bytes(self.stored), self.row_bytes(self.format));
        if same && self.order == Order::Same {
            return self.bytes[rows.start * stored_row..rows.end * stored_row].to_vec();
        }
        if let (true, Order::Pairs { half }) = (same, self.order) {
            let at = |row| stored_at(row, half) * stored_row;
            return rows.flat_map(|row| self.bytes[at(row)..at(row) + stored_row].iter().copied()).collect();
        }
        let mut values = vec![0.0; rows.len() * self.row_len];
        match self.order {
            Order::Same => self.decode(rows.start * self.row_len, &mut values),
            Order::Pairs { half } => {
                for (row, values) in rows.clone().zip(values.chunks_exact_mut(self.row_len)) {
                    self.decode(stored_at(row, half) * self.row_len, values);
                }
            }
            Order::Columns { first, n_stored } => self.decode_columns(rows.clone(), first, n_stored, &mut values),
        }
        let mut bytes = vec![0; rows.len() * new_row];
        self.format.encode(&values, &mut bytes);
        bytes
    }

    fn row_bytes(&self, format: Format) -> usize {
        // Rows of one number are of plain formats; the others have been checked against the file.
        format.row_bytes(self.row_len).unwrap_or(0)
    }

    /// Decodes stored numbers from the one at `begin` on.
    fn decode(&self, begin: usize, values: &mut [f32]) {
        let at = |n: usize| n / self.stored.block_len() * self.stored.block_bytes();
        self.stored.decode(&self.bytes[at(begin)..at(begin + values.len())], values);
    }

    /// Reads stored rows across the wanted columns: neighbours in the file are read together.
    fn decode_columns(&self, rows: Range<usize>, first: usize, n_stored: usize, values: &mut [f32]) {
        let n_in = self.row_len;
        let mut row = rows.start;
        let mut segment = Vec::new();
        while row < rows.end {
            let (matrix, out) = (row / self.n_out, row % self.n_out);
            let n = (self.n_out - out).min(rows.end - row);
            segment.resize(n, 0.0);
            let block = &mut values[(row - rows.start) * n_in..][..n * n_in];
            for input in 0..n_in {
                self.decode((matrix * n_in + input) * n_stored + first + out, &mut segment);
                for (row, value) in block.chunks_exact_mut(n_in).zip(&segment) {
                    row[input] = *value;
                }
            }
            row += n;
        }
    }
}

/// Axes of length 1 do not count.
fn squeezed(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|n| *n != 1).collect()
}

/// Where the row that comes to lie at `row` is stored: pair `p`, member `m` of its head is stored at `m · half + p`.
pub(crate) fn stored_at(row: usize, half: usize) -> usize {
    let (head, within) = (row / (2 * half), row % (2 * half));
    head * 2 * half + within % 2 * half + within / 2
}
