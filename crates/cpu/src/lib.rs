//! The fast CPU device: packed weights, kernels chosen by instruction set at run time, and a thread pool, behind
//! [`tensor::Device`].
//!
//! Every result equals [`tensor::Reference`]'s to the bit, whatever the instruction set, the number of threads and the
//! other rows of a step. Three rules make that so: a vector lane is an output row, so no sum is ever folded across
//! lanes; threads split outputs, never the input K; and all other arithmetic is [`tensor::math`], compiled once for
//! each instruction set.
//!
//! Letters: T rows in this step, K inputs of a linear map, C components of one head.

#![deny(unsafe_op_in_unsafe_fn)]

mod adjoint;
mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
mod arena;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod chains;
mod cores;
mod dense;
mod device;
mod experts;
mod isa;
mod kernels;
mod linear;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod numbers;
mod outline;
mod pack;
mod packing;
mod pages;
mod pairs;
mod panel;
mod pool;
mod product;
mod quantised;
mod roofs;
mod routing;
mod scalar;
mod shared;
mod simd;
mod values;

pub use device::{Cpu, CpuOptions, Precision};
pub use experts::ExpertStats;
pub use isa::Isa;
pub use matrix::Matrix;
pub use outline::{
    Map, Op, Outline, OutlinedMatrix, OutlinedPages, OutlinedRouting, OutlinedTable, OutlinedTensor, Weights,
};
pub use pages::Pages;
pub use product::{Product, Strided, Write};
pub use roofs::Roofs;
pub use routing::Routing;
pub use values::{Table, Tensor, Vector};
