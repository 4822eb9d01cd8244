//! Attention that exporters write out as two products and a softmax becomes the operator whose kernel never stores the scores;
//! where the model has the operator already, it takes its operands from where they lie.

mod cut;
mod given;
mod mask;
mod place;
mod trace;
mod triangle;

use self::cut::Cut;
use self::mask::Mask;
use self::place::{exact_scale, joined, lay, operands, place};
use self::trace::{Operand, follow, rearranged, trace};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Dim, NodeId, ValueId};
use crate::kernels::attention::Scores;
use crate::kernels::gemm::Activation;
use crate::kernels::normalise::SoftmaxKind;
use crate::kernels::pointwise::UnaryOp;
use crate::kernels::reduce::ReduceKind;
use crate::ops::attention::{Attention, Broadcast, Role};
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

/// The axes of queries, keys, values and the result.
const ALL: &[Role] = &[Role::Batch, Role::Head, Role::Row, Role::Size];

/// The same where heads that share keys are told apart from their groups.
const GROUPED: &[Role] = &[Role::Batch, Role::Head, Role::Head, Role::Row, Role::Size];

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
    /// Heads where views tell them and batches apart.
    heads: Vec<Dim>,
    /// What the axes stand for where the way up has come to: rows and keys may be several, if those were cut.
    roles: Vec<Role>,
    scale: f64,
    cap: f64,
    /// The probabilities, where others read them too.
    shown: Option<ValueId>,
}

impl Between {
    /// Takes in a mask of some scores, above all that was met.
    fn take(&mut self, cx: &PassCtx<'_, '_>, m: Mask, scores: ValueId) -> std::result::Result<(), Stop> {
        let dims = cx.dims(scores);
        let m = m.with(mask::unspread(cx, m.value(), dims));
        // torch.baddbmm may add zeros.
        let none = matches!(m, Mask::Added(v) if triangle::number(cx, v) == Some(0.0));
        if none && dims.is_some_and(|d| mask::meets(cx, m.value(), d, d.len()) == Some(false)) {
            return Ok(());
        }
        if !ends_with(&self.roles, [Role::Row, Role::Size]) {
            return near("a mask is of rows and keys that are several axes, or in another order");
        }
        if (self.scale, self.cap) != (1.0, 0.0) {
            return near("the mask is applied before the scale");
        }
        self.masks.push((m, scores));
        Ok(())
    }
}

