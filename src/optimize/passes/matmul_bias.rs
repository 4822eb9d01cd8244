//! Adds a constant row to a matrix product inside the product: MatMul + Add becomes MatMul with C.

use super::product::Product;
use crate::error::Result;
use crate::ir::{Dim, NodeId};
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
        // The row, which a view may cut into several axes.
        let width = cx.dims(product.out).and_then(|d| d.last()?.size());
        let is_row = |d: &[Dim]| -> Option<bool> {
            let (mut n, mut first) = (1, d.len());
            while n < width? {
                first = first.checked_sub(1)?;
                n *= d.get(first)?.size()?;
            }
            let own = t.shape().len().checked_sub(d.len() - first)?;
            let (lead, row) = t.shape().split_at(own);
            let same = row.iter().zip(&d[first..]).all(|(&r, d)| d.size() == Some(r));
            Some(n == width? && t.shape().len() <= d.len() && same && lead.iter().all(|&d| d == 1))
        };
        if t.is_empty() || cx.dims(v).and_then(is_row) != Some(true) {
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
