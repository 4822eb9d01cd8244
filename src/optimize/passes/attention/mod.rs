//! Attention that exporters write out as two products and a softmax becomes the operator whose kernel never stores the scores;
//! where the model has the operator already, it takes its operands from where they lie.

mod given;
mod mask;
mod place;
mod trace;
mod triangle;

use self::mask::Mask;
use self::place::{exact_scale, joined, lay, operands, place};
use self::trace::trace;
use crate::error::Result;
use crate::ir::{Alias, Dim, NodeId, ValueId};
use crate::kernels::gemm::Activation;
use crate::kernels::normalise::SoftmaxKind;
use crate::kernels::pointwise::UnaryOp;
use crate::kernels::reduce::ReduceKind;
use crate::ops::attention::{Attention, Role};
use crate::ops::cast::Cast;
use crate::ops::linear::MatMul;
use crate::ops::pointwise::{BinaryFn, Where};
use crate::ops::reduce::Reduce;
use crate::ops::shape::Identity;
use crate::ops::softmax::Softmax;
use crate::optimize::pass::same_shape;
use crate::optimize::pattern::{binary, is_op};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;

/// `softmax(scale * Q K' + mask) V`, with Q, K and V wherever they lie.
///
/// A row whose every key is masked by minus infinity gives 0, where the softmax of the written-out form gives NaN.
pub struct FuseAttention;