/// Whether axes are those of batches and heads, and these two.
fn ends_with(roles: &[Role], last: [Role; 2]) -> bool {
    roles.strip_suffix(&last).is_some_and(|lead| lead.iter().all(|r| *r == Role::Head))
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
    let (Some(scores), Some(made)) = (cx.dims(s).map(<[Dim]>::to_vec), cx.dims(out).map(<[Dim]>::to_vec)) else {
        return near("the rank of the scores is not known");
    };
    let dtype = cx.dtype(q);
    if [k, v].iter().any(|&x| cx.dtype(x) != dtype) || !dtype.is_some_and(is_float) {
        return near("queries, keys and values are of different types");
    }
    let turned = |of: &[Role]| [&of[..of.len() - 2], &[Role::Size, Role::Row]].concat();
    let roles = |n: usize| match n {
        2 => Ok(&ALL[2..]),
        3 => Ok(&ALL[1..]),
        4 => Ok(ALL),
        5 => Ok(GROUPED),
        n => near(format!("the scores have {n} axes")),
    };
    let (first, second) = (roles(scores.len())?, roles(made.len())?);
    let right = if product.trans_b { first.to_vec() } else { turned(first) };
    let v_roles = if v_turned { turned(second) } else { second.to_vec() };
    let mut of = [(q, first), (k, &right[..]), (v, &v_roles[..])];
    // Keys may come before rows: they are the left operand of the first product.
    if ends_with(&b.roles, [Role::Size, Role::Row]) {
        of.swap(0, 1);
        if !b.masks.is_empty() {
            return near("keys come before rows, and there are masks");
        }
    }
    let [(q, _), (k, _), _] = of;
    if of.iter().any(|(x, roles)| cx.dims(*x).is_none_or(|d| d.len() != roles.len())) {
        return near("an operand has another rank than the product");
    }
    let cut = Cut::of(cx, &b, out, [&scores, &made]).filter(|c| {
        let found = |&(x, roles): &(ValueId, &[Role])| trace(cx, x, roles, Some(&c.heads), false).is_some();
        of.iter().all(found) && b.masks.iter().all(|m| c.fits(cx, m, made.len() == 4 || c.binds(cx, v)))
    });
    let heads = cut.as_ref().map(|c| &c.heads);
    if b.heads.iter().any(|h| Some(h) != heads) || heads.is_none() && scores.len() != made.len() {
        return near("views between the products cut batches and heads otherwise than the result's");
    }
    let four = |d: &[Dim]| cut.as_ref().map_or_else(|| d.to_vec(), |c| c.four(d));
    // Keys that all heads share are broadcast, batches may be; grouped heads are found by tracing.
    let lead = |x: ValueId| cx.dims(x).map(|d| four(d)[..four(d).len() - 2].to_vec()).unwrap_or_default();
    let [lq, lk, lv] = [q, k, v].map(lead);
    let one = |d: &Dim| d.known() == Some(1);
    let shared = |i: usize| i + 1 == lq.len() && one(&lk[i]);
    let open = |i: usize| i == 0 && lq.len() > 1 && [&lq[i], &lk[i]].iter().any(|d| one(d) || d.known().is_none());
    let apart: Vec<usize> = (0..lq.len()).filter(|&i| !lq[i].same(&lk[i]) && !shared(i)).collect();
    let same = |a: &[Dim]| same_shape(Some(a), Some(&lv));
    let bound = cut.as_ref().is_some_and(|c| c.binds(cx, q) && c.binds(cx, k));
    let met = apart.iter().all(|&i| open(i)) && (same(&lk) || bound && same(&lq));
    if !met || heads.is_some() && !apart.is_empty() && !bound {
        return near(format!("batches or heads are not known to be the same: {lq:?}, {lk:?}, {lv:?}"));
    }
    let mut broadcast = if apart.is_empty() || bound { Broadcast::Within } else { Broadcast::Mutual };
    for (m, to) in &b.masks {
        let v = m.value();
        let to = cx.dims(*to).unwrap_or(&scores);
        let windows = cut.is_none() && to.len() > scores.len();
        let rank = if cut.is_some() { to.len() } else { scores.len() };
        broadcast = match (mask::meets(cx, v, to, rank), broadcast) {
            (Some(false), Broadcast::Within) if windows => Broadcast::Windows,
            (Some(false), was) if !windows || was == Broadcast::Windows => was,
            // The way back to three axes lets no other batch through.
            (Some(true), was) if cut.is_some() && made.len() == 3 => was,
            (Some(true), Broadcast::Within | Broadcast::Mutual) if !windows && rank < 5 => Broadcast::Mutual,
            _ => {
                let have = cx.dims(v).map(|d| format!("{d:?}")).unwrap_or_default();
                return near(format!("a mask of {have} is not known to broadcast to the scores' {to:?}"));
            }
        };
        if matches!(m, Mask::Added(v) if !cx.dtype(*v).is_some_and(is_float)) {
            return near("a mask is not of floats");
        }
    }
    let masks: Vec<ValueId> = b.masks.iter().map(|m| m.0.value()).collect();
    // A triangle need be neither read nor computed, but where all probabilities are shown: there nothing is saved by that, and a
    // NaN under finite numbers is seen. Rows come after the past.
    let is_causal = |cx: &PassCtx<'_, '_>, [_, k, _]: &[Operand; 3]| {
        let past = k.past.as_ref().map_or(Some(Dim::Known(0)), |p| cx.dims(p.rows)?.get(2).cloned());
        b.shown.is_none()
            && broadcast == Broadcast::Within
            && matches!((&b.masks[..], &past), (&[(m, _)], Some(past)) if mask::is_causal(cx, m, past))
    };
    let mut found = operands(cx, of, heads, true, &[])?;
    if !masks.is_empty() && !is_causal(cx, &found) {
        found = operands(cx, of, heads, true, &masks)?;
    }
    let causal = is_causal(cx, &found);
    let [q_at, k_at, _] = &found;
    let scores = four(&scores);
    let scale = b.scale * f64::from(product.alpha) * q_at.scale * k_at.scale;
    let mut op =
        Attention { causal, scale: exact_scale(cx, q, scale), cap: b.cap as f32, broadcast, ..Attention::default() };
    let mut inputs = vec![None; 3];
    let mut masks: Vec<Mask> = b.masks.iter().map(|m| m.0).filter(|_| !causal).collect();
    if let Some(c) = &cut {
        masks.iter_mut().zip(&b.masks).try_for_each(|(m, (_, to))| c.mask(cx, m, *to))?;
    }
    if first == GROUPED {
        for m in &mut masks {
            let Some(whole) = mask::of_all_heads(cx, *m, &scores)? else {
                return near("a mask is of some heads of each group");
            };
            *m = whole;
        }
    }
    let Some(masks) = mask::combined(cx, &masks, scores.len().min(4))? else {
        return near("masks are of open sizes, or choose between more than one number");
    };
    if let Some(fill) = masks.fill {
        (op.fill, op.replaces) = (fill.narrow(), fill.replaces);
    }
    for (&m, place) in masks.values.iter().zip([Attention::MASK, Attention::SECOND_MASK]) {
        inputs.resize(place, None);
        inputs.push(Some(m));
    }
    let [keys, values] = joined(&found, &mut inputs).unwrap_or_default();
    op.scores = b.shown.map_or(op.scores, |_| Scores::Softmax);
    let Some(target) = follow(cx, out, second, heads) else { return near("the axes of the result are not in order") };
    lay(cx, &mut op, &mut inputs, found, &target.order)?;
    place(cx, id, op, inputs, [keys, values, b.shown.map(|v| (v, None))], &target)
}

