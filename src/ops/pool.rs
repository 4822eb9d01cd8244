//! Pools: maximum, average and p-norm under a window or over whole planes.

#[cfg(feature = "opencl")]
mod opencl;

use super::Family;
use super::case::{Case, CaseInput};
use super::widen::widened;
use super::window::Window;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Layout, NodeLayouts, NodeView, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Spelling, elements};
use crate::kernels::elem::Number;
use crate::kernels::pool as kernel;
use crate::kernels::pool_dense::{self, MaxIndex, PoolSpec};
use crate::kernels::real::Real;
use crate::tensor::DType;
use crate::{bail, ensure, err};
use smallvec::smallvec;
use std::sync::Arc;

pub(super) const FAMILY: Family = Family {
    name: "pool",
    ops: OPS,
    cpu,
    #[cfg(feature = "opencl")]
    opencl: opencl::add,
    cases,
    ..Family::EMPTY
};

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
    ensure!((1.0..1e6).contains(&p) && p.fract() == 0.0, InvalidModel, "p is {p}");
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
    fn flops(&self, _: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        let window = self.window.kernel.iter().flatten().map(|k| k.unsigned_abs());
        elements(&outputs[..1]) * window.product::<u64>()
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        let wide = !self.window.dilations.is_empty();
        let (first, spaced) = match self.kind {
            PoolKind::Max => (8, 10),
            PoolKind::Average => (7, 19),
            PoolKind::Lp(_) => return None,
        };
        let rounded = if self.window.ceil { 10 } else { 1 };
        let s = Spelling::since(rounded.max(if wide { spaced } else { first }), version, self.name())?;
        let s = self.window.spell(s);
        Some(match self.kind {
            PoolKind::Max => s.int("storage_order", i64::from(self.column_major)),
            _ => s.int("count_include_pad", i64::from(self.include_pad)),
        })
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
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        cx.elements(0)
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
    b.layouts::<Pool>(|op, node, _| follow(op.window.kernel.as_ref().map_or(9, Vec::len), node));
    b.step::<GlobalPool>(bind_global);
    b.layouts::<GlobalPool>(|_, node, _| follow(1, node));
}

/// Stays blocked where the input is, if only values are asked for and the kernel takes the axes.
fn follow(spatial: usize, node: &NodeView<'_>) -> NodeLayouts {
    match node.inputs.first() {
        Some(Some(x)) if x.layout != Layout::Dense && !node.has_output(1) && spatial <= 3 => {
            NodeLayouts { inputs: smallvec![x.layout], outputs: smallvec![x.layout] }
        }
        _ => NodeLayouts::dense(),
    }
}

/// The step of the kernel for f32.
fn f32_pool(spec: kernel::PoolSpec, column_major: bool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let blocked = cx.input(0)?.layout != Layout::Dense;
    let pool = kernel::Pool::new(cx.isa, spec, blocked)?;
    let mut scratch = 0;
    if !cx.has_output(0) {
        // The indices alone are asked for: the values go into scratch, all of them, by one task.
        scratch = cx.outputs.iter().flatten().next().map_or(Ok(0), |o| DType::F32.byte_len(o.len()))?;
    }
    let all = pool.tasks();
    let tasks = if scratch > 0 { all.min(1) } else { all };
    Ok(FnStep::boxed(pool.name(), tasks, scratch, move |args, task, values| {
        let to = args.output::<i64>(1);
        let y = if scratch > 0 { values.cast() } else { args.output(0) };
        for t in if scratch > 0 { 0..all } else { task..task + 1 } {
            // SAFETY: the pool was made for these operands' shapes and layout (Step::run).
            unsafe { pool.run(t, args.input(0), y, kernel::Indices { to, column_major }) };
        }
        Ok(())
    }))
}

