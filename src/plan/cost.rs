//! What the items of a plan cost: estimates from sizes alone.

use super::{Item, Program, Segment};
use crate::backend::step::NO_VALUE;
use crate::ir::{Fact, InferCtx};

/// What one item does in a run, by the sizes of its operands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Operations on numbers, by [`Op::flops`](crate::ir::Op::flops).
    pub flops: u64,
    /// Bytes of the operands, constants included, each counted once.
    pub read: u64,
    /// Bytes of the results.
    pub written: u64,
}

impl Program {
    /// The cost of an item of one of this program's segments; none is known of items that work on values of the run.
    pub fn cost(&self, segment: &Segment, item: &Item) -> Cost {
        let step = match item {
            Item::Step(step) => step,
            Item::CopyIn { bytes, .. } | Item::CopyOut { bytes, .. } => {
                return Cost { flops: 0, read: *bytes as u64, written: *bytes as u64 };
            }
            Item::Eager(_) | Item::Control(_) => return Cost::default(),
        };
        let slot = |s: u32| (s != NO_VALUE).then(|| &segment.slots[s as usize]);
        let bytes = |s: u32| slot(s).map_or(0, |s| s.bytes as u64);
        let fact = |s: u32| slot(s).map_or(Fact::Absent, |s| Fact::sized(s.dtype, &s.shape));
        let mut cost = Cost { written: step.outputs.iter().map(|&s| bytes(s)).sum(), ..Cost::default() };
        if !self.graph.has_node(step.node) {
            // A change of layout.
            cost.read = step.inputs.iter().map(|&s| bytes(s)).sum();
            return cost;
        }
        let node = self.graph.node(step.node);
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (v, &s) in node.inputs.iter().zip(&step.inputs) {
            // Constants that were packed have no slot.
            let packed = v.filter(|_| s == NO_VALUE).map(|v| &self.graph.value(v).fact);
            let packed = packed.filter(|f| f.is_concrete());
            let constant = |f: &Fact| f.constant().map_or(0, |t| t.byte_len() as u64);
            cost.read += packed.map_or_else(|| bytes(s), constant);
            inputs.push(packed.cloned().unwrap_or_else(|| fact(s)));
        }
        let outputs: Vec<Fact> = step.outputs.iter().map(|&s| fact(s)).collect();
        let inputs: Vec<&Fact> = inputs.iter().collect();
        cost.flops = node.op.flops(&InferCtx { inputs: &inputs, outputs: outputs.len() }, &outputs);
        cost
    }
}
