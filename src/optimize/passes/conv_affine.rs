//! Folds what scales and shifts channels into the convolution beside it: a batch normalisation, or constants that are
//! multiplied or added.

use crate::error::Result;
use crate::ir::{NodeId, Op, ValueId};
use crate::kernels::gemm::Activation;
use crate::ops::conv::{Conv, ConvTranspose};
use crate::ops::norm::BatchNormalization;
use crate::ops::pointwise::BinaryFn;
use crate::ops::window::Pads;
use crate::optimize::pattern::binary;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// `conv(x) * factor + shift` and `conv(x * factor + shift)`, each with one number a channel, is a convolution with other
/// weights and another bias. Computed in f64, so that each new weight is rounded once. Only f32. Before a convolution that
/// pads, nothing may be shifted: its border is zeros.
pub struct ConvAffine;

impl Pass for ConvAffine {
    fn name(&self) -> &'static str {
        "conv_affine"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            if after(cx, id)?.is_none() {
                before(cx, id)?;
            }
        }
        Ok(())
    }
}

/// A value times a factor plus a shift, each of one number a channel (axis 1).
struct Affine {
    of: ValueId,
    factor: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    fn scales(&self) -> bool {
        self.factor.iter().any(|&f| f != 1.0)
    }
    fn is_finite(&self) -> bool {
        self.factor.iter().chain(&self.shift).all(|x| x.is_finite())
    }
}

