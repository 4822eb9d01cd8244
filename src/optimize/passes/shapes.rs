//! Shape arithmetic that says no more than the values' own axes do: a computed shape that copies axes becomes a constant, and a
//! size is asked of the model's input that has it. What is in between then has no users but those of its elements.

use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::ops::movement::{Concat, Gather};
use crate::ops::pointwise::Binary;
use crate::ops::shape::{Reshape, Shape};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// `Reshape(x, [rows of x, -1, 32])`, `Shape(y)[0]` where y has as many rows as an input.
pub struct Shapes;

impl Pass for Shapes {
    fn name(&self) -> &'static str {
        "shapes"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            if cx.op::<Reshape>(id).is_some_and(|r| !r.allow_zero) {
                copied(cx, id)?;
            } else if cx.op::<Gather>(id).is_some_and(|g| g.axis == 0) || cx.op::<Binary>(id).is_some() {
                asked(cx, id)?;
            }
        }
        Ok(())
    }
}

/// Puts a constant in the place of a computed shape.
fn copied(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let Some(&[Some(x), Some(shape)]) = cx.node(id).map(|n| &n.inputs[..]) else { return Ok(()) };
    if cx.graph().is_constant(shape) {
        return Ok(());
    }
    let wanted = cx.graph().fact(shape).as_tensor().and_then(|t| t.int_dims());
    let (Some(own), Some(wanted)) = (cx.dims(x), wanted) else { return Ok(()) };
    let copy = |(i, d): (usize, &Dim)| match d.known() {
        Some(n) => Some(n),
        None => own.get(i).filter(|o| o.same(d)).map(|_| 0),
    };
    let mut sizes: Vec<Option<i64>> = wanted.iter().enumerate().map(copy).collect();
    // One other size follows from numbers, none of which may be zero: so that nothing but it makes a tensor empty.
    let open: Vec<usize> = (0..sizes.len()).filter(|&i| sizes[i].is_none()).collect();
    if let &[i] = &open[..]
        && sizes.iter().flatten().all(|&n| n > 0)
    {
        sizes[i] = Some(-1);
    }
    let Some(sizes) = sizes.into_iter().collect::<Option<Vec<i64>>>() else { return Ok(()) };
    let name = format!("{}.copied", cx.graph().value(shape).name);
    let constant = cx.edit.constant(&name, Tensor::from_slice(&[sizes.len()], &sizes)?);
    cx.edit.replace_op(id, Arc::new(Reshape { allow_zero: false }), vec![Some(x), Some(constant)]);
    cx.prune(vec![Some(shape)]);
    cx.fired();
    Ok(())
}

/// Asks an input for the size of an axis that a node gives, by asking another value or by computing it.
fn asked(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let Some(&[Some(x), Some(y)]) = cx.node(id).map(|n| &n.inputs[..]) else { return Ok(()) };
    let Some(&[Some(out)]) = cx.node(id).map(|n| &n.outputs[..]) else { return Ok(()) };
    // What an input is asked already.
    let of = |(n, _): (NodeId, &Shape)| cx.node(n)?.inputs.first().copied().flatten();
    if cx.maker::<Shape>(x).and_then(of).is_some_and(|v| cx.graph().inputs().contains(&v)) {
        return Ok(());
    }
    let Some(fact) = cx.graph().fact(out).as_tensor().filter(|t| t.dtype == DType::I64) else { return Ok(()) };
    let (Some(shape), Some(sizes)) = (fact.shape(), fact.int_dims()) else { return Ok(()) };
    let has = |size: &Dim| {
        let at = |&x: &ValueId| Some((x, cx.dims(x)?.iter().position(|d| d.same(size))?));
        cx.graph().inputs().iter().find_map(at).filter(|_| size.known().is_none())
    };
    let found: Vec<_> = sizes.iter().map(has).collect();
    let every = sizes.iter().zip(&found).all(|(d, f)| f.is_some() || d.known().is_some());
    let list = shape.len() == 1 && sizes.len() > 1;
    if !every || found.iter().all(Option::is_none) || sizes.len() != 1 && !(list && cx.maker::<Shape>(x).is_some()) {
        return Ok(());
    }
    let mut parts = Vec::with_capacity(sizes.len());
    for (size, found) in sizes.iter().zip(found) {
        let Some((input, axis)) = found else {
            let size = Tensor::from_slice(&[1], &[size.known().unwrap_or_default()])?;
            parts.push(Some(cx.edit.constant("size", size)));
            continue;
        };
        let name = cx.graph().value(input).name.clone();
        let sizes = format!("{name}.shape");
        let sizes = cx.edit.node(&sizes, Arc::new(Shape { start: 0, end: None }), vec![Some(input)], 1)?[0];
        let axis = Tensor::from_slice(if list { &[1] } else { &shape }, &[axis as i64])?;
        let axis = cx.edit.constant(&format!("{name}.axis"), axis);
        let asked = vec![Some(sizes), Some(axis)];
        if !list {
            cx.edit.replace_op(id, Arc::new(Gather { axis: 0 }), asked);
        } else {
            parts.push(Some(cx.edit.node(&format!("{name}.size"), Arc::new(Gather { axis: 0 }), asked, 1)?[0]));
        }
    }
    if list {
        cx.edit.replace_op(id, Arc::new(Concat { axis: 0 }), parts);
    }
    cx.prune(vec![Some(x), Some(y)]);
    cx.fired();
    Ok(())
}
