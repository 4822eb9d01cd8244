//! Pools: maximum, average and p-norm under a window or over whole planes.

use super::Family;
use super::widen::widened;
use super::window::Window;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::elem::Number;
use crate::kernels::pool_dense::{self, MaxIndex, PoolSpec};
use crate::kernels::real::Real;
use crate::tensor::DType;
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "pool", ops: OPS, cpu, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "MaxPool", versions: &[1, 8, 10, 11, 12, 22], parse: parse_pool },
    OpDef { domain: "", name: "AveragePool", versions: &[1, 7, 10, 11, 19, 22], parse: parse_pool },
    OpDef { domain: "", name: "LpPool", versions: &[1, 2, 11, 18, 22], parse: parse_pool },
    OpDef { domain: "", name: "GlobalMaxPool", versions: &[1, 22], parse: parse_global },
    OpDef { domain: "", name: "GlobalAveragePool", versions: &[1, 22], parse: parse_global },
    OpDef { domain: "", name: "GlobalLpPool", versions: &[1, 2, 22], parse: parse_global },
];

/// What is made of the elements under a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PoolKind {
    /// The greatest.
    Max,
    /// The mean.
    Average,
    /// The p-norm.
    Lp(u32),
}

/// A pool under a sliding window.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// What is computed.
    pub kind: PoolKind,
    /// The window, with its kernel.
    pub window: Window,
    /// Average: padding counts as zeros.
    pub include_pad: bool,
    /// Max: the indices in output 1 count along columns first.
    pub column_major: bool,
}

/// A pool over all spatial axes, which stay with size 1.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalPool {
    /// What is computed.
    pub kind: PoolKind,
}

/// The attribute p of norms: an integer, a float before version 2.
fn parse_p(cx: &ParseCtx<'_>) -> Result<u32> {
    let p = if cx.version < 2 { f64::from(cx.float_or("p", 2.0)?) } else { cx.int_or("p", 2)? as f64 };
    ensure!(p >= 1.0 && p < 1e6 && p.fract() == 0.0, InvalidModel, "p is {p}");
    Ok(p as u32)
}

fn parse_kind(cx: &ParseCtx<'_>) -> Result<PoolKind> {
    Ok(match cx.op_type.trim_start_matches("Global") {
        "MaxPool" => PoolKind::Max,
        "AveragePool" => PoolKind::Average,
        _ => PoolKind::Lp(parse_p(cx)?),
    })
}

fn parse_pool(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let window = Window::parse(cx)?;
    ensure!(window.kernel.is_some(), InvalidModel, "attribute 'kernel_shape' is missing");
    Ok(Arc::new(Pool {
        kind: parse_kind(cx)?,
        window,
        include_pad: cx.flag("count_include_pad", false)?,
        column_major: cx.flag("storage_order", false)?,
    }))
}

fn parse_global(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(GlobalPool { kind: parse_kind(cx)? }))
}

fn check_input(kind: PoolKind, cx: &InferCtx<'_>) -> Result<DType> {
    let d = cx.dtype(0)?;
    let whole = kind == PoolKind::Max && matches!(d, DType::I8 | DType::U8);
    let float = matches!(d, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
    ensure!(whole || float, InvalidModel, "a pool of {d}");
    if let Some(r) = cx.tensor(0)?.rank() {
        ensure!(r >= 3, InvalidModel, "a pool needs a spatial axis, the rank is {r}");
    }
    Ok(d)
}

impl Op for Pool {
    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "MaxPool",
            PoolKind::Average => "AveragePool",
            PoolKind::Lp(_) => "LpPool",
        }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let d = check_input(self.kind, cx)?;
        let outputs = if self.kind == PoolKind::Max { 2 } else { 1 };
        let types = [d, DType::I64];
        let Some(dims) = &cx.tensor(0)?.dims else {
            return Ok(types[..outputs].iter().map(|&t| Fact::any_tensor(t)).collect());
        };
        let kernel: Vec<Dim> = self.window.kernel.iter().flatten().map(|&k| Dim::Known(k)).collect();
        let mut out = dims[..2].to_vec();
        out.extend(self.window.output_dims(&dims[2..], &kernel)?);
        Ok(types[..outputs].iter().map(|&t| Fact::tensor(t, out.clone())).collect())
    }
}

