//! A matrix product and the views of its result: what is done to each element of a view, the product can do itself.

use crate::error::Result;
use crate::ir::{Alias, NodeId, ValueId};
use crate::kernels::gemm::Activation;
use crate::ops::linear::MatMul;
use crate::optimize::PassCtx;
use crate::optimize::pass::{same_shape, shape_of};
use std::sync::Arc;

/// A product that makes a value, or what the value is a view of.
pub struct Product {
    pub id: NodeId,
    pub op: MatMul,
    /// The product's own result.
    pub out: ValueId,
    /// The last view of it, if any.
    view: Option<NodeId>,
    /// Nobody else reads the product or a view of it, and nothing is applied to it yet.
    pub open: bool,
}

impl Product {
    /// The product behind `v`.
    pub fn of(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<Product> {
        let (mut out, mut view, mut open) = (v, None, true);
        loop {
            open &= cx.used_once(out);
            if let Some((id, op)) = cx.maker::<MatMul>(out) {
                open &= op.activation == Activation::None;
                return Some(Product { id, op: op.clone(), out, view, open });
            }
            let (id, node) = cx.made_by(out).filter(|(_, n)| n.op.alias() == Alias::View)?;
            view = view.or(Some(id));
            out = node.inputs.first().copied().flatten()?;
        }
    }
    /// The same, if it is open.
    pub fn open(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<Product> {
        Product::of(cx, v).filter(|p| p.open)
    }
    /// Lets the product, changed to `op` with `inputs`, do what node `later` does, which makes `value`.
    pub fn take(
        self,
        cx: &mut PassCtx<'_, '_>,
        op: MatMul,
        inputs: Vec<Option<ValueId>>,
        later: NodeId,
        value: ValueId,
    ) {
        let Some(view) = self.view else { return cx.absorb(self.id, Arc::new(op), inputs, later, value) };
        cx.edit.replace_op(self.id, Arc::new(op), inputs);
        cx.edit.move_output(view, 0, value);
        cx.edit.remove(later);
        cx.fired();
    }
    /// `v`, of the shape of the view, in the product's own shape. `None` where that cannot be told.
    pub fn behind(&self, cx: &mut PassCtx<'_, '_>, v: ValueId) -> Result<Option<ValueId>> {
        if self.view.is_none() || same_shape(cx.dims(v), cx.dims(self.out)) {
            return Ok(Some(v));
        }
        let mut from = v;
        while let Some((_, node)) = cx.made_by(from).filter(|(_, n)| n.op.alias() == Alias::View) {
            let Some(x) = node.inputs.first().copied().flatten() else { break };
            if same_shape(cx.dims(x), cx.dims(self.out)) {
                return Ok(Some(x));
            }
            from = x;
        }
        let (Some(own), Some(dims)) = (cx.dims(v), cx.dims(self.out)) else { return Ok(None) };
        let Some(shape) = shape_of(dims.iter(), own) else { return Ok(None) };
        cx.reshape(v, &shape).map(Some)
    }
}
