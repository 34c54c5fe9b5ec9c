//! Instruction sets and how one is chosen.

use crate::kernels::Kernels;
#[cfg(target_arch = "aarch64")]
use crate::neon::Neon;
use crate::scalar::Scalar;

/// An instruction set that kernels of this target are compiled for, from the plainest to the richest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every machine of the target has.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512 (F, BW, VL, DQ) and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same with an instruction for products of bfloat16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// AVX-512 with tiles (AMX) for these.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// AArch64 with NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AArch64 with NEON and FEAT_DotProd.
    #[cfg(target_arch = "aarch64")]
    Dotprod,
}

impl Isa {
    /// Every set, from the plainest on.
    pub const ALL: &[Self] = &[
        Self::Scalar,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512Bf16,
        #[cfg(target_arch = "x86_64")]
        Self::Amx,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        #[cfg(target_arch = "aarch64")]
        Self::Dotprod,
    ];

    /// Its name in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => "avx512bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Self::Dotprod => "dotprod",
        }
    }

    /// The set of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|isa| isa.name() == name)
    }

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
            if let Some(set) = set.with_tiles().filter(|_| allowed(Isa::Amx)) {
                return (Isa::Amx, Box::new(set));
            }
            if let Some(set) = set.with_chains().filter(|_| allowed(Isa::Avx512Bf16)) {
                return (Isa::Avx512Bf16, Box::new(set));
            }
            return (Isa::Avx512, Box::new(set));
        }
        if let Some(set) = crate::avx2::Avx2::detect().filter(|_| allowed(Isa::Avx2)) {
            return (Isa::Avx2, Box::new(set));
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if let Some(set) = Neon::<true>::detect().filter(|_| allowed(Isa::Dotprod)) {
            return (Isa::Dotprod, Box::new(set));
        }
        if let Some(set) = Neon::<false>::detect().filter(|_| allowed(Isa::Neon)) {
            return (Isa::Neon, Box::new(set));
        }
    }
    let _ = allowed;
    (Isa::Scalar, Box::new(Scalar))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_a_name_and_stands_in_its_place() {
        for isa in Isa::ALL {
            assert_eq!(Isa::parse(isa.name()), Some(*isa));
        }
        assert!(Isa::ALL.is_sorted() && Isa::ALL.contains(&Isa::detect()), "{:?}", Isa::ALL);
        assert_eq!(Isa::parse("Scalar"), None);
    }
}
