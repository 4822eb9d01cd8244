//! What is added to the scores of attention, or put in their place.

use super::triangle::{self, halves};
use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::ops::cast::Cast;
use crate::ops::movement::Expand;
use crate::ops::pointwise::{Binary, BinaryFn, Clip, Unary, UnaryFn, Where};
use crate::ops::shape::Squeeze;
use crate::optimize::PassCtx;
use crate::optimize::pass::{Regroup, same_shape, shape_of};
use crate::optimize::pattern::{binary, is_op};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// A mask on the way from the scores to the softmax.
#[derive(Clone, Copy, Debug)]
pub enum Mask {
    /// Added.
    Added(ValueId),
    /// Where false (`!inverted`) or true the number is added or, not being 0, takes the score's place.
    Chosen { by: ValueId, inverted: bool, fill: Fill },
}

/// A number for where a mask of bool is false.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    pub by: f64,
    /// It takes the score's place; else it is added.
    pub replaces: bool,
}

impl Mask {
    /// One that chooses by a value, which may be the opposite of another.
    fn chosen(cx: &PassCtx<'_, '_>, by: ValueId, inverted: bool, fill: Fill) -> Mask {
        let (by, opposite) = flag(cx, by).unwrap_or((by, false));
        Mask::Chosen { by, inverted: inverted != opposite, fill }
    }
    /// The same of another value.
    pub fn with(self, v: ValueId) -> Mask {
        match self {
            Mask::Added(_) => Mask::Added(v),
            Mask::Chosen { inverted, fill, .. } => Mask::Chosen { by: v, inverted, fill },
        }
    }
    /// What is added, or chooses.
    pub fn value(&self) -> ValueId {
        let (Mask::Added(v) | Mask::Chosen { by: v, .. }) = *self;
        v
    }
}

/// Numbers below which a score has no weight left. Scores that a model means to keep are far above.
pub const OUT: f64 = -1e4;