/// The node as that of one of its inputs, which has so many channels.
fn affine(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<Affine> {
    let node = cx.node(id)?;
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let floats = |v: ValueId| -> Option<Vec<f64>> {
        let t = cx.graph().fact(v).constant().filter(|t| t.dtype() == DType::F32)?;
        Some(t.as_slice::<f32>().ok()?.iter().map(|&x| f64::from(x)).collect())
    };
    if let Some(norm) = cx.op::<BatchNormalization>(id) {
        let alone = node.outputs.iter().skip(1).all(Option::is_none);
        let (epsilon, plain) = (f64::from(norm.epsilon), !norm.training && norm.spatial && alone);
        let of = at(0)?;
        let lists = [1, 2, 3, 4].map(|i| floats(at(i)?));
        let [Some(scale), Some(bias), Some(mean), Some(var)] = lists else {
            cx.miss(id, || "a bias or a statistic is not constant f32".into());
            return None;
        };
        let equal = [&bias, &mean, &var].iter().all(|l| l.len() == scale.len());
        (plain && equal).then_some(())?;
        let factor: Vec<f64> = scale.iter().zip(&var).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
        let shift = factor.iter().zip(&mean).zip(&bias).map(|((f, m), b)| b - m * f).collect();
        return Some(Affine { of, factor, shift });
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
    let mut list = floats(constant).filter(|l| along_channels && !l.is_empty())?;
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
    Some(Affine { of, factor, shift })
}

/// A convolution whose weights can be changed.
struct Found {
    id: NodeId,
    op: Arc<dyn Op>,
    inputs: Vec<Option<ValueId>>,
    weights: Option<Tensor>,
    bias: Option<Tensor>,
    groups: usize,
    transposed: bool,
    /// What it adds, or does to its result.
    busy: bool,
}

fn convolution(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<Found> {
    let node = cx.node(id)?;
    let (groups, transposed, busy) = match (node.op.downcast::<Conv>(), node.op.downcast::<ConvTranspose>()) {
        (Some(c), _) => (c.groups, false, c.residual || c.activation != Activation::None),
        (_, Some(c)) => (c.groups, true, c.activation != Activation::None),
        _ => return None,
    };
    let constant = |v| cx.graph().fact(v).constant().filter(|t| t.dtype() == DType::F32).cloned();
    let bias = node.inputs.get(2).copied().flatten();
    let known = bias.map(constant);
    // One that is there and not constant cannot be added to.
    if known.as_ref().is_some_and(Option::is_none) {
        return None;
    }
    let weights = node.inputs.get(1).copied()?.and_then(constant);
    let (op, inputs) = (node.op.clone(), node.inputs.clone());
    Some(Found { id, op, inputs, weights, bias: known.flatten(), groups, transposed, busy })
}

/// Weights `[first, second, ...]` that are not empty, by their first two indices.
fn planes(w: &[f32], first: usize, second: usize) -> impl Iterator<Item = (usize, usize, &[f32])> {
    let plane = w.len() / first / second;
    let rows = w.chunks(second * plane).enumerate();
    rows.flat_map(move |(i, row)| row.chunks(plane).enumerate().map(move |(j, plane)| (i, j, plane)))
}

/// The weights `[first, second, ...]`, each times the factor of its first two indices.
fn scaled(w: &Tensor, first: usize, second: usize, factor: impl Fn(usize, usize) -> f64) -> Result<Tensor> {
    let mut scaled = Tensor::uninit(DType::F32, w.shape())?;
    let mut to = scaled.as_mut_slice::<f32>()?.iter_mut();
    for (i, j, plane) in planes(w.as_slice::<f32>()?, first, second) {
        let factor = factor(i, j);
        // The plane ends first, so that none of `to` is lost.
        for (&from, to) in plane.iter().zip(to.by_ref()) {
            *to = (f64::from(from) * factor) as f32;
        }
    }
    Ok(scaled)
}

fn list(bias: Option<&Tensor>, channels: usize) -> Result<Vec<f64>> {
    match bias {
        Some(t) => Ok(t.as_slice::<f32>()?.iter().map(|&x| f64::from(x)).collect()),
        None => Ok(vec![0.0; channels]),
    }
}

fn bias_of(cx: &mut PassCtx<'_, '_>, name: &str, list: &[f64]) -> Result<ValueId> {
    let list: Vec<f32> = list.iter().map(|&x| x as f32).collect();
    Ok(cx.edit.constant(&format!("{name}.bias"), Tensor::from_slice(&[list.len()], &list)?))
}

/// What follows a convolution.
fn after(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<Option<()>> {
    let Some(a) = affine(cx, id) else { return Ok(None) };
    let Some(conv) = cx.graph().value(a.of).producer.and_then(|p| convolution(cx, p.0)) else { return Ok(None) };
    if conv.busy || !cx.used_once(a.of) {
        cx.miss(id, || "the convolution has a residual or an activation already, or other users".into());
        return Ok(None);
    }
    let node = cx.graph().node(id);
    let (name, out) = (node.name.to_string(), node.outputs.first().copied().flatten());
    let channels = a.factor.len();
    let fits =
        a.is_finite() && cx.dtype(a.of) == Some(DType::F32) && conv.bias.as_ref().is_none_or(|b| b.len() == channels);
    let (Some(out), true) = (out, fits) else { return Ok(None) };
    let mut inputs = conv.inputs;
    inputs.resize(3, None);
    if a.scales() {
        let Some(w) = &conv.weights else {
            cx.miss(id, || "the weights are not constant".into());
            return Ok(None);
        };
        // [M, C / groups, ...], or [C, M / groups, ...].
        let (first, second) = match w.shape() {
            [a, b, ..] => (*a, *b),
            _ => return Ok(None),
        };
        let all = if conv.transposed { second * conv.groups } else { first };
        if all != channels || channels == 0 || w.is_empty() {
            return Ok(None);
        }
        let each = first / conv.groups.max(1);
        let channel = |i: usize, j: usize| if conv.transposed { i / each * second + j } else { i };
        let w = scaled(w, first, second, |i, j| a.factor[channel(i, j)])?;
        inputs[1] = Some(cx.edit.constant(&format!("{name}.weights"), w));
    }
    let bias = list(conv.bias.as_ref(), channels)?;
    let bias: Vec<f64> = bias.iter().zip(&a.factor).zip(&a.shift).map(|((b, f), s)| b * f + s).collect();
    inputs[2] = Some(bias_of(cx, &name, &bias)?);
    cx.absorb(conv.id, conv.op, inputs, id, out);
    Ok(Some(()))
}

/// What comes before a convolution: `id` is the convolution.
fn before(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<Option<()>> {
    let Some(conv) = convolution(cx, id).filter(|c| !c.transposed) else { return Ok(None) };
    let (Some(Some(x)), Some(w)) = (conv.inputs.first().copied(), conv.weights) else { return Ok(None) };
    let Some(a) = cx.graph().value(x).producer.and_then(|p| affine(cx, p.0)) else { return Ok(None) };
    let channels = a.factor.len();
    let (Some(op), &[m, each, ..]) = (conv.op.downcast::<Conv>(), w.shape()) else { return Ok(None) };
    let fits =
        a.is_finite() && each * conv.groups == channels && m > 0 && !w.is_empty() && cx.dtype(x) == Some(DType::F32);
    if !fits || m % conv.groups != 0 {
        return Ok(None);
    }
    let bare = matches!(&op.window.pads, Pads::Explicit(p) if p.iter().all(|&p| p == 0));
    if !cx.used_once(x) || !bare && a.shift.iter().any(|&s| s != 0.0) {
        cx.miss(id, || "what comes before it shifts its input, whose border is zeros, or has other users".into());
        return Ok(None);
    }
    let name = cx.graph().node(id).name.to_string();
    let per_group = m / conv.groups;
    let channel = |i: usize, j: usize| i / per_group * each + j;
    let mut bias = list(conv.bias.as_ref(), m)?;
    for (i, j, plane) in planes(w.as_slice::<f32>()?, m, each) {
        let shift = a.shift[channel(i, j)];
        bias[i] += plane.iter().map(|&w| f64::from(w) * shift).sum::<f64>();
    }
    let new = scaled(&w, m, each, |i, j| a.factor[channel(i, j)])?;
    let mut inputs = conv.inputs.clone();
    inputs.resize(inputs.len().max(3), None);
    inputs[0] = Some(a.of);
    inputs[1] = Some(cx.edit.constant(&format!("{name}.weights"), new));
    inputs[2] = Some(bias_of(cx, &name, &bias)?);
    cx.edit.replace_op(id, conv.op, inputs);
    cx.prune(vec![Some(x)]);
    cx.fired();
    Ok(Some(()))
}
