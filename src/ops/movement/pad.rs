//! Pad.

use super::{Bind, Moves, known_ints, mark_axes};
use crate::backend::cpu::CpuBindings;
use crate::backend::{FnStep, NodeView};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::movement::{Pad as Kernel, PadMode};
use crate::ops::types::need_size;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use half::{bf16, f16};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] =
    &[OpDef { domain: "", name: "Pad", versions: &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25], parse }];

pub(super) fn cpu(b: &mut CpuBindings) {
    Pad::register(b);
}

/// A border around input 0: widths in input 1 (all beginnings, then all ends; negative ones cut), for the axes in input 3
/// or all, filled with input 2 where the mode asks for a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    /// What the border holds.
    pub mode: PadMode,
    /// The constant where input 2 is not given.
    pub value: f32,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let mode = match cx.string_or("mode", "constant")?.as_str() {
        "constant" => PadMode::Constant,
        "edge" => PadMode::Edge,
        "reflect" => PadMode::Reflect,
        "wrap" => PadMode::Wrap,
        x => bail!(InvalidModel, "Pad has no mode '{x}'"),
    };
    let mut value = 0.0;
    if cx.version < 11 {
        cx.expect_inputs(1, 1)?;
        let pads = cx.ints(if cx.version < 2 { "paddings" } else { "pads" })?;
        cx.set_constant_input(1, Tensor::from_slice(&[pads.len()], &pads)?);
        value = cx.float_or("value", 0.0)?;
    }
    cx.expect_inputs(2, 4)?;
    Ok(Arc::new(Pad { mode, value }))
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, pads) = (cx.tensor(0)?, cx.list(1)?);
        if let Some(v) = cx.opt_tensor(2)? {
            ensure!(v.dtype == x.dtype, InvalidModel, "the constant is {}, the input {}", v.dtype, x.dtype);
            ensure!(v.count().known().is_none_or(|n| n == 1), InvalidModel, "the constant must be one value, not {v}");
        }
        let Some(d) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let axes: Option<Vec<i64>> = if cx.has(3) { cx.ints(3)? } else { Some((0..d.len() as i64).collect()) };
        let (Some(p), Some(axes)) = (pads.int_dims(), axes) else {
            return Ok(vec![Fact::tensor(x.dtype, vec![Dim::Unknown; d.len()])]);
        };
        let axes = mark_axes(&axes, d.len())?;
        ensure!(p.len() == 2 * axes.len(), InvalidModel, "{} widths for {} axes", p.len(), axes.len());
        let mut dims = d.clone();
        for (i, &a) in axes.iter().enumerate() {
            dims[a] = d[a].clone() + p[i].clone() + p[i + axes.len()].clone();
            ensure!(dims[a].known().is_none_or(|n| n >= 0), InvalidModel, "axis {a} of {x} is cut to {}", dims[a]);
        }
        Ok(vec![Fact::tensor(x.dtype, dims)])
    }
}

/// A number as an element of the type: floats keep it, others are zero.
pub(super) fn element(d: DType, size: usize, value: f32) -> Vec<u8> {
    match d {
        DType::F32 => value.to_le_bytes().to_vec(),
        DType::F64 => f64::from(value).to_le_bytes().to_vec(),
        DType::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        _ => vec![0; size],
    }
}

/// How many elements each axis gets in front and behind.
pub(super) fn widths(cx: &NodeView<'_>) -> Result<(Vec<i64>, Vec<i64>)> {
    let x = cx.input(0)?;
    let rank = x.shape.len();
    let axes = if cx.opt_input(3).is_some() { known_ints(cx, 3)? } else { (0..rank as i64).collect() };
    let pads = known_ints(cx, 1)?;
    ensure!(pads.len() == 2 * axes.len(), InvalidModel, "{} widths for {} axes", pads.len(), axes.len());
    let (mut begins, mut ends) = (vec![0; rank], vec![0; rank]);
    for (i, &a) in axes.iter().enumerate() {
        let a = resolve_axis(a, rank)?;
        (begins[a], ends[a]) = (pads[i], pads[i + axes.len()]);
    }
    Ok((begins, ends))
}

impl Moves for Pad {
    const BIND: Bind<Self> = |op, cx| {
        let (x, out) = (cx.input(0)?, cx.output(0)?);
        let size = need_size(x.dtype, "Pad")?;
        let (begins, ends) = widths(cx)?;
        let kernel = Kernel::new(op.mode, size, &x.shape, &begins, &ends)?;
        ensure!(kernel.shape() == &out.shape[..], Internal, "Pad gives {:?}, not {:?}", kernel.shape(), out.shape);
        let (given, value) = (cx.opt_input(2).is_some(), element(x.dtype, size, op.value));
        Ok(FnStep::boxed("pad", kernel.tasks(), 0, move |args, task, _| {
            let value = if given { args.input(2) } else { value.as_ptr() };
            // SAFETY: the kernel was made from the operands' shapes; the value is one element.
            unsafe { kernel.run(task, args.input(0), value, args.output(0)) };
            Ok(())
        }))
    };
}
