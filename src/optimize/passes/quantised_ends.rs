//! What groups of quantised operators leave to floats: DequantizeLinear and QuantizeLinear beside elementwise operators and
//! normalisations become programs, which those take in.

use super::fuse_norm::has_room;
use super::fuse_pointwise::as_program;
use super::quantised::change_of_scale;
use crate::error::Result;
use crate::ir::NodeId;
use crate::ops::pointwise::Pointwise;
use crate::optimize::{Pass, PassCtx};
use std::sync::Arc;

/// See the file's head. It waits: other passes look for groups between the two operators, and may do so in later rounds.
pub struct QuantisedEnds;

impl Pass for QuantisedEnds {
    fn name(&self) -> &'static str {
        "quantised_ends"
    }
    fn waits(&self) -> bool {
        true
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            let _ = lower(cx, id);
        }
        Ok(())
    }
}

fn lower(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (program, of) = change_of_scale(cx, id)?;
    let out = cx.node(id)?.outputs.first().copied()??;
    let maker = cx.made_by(of).map(|m| m.0).filter(|_| cx.used_once(of));
    let user = cx.edit.users(out).first().copied().filter(|_| cx.used_once(out));
    (maker.is_some_and(|m| takes(cx, m, false)) || user.is_some_and(|u| takes(cx, u, true))).then_some(())?;
    let dtypes = vec![cx.dtype(out)?];
    cx.edit.replace_op(id, Arc::new(Pointwise { program, dtypes }), vec![Some(of)]);
    cx.fired();
    Some(())
}

/// Whether a node can take in what is done to each number before it, or behind it.
fn takes(cx: &PassCtx<'_, '_>, id: NodeId, before: bool) -> bool {
    has_room(cx, id, before) || as_program(cx, id).is_some() || change_of_scale(cx, id).is_some()
}
