//! ScatterElements (and Scatter, its first name), ScatterND, TensorScatter; ReverseSequence.

use super::{Bind, Moves, around, index_type};
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Operand};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::movement::{ScatterElements as ElementsKernel, ScatterKind, ScatterNd as NdKernel};
use crate::ops::steps::Phases;
use crate::ops::types::{elem, need_size};
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "ReverseSequence", versions: &[10, 28], parse: parse_reverse },
    OpDef { domain: "", name: "Scatter", versions: &[9, 11], parse: parse_elements },
    OpDef { domain: "", name: "ScatterElements", versions: &[11, 13, 16, 18], parse: parse_elements },
    OpDef { domain: "", name: "ScatterND", versions: &[11, 13, 16, 18], parse: parse_nd },
    OpDef { domain: "", name: "TensorScatter", versions: &[24], parse: parse_tensor },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    ReverseSequence::register(b);
    ScatterElements::register(b);
    ScatterNd::register(b);
    TensorScatter::register(b);
}

fn reduction(cx: &ParseCtx<'_>) -> Result<ScatterKind> {
    Ok(match cx.string_or("reduction", "none")?.as_str() {
        "none" => ScatterKind::Replace,
        "add" => ScatterKind::Add,
        "mul" => ScatterKind::Mul,
        "max" => ScatterKind::Max,
        "min" => ScatterKind::Min,
        x => bail!(InvalidModel, "there is no reduction '{x}'"),
    })
}

/// A step whose first phase copies input 0 to the output, unless they are the same memory.
fn after_copy(name: &'static str, data: &Operand) -> Result<Phases> {
    let bytes = data.byte_len()?;
    let (tasks, per) = split(bytes, 1 << 20);
    Ok(Phases::new(name, 0).then(tasks, 0, move |args, task, _| {
        let (from, to) = (args.input::<u8>(0), args.output::<u8>(0));
        if !std::ptr::eq(from, to) {
            let at = (task * per).min(bytes);
            // SAFETY: both have as many bytes, and do not overlap unless they are the same.
            unsafe { std::ptr::copy_nonoverlapping(from.add(at), to.add(at), per.min(bytes - at)) };
        }
        Ok(())
    }))
}

/// Input 0 with single elements of input 2 put in: each index in input 1 replaces its own coordinate on the axis.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterElements {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// How an update meets what is there.
    pub how: ScatterKind,
}

fn parse_elements(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    Ok(Arc::new(ScatterElements { axis: cx.int_or("axis", 0)?, how: reduction(cx)? }))
}

impl Op for ScatterElements {
    fn name(&self) -> &'static str {
        "ScatterElements"
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0])
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(1, &[DType::I32, DType::I64])?;
        cx.expect_same_dtype(0, 2)?;
        let (x, at, new) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        if let (Some(a), Some(b)) = (x.rank(), at.rank()) {
            ensure!(a == b, InvalidModel, "indices of rank {b} for data of rank {a}");
            resolve_axis(self.axis, a)?;
        }
        if let (Some(a), Some(b)) = (at.shape(), new.shape()) {
            ensure!(a == b, InvalidModel, "indices of shape {a:?} for updates of shape {b:?}");
        }
        Ok(vec![cx.like(0, x.dtype)?])
    }
}

impl Moves for ScatterElements {
    const BIND: Bind<Self> = |op, cx| {
        let (x, at, new) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
        ensure!(at.shape == new.shape, InvalidModel, "indices {:?}, updates {:?}", at.shape, new.shape);
        let size = need_size(x.dtype, "ScatterElements")?;
        let axis = resolve_axis(op.axis, x.shape.len())?;
        let kernel =
            ElementsKernel::new(index_type(at.dtype)?, op.how, elem(x.dtype), size, &x.shape, &at.shape, axis)?;
        Ok(after_copy("scatter_elements", x)?
            .then(kernel.tasks(), 0, move |args, task, _| {
                // SAFETY: the kernel was made from the operands' shapes; it checks each index.
                Ok(unsafe { kernel.run(task, args.input(1), args.input(2), args.output(0)) }?)
            })
            .boxed())
    };
}

