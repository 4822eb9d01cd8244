//! Products of one left operand become one step: queries, keys and values, the gate and the way up of a gated layer.

use crate::error::Result;
use crate::ir::{NodeId, ValueId};
use crate::ops::linear::{MatMul, OWN, Products};
use crate::optimize::{Pass, PassCtx};
use std::collections::HashMap;
use std::sync::Arc;

/// Matrix products with constant right operands that read the same values. Weights stay what and where they are.
pub struct JoinProducts;

/// Products of one step at most.
const MOST: usize = 4;
/// Nodes between the first and the last of them at most: further apart, a result would lie about for long before its use.
const APART: usize = 48;

impl Pass for JoinProducts {
    fn name(&self) -> &'static str {
        "products"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        let mut groups: Vec<(ValueId, usize, Vec<NodeId>)> = Vec::new();
        let mut open: HashMap<ValueId, usize> = HashMap::new();
        for (place, id) in cx.order().into_iter().enumerate() {
            let Some(node) = cx.node(id).filter(|n| n.op.is::<MatMul>() && n.inputs.len() <= 1 + OWN) else { continue };
            let Some(&Some(a)) = node.inputs.first() else { continue };
            match open.get(&a).and_then(|&g| groups.get_mut(g)) {
                Some((_, first, all)) if all.len() < MOST && place - *first <= APART => all.push(id),
                _ => {
                    open.insert(a, groups.len());
                    groups.push((a, place, vec![id]));
                }
            }
        }
        groups.iter().try_for_each(|(a, _, all)| join(cx, *a, all))
    }
}

fn join(cx: &mut PassCtx<'_, '_>, a: ValueId, all: &[NodeId]) -> Result<()> {
    let mut taken: Vec<NodeId> = Vec::new();
    let mut results: Vec<ValueId> = Vec::new();
    for &id in all {
        let node = cx.graph().node(id);
        let &[Some(out)] = &node.outputs[..] else { continue };
        let constant = node.inputs.get(1).copied().flatten().is_some_and(|b| cx.graph().is_constant(b));
        if !constant {
            if all.len() > 1 {
                cx.miss(id, || "its right operand is not constant".into());
            }
            continue;
        }
        // What is added may hang on another of them.
        let others: Vec<ValueId> = node.inputs.iter().skip(2).copied().flatten().collect();
        if cx.depends_on(others.into_iter(), &results) {
            cx.miss(id, || "what it adds is made from another product of the same operand".into());
            continue;
        }
        taken.push(id);
        results.push(out);
    }
    if taken.len() < 2 {
        return Ok(());
    }
    let mut inputs = vec![Some(a)];
    let mut parts = Vec::with_capacity(taken.len());
    for &id in &taken {
        let node = cx.graph().node(id);
        let own = |i: usize| node.inputs.get(i).copied().flatten();
        inputs.extend((1..=OWN).map(own));
        parts.extend(node.op.downcast::<MatMul>().cloned());
    }
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    let name = cx.graph().node(taken[0]).name.clone();
    let made = cx.edit.node(&name, Arc::new(Products { parts }), inputs, taken.len())?;
    let Some((joined, _)) = made.first().and_then(|&v| cx.graph().value(v).producer) else { return Ok(()) };
    for (i, (&id, &out)) in taken.iter().zip(&results).enumerate() {
        cx.edit.move_output(joined, i, out);
        cx.edit.remove(id);
    }
    cx.fired();
    Ok(())
}