impl Pass for FuseAttention {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            let done = if cx.op::<Attention>(id).is_some() { given::lay_given(cx, id) } else { fuse(cx, id) };
            match done {
                Ok(()) | Err(Stop::No) => {}
                Err(Stop::Near(why)) => cx.miss(id, || why),
                Err(Stop::Error(e)) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Why there is no fusion.
enum Stop {
    /// It is something else.
    No,
    /// It is attention, but for this.
    Near(String),
    Error(crate::error::Error),
}

impl From<crate::error::Error> for Stop {
    fn from(e: crate::error::Error) -> Stop {
        Stop::Error(e)
    }
}

fn near<T>(why: impl Into<String>) -> std::result::Result<T, Stop> {
    Err(Stop::Near(why.into()))
}

/// What lies between the two products.
struct Between {
    scores: NodeId,
    /// Each with the scores that it is for, which may have another shape than the product.
    masks: Vec<(Mask, ValueId)>,
    /// Batches and heads where views tell them apart.
    leads: Vec<[Dim; 2]>,
    scale: f64,
    cap: f64,
}

impl Between {
    /// Takes in a mask of some scores, above all that was met.
    fn take(&mut self, m: Mask, scores: ValueId) -> std::result::Result<(), Stop> {
        if (self.scale, self.cap) != (1.0, 0.0) {
            return near("the mask is applied before the scale");
        }
        self.masks.push((m, scores));
        Ok(())
    }
}

fn is_product(op: &MatMul) -> bool {
    op.activation == Activation::None && !op.trans_a
}

fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId) -> std::result::Result<(), Stop> {
    let plain = |m: &&MatMul| is_product(m) && m.alpha == 1.0;
    let Some(&MatMul { trans_b: v_turned, .. }) = cx.op::<MatMul>(id).filter(plain) else { return Err(Stop::No) };
    let node = cx.graph().node(id).clone();
    let (&[Some(p), Some(v)], &[Some(out)]) = (&node.inputs[..], &node.outputs[..]) else { return Err(Stop::No) };
    let b = between(cx, p)?;
    let first = cx.graph().node(b.scores).clone();
    let (&[Some(q), Some(k)], &[Some(s)]) = (&first.inputs[..], &first.outputs[..]) else { return Err(Stop::No) };
    let Some(product) = cx.op::<MatMul>(b.scores).cloned() else { return Err(Stop::No) };
    let Some(scores) = cx.dims(s).map(<[Dim]>::to_vec) else { return near("the rank of the scores is not known") };
    let roles = match scores.len() {
        2 => &[Role::Row, Role::Size][..],
        3 => &[Role::Head, Role::Row, Role::Size],
        4 => &[Role::Batch, Role::Head, Role::Row, Role::Size],
        n => return near(format!("the scores have {n} axes")),
    };
    let dtype = cx.dtype(q);
    if [k, v].iter().any(|&x| cx.dtype(x) != dtype) || !dtype.is_some_and(is_float) {
        return near("queries, keys and values are of different types");
    }
    let mut turned = roles.to_vec();
    turned.swap(roles.len() - 1, roles.len() - 2);
    let as_rows = |is: bool| if is { roles } else { &turned };
    let (k_roles, v_roles) = (as_rows(product.trans_b), as_rows(!v_turned));
    // Batches must not be broadcast; keys that all heads share may be, and grouped heads are found by tracing.
    let lead = |x: ValueId| cx.dims(x).and_then(|d| Some(d.get(..d.len().checked_sub(2)?)?.to_vec()));
    let (Some(lq), Some(lk), Some(lv)) = (lead(q), lead(k), lead(v)) else {
        return near("an operand's rank is not known");
    };
    let same = |a: &[Dim], b: &[Dim]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b));
    let shared = |i: usize| roles[i] == Role::Head && lk[i].known() == Some(1);
    let met = lq.len() == lk.len() && (0..lq.len()).all(|i| lq[i].same(&lk[i]) || shared(i));
    if lq.len() != roles.len() - 2 || !met || !same(&lk, &lv) {
        return near(format!("batches or heads are not known to be the same: {lq:?}, {lk:?}, {lv:?}"));
    }
    let apart = apart(cx, out, &scores[0]).filter(|a| {
        let of = |x, roles: &[Role]| trace(cx, x, roles, Some(&a.lead), false).is_some();
        let fits = |m: &(Mask, ValueId)| mask::broadcasts(cx, m.0.value(), &a.scores(&scores), 4);
        roles.len() == 3 && of(q, roles) && of(k, k_roles) && of(v, v_roles) && b.masks.iter().all(fits)
    });
    let lead = apart.as_ref().map(|a| &a.lead);
    if b.leads.iter().any(|l| Some(l) != lead) {
        return near("views between the products cut batches and heads otherwise than the result's");
    }
    let masks: Vec<ValueId> = b.masks.iter().map(|m| m.0.value()).collect();
    let found = operands(cx, [(q, roles), (k, k_roles), (v, v_roles)], lead, true, &masks)?;
    let [q_at, k_at, _] = &found;
    let cut = apart.is_some();
    let scores = apart.as_ref().map_or(scores.clone(), |a| a.scores(&scores));
    let roles = if cut { &[Role::Batch, Role::Head, Role::Row, Role::Size][..] } else { roles };
    for (m, to) in &b.masks {
        let v = m.value();
        let to = cx.dims(*to).filter(|_| !cut).unwrap_or(&scores);
        if !mask::broadcasts(cx, v, to, scores.len()) {
            let have = cx.dims(v).map(|d| format!("{d:?}")).unwrap_or_default();
            return near(format!("a mask of {have} is not known to broadcast to the scores' {to:?}"));
        }
        if matches!(m, Mask::Added(v) if !cx.dtype(*v).is_some_and(is_float)) {
            return near("a mask is not of floats");
        }
    }
    // A triangle need be neither read nor computed. Rows come after the past.
    let past = k_at.past.map_or(Some(Dim::Known(0)), |(past, _)| cx.dims(past)?.get(2).cloned());
    let causal = matches!((&b.masks[..], &past), (&[(m, _)], Some(past)) if mask::is_causal(cx, m, past));
    let scale = b.scale * f64::from(product.alpha) * q_at.scale * k_at.scale;
    let mut op = Attention {
        causal,
        scale: exact_scale(cx, q, scale),
        cap: b.cap as f32,
        mask_broadcasts: true,
        ..Attention::default()
    };
    let mut inputs = vec![None; 3];
    let masks: Vec<Mask> = b.masks.iter().map(|m| m.0).filter(|_| !causal).collect();
    let Some(masks) = mask::combined(cx, &masks, scores.len())? else {
        return near("masks are of open sizes, or choose between more than one number");
    };
    (op.fill, op.replaces) = (masks.fill.unwrap_or(op.fill), masks.fill.is_some());
    for (&m, place) in masks.values.iter().zip([Attention::MASK, Attention::SECOND_MASK]) {
        inputs.resize(place, None);
        inputs.push(Some(m));
    }
    let presents = joined(&found, &mut inputs).unwrap_or_default();
    let (result, mut after) = apart.map_or((out, Vec::new()), |a| (a.result, a.views));
    let result = lay(cx, &mut op, &mut inputs, found, (result, roles), &mut after)?;
    place(cx, id, op, inputs, presents, result, &after)
}