/// If a node chooses between scores and a number, or those and a number more, by Where or by the sum of both multiplied with 1 and
/// 0: the scores and the mask.
pub fn chosen(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(ValueId, Mask)> {
    let node = cx.node(id)?;
    if let &[Some(a), Some(b)] = &node.inputs[..] {
        return match binary(&*node.op)? {
            BinaryFn::Add => weighed(cx, a, b, 1.0).or_else(|| weighed(cx, b, a, 1.0)),
            BinaryFn::Sub => weighed(cx, a, b, -1.0),
            _ => None,
        };
    }
    let &[Some(by), Some(a), Some(b)] = &node.inputs[..] else { return None };
    node.op.is::<Where>().then(|| choice(cx, by, a, b))?
}

/// `a` where true, `b` where false.
fn choice(cx: &PassCtx<'_, '_>, by: ValueId, a: ValueId, b: ValueId) -> Option<(ValueId, Mask)> {
    let number = |v: ValueId| cx.scalar(v).filter(|&k| k != 0.0 && !k.is_nan());
    let (scores, inverted, fill) = match (number(a), number(b), shift(cx, a), shift(cx, b)) {
        (None, Some(fill), ..) => (a, false, Fill { by: fill, replaces: true }),
        (Some(fill), None, ..) => (b, true, Fill { by: fill, replaces: true }),
        (.., Some((s, k)), _) if s == b => (b, true, Fill { by: k, replaces: false }),
        (.., Some((s, k))) if s == a => (a, false, Fill { by: k, replaces: false }),
        _ => return None,
    };
    Some((scores, Mask::chosen(cx, by, inverted, fill)))
}

/// What a value is a number more than.
fn shift(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(ValueId, f64)> {
    let (_, node) = cx.made_by(v)?;
    let &[Some(x), Some(y)] = &node.inputs[..] else { return None };
    let (of, k) = match (binary(&*node.op)?, cx.scalar(x), cx.scalar(y)) {
        (BinaryFn::Add, _, Some(k)) => (x, k),
        (BinaryFn::Add, Some(k), _) => (y, k),
        (BinaryFn::Sub, _, Some(k)) => (x, -k),
        _ => return None,
    };
    (!k.is_nan()).then_some((of, k))
}

/// `a * flags` and `b * (1 - flags)`, the latter added `sign` times: one or the other.
fn weighed(cx: &PassCtx<'_, '_>, kept: ValueId, rest: ValueId, sign: f64) -> Option<(ValueId, Mask)> {
    let factors = |v: ValueId| {
        let (_, node) = cx.made_by(v).filter(|(_, n)| binary(&*n.op) == Some(BinaryFn::Mul))?;
        let &[Some(a), Some(b)] = &node.inputs[..] else { return None };
        Some([(a, b), (b, a)])
    };
    let opposite = |a: ValueId, b: ValueId| match (flag(cx, a), flag(cx, b)) {
        (Some((v, on)), Some((w, off))) if v == w => on != off,
        _ => triangle::complement(cx, a, b) == Some(1.0),
    };
    factors(kept)?.into_iter().find_map(|(a, flags)| {
        let (by, inverted) = flag(cx, flags)?;
        let with = |fill: f64| Some((a, Mask::chosen(cx, by, inverted, Fill { by: sign * fill, replaces: true })));
        for (b, _) in factors(rest).into_iter().flatten().filter(|&(_, other)| opposite(flags, other)) {
            if let Some(k) = cx.scalar(b) {
                return with(k);
            }
            let (yes, no) = if inverted { (b, a) } else { (a, b) };
            if let Some(found) = choice(cx, by, yes, no).filter(|_| sign == 1.0) {
                return Some(found);
            }
        }
        // The number and its flags, folded.
        with(triangle::complement(cx, flags, rest)?)
    })
}

/// What a tensor of ones and zeros is made from, and whether it is 0 where that is true.
pub fn flag(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(ValueId, bool)> {
    let made = cx.made_by(v);
    let input = |i: usize| made?.1.inputs.get(i).copied().flatten();
    if let Some((_, node)) = made {
        let of_bool = node.op.is::<Cast>() && cx.dtype(input(0)?) == Some(DType::Bool);
        if of_bool || is_op(&*node.op, UnaryOp::Not) {
            let (by, inverted) = flag(cx, input(0)?)?;
            return Some((by, inverted == of_bool));
        }
        if binary(&*node.op) == Some(BinaryFn::Sub) && cx.scalar(input(0)?) == Some(1.0) {
            return flag(cx, input(1)?).map(|(by, inverted)| (by, !inverted));
        }
    }
    (cx.dtype(v) == Some(DType::Bool) || triangle::is_flags(cx, v)).then_some((v, false))
}

/// What a mask of scores of these axes is before it was repeated for them.
pub fn unspread(cx: &PassCtx<'_, '_>, mut v: ValueId, scores: Option<&[Dim]>) -> ValueId {
    while let Some((_, node)) = cx.made_by(v).filter(|_| same_shape(cx.dims(v), scores)) {
        let all = |v: ValueId| triangle::number(cx, v) == Some(1.0) && same_shape(cx.dims(v), scores);
        let next = match node.inputs[..] {
            [Some(x), _] if node.op.is::<Expand>() => Some(x),
            [Some(x), Some(y)] if binary(&*node.op) == Some(BinaryFn::And) => match (all(x), all(y)) {
                (true, _) => Some(y),
                (_, true) => Some(x),
                _ => None,
            },
            _ => None,
        };
        match next {
            Some(x) => v = x,
            None => break,
        }
    }
    v
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

/// How the mask's axes, no more than `rank`, broadcast to those of the scores: certainly without making them larger, or perhaps
/// (true). The keys' axis is settled by the product with the values.
pub fn meets(cx: &PassCtx<'_, '_>, mask: ValueId, scores: &[Dim], rank: usize) -> Option<bool> {
    let d = axes(cx, mask, rank).filter(|d| d.len() <= scores.len())?;
    let mut open = false;
    for (m, s) in d.iter().rev().zip(scores.iter().rev()).skip(1) {
        if m.known() != Some(1) && !m.same(s) && !m.is_capped(s) {
            open = true;
            if let (Some(m), Some(s)) = (m.known(), s.known()) {
                (m == s || s == 1).then_some(())?;
            }
        }
    }
    Some(open)
}

/// A mask of scores whose heads are two axes, with one axis for all; `None` if it has one of the two alone.
pub fn of_all_heads(cx: &mut PassCtx<'_, '_>, m: Mask, scores: &[Dim]) -> Result<Option<Mask>> {
    let Some(own) = cx.dims(m.value()).map(<[Dim]>::to_vec) else { return Ok(None) };
    if own.len() < 3 {
        return Ok(Some(m));
    }
    let all = [&vec![Dim::Known(1); scores.len().saturating_sub(own.len())][..], &own].concat();
    let ([batch, groups, each, rows @ ..], [_, of_groups, of_each, ..]) = (&all[..], scores) else { return Ok(None) };
    let whole = groups.same(of_groups) && each.same(of_each);
    if groups.known() == Some(1) && each.known() == Some(1) {
        let (name, at) = (format!("{}.heads", cx.graph().value(m.value()).name), own.len() as i64 - 3);
        let axis = cx.edit.constant(&format!("{name}.axis"), Tensor::from_slice(&[1], &[at])?);
        let inputs = vec![Some(m.value()), Some(axis)];
        return Ok(Some(m.with(cx.edit.node(&name, Arc::new(Squeeze), inputs, 1)?[0])));
    }
    let to = [&[batch.clone(), groups.clone() * each.clone()], rows].concat();
    match Regroup::of(&to, &own).filter(|_| whole) {
        Some(axes) => Ok(Some(m.with(axes.of_value(cx, m.value())?))),
        None => Ok(None),
    }
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
            fill.by <= OUT && halves(cx, by, past).is_some_and(|(near, far)| sees(near) && !sees(far))
        }
    }
}

/// What the operator is given of masks.
pub struct Masks {
    /// In the order in which they apply; two at most.
    pub values: Vec<ValueId>,
    /// What a mask of bool says of a score where it is false.
    pub fill: Option<Fill>,
}

/// The flags and the number of a mask that is added, if it was made of those: 0 where true.
fn flags_of(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(ValueId, f64)> {
    let (_, node) = cx.made_by(v).filter(|(_, n)| n.op.is::<Where>())?;
    let &[Some(by), Some(a), Some(b)] = &node.inputs[..] else { return None };
    let (by, inverted) = flag(cx, by)?;
    let (seen, fill) = if inverted { (b, a) } else { (a, b) };
    (cx.scalar(seen)? == 0.0).then_some((by, cx.scalar(fill).filter(|f| !f.is_nan())?))
}

/// The operator's masks, from all that were met, the outermost first, for scores of `rank` axes. `None` where it would need
/// more than it has.
pub fn combined(cx: &mut PassCtx<'_, '_>, masks: &[Mask], rank: usize) -> Result<Option<Masks>> {
    // What each adds, or puts in the score's place.
    let mut all: Vec<(ValueId, Option<Fill>)> = Vec::new();
    for (i, m) in masks.iter().enumerate().rev() {
        let mut v = m.value();
        let fill = match *m {
            Mask::Added(_) => flags_of(cx, v).map(|(by, fill)| {
                v = by;
                Fill { by: fill, replaces: false }
            }),
            Mask::Chosen { inverted, fill, .. } => {
                let name = cx.graph().value(v).name.clone();
                if cx.dtype(v) != Some(DType::Bool) {
                    let cast = Arc::new(Cast::new(DType::Bool));
                    v = cx.edit.node(&format!("{name}.flags"), cast, vec![Some(v)], 1)?[0];
                }
                if inverted {
                    let not = Arc::new(Unary { f: UnaryFn::Op(UnaryOp::Not) });
                    v = cx.edit.node(&format!("{name}.not"), not, vec![Some(v)], 1)?[0];
                }
                Some(fill)
            }
        };
        let own = axes(cx, v, rank).map(<[Dim]>::to_vec).filter(|a| Some(a.len()) < cx.dims(v).map(<[Dim]>::len));
        let v = match own.map(|own| shape_of(own.iter(), &[])) {
            None => v,
            Some(Some(shape)) => cx.reshape(v, &shape)?,
            Some(None) => return Ok(None),
        };
        // Sums are two streams to the kernel, unless more is to come.
        match all.last().copied() {
            Some((before, kind)) if kind == fill && (fill.is_some_and(|f| f.replaces) || all.len() + i >= 2) => {
                if !in_step(cx, before, v) {
                    return Ok(None);
                }
                // Twice the number is less than it, not what one of them adds.
                if fill.is_some_and(|f| !f.replaces && f.by > f64::NEG_INFINITY) {
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
    if all.len() > 2 || fills.any(|f| Some(f) != fill) {
        return Ok(None);
    }
    Ok(Some(Masks { values: all.iter().map(|m| m.0).collect(), fill }))
}

impl Fill {
    /// The number in the operator's precision.
    pub fn narrow(&self) -> f32 {
        let f = self.by;
        if f.is_finite() { (f as f32).clamp(f32::MIN, f32::MAX) } else { f as f32 }
    }
}
