//! Convolution. [`ConvSpec`] says what to compute; [`dense`] does any of it on plain NCHW.

pub mod blocked;
pub mod dense;
pub mod depthwise;
mod im2col;
mod plain;
#[cfg(test)]
pub(crate) mod tests;
mod tile;

use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::gemm::Activation;
use crate::{bail, ensure};

/// The shape of a convolution with one to three spatial dimensions; with fewer than three, the leading ones have input, output,
/// kernel, stride and dilation 1 and padding 0.
///
/// Weights are `[c_out, c_in / groups, kernel...]`. Padding at the end is what the output sizes make it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvSpec {
    /// Batch size.
    pub n: usize,
    /// Input channels, all groups together.
    pub c_in: usize,
    /// Output channels, all groups together.
    pub c_out: usize,
    /// Groups.
    pub groups: usize,
    /// Input size.
    pub input: [usize; 3],
    /// Output size.
    pub output: [usize; 3],
    /// Kernel size.
    pub kernel: [usize; 3],
    /// Strides.
    pub stride: [usize; 3],
    /// Dilations.
    pub dilation: [usize; 3],
    /// Zeros before the first input value.
    pub pad: [usize; 3],
    /// A bias of `c_out` values is added.
    pub bias: bool,
    /// A residual of the output's shape and layout is added: after the bias, or last.
    pub residual: bool,
    /// The residual is added after the activation.
    pub residual_last: bool,
    /// The function applied last, or before the residual.
    pub activation: Activation,
}

impl ConvSpec {
    /// A plain 2-D convolution of square kernel, equal padding on all sides.
    pub fn square(n: usize, c: [usize; 2], size: [usize; 2], kernel: usize, stride: usize, pad: usize) -> ConvSpec {
        let out = |i: usize| ((i + 2 * pad).saturating_sub(kernel)) / stride + 1;
        ConvSpec {
            n,
            c_in: c[0],
            c_out: c[1],
            groups: 1,
            input: [1, size[0], size[1]],
            output: [1, out(size[0]), out(size[1])],
            kernel: [1, kernel, kernel],
            stride: [1, stride, stride],
            dilation: [1; 3],
            pad: [0, pad, pad],
            bias: false,
            residual: false,
            residual_last: false,
            activation: Activation::None,
        }
    }
    /// Input values a channel.
    pub fn in_size(&self) -> usize {
        self.input.iter().product()
    }
    /// Output values a channel.
    pub fn out_size(&self) -> usize {
        self.output.iter().product()
    }
    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }
    /// Multiplications and additions of the whole, if it fits.
    pub fn flops(&self) -> usize {
        [self.n, self.c_out, self.out_size(), self.c_in / self.groups.max(1), self.taps()]
            .iter()
            .fold(2usize, |a, b| a.saturating_mul(*b))
    }
    /// Refuses sizes that do not belong together or do not fit into memory.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.groups > 0, InvalidModel, "a convolution needs at least one group");
        if !self.c_in.is_multiple_of(self.groups) || !self.c_out.is_multiple_of(self.groups) {
            bail!(InvalidModel, "{} groups do not divide {} and {} channels", self.groups, self.c_in, self.c_out);
        }
        ensure!(
            self.stride.iter().chain(&self.dilation).all(|&s| s > 0),
            InvalidModel,
            "strides {:?} and dilations {:?} must not be zero",
            self.stride,
            self.dilation
        );
        let [a, b, c] = self.input;
        product(&[self.n.max(1), self.c_in.max(1), a.max(1), b.max(1), c.max(1), 4])?;
        let [a, b, c] = self.output;
        product(&[self.n.max(1), self.c_out.max(1), a.max(1), b.max(1), c.max(1), 4])?;
        let [a, b, c] = self.kernel;
        product(&[self.c_out.max(1), (self.c_in / self.groups).max(1), a.max(1), b.max(1), c.max(1), 4])?;
        for d in 0..3 {
            let reach = self.kernel[d].saturating_sub(1).checked_mul(self.dilation[d]);
            let last = self.output[d].saturating_sub(1).checked_mul(self.stride[d]);
            let (Some(reach), Some(last)) = (reach, last) else {
                bail!(InvalidModel, "kernel {:?} or stride {:?} is out of range", self.kernel, self.stride);
            };
            let sum = reach.checked_add(last).and_then(|s| s.checked_add(self.pad[d]));
            if sum.is_none_or(|s| s > isize::MAX as usize) {
                bail!(
                    InvalidModel,
                    "kernel {:?}, stride {:?}, pads {:?} are out of range",
                    self.kernel,
                    self.stride,
                    self.pad
                );
            }
        }
        Ok(())
    }
}

/// So many tasks, or a few more, that two or four threads have as many each.
fn even(tasks: usize) -> usize {
    if tasks <= 2 { tasks } else { tasks.next_multiple_of(4) }
}

/// The taps of a dimension through which an output place sees the input.
fn inside(out: usize, stride: usize, dilation: usize, pad: usize, size: usize, taps: usize) -> (usize, usize) {
    let first = out * stride;
    let lo = pad.saturating_sub(first).div_ceil(dilation).min(taps);
    let hi = (size + pad).saturating_sub(first).div_ceil(dilation).clamp(lo, taps);
    (lo, hi)
}

/// The operands of a run.
#[derive(Clone, Copy, Debug)]
pub struct ConvPtrs {
    /// Input.
    pub x: *const f32,
    /// Weights; packed where the kernel has `packed_bytes`.
    pub w: *const f32,
    /// Output.
    pub y: *mut f32,
    /// Bias (padded with zeros to whole blocks where the kernel is blocked), or null where the spec has none.
    pub bias: *const f32,
    /// Residual, or null where the spec has none; may be `y` itself, unless it is added last.
    pub residual: *const f32,
}
