//! Normalisations that exporters write out: layer, root mean square, instance and group.

use crate::error::Result;
use crate::ir::{Dim, NodeId, Op, ValueId};
use crate::kernels::reduce::ReduceKind;
use crate::ops::cast::Cast;
use crate::ops::movement::Transpose;
use crate::ops::norm::{ChannelNorm, LayerNormalization};
use crate::ops::pointwise::BinaryFn;
use crate::ops::pool::{GlobalPool, PoolKind};
use crate::ops::reduce::Reduce;
use crate::ops::shape::Reshape;
use crate::optimize::pass::same_shape;
use crate::optimize::pattern::{
    Factor, Match, Number, P, any, binary, closed, find, keeps, maybe_cast, minus, node, product, sum,
};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use half::{bf16, f16};
use std::sync::{Arc, LazyLock};

/// Means, deviations and what is done with them become one operator.
pub struct Norms;

/// The pattern's letters.
const X: usize = 0;
const SCALE: usize = 1;
const SHIFT: usize = 2;

fn is_mean(o: &dyn Op) -> bool {
    keeps(o, ReduceKind::Mean) || o.downcast::<GlobalPool>().is_some_and(|p| p.kind == PoolKind::Average)
}
fn mean(x: P) -> P {
    node(is_mean, x)
}
fn square(x: P) -> P {
    product(1.0, [x.clone(), x])
}
fn plus_epsilon(x: P) -> P {
    P::Sum(vec![Factor::Of(x)], Number::Keep(0))
}

struct Formula {
    pattern: P,
    rms: bool,
}

static FORMULAS: LazyLock<Vec<Formula>> = LazyLock::new(formulas);
static GROUPED: LazyLock<[P; 4]> = LazyLock::new(grouped);

/// The formulas over x, scale and shift; the outermost operator is a sum in the first lot.
fn formulas() -> Vec<Formula> {
    let x = || any(X);
    let centred = || minus(x(), mean(x()));
    let deviation = || Factor::InverseRoot(plus_epsilon(mean(square(centred()))));
    let root = || Factor::InverseRoot(plus_epsilon(mean(square(x()))));
    let one = Number::Is(1.0);
    let scaled = |x: P, f: Factor| {
        P::Either(vec![
            P::Product(vec![Factor::Of(x.clone()), f.clone(), Factor::Rest(SCALE)], one),
            // Normalised in a wider type, scaled in the narrow one.
            P::Product(vec![Factor::Of(maybe_cast(P::Product(vec![Factor::Of(x), f], one))), Factor::Rest(SCALE)], one),
        ])
    };
    let layer = || scaled(centred(), deviation());
    // x * g + (shift - mean * g), where g = scale / deviation
    let g = || P::Product(vec![deviation(), Factor::Rest(SCALE)], one);
    let folded = sum([product(1.0, [x(), g()]), minus(any(SHIFT), product(1.0, [mean(x()), g()]))], 0.0);
    // x * g - mean * g + shift
    let (scaled_x, negated) = (|| product(1.0, [x(), g()]), || product(-1.0, [mean(x()), g()]));
    vec![
        Formula { pattern: sum([layer(), any(SHIFT)], 0.0), rms: false },
        Formula { pattern: folded, rms: false },
        Formula { pattern: sum([scaled_x(), negated(), any(SHIFT)], 0.0), rms: false },
        Formula { pattern: sum([scaled_x(), negated()], 0.0), rms: false },
        Formula { pattern: layer(), rms: false },
        Formula { pattern: scaled(x(), root()), rms: true },
    ]
}

/// `scale * reshape(normalise(reshape(x))) + shift`, where each channel of the inner shape is a group; without the shift, or
/// with one of zeros; without both.
fn grouped() -> [P; 4] {
    let is_reshape = |o: &dyn Op| o.is::<Reshape>();
    let inner = |o: &dyn Op| {
        o.downcast::<ChannelNorm>().is_some_and(|c| c.groups.is_none())
            || o.downcast::<LayerNormalization>().is_some_and(|l| !l.rms)
    };
    let plain = node(is_reshape, node(inner, node(is_reshape, any(X))));
    let scaled = P::Product(vec![Factor::Of(plain.clone()), Factor::Rest(SCALE)], Number::Is(1.0));
    let zeros = sum([P::Either(vec![scaled.clone(), plain.clone()])], 0.0);
    [sum([scaled.clone(), any(SHIFT)], 0.0), zeros, scaled, plain]
}

