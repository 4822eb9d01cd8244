//! CPU kernels over raw strided memory. Nothing here knows graphs, tensors, or threads: a kernel does one task's work,
//! and whoever calls it splits the work into tasks.

pub mod affine;
pub mod attention;
pub mod boxes;
pub mod col2im;
pub mod conv;
pub mod convert;
pub mod elem;
pub mod experts;
pub mod fft;
pub mod gemm;
pub mod gemm_plain;
pub mod igemm;
pub mod isa;
pub mod movement;
pub mod nd;
pub mod normalise;
pub mod pointwise;
pub mod pool;
pub mod pool_dense;
pub mod quant;
pub mod random;
pub mod real;
pub mod reduce;
pub mod regions;
pub mod reorder;
pub mod resample;
pub mod sample;
pub mod scalar;
pub mod simd;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
pub mod vmath;
