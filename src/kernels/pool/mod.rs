//! Pooling with one to three spatial dimensions, dense and blocked; global pooling is a kernel of the input's size.

mod blocked;
mod dense;
#[cfg(test)]
mod tests;

use crate::base::checked::product;
use crate::ensure;
use crate::error::Result;
use crate::kernels::isa::Isa;

/// What a window becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The largest value; NaN if one is NaN; minus infinity if the window holds none.
    Max,
    /// The mean.
    Average {
        /// Padding counts in the divisor (not what lies beyond it).
        include_pad: bool,
    },
    /// (sum of |x|^p)^(1/p).
    Lp {
        /// The exponent, at least 1.
        p: i32,
    },
}

/// The shape of a pooling; unused leading dimensions have sizes, kernel, stride and dilation 1 and padding 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolSpec {
    /// Batch size.
    pub n: usize,
    /// Channels.
    pub channels: usize,
    /// Input size.
    pub input: [usize; 3],
    /// Output size: any, so the caller decides between rounding up and down.
    pub output: [usize; 3],
    /// Window size.
    pub kernel: [usize; 3],
    /// Strides.
    pub stride: [usize; 3],
    /// Dilations.
    pub dilation: [usize; 3],
    /// Padding before the first input value.
    pub pad: [usize; 3],
    /// Padding after the last one.
    pub pad_end: [usize; 3],
    /// What a window becomes.
    pub kind: Kind,
}

impl PoolSpec {
    /// Pools the whole of each channel.
    pub fn global(n: usize, channels: usize, input: [usize; 3], kind: Kind) -> PoolSpec {
        PoolSpec {
            n,
            channels,
            input,
            output: [1; 3],
            kernel: input,
            stride: [1; 3],
            dilation: [1; 3],
            pad: [0; 3],
            pad_end: [0; 3],
            kind,
        }
    }
    fn in_size(&self) -> usize {
        self.input.iter().product()
    }
    fn out_size(&self) -> usize {
        self.output.iter().product()
    }
    fn check(&self) -> Result<()> {
        ensure!(
            self.stride.iter().chain(&self.dilation).all(|&s| s > 0),
            InvalidModel,
            "strides {:?} and dilations {:?} must not be zero",
            self.stride,
            self.dilation
        );
        for size in [self.input, self.output, self.kernel] {
            let [a, b, c] = size.map(|d| d.max(1));
            product(&[self.n.max(1), self.channels.max(1).next_multiple_of(16), a, b, c, 4])?;
        }
        for d in 0..3 {
            let reach = self.kernel[d].saturating_mul(self.dilation[d]);
            let last = self.output[d].saturating_mul(self.stride[d]);
            let far =
                [reach, last, self.pad[d], self.pad_end[d], self.input[d]].into_iter().fold(0, usize::saturating_add);
            ensure!(far <= isize::MAX as usize, InvalidModel, "a pooling window is out of range: {self:?}");
        }
        Ok(())
    }
    /// Taps along a dimension that an output place sees: those inside the input, and how many lie inside input and padding.
    #[inline(always)]
    fn taps(&self, d: usize, out: usize) -> (usize, usize, usize) {
        let (first, dil, pad) = (out * self.stride[d], self.dilation[d], self.pad[d]);
        let lo = pad.saturating_sub(first).div_ceil(dil).min(self.kernel[d]);
        let hi = (self.input[d] + pad).saturating_sub(first).div_ceil(dil).clamp(lo, self.kernel[d]);
        let padded = (self.input[d] + pad + self.pad_end[d]).saturating_sub(first).div_ceil(dil).min(self.kernel[d]);
        (lo, hi, padded)
    }
    /// What a sum over the window is divided by.
    #[inline(always)]
    fn divisor(&self, windows: [(usize, usize, usize); 3]) -> f32 {
        let include = matches!(self.kind, Kind::Average { include_pad: true });
        windows.iter().map(|&(lo, hi, padded)| if include { padded } else { hi - lo }).product::<usize>() as f32
    }
}

/// Where the largest values were.
#[derive(Clone, Copy, Debug)]
pub struct Indices {
    /// An index into the whole input for each output value, or null. Dense only.
    pub to: *mut i64,
    /// Indices count down columns first within a channel.
    pub column_major: bool,
}

impl Indices {
    /// No indices.
    pub const NONE: Indices = Indices { to: std::ptr::null_mut(), column_major: false };
}

/// A pooling of given shapes.
pub struct Pool {
    isa: Isa,
    spec: PoolSpec,
    blocked: bool,
    /// Channels (or blocks of them) of one image; lines of the output (depth times height).
    planes: usize,
    lines: usize,
    /// Planes and lines of a task; tasks a plane where planes are split.
    task_planes: usize,
    task_lines: usize,
}

impl Pool {
    /// Plans the pooling, or says what is wrong with its sizes. `blocked`: input and output are NCHWc.
    pub fn new(isa: Isa, spec: PoolSpec, blocked: bool) -> Result<Pool> {
        spec.check()?;
        if let Kind::Lp { p } = spec.kind {
            ensure!(p >= 1, InvalidModel, "the exponent of a pooling must be at least 1, not {p}");
        }
        let c = if blocked { isa.f32_lanes() } else { 1 };
        let planes = spec.channels.div_ceil(c);
        let lines = spec.output[0] * spec.output[1];
        // Some 128 Ki values read a task.
        let taps: usize = spec.kernel.iter().product();
        let work = (spec.out_size().saturating_mul(taps).max(spec.in_size())).saturating_mul(c).max(1);
        let all = 128 * 1024usize;
        let (task_planes, task_lines) = if work >= all && lines > 1 {
            (1, (lines * all / work.max(lines)).clamp(1, lines))
        } else {
            ((all / work).clamp(1, planes.max(1) * spec.n.max(1)), lines.max(1))
        };
        Ok(Pool { isa, spec, blocked, planes, lines, task_planes, task_lines })
    }
    /// The kernel's name in the table.
    pub fn name(&self) -> &'static str {
        "f32_pool"
    }
    /// What it was made from.
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }
    /// Independent tasks.
    pub fn tasks(&self) -> usize {
        if self.spec.out_size() == 0 {
            return 0;
        }
        (self.spec.n * self.planes).div_ceil(self.task_planes) * self.lines.div_ceil(self.task_lines)
    }
    /// Runs one task.
    /// # Safety
    /// `x` and `y` are valid for the shape in their layout and do not overlap; the indices' pointer is null or valid for as many values as
    /// the output has, and null if blocked.
    pub unsafe fn run(&self, task: usize, x: *const f32, y: *mut f32, indices: Indices) {
        let split = self.lines.div_ceil(self.task_lines);
        let (first, l0) = (task / split * self.task_planes, task % split * self.task_lines);
        let lines = l0..self.lines.min(l0 + self.task_lines);
        for plane in first..(self.spec.n * self.planes).min(first + self.task_planes) {
            // SAFETY: plane and lines lie in the operands.
            unsafe {
                if self.blocked {
                    blocked::plane(self.isa, &self.spec, plane, lines.clone(), x, y);
                } else {
                    dense::plane(self.isa, &self.spec, plane, lines.clone(), x, y, indices);
                }
            }
        }
    }
}
