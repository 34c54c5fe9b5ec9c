//! Instruction sets and how one is chosen.

use crate::kernels::Kernels;
use crate::scalar::Scalar;

/// An instruction set that kernels are compiled for, from the plainest to the richest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every machine of the target has.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, VL, DQ) and VNNI.
    Avx512,
}

impl Isa {
    /// Every set, from the plainest on.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// The richest set that this machine has.
    pub fn detect() -> Self {
        choose(None).0
    }
}

/// The kernels of the richest set that this machine has and that is not above `limit`.
///
/// This is the only way to kernels, so none can run where its instructions are missing.
pub(crate) fn choose(limit: Option<Isa>) -> (Isa, Box<dyn Kernels>) {
    let allowed = |isa| limit.is_none_or(|limit| isa <= limit);
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(set) = crate::avx512::Avx512::detect().filter(|_| allowed(Isa::Avx512)) {
            return (Isa::Avx512, Box::new(set));
        }
        if let Some(set) = crate::avx2::Avx2::detect().filter(|_| allowed(Isa::Avx2)) {
            return (Isa::Avx2, Box::new(set));
        }
    }
    let _ = allowed;
    (Isa::Scalar, Box::new(Scalar))
}
