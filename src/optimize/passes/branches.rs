//! Control flow that is decided when the model is read: of an If with a constant condition one branch is left, of a Loop that
//! runs once its body, of one that never runs what went in.

use crate::error::Result;
use crate::ir::{Graph, NodeId, ValueId};
use crate::ops::control::{If, Loop};
use crate::ops::shape::Unsqueeze;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// See the file's head.
pub struct Branches;

impl Pass for Branches {
    fn name(&self) -> &'static str {
        "branches"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            if cx.op::<If>(id).is_some() {
                branch(cx, id)?;
            } else if cx.op::<Loop>(id).is_some() {
                iterations(cx, id)?;
            }
        }
        Ok(())
    }
}

/// A constant of one bool.
fn truth(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<bool> {
    let t = cx.graph().fact(v).constant().filter(|t| t.dtype() == DType::Bool && t.len() == 1)?;
    t.bytes().first().map(|&b| b != 0)
}

fn branch(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let node = cx.graph().node(id).clone();
    let (Some(op), Some(Some(condition))) = (node.op.downcast::<If>(), node.inputs.first()) else { return Ok(()) };
    let Some(holds) = truth(cx, *condition) else { return Ok(()) };
    let (graph, captures) = match holds {
        true => (&op.then_branch, &op.then_captures),
        false => (&op.else_branch, &op.else_captures),
    };
    let inputs: Vec<Option<ValueId>> = captures.iter().map(|&i| node.inputs.get(i).copied().flatten()).collect();
    let Some(results) = inlined(cx, id, graph, &inputs) else { return Ok(()) };
    replace(cx, id, &node.outputs, &results);
    Ok(())
}

/// The results of a graph whose nodes become part of this one.
fn inlined(cx: &mut PassCtx<'_, '_>, id: NodeId, graph: &Graph, inputs: &[Option<ValueId>]) -> Option<Vec<ValueId>> {
    match cx.edit.inline(graph, inputs) {
        Ok(results) => Some(results),
        // What was added is dead, and goes. The node fails as the model has it, if it is ever run.
        Err(e) => {
            cx.miss(id, || format!("its graph does not fit here: {e:#}"));
            None
        }
    }
}

fn replace(cx: &mut PassCtx<'_, '_>, id: NodeId, outputs: &[Option<ValueId>], results: &[ValueId]) {
    for (old, &new) in outputs.iter().zip(results) {
        if let Some(old) = *old {
            cx.edit.replace_uses(old, new);
        }
    }
    cx.edit.remove(id);
    cx.fired();
}

fn iterations(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let node = cx.graph().node(id).clone();
    let Some(op) = node.op.downcast::<Loop>() else { return Ok(()) };
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let trips = at(0).and_then(|v| cx.integer(v));
    // A condition that is not given holds.
    let begins = at(1).map_or(Some(true), |v| truth(cx, v));
    let state: Option<Vec<ValueId>> = (0..op.state).map(|i| at(2 + i)).collect();
    let Some(state) = state else { return Ok(()) };
    if trips.is_some_and(|t| t <= 0) || begins == Some(false) {
        if op.scans == 0 {
            replace(cx, id, &node.outputs, &state);
        }
        return Ok(());
    }
    if trips != Some(1) || begins != Some(true) {
        return Ok(());
    }
    let number = cx.edit.constant(&format!("{}.iteration", node.name), Tensor::scalar(0i64)?);
    let going = cx.edit.constant(&format!("{}.going", node.name), Tensor::scalar(true)?);
    let inputs: Vec<Option<ValueId>> =
        [number, going].into_iter().chain(state).map(Some).chain(op.captures.iter().map(|&i| at(i))).collect();
    let Some(results) = inlined(cx, id, &op.body, &inputs) else { return Ok(()) };
    let (kept, scans) = results.get(1..).unwrap_or_default().split_at(op.state.min(results.len().saturating_sub(1)));
    let mut outputs = kept.to_vec();
    for (i, &scan) in scans.iter().enumerate() {
        let name = format!("{}.scan{i}", node.name);
        let axes = cx.edit.constant(&name, Tensor::from_slice(&[1], &[0i64])?);
        outputs.extend(cx.edit.node(&name, Arc::new(Unsqueeze), vec![Some(scan), Some(axes)], 1)?);
    }
    replace(cx, id, &node.outputs, &outputs);
    Ok(())
}
