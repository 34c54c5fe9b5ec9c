//! Tiles: the matrix registers of x86-64 (AMX), which multiply bfloat16.
//!
//! The compiler has no stable intrinsics for them, so the few instructions are written out. It never uses tiles itself,
//! so none are lost to it.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

use crate::kernels::{Lanes, ROWS, RowGroups};
use crate::pairs;

/// Rows of a tile.
const TILE: usize = 16;
/// Bytes of a tile's row.
const LINE: usize = 64;

/// Leave to use tiles: a value exists only where [`detect`](Self::detect) got it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amx(());

/// How tiles are cut: all eight are 16 rows of 64 bytes.
#[repr(align(64))]
struct Configuration([u8; 64]);

static CONFIGURATION: Configuration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        (bytes[16 + 2 * tile], bytes[48 + tile]) = (LINE as u8, TILE as u8);
        tile += 1;
    }
    Configuration(bytes)
};

impl Amx {
    /// Leave to use tiles, where the processor has them for bfloat16 and the system lets this process use them.
    pub(crate) fn detect() -> Option<Self> {
        const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
        // Leaf 7 stands on every processor that has AVX-512, and only there is this asked.
        let has = __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES;
        (has && granted()).then_some(Self(()))
    }

    /// [`pairs::dot_pairs_in_lanes`], on tiles: 32 rows and two row groups at a time.
    pub(crate) fn dot_pairs(self, weights: RowGroups<'_>, x: &[u32], out: &mut [Lanes]) {
        let (n_pairs, width) = pairs::shape(weights, x, out);
        if n_pairs == 0 || width == 0 {
            out.fill([0.0; ROWS]);
            return;
        }
        let mut spare = [[[0.0; ROWS]; TILE]; 4];
        // SAFETY: `self` says that tiles may be used.
        unsafe { asm!("ldtilecfg [{}]", in(reg) CONFIGURATION.0.as_ptr(), options(nostack, readonly)) }
        for group in (0..weights.len()).step_by(2) {
            // An operand that is not there is another one a second time, whose products nobody reads.
            let other = (group + 1).min(weights.len() - 1);
            for row in (0..width).step_by(2 * TILE) {
                let later = if row + TILE < width { row + TILE } else { row };
                let operands = [row, later].map(|row| x[row * n_pairs..].as_ptr());
                let operands = (operands, [group, other].map(|group| weights.group(group).as_ptr()));
                // Whole tiles go where they belong, others by way of the spare room.
                let place = |i: usize| {
                    let (group, row) = (group + i % 2, row + i / 2 * TILE);
                    let n_rows = width.saturating_sub(row).min(TILE);
                    (group * width + row, if group < weights.len() { n_rows } else { 0 })
                };
                let mut to = [0, 1, 2, 3].map(|i| spare[i].as_mut_ptr());
                for (i, to) in to.iter_mut().enumerate() {
                    if let (begin, TILE) = place(i) {
                        *to = out[begin..begin + TILE].as_mut_ptr();
                    }
                }
                // SAFETY: every operand has `n_pairs`, a multiple of 16, in each of its 16 rows, those behind the last
                // one included, by `shape`; every target has room for a tile.
                unsafe { multiply(operands, n_pairs, to) }
                for (i, spare) in spare.iter().enumerate() {
                    let (begin, n_rows) = place(i);
                    if (1..TILE).contains(&n_rows) {
                        out[begin..begin + n_rows].copy_from_slice(&spare[..n_rows]);
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

/// Asks the system for the use of tiles; it gives it to all threads.
fn granted() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_PRCTL: usize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const XTILEDATA: usize = 18;
        let status: isize;
        // SAFETY: the call reads and writes no memory of ours.
        unsafe {
            asm!("syscall", inlateout("rax") ARCH_PRCTL => status, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
                out("rcx") _, out("r11") _, options(nostack));
        }
        status == 0
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Writes the products of two tiles of rows with two row groups, `[row][group]`, to `to`.
///
/// # Safety
/// Needs tiles, configured. Rows are `n_pairs` long, a multiple of 16 and not 0, and 16 of them can be read from each
/// pointer on; row groups are as long; a tile can be written to each of `to`.
unsafe fn multiply(([a0, a1], [b0, b1]): ([*const u32; 2], [*const u8; 2]), n_pairs: usize, to: [*mut Lanes; 4]) {
    let [c0, c1, c2, c3] = to;
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {row}]",
            "tileloadd tmm6, [{b0} + {line}]",
            "tileloadd tmm7, [{b1} + {line}]",
            "tileloadd tmm5, [{a1} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c0} + {line}], tmm0",
            "tilestored [{c1} + {line}], tmm1",
            "tilestored [{c2} + {line}], tmm2",
            "tilestored [{c3} + {line}], tmm3",
            a0 = inout(reg) a0 => _,
            a1 = inout(reg) a1 => _,
            b0 = inout(reg) b0 => _,
            b1 = inout(reg) b1 => _,
            n = inout(reg) n_pairs / 16 => _,
            row = in(reg) n_pairs * size_of::<u32>(),
            line = in(reg) LINE,
            c0 = in(reg) c0,
            c1 = in(reg) c1,
            c2 = in(reg) c2,
            c3 = in(reg) c3,
            options(nostack),
        );
    }
}