impl Op for GlobalPool {
    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "GlobalMaxPool",
            PoolKind::Average => "GlobalAveragePool",
            PoolKind::Lp(_) => "GlobalLpPool",
        }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let d = check_input(self.kind, cx)?;
        let Some(dims) = &cx.tensor(0)?.dims else { return Ok(vec![Fact::any_tensor(d)]) };
        let ones = dims[2..].iter().map(|_| Dim::Known(1));
        Ok(vec![Fact::tensor(d, dims[..2].iter().cloned().chain(ones).collect())])
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Pool>(bind_pool);
    b.step::<GlobalPool>(bind_global);
}

fn bind_pool(op: &Pool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_pool)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => pool::<f32>(op, cx),
        DType::F64 => pool::<f64>(op, cx),
        DType::I8 => pool_max::<i8>(op, cx),
        DType::U8 => pool_max::<u8>(op, cx),
        d => bail!(Unsupported, "a pool of {d}"),
    }
}

fn pool_spec(op: &Pool, cx: &CpuCtx<'_>) -> Result<(PoolSpec, usize)> {
    let x = cx.input(0)?;
    let Some(Some(y)) = cx.outputs.iter().find(|o| o.is_some()) else { bail!(InvalidModel, "no output is asked for") };
    let kernel: Vec<usize> = op.window.kernel.iter().flatten().map(|&k| k as usize).collect();
    let g = op.window.geometry(&x.shape[2..], &kernel, &y.shape[2..])?;
    let spec = PoolSpec {
        input: g.input,
        output: g.output,
        kernel: g.kernel,
        stride: g.stride,
        dilation: g.dilation,
        pad: g.pad,
        pad_end: g.pad_end,
    };
    // What the kernel computes with sizes must fit, and taps of padding only must stay few.
    for d in 0..3 {
        let reach = (g.kernel[d] - 1).checked_mul(g.dilation[d]).and_then(|r| {
            r.checked_add(g.output[d].checked_mul(g.stride[d])?)?.checked_add(g.input[d] + g.pad[d] + g.pad_end[d])
        });
        ensure!(reach.is_some_and(|r| r < isize::MAX as usize), InvalidModel, "the window {g:?} is out of range");
    }
    Ok((spec, x.shape[0] * x.shape[1]))
}

/// Planes a task, so that a task has some 16 thousand comparisons or additions.
fn planes_a_task(s: &PoolSpec, planes: usize) -> (usize, usize) {
    let taps: usize = (0..3).map(|d| s.kernel[d].min(s.input[d].max(1))).product();
    split(planes, (16 * 1024 / s.out_size().saturating_mul(taps).max(1)).max(1))
}

fn pool<T: Real>(op: &Pool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let p = match op.kind {
        PoolKind::Max => return pool_max::<T>(op, cx),
        PoolKind::Average => None,
        PoolKind::Lp(p) => Some(p),
    };
    let (spec, planes) = pool_spec(op, cx)?;
    let (tasks, per) = planes_a_task(&spec, planes);
    let include_pad = op.include_pad;
    let (from, to) = (spec.input.iter().product::<usize>(), spec.out_size());
    Ok(FnStep::boxed(op.name_of_kernel(), tasks, 0, move |args, task, _| {
        for i in task * per..planes.min((task + 1) * per) {
            // SAFETY: plane i of both operands (Step::run).
            unsafe {
                let (x, y) = (args.input::<T>(0).add(i * from), args.output::<T>(0).add(i * to));
                match p {
                    None => pool_dense::average_plane(&spec, include_pad, x, y),
                    Some(p) => pool_dense::lp_plane(&spec, p, x, y),
                }
            }
        }
        Ok(())
    }))
}

impl Pool {
    fn name_of_kernel(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "max_pool__scalar",
            PoolKind::Average => "average_pool__scalar",
            PoolKind::Lp(_) => "lp_pool__scalar",
        }
    }
}

