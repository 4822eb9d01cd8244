//! Lets a convolution do what follows it: the addition of a residual, an activation.

use super::activation::take_activation;
use crate::error::Result;
use crate::ir::{NodeId, ValueId};
use crate::kernels::gemm::Activation;
use crate::ops::conv::{Conv, ConvTranspose};
use crate::ops::pointwise::{Binary, BinaryFn};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::sync::Arc;

/// `Conv + residual`, then an activation, or the other way round. Narrower types than f32 are rounded once, at the end.
pub struct ConvEpilogue;

/// The types that kernels compute in f32.
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

impl Pass for ConvEpilogue {
    fn name(&self) -> &'static str {
        "conv_epilogue"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            let _ = residual(cx, id);
            let _ = take_activation::<Conv>(cx, id, &FLOATS, |c| &mut c.activation)
                .or_else(|| take_activation::<ConvTranspose>(cx, id, &FLOATS, |c| &mut c.activation));
        }
        Ok(())
    }
}

/// The convolution that makes a value, if it has no residual yet, and nobody else reads the value.
fn open_conv(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(NodeId, Conv)> {
    let (id, op) = cx.maker::<Conv>(v)?;
    let free = !op.residual && cx.used_once(v) && cx.dtype(v).is_some_and(|d| FLOATS.contains(&d));
    free.then(|| (id, op.clone()))
}

fn residual(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    cx.op::<Binary>(id).filter(|b| b.f == BinaryFn::Add && b.axis.is_none())?;
    let node = cx.node(id)?.clone();
    let (&[Some(x), Some(y)], &[Some(out)]) = (&node.inputs[..], &node.outputs[..]) else { return None };
    // Of two convolutions the later one takes the other's result.
    let at = |v: ValueId| cx.graph().value(v).producer.and_then(|p| cx.graph().order().iter().position(|&i| i == p.0));
    let pairs = if at(y) > at(x) { [(y, x), (x, y)] } else { [(x, y), (y, x)] };
    for (v, other) in pairs {
        let Some((conv, op)) = open_conv(cx, v) else { continue };
        if x == y {
            continue;
        }
        let dims = |v: ValueId| cx.graph().fact(v).as_tensor().and_then(|t| t.dims.clone());
        let same = match (dims(v), dims(other)) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.same(b)),
            _ => false,
        };
        if !same {
            cx.miss(id, || "the addend's shape is not known to be the convolution's".into());
            continue;
        }
        let mut inputs = cx.node(conv)?.inputs.clone();
        inputs.resize(3, None);
        inputs.push(Some(other));
        let residual_last = op.activation != Activation::None;
        cx.absorb(conv, Arc::new(Conv { residual: true, residual_last, ..op }), inputs, id, out);
        return Some(());
    }
    None
}
