//! Operators that a narrow model computes in f32 between two casts: those whose kernels widen by themselves and round once
//! at the end do so without the casts, and give the same bits.

use crate::error::Result;
use crate::ir::{NodeId, Op, ValueId};
use crate::ops::cast::Cast;
use crate::ops::norm::{ChannelNorm, LayerNormalization, LpNormalization};
use crate::ops::softmax::Softmax;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use half::{bf16, f16};

/// Cast to f32, softmax or a normalisation, cast back.
pub struct Narrow;

impl Pass for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            narrow(cx, id)?;
        }
        Ok(())
    }
}

fn widens(op: &dyn Op) -> bool {
    op.is::<Softmax>() || op.is::<LayerNormalization>() || op.is::<ChannelNorm>() || op.is::<LpNormalization>()
}

fn narrow(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    if cx.op::<Cast>(id).is_none() {
        return Ok(());
    }
    let node = cx.graph().node(id).clone();
    let (Some(&Some(wide)), &[Some(out)]) = (node.inputs.first(), &node.outputs[..]) else { return Ok(()) };
    let to = cx.dtype(out).filter(|d| matches!(d, DType::F16 | DType::BF16));
    let made = cx.made_by(wide).filter(|(_, n)| widens(&*n.op) && n.outputs.len() == 1);
    let (Some(to), Some((_, made))) = (to, made.map(|(i, n)| (i, n.clone()))) else { return Ok(()) };
    let Some(&Some(first)) = made.inputs.first() else { return Ok(()) };
    let Some(x) = source(cx, first).filter(|&x| cx.dtype(x) == Some(to) && cx.dtype(first) == Some(DType::F32)) else {
        return Ok(());
    };
    if !cx.used_once(wide) {
        cx.miss(id, || "the wide result has other users".into());
        return Ok(());
    }
    let mut inputs = vec![Some(x)];
    for v in &made.inputs[1..] {
        let Some(v) = *v else {
            inputs.push(None);
            continue;
        };
        let narrowed = match source(cx, v).filter(|&x| cx.dtype(x) == Some(to)) {
            Some(x) => Some(x),
            None => match cx.graph().fact(v).constant().map(|t| exact(t, to)).transpose()?.flatten() {
                Some(t) => {
                    let name = cx.graph().value(v).name.clone();
                    Some(cx.edit.constant(&name, t))
                }
                None => None,
            },
        };
        if narrowed.is_none() {
            let name = cx.graph().value(v).name.clone();
            cx.miss(id, || format!("'{name}' does not fit {to} without rounding"));
            return Ok(());
        }
        inputs.push(narrowed);
    }
    cx.substitute(out, made.op, inputs)?;
    Ok(())
}

/// What a cast that makes the value reads.
fn source(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<ValueId> {
    let (cast, _) = cx.maker::<Cast>(v)?;
    cx.node(cast)?.inputs.first().copied().flatten()
}

/// A constant of f32 in a narrow type, if none of its numbers is rounded.
fn exact(t: &Tensor, to: DType) -> Result<Option<Tensor>> {
    let Ok(x) = t.as_slice::<f32>() else { return Ok(None) };
    Ok(match to {
        DType::F16 => {
            let y: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
            let same = y.iter().zip(x).all(|(y, x)| y.to_f32() == *x);
            same.then(|| Tensor::from_slice(t.shape(), &y)).transpose()?
        }
        DType::BF16 => {
            let y: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
            let same = y.iter().zip(x).all(|(y, x)| y.to_f32() == *x);
            same.then(|| Tensor::from_slice(t.shape(), &y)).transpose()?
        }
        _ => None,
    })
}
