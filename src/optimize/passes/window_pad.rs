//! Lets a convolution or pool pad its input itself: a Pad before it goes.

use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{NodeId, Op, ValueId};
use crate::kernels::gemm::Activation;
use crate::kernels::movement::PadMode;
use crate::kernels::pointwise::UnaryOp;
use crate::ops::conv::Conv;
use crate::ops::movement::Pad;
use crate::ops::pointwise::{Clip, Unary, UnaryFn};
use crate::ops::pool::{Pool, PoolKind};
use crate::ops::window::{Pads, Window};
use crate::optimize::{Pass, PassCtx};
use std::sync::Arc;

/// A border along the spatial axes, of what the operator takes its own border for: zeros for a convolution and for a mean
/// that counts them; for a maximum minus infinity, the edge itself, or zeros around what is not negative.
pub struct WindowPad;

impl Pass for WindowPad {
    fn name(&self) -> &'static str {
        "window_pad"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            let _ = fuse(cx, id);
        }
        Ok(())
    }
}

/// What slides over the input.
enum Slides {
    Conv(Conv),
    Pool(Pool),
}

impl Slides {
    fn window(&self) -> &Window {
        match self {
            Slides::Conv(c) => &c.window,
            Slides::Pool(p) => &p.window,
        }
    }
    /// The same with other padding.
    fn padded(self, pads: Vec<i64>) -> Arc<dyn Op> {
        let pads = Pads::Explicit(pads);
        match self {
            Slides::Conv(c) => Arc::new(Conv { window: Window { pads, ..c.window }, ..c }),
            Slides::Pool(p) => {
                let include_pad = p.kind == PoolKind::Average;
                Arc::new(Pool { window: Window { pads, ..p.window }, include_pad, ..p })
            }
        }
    }
}

/// Whether no element is below zero, as far as its maker tells.
fn is_never_negative(cx: &PassCtx<'_, '_>, v: ValueId) -> bool {
    let Some((id, node)) = cx.made_by(v) else { return false };
    let clipped = || node.inputs.get(1).copied().flatten().and_then(|low| cx.scalar(low)).is_some_and(|low| low >= 0.0);
    let activation = match cx.op::<Conv>(id) {
        Some(c) => matches!(c.activation, Activation::Relu | Activation::Sigmoid),
        None => false,
    };
    let unary = cx.op::<Unary>(id).is_some_and(|u| match u.f {
        UnaryFn::Op(UnaryOp::Relu | UnaryOp::Sigmoid | UnaryOp::Abs) => true,
        UnaryFn::Clip { low, .. } => low.is_some_and(|l| l >= 0.0),
        _ => false,
    });
    activation || unary || node.op.is::<Clip>() && clipped()
}

fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let slides = match (cx.op::<Conv>(id), cx.op::<Pool>(id)) {
        (Some(c), _) => Slides::Conv(c.clone()),
        (_, Some(p)) if matches!(p.kind, PoolKind::Max | PoolKind::Average) => Slides::Pool(p.clone()),
        _ => return None,
    };
    let node = cx.node(id)?.clone();
    let padded = node.inputs.first().copied().flatten()?;
    let (pad, op) = cx.maker::<Pad>(padded).map(|(id, op)| (id, op.clone()))?;
    let made = cx.node(pad)?.clone();
    let at = |i: usize| made.inputs.get(i).copied().flatten();
    let x = at(0)?;
    let rank = cx.dims(x)?.len();
    let value = match at(2) {
        Some(v) => cx.scalar(v),
        None => Some(f64::from(op.value)),
    };
    let neutral = match (&slides, op.mode) {
        (Slides::Pool(p), PadMode::Constant) if p.kind == PoolKind::Max => {
            value == Some(f64::NEG_INFINITY) || value == Some(0.0) && is_never_negative(cx, x)
        }
        // A window without gaps that meets the border meets the edge that the border repeats.
        (Slides::Pool(p), PadMode::Edge) => p.kind == PoolKind::Max && p.window.dilations.iter().all(|&d| d == 1),
        (_, mode) => mode == PadMode::Constant && value == Some(0.0),
    };
    if !neutral || !cx.used_once(padded) {
        cx.miss(id, || "the border is not what the operator takes it for, or the padded value has other users".into());
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
    let Pads::Explicit(old) = &slides.window().pads else {
        cx.miss(id, || "the operator works out its own padding".into());
        return None;
    };
    let spatial = rank.checked_sub(2)?;
    let mut pads = if old.is_empty() { vec![0; 2 * spatial] } else { old.clone() };
    if pads.len() != 2 * spatial || widths.len() != 2 * axes.len() {
        return None;
    }
    if let Slides::Pool(p) = &slides {
        // Places of its own border count otherwise, and so do windows that reach past it.
        let bare = pads.iter().all(|&p| p == 0);
        if p.kind == PoolKind::Average && !bare && !p.include_pad || p.window.ceil || node.outputs.len() > 1 {
            cx.miss(id, || "the pool counts its own border otherwise, rounds its sizes up, or gives indices".into());
            return None;
        }
    }
    for (i, &a) in axes.iter().enumerate() {
        let a = resolve_axis(a, rank).ok()?;
        let (begin, end) = (widths[i], widths[i + axes.len()]);
        if begin == 0 && end == 0 {
            continue;
        }
        // Not along batch or channels, and nothing is cut.
        if a < 2 || begin < 0 || end < 0 {
            cx.miss(id, || "the border is along batch or channels, or cuts".into());
            return None;
        }
        pads[a - 2] = pads[a - 2].checked_add(begin)?;
        pads[a - 2 + spatial] = pads[a - 2 + spatial].checked_add(end)?;
    }
    if let (Slides::Pool(p), Some(kernel)) = (&slides, &slides.window().kernel) {
        // Each window of a maximum must meet an element.
        let met = pads.iter().enumerate().all(|(i, &p)| kernel.get(i % spatial.max(1)).is_some_and(|&k| p < k));
        if p.kind == PoolKind::Max && !met {
            cx.miss(id, || "a window could lie in the border alone".into());
            return None;
        }
    }
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(x);
    cx.edit.replace_op(id, slides.padded(pads), inputs);
    cx.prune(vec![Some(padded)]);
    cx.fired();
    Some(())
}
