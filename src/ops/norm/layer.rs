//! Layer and RMS normalisation.

use super::FLOATS;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{Operand, Step};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx, Spelling};
use crate::kernels::elem::{Elem, Narrow};
use crate::kernels::nd::{Walk, broadcast_strides};
use crate::kernels::normalise::{LayerNorm, LayerNormKind, LayerNormPointers};
use crate::ops::steps::Phases;
use crate::ops::types::need_elem;
use crate::ops::widen::{Side, through};
use crate::tensor::DType;
use crate::{bail, ensure};
use half::{bf16, f16};
use std::sync::Arc;

/// The axes from `axis` on are brought to mean 0 and variance 1 (RMS: to mean square 1), then scaled and shifted. Inputs X,
/// scale, optionally bias; outputs Y, the mean, the inverse deviation.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormalization {
    /// Root mean square instead of mean and variance.
    pub rms: bool,
    /// First axis; negative counts from the end.
    pub axis: i64,
    /// Keeps the root from zero.
    pub epsilon: f32,
    /// The type of mean and inverse deviation.
    pub stash: DType,
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let rms = cx.op_type == "RMSNormalization";
    cx.expect_inputs(2, if rms { 2 } else { 3 })?;
    let stash = cx.int_or("stash_type", 1)?;
    let stash = DType::from_onnx(i32::try_from(stash).unwrap_or(0))?;
    ensure!(FLOATS.contains(&stash), InvalidModel, "stash_type is {stash}");
    Ok(Arc::new(LayerNormalization {
        rms,
        axis: cx.int_or("axis", -1)?,
        epsilon: cx.float_or("epsilon", 1e-5)?,
        stash,
    }))
}

impl Op for LayerNormalization {
    fn name(&self) -> &'static str {
        if self.rms { "RMSNormalization" } else { "LayerNormalization" }
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        // Sums of values and squares, difference, two products, sum with the bias.
        7 * cx.elements(0)
    }
    fn to_onnx(&self, version: u32, inputs: usize) -> Option<Spelling> {
        let s = Spelling::since(if self.rms { 23 } else { 17 }, version, self.name()).filter(|_| inputs <= 3)?;
        Some(s.int("axis", self.axis).float("epsilon", self.epsilon).int("stash_type", self.stash as i64))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &FLOATS)?;
        cx.expect_dtype(1, &FLOATS)?;
        let x = cx.tensor(0)?;
        // The result has the type of the scale, which only RMSNormalization lets differ.
        let y = cx.like(0, cx.dtype(1)?)?;
        let Some(d) = &x.dims else {
            return Ok(vec![y, Fact::any_tensor(self.stash), Fact::any_tensor(self.stash)]);
        };
        let axis = resolve_axis(self.axis, d.len())?;
        let means: Vec<Dim> =
            d.iter().enumerate().map(|(i, d)| if i < axis { d.clone() } else { Dim::Known(1) }).collect();
        let stash = Fact::tensor(self.stash, means);
        Ok(if self.rms { vec![y] } else { vec![y, stash.clone(), stash] })
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<LayerNormalization>(bind);
}

/// A scale or bias that must be laid out over the normalised axes first.
struct Spread {
    input: usize,
    offset: usize,
    walk: Walk,
}

