//! Convolutions of 8-bit integers: ConvInteger, QLinearConv.

use super::linear::load;
use crate::backend::cpu::CpuCtx;
use crate::backend::{Operand, Packed, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::ensure;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx, elements};
use crate::kernels::igemm::conv::{IntConv, IntConvPtrs, IntConvSpec};
use crate::kernels::igemm::post::{Out, Residual, bounds};
use crate::kernels::igemm::{Post, Zero};
use crate::kernels::isa::Isa;
use crate::ops::conv::{expect_dim, parse_groups, sizes_of};
use crate::ops::window::Window;
use crate::tensor::DType;
use std::sync::Arc;

/// ConvInteger: inputs x, w, and zero points of both; the sums come out. QLinearConv: inputs x, its scale and zero point, w,
/// its scale and zero point, the result's scale and zero point, an integer bias; with a residual also that, its scale and zero
/// point, and scale and zero point of the sum.
#[derive(Clone, Debug, PartialEq)]
pub struct IntConvolution {
    /// How the kernel slides.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
    /// QLinearConv.
    pub quantised: bool,
    /// Whether the input, and whether the result, are `[N, spatial..., C]`.
    pub last: [bool; 2],
    /// The 8-bit result is dequantised, added to the dequantised input 9, and quantised anew.
    pub residual: bool,
    /// What is negative becomes zero before it is quantised; of a sum, the sum.
    pub relu: bool,
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let quantised = cx.op_type == "QLinearConv";
    if quantised {
        cx.expect_inputs(8, 9)?;
    } else {
        cx.expect_inputs(2, 4)?;
    }
    let last = [cx.flag("channels_last", false)?; 2];
    let (window, groups) = (Window::parse(cx)?, parse_groups(cx)?);
    Ok(Arc::new(IntConvolution { window, groups, quantised, last, residual: false, relu: false }))
}

impl IntConvolution {
    /// Indices of w, x's zero point and w's.
    fn at(&self) -> [usize; 3] {
        if self.quantised { [3, 2, 5] } else { [1, 2, 3] }
    }
}

const INT8: [DType; 2] = [DType::U8, DType::I8];

impl Op for IntConvolution {
    fn name(&self) -> &'static str {
        if self.quantised { "QLinearConv" } else { "ConvInteger" }
    }
    fn flops(&self, cx: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        let [w, ..] = self.at();
        2 * elements(outputs) * (cx.elements(w) / cx.size(w, 0).max(1))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let [at_w, x_zero, w_zero] = self.at();
        cx.expect_dtype(0, &INT8)?;
        cx.expect_dtype(at_w, &INT8)?;
        for (a, zero) in [(0, x_zero), (at_w, w_zero)] {
            if cx.has(zero) {
                cx.expect_same_dtype(a, zero)?;
            }
        }
        let mut to = DType::I32;
        if self.quantised {
            cx.expect_dtype(7, &INT8)?;
            to = cx.dtype(7)?;
            for i in [1, 4, 6] {
                cx.expect_dtype(i, &[DType::F32])?;
            }
            if cx.has(8) {
                cx.expect_dtype(8, &[DType::I32])?;
            }
            if self.residual {
                for (i, types) in [(9, &INT8[..]), (10, &[DType::F32]), (12, &[DType::F32]), (13, &INT8)] {
                    cx.expect_dtype(i, types)?;
                }
                to = cx.dtype(13)?;
                if cx.has(11) {
                    cx.expect_same_dtype(9, 11)?;
                }
            }
        }
        let (x, w) = (cx.tensor(0)?, cx.tensor(at_w)?);
        let (Some(dx), Some(dw)) = (&x.dims, &w.dims) else { return Ok(vec![Fact::any_tensor(to)]) };
        let rank = dx.len();
        ensure!(rank >= 3 && dw.len() == rank, InvalidModel, "weights {w} for an input {x}");
        let (channels, spatial) = if self.last[0] { (&dx[rank - 1], &dx[1..rank - 1]) } else { (&dx[1], &dx[2..]) };
        expect_dim("input channels and weights differ", channels, &(dw[1].clone() * Dim::of(self.groups)))?;
        if let Some(m) = dw[0].known() {
            ensure!(m % self.groups as i64 == 0, InvalidModel, "{} groups of {m} channels", self.groups);
        }
        if let (true, Some(Some(b))) = (self.quantised, cx.opt_tensor(8)?.map(|b| b.dims.as_ref())) {
            ensure!(b.len() == 1, InvalidModel, "a bias of rank {}", b.len());
            expect_dim("bias and weights differ", &b[0], &dw[0])?;
        }
        let mut out = vec![dx[0].clone()];
        out.extend(self.window.output_dims(spatial, &dw[2..])?);
        out.insert(if self.last[1] { rank - 1 } else { 1 }, dw[0].clone());
        Ok(vec![Fact::tensor(to, out)])
    }
}

