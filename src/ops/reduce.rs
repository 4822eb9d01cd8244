//! Reductions over axes, the greatest and least along one, running sums, the k greatest.

#[cfg(feature = "opencl")]
mod opencl;

use super::Family;
use super::case::{Case, CaseInput};
use super::movement::around;
use super::types::need_elem;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{FnStep, NodeView, Step};
use crate::error::Result;
use crate::ir::dim::DimOp;
use crate::ir::op::resolve_axis;
use crate::ir::parse::Attr;
use crate::ir::{Alias, Contents, Dim, Fact, InferCtx, Op, OpDef, ParseCtx, TensorFact};
use crate::kernels::nd::dense_strides;
use crate::kernels::reduce::{ArgReduce, Cumulate as CumKernel, Reduce as ReduceKernel, ReduceKind, TopK as TopKernel};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family {
    name: "reductions",
    ops: OPS,
    cpu,
    #[cfg(feature = "opencl")]
    opencl: opencl::add,
    cases,
};

macro_rules! reduce {
    ($name:literal, $kind:ident, $versions:expr) => {
        OpDef { domain: "", name: $name, versions: &$versions, parse: |cx| parse_reduce(cx, ReduceKind::$kind) }
    };
}

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "ArgMax", versions: &[1, 11, 12, 13], parse: |cx| parse_arg(cx, false) },
    OpDef { domain: "", name: "ArgMin", versions: &[1, 11, 12, 13], parse: |cx| parse_arg(cx, true) },
    OpDef { domain: "", name: "CumProd", versions: &[26], parse: |cx| parse_cumulate(cx, true) },
    OpDef { domain: "", name: "CumSum", versions: &[11, 14], parse: |cx| parse_cumulate(cx, false) },
    reduce!("ReduceL1", L1, [1, 11, 13, 18]),
    reduce!("ReduceL2", L2, [1, 11, 13, 18]),
    reduce!("ReduceLogSum", LogSum, [1, 11, 13, 18, 28]),
    reduce!("ReduceLogSumExp", LogSumExp, [1, 11, 13, 18, 28]),
    reduce!("ReduceMax", Max, [1, 11, 12, 13, 18, 20]),
    reduce!("ReduceMean", Mean, [1, 11, 13, 18]),
    reduce!("ReduceMin", Min, [1, 11, 12, 13, 18, 20]),
    reduce!("ReduceProd", Prod, [1, 11, 13, 18]),
    reduce!("ReduceSum", Sum, [1, 11, 13]),
    reduce!("ReduceSumSquare", SumSquare, [1, 11, 13, 18]),
    OpDef { domain: "", name: "TopK", versions: &[1, 10, 11, 24], parse: parse_topk },
];

/// A reduction over the axes in input 1, or over all (ONNX Reduce*).
#[derive(Clone, Debug, PartialEq)]
pub struct Reduce {
    /// What is computed.
    pub kind: ReduceKind,
    /// Reduced axes stay, with size 1.
    pub keep_dims: bool,
    /// No axes mean none, not all.
    pub noop: bool,
}

fn parse_reduce(cx: &mut ParseCtx<'_>, kind: ReduceKind) -> Result<Arc<dyn Op>> {
    // ReduceSum took its axes as an input five versions before the others.
    if let Some(axes) = cx.ints_opt("axes")?.filter(|_| !cx.has_input(1)) {
        cx.set_constant_input(1, Tensor::from_slice(&[axes.len()], &axes)?);
    }
    cx.expect_inputs(1, 2)?;
    Ok(Arc::new(Reduce { kind, keep_dims: cx.flag("keepdims", true)?, noop: cx.flag("noop_with_empty_axes", false)? }))
}

