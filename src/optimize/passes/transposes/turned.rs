//! How operators work on operands whose axes stand in another order.

use super::of_rank;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, Node, NodeId, Op, ValueId};
use crate::ops::attention::{Attention, Views};
use crate::ops::cast::Cast;
use crate::ops::conv::Conv;
use crate::ops::linear::MatMul;
use crate::ops::movement::{Concat, Gather, Pad, Slice, Split, Tile, Transpose};
use crate::ops::norm::{ChannelLayerNorm, LayerNormalization};
use crate::ops::pointwise::{Binary, Clip, Pointwise, Unary, Variadic, Where};
use crate::ops::quant::{Dequantize, IntConvolution, Quantize};
use crate::ops::reduce::{Arg, Reduce};
use crate::ops::resize::Resize;
use crate::ops::shape::{Flatten, Reshape, Squeeze, Unsqueeze};
use crate::ops::softmax::Softmax;
use crate::ops::window::Window;
use crate::optimize::PassCtx;
use crate::optimize::pass::shape_of;
use crate::tensor::{DType, Element, Tensor};
use std::sync::Arc;

/// An operator over operands that were transposed by an order, which makes the same results, transposed alike.
pub struct Turned {
    pub op: Arc<dyn Op>,
    /// The inputs that it takes transposed.
    pub data: Vec<usize>,
    /// Inputs that become other constants.
    pub constants: Vec<(usize, Constant)>,
    /// Whether the results are transposed; else they are what they were.
    pub outputs: bool,
    /// What it costs more than before, in bytes that a transposition could have moved.
    pub dearer: u64,
}

/// A constant, to be transposed once more where there is an order for that.
pub struct Constant {
    pub tensor: Tensor,
    pub perm: Option<Vec<usize>>,
}

impl Turned {
    /// The same operator.
    fn same(node: &Node, data: Vec<usize>) -> Turned {
        Turned { op: node.op.clone(), data, constants: Vec::new(), outputs: true, dearer: 0 }
    }
    fn with(node: &Node, op: impl Op, data: Vec<usize>) -> Turned {
        Turned { op: Arc::new(op), ..Turned::same(node, data) }
    }
    fn ints(mut self, input: usize, list: &[i64]) -> Option<Turned> {
        let tensor = Tensor::from_slice(&[list.len()], list).ok()?;
        self.constants.push((input, Constant { tensor, perm: None }));
        Some(self)
    }
}

/// The node over operands that are transposed by `order`; `None` where it needs its axes where they are.
pub fn turned(cx: &PassCtx<'_, '_>, id: NodeId, order: &[usize]) -> Option<Turned> {
    let made = |v: &ValueId| cx.dims(*v).is_some_and(|d| d.len() >= order.len());
    node(cx, cx.node(id)?, order).filter(|t| !t.outputs || cx.graph().node(id).outputs.iter().flatten().all(made))
}

