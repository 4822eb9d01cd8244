//! Normalisation by p-norm, by mean and variance over any axes, and by the squares of neighbouring channels.

use super::FLOATS;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Fact, InferCtx, Op, ParseCtx};
use crate::kernels::nd::{Dims, Nest, Strides, Walk, dense_strides};
use crate::kernels::normalise::{LayerNorm, LayerNormKind, LayerNormPointers};
use crate::kernels::pool_dense::{power, root};
use crate::kernels::real::Real;
use crate::kernels::reduce::ReduceKind;
use crate::ops::pointwise::{Binary, BinaryFn};
use crate::ops::reduce::Reduce;
use crate::ops::types::need_elem;
use crate::ops::widen::widened;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

/// Divides by the p-norm along an axis, or by the floor where that is greater; where both are 0, so is the result.
#[derive(Clone, Debug, PartialEq)]
pub struct LpNormalization {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// 1 or 2.
    pub p: u32,
    /// The least that is divided by.
    pub floor: f64,
}

/// `(x - mean) / (deviation + 1e-9)` over some axes.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanVariance {
    /// The axes; negative ones count from the end.
    pub axes: Vec<i64>,
}

/// `x / (bias + alpha / size * sum of squares of size channels around x)^beta`.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct LocalResponse {
    pub size: usize,
    pub alpha: f32,
    pub beta: f32,
    pub bias: f32,
}

pub(super) fn parse_lp(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let p = cx.int_or("p", 2)?;
    ensure!(p == 1 || p == 2, InvalidModel, "p is {p}");
    Ok(Arc::new(LpNormalization { axis: cx.int_or("axis", -1)?, p: p as u32, floor: 0.0 }))
}

pub(super) fn parse_mvn(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let mut axes = cx.ints_opt("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    if cx.version < 9 && cx.flag("across_channels", false)? {
        axes = vec![0, 1, 2, 3];
    }
    if cx.version < 9 && !cx.flag("normalize_variance", true)? {
        let list = cx.constant(Tensor::from_slice(&[axes.len()], &axes)?);
        let mean = Reduce { kind: ReduceKind::Mean, keep_dims: true, noop: false };
        let mean = cx.emit(Arc::new(mean), vec![cx.inputs[0], Some(list)])?;
        cx.inputs.push(Some(mean));
        return Ok(Arc::new(Binary::new(BinaryFn::Sub)));
    }
    Ok(Arc::new(MeanVariance { axes }))
}

pub(super) fn parse_lrn(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let size = cx.int("size")?;
    ensure!((1..=i64::from(u16::MAX)).contains(&size), InvalidModel, "size is {size}");
    Ok(Arc::new(LocalResponse {
        size: size as usize,
        alpha: cx.float_or("alpha", 1e-4)?,
        beta: cx.float_or("beta", 0.75)?,
        bias: cx.float_or("bias", 1.0)?,
    }))
}

fn same(cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
    cx.expect_dtype(0, &FLOATS)?;
    Ok(vec![cx.like(0, cx.dtype(0)?)?])
}

impl Op for LpNormalization {
    fn name(&self) -> &'static str {
        "LpNormalization"
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        3 * cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(r) = cx.tensor(0)?.rank() {
            resolve_axis(self.axis, r)?;
        }
        same(cx)
    }
}

impl Op for MeanVariance {
    fn name(&self) -> &'static str {
        "MeanVarianceNormalization"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(r) = cx.tensor(0)?.rank() {
            self.axes.iter().try_for_each(|&a| resolve_axis(a, r).map(|_| ()))?;
        }
        same(cx)
    }
}

impl Op for LocalResponse {
    fn name(&self) -> &'static str {
        "LRN"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(r) = cx.tensor(0)?.rank() {
            ensure!(r >= 2, InvalidModel, "LRN needs a channel axis, the rank is {r}");
        }
        same(cx)
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<LpNormalization>(bind_lp);
    b.step::<MeanVariance>(bind_mvn);
    b.step::<LocalResponse>(bind_lrn);
}

macro_rules! by_type {
    ($op:ident, $cx:ident, $bind:ident, $step:ident) => {
        match widened($op, $cx, $bind)? {
            Some(s) => Ok(s),
            None => match $cx.input(0)?.dtype {
                DType::F32 => $step::<f32>($op, $cx),
                DType::F64 => $step::<f64>($op, $cx),
                d => bail!(Unsupported, "{} of {d}", $op.name()),
            },
        }
    };
}

fn bind_lp(op: &LpNormalization, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let axis = resolve_axis(op.axis, x.shape.len())?;
    if op.p == 2 && axis + 1 == x.shape.len() {
        let (rows, elem) = (product(&x.shape[..axis])?, need_elem(x.dtype, op.name())?);
        let kernel = LayerNorm::new(cx.isa, LayerNormKind::Length, elem, rows, x.shape[axis], op.floor)?;
        return Ok(FnStep::boxed("l2_norm", kernel.tasks(), kernel.scratch_bytes(), move |args, task, scratch| {
            let p = LayerNormPointers::new(args.input(0), args.output(0));
            // SAFETY: the kernel was made for these operands' shape (Step::run).
            unsafe { kernel.run(task, p, scratch) };
            Ok(())
        }));
    }
    by_type!(op, cx, bind_lp, lp)
}

