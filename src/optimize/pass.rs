//! What a pass is, and what it sees.

use crate::backend::cpu::CpuBackend;
use crate::error::Result;
use crate::ir::edit::Editor;
use crate::ir::{Graph, Node, NodeId, Op, ValueId};

/// One rewriting of a graph. It must keep what the graph computes, up to rounding.
pub trait Pass: Send + Sync {
    /// A short name, by which it can be switched off.
    fn name(&self) -> &'static str;
    /// Changes the graph through the context's editor.
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()>;
}

/// How often a pass fired, and where it nearly did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassReport {
    /// The pass.
    pub pass: &'static str,
    /// How many rewrites it made.
    pub fired: usize,
    /// `CheckFailed: ...` for patterns that matched but for one condition; at most [`PassReport::MAX_MISSES`].
    pub misses: Vec<String>,
}

impl PassReport {
    /// How many near-misses are kept.
    pub const MAX_MISSES: usize = 32;
}

/// What a pass sees.
pub struct PassCtx<'a, 'g> {
    /// Reads and changes the graph.
    pub edit: Editor<'g>,
    /// For folding.
    pub cpu: &'a CpuBackend,
    /// How many users each value has, by index. Kept by the helper methods.
    pub uses: Vec<u32>,
    /// What happened.
    pub report: PassReport,
}

impl PassCtx<'_, '_> {
    /// The graph.
    pub fn graph(&self) -> &Graph {
        self.edit.graph()
    }
    /// Node ids in order, as of now.
    pub fn order(&self) -> Vec<NodeId> {
        self.graph().order().to_vec()
    }
    /// The node, unless it was removed.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.graph().has_node(id).then(|| self.graph().node(id))
    }
    /// The operator of a node as `T`.
    pub fn op<T: Op>(&self, id: NodeId) -> Option<&T> {
        self.node(id)?.op.downcast::<T>()
    }
    /// The node that makes a value, if its operator is a `T`.
    pub fn maker<T: Op>(&self, v: ValueId) -> Option<(NodeId, &T)> {
        let (id, place) = self.graph().value(v).producer?;
        (place == 0).then_some(())?;
        Some((id, self.op::<T>(id)?))
    }
    /// Whether exactly one node input or graph output uses the value.
    pub fn used_once(&self, v: ValueId) -> bool {
        self.uses.get(v.index()) == Some(&1)
    }
    /// Counts one rewrite.
    pub fn fired(&mut self) {
        self.report.fired += 1;
    }
    /// Notes a near-miss.
    pub fn miss(&mut self, id: NodeId, why: impl FnOnce() -> String) {
        if self.report.misses.len() < PassReport::MAX_MISSES {
            let name = self.node(id).map_or_else(String::new, |n| n.describe());
            let line = format!("CheckFailed: {name}: {}", why());
            self.report.misses.push(line);
        }
    }
    /// Lets node `id`, changed to `op` with `inputs`, make `value` (the output of a later node that it swallows).
    pub fn absorb(
        &mut self,
        id: NodeId,
        op: std::sync::Arc<dyn Op>,
        inputs: Vec<Option<ValueId>>,
        later: NodeId,
        value: ValueId,
    ) {
        self.edit.replace_op(id, op, inputs);
        self.edit.move_output(id, 0, value);
        self.edit.remove(later);
        self.recount();
        self.fired();
    }
    /// Counts the users anew.
    pub fn recount(&mut self) {
        self.uses = self.edit.live_use_counts();
    }
}