fn node(cx: &PassCtx<'_, '_>, node: &Node, order: &[usize]) -> Option<Turned> {
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let x = at(0)?;
    let op = &*node.op;
    // Elementwise operators have the rank of their results.
    let first = if is_elementwise(op) { node.outputs.first().copied()?? } else { x };
    let rank = cx.dims(first)?.len();
    let back = &of_rank(order, rank)?;
    // Old axis `a` is axis `to(a)` now.
    let to = |a: usize| back.iter().position(|&b| b == a);
    let axis = |a: i64| to(resolve_axis(a, rank).ok()?).map(|a| a as i64);
    let list = |i: usize| cx.graph().fact(at(i)?).as_tensor()?.ints();
    if is_elementwise(op) {
        return elementwise(cx, node, order.len(), back);
    }
    if cx.graph().fact(x).constant().is_some() {
        return None;
    }
    if let Some(m) = op.downcast::<MatMul>() {
        return rows(cx, node, m, order.len(), rank).or_else(|| product(cx, node, m, back));
    }
    if op.is::<Reshape>() || op.is::<Squeeze>() || op.is::<Unsqueeze>() || op.is::<Flatten>() {
        return view(cx, node, order);
    }
    if let Some(a) = op.downcast::<Attention>() {
        return attention(node, a, order);
    }
    if let Some(t) = op.downcast::<Transpose>() {
        // Another order: it reads its operand in any.
        let perm = t.perm.clone().unwrap_or_else(|| (0..rank).rev().collect());
        let perm = perm.into_iter().map(to).collect::<Option<_>>()?;
        return Some(Turned { outputs: false, ..Turned::with(node, Transpose { perm: Some(perm) }, vec![0]) });
    }
    if let Some(c) = op.downcast::<Concat>() {
        let all = node.inputs.iter().all(|v| v.is_some_and(|v| cx.dims(v).is_some_and(|d| d.len() == rank)));
        return all.then_some(Turned::with(node, Concat { axis: axis(c.axis)? }, (0..node.inputs.len()).collect()));
    }
    if let Some(s) = op.downcast::<Split>() {
        return Some(Turned::with(node, Split { axis: axis(s.axis)?, ..s.clone() }, vec![0]));
    }
    if let Some(g) = op.downcast::<Gather>() {
        let same_rank = cx.dims(at(1)?)?.len() == 1;
        return same_rank.then_some(Turned::with(node, Gather { axis: axis(g.axis)? }, vec![0]));
    }
    if op.is::<Slice>() {
        let axes = match at(3) {
            Some(_) => list(3)?,
            None => (0..cx.graph().fact(at(1)?).as_tensor()?.count().known()?).collect(),
        };
        let axes: Vec<i64> = axes.into_iter().map(axis).collect::<Option<_>>()?;
        return Turned::same(node, vec![0]).ints(3, &axes);
    }
    if op.is::<Pad>() {
        let widths = list(1)?;
        if at(3).is_some() {
            let axes: Vec<i64> = list(3)?.into_iter().map(axis).collect::<Option<_>>()?;
            return Turned::same(node, vec![0]).ints(3, &axes);
        }
        (widths.len() == 2 * rank).then_some(())?;
        let widths: Vec<i64> = back.iter().copied().chain(back.iter().map(|&b| rank + b)).map(|i| widths[i]).collect();
        return Turned::same(node, vec![0]).ints(1, &widths);
    }
    if op.is::<Tile>() {
        let times = list(1).filter(|t| t.len() == rank)?;
        let times: Vec<i64> = back.iter().map(|&b| times[b]).collect();
        return Turned::same(node, vec![0]).ints(1, &times);
    }
    if let Some(s) = op.downcast::<Softmax>() {
        (!s.flatten).then_some(())?;
        let (before, after) = (resolve_axis(s.axis, rank).ok()?, axis(s.axis)?);
        let mut t = Turned::with(node, Softmax { axis: after, ..s.clone() }, vec![0]);
        // Along the last axis numbers lie together.
        t.dearer = if before + 1 == rank && after + 1 != rank as i64 { super::bytes(cx, x) } else { 0 };
        return Some(t);
    }
    if let Some(r) = op.downcast::<Reduce>() {
        let axes = match at(1) {
            Some(_) => list(1)?,
            None => Vec::new(),
        };
        // No axes are all or none, in any order.
        let none = axes.is_empty();
        if none && !r.noop && !r.keep_dims {
            return Some(Turned { outputs: false, ..Turned::same(node, vec![0]) });
        }
        let axes: Vec<i64> = axes.into_iter().map(axis).collect::<Option<_>>()?;
        let mut t = Turned::same(node, vec![0]);
        if !r.keep_dims && !none {
            // What stays must be in the old order.
            let kept = (0..rank).filter(|&i| !axes.contains(&(i as i64))).map(|i| back[i]);
            kept.is_sorted().then_some(())?;
            t.outputs = false;
        }
        return if none { Some(t) } else { t.ints(1, &axes) };
    }
    if let Some(a) = op.downcast::<Arg>() {
        let moved = axis(a.axis)?;
        // What stays must be in the old order, where the axis goes.
        let kept = back.iter().filter(|&&b| to(b).map(|t| t as i64) != Some(moved));
        (a.keep_dims || kept.is_sorted()).then_some(())?;
        let outputs = a.keep_dims;
        return Some(Turned { outputs, ..Turned::with(node, Arg { axis: moved, ..a.clone() }, vec![0]) });
    }
    if let Some(r) = op.downcast::<Resize>() {
        // Rows that are resized, or the channels of a place, lie together.
        let region = at(1).is_none_or(|v| cx.graph().fact(v).as_tensor().is_some_and(|t| t.count().known() == Some(0)));
        (region && (channels_second(back) || channels_last(back))).then_some(())?;
        if let Some(axes) = &r.axes {
            let axes = axes.iter().map(|&a| axis(a)).collect::<Option<_>>()?;
            return Some(Turned::with(node, Resize { axes: Some(axes), ..r.clone() }, vec![0]));
        }
        let mut t = Turned::same(node, vec![0]);
        for i in [2, 3] {
            let Some(list) = at(i).map(|v| cx.graph().fact(v).constant()) else { continue };
            let list = list?;
            if !list.is_empty() {
                (list.len() == rank).then_some(())?;
                let tensor = match list.dtype() {
                    DType::F32 => permuted(list.as_slice::<f32>().ok()?, back),
                    _ => permuted(&list.to_i64s().ok()?, back),
                };
                t.constants.push((i, Constant { tensor: tensor?, perm: None }));
            }
        }
        return Some(t);
    }
    if let Some(c) = op.downcast::<IntConvolution>() {
        // It reads an image either way; the pass `channels_last` sees to what it writes.
        let reads = !c.last[0] && channels_last(back);
        let op = IntConvolution { last: [true, c.last[1]], ..c.clone() };
        return reads.then(|| Turned { outputs: false, ..Turned::with(node, op, vec![0]) });
    }
    if let Some(l) = op.downcast::<LayerNormalization>() {
        let alone = node.outputs.iter().skip(1).all(Option::is_none);
        if alone && resolve_axis(l.axis, rank).ok()? >= order.len() {
            return Some(Turned::same(node, vec![0]));
        }
        let last = resolve_axis(l.axis, rank).ok()? + 1 == rank && channels_second(back);
        let same_type = node.inputs.iter().flatten().all(|&v| cx.dtype(v) == cx.dtype(x));
        let channels = cx.dims(x)?.last()?.known()?;
        let list =
            |i: usize| at(i).is_none_or(|v| cx.dims(v).is_some_and(|d| d.len() == 1 && d[0].known() == Some(channels)));
        (alone && last && same_type && list(1) && list(2)).then_some(())?;
        return Some(Turned::with(node, ChannelLayerNorm { rms: l.rms, epsilon: l.epsilon }, vec![0]));
    }
    None
}

