//! Removes operators that change nothing.

use crate::error::Result;
use crate::ir::NodeId;
use crate::ops::shape;
use crate::optimize::{Pass, PassCtx};

/// Identity, and views that keep the shape.
pub struct Identity;

impl Pass for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            remove(cx, id);
        }
        Ok(())
    }
}

fn remove(cx: &mut PassCtx<'_, '_>, id: NodeId) {
    let Some(node) = cx.node(id) else { return };
    let (Some(&Some(from)), Some(&Some(to))) = (node.inputs.first(), node.outputs.first()) else { return };
    let same_shape = match (cx.graph().fact(from).as_tensor(), cx.graph().fact(to).as_tensor()) {
        (Some(a), Some(b)) => a.dims.is_some() && a.dims == b.dims && a.dims.iter().flatten().all(|d| d.same(d)),
        _ => false,
    };
    let is_view = node.op.is::<shape::Reshape>() || node.op.is::<shape::Squeeze>() || node.op.is::<shape::Unsqueeze>();
    if !(node.op.is::<shape::Identity>() || is_view && same_shape) {
        return;
    }
    cx.edit.replace_uses(to, from);
    cx.edit.remove(id);
    cx.fired();
}
