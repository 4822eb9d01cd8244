//! The table of kernels: each kind, where its forms for the instruction set levels come from, and the shapes on which they are
//! held against their scalar twin (`tests.rs`) and timed (`benches/kernels.rs`). A kernel that is not here is neither.

mod matrix;
mod moving;
#[cfg(test)]
mod tests;
mod vector;

use crate::base::alloc::Buffer;
use crate::error::Result;
use crate::kernels::isa::{Isa, Level};

/// What a kind of kernel has for each level, lowest first. Levels without a form of their own take the one below.
pub struct Levels<T: 'static>(pub &'static [(Level, &'static T)]);

impl<T> Levels<T> {
    /// The form for the highest level that `isa` proves.
    pub fn at(&self, isa: Isa) -> &'static T {
        let fits = self.0.iter().rev().find(|(level, _)| *level <= isa.level());
        // The first entry is for every processor.
        fits.unwrap_or(&self.0[0]).1
    }
}

/// A kind of kernel.
pub struct Kind {
    /// `<dtype>_<kernel>`; the forms add `_<tile>__<isa>`.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Shapes of real networks, and awkward ones.
    pub samples: fn() -> Vec<Sample>,
}

/// Every kind of kernel.
pub const KERNELS: &[Kind] = &[
    Kind { name: "f32_gemm", about: "matrix product, packed or strided B", samples: matrix::gemm },
    Kind { name: "f32_conv", about: "convolution over channel blocks", samples: matrix::conv },
    Kind { name: "f32_conv_dense", about: "convolution over dense maps, by im2col", samples: matrix::conv_dense },
    Kind { name: "f32_depthwise", about: "convolution of each channel by itself", samples: matrix::depthwise },
    Kind { name: "f32_pool", about: "max, average and Lp pooling", samples: matrix::pool },
    Kind { name: "f32_reorder", about: "dense to channel blocks and back", samples: moving::reorder },
    Kind { name: "pointwise", about: "programs of elementwise operations", samples: vector::pointwise },
    Kind { name: "reduce", about: "sums, means, extremes over axes", samples: vector::reduce },
    Kind { name: "softmax", about: "softmax and its logarithm", samples: vector::softmax },
    Kind { name: "norm", about: "layer, RMS and group normalisation", samples: vector::norm },
    Kind { name: "copy", about: "transposes and other strided copies", samples: moving::copy },
    Kind { name: "gather", about: "rows by index", samples: moving::gather },
];

/// A kernel at one shape.
pub struct Sample {
    /// The shape, in words.
    pub label: String,
    /// Floating-point operations, a multiply-add counting two; 0 where nothing is computed.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Most that a value may differ from the scalar twin's.
    pub bound: f32,
    /// Makes it ready to run at a level.
    pub ready: Box<dyn Fn(Isa) -> Result<Work>>,
}

/// A kernel ready to run on memory of its own.
pub struct Work {
    /// The form that was chosen.
    pub kernel: String,
    /// Independent tasks of all phases.
    pub tasks: usize,
    /// Does them all, on this thread.
    pub run: Box<dyn FnMut() -> Result<()>>,
    /// What it wrote, in logical order.
    pub output: Box<dyn Fn() -> Vec<f32>>,
}

/// The full name of a kernel that is written over vectors of any width.
fn vectors(name: &str, isa: Isa) -> String {
    format!("{name}__{}", isa.level().name())
}

/// `n` values in -1.5 to 1.5, the same everywhere.
fn floats(n: usize) -> Result<Buffer> {
    let b = Buffer::zeroed(n * 4)?;
    for i in 0..n {
        // SAFETY: n floats were allocated.
        unsafe { *b.ptr().cast::<f32>().add(i) = (i * 7 % 1013) as f32 * 0.003 - 1.5 };
    }
    Ok(b)
}

/// The first `n` values of a buffer.
fn read(b: &Buffer, n: usize) -> Vec<f32> {
    assert!(n * 4 <= b.len());
    // SAFETY: the buffer holds them, and its maker wrote all of it.
    unsafe { std::slice::from_raw_parts(b.ptr().cast(), n) }.to_vec()
}
