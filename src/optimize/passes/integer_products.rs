//! Sums of integer products that are made floats: the product scales them, and adds a row, while they are in registers. So
//! write exporters of dynamically quantised models: MatMulInteger, Cast, Mul by both scales, Add. What it multiplies, it quantises
//! itself, unless others read it too.

use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::ops::cast::Cast;
use crate::ops::pointwise::BinaryFn;
use crate::ops::quant::{DynamicQuantize, IntMatMul};
use crate::optimize::pass::same_shape;
use crate::optimize::pattern::commuted;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::sync::Arc;

/// `float(A * B) * (scale of A * scales of B) + row`
pub struct IntegerProducts;

impl Pass for IntegerProducts {
    fn name(&self) -> &'static str {
        "integer_products"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            let _ = scaled(cx, id);
            let _ = biased(cx, id);
        }
        for id in cx.order() {
            let _ = dynamic(cx, id);
        }
        Ok(())
    }
}

fn is_one(cx: &PassCtx<'_, '_>, v: ValueId) -> bool {
    cx.dims(v).is_some_and(|d| d.iter().all(|d| d.known() == Some(1)))
}

/// One number, or one a column.
fn is_row(cx: &PassCtx<'_, '_>, v: ValueId, columns: Option<&Dim>) -> bool {
    let row = cx.dims(v).is_some_and(|d| matches!((d, columns), ([n], Some(c)) if n.same(c)));
    row || is_one(cx, v) && cx.dims(v).is_some_and(|d| d.len() < 2)
}

fn scaled(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (orders, out) = commuted(cx, id, BinaryFn::Mul)?;
    for (v, scales) in orders {
        let Some((cast, _)) = cx.maker::<Cast>(v).filter(|_| cx.dtype(v) == Some(DType::F32)) else { continue };
        let Some(sums) = cx.node(cast).and_then(|n| n.inputs.first().copied().flatten()) else { continue };
        let Some((product, op)) = cx.maker::<IntMatMul>(sums).filter(|(_, op)| op.is_sums()) else { continue };
        let op = IntMatMul::to_float(op.trans);
        let inputs = cx.node(product)?.inputs.clone();
        let at = |i: usize| inputs.get(i).copied().flatten();
        if !cx.used_once(v) || !cx.used_once(sums) {
            cx.miss(id, || "the sums have other users".into());
            continue;
        }
        let columns = cx.dims(sums).and_then(|d| d.last().cloned());
        let made = cx.graph().value(scales).producer.and_then(|(by, _)| commuted(cx, by, BinaryFn::Mul));
        let fits = |&(a, b): &(ValueId, ValueId)| is_one(cx, a) && is_row(cx, b, columns.as_ref());
        let floats = |&(a, b): &(ValueId, ValueId)| [a, b].iter().all(|&s| cx.dtype(s) == Some(DType::F32));
        let pair = made.and_then(|(orders, _)| orders.into_iter().find(|p| fits(p) && floats(p)));
        let one_zero = at(2).is_none_or(|z| is_one(cx, z));
        let Some((a, b)) = pair.filter(|_| one_zero && same_shape(cx.dims(out), cx.dims(sums))) else {
            cx.miss(id, || "the scales are not one number and one a column, each by itself".into());
            continue;
        };
        let inputs = vec![at(0), at(1), Some(a), Some(b), at(2), at(3)];
        cx.edit.replace_op(product, Arc::new(op), inputs);
        cx.edit.move_output(product, 0, out);
        cx.edit.remove(id);
        cx.edit.remove(cast);
        cx.prune(vec![Some(scales)]);
        cx.fired();
        return Some(());
    }
    None
}

fn biased(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (orders, out) = commuted(cx, id, BinaryFn::Add)?;
    for (v, c) in orders {
        let Some((product, op)) = cx.maker::<IntMatMul>(v) else { continue };
        let (op, mut inputs) = (op.clone(), cx.node(product)?.inputs.clone());
        let Some(place) = op.at.bias.filter(|_| cx.dtype(v) == Some(DType::F32)) else { continue };
        if inputs.get(place).copied().flatten().is_some() || !cx.used_once(v) {
            cx.miss(id, || "the product has a bias already, or other users".into());
            continue;
        }
        let columns = cx.dims(v).and_then(|d| d.last());
        let row = matches!((cx.dims(c), columns), (Some([n]), Some(m)) if n.same(m)) && cx.graph().is_constant(c);
        if !row || cx.dtype(c) != Some(DType::F32) {
            cx.miss(id, || "the addend is not one constant a column".into());
            continue;
        }
        inputs.resize(inputs.len().max(place + 1), None);
        inputs[place] = Some(c);
        cx.absorb(product, Arc::new(op), inputs, id, out);
        return Some(());
    }
    None
}

/// A product whose A is made of floats for it alone makes it itself.
fn dynamic(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let op = cx.op::<IntMatMul>(id).filter(|op| **op == IntMatMul::to_float(op.trans))?;
    let (op, node) = (op.clone(), cx.node(id)?.clone());
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let (q, scale, zero) = (at(0)?, at(op.at.a_scale?)?, at(op.at.a_zero?)?);
    let (maker, _) = cx.maker::<DynamicQuantize>(q)?;
    let made = cx.node(maker)?.clone();
    let own = made.outputs == [q, scale, zero].map(Some) && [q, scale, zero].iter().all(|&v| cx.used_once(v));
    if !own {
        cx.miss(id, || "others read the quantised rows".into());
        return None;
    }
    let inputs = vec![made.inputs.first().copied()?, at(1), at(op.at.b_scale?), at(op.at.b_zero?), at(op.at.bias?)];
    cx.edit.replace_op(id, Arc::new(IntMatMul::of_floats(op.trans)), inputs);
    cx.edit.remove(maker);
    cx.fired();
    Some(())
}
