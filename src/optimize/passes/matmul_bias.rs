//! Adds a constant row to a matrix product inside the product: MatMul + Add becomes MatMul with C.

use super::product::Product;
use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::ops::linear::MatMul;
use crate::ops::pointwise::BinaryFn;
use crate::optimize::pattern::commuted;
use crate::optimize::{Pass, PassCtx};

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
    let (orders, out) = commuted(cx, id, BinaryFn::Add)?;
    for (v, c) in orders {
        let Some(product) = Product::of(cx, v) else { continue };
        let Some(t) = cx.graph().fact(c).constant() else { continue };
        let last = |v: ValueId| cx.dims(v).and_then(|d| d.last().and_then(Dim::size));
        let width = last(v).filter(|_| last(v) == last(product.out));
        let is_row = t.shape().last().copied() == width
            && t.shape().iter().rev().skip(1).all(|&d| d == 1)
            && cx.dims(v).is_some_and(|d| t.shape().len() <= d.len());
        if !is_row || width.is_none() {
            cx.miss(id, || "the addend is not one value a column".into());
            continue;
        }
        let made = cx.graph().node(product.id).inputs.clone();
        let &[a, b] = &made[..] else {
            cx.miss(id, || "the product has a C already".into());
            continue;
        };
        if !product.open {
            cx.miss(id, || "the product has other users, or an activation".into());
            continue;
        }
        let row = t.reshaped(&[t.len()]).ok()?;
        let name = cx.graph().value(c).name.clone();
        let c = cx.edit.constant(&name, row);
        let op = MatMul { beta: 1.0, ..product.op.clone() };
        product.take(cx, op, vec![a, b, Some(c)], id, out);
        return Some(());
    }
    None
}