pub(super) fn bind(op: &IntConvolution, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let [at_w, x_zero, w_zero] = op.at();
    let (x, w, y) = (cx.input(0)?, cx.input(at_w)?, cx.output(0)?);
    let first = |o: &Operand, last: bool| {
        let mut o = o.clone();
        if last && o.shape.len() > 2 {
            o.shape[1..].rotate_right(1);
        }
        o
    };
    let conv = sizes_of(&op.window, op.groups, [&first(x, op.last[0]), w, &first(y, op.last[1])])?;
    let out = match y.dtype {
        DType::I32 => Out::I32,
        d => Out::Int8 { signed: d == DType::I8 },
    };
    let spec = IntConvSpec {
        conv,
        x_signed: x.dtype == DType::I8,
        w_unsigned: w.dtype == DType::U8,
        w_constant: w.constant.is_some(),
        w_centred: centred(w, cx.opt_input(w_zero)),
        out,
        last: op.last,
    };
    let kernel = IntConv::new(cx.isa, spec)?;
    let packed = match &w.constant {
        Some(t) if kernel.packed_bytes() > 0 => {
            Some(cx.cache.packed(t, &kernel.packed_format(), kernel.packed_bytes(), |to| {
                // SAFETY: the constant has the shape the spec was made from, the memory the size that was asked for.
                unsafe { kernel.pack(t.data_ptr(), to) };
                Ok(())
            })?)
        }
        _ => None,
    };
    let len = |i: usize| cx.opt_input(i).map(|o| o.len());
    let channels = |n: usize| n == 1 || n == conv.c_out;
    ensure!(len(x_zero).is_none_or(|n| n == 1), Unsupported, "an input with zero points by axis");
    let w_zeros = len(w_zero).unwrap_or(1);
    ensure!(channels(w_zeros), InvalidModel, "{w_zeros} zero points for {} channels", conv.c_out);
    let mut scales = 0;
    if op.quantised {
        scales = len(4).unwrap_or(0);
        ensure!(channels(scales), InvalidModel, "{scales} scales for {} channels", conv.c_out);
        for i in [1, 6, 7] {
            ensure!(len(i) == Some(1), InvalidModel, "input {i} of QLinearConv must be one number");
        }
    }
    if op.residual {
        ensure!(cx.input(9)?.shape == y.shape, InvalidModel, "a residual of another shape than the result");
        for i in 10..14 {
            ensure!(len(i).is_none_or(|n| n == 1), InvalidModel, "input {i} of a sum must be one number");
        }
    }
    let signed = |i: usize| cx.opt_input(i).is_some_and(|o| o.dtype == DType::I8);
    Ok(Box::new(IntConvStep {
        isa: cx.isa,
        at: op.at(),
        zeros: [len(x_zero).is_some(), len(w_zero).is_some()],
        w_each: w_zeros > 1,
        packed,
        scales,
        own: round_up(product(&[scales, 4])?, ALIGN),
        bias: op.quantised && cx.opt_input(8).is_some(),
        relu: op.relu,
        residual: op.residual.then(|| Sum { signed: [7, 9, 13].map(signed), zero: cx.opt_input(11).is_some() }),
        kernel,
        out,
    }))
}

