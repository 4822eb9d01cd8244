//! Computes once what the graph has more than once: common subexpressions.

use crate::error::Result;
use crate::ir::{NodeId, ValueId};
use crate::optimize::{Pass, PassCtx};
use std::any::{Any, TypeId};
use std::collections::HashMap;

/// Nodes of the same operator over the same values become one.
pub struct Common;

type Key = (TypeId, Vec<Option<ValueId>>);

impl Pass for Common {
    fn name(&self) -> &'static str {
        "common"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        let mut seen: HashMap<Key, Vec<NodeId>> = HashMap::new();
        for id in cx.order() {
            let Some(node) = cx.node(id) else { continue };
            if !node.op.is_deterministic() || !node.op.subgraphs().is_empty() || node.inputs.is_empty() {
                continue;
            }
            let key = ((&*node.op as &dyn Any).type_id(), node.inputs.clone());
            let earlier = seen.entry(key).or_default();
            // Attributes are compared as they are printed, which all of them are; only where all else is the same.
            let twin = earlier.iter().copied().find(|&e| {
                cx.node(e).is_some_and(|n| {
                    n.outputs.len() == node.outputs.len()
                        && node.outputs.iter().zip(&n.outputs).all(|(late, early)| late.is_none() || early.is_some())
                        && format!("{:?}", n.op) == format!("{:?}", node.op)
                })
            });
            let Some(twin) = twin else {
                earlier.push(id);
                continue;
            };
            let late = node.outputs.clone();
            let early = cx.graph().node(twin).outputs.clone();
            for (late, early) in late.iter().zip(&early) {
                if let (Some(late), Some(early)) = (late, early) {
                    cx.edit.replace_uses(*late, *early);
                }
            }
            cx.edit.remove(id);
            cx.fired();
        }
        Ok(())
    }
}
