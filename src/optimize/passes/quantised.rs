//! What lies between DequantizeLinear and QuantizeLinear, as quantised models are exported ("QDQ"), becomes an operator on
//! integers: convolutions and products, elementwise programs, and what moves or compares numbers of one scale. It runs before
//! DequantizeLinear of weights is folded.

use super::conv_affine::affine;
use crate::error::Result;
use crate::ir::{Fact, Node, NodeId, Op, ValueId};
use crate::kernels::gemm::Activation;
use crate::kernels::movement::PadMode;
use crate::kernels::pointwise::{Program, ProgramBuilder, Register, TernaryOp, UnaryOp};
use crate::kernels::reduce::ReduceKind;
use crate::ops::cast::Cast;
use crate::ops::conv::Conv;
use crate::ops::linear::MatMul;
use crate::ops::movement::{Blocks, Concat, Expand, Gather, Pad, Slice, Split, Tile, Transpose};
use crate::ops::pointwise::{BinaryFn, Clip, Pointwise, Unary, UnaryFn, program_of};
use crate::ops::pool::{GlobalPool, Pool, PoolKind};
use crate::ops::quant::{Dequantize, Grain, IntConvolution, IntMatMul, Quantize};
use crate::ops::reduce::Reduce;
use crate::ops::resize::{Coordinates, Method, Resize};
use crate::ops::shape::{Flatten, Reshape, Squeeze, Unsqueeze};
use crate::optimize::pass::same_shape;
use crate::optimize::pattern::commuted;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// See the file's head.
pub struct Quantised;

impl Pass for Quantised {
    fn name(&self) -> &'static str {
        "quantised"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            fuse(cx, id);
        }
        for id in cx.order() {
            let _ = to_float(cx, id);
        }
        Ok(())
    }
}

/// A number that DequantizeLinear makes: the integers, their scale and zero point.
pub(super) struct Real {
    pub q: ValueId,
    pub scale: ValueId,
    pub zero: Option<ValueId>,
    /// The axis of scales that are more than one.
    pub axis: Option<i64>,
}