/// A list of one number an axis, for the axes in another order.
fn permuted<T: Element>(list: &[T], back: &[usize]) -> Option<Tensor> {
    let list: Vec<T> = back.iter().map(|&b| list[b]).collect();
    Tensor::from_slice(&[list.len()], &list).ok()
}

/// Whether the order brings the last axis to the second place, of an image at least.
fn channels_second(back: &[usize]) -> bool {
    let rank = back.len();
    rank >= 4 && back.iter().copied().eq([0, rank - 1].into_iter().chain(1..rank - 1))
}

/// Whether the order brings the second axis to the end.
fn channels_last(back: &[usize]) -> bool {
    let rank = back.len();
    rank >= 3 && back.iter().copied().eq([0].into_iter().chain(2..rank).chain([1]))
}

fn is_elementwise(op: &dyn Op) -> bool {
    let whole = |axis: Option<i64>| axis.is_none();
    op.is::<Unary>()
        || op.downcast::<Binary>().is_some_and(|b| whole(b.axis))
        || op.is::<Variadic>()
        || op.is::<Where>()
        || op.is::<Clip>()
        || op.is::<Pointwise>()
        || op.downcast::<Cast>().is_some_and(|c| c.to.is_some())
        || op.downcast::<Quantize>().is_some_and(|q| q.grain.block == 0)
        || op.downcast::<Dequantize>().is_some_and(|q| q.grain.block == 0)
}

/// Operands broadcast as before: constants are turned too; single numbers stay, and what has only axes behind the `moved` ones.
fn elementwise(cx: &PassCtx<'_, '_>, node: &Node, moved: usize, back: &[usize]) -> Option<Turned> {
    let rank = back.len();
    let mut t = Turned::same(node, Vec::new());
    for (i, v) in node.inputs.iter().enumerate() {
        let Some(v) = *v else { continue };
        let fact = cx.graph().fact(v).as_tensor()?;
        let own = fact.rank()?;
        if fact.count().known() == Some(1) && own <= rank {
            // A value of one element and full rank is turned for the sake of the others that are.
            if own == rank && fact.tensor().is_none() {
                t.data.push(i);
            }
        } else if let Some(tensor) = fact.tensor() {
            t.constants.push((i, constant(tensor, back)?));
        } else if own == rank {
            t.data.push(i);
        } else if own + moved > rank {
            return None;
        }
    }
    // Scales by axis are lists, not operands that broadcast.
    if (node.op.is::<Quantize>() || node.op.is::<Dequantize>()) && !t.constants.is_empty() {
        return None;
    }
    (!t.data.is_empty()).then_some(t)
}