/// Whether all zero points of the weights are known to be in the middle of their type.
fn centred(w: &Operand, zero: Option<&Operand>) -> bool {
    let middle = if w.dtype == DType::U8 { 128 } else { 0 };
    match zero {
        Some(z) => z.constant.as_ref().and_then(|t| t.to_i64s().ok()).is_some_and(|z| z.iter().all(|&z| z == middle)),
        None => middle == 0,
    }
}

/// A residual: whether the convolution's own result, the residual, and the sum are i8; whether the residual has a zero point.
struct Sum {
    signed: [bool; 3],
    zero: bool,
}

struct IntConvStep {
    isa: Isa,
    at: [usize; 3],
    /// Whether the input and the weights have zero points.
    zeros: [bool; 2],
    w_each: bool,
    packed: Option<Arc<Packed>>,
    scales: usize,
    /// Bytes of the scales, in front of the kernel's workspace.
    own: usize,
    bias: bool,
    relu: bool,
    residual: Option<Sum>,
    kernel: IntConv,
    out: Out,
}

impl Step for IntConvStep {
    fn phases(&self) -> usize {
        self.kernel.phases()
    }
    fn tasks(&self, phase: usize) -> usize {
        self.kernel.tasks(phase)
    }
    fn scratch_bytes(&self) -> usize {
        self.kernel.scratch_bytes()
    }
    fn workspace_bytes(&self) -> usize {
        self.own.saturating_add(self.kernel.workspace_bytes())
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let scale = args.workspace::<f32>();
        let zero = |i: usize, each: bool| match self.zeros[i] {
            true => Zero { at: args.input(self.at[i + 1]), each },
            false => Zero::NONE,
        };
        // SAFETY: the executor's contract (Step::run); operands of the types and sizes that `bind` saw.
        unsafe {
            // The first phase always has a first task.
            if phase == 0 && task == 0 && self.scales > 0 {
                let (x, y) = (*args.input::<f32>(1), *args.input::<f32>(6));
                load(self.isa, DType::F32, args.input(4), 0, self.scales, scale);
                (0..self.scales).for_each(|j| *scale.add(j) = x * *scale.add(j) / y);
            }
            let number = |i: usize, signed: bool| match signed {
                true => f32::from(*args.input::<i8>(i)),
                false => f32::from(*args.input::<u8>(i)),
            };
            let mut y_zero = match self.out {
                Out::Int8 { signed } if self.residual.is_none() => number(7, signed),
                _ => 0.0,
            };
            let residual = self.residual.as_ref().map(|r| {
                let [own, other, sum] = r.signed;
                y_zero = number(13, sum);
                Residual {
                    at: args.input(9),
                    signed: other,
                    zero: if r.zero { number(11, other) } else { 0.0 },
                    scale: *args.input::<f32>(10),
                    own_bounds: bounds(own, number(7, own), false),
                    own_scale: *args.input::<f32>(6),
                    sum_scale: *args.input::<f32>(12),
                }
            });
            let post = Post {
                out: self.out,
                int_bias: if self.bias { args.input(8) } else { std::ptr::null() },
                scale,
                scale_each: self.scales > 1,
                bias: std::ptr::null(),
                zero: y_zero,
                relu: self.relu,
                residual,
            };
            let ptrs = IntConvPtrs {
                x: args.input(0),
                w: self.packed.as_ref().map_or(args.input(self.at[0]), |b| b.ptr()),
                y: args.output(0),
                x_zero: zero(0, false),
                w_zero: zero(1, self.w_each),
                post,
            };
            self.kernel.run(phase, task, &ptrs, args.workspace::<u8>().add(self.own), scratch);
        }
        Ok(())
    }
    fn kernel(&self) -> &str {
        self.kernel.name()
    }
}