fn dtype(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<DType> {
    cx.graph().fact(v).dtype()
}
fn len(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<usize> {
    cx.graph().fact(v).shape().map(|s| s.iter().product())
}

/// What a value was before conversions to the type that it has, which PyTorch writes behind each QuantizeLinear.
fn same_type(cx: &PassCtx<'_, '_>, v: ValueId) -> ValueId {
    let from = cx.maker::<Cast>(v).and_then(|(id, _)| cx.node(id)?.inputs.first().copied().flatten());
    from.filter(|&x| dtype(cx, x).is_some() && dtype(cx, x) == dtype(cx, v)).map_or(v, |x| same_type(cx, x))
}

/// The f32 value as a dequantised one of type `want`.
pub(super) fn real(cx: &PassCtx<'_, '_>, v: ValueId, want: &[DType]) -> Option<Real> {
    let (id, op) = cx.maker::<Dequantize>(v)?;
    let inputs = &cx.node(id)?.inputs;
    let (q, scale) = (inputs.first().copied()??, inputs.get(1).copied()??);
    let plain = op.grain.block == 0 && op.to.is_none_or(|d| d == DType::F32);
    let q = same_type(cx, q);
    let typed = want.contains(&dtype(cx, q)?) && dtype(cx, scale)? == DType::F32;
    let axis = if len(cx, scale)? == 1 { None } else { Some(op.grain.axis) };
    (plain && typed).then_some(Real { q, scale, zero: inputs.get(2).copied().flatten(), axis })
}

/// The numbers of a small f32 constant.
fn floats(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<Vec<f32>> {
    Some(cx.graph().fact(v).constant()?.as_slice::<f32>().ok()?.to_vec())
}

/// The scale of a channel; one may be for all.
fn at_channel(scales: &[f32], i: usize) -> f32 {
    if scales.len() == 1 { scales[0] } else { scales.get(i).copied().unwrap_or(f32::NAN) }
}

/// The integers of a bias in steps of the product's sums; `Some(None)` without a bias. By convention its scale is the product of the
/// others'; one of floats is rounded to half such a step, of which a step of the result has hundreds.
fn bias(cx: &mut PassCtx<'_, '_>, bias: Option<ValueId>, x: &Real, w: &Real) -> Option<Option<ValueId>> {
    let Some(v) = bias else { return Some(None) };
    let (sx, sw) = (floats(cx, x.scale)?, floats(cx, w.scale)?);
    if let Some(numbers) = floats(cx, v).filter(|n| sw.len() == 1 || sw.len() == n.len()) {
        // Sums are of 32 bits.
        let integer = |(i, b): (usize, &f32)| {
            let y = (b / (sx[0] * at_channel(&sw, i))).round_ties_even();
            (y.abs() < (1 << 30) as f32).then_some(y as i32)
        };
        let integers: Vec<i32> = numbers.iter().enumerate().map(integer).collect::<Option<_>>()?;
        let name = format!("{}.integers", cx.graph().value(v).name);
        let t = Tensor::from_slice(&[integers.len()], &integers).ok()?;
        return Some(Some(cx.edit.constant(&name, t)));
    }
    let b = real(cx, v, &[DType::I32])?;
    if let Some(z) = b.zero {
        let z = cx.graph().fact(z).constant()?;
        z.to_i64s().ok()?.iter().all(|&z| z == 0).then_some(())?;
    }
    let sb = floats(cx, b.scale)?;
    let near = |i: usize| {
        let want = sx[0] * at_channel(&sw, i);
        // What the rounding of a product and of a stored scale may differ by.
        (at_channel(&sb, i) - want).abs() <= 1e-5 * want.abs()
    };
    (0..sw.len().max(sb.len())).all(near).then_some(Some(b.q))
}

const INT8: [DType; 2] = [DType::U8, DType::I8];

/// Whether what is below zero quantises to the least integer, so that limiting the integers is a Relu.
fn limits_at_zero(cx: &PassCtx<'_, '_>, zero: ValueId) -> bool {
    let fact = cx.graph().fact(zero);
    let least = if fact.dtype() == Some(DType::I8) { -128 } else { 0 };
    fact.constant().and_then(|t| t.to_i64s().ok()).is_some_and(|z| z.iter().all(|&z| z == least))
}

fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId) {
    while normalised(cx, id).is_some() {}
    let _ = sums(cx, id)
        .or_else(|| residual(cx, id))
        .or_else(|| mean(cx, id))
        .or_else(|| moved(cx, id))
        .or_else(|| split(cx, id))
        .or_else(|| limited(cx, id))
        .or_else(|| joined(cx, id))
        .or_else(|| elementwise(cx, id));
}

/// What scales and shifts the channels of a convolution of dequantised weights, a batch normalisation in training for quantisation,
/// scales the weights' scales and shifts the bias.
fn normalised(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let conv = cx.op::<Conv>(id).filter(|c| !c.residual && c.activation == Activation::None)?;
    let (op, node) = (Arc::new(conv.clone()), cx.node(id)?.clone());
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let (w, out) = (real(cx, at(1)?, &[DType::I8])?, node.outputs.first().copied()??);
    let &[user] = cx.edit.users(out) else { return None };
    let later = cx.node(user)?.outputs.first().copied()??;
    let (_, a) = affine(cx, user).filter(|a| a.0 == out && cx.used_once(out))?;
    let n = a.factor.len();
    let zeros = w.zero.is_none_or(|z| cx.graph().fact(z).constant().is_some_and(|z| z.bytes().iter().all(|&b| b == 0)));
    let (scales, along) = (floats(cx, w.scale)?, w.axis.is_none_or(|a| a == 0));
    let bias = at(2).map_or(Some(vec![0.0; n]), |v| floats(cx, v))?;
    let fits = cx.dims(w.q)?.first()?.size() == Some(n) && bias.len() == n && (scales.len() == 1 || scales.len() == n);
    (fits && zeros && along).then_some(())?;
    let scale = |(i, f): (usize, &f64)| (f64::from(at_channel(&scales, i)) * f) as f32;
    let scales: Vec<f32> = a.factor.iter().enumerate().map(scale).collect();
    let shift = |((b, f), s): ((&f32, &f64), &f64)| (f64::from(*b) * f + s) as f32;
    let bias: Vec<f32> = bias.iter().zip(&a.factor).zip(&a.shift).map(shift).collect();
    let [scales, bias] = [("scales", scales), ("shifts", bias)].map(|(what, list)| {
        let t = Tensor::from_slice(&[n], &list).ok()?;
        Some(cx.edit.constant(&format!("{}.{what}", node.name), t))
    });
    let real = Arc::new(Dequantize { grain: Grain { axis: 0, block: 0 }, to: Some(DType::F32) });
    let weights = cx.edit.node(&format!("{}.weights", node.name), real, vec![Some(w.q), Some(scales?)], 1).ok()?;
    cx.absorb(id, op, vec![at(0), weights.first().copied(), Some(bias?)], user, later);
    Some(())
}

/// Bounds of integers, narrower than their type's: a program, which goes where programs go.
fn limited(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    cx.op::<Clip>(id)?;
    let node = cx.node(id)?.clone();
    let (x, out) = (node.inputs.first().copied()??, node.outputs.first().copied()??);
    let to = dtype(cx, out).filter(|d| INT8.contains(d))?;
    let mut b = ProgramBuilder::new(1);
    let mut y = b.load(0);
    for (i, v) in node.inputs.iter().enumerate().skip(1) {
        let Some(v) = *v else { continue };
        let bound = b.constant(*cx.graph().fact(v).constant()?.to_i64s().ok()?.first()? as f32);
        y = if i == 1 { b.max(y, bound) } else { b.min(y, bound) };
    }
    let program = b.finish(&[y]).ok()?;
    cx.edit.replace_op(id, Arc::new(Pointwise { program, dtypes: vec![to] }), vec![Some(x)]);
    cx.fired();
    Some(())
}

/// A convolution or product.
fn sums(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let op = cx.op::<Quantize>(id)?;
    if op.grain.block != 0 || op.precision.is_some_and(|p| p != DType::F32) {
        return None;
    }
    let node = cx.node(id)?.clone();
    let (Some(&Some(mut y)), &[Some(out)]) = (node.inputs.first(), &node.outputs[..]) else { return None };
    let (scale, zero) = (node.inputs.get(1).copied()??, node.inputs.get(2).copied().flatten()?);
    let fits = INT8.contains(&dtype(cx, zero)?) && dtype(cx, scale)? == DType::F32;
    if !fits || len(cx, scale)? != 1 || len(cx, zero)? != 1 || !cx.used_once(y) {
        return None;
    }
    let mut relu = false;
    if let Some((unary, _)) = cx.maker::<Unary>(y).filter(|(_, u)| u.f == UnaryFn::Op(UnaryOp::Relu)) {
        y = cx.node(unary)?.inputs.first().copied()??;
        relu = true;
    }
    if !cx.used_once(y) {
        return None;
    }
    if let Some((maker, conv)) = cx.maker::<Conv>(y) {
        relu |= conv.activation == Activation::Relu;
        if conv.residual || !matches!(conv.activation, Activation::None | Activation::Relu) {
            return None;
        }
        let (window, groups) = (conv.window.clone(), conv.groups);
        let op = IntConvolution { window, groups, quantised: true, last: [false; 2], residual: false, relu };
        let made = cx.node(maker)?.clone();
        let (x, w, b) = operands(cx, &made)?;
        if x.axis.is_some() || w.axis.is_some_and(|a| a != 0) {
            cx.miss(id, || "scales along another axis than the kernel takes".into());
            return None;
        }
        let ends = [x.q, x.scale];
        let mut inputs: Vec<Option<ValueId>> = ends.map(Some).to_vec();
        inputs.extend([x.zero, Some(w.q), Some(w.scale), w.zero, Some(scale), Some(zero), b]);
        cx.absorb(maker, Arc::new(op), inputs, id, out);
        return Some(());
    }
    let (maker, op) = cx.maker::<MatMul>(y)?;
    relu |= op.activation == Activation::Relu;
    if relu && !limits_at_zero(cx, zero) || !matches!(op.activation, Activation::None | Activation::Relu) {
        return None;
    }
    let made = cx.node(maker)?.clone();
    let (op, mut inputs) = product(cx, maker, &made)?;
    inputs.extend([Some(scale), Some(zero)]);
    cx.absorb(maker, Arc::new(op), inputs, id, out);
    Some(())
}

/// A product of dequantised matrices, without its activation, as one of integers and what it reads but for the result's scale
/// and zero point, without which it gives f32.
fn product(cx: &mut PassCtx<'_, '_>, id: NodeId, made: &Node) -> Option<(IntMatMul, Vec<Option<ValueId>>)> {
    let op = cx.op::<MatMul>(id)?.clone();
    if made.inputs.get(2).is_some_and(Option::is_some) && (op.beta != 1.0 || op.alpha != 1.0) {
        return None;
    }
    let (a, b, c) = operands(cx, made)?;
    let rank = cx.dims(b.q)?.len();
    let n = cx.dims(made.outputs.first().copied()??)?.last()?.size();
    let columns = if op.trans_b { rank.checked_sub(2)? } else { rank.checked_sub(1)? } as i64;
    let along = b.axis.is_none_or(|axis| axis == columns || axis + rank as i64 == columns);
    if a.axis.is_some() || !along || c.is_some_and(|c| n.is_none() || len(cx, c) != n) {
        cx.miss(id, || "scales or a bias along another axis than the kernel takes".into());
        return None;
    }
    let inputs = vec![Some(a.q), Some(a.scale), a.zero, Some(b.q), Some(b.scale), b.zero, c];
    Some((IntMatMul::qgemm([op.trans_a, op.trans_b], op.alpha), inputs))
}

/// A product whose result stays in f32, and a bias of floats with it.
fn to_float(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let plain = cx.op::<MatMul>(id).filter(|m| m.activation == Activation::None)?.beta == 1.0;
    let mut made = cx.node(id)?.clone();
    let columns = cx.dims(made.outputs.first().copied()??)?.last()?.clone();
    let row = |v: &ValueId| plain && floats(cx, *v).is_some() && matches!(cx.dims(*v), Some([n]) if n.same(&columns));
    let bias = made.inputs.get(2).copied().flatten().filter(row);
    if bias.is_some() {
        made.inputs.truncate(2);
    }
    let (op, inputs) = product(cx, id, &made)?;
    let (op, inputs) = match inputs[..] {
        [a, sa, za, b, sb, zb, None] => {
            (IntMatMul { alpha: op.alpha, ..IntMatMul::to_float(op.trans) }, vec![a, b, sa, sb, za, zb, bias])
        }
        _ => (op, inputs),
    };
    cx.edit.replace_op(id, Arc::new(op), inputs);
    cx.fired();
    Some(())
}

/// An integer convolution whose dequantised result is added to a dequantised tensor, and quantised anew, does all that itself.
fn residual(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (mut y, end, _) = quantised_by(cx, id)?;
    let (zero, mut relu) = (end.zero?, false);
    if let Some((unary, _)) = cx.maker::<Unary>(y).filter(|(_, u)| u.f == UnaryFn::Op(UnaryOp::Relu)) {
        cx.used_once(y).then_some(())?;
        (y, relu) = (cx.node(unary)?.inputs.first().copied()??, true);
    }
    let (orders, _) = commuted(cx, cx.graph().value(y).producer?.0, BinaryFn::Add)?;
    known(cx, &end).filter(|_| cx.used_once(y))?;
    for (own, other) in orders {
        let (Some(x), Some(r)) = (real(cx, own, &INT8), real(cx, other, &INT8)) else { continue };
        let Some((maker, conv)) = cx.maker::<IntConvolution>(x.q) else { continue };
        let (op, mut inputs) = (conv.clone(), cx.node(maker)?.inputs.clone());
        let at = |i: usize| inputs.get(i).copied().flatten();
        let made = Real { q: x.q, scale: at(6)?, zero: at(7), axis: None };
        let plain = op.quantised && !op.residual && !op.relu && known(cx, &made)? == known(cx, &x)?;
        let closed = cx.used_once(own) && cx.used_once(x.q);
        if !plain || !closed || known(cx, &r).is_none() || !same_shape(cx.dims(own), cx.dims(other)) {
            continue;
        }
        inputs.resize(9, None);
        inputs.extend([Some(r.q), Some(r.scale), r.zero, Some(end.scale), Some(zero)]);
        cx.absorb(maker, Arc::new(IntConvolution { residual: true, relu, ..op }), inputs, id, end.q);
        return Some(());
    }
    None
}

/// The value that a node quantises with one scale and zero point to 8 bits, and those; each other user of it goes on as it was.
pub(super) fn quantised_by(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(ValueId, Real, DType)> {
    let op = cx.op::<Quantize>(id)?;
    let node = cx.node(id)?;
    let (y, scale) = (node.inputs.first().copied()??, node.inputs.get(1).copied()??);
    let zero = node.inputs.get(2).copied().flatten();
    let to = zero.map_or(op.to.or(Some(DType::U8)), |z| dtype(cx, z))?;
    let plain = op.grain.block == 0 && op.precision.is_none_or(|p| p == DType::F32) && INT8.contains(&to);
    let one = len(cx, scale)? == 1 && zero.is_none_or(|z| len(cx, z) == Some(1));
    let fits = plain && one && dtype(cx, scale)? == DType::F32 && dtype(cx, y)? == DType::F32;
    fits.then_some((y, Real { q: node.outputs.first().copied()??, scale, zero, axis: None }, to))
}

/// Scale and zero point, if they are known.
fn known(cx: &PassCtx<'_, '_>, r: &Real) -> Option<(f32, f32)> {
    let zero = match r.zero {
        Some(z) => cx.graph().fact(z).constant()?.to_i64s().ok()?.first().copied()? as f32,
        None => 0.0,
    };
    let scale = floats(cx, r.scale)?.first().copied()?;
    (r.axis.is_none() && scale.is_normal() && scale > 0.0).then_some((scale, zero))
}

/// The mean of all places of an image, as a pool of bytes that is quantised before its places' axes go.
fn mean(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (y, ..) = quantised_by(cx, id)?;
    let (maker, op) = cx.maker::<Reduce>(y).filter(|(_, r)| r.kind == ReduceKind::Mean)?;
    let (keep_dims, node) = (op.keep_dims, cx.node(maker)?.clone());
    let (x, axes) = (node.inputs.first().copied()??, node.inputs.get(1).copied()??);
    let rank = cx.dims(x)?.len();
    let mut places = cx.graph().fact(axes).as_tensor()?.ints()?.to_vec();
    places.iter_mut().filter(|a| **a < 0).for_each(|a| *a += rank as i64);
    places.sort_unstable();
    (rank > 2 && places.into_iter().eq(2..rank as i64) && cx.used_once(y)).then_some(())?;
    real(cx, x, &INT8)?;
    let pool = Arc::new(GlobalPool { kind: PoolKind::Average });
    if keep_dims {
        cx.edit.replace_op(maker, pool, vec![Some(x)]);
    } else {
        let quantise = cx.node(id)?.clone();
        let pooled = *cx.edit.node(&format!("{}.pool", node.name), pool, vec![Some(x)], 1).ok()?.first()?;
        let inputs = [Some(pooled)].into_iter().chain(quantise.inputs.into_iter().skip(1)).collect();
        let bytes = *cx.edit.node(&format!("{}.bytes", node.name), quantise.op, inputs, 1).ok()?.first()?;
        cx.edit.replace_op(id, Arc::new(Squeeze), vec![Some(bytes), Some(axes)]);
        cx.prune(vec![Some(y)]);
    }
    cx.fired();
    Some(())
}

/// Whether an operator only puts its first input's elements elsewhere.
fn moves(op: &dyn Op) -> bool {
    let nearest = |r: &Resize| matches!(r.method, Method::Nearest(_)) && r.coordinates != Coordinates::CropAndResize;
    let views = op.is::<Reshape>() || op.is::<Flatten>() || op.is::<Squeeze>() || op.is::<Unsqueeze>();
    let parts = op.is::<Slice>() || op.is::<Gather>() || op.downcast::<Resize>().is_some_and(nearest);
    let repeats = op.is::<Expand>() || op.is::<Tile>();
    let edges = op.downcast::<Pad>().is_some_and(|p| p.mode != PadMode::Constant);
    views || parts || repeats || edges || op.is::<Transpose>() || op.is::<Blocks>()
}

/// Numbers that are moved, or the greatest of some, with the same scale before and after: the integers are.
fn moved(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (y, out, to) = quantised_by(cx, id)?;
    let (maker, 0) = cx.graph().value(y).producer? else { return None };
    let node = cx.node(maker)?.clone();
    let op = &node.op;
    let greatest = op.downcast::<Pool>().is_some_and(|p| p.kind == PoolKind::Max)
        || op.downcast::<GlobalPool>().is_some_and(|p| p.kind == PoolKind::Max);
    let moves = moves(&**op);
    if !(moves || greatest) || node.outputs.len() != 1 || !cx.used_once(y) {
        return None;
    }
    let x = real(cx, node.inputs.first().copied()??, &[to])?;
    if known(cx, &x)? != known(cx, &out)? {
        cx.miss(id, || "another scale or zero point than before".into());
        return None;
    }
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(x.q);
    let op = node.op.clone();
    cx.absorb(maker, op, inputs, id, out.q);
    Some(())
}

/// Parts of a tensor, all of which are quantised as it is.
fn split(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (y, _, to) = quantised_by(cx, id)?;
    let (maker, _) = cx.graph().value(y).producer?;
    let node = cx.node(maker).filter(|n| n.op.is::<Split>())?.clone();
    let x = real(cx, node.inputs.first().copied()??, &[to])?;
    let scale = known(cx, &x)?;
    let part = |v: &Option<ValueId>| {
        let v = (*v)?;
        let &[user] = cx.edit.users(v) else { return None };
        let (_, end, as_type) = quantised_by(cx, user).filter(|_| cx.used_once(v))?;
        (as_type == to && known(cx, &end)? == scale).then_some((user, end.q))
    };
    let parts: Option<Vec<(NodeId, ValueId)>> = node.outputs.iter().map(part).collect();
    let Some(parts) = parts else {
        cx.miss(id, || "the parts are not all quantised as the whole".into());
        return None;
    };
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(x.q);
    cx.edit.replace_op(maker, node.op.clone(), inputs);
    for (place, (user, q)) in parts.into_iter().enumerate() {
        cx.edit.move_output(maker, place, q);
        cx.edit.remove(user);
    }
    cx.fired();
    Some(())
}

/// A concatenation: each part is brought to the result's scale where it has another.
fn joined(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (y, out, to) = quantised_by(cx, id)?;
    let (maker, concat) = cx.maker::<Concat>(y)?;
    let (op, name) = (Arc::new(concat.clone()), cx.node(maker)?.name.clone());
    let end = known(cx, &out)?;
    if !cx.used_once(y) {
        return None;
    }
    let parts: Option<Vec<Real>> = cx.node(maker)?.inputs.iter().map(|v| real(cx, (*v)?, &INT8)).collect();
    let scales = parts.iter().flatten().map(|p| known(cx, p)).collect::<Option<Vec<_>>>()?;
    let mut inputs = Vec::new();
    for (i, (part, scale)) in parts?.iter().zip(scales).enumerate() {
        let mut q = part.q;
        if scale != end || dtype(cx, q) != Some(to) {
            let mut b = ProgramBuilder::new(1);
            let x = b.load(0);
            let program = rescaled(b, x, scale, end)?;
            let op = Arc::new(Pointwise { program, dtypes: vec![to] });
            q = *cx.edit.node(&format!("{name}/{i}"), op, vec![Some(q)], 1).ok()?.first()?;
        }
        inputs.push(Some(q));
    }
    cx.absorb(maker, op, inputs, id, out.q);
    Some(())
}

/// From one scale and zero point to another, as they are written between.
fn rescaled(mut b: ProgramBuilder, x: Register, from: (f32, f32), to: (f32, f32)) -> Option<Program> {
    let x = widened(&mut b, x, from);
    let y = narrowed(&mut b, x, to);
    b.finish(&[y]).ok()
}

fn widened(b: &mut ProgramBuilder, x: Register, (scale, zero): (f32, f32)) -> Register {
    let (s, z) = (b.constant(scale), b.constant(zero));
    b.ternary(TernaryOp::Dequantize, x, z, s)
}

/// What is left is to keep it within the type's bounds.
fn narrowed(b: &mut ProgramBuilder, x: Register, (scale, zero): (f32, f32)) -> Register {
    let (s, z) = (b.constant(scale), b.constant(zero));
    b.ternary(TernaryOp::Quantize, x, s, z)
}

/// A change to or from 8 bits, of one known scale, as an elementwise program of what is changed.
pub(super) fn change_of_scale(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(Program, ValueId)> {
    let mut b = ProgramBuilder::new(1);
    let x = b.load(0);
    let (y, of) = match quantised_by(cx, id) {
        Some((v, end, _)) => (narrowed(&mut b, x, known(cx, &end)?), v),
        None => {
            let r = real(cx, cx.node(id)?.outputs.first().copied()??, &INT8)?;
            (widened(&mut b, x, known(cx, &r)?), r.q)
        }
    };
    Some((b.finish(&[y]).ok()?, of))
}

/// An elementwise operator, or a sole change of scale, as a program over the integers.
fn elementwise(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (y, out, to) = quantised_by(cx, id)?;
    let (maker, 0) = cx.graph().value(y).producer? else { return None };
    let node = cx.node(maker)?.clone();
    let facts: Vec<&Fact> = cx.graph().input_facts(&node).collect();
    let (program, ends) = match program_of(&*node.op, &facts, DType::F32) {
        Some(p) => (p, node.inputs.iter().map(|v| (*v)?.into()).collect::<Option<Vec<ValueId>>>()?),
        None => {
            // Between two scales.
            cx.maker::<Dequantize>(y)?;
            let mut b = ProgramBuilder::new(1);
            let x = b.load(0);
            (b.finish(&[x]).ok()?, vec![y])
        }
    };
    if node.op.downcast::<Dequantize>().is_none() && !cx.used_once(y) {
        cx.miss(id, || "another node reads the numbers before they are quantised".into());
        return None;
    }
    let end = known(cx, &out)?;
    let mut inputs = Vec::new();
    let mut b = ProgramBuilder::new(ends.len());
    let mut wide = Vec::new();
    for (i, &v) in ends.iter().enumerate() {
        let x = b.load(i);
        let Some(r) = real(cx, v, &INT8) else {
            // Small constants may stay in f32.
            cx.graph().fact(v).constant()?;
            inputs.push(Some(v));
            wide.push(x);
            continue;
        };
        let scale = known(cx, &r)?;
        inputs.push(Some(r.q));
        wide.push(widened(&mut b, x, scale));
    }
    if !inputs.iter().flatten().any(|&v| dtype(cx, v).is_some_and(|d| INT8.contains(&d))) {
        return None;
    }
    let y = b.inline(&program, &wide).ok()?[0];
    let y = narrowed(&mut b, y, end);
    let program = b.finish(&[y]).ok()?;
    cx.edit.replace_op(id, Arc::new(Pointwise { program, dtypes: vec![to] }), inputs);
    cx.fired();
    Some(())
}

/// Both operands and the bias of a convolution or product, all dequantised.
fn operands(cx: &mut PassCtx<'_, '_>, made: &Node) -> Option<(Real, Real, Option<ValueId>)> {
    let at = |i: usize| made.inputs.get(i).copied().flatten();
    let (x, w) = (real(cx, at(0)?, &INT8)?, real(cx, at(1)?, &INT8)?);
    let b = bias(cx, at(2), &x, &w)?;
    Some((x, w, b))
}
