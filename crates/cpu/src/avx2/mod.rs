//! Kernels for x86-64 with AVX2, FMA and F16C.

mod quantised;

use tensor::Pairing;

use crate::column::Column;
use crate::kernels::{Dense, HeadGroup, Kernels, Lanes, Quantised, shared_kernels};

/// Kernels in AVX2, FMA and F16C. A value exists only where [`detect`](Self::detect) found these.
pub(crate) struct Avx2(());

impl Avx2 {
    /// The kernels, if the machine can run them.
    pub(crate) fn detect() -> Option<Self> {
        let found =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

impl Kernels for Avx2 {
    shared_kernels! { #[target_feature(enable = "avx2,fma,f16c")] }

    fn dot_quantised(&self, layout: Quantised, weights: &[u8], x: &[Column], acc: &mut [Lanes]) {
        layout.check(weights, x, acc);
        // SAFETY: `self` exists, so the instructions do; lengths were checked in the line above.
        unsafe { quantised::dot(layout, weights, x, acc) }
    }
}
