//! Lets a matrix product do what surrounds it: transposed operands, a number that scales it, the addition of a residual, an
//! activation.

use super::activation::take_activation;
use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::kernels::gemm::Activation;
use crate::ops::linear::MatMul;
use crate::ops::movement::Transpose;
use crate::ops::pointwise::BinaryFn;
use crate::optimize::pattern::binary;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::sync::Arc;

/// `activation(alpha * op(A) * op(B) + row + residual)`. Residuals and activations only in f32: narrower types round between
/// the operators.
pub struct MatMulEpilogue;

impl Pass for MatMulEpilogue {
    fn name(&self) -> &'static str {
        "matmul_epilogue"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            while turned(cx, id).is_some() {}
            let _ = scaled(cx, id);
            let _ = residual(cx, id);
            let _ = take_activation::<MatMul>(cx, id, &[DType::F32], |m| &mut m.activation);
        }
        Ok(())
    }
}

/// Reads an operand as it was before a transposition of its last two axes.
fn turned(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let op = cx.op::<MatMul>(id)?.clone();
    let node = cx.node(id)?.clone();
    for place in 0..2 {
        let Some((t, perm)) = cx.maker::<Transpose>(node.inputs[place]?).map(|(t, op)| (t, op.perm.clone())) else {
            continue;
        };
        let x = cx.node(t)?.inputs[0]?;
        let rank = cx.dims(x)?.len();
        let perm = perm.unwrap_or_else(|| (0..rank).rev().collect());
        let mut swapped: Vec<usize> = (0..rank).collect();
        if rank < 2 {
            continue;
        }
        swapped.swap(rank - 1, rank - 2);
        // With one B for all, the leading axes of A are more rows: only as it lies.
        if perm != swapped || place == 0 && rank > 2 {
            continue;
        }
        let mut inputs = node.inputs.clone();
        inputs[place] = Some(x);
        let op = match place {
            0 => MatMul { trans_a: !op.trans_a, ..op },
            _ => MatMul { trans_b: !op.trans_b, ..op },
        };
        let gone = node.inputs[place];
        cx.edit.replace_op(id, Arc::new(op), inputs);
        cx.prune(vec![gone]);
        cx.fired();
        return Some(());
    }
    None
}

/// The product that makes a value which nobody else reads.
fn open(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(NodeId, MatMul)> {
    let (id, op) = cx.maker::<MatMul>(v)?;
    (op.activation == Activation::None && cx.used_once(v)).then(|| (id, op.clone()))
}

/// `k * (A * B)`, where nothing is added yet.
fn scaled(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let f = binary(&*cx.node(id)?.op).filter(|f| matches!(f, BinaryFn::Mul | BinaryFn::Div))?;
    let node = cx.node(id)?.clone();
    let (&[Some(x), Some(y)], &[Some(out)]) = (&node.inputs[..], &node.outputs[..]) else { return None };
    let (v, k) = match (f, cx.scalar(x), cx.scalar(y)) {
        (_, _, Some(k)) => (x, if f == BinaryFn::Mul { k } else { 1.0 / k }),
        (BinaryFn::Mul, Some(k), _) => (y, k),
        _ => return None,
    };
    let (product, op) = open(cx, v)?;
    let made = cx.node(product)?.inputs.clone();
    if made.len() > 2 || cx.dtype(out) != Some(DType::F32) || cx.dims(out)?.len() != cx.dims(v)?.len() {
        return None;
    }
    let alpha = (f64::from(op.alpha) * k) as f32;
    cx.absorb(product, Arc::new(MatMul { alpha, ..op }), made, id, out);
    Some(())
}

fn same(a: Option<&[Dim]>, b: Option<&[Dim]>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)))
}

/// `A * B + residual`.
fn residual(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    binary(&*cx.node(id)?.op).filter(|f| *f == BinaryFn::Add)?;
    let node = cx.node(id)?.clone();
    let (&[Some(x), Some(y)], &[Some(out)]) = (&node.inputs[..], &node.outputs[..]) else { return None };
    if x == y || cx.dtype(out) != Some(DType::F32) {
        return None;
    }
    for (v, other) in [(y, x), (x, y)] {
        let Some((product, op)) = open(cx, v) else { continue };
        let mut inputs = cx.node(product)?.inputs.clone();
        if inputs.len() > 3 {
            continue;
        }
        if !same(cx.dims(v), cx.dims(other)) {
            cx.miss(id, || "the addend's shape is not known to be the product's".into());
            continue;
        }
        // A C that is there must be a row, as it comes.
        if let Some(c) = inputs.get(2).copied().flatten() {
            let row =
                cx.dims(c).is_some_and(|d| d.len() == 1) && same(cx.dims(c), cx.dims(v).map(|d| &d[d.len() - 1..]));
            let vector = cx.dims(v).is_some_and(|d| d.len() < 2);
            if !row || vector || op.beta != 1.0 {
                cx.miss(id, || "the product has a C that is no row".into());
                continue;
            }
        }
        inputs.resize(3, None);
        inputs.push(Some(other));
        cx.absorb(product, Arc::new(op), inputs, id, out);
        return Some(());
    }
    None
}
