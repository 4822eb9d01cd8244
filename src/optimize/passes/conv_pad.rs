//! Lets a convolution pad its input itself: a Pad with zeros before it goes.

use crate::error::Result;
use crate::ir::NodeId;
use crate::kernels::movement::PadMode;
use crate::ops::conv::Conv;
use crate::ops::movement::Pad;
use crate::ops::window::{Pads, Window};
use crate::optimize::{Pass, PassCtx};
use std::sync::Arc;

/// `Conv(Pad(x))` with zeros along the spatial axes.
pub struct ConvPad;

impl Pass for ConvPad {
    fn name(&self) -> &'static str {
        "conv_pad"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            let _ = fuse(cx, id);
        }
        Ok(())
    }
}

fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let conv = cx.op::<Conv>(id)?.clone();
    let node = cx.node(id)?.clone();
    let padded = node.inputs.first().copied().flatten()?;
    let (pad, op) = cx.maker::<Pad>(padded).map(|(id, op)| (id, op.clone()))?;
    let made = cx.node(pad)?.clone();
    let at = |i: usize| made.inputs.get(i).copied().flatten();
    let x = at(0)?;
    let rank = cx.dims(x)?.len();
    let zero = match at(2) {
        Some(v) => cx.scalar(v) == Some(0.0),
        None => op.value == 0.0,
    };
    if op.mode != PadMode::Constant || !zero || !cx.used_once(padded) {
        cx.miss(id, || "the border is not of zeros, or the padded value has other users".into());
        return None;
    }
    let widths = cx.graph().fact(at(1)?).as_tensor()?.ints();
    let axes = match at(3) {
        Some(v) => cx.graph().fact(v).as_tensor()?.ints(),
        None => Some((0..rank as i64).collect()),
    };
    let (Some(widths), Some(axes)) = (widths, axes) else {
        cx.miss(id, || "the border's widths are not constant".into());
        return None;
    };
    let Pads::Explicit(old) = &conv.window.pads else {
        cx.miss(id, || "the convolution works out its own padding".into());
        return None;
    };
    let spatial = rank.checked_sub(2)?;
    let mut pads = if old.is_empty() { vec![0; 2 * spatial] } else { old.clone() };
    if pads.len() != 2 * spatial || widths.len() != 2 * axes.len() {
        return None;
    }
    for (i, &a) in axes.iter().enumerate() {
        let a = usize::try_from(if a < 0 { a + rank as i64 } else { a }).ok()?;
        let (begin, end) = (widths[i], widths[i + axes.len()]);
        if begin == 0 && end == 0 {
            continue;
        }
        // Not along batch or channels, and nothing is cut.
        if a < 2 || a >= rank || begin < 0 || end < 0 {
            cx.miss(id, || "the border is along batch or channels, or cuts".into());
            return None;
        }
        pads[a - 2] = pads[a - 2].checked_add(begin)?;
        pads[a - 2 + spatial] = pads[a - 2 + spatial].checked_add(end)?;
    }
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(x);
    let window = Window { pads: Pads::Explicit(pads), ..conv.window.clone() };
    cx.edit.replace_op(id, Arc::new(Conv { window, ..conv }), inputs);
    cx.prune(vec![Some(padded)]);
    cx.fired();
    Some(())
}
