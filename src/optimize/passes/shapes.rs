//! Shape arithmetic that says no more than the values' own axes do: a computed shape that copies axes becomes a constant, and a
//! size is asked of the model's input that has it. What is in between then has no users but those of its elements.

use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, NodeId, ValueId};
use crate::ops::movement::Gather;
use crate::ops::shape::{Reshape, Shape};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::Tensor;
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
            } else if cx.op::<Gather>(id).is_some_and(|g| g.axis == 0) {
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

/// Asks an input for the size of an axis.
fn asked(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let Some(&[Some(shape), Some(at)]) = cx.node(id).map(|n| &n.inputs[..]) else { return Ok(()) };
    let Some((sizes, op)) = cx.maker::<Shape>(shape) else { return Ok(()) };
    let (start, of) = (op.start, cx.node(sizes).and_then(|n| n.inputs.first().copied().flatten()));
    let (Some(v), Some(at_dims), Some(i)) = (of, cx.dims(at).map(<[Dim]>::to_vec), cx.integer(at)) else {
        return Ok(());
    };
    if cx.graph().inputs().contains(&v) || start != 0 {
        return Ok(());
    }
    let axis = |d: &[Dim]| d.get(resolve_axis(i, d.len()).ok()?).cloned().filter(|d| d.known().is_none());
    let Some(size) = cx.dims(v).and_then(axis) else { return Ok(()) };
    let has = |&x: &ValueId| Some((x, cx.dims(x)?.iter().position(|d| d.same(&size))?));
    let Some((input, axis)) = cx.graph().inputs().iter().find_map(has) else { return Ok(()) };
    let (name, kind) = (cx.graph().value(input).name.clone(), cx.dtype(at));
    let asked =
        cx.edit.node(&format!("{name}.shape"), Arc::new(Shape { start: 0, end: None }), vec![Some(input)], 1)?[0];
    let shape_of_at: Vec<usize> = at_dims.iter().filter_map(Dim::size).collect();
    let axis = match kind {
        Some(crate::tensor::DType::I32) => Tensor::from_slice(&shape_of_at, &[axis as i32])?,
        _ => Tensor::from_slice(&shape_of_at, &[axis as i64])?,
    };
    let axis = cx.edit.constant(&format!("{name}.axis"), axis);
    cx.edit.replace_op(id, Arc::new(Gather { axis: 0 }), vec![Some(asked), Some(axis)]);
    cx.prune(vec![Some(shape)]);
    cx.fired();
    Ok(())
}