fn bind(op: &LayerNormalization, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    if cx.inputs.iter().flatten().any(|o| o.dtype != x.dtype) || cx.output(0)?.dtype != x.dtype {
        // Types mix: all through the widest, but for means, whose type the operator says.
        let float = |d: DType| matches!(d, DType::F16 | DType::BF16 | DType::F32 | DType::F64);
        let double = cx.inputs.iter().flatten().any(|o| o.dtype == DType::F64);
        let wide = if double { DType::F64 } else { DType::F32 };
        let data = |s: Side| matches!(s, Side::In(_) | Side::Out(0));
        return match through(op, cx, bind, wide, |s, d| data(s) && float(d) && d != wide)? {
            Some(s) => Ok(s),
            None => bail!(Unsupported, "{} of {} by {}", op.name(), x.dtype, cx.input(1)?.dtype),
        };
    }
    let axis = resolve_axis(op.axis, x.shape.len())?;
    let elem = need_elem(x.dtype, op.name())?;
    let (rows, len) = (product(&x.shape[..axis])?, product(&x.shape[axis..])?);
    let kind = if op.rms { LayerNormKind::Rms } else { LayerNormKind::Layer };
    let kernel = LayerNorm::new(cx.isa, kind, elem, rows, len, f64::from(op.epsilon))?;
    let mut workspace = 0;
    let mut room = |bytes: usize| {
        let at = workspace;
        workspace = round_up(workspace + bytes, ALIGN);
        at
    };
    let mut spread = Vec::new();
    for i in [1, 2] {
        let Some(o) = cx.opt_input(i) else { continue };
        if let Some(walk) = spread_over(o, &x.shape[axis..])? {
            spread.push(Spread { input: i, offset: room(product(&[len, elem.size()])?), walk });
        }
    }
    // The kernel makes means in f32, or f64 for f64.
    let made = if elem == Elem::F64 { DType::F64 } else { DType::F32 };
    let stash = need_elem(op.stash, op.name())?;
    let converted = op.stash != made;
    let made_bytes = DType::byte_len(made, rows)?;
    let mut means = [None; 2];
    for (i, m) in means.iter_mut().enumerate() {
        if converted && cx.has_output(i + 1) {
            *m = Some(room(made_bytes));
        }
    }
    let offsets: Vec<(usize, usize)> = spread.iter().map(|s| (s.input, s.offset)).collect();
    let at = move |i: usize| offsets.iter().find(|s| s.0 == i).map(|s| s.1);
    let mut phases = Phases::new("layer_norm", workspace);
    if !spread.is_empty() {
        let size = elem.size();
        phases = phases.then(1, 0, move |args, _, _| {
            for s in &spread {
                // SAFETY: the walk stays in the input; the workspace has room for a row.
                unsafe { fill(&s.walk, size, args.input(s.input), args.workspace::<u8>().add(s.offset)) };
            }
            Ok(())
        });
    }
    // Without a Y that is asked for there would be nothing to do; the executor always has one.
    phases = phases.then(kernel.tasks(), kernel.scratch_bytes(), move |args, task, scratch| {
        let base = args.workspace::<u8>();
        let list = |i: usize| at(i).map_or(args.input::<u8>(i), |o| base.wrapping_add(o).cast_const());
        let mean = |i: usize| means[i].map_or(args.output::<u8>(i + 1), |o| base.wrapping_add(o));
        let p = LayerNormPointers {
            from: args.input(0),
            scale: list(1),
            bias: list(2),
            to: args.output(0),
            mean: mean(0),
            inverse: mean(1),
        };
        // SAFETY: the kernel was made for these operands' shapes (Step::run).
        unsafe { kernel.run(task, p, scratch) };
        Ok(())
    });
    if means.iter().any(Option::is_some) {
        let (tasks, per) = split(rows, 8192);
        phases = phases.then(tasks, 0, move |args, task, _| {
            for (i, m) in means.iter().enumerate() {
                let Some(offset) = m else { continue };
                for r in task * per..rows.min((task + 1) * per) {
                    // SAFETY: row r of the means in the workspace, and of the output.
                    unsafe {
                        let from = args.workspace::<u8>().add(*offset);
                        let v = if made == DType::F64 {
                            *from.cast::<f64>().add(r)
                        } else {
                            f64::from(*from.cast::<f32>().add(r))
                        };
                        let to = args.output::<u8>(i + 1);
                        match stash {
                            Elem::F16 => *to.cast::<f16>().add(r) = f16::narrow_f64(v),
                            Elem::Bf16 => *to.cast::<bf16>().add(r) = bf16::narrow_f64(v),
                            Elem::F64 => *to.cast::<f64>().add(r) = v,
                            _ => *to.cast::<f32>().add(r) = v as f32,
                        }
                    }
                }
            }
            Ok(())
        });
    }
    Ok(phases.boxed())
}

/// How to lay an operand out over the normalised axes; none where it already is.
fn spread_over(o: &Operand, axes: &[usize]) -> Result<Option<Walk>> {
    let lead = o.shape.iter().take_while(|&&d| d == 1).count().min(o.shape.len().saturating_sub(axes.len()));
    let own = &o.shape[lead..];
    if own == axes {
        return Ok(None);
    }
    match broadcast_strides(own, axes) {
        Some(s) => Walk::new(axes, &s).map(Some),
        None => bail!(Unsupported, "a scale or bias of shape {:?} for normalised axes {axes:?}", o.shape),
    }
}

/// Writes the walk's elements one behind another.
unsafe fn fill(walk: &Walk, size: usize, from: *const u8, to: *mut u8) {
    let mut at = 0;
    walk.pieces(0, walk.len(), |offset, stride, count| {
        for i in 0..count as isize {
            // SAFETY: the caller's.
            unsafe {
                let x = from.offset((offset + i * stride) * size as isize);
                std::ptr::copy_nonoverlapping(x, to.add(at), size);
            }
            at += size;
        }
    });
}
