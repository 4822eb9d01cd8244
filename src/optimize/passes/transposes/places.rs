//! Images that are wanted as rows of places: one transposition before several products, in the place of one behind each.

use super::{bytes, order_of};
use crate::error::Result;
use crate::ir::{Alias, Dim, NodeId, ValueId};
use crate::kernels::gemm::Activation;
use crate::ops::conv::Conv;
use crate::ops::linear::MatMul;
use crate::ops::movement::Transpose;
use crate::ops::window::Pads;
use crate::optimize::PassCtx;
use crate::optimize::pass::shape_of;
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// A convolution of one place, whose result alone is seen as `[items, channels, places]` and transposed.
struct Point {
    /// The image, and how many channels it has.
    x: ValueId,
    channels: Dim,
    places: Dim,
    /// The weights as a matrix, a row for each channel made, and the bias.
    weights: Tensor,
    bias: Option<ValueId>,
    activation: Activation,
    /// What the transposition makes, and that node.
    rows: ValueId,
    last: NodeId,
}

/// Makes products of the convolutions of one image (queries, keys and values of attention over places) where that moves less.
pub fn rows_of_places(cx: &mut PassCtx<'_, '_>) -> Result<()> {
    let mut groups: Vec<Vec<Point>> = Vec::new();
    for id in cx.order() {
        let Some(p) = point(cx, id) else { continue };
        match groups.iter_mut().find(|g| g[0].x == p.x && g[0].places.same(&p.places)) {
            Some(g) => g.push(p),
            None => groups.push(vec![p]),
        }
    }
    groups.iter().try_for_each(|g| products(cx, g))
}

fn point(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<Point> {
    let c = cx.op::<Conv>(id).filter(|c| c.groups == 1 && !c.residual && !c.window.ceil)?;
    let node = cx.node(id)?;
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let (x, w, out) = (at(0)?, cx.graph().fact(at(1)?).constant()?, node.outputs.first().copied()??);
    let &[made, taken, ref kernel @ ..] = w.shape() else { return None };
    let unpadded = !matches!(&c.window.pads, Pads::Explicit(p) if p.iter().any(|&p| p != 0));
    let one = unpadded && kernel.iter().all(|&k| k == 1) && c.window.strides.iter().all(|&s| s == 1);
    (one && w.dtype() == DType::F32 && cx.used_once(out)).then_some(())?;
    let &[view] = cx.edit.users(out) else { return None };
    let seen = cx.node(view).filter(|n| n.op.alias() == Alias::View)?.outputs.first().copied()??;
    let ([items, ..], [a, b, places]) = (cx.dims(out)?, cx.dims(seen)?) else { return None };
    (a.same(items) && b.size() == Some(made) && cx.used_once(seen)).then_some(())?;
    let &[last] = cx.edit.users(seen) else { return None };
    let rows = cx.node(last)?.outputs.first().copied()??;
    let turned = order_of(cx, last).is_some_and(|o| o == [0, 2, 1]);
    let weights = w.reshaped(&[made, taken]).ok().filter(|_| turned)?;
    let (channels, places) = (Dim::of(taken), places.clone());
    Some(Point { x, channels, places, weights, bias: at(2), activation: c.activation, rows, last })
}

fn products(cx: &mut PassCtx<'_, '_>, group: &[Point]) -> Result<()> {
    let moved: u64 = group.iter().map(|p| bytes(cx, p.rows)).sum();
    let Some(Point { x, channels, places, .. }) = group.first().filter(|p| moved > bytes(cx, p.x)) else {
        return Ok(());
    };
    let Some(own) = cx.dims(*x).map(<[Dim]>::to_vec) else { return Ok(()) };
    let dims = [own[0].clone(), channels.clone(), places.clone()];
    let Some(shape) = shape_of(dims.iter(), &own) else { return Ok(()) };
    let image = cx.reshape(*x, &shape)?;
    let name = format!("{}.rows", cx.graph().value(*x).name);
    let turn = Arc::new(Transpose { perm: Some(vec![0, 2, 1]) });
    let rows = cx.edit.node(&name, turn, vec![Some(image)], 1)?[0];
    for p in group {
        let name = cx.graph().value(p.rows).name.clone();
        let w = cx.edit.constant(&format!("{name}.weights"), p.weights.clone());
        let op = MatMul { trans_b: true, activation: p.activation, ..MatMul::default() };
        let inputs = [Some(rows), Some(w)].into_iter().chain(p.bias.map(Some)).collect();
        let made = cx.edit.node(&name, Arc::new(op), inputs, 1)?[0];
        let seen = cx.graph().node(p.last).inputs.clone();
        if let Some((maker, _)) = cx.graph().value(made).producer {
            cx.edit.move_output(maker, 0, p.rows);
            cx.edit.remove(p.last);
            cx.prune(seen);
            cx.fired();
        }
    }
    Ok(())
}
