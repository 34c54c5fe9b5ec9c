//! The numbers that GGUF files give to tensor types.

use tensor::{Format, quant::Kind};

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

/// All formats that tensors of a GGUF file can have here.
fn formats() -> impl Iterator<Item = Format> {
    let plain = [Format::F32, Format::F16, Format::BF16];
    plain.into_iter().chain(Kind::ALL.iter().map(|kind| Format::Block(*kind)))
}

/// The type with the number `id`, or why it can not be read.
pub(super) fn dtype(id: u32) -> Result<DType, String> {
    let Some((_, name)) = TYPES.iter().find(|(known, _)| *known == id) else {
        return Err(format!("is stored as the unknown type {id}"));
    };
    let format = formats().find(|format| format.name() == *name);
    format.map(DType::Weight).ok_or_else(|| {
        let known: Vec<&str> = formats().map(Format::name).collect();
        format!("is stored as {name}; these are read: {}", known.join(", "))
    })
}

/// The number of `dtype`, if GGUF files can hold it here.
pub(super) fn id(dtype: DType) -> Option<u32> {
    let DType::Weight(format) = dtype else { return None };
    TYPES.iter().find(|(_, name)| *name == format.name()).map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_number_and_comes_back_by_it() {
        let mut n_formats = 0;
        for format in formats() {
            let id = id(DType::Weight(format)).unwrap();
            assert_eq!(dtype(id), Ok(DType::Weight(format)), "{}", format.name());
            n_formats += 1;
        }
        assert_eq!(n_formats, 3 + Kind::ALL.len());
        assert!(dtype(19).unwrap_err().contains("IQ1_S"));
        assert!(dtype(4).unwrap_err().contains("unknown type 4"));
    }
}