impl Reduce {
    /// Which of `rank` axes are reduced.
    fn mask(&self, axes: Option<&[i64]>, rank: usize) -> Result<Vec<bool>> {
        let mut mask = vec![false; rank];
        match axes {
            Some(axes) if !axes.is_empty() => {
                for &a in axes {
                    mask[resolve_axis(a, rank)?] = true;
                }
            }
            _ => mask.fill(!self.noop),
        }
        Ok(mask)
    }
    /// Which axes of the input are reduced.
    fn mask_of(&self, node: &NodeView<'_>) -> Result<Vec<bool>> {
        if node.input(0)?.shape.is_empty() {
            // A single number, whatever the axes are: they may be data.
            return Ok(Vec::new());
        }
        let axes = match node.opt_input(1) {
            None => None,
            Some(_) => Some(node.constant(1).ok_or_else(|| err!(Unsupported, "axes that are not known"))?.to_i64s()?),
        };
        self.mask(axes.as_deref(), node.input(0)?.shape.len())
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "ReduceSum",
            ReduceKind::Mean => "ReduceMean",
            ReduceKind::Max => "ReduceMax",
            ReduceKind::Min => "ReduceMin",
            ReduceKind::Prod => "ReduceProd",
            ReduceKind::L1 => "ReduceL1",
            ReduceKind::L2 => "ReduceL2",
            ReduceKind::SumSquare => "ReduceSumSquare",
            ReduceKind::LogSum => "ReduceLogSum",
            ReduceKind::LogSumExp => "ReduceLogSumExp",
        }
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let Some(dims) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let axes = cx.ints(1)?;
        if cx.has(1) && axes.is_none() {
            let unknown = vec![Dim::Unknown; dims.len()];
            return Ok(vec![if self.keep_dims { Fact::tensor(x.dtype, unknown) } else { Fact::any_tensor(x.dtype) }]);
        }
        let mask = self.mask(axes.as_deref(), dims.len())?;
        let kept = dims.iter().zip(&mask).filter_map(|(d, &m)| match (m, self.keep_dims) {
            (false, _) => Some(d.clone()),
            (true, true) => Some(Dim::Known(1)),
            (true, false) => None,
        });
        let mut f = TensorFact::new(x.dtype, kept.collect());
        // How many elements some axes have.
        if let (Contents::Dims(sizes), &[true]) = (&x.contents, &mask[..]) {
            let over = |op| sizes.iter().skip(1).fold(sizes.first().cloned(), |a, b| Some(Dim::binary(op, &a?, b)));
            let total = match self.kind {
                ReduceKind::Prod => over(DimOp::Mul),
                ReduceKind::Sum => over(DimOp::Add),
                ReduceKind::Max => over(DimOp::Max),
                ReduceKind::Min => over(DimOp::Min),
                _ => None,
            };
            f.contents = total.map_or(Contents::Unknown, |d| Contents::Dims(vec![d]));
        }
        Ok(vec![Fact::Tensor(f)])
    }
}

fn bind_reduce(op: &Reduce, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let mask = op.mask_of(cx)?;
    let elem = need_elem(x.dtype, op.name())?;
    let kernel = ReduceKernel::new(cx.isa, op.kind, elem, &x.shape, &dense_strides(&x.shape), &mask)?;
    Ok(FnStep::boxed("reduce", kernel.tasks(), 0, move |args, task, _| {
        // SAFETY: operands of the shapes the kernel was made from.
        unsafe { kernel.run(task, args.input(0), args.output(0)) };
        Ok(())
    }))
}

/// The position of the greatest or least along an axis (ONNX ArgMax, ArgMin).
#[derive(Clone, Debug, PartialEq)]
pub struct Arg {
    /// The least, not the greatest.
    pub least: bool,
    /// Negative counts from the end.
    pub axis: i64,
    /// The axis stays, with size 1.
    pub keep_dims: bool,
    /// The last of equals, not the first.
    pub last: bool,
}

fn parse_arg(cx: &mut ParseCtx<'_>, least: bool) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let (axis, keep_dims) = (cx.int_or("axis", 0)?, cx.flag("keepdims", true)?);
    Ok(Arc::new(Arg { least, axis, keep_dims, last: cx.flag("select_last_index", false)? }))
}