fn bind_mvn(op: &MeanVariance, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    by_type!(op, cx, bind_mvn, mvn)
}

fn bind_lrn(op: &LocalResponse, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    by_type!(op, cx, bind_lrn, lrn)
}

fn lp<T: Real>(op: &LpNormalization, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let shape = &cx.input(0)?.shape;
    let axis = resolve_axis(op.axis, shape.len())?;
    let (outer, len, inner) = (product(&shape[..axis])?, shape[axis], product(&shape[axis + 1..])?);
    let lines = outer * inner;
    let (tasks, per) = split(lines, (16 * 1024 / len.max(1)).max(1));
    let (p, floor) = (op.p, T::of(op.floor));
    Ok(FnStep::boxed("lp_normalization", tasks, 0, move |args, task, _| {
        for i in task * per..lines.min((task + 1) * per) {
            let at = i / inner * inner * len + i % inner;
            // SAFETY: line i lies in both operands (Step::run).
            unsafe {
                let (x, y) = (args.input::<T>(0).add(at), args.output::<T>(0).add(at));
                let sum: T = (0..len).map(|j| power((*x.add(j * inner)).abs(), p)).sum();
                let norm = root(sum, p);
                let norm = if norm < floor { floor } else { norm };
                for j in 0..len {
                    *y.add(j * inner) = if norm == T::ZERO { T::ZERO } else { *x.add(j * inner) / norm };
                }
            }
        }
        Ok(())
    }))
}

fn mvn<T: Real>(op: &MeanVariance, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let shape = &cx.input(0)?.shape;
    let mut reduced = vec![false; shape.len()];
    for &a in &op.axes {
        reduced[resolve_axis(a, shape.len())?] = true;
    }
    let strides = dense_strides(shape);
    let side = |r: bool| -> (Dims, Strides) {
        (0..shape.len()).filter(|&i| reduced[i] == r).map(|i| (shape[i], strides[i])).unzip()
    };
    let ((kept, kept_strides), (over, along)) = (side(false), side(true));
    let groups = Walk::new(&kept, &kept_strides)?;
    let nest = Nest::new(&over, &[&along])?;
    let count = nest.len();
    let n = if count == 0 { 0 } else { groups.len() };
    let (tasks, per) = split(n, (16 * 1024 / count.max(1)).max(1));
    Ok(FnStep::boxed("mean_variance", tasks, 0, move |args, task, _| {
        let first = task * per;
        groups.pieces(first, per.min(n.saturating_sub(first)), |offset, stride, pieces| {
            for i in 0..pieces as isize {
                let at = offset + i * stride;
                // SAFETY: offsets of the group's elements lie in both operands (Step::run).
                unsafe {
                    let (x, y) = (args.input::<T>(0).offset(at), args.output::<T>(0).offset(at));
                    let step = nest.inner_stride(0);
                    let each = |f: &mut dyn FnMut(isize)| {
                        nest.for_rows(0, nest.rows(), |o| {
                            (0..nest.inner() as isize).for_each(|j| f(o[0] + j * step));
                        });
                    };
                    let (mut sum, mut squares) = (0.0f64, 0.0f64);
                    each(&mut |o| sum += (*x.offset(o)).to_f64());
                    let mean = sum / count as f64;
                    each(&mut |o| squares += ((*x.offset(o)).to_f64() - mean).powi(2));
                    let deviation = (squares / count as f64).sqrt() + 1e-9;
                    each(&mut |o| *y.offset(o) = T::of(((*x.offset(o)).to_f64() - mean) / deviation));
                }
            }
        });
        Ok(())
    }))
}

/// Places worked on together.
const STRIP: usize = 256;

fn lrn<T: Real>(op: &LocalResponse, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let shape = &cx.input(0)?.shape;
    let (n, channels, space) = (shape[0], shape[1], product(&shape[2..])?);
    let strips = space.div_ceil(STRIP);
    let (alpha, beta, bias) =
        (T::of(f64::from(op.alpha) / op.size as f64), f64::from(op.beta), T::of(f64::from(op.bias)));
    let (before, after) = ((op.size - 1) / 2, op.size - 1 - (op.size - 1) / 2);
    Ok(FnStep::boxed("lrn", n * strips, 0, move |args, task, _| {
        let at = task / strips * channels * space + task % strips * STRIP;
        let width = STRIP.min(space - task % strips * STRIP);
        let mut sums = [T::ZERO; STRIP];
        for c in 0..channels {
            sums.fill(T::ZERO);
            // SAFETY: the strip lies in each channel of the image, in both operands (Step::run).
            unsafe {
                let x = args.input::<T>(0).add(at);
                for k in c.saturating_sub(before)..(c + after + 1).min(channels) {
                    for (j, s) in sums[..width].iter_mut().enumerate() {
                        let v = *x.add(k * space + j);
                        *s += v * v;
                    }
                }
                let y = args.output::<T>(0).add(at + c * space);
                for (j, s) in sums[..width].iter().enumerate() {
                    let base = bias + alpha * *s;
                    // x^0.75, which networks use, without a logarithm.
                    let power = if beta == 0.75 { base.sqrt() * base.sqrt().sqrt() } else { base.powr(T::of(beta)) };
                    *y.add(j) = *x.add(c * space + j) / power;
                }
            }
        }
        Ok(())
    }))
}