fn pool_max<T: Number>(op: &Pool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (spec, planes) = pool_spec(op, cx)?;
    let (tasks, per) = planes_a_task(&spec, planes);
    let (from, to) = (spec.input.iter().product::<usize>(), spec.out_size());
    let [d, h, w] = spec.input;
    let strides = if op.column_major { [1, d, d * h] } else { [h * w, w, 1] };
    let (has_y, has_index) = (cx.has_output(0), cx.has_output(1));
    // The indices alone may be asked for: the values then go into scratch.
    let scratch = if has_y { 0 } else { to.checked_mul(size_of::<T>()).ok_or_else(|| err!(OutOfMemory, "a plane"))? };
    Ok(FnStep::boxed(op.name_of_kernel(), tasks, scratch, move |args, task, scratch| {
        for i in task * per..planes.min((task + 1) * per) {
            // SAFETY: plane i of the operands (Step::run).
            unsafe {
                let y = if has_y { args.output::<T>(0).add(i * to) } else { scratch.cast() };
                let index = has_index.then(|| MaxIndex {
                    to: args.output::<i64>(1).add(i * to),
                    base: (i * from) as i64,
                    strides,
                });
                pool_dense::max_plane(&spec, args.input::<T>(0).add(i * from), y, index);
            }
        }
        Ok(())
    }))
}

fn bind_global(op: &GlobalPool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_global)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => Ok(global::<f32>(op.kind, &cx.input(0)?.shape)),
        DType::F64 => Ok(global::<f64>(op.kind, &cx.input(0)?.shape)),
        DType::I8 => Ok(global_max::<i8>(&cx.input(0)?.shape)),
        DType::U8 => Ok(global_max::<u8>(&cx.input(0)?.shape)),
        d => bail!(Unsupported, "a pool of {d}"),
    }
}

fn global<T: Real>(kind: PoolKind, shape: &[usize]) -> Box<dyn Step> {
    match kind {
        PoolKind::Max => global_max::<T>(shape),
        PoolKind::Average => {
            let n = T::of(shape[2..].iter().product::<usize>() as f64);
            planes::<T>("global_average_pool__scalar", shape, move |x| sum(x, |v| v) / n)
        }
        PoolKind::Lp(p) => planes::<T>("global_lp_pool__scalar", shape, move |x| {
            pool_dense::root(sum(x, |v| pool_dense::power(v.abs(), p)), p)
        }),
    }
}

fn global_max<T: Number>(shape: &[usize]) -> Box<dyn Step> {
    planes::<T>("global_max_pool__scalar", shape, |x| x.iter().fold(T::LOWEST, |a, &b| a.most(b)))
}

/// Sum in 16 lanes, so that it becomes vectors and loses little.
fn sum<T: Real>(x: &[T], f: impl Fn(T) -> T) -> T {
    let mut acc = [T::ZERO; 16];
    let chunks = x.chunks_exact(16);
    let rest: T = chunks.remainder().iter().map(|&v| f(v)).sum();
    for c in chunks {
        for (a, &v) in acc.iter_mut().zip(c) {
            *a += f(v);
        }
    }
    acc.into_iter().sum::<T>() + rest
}

/// One result a plane.
fn planes<T: Number>(
    name: &'static str,
    shape: &[usize],
    f: impl Fn(&[T]) -> T + Send + Sync + 'static,
) -> Box<dyn Step> {
    let (n, size) = (shape[0] * shape[1], shape[2..].iter().product::<usize>());
    let (tasks, per) = split(n, (64 * 1024 / size.max(1)).max(1));
    FnStep::boxed(name, tasks, 0, move |args, task, _| {
        for i in task * per..n.min((task + 1) * per) {
            // SAFETY: plane i of the input and element i of the output exist.
            unsafe {
                let x = std::slice::from_raw_parts(args.input::<T>(0).add(i * size), size);
                *args.output::<T>(0).add(i) = f(x);
            }
        }
        Ok(())
    })
}