fn is_float(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

/// From the probabilities up to the first product.
fn between(cx: &PassCtx<'_, '_>, p: ValueId) -> std::result::Result<Between, Stop> {
    let (mut guard, mut leads) = (None, Vec::new());
    let mut v = p;
    // After the softmax: conversions, and what makes rows of nothing 0.
    let softmax = loop {
        let Some((id, node)) = cx.made_by(v) else { return Err(Stop::No) };
        let x = node.inputs.first().copied().flatten();
        if let Some(s) = node.op.downcast::<Softmax>() {
            let rank = cx.dims(v).map_or(0, <[Dim]>::len) as i64;
            let on_last = s.axis == -1 || s.axis == rank - 1;
            if s.kind != SoftmaxKind::Softmax || !on_last {
                return Err(Stop::No);
            }
            break (id, x);
        } else if node.op.is::<Identity>() || node.op.downcast::<Cast>().is_some_and(|c| c.to.is_some_and(is_float)) {
            let Some(x) = x else { return Err(Stop::No) };
            v = x;
        } else if let Some((x, lead)) = through_views(cx, v) {
            leads.extend(lead);
            v = x;
        } else if node.op.is::<Where>() && guard.is_none() {
            let &[Some(test), Some(zero), Some(x)] = &node.inputs[..] else { return Err(Stop::No) };
            if cx.scalar(zero) != Some(0.0) || !same_shape(cx.dims(x), cx.dims(v)) {
                return Err(Stop::No);
            }
            guard = Some((id, test));
            v = x;
        } else {
            return Err(Stop::No);
        }
        if v != p && !cx.used_once(v) && guard.is_none() {
            return Err(Stop::No);
        }
    };
    let Some(mut s) = softmax.1 else { return Err(Stop::No) };
    let mut b = Between { scores: softmax.0, masks: Vec::new(), leads, scale: 1.0, cap: 0.0 };
    let mut wide = false;
    loop {
        let Some((id, node)) = cx.made_by(s) else { return Err(Stop::No) };
        let at = |i: usize| node.inputs.get(i).copied().flatten();
        let (Some(x), y) = (at(0), at(1)) else { return Err(Stop::No) };
        if node.op.downcast::<MatMul>().is_some_and(is_product) {
            b.scores = id;
            break;
        }
        if node.op.is::<Identity>() {
            s = x;
        } else if let Some((x, lead)) = through_views(cx, s) {
            b.leads.extend(lead);
            s = x;
        } else if let Some(c) = node.op.downcast::<Cast>() {
            if !c.to.is_some_and(is_float) {
                return Err(Stop::No);
            }
            wide |= c.to == Some(DType::F64) && cx.dtype(x) != Some(DType::F64);
            s = x;
        } else if mask::floor(cx, id) {
            s = x;
        } else if let Some((scores, m)) = mask::chosen(cx, id) {
            b.take(m, scores)?;
            s = scores;
        } else {
            match (binary(&*node.op), y) {
                (Some(BinaryFn::Add), Some(y)) => {
                    let Some(scores) = [x, y].into_iter().find(|&v| leads_to_product(cx, v, &mut 32)) else {
                        return Err(Stop::No);
                    };
                    b.take(Mask::Added(if scores == x { y } else { x }), scores)?;
                    s = scores;
                }
                (Some(f @ (BinaryFn::Mul | BinaryFn::Div)), Some(y)) => {
                    let (from, k) = match (f, cx.scalar(x), cx.scalar(y)) {
                        (BinaryFn::Mul, Some(k), _) => (y, k),
                        (BinaryFn::Mul, _, Some(k)) => (x, k),
                        (BinaryFn::Div, _, Some(k)) => (x, 1.0 / k),
                        _ => return Err(Stop::No),
                    };
                    match soft_cap(cx, from, k).filter(|_| b.cap == 0.0) {
                        Some((inner, scale)) => {
                            (b.cap, b.scale, s) = (k, b.scale * scale, inner);
                        }
                        None => {
                            b.scale *= k;
                            s = from;
                        }
                    }
                }
                _ => return Err(Stop::No),
            }
        }
        if b.masks.len() > 3 {
            return near("there are more than three masks");
        }
    }
    // Everything on the way is for this alone.
    for &o in cx.graph().node(softmax.0).outputs.iter().flatten() {
        let allowed = if guard.is_some() { 2 } else { 1 };
        if cx.edit.uses(o) > allowed || cx.edit.is_output(o) {
            return near("the probabilities have other users");
        }
    }
    if wide {
        return near("the softmax is computed in float64");
    }
    if let Some((_, test)) = guard
        && !guards(cx, test, &b)
    {
        return near("what follows the softmax is not the test for rows without keys");
    }
    alone(cx, p, b)
}

/// Checks that each value between the first product and the probabilities has one user.
fn alone(cx: &PassCtx<'_, '_>, p: ValueId, b: Between) -> std::result::Result<Between, Stop> {
    if !cx.used_once(p) {
        return near("the probabilities have other users");
    }
    let Some(&Some(s)) = cx.graph().node(b.scores).outputs.first() else { return Err(Stop::No) };
    if !cx.used_once(s) {
        return near("the scores have other users");
    }
    Ok(b)
}

/// `cap * tanh(x * k)`: x, and what scales it.
fn soft_cap(cx: &PassCtx<'_, '_>, v: ValueId, cap: f64) -> Option<(ValueId, f64)> {
    let (_, tanh) = cx.made_by(v).filter(|(_, n)| is_op(&*n.op, UnaryOp::Tanh))?;
    let x = tanh.inputs.first().copied().flatten()?;
    let (_, inner) = cx.made_by(x)?;
    let at = |i: usize| inner.inputs.get(i).copied().flatten();
    let (from, k) = match (binary(&*inner.op)?, at(0)?, at(1)?) {
        (BinaryFn::Mul, x, y) => match (cx.scalar(x), cx.scalar(y)) {
            (_, Some(k)) => (x, k),
            (Some(k), _) => (y, k),
            _ => return None,
        },
        (BinaryFn::Div, x, y) => (x, 1.0 / cx.scalar(y)?),
        _ => return None,
    };
    let scale = cap * k;
    // Not scaled but by rounding.
    Some((from, if (scale - 1.0).abs() < 1e-3 { 1.0 } else { scale }))
}

/// Whether a chain of single users leads up to a product, in some `left` nodes.
fn leads_to_product(cx: &PassCtx<'_, '_>, v: ValueId, left: &mut usize) -> bool {
    let Some((_, node)) = cx.made_by(v).filter(|_| cx.used_once(v) && *left > 0) else { return false };
    *left -= 1;
    let op = &*node.op;
    let first = op.is::<Cast>() || op.alias() == Alias::View || is_op(op, UnaryOp::Tanh);
    let ways = match () {
        () if op.is::<MatMul>() => return true,
        () if first => 0..1,
        () if binary(op).is_some() => 0..2,
        () if op.is::<Where>() => 1..3,
        () => return false,
    };
    node.inputs.get(ways).unwrap_or_default().iter().flatten().any(|&x| leads_to_product(cx, x, left))
}

/// What views that keep the last two axes were made from, and the batches and heads if those are one axis before or after. Axes of
/// 1 may come and go in front, and the batch of four axes may be cut in two (windows of images) or joined again.
fn through_views(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(ValueId, Option<[Dim; 2]>)> {
    let mut x = v;
    while let Some((_, node)) =
        cx.made_by(x).filter(|(_, n)| n.op.alias() == Alias::View && (x == v || cx.used_once(x)))
    {
        x = node.inputs.first().copied().flatten()?;
        let (Some(a), Some(b)) = (cx.dims(x), cx.dims(v)) else { continue };
        let n = a.len().min(b.len());
        // As many elements as before, in as many rows of heads.
        let windows = n == 4 && a.len().max(b.len()) == 5;
        if windows && same_shape(Some(&a[a.len() - 3..]), Some(&b[b.len() - 3..])) {
            return Some((x, None));
        }
        let ones = |d: &[Dim]| d[..d.len() - n].iter().all(|d| d.known() == Some(1));
        if ones(a) && ones(b) && same_shape(Some(&a[a.len() - n..]), Some(&b[b.len() - n..])) {
            return Some((x, None));
        }
        if let Some(lead) = cut_lead(cx, x, v) {
            return Some((x, Some(lead)));
        }
    }
    None
}

/// Batches and heads, if a view puts both into one axis, or tells them apart.
fn cut_lead(cx: &PassCtx<'_, '_>, x: ValueId, view: ValueId) -> Option<[Dim; 2]> {
    let (a, b) = (cx.dims(x)?, cx.dims(view)?);
    let (one, two) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let ([lead, rows @ ..], [batch, heads, others @ ..]) = (one, two) else { return None };
    let same = rows.len() == 2 && same_shape(Some(rows), Some(others)) && (batch.clone() * heads.clone()).same(lead);
    same.then(|| [batch.clone(), heads.clone()])
}

/// A result whose batches and heads are one axis until a view of it tells them apart.
struct Apart {
    lead: [Dim; 2],
    /// The view, and the nodes that lead to it.
    result: ValueId,
    views: Vec<NodeId>,
}

impl Apart {
    /// The axes of scores of three axes.
    fn scores(&self, scores: &[Dim]) -> Vec<Dim> {
        self.lead.iter().chain(&scores[1..]).cloned().collect()
    }
}

fn apart(cx: &PassCtx<'_, '_>, out: ValueId, lead: &Dim) -> Option<Apart> {
    let (mut v, mut views) = (out, Vec::new());
    while views.len() < 4 && !cx.edit.is_output(v) {
        let &[user] = cx.edit.users(v) else { return None };
        let node = cx.node(user).filter(|n| n.op.alias() == Alias::View && n.inputs.first() == Some(&Some(v)))?;
        v = node.outputs.first().copied().flatten()?;
        views.push(user);
        let cut = cut_lead(cx, out, v).filter(|_| cx.dims(out).is_some_and(|d| d.len() == 3 && d[0].same(lead)));
        if let Some(lead) = cut {
            return Some(Apart { lead, result: v, views });
        }
    }
    None
}

/// Whether a test is true for rows of which every key is masked: NaN in the probabilities, or a mask of minus infinity alone.
/// The operator makes such rows 0 by itself.
fn guards(cx: &PassCtx<'_, '_>, test: ValueId, b: &Between) -> bool {
    if let Some(t) = cx.graph().fact(test).constant() {
        return t.dtype() == DType::Bool && t.bytes().iter().all(|&x| x == 0);
    }
    let Some((_, node)) = cx.made_by(test) else { return false };
    if is_op(&*node.op, UnaryOp::IsNan) {
        let of = node.inputs.first().copied().flatten();
        return of.and_then(|v| cx.made_by(v)).is_some_and(|(_, n)| n.op.is::<Softmax>() || n.op.is::<Cast>());
    }
    let &[Some(most), Some(low)] = &node.inputs[..] else { return false };
    if binary(&*node.op) != Some(BinaryFn::Equal) || cx.scalar(low) != Some(f64::NEG_INFINITY) {
        return false;
    }
    let Some((_, reduce)) = cx.made_by(most) else { return false };
    let is_most = reduce.op.downcast::<Reduce>().is_some_and(|r| r.kind == ReduceKind::Max);
    let of = reduce.inputs.first().copied().flatten();
    is_most && matches!((&b.masks[..], of), ([(Mask::Added(m), _)], Some(v)) if *m == v)
}
