//! Binding of Resize: tables of places and weights, made when the plan is.

use super::coordinates::{Axis, Coordinates, Method, WeightKernel};
use super::{Aspect, Resize, numbers};
use crate::backend::cpu::{Arg, CpuCtx, EagerCtx, Values};
use crate::backend::step::split;
use crate::backend::{FnStep, Layout, NodeLayouts, NodeView, Step, StepArgs};
use crate::base::alloc::{ALIGN, Buffer, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::elem::Number;
use crate::kernels::isa::Isa;
use crate::kernels::real::Real;
use crate::kernels::resample::{Filter, Pick};
use crate::ops::steps::Phases;
use crate::ops::widen::widened;
use crate::tensor::{DType, Dims, Tensor};
use crate::{bail, ensure, err};
use half::{bf16, f16};
use smallvec::smallvec;
use std::sync::Arc;

/// Stays blocked where batch and channels keep their size and kernels take the type.
pub(super) fn layouts(op: &Resize, node: &NodeView<'_>, _: usize) -> NodeLayouts {
    let (Some(Some(x)), Some(Some(y))) = (node.inputs.first(), node.outputs.first()) else {
        return NodeLayouts::dense();
    };
    let f32_like = matches!(x.dtype, DType::F32 | DType::F16 | DType::BF16);
    let plain = f32_like || matches!(op.method, Method::Nearest(_)) && x.dtype.size().is_some();
    let constant = node.opt_input(1).is_none_or(|r| r.constant.is_some() || r.is_empty());
    let kept = axes(op, node, &[]).is_ok_and(|a| a.iter().take(2).all(|a| a.input == a.output && a.scale == 1.0));
    let kept = kept
        && op.coordinates != Coordinates::CropAndResize
        && x.shape.get(..2).is_some_and(|s| Some(s) == y.shape.get(..2));
    if x.layout != Layout::Dense && plain && constant && kept {
        NodeLayouts { inputs: smallvec![x.layout], outputs: smallvec![x.layout] }
    } else {
        NodeLayouts::dense()
    }
}

/// All axes; `roi` is what is known of it, the whole where it is empty.
pub(super) fn axes(op: &Resize, node: &NodeView<'_>, roi: &[f64]) -> Result<Vec<Axis>> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let rank = x.shape.len();
    let mut axes: Vec<Axis> =
        (0..rank).map(|a| Axis { input: x.shape[a], output: y.shape[a], scale: 1.0, roi: (0.0, 1.0) }).collect();
    let list = |i: usize| node.opt_input(i).filter(|o| !o.is_empty());
    let constant = |i: usize| node.constant(i).ok_or_else(|| err!(Internal, "scales or sizes are not known"));
    let n;
    if list(3).is_some() {
        let sizes = constant(3)?.to_i64s()?;
        n = sizes.len();
        let about = op.axes_of(rank, n)?;
        let common = op.common_scale(about.iter().zip(&sizes).map(|(&a, &s)| (x.shape[a] as f64, s as f64)));
        for &a in &about {
            axes[a].scale = match op.aspect {
                Aspect::Stretch if x.shape[a] > 0 => y.shape[a] as f64 / x.shape[a] as f64,
                Aspect::Stretch => 1.0,
                _ => common,
            };
        }
    } else {
        ensure!(list(2).is_some(), InvalidModel, "neither scales nor sizes are given");
        let scales = numbers(constant(2)?)?;
        n = scales.len();
        for (a, s) in op.axes_of(rank, n)?.into_iter().zip(scales) {
            axes[a].scale = s;
        }
    }
    if !roi.is_empty() {
        let about = op.axes_of(rank, n)?;
        ensure!(roi.len() == 2 * n, InvalidModel, "roi has {} numbers for {n} axes", roi.len());
        for (i, a) in about.into_iter().enumerate() {
            axes[a].roi = (roi[i], roi[n + i]);
        }
    }
    Ok(axes)
}

pub(super) fn bind(op: &Resize, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    if y.is_empty() {
        return Ok(Phases::new("resize", 0).boxed());
    }
    ensure!(!x.is_empty(), InvalidModel, "an empty input cannot be resized to {:?}", y.shape);
    let narrow = matches!(x.dtype, DType::F16 | DType::BF16) && !matches!(op.method, Method::Nearest(_));
    if narrow && let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    let roi = cx.opt_input(1).filter(|r| !r.is_empty() && op.coordinates == Coordinates::CropAndResize);
    let Some(roi) = roi else { return planned(op, cx, axes(op, cx, &[])?) };
    if let Some(t) = &roi.constant {
        return planned(op, cx, axes(op, cx, &numbers(t)?)?);
    }
    late(op, cx, roi.dtype, roi.len())
}

/// Strings, which can be picked but not mixed.
pub(super) fn strings(op: &Resize, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let picks = matches!(op.method, Method::Nearest(_)) && op.extrapolation == 0.0;
    ensure!(picks, Unsupported, "Resize of strings, but to the nearest");
    crate::ops::movement::strings::run(op, cx, args, bind)
}

/// The region comes with the run: everything is made and done then, by one task.
fn late(op: &Resize, cx: &CpuCtx<'_>, dtype: DType, len: usize) -> Result<Box<dyn Step>> {
    let (op, isa) = (op.clone(), cx.isa);
    let (inputs, outputs) = (cx.inputs.to_vec(), cx.outputs.to_vec());
    let bytes = dtype.byte_len(len)?;
    Ok(FnStep::boxed("resize", 1, 0, move |args, _, _| {
        let mut t = Tensor::uninit(dtype, &[len])?;
        let Some(to) = t.data_mut_ptr() else { bail!(Internal, "a new tensor is shared") };
        // SAFETY: the roi has this type and length (Step::run).
        unsafe { std::ptr::copy_nonoverlapping(args.input::<u8>(1), to, bytes) };
        let roi = numbers(&t)?;
        ensure!(roi.iter().all(|r| r.is_finite()), Run, "the region of interest is {roi:?}");
        let node = NodeView { name: "", op: &op, inputs: &inputs, outputs: &outputs };
        let cache = crate::backend::PackedCache::new();
        let cx = CpuCtx { node: &node, isa, cache: &cache };
        let step = planned(&op, &cx, axes(&op, &node, &roi)?)?;
        let (scratch, workspace) = (Buffer::uninit(step.scratch_bytes())?, Buffer::uninit(step.workspace_bytes())?);
        let args = args.with_workspace(workspace.ptr());
        for phase in 0..step.phases() {
            for task in 0..step.tasks(phase) {
                // SAFETY: the operands it was bound for; scratch and workspace as asked for; one task after another.
                unsafe { step.run(&args, phase, task, scratch.ptr())? };
            }
        }
        Ok(())
    }))
}

/// Axes of memory: blocked ones have the lanes of a block as one more.
fn physical(op: &Resize, cx: &CpuCtx<'_>, mut axes: Vec<Axis>) -> (Dims, Vec<Axis>, Coordinates) {
    let x = &cx.inputs[0];
    let mut shape: Dims = x.iter().flat_map(|x| x.shape.iter().copied()).collect();
    if let Some(Layout::Blocked(c)) = x.as_ref().map(|x| x.layout) {
        shape[1] = shape[1].div_ceil(c);
        (axes[1].input, axes[1].output) = (shape[1], shape[1]);
        shape.push(c);
        axes.push(Axis { input: c, output: c, scale: 1.0, roi: (0.0, 1.0) });
    }
    (shape, axes, op.coordinates)
}

fn planned(op: &Resize, cx: &CpuCtx<'_>, axes: Vec<Axis>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let limit = u32::MAX as usize;
    ensure!(axes.iter().all(|a| a.input < limit && a.output < limit), InvalidModel, "an axis is too long to resize");
    let (shape, axes, how) = physical(op, cx, axes);
    if let Method::Nearest(mode) = op.method {
        let size = x.dtype.size().ok_or_else(|| err!(Unsupported, "a resize of {}", x.dtype))?;
        let places: Vec<_> = axes.iter().map(|a| a.nearest(how, mode)).collect::<Result<_>>()?;
        let pick = Pick::new(&shape, size, &places);
        let fill = bytes_of(x.dtype, op.extrapolation);
        let rows = pick.rows();
        let (tasks, per) = split(rows, (64 * 1024 / pick.row_bytes().max(1)).max(1));
        return Ok(FnStep::boxed("resize_nearest", tasks, 0, move |args, task, _| {
            let rows = task * per..rows.min((task + 1) * per);
            // SAFETY: the tables were made for these operands' shapes (Step::run).
            unsafe { pick.run(rows, &fill, args.input(0), args.output(0)) };
            Ok(())
        }));
    }
    match x.dtype {
        DType::F32 => passes::<f32, f32>(op, cx.isa, &shape, &axes, how),
        DType::F64 => passes::<f64, f64>(op, cx.isa, &shape, &axes, how),
        DType::U8 => passes::<u8, f32>(op, cx.isa, &shape, &axes, how),
        DType::I8 => passes::<i8, f32>(op, cx.isa, &shape, &axes, how),
        DType::U16 => passes::<u16, f32>(op, cx.isa, &shape, &axes, how),
        DType::I16 => passes::<i16, f32>(op, cx.isa, &shape, &axes, how),
        DType::I32 => passes::<i32, f64>(op, cx.isa, &shape, &axes, how),
        DType::U32 => passes::<u32, f64>(op, cx.isa, &shape, &axes, how),
        DType::I64 => passes::<i64, f64>(op, cx.isa, &shape, &axes, how),
        DType::U64 => passes::<u64, f64>(op, cx.isa, &shape, &axes, how),
        d => bail!(Unsupported, "an interpolation of {d}"),
    }
}

/// The extrapolation value as one element.
fn bytes_of(d: DType, x: f32) -> Vec<u8> {
    match d {
        DType::F32 => x.to_le_bytes().to_vec(),
        DType::F64 => f64::from(x).to_le_bytes().to_vec(),
        DType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        DType::I8 => vec![x as i8 as u8],
        DType::U8 => vec![x as u8],
        DType::Bool => vec![u8::from(x != 0.0)],
        DType::I16 => (x as i16).to_le_bytes().to_vec(),
        DType::U16 => (x as u16).to_le_bytes().to_vec(),
        DType::I32 => (x as i32).to_le_bytes().to_vec(),
        DType::U32 => (x as u32).to_le_bytes().to_vec(),
        DType::I64 => (x as i64).to_le_bytes().to_vec(),
        DType::U64 => (x as u64).to_le_bytes().to_vec(),
        d => vec![0; d.size().unwrap_or(1)],
    }
}

/// Where a pass reads or writes.
#[derive(Clone, Copy)]
enum Place {
    Operand,
    Workspace(usize),
}

impl Place {
    fn from<T>(self, args: &StepArgs<'_>) -> *const T {
        match self {
            Place::Operand => args.input(0),
            Place::Workspace(at) => args.workspace::<u8>().wrapping_add(at).cast::<T>().cast_const(),
        }
    }
    fn to<T>(self, args: &StepArgs<'_>) -> *mut T {
        match self {
            Place::Operand => args.output(0),
            Place::Workspace(at) => args.workspace::<u8>().wrapping_add(at).cast(),
        }
    }
}

/// One pass an axis that changes, in numbers of type `T`; the tensor's are of type `N`.
fn passes<N: Number, T: Real>(
    op: &Resize,
    isa: Isa,
    shape: &[usize],
    axes: &[Axis],
    how: Coordinates,
) -> Result<Box<dyn Step>> {
    let kernel = WeightKernel { method: op.method, antialias: op.antialias };
    // The axis that shrinks most goes first, so that the others have less to do.
    let mut order: Vec<usize> = (0..axes.len()).collect();
    let ratio = |a: &usize| axes[*a].output as f64 / axes[*a].input as f64;
    order.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    let mut filters: Vec<(usize, Arc<Filter<T>>)> = Vec::new();
    for a in order {
        let f = axes[a].filter::<T>(how, &kernel, op.exclude_outside, op.extrapolation)?;
        if !f.is_identity() {
            filters.push((a, Arc::new(f)));
        }
    }
    let convert = N::ELEM != T::ELEM;
    let count = filters.len();
    // Sizes of what the passes hand on.
    let mut dims: Dims = shape.into();
    let mut sizes = vec![product(&dims)?];
    for (a, f) in &filters {
        dims[*a] = f.output();
        sizes.push(product(&dims)?);
    }
    let largest = product(&[sizes.iter().copied().max().unwrap_or(0), size_of::<T>()])?;
    let half = round_up(largest, ALIGN);
    let buffers = if convert || count > 1 { 2 } else { 0 };
    let mut phases = Phases::new("resize", product(&[half, buffers])?);
    let (mut from, mut at) = (Place::Operand, 0);
    if convert || count == 0 {
        let n = sizes[0];
        let (tasks, per) = split(n, 64 * 1024);
        let to = if convert { Place::Workspace(0) } else { Place::Operand };
        phases = phases.then(tasks, 0, move |args, task, _| {
            for i in task * per..n.min((task + 1) * per) {
                // SAFETY: element i of both (Step::run).
                unsafe { *to.to::<T>(args).add(i) = T::from_f64((*args.input::<N>(0).add(i)).to_f64()) };
            }
            Ok(())
        });
        (from, at) = (to, 1);
    }
    let mut dims: Dims = shape.into();
    for (k, (a, f)) in filters.iter().enumerate() {
        let to = if k + 1 == count && !convert { Place::Operand } else { Place::Workspace(at % 2 * half) };
        let (outer, inner) = (product(&dims[..*a])?, product(&dims[a + 1..])?);
        dims[*a] = f.output();
        let rows = product(&[outer, f.output()])?;
        let (tasks, per) = split(rows, (16 * 1024 / (inner * f.taps).max(1)).max(1));
        let f = f.clone();
        phases = phases.then(tasks, 0, move |args, task, _| {
            let rows = task * per..rows.min((task + 1) * per);
            // SAFETY: the pass was made for these shapes; the workspace has two buffers of the largest (Step::run).
            unsafe { f.run(isa, inner, rows, from.from(args), to.to(args)) };
            Ok(())
        });
        (from, at) = (to, at + 1);
    }
    if convert {
        let n = sizes[count];
        let (tasks, per) = split(n, 64 * 1024);
        phases = phases.then(tasks, 0, move |args, task, _| {
            for i in task * per..n.min((task + 1) * per) {
                // SAFETY: element i of both (Step::run).
                unsafe { *args.output::<N>(0).add(i) = N::from_f64((*from.from::<T>(args).add(i)).to_f64()) };
            }
            Ok(())
        });
    }
    Ok(phases.boxed())
}
