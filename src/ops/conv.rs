//! Convolution.

use super::Family;
use super::widen::widened;
use super::window::Window;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{Step, StepArgs};
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::conv::dense::DenseConv;
use crate::kernels::conv::{ConvPtrs, ConvSpec};
use crate::kernels::gemm::Activation;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "conv", ops: OPS, cpu, ..Family::EMPTY };

const OPS: &[OpDef] = &[OpDef { domain: "", name: "Conv", versions: &[1, 11, 22], parse: parse_conv }];

/// `activation(conv(X, W) + B + residual)`: inputs X `[N, C, spatial...]`, W `[M, C / groups, kernel...]`, optionally
/// B `[M]`, and a residual of the output's shape where `residual` says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// How the kernel slides.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
    /// Input 3 is added before the activation.
    pub residual: bool,
    /// Applied last.
    pub activation: Activation,
}

/// The `group` attribute.
pub(super) fn parse_groups(cx: &ParseCtx<'_>) -> Result<usize> {
    let g = cx.int_or("group", 1)?;
    match usize::try_from(g) {
        Ok(g) if g > 0 => Ok(g),
        _ => bail!(InvalidModel, "group is {g}"),
    }
}

fn parse_conv(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    let window = Window::parse(cx)?;
    Ok(Arc::new(Conv { window, groups: parse_groups(cx)?, residual: false, activation: Activation::None }))
}

/// Fails where both are known and differ.
pub(super) fn expect_dim(what: &str, a: &Dim, b: &Dim) -> Result<()> {
    if let (Some(x), Some(y)) = (a.known(), b.known()) {
        ensure!(x == y, InvalidModel, "{what}: {x} against {y}");
    }
    Ok(())
}

impl Op for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        cx.expect_same_dtype(0, 1)?;
        let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
        if let Some(r) = x.rank().or(w.rank()) {
            ensure!(r >= 3, InvalidModel, "a convolution needs a spatial axis, the rank is {r}");
        }
        let Some(dx) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let n = dx.len() - 2;
        let kernel: Vec<Dim> = match (&w.dims, &self.window.kernel) {
            (Some(dw), _) => {
                ensure!(dw.len() == n + 2, InvalidModel, "weights {w} for an input {x}");
                if let Some(k) = &self.window.kernel {
                    ensure!(k.len() == n, InvalidModel, "kernel_shape {k:?} for an input {x}");
                    for (a, b) in k.iter().zip(&dw[2..]) {
                        expect_dim("kernel_shape and weights differ", &Dim::Known(*a), b)?;
                    }
                }
                let c = dw[1].clone() * Dim::of(self.groups);
                expect_dim("input channels and weights differ", &dx[1], &c)?;
                if let Some(m) = dw[0].known() {
                    ensure!(m % self.groups as i64 == 0, InvalidModel, "{} groups of {m} channels", self.groups);
                }
                dw[2..].to_vec()
            }
            (None, Some(k)) => k.iter().map(|&k| Dim::Known(k)).collect(),
            (None, None) => vec![Dim::Unknown; n],
        };
        let channels = w.dims.as_ref().map_or(Dim::Unknown, |d| d[0].clone());
        if let Some(b) = cx.opt_tensor(2)? {
            ensure!(b.dtype == x.dtype, InvalidModel, "the bias is {}, the input {}", b.dtype, x.dtype);
            if let Some(d) = &b.dims {
                ensure!(d.len() == 1, InvalidModel, "a bias of rank {}", d.len());
                expect_dim("bias and weights differ", &d[0], &channels)?;
            }
        }
        let mut out = vec![dx[0].clone(), channels];
        out.extend(self.window.output_dims(&dx[2..], &kernel)?);
        Ok(vec![Fact::tensor(x.dtype, out)])
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Conv>(bind);
}

struct DenseStep(DenseConv);

impl Step for DenseStep {
    fn phases(&self) -> usize {
        self.0.phases()
    }
    fn tasks(&self, phase: usize) -> usize {
        self.0.tasks(phase)
    }
    fn scratch_bytes(&self) -> usize {
        self.0.scratch_bytes()
    }
    fn workspace_bytes(&self) -> usize {
        self.0.workspace_bytes()
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let ptrs = ConvPtrs {
            x: args.input(0),
            w: args.input(1),
            y: args.output(0),
            bias: args.input(2),
            residual: args.input(3),
        };
        // SAFETY: the executor's contract (Step::run); the spec was made from these operands' shapes.
        unsafe { self.0.run(phase, task, &ptrs, args.workspace(), scratch) };
        Ok(())
    }
    fn kernel(&self) -> &str {
        self.0.name()
    }
}

fn bind(op: &Conv, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    let (x, w, y) = (cx.input(0)?, cx.input(1)?, cx.output(0)?);
    if x.dtype != DType::F32 {
        bail!(Unsupported, "a convolution of {}", x.dtype);
    }
    let g = op.window.geometry(&x.shape[2..], &w.shape[2..], &y.shape[2..])?;
    let spec = ConvSpec {
        n: x.shape[0],
        c_in: x.shape[1],
        c_out: y.shape[1],
        groups: op.groups,
        input: g.input,
        output: g.output,
        kernel: g.kernel,
        stride: g.stride,
        dilation: g.dilation,
        pad: g.pad,
        bias: cx.opt_input(2).is_some(),
        residual: op.residual,
        activation: op.activation,
    };
    Ok(Box::new(DenseStep(DenseConv::new(cx.isa, spec)?)))
}