impl PoolKind {
    fn of_kernel(self, include_pad: bool) -> kernel::Kind {
        match self {
            PoolKind::Max => kernel::Kind::Max,
            PoolKind::Average => kernel::Kind::Average { include_pad },
            PoolKind::Lp(p) => kernel::Kind::Lp { p: p as i32 },
        }
    }
}

fn bind_pool(op: &Pool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_pool)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => f32_pool(f32_spec(op, cx)?, op.column_major, cx),
        DType::F64 => pool::<f64>(op, cx),
        DType::I8 => pool_max::<i8>(op, cx),
        DType::U8 => pool_max::<u8>(op, cx),
        d => bail!(Unsupported, "a pool of {d}"),
    }
}

/// The same for the kernels of f32.
fn f32_spec(op: &Pool, node: &NodeView<'_>) -> Result<kernel::PoolSpec> {
    let (s, _) = pool_spec(op, node)?;
    let x = node.input(0)?;
    Ok(kernel::PoolSpec {
        n: x.shape[0],
        channels: x.shape[1],
        input: s.input,
        output: s.output,
        kernel: s.kernel,
        stride: s.stride,
        dilation: s.dilation,
        pad: s.pad,
        pad_end: s.pad_end,
        kind: op.kind.of_kernel(op.include_pad),
    })
}

/// The sizes of a pool, and how many planes there are.
fn pool_spec(op: &Pool, cx: &NodeView<'_>) -> Result<(PoolSpec, usize)> {
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
        DType::F32 => {
            let x = cx.input(0)?;
            let size = [1, 1, product(&x.shape[2..])?];
            let spec = kernel::PoolSpec::global(x.shape[0], x.shape[1], size, op.kind.of_kernel(false));
            f32_pool(spec, false, cx)
        }
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

/// Sum in 16 lanes: loses little.
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

fn cases() -> Vec<Case> {
    let x = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -100.0, 100.0);
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let (k3, s2, p1) = (ints(&[3, 3]), ints(&[2, 2]), ints(&[1; 4]));
    let pool =
        |op, name, d, shape: &[usize]| Case::new(op, 22, name, vec![x(d, shape)]).attr("kernel_shape", k3.clone());
    let mut cases = Vec::new();
    for op in ["MaxPool", "AveragePool", "LpPool"] {
        cases
            .push(pool(op, "strided", DType::F32, &[2, 3, 9, 10]).attr("strides", s2.clone()).attr("pads", p1.clone()));
        cases.push(
            pool(op, "ceil", DType::F32, &[1, 17, 8, 8]).attr("strides", s2.clone()).attr("ceil_mode", Attr::Int(1)),
        );
        cases.push(pool(op, "f64", DType::F64, &[1, 2, 5, 5]).attr("dilations", s2.clone()));
        cases.push(Case { rtol: 1e-2, ..pool(op, "bf16", DType::BF16, &[1, 2, 5, 5]).attr("pads", p1.clone()) });
        cases.push(pool(op, "empty", DType::F32, &[0, 2, 5, 5]));
    }
    let indices = |c: Case| Case { outputs: vec![true, true], ..c };
    cases.push(indices(pool("MaxPool", "indices", DType::F32, &[2, 3, 7, 7])).exact());
    cases.push(indices(pool("MaxPool", "columns_first", DType::I8, &[2, 3, 7, 6])).attr("storage_order", Attr::Int(1)));
    cases.push(Case { outputs: vec![false, true], ..pool("MaxPool", "indices_alone", DType::F32, &[2, 3, 7, 7]) });
    cases.push(
        pool("AveragePool", "with_pads", DType::F32, &[1, 3, 6, 6])
            .attr("pads", p1)
            .attr("count_include_pad", Attr::Int(1)),
    );
    for op in ["GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"] {
        cases.push(Case::new(op, 22, "f32", vec![x(DType::F32, &[2, 19, 5, 7])]));
        cases.push(Case::new(op, 22, "f64", vec![x(DType::F64, &[2, 3, 5, 7])]));
    }
    cases
}