/// Input 0 with slices of input 2 put in where the tuples of indices along input 1's last axis say.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterNd {
    /// How an update meets what is there.
    pub how: ScatterKind,
}

fn parse_nd(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    Ok(Arc::new(ScatterNd { how: reduction(cx)? }))
}

impl Op for ScatterNd {
    fn name(&self) -> &'static str {
        "ScatterND"
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0])
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(1, &[DType::I64, DType::I32])?;
        cx.expect_same_dtype(0, 2)?;
        if let (Some(x), Some(at), Some(new)) = (cx.tensor(0)?.shape(), cx.tensor(1)?.shape(), cx.tensor(2)?.shape()) {
            let fits = at.split_last().is_some_and(|(&n, lead)| {
                n <= x.len()
                    && new.len() == lead.len() + x.len() - n
                    && new[..lead.len()] == *lead
                    && new[lead.len()..] == x[n..]
            });
            ensure!(fits, InvalidModel, "updates of shape {new:?} at {at:?} in data of shape {x:?}");
        }
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

impl Moves for ScatterNd {
    const BIND: Bind<Self> = |op, cx| {
        let (x, at) = (cx.input(0)?, cx.input(1)?);
        let size = need_size(x.dtype, "ScatterND")?;
        let Some((&n, lead)) = at.shape.split_last() else { bail!(InvalidModel, "indices that are one number") };
        ensure!(n <= x.shape.len(), InvalidModel, "tuples of {n} indices for rank {}", x.shape.len());
        let kernel = NdKernel::new(
            index_type(at.dtype)?,
            op.how,
            elem(x.dtype),
            size,
            &x.shape[..n],
            lead.iter().product(),
            x.shape[n..].iter().product(),
        )?;
        Ok(after_copy("scatter_nd", x)?
            .then(kernel.tasks(), 0, move |args, task, _| {
                // SAFETY: the kernel was made from the operands' shapes; it checks each index.
                Ok(unsafe { kernel.run(task, args.input(1), args.input(2), args.output(0)) }?)
            })
            .boxed())
    };
}

/// A cache (input 0) with an update (input 1) written along an axis, from the place that input 2 names for each batch.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorScatter {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Places beyond the end begin at the front again.
    pub circular: bool,
}

fn parse_tensor(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    let circular = match cx.string_or("mode", "linear")?.as_str() {
        "linear" => false,
        "circular" => true,
        x => bail!(InvalidModel, "TensorScatter has no mode '{x}'"),
    };
    Ok(Arc::new(TensorScatter { axis: cx.int_or("axis", -2)?, circular }))
}

impl Op for TensorScatter {
    fn name(&self) -> &'static str {
        "TensorScatter"
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0])
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_same_dtype(0, 1)?;
        if cx.has(2) {
            cx.expect_dtype(2, &[DType::I64])?;
        }
        if let (Some(a), Some(b)) = (cx.tensor(0)?.shape(), cx.tensor(1)?.shape()) {
            let axis = resolve_axis(self.axis, a.len())?;
            let fits = a.len() == b.len()
                && axis > 0
                && (0..a.len()).all(|i| if i == axis { b[i] <= a[i] } else { b[i] == a[i] });
            ensure!(fits, InvalidModel, "an update of shape {b:?} on axis {axis} of a cache of shape {a:?}");
        }
        if let (Some(at), Some(x)) = (cx.opt_tensor(2)?.and_then(|t| t.shape()), cx.tensor(0)?.shape()) {
            ensure!(at[..] == x[..1], InvalidModel, "{at:?} places for a cache of shape {x:?}");
        }
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