/// A constant that broadcasts with what is turned.
fn constant(tensor: &Tensor, back: &[usize]) -> Option<Constant> {
    let lead = back.len().checked_sub(tensor.shape().len())?;
    let full: Vec<usize> = std::iter::repeat_n(1, lead).chain(tensor.shape().iter().copied()).collect();
    let moved: Vec<usize> = back.iter().copied().filter(|&b| full[b] != 1).collect();
    if moved.is_sorted() {
        let shape: Vec<usize> = back.iter().map(|&b| full[b]).collect();
        return Some(Constant { tensor: tensor.reshaped(&shape).ok()?, perm: None });
    }
    Some(Constant { tensor: tensor.reshaped(&full).ok()?, perm: Some(back.to_vec()) })
}

/// A view that keeps the axes that are moved.
fn view(cx: &PassCtx<'_, '_>, node: &Node, order: &[usize]) -> Option<Turned> {
    let dims = |v: &[Option<ValueId>]| cx.dims(v.first().copied()??);
    let (from, to) = (dims(&node.inputs)?, dims(&node.outputs)?);
    let ((from_kept, from_rest), (to_kept, to_rest)) =
        (from.split_at_checked(order.len())?, to.split_at_checked(order.len())?);
    // One of them may go by another name: it has what the others leave.
    let renamed = from_kept.iter().zip(to_kept).filter(|(a, b)| !a.same(b)).count();
    (renamed <= 1 && Dim::product(from_rest).same(&Dim::product(to_rest))).then_some(())?;
    let shape = shape_of(turn(to, order)?.iter(), &turn(from, order)?)?;
    Turned::with(node, Reshape { allow_zero: false }, vec![0]).ints(1, &shape)
}

/// Axes in another order; those behind it stay.
fn turn<T: Clone>(axes: &[T], order: &[usize]) -> Option<Vec<T>> {
    Some(of_rank(order, axes.len())?.into_iter().map(|b| axes[b].clone()).collect())
}

/// Attention that reads its operands where they lie, and writes its result as it is wanted.
fn attention(node: &Node, a: &Attention, order: &[usize]) -> Option<Turned> {
    let views = a.views.as_ref().filter(|_| node.outputs.iter().skip(1).all(Option::is_none))?;
    let [q, k, v] = &views.operands;
    // The last axis stays.
    let stays = [q.len(), k.len(), v.len(), views.result.len()].iter().all(|&rank| order.len() < rank);
    stays.then_some(())?;
    let operands = [turn(q, order)?, turn(k, order)?, turn(v, order)?];
    let views = Views { operands, result: turn(&views.result, order)? };
    Some(Turned::with(node, Attention { views: Some(Arc::new(views)), ..a.clone() }, vec![0, 1, 2]))
}

/// Rows of a product with one matrix stand in any order.
fn rows(cx: &PassCtx<'_, '_>, node: &Node, m: &MatMul, moved: usize, rank: usize) -> Option<Turned> {
    let ranks = |i: usize| node.inputs.get(i).copied().flatten().map(|v| cx.dims(v).map(<[Dim]>::len));
    let one = ranks(1)?? == 2 && !m.trans_a && !m.gemm && moved < rank;
    let fits = one && ranks(2).is_none_or(|c| c.is_some_and(|c| c + moved <= rank));
    let data = if ranks(3).is_some() { vec![0, 3] } else { vec![0] };
    fits.then(|| Turned::same(node, data))
}

/// A product with one matrix over the channels of an image is a convolution of one place.
fn product(cx: &PassCtx<'_, '_>, node: &Node, m: &MatMul, back: &[usize]) -> Option<Turned> {
    let rank = back.len();
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let w = cx.graph().fact(at(1)?).constant()?.clone();
    let image = channels_second(back);
    let plain = !m.trans_a && !m.gemm && m.alpha == 1.0 && m.beta == 1.0 && w.dtype() == DType::F32;
    let &[a, b] = w.shape() else { return None };
    let out = if m.trans_b { a } else { b };
    // One number a column.
    let bias = at(2).is_none_or(|c| cx.dims(c).is_some_and(|d| d.len() == 1 && d[0].size() == Some(out)));
    (image && plain && bias).then_some(())?;
    let tail = vec![1; rank - 2];
    let shape: Vec<usize> = [a, b].into_iter().chain(tail).collect();
    let swapped: Vec<usize> = [1, 0].into_iter().chain(2..rank).collect();
    let weights = Constant { tensor: w.reshaped(&shape).ok()?, perm: (!m.trans_b).then_some(swapped) };
    let window = Window { kernel: None, ..Window::over(&[]) };
    let residual = at(3).is_some();
    let op = Conv { window, groups: 1, residual, residual_last: false, activation: m.activation };
    let data = if residual { vec![0, 3] } else { vec![0] };
    Some(Turned { constants: vec![(1, weights)], ..Turned::with(node, op, data) })
}