impl Op for Arg {
    fn name(&self) -> &'static str {
        if self.least { "ArgMin" } else { "ArgMax" }
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let Some(mut dims) = cx.tensor(0)?.dims.clone() else { return Ok(vec![Fact::any_tensor(DType::I64)]) };
        let axis = resolve_axis(self.axis, dims.len())?;
        if self.keep_dims {
            dims[axis] = Dim::Known(1);
        } else {
            dims.remove(axis);
        }
        Ok(vec![Fact::tensor(DType::I64, dims)])
    }
}

fn bind_arg(op: &Arg, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let (outer, axis, inner) = around(&x.shape, resolve_axis(op.axis, x.shape.len())?);
    let kernel = ArgReduce::new(cx.isa, need_elem(x.dtype, op.name())?, outer, axis, inner, op.least, op.last)?;
    Ok(FnStep::boxed("arg_reduce", kernel.tasks(), 0, move |args, task, _| {
        // SAFETY: operands of the shapes the kernel was made from.
        unsafe { kernel.run(task, args.input(0), args.output(0)) };
        Ok(())
    }))
}

/// Running sums or products along the axis in input 1 (ONNX CumSum, CumProd).
#[derive(Clone, Debug, PartialEq)]
pub struct Cumulate {
    /// Products, not sums.
    pub product: bool,
    /// The element itself is left out.
    pub exclusive: bool,
    /// From the end.
    pub reverse: bool,
}

fn parse_cumulate(cx: &mut ParseCtx<'_>, product: bool) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(Cumulate { product, exclusive: cx.flag("exclusive", false)?, reverse: cx.flag("reverse", false)? }))
}

impl Op for Cumulate {
    fn name(&self) -> &'static str {
        if self.product { "CumProd" } else { "CumSum" }
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0])
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

fn bind_cumulate(op: &Cumulate, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let elem = need_elem(x.dtype, op.name())?;
    let (rank, shape, op) = (x.shape.len(), x.shape.clone(), op.clone());
    let make = move |axis: i64| {
        let (outer, n, inner) = around(&shape, resolve_axis(axis, rank)?);
        CumKernel::new(elem, outer, n, inner, op.product, op.exclusive, op.reverse)
    };
    if let Some(axis) = cx.constant(1) {
        let axis = axis.to_i64s()?;
        let kernel = make(*axis.first().ok_or_else(|| err!(InvalidModel, "the axis is empty"))?)?;
        return Ok(FnStep::boxed("cumulate", kernel.tasks(), 0, move |args, task, _| {
            // SAFETY: operands of the shapes the kernel was made from; the result may be the operand's memory.
            unsafe { kernel.run(task, args.input(0), args.output(0)) };
            Ok(())
        }));
    }
    // The axis is data: it decides nothing about the result's shape, only about the loop.
    let wide = match cx.input(1)?.dtype {
        DType::I64 => true,
        DType::I32 => false,
        d => bail!(InvalidModel, "an axis of type {d}"),
    };
    Ok(FnStep::boxed("cumulate", 1, 0, move |args, _, _| {
        // SAFETY: the axis is one integer of the type seen when this was bound.
        let axis = unsafe { if wide { *args.input::<i64>(1) } else { i64::from(*args.input::<i32>(1)) } };
        let kernel = make(axis)?;
        for task in 0..kernel.tasks() {
            // SAFETY: as above.
            unsafe { kernel.run(task, args.input(0), args.output(0)) };
        }
        Ok(())
    }))
}

/// The k greatest or least along an axis, and their positions; k is input 1 (ONNX TopK).
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// Negative counts from the end.
    pub axis: i64,
    /// The greatest, not the least.
    pub largest: bool,
    /// In order of value.
    pub sorted: bool,
}

fn parse_topk(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    if cx.version < 10 {
        let k = cx.int("k")?;
        cx.set_constant_input(1, Tensor::from_slice(&[1], &[k])?);
    }
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(TopK {
        axis: cx.int_or("axis", -1)?,
        largest: cx.flag("largest", true)?,
        sorted: cx.flag("sorted", true)?,
    }))
}

