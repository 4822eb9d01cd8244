//! What is added to the scores of attention, or put in their place.

use super::triangle::halves;
use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::ops::pointwise::{Binary, BinaryFn, Clip, Unary, UnaryFn, Where};
use crate::optimize::PassCtx;
use crate::optimize::pass::shape_of;
use std::sync::Arc;

/// A mask on the way from the scores to the softmax.
#[derive(Clone, Copy, Debug)]
pub enum Mask {
    /// Added.
    Added(ValueId),
    /// Where false (`!inverted`) or true the score becomes the number, which is not 0.
    Chosen { by: ValueId, inverted: bool, fill: f64 },
}

impl Mask {
    /// What is added, or chooses.
    pub fn value(&self) -> ValueId {
        let (Mask::Added(v) | Mask::Chosen { by: v, .. }) = *self;
        v
    }
}

/// Numbers below which a score has no weight left. Scores that a model means to keep are far above.
pub const OUT: f64 = -1e4;

/// If `op` chooses between scores and a number: the scores and the mask.
pub fn chosen(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(ValueId, Mask)> {
    let node = cx.node(id).filter(|n| n.op.is::<Where>())?;
    let &[Some(by), Some(a), Some(b)] = &node.inputs[..] else { return None };
    let number = |v: ValueId| cx.scalar(v).filter(|&k| k != 0.0 && !k.is_nan());
    match (number(a), number(b)) {
        (None, Some(fill)) => Some((a, Mask::Chosen { by, inverted: false, fill })),
        (Some(fill), None) => Some((b, Mask::Chosen { by, inverted: true, fill })),
        _ => None,
    }
}

/// Whether a node only keeps masked scores from minus infinity: below the number is nothing else.
pub fn floor(cx: &PassCtx<'_, '_>, id: NodeId) -> bool {
    let low = match cx.op::<Unary>(id) {
        Some(Unary { f: UnaryFn::Clip { low, high: None } }) => low.map(f64::from),
        _ => match cx.node(id).filter(|n| n.op.is::<Clip>()).map(|n| &n.inputs[..]) {
            Some(&[_, Some(low)] | &[_, Some(low), None]) => cx.scalar(low),
            _ => None,
        },
    };
    low.is_some_and(|low| low <= -1e30)
}

/// A mask's axes without the ones in front of those that scores of so many axes have.
fn axes<'c>(cx: &'c PassCtx<'_, '_>, mask: ValueId, rank: usize) -> Option<&'c [Dim]> {
    let d = cx.dims(mask)?;
    let (lead, own) = d.split_at(d.len().saturating_sub(rank));
    lead.iter().all(|d| d.known() == Some(1)).then_some(own)
}

/// Whether the mask's axes broadcast to those of the scores without making them larger, and are no more than `rank`. The keys'
/// axis is settled by the product with the values.
pub fn broadcasts(cx: &PassCtx<'_, '_>, mask: ValueId, scores: &[Dim], rank: usize) -> bool {
    let Some(d) = axes(cx, mask, rank) else { return false };
    d.len() <= scores.len()
        && d.iter()
            .rev()
            .zip(scores.iter().rev())
            .skip(1)
            .all(|(m, s)| m.known() == Some(1) || m.same(s) || m.is_capped(s))
}

/// Whether two masks are of as many items, not one of windows and one of whole batches.
fn in_step(cx: &PassCtx<'_, '_>, a: ValueId, b: ValueId) -> bool {
    let items = |v: ValueId| cx.dims(v).and_then(|d| d.iter().rev().nth(3).cloned()).unwrap_or(Dim::Known(1));
    let (a, b) = (items(a), items(b));
    a.same(&b) || [a, b].iter().any(|n| n.known() == Some(1))
}

/// Whether a mask leaves row i the keys up to its own place, which is `past` keys further on, and no others.
pub fn is_causal(cx: &PassCtx<'_, '_>, mask: Mask, past: &Dim) -> bool {
    match mask {
        Mask::Added(v) => matches!(halves(cx, v, past), Some((near, far)) if near == 0.0 && far <= OUT),
        Mask::Chosen { by, inverted, fill } => {
            let sees = |x: f64| (x != 0.0) != inverted;
            fill <= OUT && halves(cx, by, past).is_some_and(|(near, far)| sees(near) && !sees(far))
        }
    }
}

/// What the operator is given of masks.
pub struct Masks {
    /// In the order in which they apply; two at most.
    pub values: Vec<ValueId>,
    /// What takes a score's place where a mask of bool is false.
    pub fill: Option<f32>,
}

/// The operator's masks, from all that were met, the outermost first, for scores of `rank` axes. `None` where it would need
/// more than it has.
pub fn combined(cx: &mut PassCtx<'_, '_>, masks: &[Mask], rank: usize) -> Result<Option<Masks>> {
    // What each adds, or puts in the score's place.
    let mut all: Vec<(ValueId, Option<f64>)> = Vec::new();
    for (i, m) in masks.iter().enumerate().rev() {
        let (Mask::Added(v) | Mask::Chosen { by: v, .. }) = *m;
        let own = axes(cx, v, rank).map(<[Dim]>::to_vec).filter(|a| Some(a.len()) < cx.dims(v).map(<[Dim]>::len));
        let mut v = match own.map(|own| shape_of(own.iter(), &[])) {
            None => v,
            Some(Some(shape)) => cx.reshape(v, &shape)?,
            Some(None) => return Ok(None),
        };
        let fill = match *m {
            Mask::Added(_) => None,
            Mask::Chosen { inverted, fill, .. } => {
                if inverted {
                    let not = Unary { f: UnaryFn::Op(UnaryOp::Not) };
                    let name = format!("{}.not", cx.graph().value(v).name);
                    v = cx.edit.node(&name, Arc::new(not), vec![Some(v)], 1)?[0];
                }
                Some(fill)
            }
        };
        // Sums are two streams to the kernel, unless more is to come.
        match all.last().copied() {
            Some((before, kind)) if kind == fill && (fill.is_some() || all.len() + i >= 2) => {
                if !in_step(cx, before, v) {
                    return Ok(None);
                }
                let join = if fill.is_some() { BinaryFn::And } else { BinaryFn::Add };
                let name = format!("{}.mask", cx.graph().value(v).name);
                let both = vec![Some(before), Some(v)];
                all.pop();
                all.push((cx.edit.node(&name, Arc::new(Binary::new(join)), both, 1)?[0], fill));
            }
            _ => all.push((v, fill)),
        }
    }
    let mut fills = all.iter().filter_map(|m| m.1);
    let fill = fills.next();
    if all.len() > 2 || fills.next().is_some() {
        return Ok(None);
    }
    let narrow = |f: f64| if f.is_finite() { (f as f32).clamp(f32::MIN, f32::MAX) } else { f as f32 };
    Ok(Some(Masks { values: all.iter().map(|m| m.0).collect(), fill: fill.map(narrow) }))
}
