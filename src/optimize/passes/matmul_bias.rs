//! Adds a constant row to a matrix product inside the product: MatMul + Add becomes MatMul with C.

use crate::error::Result;
use crate::ir::NodeId;
use crate::ops::linear::MatMul;
use crate::ops::pointwise::{Binary, BinaryFn};
use crate::optimize::{Pass, PassCtx};
use std::sync::Arc;

/// `MatMul(a, b) + c`, where c is a constant with one value a column.
pub struct MatMulBias;

impl Pass for MatMulBias {
    fn name(&self) -> &'static str {
        "matmul_bias"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            fuse(cx, id);
        }
        Ok(())
    }
}

fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let add = cx.op::<Binary>(id).filter(|b| b.f == BinaryFn::Add && b.axis.is_none())?;
    let _ = add;
    let node = cx.node(id)?.clone();
    let ([Some(x), Some(y)], [Some(out)]) = (&node.inputs[..], &node.outputs[..]) else { return None };
    for (product, c) in [(*x, *y), (*y, *x)] {
        let Some((maker, op)) = cx.maker::<MatMul>(product) else { continue };
        let op = op.clone();
        let made = cx.node(maker)?.clone();
        let width = cx.graph().fact(product).as_tensor().and_then(|t| t.dims.as_ref()?.last()?.size());
        let Some(t) = cx.graph().fact(c).constant() else { continue };
        let is_row = Some(t.len()) == width
            && t.shape().iter().rev().skip(1).all(|&d| d == 1)
            && t.shape().last().copied() == width;
        let rank = cx.graph().fact(product).as_tensor().and_then(|t| t.rank()).unwrap_or(0);
        if !is_row || t.shape().len() > rank {
            cx.miss(id, || "the addend is not one value a column".into());
            continue;
        }
        if made.inputs.len() > 2 || !cx.used_once(product) {
            cx.miss(id, || "the product has a C already, or other users".into());
            continue;
        }
        let row = t.reshaped(&[t.len()]).ok()?;
        let name = cx.graph().value(c).name.clone();
        let c = cx.edit.constant(&name, row);
        let inputs = vec![made.inputs[0], made.inputs[1], Some(c)];
        cx.absorb(maker, Arc::new(MatMul { beta: 1.0, ..op }), inputs, id, *out);
        return Some(());
    }
    None
}