impl Op for TopK {
    fn name(&self) -> &'static str {
        "TopK"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let k = cx.list(1)?.int_dims().and_then(|k| k.into_iter().next()).unwrap_or_default();
        let Some(mut dims) = x.dims.clone() else {
            return Ok(vec![Fact::any_tensor(x.dtype), Fact::any_tensor(DType::I64)]);
        };
        let axis = resolve_axis(self.axis, dims.len())?;
        if let (Some(k), Some(n)) = (k.known(), dims[axis].known()) {
            ensure!((0..=n).contains(&k), InvalidModel, "k is {k}, the axis has {n} elements");
        }
        dims[axis] = k;
        Ok(vec![Fact::tensor(x.dtype, dims.clone()), Fact::tensor(DType::I64, dims)])
    }
}

fn bind_topk(op: &TopK, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let axis = resolve_axis(op.axis, x.shape.len())?;
    let out =
        cx.opt_output(0).or_else(|| cx.opt_output(1)).ok_or_else(|| err!(InvalidModel, "TopK without outputs"))?;
    let k = out.shape[axis];
    let (outer, n, inner) = around(&x.shape, axis);
    let elem = need_elem(x.dtype, "TopK")?;
    let kernel = TopKernel::new(elem, outer, n, inner, k, op.largest, op.sorted)?;
    // The kernel writes both results: what nobody asked for goes to the workspace.
    let (values, places) = (cx.has_output(0), cx.has_output(1));
    let count = outer * k * inner;
    let spare = if values { if places { 0 } else { count * 8 } } else { count * elem.size() };
    let step = super::steps::Phases::new("topk", spare).then(
        kernel.tasks(),
        kernel.scratch_bytes(),
        move |args, task, scratch| {
            let v = if values { args.output::<u8>(0) } else { args.workspace() };
            let p = if places { args.output::<i64>(1) } else { args.workspace() };
            // SAFETY: operands of the shapes the kernel was made from; at most one result is in the workspace, which fits it.
            unsafe { kernel.run(task, args.input(0), v, p, scratch) };
            Ok(())
        },
    );
    Ok(step.boxed())
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Reduce>(bind_reduce);
    b.step::<Arg>(bind_arg);
    b.step::<Cumulate>(bind_cumulate);
    b.step::<TopK>(bind_topk);
}

fn cases() -> Vec<Case> {
    let x = |shape: &[usize]| CaseInput::Random(DType::F32, shape.to_vec(), -1.0, 1.0);
    let list = |v: &[i64]| Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant);
    let mut v = Vec::new();
    for op in [
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
    ] {
        v.push(Case::new(op, 18, "last", vec![x(&[3, 5, 37]), list(&[-1])]));
        v.push(Case::new(op, 18, "first", vec![x(&[7, 5, 33]), list(&[0])]));
        v.push(Case::new(op, 18, "outer_and_inner", vec![x(&[4, 5, 6]), list(&[0, 2])]).attr("keepdims", Attr::Int(0)));
        v.push(Case::new(op, 18, "all", vec![x(&[4, 5, 6])]));
        v.push(Case::new(op, 18, "none", vec![x(&[4, 5])]).attr("noop_with_empty_axes", Attr::Int(1)));
    }
    v.push(Case::new("ReduceSum", 13, "empty", vec![x(&[0, 5]), list(&[0])]));
    v.push(Case::new("ArgMax", 13, "axis_1", vec![x(&[3, 9, 4])]).attr("axis", Attr::Int(1)).exact());
    v.push(Case::new("CumSum", 14, "reverse", vec![x(&[3, 9]), list(&[-1])]).attr("reverse", Attr::Int(1)));
    v.push(Case::new("TopK", 11, "three", vec![x(&[3, 9]), list(&[3])]).exact());
    v
}
