//! Weights stored in the layout that kernels read: packed row groups.
//!
//! [`ROWS`] output rows of one format lie side by side in a row group, as the `cpu` crate packs them; a group begins on
//! a cache line, so there may be padding after it, and the last group of a matrix has room for [`ROWS`] outputs whether
//! they exist or not. This module knows the sizes alone: who writes and reads groups is a device. The layout is the
//! same for every instruction set.

use crate::quant::Kind;
use crate::{Format, OpError};

/// Which layout this is. A change of what a row group holds is another number.
pub const VERSION: u32 = 2;

/// Outputs of a row group.
pub const ROWS: usize = 16;

/// Row groups begin at multiples of this many bytes.
pub const LINE: usize = 64;

/// Bytes that the weights of one row group with `n_in` inputs take; `None` where rows are no whole number of blocks or
/// the product overflows.
pub fn group_bytes(format: Format, n_in: usize) -> Option<usize> {
    let (len, bytes) = match format {
        // Two formats that are not worth a layout of their own take more than in files.
        Format::Block(Kind::Q2_K) => (256, 256),
        Format::Block(Kind::Q3_K) => (256, 192),
        _ => (format.block_len(), format.block_bytes()),
    };
    if !n_in.is_multiple_of(len) {
        return None;
    }
    (n_in / len).checked_mul(bytes)?.checked_mul(ROWS)
}

/// Bytes of one packed matrix of `n_out` outputs by `n_in` inputs, padding included; `None` as in [`group_bytes`].
pub fn matrix_bytes(format: Format, n_out: usize, n_in: usize) -> Option<usize> {
    group_bytes(format, n_in)?.checked_next_multiple_of(LINE)?.checked_mul(n_out.div_ceil(ROWS))
}

/// Bytes of `n_matrices` packed matrices, one after another; `None` as in [`group_bytes`].
pub fn size_bytes(format: Format, [n_matrices, n_out, n_in]: [usize; 3]) -> Option<usize> {
    matrix_bytes(format, n_out, n_in)?.checked_mul(n_matrices)
}

/// Why a device without kernels for packed row groups refuses them.
pub(crate) fn refusal(op: &'static str) -> OpError {
    OpError::shape(op, "the weight is stored as packed row groups, which only the cpu device reads")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_formats_take_their_files_bytes_and_padding_comes_on_top() {
        for kind in Kind::ALL {
            let (format, row) = (Format::Block(*kind), kind.bytes() * ROWS);
            let grown = matches!(kind, Kind::Q2_K | Kind::Q3_K);
            assert_eq!(group_bytes(format, kind.len()).map(|bytes| bytes > row), Some(grown), "{}", kind.name());
            assert_eq!(group_bytes(format, kind.len() + 1), None, "{}", kind.name());
        }
        // 32 inputs of Q4_0: 18 bytes a row, 288 a group, 320 to the next line; 17 outputs take two groups.
        let q4_0 = Format::Block(Kind::Q4_0);
        assert_eq!((group_bytes(q4_0, 32), matrix_bytes(q4_0, 17, 32)), (Some(288), Some(640)));
        assert_eq!(size_bytes(q4_0, [3, 17, 32]), Some(1920));
        assert_eq!(size_bytes(Format::F32, [usize::MAX, 16, 1]), None);
        assert_eq!(size_bytes(Format::F32, [1, usize::MAX, 1]), None);
        assert_eq!(size_bytes(Format::F32, [1, 16, usize::MAX]), None);
    }
}
