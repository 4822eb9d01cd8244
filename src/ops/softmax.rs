//! Softmax, LogSoftmax, Hardmax.

#[cfg(feature = "opencl")]
mod opencl;

use super::Family;
use super::case::{Case, CaseInput};
use super::types::need_elem;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{FnStep, Step};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::parse::Attr;
use crate::ir::{Alias, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::normalise::Softmax as Kernel;
pub use crate::kernels::normalise::SoftmaxKind;
use crate::tensor::DType;
use std::sync::Arc;

pub(super) const FAMILY: Family = Family {
    name: "softmax",
    ops: OPS,
    cpu,
    #[cfg(feature = "opencl")]
    opencl: opencl::add,
    cases,
};

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Softmax", versions: &[1, 11, 13], parse },
    OpDef { domain: "", name: "LogSoftmax", versions: &[1, 11, 13], parse },
    OpDef { domain: "", name: "Hardmax", versions: &[1, 11, 13], parse },
];

/// Normalises along an axis, or along all axes from it on.
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax {
    /// Which function.
    pub kind: SoftmaxKind,
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// The axes from `axis` on are one (the meaning before version 13).
    pub flatten: bool,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let flatten = cx.version < 13;
    let kind = match cx.op_type {
        "Softmax" => SoftmaxKind::Softmax,
        "LogSoftmax" => SoftmaxKind::Log,
        _ => SoftmaxKind::Hard,
    };
    Ok(Arc::new(Softmax { kind, axis: cx.int_or("axis", if flatten { 1 } else { -1 })?, flatten }))
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        match self.kind {
            SoftmaxKind::Softmax => "Softmax",
            SoftmaxKind::Log => "LogSoftmax",
            SoftmaxKind::Hard => "Hardmax",
        }
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0])
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        // Maximum, difference, exponential, sum, product.
        5 * cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        if let Some(r) = cx.tensor(0)?.rank() {
            self.split_at(r)?;
        }
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

impl Softmax {
    /// The first axis of a row, given the rank. A flattened row may begin after the last axis.
    fn split_at(&self, rank: usize) -> Result<usize> {
        match self.flatten && self.axis == rank as i64 || rank == 0 && matches!(self.axis, 0 | -1) {
            true => Ok(rank),
            false => resolve_axis(self.axis, rank),
        }
    }
}

impl Softmax {
    /// The shape as outer x axis x inner.
    pub(super) fn lines(&self, shape: &[usize]) -> Result<[usize; 3]> {
        let axis = self.split_at(shape.len())?;
        let end = if self.flatten { shape.len() } else { (axis + 1).min(shape.len()) };
        let size = |r: std::ops::Range<usize>| shape[r].iter().product::<usize>();
        Ok([size(0..axis), size(axis..end), size(end..shape.len())])
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Softmax>(bind);
}

fn bind(op: &Softmax, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let [outer, len, inner] = op.lines(&x.shape)?;
    let kernel = Kernel::new(cx.isa, op.kind, need_elem(x.dtype, op.name())?, outer, len, inner)?;
    Ok(FnStep::boxed("softmax", kernel.tasks(), kernel.scratch_bytes(), move |args, task, scratch| {
        // SAFETY: the kernel was made for these operands' shape (Step::run).
        unsafe { kernel.run(task, args.input(0), args.output(0), scratch) };
        Ok(())
    }))
}

fn cases() -> Vec<Case> {
    let of = |d, shape: &[usize]| vec![CaseInput::Random(d, shape.to_vec(), -3.0, 3.0)];
    let along = |op, version, name, shape: &[usize], axis| {
        Case::new(op, version, name, of(DType::F32, shape)).attr("axis", Attr::Int(axis))
    };
    vec![
        along("Softmax", 13, "last", &[3, 2, 37], -1),
        along("Softmax", 13, "channels", &[2, 10, 3, 5], 1),
        along("Softmax", 11, "flattened", &[3, 4, 5], 1),
        along("LogSoftmax", 13, "last", &[4, 19], -1),
        along("Hardmax", 13, "last", &[4, 19], -1),
        // One unit of f16 in the last place, for what rounds to the other side.
        Case { rtol: 1e-3, ..Case::new("Softmax", 13, "f16", of(DType::F16, &[5, 12])) },
    ]
}
