//! Folds what scales and shifts channels into the convolution beside it: a batch normalisation, or constants that are
//! multiplied or added.

use crate::base::alloc::Pile;
use crate::error::Result;
use crate::ir::{NodeId, ValueId};
use crate::kernels::gemm::Activation;
use crate::ops::conv::{Conv, ConvTranspose};
use crate::ops::norm::BatchNormalization;
use crate::ops::pointwise::BinaryFn;
use crate::ops::window::Pads;
use crate::optimize::pattern::binary;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use std::ops::Range;

/// `conv(x) * factor + shift` and `conv(x * factor + shift)`, each with one number a channel, is a convolution with other
/// weights and another bias, and so are chains of them. Computed in f64, so that each new weight is rounded once. Only f32.
/// Before a convolution that pads, nothing may be shifted: its border is zeros.
pub struct ConvAffine;

impl Pass for ConvAffine {
    fn name(&self) -> &'static str {
        "conv_affine"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        let memory = Pile::default();
        for id in cx.order() {
            let Some(conv) = convolution(cx, id) else { continue };
            let (after, before) = (after(cx, &conv), before(cx, &conv));
            if after.is_some() || before.is_some() {
                fold(cx, conv, after, before, &memory)?;
            }
        }
        Ok(())
    }
}

/// A factor and then a shift, each of one number a channel (axis 1).
pub(super) struct Affine {
    pub factor: Vec<f64>,
    pub shift: Vec<f64>,
}

impl Affine {
    fn scales(&self) -> bool {
        self.factor.iter().any(|&f| f != 1.0)
    }
    fn shifts(&self) -> bool {
        self.shift.iter().any(|&s| s != 0.0)
    }
    /// This one and then another one. `None` where their channels are not as many, or the numbers pass all bounds.
    fn then(&self, next: &Affine) -> Option<Affine> {
        let factor = self.factor.iter().zip(&next.factor).map(|(a, b)| a * b).collect();
        let shift = self.shift.iter().zip(&next.factor).zip(&next.shift).map(|((s, f), t)| s * f + t).collect();
        (self.factor.len() == next.factor.len()).then_some(Affine { factor, shift }).filter(Affine::is_finite)
    }
    fn is_finite(&self) -> bool {
        self.factor.iter().chain(&self.shift).all(|x| x.is_finite())
    }
}

