//! The numbers that GGUF files give to tensor types.

use tensor::{Format, quant::Kind};

use super::Container;
use crate::DType;

/// Every tensor type that has been written to files, with its number.
const TYPES: [(u32, &str); 32] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (8, "Q8_0"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (30, "BF16"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// What the numbers of packed types have on top, far above any number that GGUF files use.
const PACKED: u32 = 1 << 16;

/// All formats that tensors of a GGUF file can have here.
fn formats() -> impl Iterator<Item = Format> {
    let plain = [Format::F32, Format::F16, Format::BF16];
    plain.into_iter().chain(Kind::ALL.iter().map(|kind| Format::Block(*kind)))
}

/// The type with the number `id`, or why it can not be read.
pub(super) fn dtype(container: Container, id: u32) -> Result<DType, String> {
    if container == Container::Packed && id & PACKED != 0 {
        return match dtype(Container::Gguf, id & !PACKED)? {
            DType::Weight(format) => Ok(DType::Packed(format)),
            other => Err(format!("is stored as packed {}", other.name())),
        };
    }
    let Some((_, name)) = TYPES.iter().find(|(known, _)| *known == id) else {
        return Err(format!("is stored as the unknown type {id}"));
    };
    let format = formats().find(|format| format.name() == *name);
    format.map(DType::Weight).ok_or_else(|| {
        let known: Vec<&str> = formats().map(Format::name).collect();
        format!("is stored as {name}; these are read: {}", known.join(", "))
    })
}

/// The number of `dtype`, if such files can hold it here.
pub(super) fn id(container: Container, dtype: DType) -> Option<u32> {
    let above = match dtype {
        DType::Weight(_) => 0,
        DType::Packed(_) if container == Container::Packed => PACKED,
        _ => return None,
    };
    TYPES.iter().find(|(_, name)| *name == dtype.name()).map(|(id, _)| above | *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_number_and_comes_back_by_it() {
        let mut n_formats = 0;
        for format in formats() {
            for wanted in [DType::Weight(format), DType::Packed(format)] {
                let number = id(Container::Packed, wanted).unwrap();
                assert_eq!(dtype(Container::Packed, number), Ok(wanted), "{}", format.name());
            }
            assert_eq!(id(Container::Gguf, DType::Packed(format)), None);
            let number = id(Container::Gguf, DType::Weight(format)).unwrap();
            assert_eq!(dtype(Container::Gguf, number), Ok(DType::Weight(format)), "{}", format.name());
            assert!(dtype(Container::Gguf, number | PACKED).is_err());
            n_formats += 1;
        }
        assert_eq!(n_formats, 3 + Kind::ALL.len());
        assert!(dtype(Container::Gguf, 19).unwrap_err().contains("IQ1_S"));
        assert!(dtype(Container::Gguf, 4).unwrap_err().contains("unknown type 4"));
    }
}