impl Pass for Norms {
    fn name(&self) -> &'static str {
        "norms"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order().into_iter().rev() {
            let Some(n) = cx.node(id) else { continue };
            let is_root =
                matches!(binary(&*n.op), Some(BinaryFn::Add | BinaryFn::Mul | BinaryFn::Div)) || n.op.is::<Reshape>();
            let (true, &[Some(out)]) = (is_root, &n.outputs[..]) else { continue };
            let mut done = false;
            for f in &*FORMULAS {
                if let Some(m) = found(cx, id, &f.pattern, out) {
                    done = written_out(cx, id, &m, out, f.rms)?;
                }
                if done {
                    break;
                }
            }
            for p in GROUPED.iter().filter(|_| !done) {
                if let Some(m) = found(cx, id, p, out)
                    && groups(cx, id, &m, out)?
                {
                    break;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn found(cx: &mut PassCtx<'_, '_>, id: NodeId, p: &P, out: ValueId) -> Option<Match> {
    let m = find(cx, p, out).ok()?;
    match closed(cx, &m, out) {
        Ok(()) => Some(m),
        Err(why) => {
            cx.miss(id, || why);
            None
        }
    }
}

/// The axes that all means of a match reduce, in order.
pub(super) fn reduced(cx: &PassCtx<'_, '_>, m: &Match, rank: usize) -> Option<Vec<usize>> {
    let mut all: Option<Vec<usize>> = None;
    for &id in &m.nodes {
        let Some(r) = cx.op::<Reduce>(id) else {
            if cx.op::<GlobalPool>(id).is_some() {
                let axes: Vec<usize> = (2..rank).collect();
                if all.get_or_insert_with(|| axes.clone()) != &axes {
                    return None;
                }
            }
            continue;
        };
        let axes = match cx.node(id)?.inputs.get(1).copied().flatten() {
            Some(v) => cx.graph().fact(v).as_tensor()?.ints()?,
            None => Vec::new(),
        };
        if axes.is_empty() && r.noop {
            return None;
        }
        let mut axes: Vec<usize> = axes
            .iter()
            .map(|&a| usize::try_from(if a < 0 { a + rank as i64 } else { a }).ok().filter(|&a| a < rank))
            .collect::<Option<_>>()?;
        if axes.is_empty() {
            axes = (0..rank).collect();
        }
        axes.sort_unstable();
        if all.as_ref().is_some_and(|a| *a != axes) {
            return None;
        }
        all = Some(axes);
    }
    all
}

/// A constant list of one number.
pub(super) fn filled(
    cx: &mut PassCtx<'_, '_>,
    name: &str,
    dtype: DType,
    shape: &[usize],
    x: f64,
) -> Result<Option<ValueId>> {
    let n = crate::base::checked::product(shape)?;
    let t = match dtype {
        DType::F32 => Tensor::from_slice(shape, &vec![x as f32; n])?,
        DType::F64 => Tensor::from_slice(shape, &vec![x; n])?,
        DType::F16 => Tensor::from_slice(shape, &vec![f16::from_f64(x); n])?,
        DType::BF16 => Tensor::from_slice(shape, &vec![bf16::from_f64(x); n])?,
        _ => return Ok(None),
    };
    Ok(Some(cx.edit.constant(name, t)))
}

fn written_out(cx: &mut PassCtx<'_, '_>, id: NodeId, m: &Match, out: ValueId, rms: bool) -> Result<bool> {
    let (Some(mut x), Some(epsilon)) = (m.value(X), m.number(0)) else { return Ok(false) };
    // Normalised in a wider type than it comes in and goes out: the operator does that itself.
    let dtype = cx.dtype(out);
    if cx.dtype(x) != dtype
        && let Some((cast, _)) = cx.maker::<Cast>(x)
        && let Some(&Some(narrow)) = cx.graph().node(cast).inputs.first()
        && cx.dtype(narrow) == dtype
    {
        x = narrow;
    }
    let (Some(dims), Some(dtype)) = (cx.dims(x).map(<[Dim]>::to_vec), dtype) else { return Ok(false) };
    // The operator keeps it as an f32.
    if dtype == DType::F64 && f64::from(epsilon as f32) != epsilon {
        cx.miss(id, || format!("the epsilon {epsilon:e} is no f32"));
        return Ok(false);
    }
    let rank = dims.len();
    let Some(axes) = reduced(cx, m, rank) else {
        cx.miss(id, || "the means are not over the same, known axes".into());
        return Ok(false);
    };
    let first = axes.first().copied().unwrap_or(0);
    if rank == 0 || axes != (first..rank).collect::<Vec<_>>() {
        let turned = Turned { x, dims, dtype, axes, epsilon: epsilon as f32, rms };
        return turned.write(cx, id, m, out);
    }
    let name = cx.graph().node(id).name.clone();
    let (scale, shift) = (m.value(SCALE), m.value(SHIFT));
    let sizes: Option<Vec<usize>> = dims[first..].iter().map(Dim::size).collect();
    let fits = |cx: &PassCtx<'_, '_>, v: ValueId| -> bool {
        let Some(d) = cx.dims(v) else { return false };
        let own = d.len().min(rank - first);
        let (lead, own) = d.split_at(d.len() - own);
        lead.iter().all(|d| d.known() == Some(1)) && own.iter().rev().zip(dims.iter().rev()).all(|(a, b)| a.same(b))
    };
    if [scale, shift].into_iter().flatten().all(|v| fits(cx, v)) {
        let scale = match (scale, sizes) {
            (Some(s), _) => Some(s),
            (None, Some(sizes)) => filled(cx, &format!("{name}.scale"), dtype, &sizes, 1.0)?,
            (None, None) => None,
        };
        let Some(scale) = scale else { return Ok(false) };
        let op =
            LayerNormalization { rms, axis: first as i64 - rank as i64, epsilon: epsilon as f32, stash: DType::F32 };
        let mut inputs = vec![Some(x), Some(scale)];
        inputs.extend(shift.map(Some));
        return cx.substitute(out, Arc::new(op), inputs);
    }
    // By channel: each picture's channels on their own.
    let channels = dims.get(1).and_then(Dim::size);
    let (false, 2, true, Some(channels)) = (rms, first, rank > 2, channels) else {
        cx.miss(id, || "scale or shift are not of the normalised axes".into());
        return Ok(false);
    };
    let Some(inputs) = affine(cx, id, m, x, &dims, dtype, channels)? else { return Ok(false) };
    cx.substitute(out, Arc::new(ChannelNorm::new(None, epsilon as f32)), inputs)
}

/// A normalisation over axes that are not the last ones: the operator with transpositions around it, which other passes move on.
struct Turned {
    x: ValueId,
    dims: Vec<Dim>,
    dtype: DType,
    axes: Vec<usize>,
    epsilon: f32,
    rms: bool,
}

impl Turned {
    fn write(self, cx: &mut PassCtx<'_, '_>, id: NodeId, m: &Match, out: ValueId) -> Result<bool> {
        let rank = self.dims.len();
        let between: Vec<usize> = (1..rank - 1).collect();
        // One axis, as channels that come first; pictures' places, channels last; the same with channels cut into groups.
        let grouped = rank > 3 && self.axes == [&between[..rank - 3], &[rank - 1]].concat();
        let (axis, last) = match self.axes[..] {
            [a] if rank > 2 => (a, None),
            _ if self.rms => return self.miss(cx, id),
            _ if grouped => (rank - 2, Some(1)),
            _ if self.axes == between && rank > 2 => (rank - 1, Some(0)),
            _ => return self.miss(cx, id),
        };
        let count =
            |axes: std::ops::Range<usize>| self.dims.get(axes)?.iter().map(Dim::size).product::<Option<usize>>();
        let own = axis..if last.is_some() { rank } else { axis + 1 };
        let (Some(channels), Some(groups)) = (count(own.clone()), count(axis..axis + 1)) else {
            return self.miss(cx, id);
        };
        let mut lists = Vec::new();
        let name = cx.graph().value(out).name.clone();
        for (v, default, what) in [(m.value(SCALE), 1.0, "scale"), (m.value(SHIFT), 0.0, "shift")] {
            let list = match v {
                None => filled(cx, &format!("{name}.{what}"), self.dtype, &[channels], default)?,
                Some(v) => listed(cx, v, &self.dims, own.clone(), channels),
            };
            let Some(list) = list else {
                cx.miss(id, || format!("the {what} is not one constant a channel"));
                return Ok(false);
            };
            lists.push(Some(list));
        }
        let mut x = self.x;
        let mut rank = rank;
        if last == Some(1) {
            let shape = [vec![0; rank - 2], vec![channels as i64]].concat();
            x = cx.reshape(x, &shape)?;
            rank -= 1;
        }
        let axis = axis.min(rank - 1);
        let others: Vec<usize> = (0..rank).filter(|&i| i != axis).collect();
        let (perm, op): (Vec<usize>, Arc<dyn Op>) = match last {
            None => {
                let op = LayerNormalization { rms: self.rms, axis: -1, epsilon: self.epsilon, stash: DType::F32 };
                if self.rms {
                    lists.pop();
                }
                ([&others[..], &[axis]].concat(), Arc::new(op))
            }
            Some(n) => {
                let op = ChannelNorm::new((n == 1).then_some(groups), self.epsilon);
                ([&[0, axis], &others[1..]].concat(), Arc::new(op))
            }
        };
        let back: Vec<usize> = (0..rank).filter_map(|i| perm.iter().position(|&p| p == i)).collect();
        let turn = |cx: &mut PassCtx<'_, '_>, v: ValueId, perm: Vec<usize>| -> Result<ValueId> {
            let name = format!("{}.turned", cx.graph().value(v).name);
            Ok(cx.edit.node(&name, Arc::new(Transpose { perm: Some(perm) }), vec![Some(v)], 1)?[0])
        };
        let x = turn(cx, x, perm)?;
        let inputs = [vec![Some(x)], lists].concat();
        let y = cx.edit.node(&format!("{name}.normal"), op, inputs, 1)?[0];
        let mut y = turn(cx, y, back)?;
        if last == Some(1) {
            let shape = [vec![0; rank - 1], vec![groups as i64, (channels / groups.max(1)) as i64]].concat();
            y = cx.reshape(y, &shape)?;
        }
        let Some((end, _)) = cx.graph().value(y).producer else { return Ok(false) };
        let gone = cx.graph().node(id).inputs.clone();
        cx.edit.move_output(end, 0, out);
        cx.edit.remove(id);
        cx.prune(gone);
        cx.fired();
        Ok(true)
    }

    fn miss(&self, cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<bool> {
        cx.miss(id, || format!("the axes {:?} are not the last of {}", self.axes, self.dims.len()));
        Ok(false)
    }
}

/// A constant that broadcasts to `dims` and differs along the axes `own` only, as a list of so many numbers.
fn listed(
    cx: &mut PassCtx<'_, '_>,
    v: ValueId,
    dims: &[Dim],
    own: std::ops::Range<usize>,
    count: usize,
) -> Option<ValueId> {
    let t = cx.graph().fact(v).constant()?.clone();
    let lead = dims.len().checked_sub(t.shape().len())?;
    let whole = t.shape().iter().enumerate().all(|(i, &n)| match own.contains(&(i + lead)) {
        true => dims[i + lead].size() == Some(n),
        false => n == 1,
    });
    (whole && t.len() == count).then_some(())?;
    let name = cx.graph().value(v).name.clone();
    Some(cx.edit.constant(&name, t.reshaped(&[count]).ok()?))
}

/// A constant of shape `[C, 1, ..]` as `[C]`.
fn by_channel(cx: &mut PassCtx<'_, '_>, v: ValueId, rank: usize, channels: usize) -> Option<ValueId> {
    let t = cx.graph().fact(v).constant()?.clone();
    let s = t.shape();
    let at = (s.len() + 1).checked_sub(rank)?;
    let one = s.iter().enumerate().all(|(i, &d)| if i == at { d == channels } else { d == 1 });
    if !one || s.len() > rank || at >= s.len() {
        return None;
    }
    let name = cx.graph().value(v).name.clone();
    Some(cx.edit.constant(&name, t.reshaped(&[channels]).ok()?))
}

fn groups(cx: &mut PassCtx<'_, '_>, id: NodeId, m: &Match, out: ValueId) -> Result<bool> {
    let Some((x, dims)) = m.value(X).and_then(|x| Some((x, cx.dims(x)?.to_vec()))) else { return Ok(false) };
    let norm = m.nodes.iter().find_map(|&n| {
        let epsilon = cx.op::<ChannelNorm>(n).map(|c| c.epsilon);
        let layer = cx.op::<LayerNormalization>(n);
        Some((cx.node(n)?, epsilon.or(layer.map(|l| l.epsilon))?, layer.map(|l| l.axis)))
    });
    let Some((inner, epsilon, axis)) = norm else { return Ok(false) };
    let at = |i: usize| inner.inputs.get(i).copied().flatten();
    let all = |v: Option<ValueId>, want: f32| -> bool {
        let t = v.and_then(|v| cx.graph().fact(v).constant()).filter(|t| t.dtype() == DType::F32);
        t.and_then(|t| t.as_slice::<f32>().ok()).is_some_and(|s| s.iter().all(|&x| x == want))
    };
    let inside = at(0).and_then(|v| cx.dims(v)).map(<[Dim]>::to_vec);
    let plain = all(at(1), 1.0) && (at(2).is_none() || all(at(2), 0.0));
    let (Some(inside), true, Some(dtype)) = (inside, plain, cx.dtype(x)) else {
        cx.miss(id, || "the inner normalisation has a scale and shift of its own".into());
        return Ok(false);
    };
    // [N, C, ...] as [N, G, the rest], and back.
    let cut = || {
        let (n, g) = (dims.first()?, inside.get(1)?.size()?);
        let channels = dims.get(1)?.size().filter(|c| g > 0 && c % g == 0)?;
        let rank = inside.len() as i64;
        let over = axis.is_none_or(|a| (if a < 0 { a + rank } else { a }) == 2);
        (rank >= 3 && over && inside.first()?.same(n)).then_some((channels, g))
    };
    let Some((channels, g)) = cut().filter(|_| same_shape(cx.dims(out), Some(&dims))) else {
        cx.miss(id, || "the groups are not cut along the channels".into());
        return Ok(false);
    };
    let Some(inputs) = affine(cx, id, m, x, &dims, dtype, channels)? else { return Ok(false) };
    cx.substitute(out, Arc::new(ChannelNorm::new(Some(g), epsilon)), inputs)
}

/// x, and scale and shift as lists of one constant a channel.
fn affine(
    cx: &mut PassCtx<'_, '_>,
    id: NodeId,
    m: &Match,
    x: ValueId,
    dims: &[Dim],
    dtype: DType,
    channels: usize,
) -> Result<Option<Vec<Option<ValueId>>>> {
    let mut inputs = vec![Some(x)];
    let name = cx.graph().node(id).name.clone();
    for (v, default, what) in [(m.value(SCALE), 1.0, "scale"), (m.value(SHIFT), 0.0, "shift")] {
        let list = match v {
            None => filled(cx, &format!("{name}.{what}"), dtype, &[channels], default)?,
            Some(v) => by_channel(cx, v, dims.len(), channels),
        };
        let Some(list) = list else {
            cx.miss(id, || format!("the {what} is not one constant a channel"));
            return Ok(None);
        };
        inputs.push(Some(list));
    }
    Ok(Some(inputs))
}
