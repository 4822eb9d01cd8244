//! Which operators a kernel can apply to its result.

use crate::ir::NodeId;
use crate::kernels::gemm::Activation;
use crate::kernels::pointwise::UnaryOp;
use crate::ops::pointwise::{Clip, Unary, UnaryFn};
use crate::optimize::PassCtx;
use crate::tensor::DType;

/// The node as a kernel's last function, if it is one.
pub fn activation_of(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<Activation> {
    if cx.op::<Clip>(id).is_some() {
        let node = cx.node(id)?;
        let bound = |i: usize, default: f32| match node.inputs.get(i).copied().flatten() {
            None => Some(default),
            Some(v) => {
                let t = cx.graph().fact(v).constant().filter(|t| t.dtype() == DType::F32)?;
                t.as_slice::<f32>().ok()?.first().copied()
            }
        };
        let (min, max) = (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
        return (min <= max).then_some(Activation::Clip { min, max });
    }
    Some(match cx.op::<Unary>(id)?.f {
        UnaryFn::Op(UnaryOp::Relu) => Activation::Relu,
        UnaryFn::LeakyRelu { alpha } => Activation::LeakyRelu { alpha },
        UnaryFn::HardSigmoid { alpha, beta } => Activation::HardSigmoid { alpha, beta },
        UnaryFn::HardSwish => Activation::HardSwish,
        UnaryFn::Op(UnaryOp::Sigmoid) => Activation::Sigmoid,
        UnaryFn::Op(UnaryOp::Tanh) => Activation::Tanh,
        UnaryFn::Swish { alpha } => Activation::Swish { alpha },
        UnaryFn::Gelu { tanh: false } => Activation::Gelu,
        UnaryFn::Gelu { tanh: true } => Activation::GeluTanh,
        UnaryFn::Elu { alpha } => Activation::Elu { alpha },
        UnaryFn::Mish => Activation::Mish,
        UnaryFn::Clip { low, high } => {
            let (min, max) = (low.unwrap_or(f32::NEG_INFINITY), high.unwrap_or(f32::INFINITY));
            (min <= max).then_some(Activation::Clip { min, max })?
        }
        _ => return None,
    })
}