/// The node as an affine function of one of its inputs.
pub(super) fn affine(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<(ValueId, Affine)> {
    let node = cx.node(id)?;
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let list = |v: ValueId| -> Option<Vec<f64>> {
        let t = cx.graph().fact(v).constant().filter(|t| t.dtype() == DType::F32)?;
        Some(floats(t.bytes()).collect())
    };
    if let Some(norm) = cx.op::<BatchNormalization>(id) {
        let alone = node.outputs.iter().skip(1).all(Option::is_none);
        let (epsilon, plain) = (f64::from(norm.epsilon), !norm.training && norm.spatial && alone);
        let of = at(0)?;
        let lists = [1, 2, 3, 4].map(|i| list(at(i)?));
        let [Some(scale), Some(bias), Some(mean), Some(var)] = lists else {
            cx.miss(id, || "a bias or a statistic is not constant f32".into());
            return None;
        };
        let equal = [&bias, &mean, &var].iter().all(|l| l.len() == scale.len());
        (plain && equal).then_some(())?;
        let factor: Vec<f64> = scale.iter().zip(&var).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
        let shift = factor.iter().zip(&mean).zip(&bias).map(|((f, m), b)| b - m * f).collect();
        return Some((of, Affine { factor, shift }));
    }
    let f = binary(&*node.op).filter(|f| matches!(f, BinaryFn::Mul | BinaryFn::Div | BinaryFn::Add | BinaryFn::Sub))?;
    let (x, y) = (at(0)?, at(1)?);
    let right = cx.graph().fact(y).constant().is_some();
    let (of, constant) = if right { (x, y) } else { (y, x) };
    let dims = cx.dims(of)?;
    let channels = dims.get(1)?.size()?;
    let shape = cx.graph().fact(constant).constant()?.shape().to_vec();
    // One number, or one a channel, and no more axes than the value has.
    let lead = dims.len().checked_sub(shape.len())?;
    let along_channels = shape.iter().enumerate().all(|(i, &n)| n == 1 || i + lead == 1 && n == channels);
    let mut list = list(constant).filter(|l| along_channels && !l.is_empty())?;
    if list.len() == 1 {
        list = vec![list[0]; channels];
    }
    let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
    let negated = |l: &[f64]| l.iter().map(|x| -x).collect::<Vec<_>>();
    let (factor, shift) = match (f, right) {
        (BinaryFn::Mul, _) => (list, zeros),
        (BinaryFn::Div, true) => (list.iter().map(|x| 1.0 / x).collect(), zeros),
        (BinaryFn::Add, _) => (ones, list),
        (BinaryFn::Sub, true) => (ones, negated(&list)),
        (BinaryFn::Sub, false) => (negated(&ones), list),
        _ => return None,
    };
    Some((of, Affine { factor, shift }))
}

/// A convolution whose weights can be changed.
struct Found {
    id: NodeId,
    input: ValueId,
    output: ValueId,
    weights: Option<Tensor>,
    bias: Option<Tensor>,
    groups: usize,
    transposed: bool,
    /// It adds something to its result, or applies a function.
    busy: bool,
    pads: bool,
}

fn convolution(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<Found> {
    let node = cx.node(id)?;
    let (groups, transposed, busy, pads) = match (node.op.downcast::<Conv>(), node.op.downcast::<ConvTranspose>()) {
        (Some(c), _) => (c.groups, false, c.residual || c.activation != Activation::None, &c.window.pads),
        (_, Some(c)) => (c.groups, true, c.activation != Activation::None, &c.window.pads),
        _ => return None,
    };
    let constant = |v| cx.graph().fact(v).constant().filter(|t| t.dtype() == DType::F32).cloned();
    let bias = node.inputs.get(2).copied().flatten();
    let known = bias.map(constant);
    // One that is there and not constant cannot be added to.
    if known.as_ref().is_some_and(Option::is_none) {
        return None;
    }
    let (input, output) = (node.inputs.first().copied()??, node.outputs.first().copied()??);
    (groups > 0 && cx.dtype(output) == Some(DType::F32)).then_some(())?;
    let weights = node.inputs.get(1).copied()?.and_then(constant).filter(|w| !w.is_empty() && w.shape().len() > 2);
    let pads = !matches!(pads, Pads::Explicit(p) if p.iter().all(|&p| p == 0));
    Some(Found { id, input, output, weights, bias: known.flatten(), groups, transposed, busy, pads })
}

impl Found {
    /// How many channels come in and go out, if the weights are known.
    fn channels(&self) -> Option<(usize, usize)> {
        // [M, C / groups, ...], or [C, M / groups, ...].
        let &[first, second, ..] = self.weights.as_ref()?.shape() else { return None };
        let others = second.checked_mul(self.groups)?;
        first.is_multiple_of(self.groups).then_some(if self.transposed { (first, others) } else { (others, first) })
    }
    /// Of the axis that is not the weights' first those channels that an index of the first one meets.
    fn group(&self, weights: &Tensor, i: usize) -> Range<usize> {
        let (rows, second) = (weights.shape()[0], weights.shape()[1]);
        let group = i / (rows / self.groups);
        group * second..(group + 1) * second
    }
}

/// What follows a convolution: that, the result, and the node that makes it.
fn after(cx: &mut PassCtx<'_, '_>, conv: &Found) -> Option<(Affine, ValueId, NodeId)> {
    let mut all: Option<(Affine, ValueId, NodeId)> = None;
    loop {
        let v = all.as_ref().map_or(conv.output, |a| a.1);
        let users = cx.edit.users(v).to_vec();
        let next = users.into_iter().find_map(|u| Some((affine(cx, u).filter(|a| a.0 == v)?.1, u)));
        let Some((a, user)) = next else { return all };
        if conv.busy || !cx.used_once(v) {
            cx.miss(user, || "the convolution has a residual or an activation already, or other users".into());
            return all;
        }
        if a.scales() && conv.weights.is_none() {
            cx.miss(user, || "the weights are not constant".into());
            return all;
        }
        let fits = conv.channels().is_none_or(|c| c.1 == a.factor.len())
            && conv.bias.as_ref().is_none_or(|b| b.len() == a.factor.len());
        let out = cx.graph().node(user).outputs.first().copied().flatten();
        let both = match &all {
            Some((before, ..)) => before.then(&a),
            None => Some(a).filter(|a| fits && a.is_finite()),
        };
        let (Some(both), Some(out)) = (both, out) else { return all };
        all = Some((both, out, user));
    }
}

/// What comes before a convolution: that, and what it begins with.
fn before(cx: &mut PassCtx<'_, '_>, conv: &Found) -> Option<(Affine, ValueId)> {
    let (channels, _) = conv.channels().filter(|_| !conv.transposed)?;
    let mut all: Option<(Affine, ValueId)> = None;
    loop {
        let v = all.as_ref().map_or(conv.input, |a| a.1);
        let Some((of, a)) = cx.graph().value(v).producer.and_then(|p| affine(cx, p.0)) else { return all };
        if !cx.used_once(v) || conv.pads && a.shifts() {
            let why = "what comes before it shifts its input, whose border is zeros, or has other users";
            cx.miss(conv.id, || why.into());
            return all;
        }
        let both = match &all {
            Some((after, _)) => a.then(after),
            None => Some(a).filter(|a| a.factor.len() == channels && a.is_finite()),
        };
        let Some(both) = both else { return all };
        all = Some((both, of));
    }
}

/// A convolution and what stood around it.
struct Folded {
    conv: Found,
    first: Option<Affine>,
    last: Option<Affine>,
}

/// Changes a convolution to one that does what stands around it.
fn fold(
    cx: &mut PassCtx<'_, '_>,
    conv: Found,
    after: Option<(Affine, ValueId, NodeId)>,
    before: Option<(Affine, ValueId)>,
    memory: &Pile,
) -> Result<()> {
    let (last, later) = after.map(|(a, out, node)| (a, (out, node))).unzip();
    let (first, input) = before.unzip();
    let folded = Folded { conv, first, last };
    let id = folded.conv.id;
    let node = cx.graph().node(id);
    let (name, op, mut inputs) = (node.name.clone(), node.op.clone(), node.inputs.clone());
    let mut gone = vec![Some(folded.conv.input)];
    inputs.resize(inputs.len().max(3), None);
    inputs[0] = Some(input.unwrap_or(folded.conv.input));
    inputs[2] = Some(cx.edit.constant(&format!("{name}.bias"), folded.bias()?));
    if let Some(weights) = folded.weights(memory)? {
        inputs[1] = Some(cx.edit.constant(&format!("{name}.weights"), weights));
    }
    match later {
        Some((out, user)) => {
            gone.extend(&cx.graph().node(user).inputs);
            cx.absorb(id, op, inputs, user, out);
        }
        None => {
            cx.edit.replace_op(id, op, inputs);
            cx.fired();
        }
    }
    cx.prune(gone);
    Ok(())
}

impl Folded {
    /// The new bias.
    fn bias(&self) -> Result<Tensor> {
        let Folded { conv, first, last } = self;
        let channels = last.as_ref().map(|a| a.factor.len()).or(conv.channels().map(|c| c.1)).unwrap_or(0);
        let mut bias: Vec<f64> = match &conv.bias {
            Some(t) => floats(t.bytes()).collect(),
            None => vec![0.0; channels],
        };
        if let (Some(w), Some(a)) = (&conv.weights, first.as_ref().filter(|a| a.shifts())) {
            let rows = w.bytes().chunks(w.byte_len() / w.shape()[0]).enumerate();
            bias.iter_mut().zip(rows).for_each(|(b, (i, row))| *b += shifted(row, &a.shift[conv.group(w, i)]));
        }
        if let Some(a) = last {
            bias.iter_mut().zip(&a.factor).zip(&a.shift).for_each(|((b, f), s)| *b = *b * f + s);
        }
        let bias: Vec<f32> = bias.iter().map(|&x| x as f32).collect();
        Tensor::from_slice(&[bias.len()], &bias)
    }
    /// The new weights, if they are others: computed when a kernel packs them.
    fn weights(self, memory: &Pile) -> Result<Option<Tensor>> {
        let Folded { conv, first, last } = self;
        let scales = [&first, &last].into_iter().flatten().any(Affine::scales);
        let Some(w) = conv.weights.clone().filter(|_| scales) else { return Ok(None) };
        let shape = w.shape().to_vec();
        let fill = move |to: &mut [f32]| {
            let own = |i: usize| last.as_ref().map_or(1.0, |a| a.factor[i]);
            scale(&w, to, |i| match (&first, &last) {
                (_, Some(a)) if conv.transposed => (1.0, &a.factor[conv.group(&w, i)]),
                (Some(b), _) => (own(i), &b.factor[conv.group(&w, i)]),
                (None, _) => (own(i), &[1.0]),
            });
        };
        Tensor::late(memory, &shape, fill).map(Some)
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f64> {
    // Where they lie in a file, whose elements need not be aligned.
    bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_ne_bytes(*b)))
}

/// Writes weights `[first, ...]`, each times two factors: that of its index of the first axis, and one for all or one for
/// each index of the second axis.
fn scale<'f>(w: &Tensor, to: &mut [f32], factors: impl Fn(usize) -> (f64, &'f [f64])) {
    let row = w.len() / w.shape()[0];
    for (i, (from, to)) in w.bytes().chunks(row * 4).zip(to.chunks_mut(row)).enumerate() {
        let (own, others) = factors(i);
        let plane = row / others.len();
        if plane == 1 {
            to.iter_mut().zip(floats(from)).zip(others).for_each(|((t, w), f)| *t = (w * (own * f)) as f32);
            continue;
        }
        for ((to, from), f) in to.chunks_mut(plane).zip(from.chunks(plane * 4)).zip(others) {
            let f = own * f;
            to.iter_mut().zip(floats(from)).for_each(|(t, w)| *t = (w * f) as f32);
        }
    }
}

/// The sum of the weights of one index of the first axis, each times the shift of its index of the second.
fn shifted(row: &[u8], shifts: &[f64]) -> f64 {
    // Sums side by side need not wait for one another.
    let mut sums = [0.0; 8];
    let plane = row.len() / shifts.len();
    if plane == 4 {
        for (row, shifts) in row.chunks(8 * plane).zip(shifts.chunks(8)) {
            sums.iter_mut().zip(floats(row)).zip(shifts).for_each(|((sum, w), shift)| *sum += w * shift);
        }
    } else {
        for (i, (plane, shift)) in row.chunks(plane).zip(shifts).enumerate() {
            sums[i % 8] += floats(plane).sum::<f64>() * shift;
        }
    }
    sums.iter().sum()
}
