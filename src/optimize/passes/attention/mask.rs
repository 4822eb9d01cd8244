//! What is added to the scores of attention, or put in their place.

use super::triangle::halves;
use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::ops::pointwise::{Binary, BinaryFn, Unary, UnaryFn, Where};
use crate::optimize::PassCtx;
use crate::optimize::pass::shape_of;
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// A mask on the way from the scores to the softmax.
#[derive(Clone, Copy, Debug)]
pub enum Mask {
    /// Added.
    Added(ValueId),
    /// Where false (`!inverted`) or true the score becomes the number.
    Chosen { by: ValueId, inverted: bool, fill: f64 },
}

/// Numbers below which a score has no weight left. Scores that a model means to keep are far above.
pub const OUT: f64 = -1e4;

/// If `op` chooses between scores and a very low number: the scores and the mask.
pub fn chosen(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(ValueId, Mask)> {
    let node = cx.node(id).filter(|n| n.op.is::<Where>())?;
    let &[Some(by), Some(a), Some(b)] = &node.inputs[..] else { return None };
    let low = |v: ValueId| cx.scalar(v).filter(|&k| k <= OUT);
    match (low(a), low(b)) {
        (None, Some(fill)) => Some((a, Mask::Chosen { by, inverted: false, fill })),
        (Some(fill), None) => Some((b, Mask::Chosen { by, inverted: true, fill })),
        _ => None,
    }
}

/// A mask's axes without the ones in front of those that scores of so many axes have.
fn axes<'c>(cx: &'c PassCtx<'_, '_>, mask: ValueId, rank: usize) -> Option<&'c [Dim]> {
    let d = cx.dims(mask)?;
    let (lead, own) = d.split_at(d.len().saturating_sub(rank));
    lead.iter().all(|d| d.known() == Some(1)).then_some(own)
}

/// Whether the mask's axes broadcast to those of the scores without making them larger. The keys' axis is settled by the
/// product with the values.
pub fn broadcasts(cx: &PassCtx<'_, '_>, mask: ValueId, scores: &[Dim]) -> bool {
    let Some(d) = axes(cx, mask, scores.len()) else { return false };
    d.len() <= scores.len()
        && d.iter()
            .rev()
            .zip(scores.iter().rev())
            .skip(1)
            .all(|(m, s)| m.known() == Some(1) || m.same(s) || m.is_capped(s))
}

/// Whether a mask leaves row i the keys up to its own place, which is `past` keys further on, and no others.
pub fn is_causal(cx: &PassCtx<'_, '_>, mask: Mask, past: &Dim) -> bool {
    match mask {
        Mask::Added(v) => matches!(halves(cx, v, past), Some((near, far)) if near == 0.0 && far <= OUT),
        Mask::Chosen { by, inverted, .. } => {
            let sees = |x: f64| (x != 0.0) != inverted;
            halves(cx, by, past).is_some_and(|(near, far)| sees(near) && !sees(far))
        }
    }
}

/// The operator's mask and what false means in it, from all that were met, for scores of `rank` axes; the outermost first.
pub fn combined(cx: &mut PassCtx<'_, '_>, masks: &[Mask], dtype: DType, rank: usize) -> Result<Option<(ValueId, f32)>> {
    let mut all: Option<(ValueId, Option<f64>)> = None;
    for &m in masks {
        let (Mask::Added(v) | Mask::Chosen { by: v, .. }) = m;
        let own = axes(cx, v, rank).map(<[Dim]>::to_vec).filter(|a| Some(a.len()) < cx.dims(v).map(<[Dim]>::len));
        let v = match own.map(|own| shape_of(own.iter(), &[])) {
            None => v,
            Some(Some(shape)) => cx.reshape(v, &shape)?,
            Some(None) => return Ok(None),
        };
        let m = match m {
            Mask::Added(_) => Mask::Added(v),
            Mask::Chosen { inverted, fill, .. } => Mask::Chosen { by: v, inverted, fill },
        };
        let next = match m {
            Mask::Added(v) => (v, None),
            Mask::Chosen { by, inverted: false, fill } => (by, Some(fill)),
            Mask::Chosen { by, inverted: true, fill } => {
                let not = Unary { f: UnaryFn::Op(UnaryOp::Not) };
                let name = format!("{}.not", cx.graph().value(by).name);
                (cx.edit.node(&name, Arc::new(not), vec![Some(by)], 1)?[0], Some(fill))
            }
        };
        let name = format!("{}.mask", cx.graph().value(next.0).name);
        all = Some(match all {
            None => next,
            Some(have) => match (have, next) {
                ((a, Some(f)), (b, Some(g))) if f == g => {
                    let and = Arc::new(Binary::new(BinaryFn::And));
                    (cx.edit.node(&name, and, vec![Some(a), Some(b)], 1)?[0], Some(f))
                }
                (a, b) => {
                    let (a, b) = (as_added(cx, a, dtype)?, as_added(cx, b, dtype)?);
                    let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
                    let add = Arc::new(Binary::new(BinaryFn::Add));
                    (cx.edit.node(&name, add, vec![Some(a), Some(b)], 1)?[0], None)
                }
            },
        });
    }
    Ok(all.map(|(v, fill)| match fill {
        // A number so low that no score shows beside it, as where it takes the score's place.
        Some(f) if f.is_finite() => (v, f32::MIN),
        _ => (v, f32::NEG_INFINITY),
    }))
}

/// A mask as numbers to add.
fn as_added(cx: &mut PassCtx<'_, '_>, (v, fill): (ValueId, Option<f64>), dtype: DType) -> Result<Option<ValueId>> {
    let Some(fill) = fill else { return Ok(Some(v)) };
    if dtype != DType::F32 {
        return Ok(None);
    }
    // Half of the lowest: two of them can be added.
    let low = if fill.is_finite() { f32::MIN / 2.0 } else { f32::NEG_INFINITY };
    let zero = cx.edit.constant("zero", Tensor::scalar(0.0f32)?);
    let low = cx.edit.constant("out", Tensor::scalar(low)?);
    let name = format!("{}.added", cx.graph().value(v).name);
    Ok(Some(cx.edit.node(&name, Arc::new(Where), vec![Some(v), Some(zero), Some(low)], 1)?[0]))
}