impl Moves for TensorScatter {
    const BIND: Bind<Self> = |op, cx| {
        let (x, new) = (cx.input(0)?, cx.input(1)?);
        let size = need_size(x.dtype, "TensorScatter")?;
        let axis = resolve_axis(op.axis, x.shape.len())?;
        let (outer, limit, inner) = around(&x.shape, axis);
        let (count, block, circular) = (new.shape[axis], inner * size, op.circular);
        let outer_a_batch = outer.checked_div(x.shape[0]).unwrap_or(1).max(1);
        let tasks = if count * block == 0 { 0 } else { outer };
        Ok(after_copy("tensor_scatter", x)?
            .then(tasks, 0, move |args, task, _| {
                let places = args.input::<i64>(2);
                // SAFETY: a place a batch where they are given.
                let first = if places.is_null() { 0 } else { unsafe { *places.add(task / outer_a_batch) } };
                for i in 0..count {
                    let at = first.checked_add(i as i64).map(|p| if circular { p.rem_euclid(limit as i64) } else { p });
                    let Some(at) = at.filter(|p| (0..limit as i64).contains(p)) else {
                        bail!(Run, "{count} entries from place {first} on leave a cache of length {limit}")
                    };
                    // SAFETY: `at` was checked against the axis; the update has `count` blocks for each outer place.
                    unsafe {
                        let from = args.input::<u8>(1).add((task * count + i) * block);
                        let to = args.output::<u8>(0).add((task * limit + at as usize) * block);
                        std::ptr::copy_nonoverlapping(from, to, block);
                    }
                }
                Ok(())
            })
            .boxed())
    };
}

/// For each batch entry the first elements along the time axis, as many as input 1 says, in reverse.
#[derive(Clone, Debug, PartialEq)]
pub struct ReverseSequence {
    /// 0 or 1.
    pub batch_axis: i64,
    /// The other one.
    pub time_axis: i64,
}

fn parse_reverse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let op = ReverseSequence { batch_axis: cx.int_or("batch_axis", 1)?, time_axis: cx.int_or("time_axis", 0)? };
    Ok(Arc::new(op))
}

impl ReverseSequence {
    fn axes(&self, rank: usize) -> Result<(usize, usize)> {
        let (b, t) = (resolve_axis(self.batch_axis, rank)?, resolve_axis(self.time_axis, rank)?);
        ensure!(b.min(t) == 0 && b.max(t) == 1, InvalidModel, "batch axis {b} and time axis {t} are not 0 and 1");
        Ok((b, t))
    }
}

impl Op for ReverseSequence {
    fn name(&self) -> &'static str {
        "ReverseSequence"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(1, &[DType::I64])?;
        if let (Some(x), Some(n)) = (cx.tensor(0)?.shape(), cx.tensor(1)?.shape()) {
            let (b, _) = self.axes(x.len())?;
            ensure!(n[..] == [x[b]], InvalidModel, "lengths of shape {n:?} for {} batch entries", x[b]);
        }
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

impl Moves for ReverseSequence {
    const BIND: Bind<Self> = |op, cx: &CpuCtx<'_>| {
        let x = cx.input(0)?;
        let size = need_size(x.dtype, "ReverseSequence")?;
        let (b, t) = op.axes(x.shape.len())?;
        let block = x.shape[2..].iter().product::<usize>() * size;
        let (batches, times) = (x.shape[b], x.shape[t]);
        let steps = if b == 0 { (times * block, block) } else { (block, batches * block) };
        Ok(FnStep::boxed("reverse_sequence", batches, 0, move |args, task, _| {
            // SAFETY: a length a batch entry.
            let n = unsafe { *args.input::<i64>(1).add(task) };
            let Some(n) = usize::try_from(n).ok().filter(|&n| n <= times) else {
                bail!(Run, "a sequence of length {n} in a time axis of length {times}")
            };
            for i in 0..times {
                let from = if i < n { n - 1 - i } else { i };
                // SAFETY: both places lie within the time axis.
                unsafe {
                    let base = task * steps.0;
                    let from = args.input::<u8>(0).add(base + from * steps.1);
                    std::ptr::copy_nonoverlapping(from, args.output::<u8>(0).add(base + i * steps.1), block);
                }
            }
            Ok(())
        }))
    };
}
