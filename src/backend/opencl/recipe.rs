//! What an operator's binding says: the kernels that compute a node, in order, and their operands. It says so without a
//! device, so that claiming a node costs no build.

use super::call::Calls;
use super::conv;
use super::device::Device;
use super::gemm::{self, Gemm};
use super::norm::{self, Normalise};
use super::pointwise::{self, Operand};
use super::pool;
use super::reduce;
use super::resample::{self, Taps};
use super::shape::{self, PadMode, Part};
use crate::error::Result;
use crate::kernels::conv::ConvSpec;
use crate::kernels::pointwise::Program;
use crate::kernels::pool::PoolSpec;
use crate::kernels::reduce::ReduceKind;

/// One kernel's work. The operands of a [`Stage`] follow the places that each names.
#[derive(Clone, Debug)]
pub enum Work {
    /// A matrix product: A, B, bias, residual, C.
    Gemm(Gemm),
    /// A convolution: x, w, bias, residual, y.
    Conv(ConvSpec),
    /// A transposed convolution: x, w, bias, y.
    ConvTranspose(ConvSpec),
    /// A pool: x, y.
    Pool(PoolSpec),
    /// A reduction over the axes marked: x, y.
    Reduce(ReduceKind, Vec<usize>, Vec<bool>),
    /// Softmax, or its logarithm, along the middle of three dimensions: x, y.
    Softmax([usize; 3], bool),
    /// A program over a shape: inputs, outputs.
    Pointwise {
        /// What is computed.
        program: Program,
        /// Over what.
        dims: Vec<usize>,
        /// How the inputs lie.
        inputs: Vec<Operand>,
        /// How the outputs lie.
        outputs: Vec<Operand>,
    },
    /// A copy of elements of a size between parts of a shape: from, to.
    Copy(usize, Vec<usize>, Part, Part),
    /// A pad of elements of a size: from, to.
    Pad {
        /// Bytes of an element.
        size: usize,
        /// Shape before.
        input: Vec<usize>,
        /// Shape after.
        output: Vec<usize>,
        /// Elements put in front.
        before: Vec<isize>,
        /// What with.
        mode: PadMode,
    },
    /// Slices by index, elements of a size, of outer x axis x inner: from, to.
    Gather(usize, [usize; 3], Vec<usize>),
    /// The same by indices that come with the run: from, indices, to, faults.
    GatherChecked {
        /// Bytes of an element.
        size: usize,
        /// Outer x axis x inner.
        dims: [usize; 3],
        /// How many indices.
        count: usize,
        /// Bytes of an index, 4 or 8.
        index_size: usize,
    },
    /// Lines brought to mean 0 and variance 1: x, scale, shift, y.
    Normalise(Normalise),
    /// Planes, and numbers a place, resized from rows and columns: x, y.
    Resize([usize; 2], [usize; 2], Taps, Taps),
}

/// An operand of a [`Stage`].
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// An input of the node.
    Input(usize),
    /// A constant input of the node, a matrix of so many rows and columns, with these swapped.
    Turned(usize, usize, usize),
    /// An output of the node.
    Output(usize),
    /// A temporary of the recipe.
    Temporary(usize),
    /// A constant input of a narrower float type, as f32.
    Wide(usize),
    /// Where kernels leave word of indices outside their axis.
    Fault,
}

/// A kernel with its operands.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What to do.
    pub work: Work,
    /// With what.
    pub args: Vec<Arg>,
}

/// A node's kernels.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// In order.
    pub stages: Vec<Stage>,
    /// Bytes of each temporary.
    pub temporaries: Vec<usize>,
}

impl Recipe {
    /// A recipe of one kernel.
    pub fn one(work: Work, args: impl Into<Vec<Arg>>) -> Recipe {
        Recipe::default().then(work, args)
    }
    /// One kernel more.
    pub fn then(mut self, work: Work, args: impl Into<Vec<Arg>>) -> Recipe {
        self.stages.push(Stage { work, args: args.into() });
        self
    }
    /// A temporary of so many bytes.
    pub fn temporary(&mut self, bytes: usize) -> Arg {
        self.temporaries.push(bytes);
        Arg::Temporary(self.temporaries.len() - 1)
    }
}

impl Work {
    /// The name, for profiles.
    pub fn name(&self) -> &'static str {
        match self {
            Work::Gemm(_) => "cl_gemm",
            Work::Conv(_) => "cl_conv",
            Work::ConvTranspose(_) => "cl_conv_transpose",
            Work::Pool(_) => "cl_pool",
            Work::Reduce(..) => "cl_reduce",
            Work::Softmax(..) => "cl_softmax",
            Work::Pointwise { .. } => "cl_pointwise",
            Work::Copy(..) => "cl_copy",
            Work::Pad { .. } => "cl_pad",
            Work::Gather(..) | Work::GatherChecked { .. } => "cl_gather",
            Work::Normalise(n) if n.rms => "cl_rms_norm",
            Work::Normalise(_) => "cl_norm",
            Work::Resize(..) => "cl_resize",
        }
    }

    /// Builds the kernels for a device.
    pub fn calls(&self, device: &Device) -> Result<Calls> {
        let one = match self {
            Work::Conv(c) => return conv::conv(device, c, conv::choose(device, c)),
            Work::ConvTranspose(c) => return resample::conv_transpose(device, c),
            Work::Gemm(g) => gemm::gemm(device, g, gemm::choose(device, g))?,
            Work::Pool(p) => pool::pool(device, p)?,
            Work::Reduce(kind, dims, axes) => reduce::reduce(device, *kind, dims, axes)?,
            Work::Softmax(shape, logarithm) => reduce::softmax(device, *shape, *logarithm)?,
            Work::Pointwise { program, dims, inputs, outputs } => {
                pointwise::pointwise(device, program, dims, inputs, outputs)?
            }
            Work::Copy(size, dims, from, to) => shape::copy(device, *size, dims, from, to)?,
            Work::Pad { size, input, output, before, mode } => shape::pad(device, *size, input, output, before, *mode)?,
            Work::Gather(size, dims, indices) => shape::gather(device, *size, *dims, indices)?,
            Work::GatherChecked { size, dims, count, index_size } => {
                shape::gather_checked(device, *size, *dims, *count, *index_size)?
            }
            Work::Normalise(n) => norm::normalise(device, n)?,
            Work::Resize(outer, input, rows, columns) => resample::resize(device, *outer, *input, rows, columns)?,
        };
        Ok(Calls { calls: one.into_iter().collect(), scratch: 0 })
    }
}
