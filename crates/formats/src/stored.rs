//! A tensor as a file stores it.

use tensor::{Bytes, Format};

/// A tensor of a file: checked to lie inside of it and to have exactly the bytes that its shape and type ask for.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name in the file.
    pub name: String,
    /// How its numbers are stored.
    pub dtype: DType,
    /// Row-major, outermost axis first, whatever the file's own order. Empty for a single number.
    pub shape: Vec<usize>,
    /// Its numbers, little-endian, row by row.
    pub bytes: Bytes,
}

impl Tensor {
    /// Numbers in the tensor.
    pub fn n_values(&self) -> usize {
        // Can not saturate: the product was checked against the bytes when the file was parsed.
        self.shape.iter().fold(1, |n, axis| n.saturating_mul(*axis))
    }
}

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewTensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// How its numbers are stored.
    pub dtype: DType,
    /// Row-major, outermost axis first.
    pub shape: &'a [usize],
    /// Its numbers, little-endian, row by row.
    pub bytes: &'a [u8],
}

impl<'a> NewTensor<'a> {
    /// The tensor without its numbers.
    pub fn info(&self) -> TensorInfo<'a> {
        TensorInfo { name: self.name, dtype: self.dtype, shape: self.shape }
    }
}

/// A tensor to be written whose numbers come later.
#[derive(Debug, Clone, Copy)]
pub struct TensorInfo<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// How its numbers are stored.
    pub dtype: DType,
    /// Row-major, outermost axis first.
    pub shape: &'a [usize],
}

/// How the numbers of a stored tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, missing_docs)] // the names that files and their users write say what they are
pub enum DType {
    /// A format that a weight can have.
    Weight(Format),
    F64,
    F8_E4M3,
    F8_E5M2,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    F6_E2M3,
    F6_E3M2,
    F4,
    C64,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    BOOL,
}

/// Types that are only inspected: name and bits of one number.
const INSPECTED: [(DType, &str, usize); 19] = [
    (DType::F64, "F64", 64),
    (DType::F8_E4M3, "F8_E4M3", 8),
    (DType::F8_E5M2, "F8_E5M2", 8),
    (DType::F8_E8M0, "F8_E8M0", 8),
    (DType::F8_E4M3FNUZ, "F8_E4M3FNUZ", 8),
    (DType::F8_E5M2FNUZ, "F8_E5M2FNUZ", 8),
    (DType::F6_E2M3, "F6_E2M3", 6),
    (DType::F6_E3M2, "F6_E3M2", 6),
    (DType::F4, "F4", 4),
    (DType::C64, "C64", 64),
    (DType::I64, "I64", 64),
    (DType::I32, "I32", 32),
    (DType::I16, "I16", 16),
    (DType::I8, "I8", 8),
    (DType::U64, "U64", 64),
    (DType::U32, "U32", 32),
    (DType::U16, "U16", 16),
    (DType::U8, "U8", 8),
    (DType::BOOL, "BOOL", 8),
];

impl DType {
    /// The name that files and users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight(format) => format.name(),
            other => INSPECTED.iter().find(|(dtype, ..)| *dtype == other).map_or("?", |(_, name, _)| name),
        }
    }

    /// The unquantised type called `name`.
    pub(crate) fn plain(name: &str) -> Option<Self> {
        let weights = [Format::F32, Format::F16, Format::BF16].map(Self::Weight);
        let weight = weights.into_iter().find(|dtype| dtype.name() == name);
        weight.or_else(|| INSPECTED.iter().find(|(_, known, _)| *known == name).map(|(dtype, ..)| *dtype))
    }

    /// Bytes of a tensor of that shape; `None` where they overflow or are no whole number of bytes or, along the last
    /// axis, of blocks.
    pub fn size_bytes(self, shape: &[usize]) -> Option<usize> {
        let product = |axes: &[usize]| axes.iter().try_fold(1usize, |n, axis| n.checked_mul(*axis));
        match self {
            Self::Weight(format) => {
                let (row_len, rows) = shape.split_last().map_or((1, &[][..]), |(last, rows)| (*last, rows));
                product(rows)?.checked_mul(format.row_bytes(row_len)?)
            }
            other => {
                let bits = INSPECTED.iter().find(|(dtype, ..)| *dtype == other).map(|(.., bits)| *bits)?;
                let bits = product(shape)?.checked_mul(bits)?;
                bits.is_multiple_of(8).then_some(bits / 8)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_own_name() {
        for (dtype, name, _) in INSPECTED {
            assert_eq!((dtype.name(), DType::plain(name)), (name, Some(dtype)));
        }
        assert_eq!(DType::plain("BF16"), Some(DType::Weight(Format::BF16)));
        assert_eq!(DType::plain("Q4_1"), None);
    }

    #[test]
    fn sizes_that_overflow_or_split_a_byte_are_none() {
        let f32 = DType::Weight(Format::F32);
        assert_eq!(f32.size_bytes(&[]), Some(4));
        assert_eq!(f32.size_bytes(&[3, 0, 5]), Some(0));
        assert_eq!(f32.size_bytes(&[usize::MAX / 2, 1]), None);
        assert_eq!(f32.size_bytes(&[usize::MAX, 2, 1]), None);
        assert_eq!(DType::F4.size_bytes(&[3]), None);
        assert_eq!(DType::F4.size_bytes(&[4]), Some(2));
    }
}