fn is_float(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

/// From the probabilities up to the first product.
fn between(cx: &PassCtx<'_, '_>, p: ValueId) -> std::result::Result<Between, Stop> {
    let (mut guard, mut heads, mut v) = (None, Vec::new(), p);
    let lead = cx.dims(p).and_then(|d| d.len().checked_sub(2)).ok_or(Stop::No)?;
    let mut roles = [&vec![Role::Head; lead][..], &[Role::Row, Role::Size]].concat();
    // After the softmax: conversions, and what makes rows of nothing 0.
    let softmax = loop {
        let Some((id, node)) = cx.made_by(v) else { return Err(Stop::No) };
        let x = node.inputs.first().copied().flatten();
        if let Some(s) = node.op.downcast::<Softmax>() {
            let keys = roles.iter().position(|r| *r == Role::Size);
            let alone = roles.iter().filter(|r| **r == Role::Size).count() == 1;
            if s.kind != SoftmaxKind::Softmax || !alone || resolve_axis(s.axis, roles.len()).ok() != keys {
                return Err(Stop::No);
            }
            break (id, x);
        } else if node.op.is::<Identity>() || node.op.downcast::<Cast>().is_some_and(|c| c.to.is_some_and(is_float)) {
            let Some(x) = x else { return Err(Stop::No) };
            v = x;
        } else if let Some(x) = moved(cx, v, &mut roles, &mut heads) {
            v = x;
        } else if node.op.is::<Where>() && guard.is_none() {
            let &[Some(test), Some(yes), Some(no)] = &node.inputs[..] else { return Err(Stop::No) };
            let when = cx.scalar(yes) == Some(0.0);
            let x = if when { no } else { yes };
            if !when && cx.scalar(no) != Some(0.0) || !same_shape(cx.dims(x), cx.dims(v)) {
                return Err(Stop::No);
            }
            guard = Some((test, when));
            v = x;
        } else {
            return Err(Stop::No);
        }
        if v != p && !cx.used_once(v) && guard.is_none() {
            return Err(Stop::No);
        }
    };
    let Some(mut s) = softmax.1 else { return Err(Stop::No) };
    let mut b = Between { scores: softmax.0, masks: Vec::new(), heads, roles, scale: 1.0, cap: 0.0, shown: None };
    let mut wide = false;
    loop {
        let Some((id, node)) = cx.made_by(s) else { return Err(Stop::No) };
        let at = |i: usize| node.inputs.get(i).copied().flatten();
        let (Some(x), y) = (at(0), at(1)) else { return Err(Stop::No) };
        if let Some(n) = cx.dims(s).map(<[Dim]>::len).filter(|&n| n != b.roles.len()) {
            // A sum with a mask of more axes.
            b.roles = of_rank(&b.roles, n).ok_or(Stop::No)?;
        }
        if node.op.downcast::<MatMul>().is_some_and(is_product) {
            let known = [[Role::Row, Role::Size], [Role::Size, Role::Row]].map(|last| ends_with(&b.roles, last));
            if known == [false; 2] {
                return near("rows and keys are not the last two axes of the scores");
            }
            b.scores = id;
            break;
        }
        if node.op.is::<Identity>() {
            s = x;
        } else if let Some(x) = moved(cx, s, &mut b.roles, &mut b.heads) {
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
            b.take(cx, m, scores)?;
            s = scores;
        } else {
            match (binary(&*node.op), y) {
                (Some(BinaryFn::Add), Some(y)) => {
                    let Some(scores) = [x, y].into_iter().find(|&v| leads_to_product(cx, v, &mut 32)) else {
                        return Err(Stop::No);
                    };
                    b.take(cx, Mask::Added(if scores == x { y } else { x }), scores)?;
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
    for &o in cx.graph().node(softmax.0).outputs.iter().flatten().filter(|&&o| o != p || guard.is_some()) {
        let allowed = if guard.is_some() { 2 } else { 1 };
        if cx.edit.uses(o) > allowed || cx.edit.is_output(o) {
            return near("the probabilities have other users");
        }
    }
    if wide {
        return near("the softmax is computed in float64");
    }
    let alone_in = |id: NodeId| cx.graph().node(id).outputs.iter().flatten().all(|&o| cx.used_once(o));
    if let Some((test, when)) = guard
        && !(when && guards(cx, test, &b) || alone_in(softmax.0) && zeroes(cx, test, when, &mut b))
    {
        return near("what follows the softmax is not the test for rows without keys");
    }
    alone(cx, p, b)
}

/// Checks that each value between the first product and the probabilities has one user. The operator can give out those.
fn alone(cx: &PassCtx<'_, '_>, p: ValueId, mut b: Between) -> std::result::Result<Between, Stop> {
    if !cx.used_once(p) {
        let Some(v) = shown(cx, p) else { return near("the probabilities have other users") };
        b.shown = Some(v);
        b.heads.extend(cut::heads(cx, p, v));
    }
    let Some(&Some(s)) = cx.graph().node(b.scores).outputs.first() else { return Err(Stop::No) };
    // A choice between scores and more of them reads them twice.
    let twice = b.masks.iter().any(|(m, to)| *to == s && matches!(m, Mask::Chosen { fill, .. } if !fill.replaces));
    if cx.edit.uses(s) > if twice { 2 } else { 1 } || cx.edit.is_output(s) {
        return near("the scores have other users");
    }
    Ok(b)
}

/// The probabilities of each batch and head, which others than the second product read: a view of `p`, if its axes are fewer.
fn shown(cx: &PassCtx<'_, '_>, p: ValueId) -> Option<ValueId> {
    cx.made_by(p).filter(|(_, n)| n.op.is::<Softmax>())?;
    if cx.dims(p)?.len() == 4 {
        return Some(p);
    }
    let view =
        |u: &&NodeId| cx.node(**u).is_some_and(|n| n.op.alias() == Alias::View && n.inputs.first() == Some(&Some(p)));
    let view = cx.edit.users(p).iter().find(view).filter(|_| cx.edit.uses(p) == 2)?;
    let out = cx.node(*view)?.outputs.first().copied()??;
    (cx.dims(out)?.len() == 4).then_some(out)
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

/// The roles of so many axes that end in the same rows and keys.
fn of_rank(roles: &[Role], rank: usize) -> Option<Vec<Role>> {
    let first = roles.iter().position(|r| *r != Role::Head)?;
    let lead = rank.checked_sub(roles.len() - first)?;
    Some([&vec![Role::Head; lead][..], &roles[first..]].concat())
}

/// What views and transpositions of scores were made from; there the axes have other roles, and heads may be told from batches.
fn moved(cx: &PassCtx<'_, '_>, v: ValueId, roles: &mut Vec<Role>, heads: &mut Vec<Dim>) -> Option<ValueId> {
    if let Some((x, told)) = through_views(cx, v) {
        *roles = of_rank(roles, cx.dims(x)?.len())?;
        heads.extend(told);
        return Some(x);
    }
    let (x, there) = rearranged(cx, v, roles)?;
    let lead = |roles: &[Role]| roles.iter().filter(|r| **r == Role::Head).count();
    // Batches and heads may come apart on the way.
    let (one, two) = ((x, &there), (v, &*roles));
    let (one, two) = if lead(one.1) > lead(two.1) { (two, one) } else { (one, two) };
    if lead(one.1) == 1 && lead(two.1) > 1 {
        let last = two.1.iter().rposition(|r| *r == Role::Head)?;
        heads.extend(cx.dims(two.0)?.get(last).cloned());
    }
    *roles = there;
    Some(x)
}

/// What views that keep the last two axes were made from, and the heads if those and the batches are one axis before or after. Axes
/// of 1 may come and go in front, and the batch of four axes may be cut in two (windows of images) or joined again.
fn through_views(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(ValueId, Option<Dim>)> {
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
        let [rows, there] = [a, b].map(|d| d.last_chunk::<2>().map(<[Dim; 2]>::as_slice));
        if let Some(heads) = cut::heads(cx, x, v).filter(|_| same_shape(rows, there)) {
            return Some((x, Some(heads)));
        }
    }
    None
}

/// Whether a test, by being true (`when`) or false, makes 0 of what one of the masks keeps from weighing anything. In rows where that is
/// everything too, which is so where the mask is minus infinity.
fn zeroes(cx: &PassCtx<'_, '_>, test: ValueId, when: bool, b: &mut Between) -> bool {
    let Some((of, off)) = mask::flag(cx, test) else { return false };
    b.masks.iter_mut().any(|(m, _)| match m {
        Mask::Chosen { by, inverted, fill } if *by == of && *inverted == (when != off) && fill.by <= -1e30 => {
            fill.by = f64::NEG_INFINITY;
            true
        }
        _ => false,
    })
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
