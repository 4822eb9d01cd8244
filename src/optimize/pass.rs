//! What a pass is, and what it sees.

use crate::backend::cpu::CpuBackend;
use crate::base::parallel::Parallel;
use crate::error::Result;
use crate::ir::build::infer_op;
use crate::ir::edit::Editor;
use crate::ir::{Dim, Fact, Graph, Node, NodeId, Op, ValueId};
use crate::ops::shape::{Reshape, Unsqueeze};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// One rewriting of a graph. It must keep what the graph computes, up to rounding.
pub trait Pass: Send + Sync {
    /// A short name, by which it can be switched off.
    fn name(&self) -> &'static str;
    /// Whether it runs only in rounds in which no pass before it has changed anything, and in the last.
    fn waits(&self) -> bool {
        false
    }
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
    /// The error for which it was left out.
    pub failure: Option<String>,
}

impl PassReport {
    /// How many near-misses are kept.
    pub const MAX_MISSES: usize = 32;
}

/// What a pass sees.
pub struct PassCtx<'a, 'g> {
    /// Reads and changes the graph.
    pub edit: &'a mut Editor<'g>,
    /// For folding.
    pub cpu: &'a CpuBackend,
    /// On which constants are computed.
    pub threads: &'a dyn Parallel,
    /// Bytes that folding may still add.
    pub(super) room: &'a mut usize,
    /// DequantizeLinear of constants stays: whoever reads the graph next looks for groups of quantised operators.
    pub keep_groups: bool,
    /// What happened.
    pub report: PassReport,
    /// Near-misses by node: one that another rewrite swallows later was none.
    pub(super) missed: Vec<(NodeId, String)>,
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
        self.edit.uses(v) == 1
    }
    /// Counts one rewrite.
    pub fn fired(&mut self) {
        self.report.fired += 1;
    }
    /// Notes a near-miss.
    pub fn miss(&mut self, id: NodeId, why: impl FnOnce() -> String) {
        if self.missed.len() < 8 * PassReport::MAX_MISSES && !self.missed.iter().any(|m| m.0 == id) {
            let name = self.node(id).map_or_else(String::new, |n| n.describe());
            self.missed.push((id, format!("CheckFailed: {name}: {}", why())));
        }
    }
    /// The report, with the near-misses of nodes that still stand.
    pub(super) fn finish_report(&mut self) -> PassReport {
        let missed = std::mem::take(&mut self.missed);
        let standing = missed.into_iter().filter(|m| self.graph().has_node(m.0)).map(|m| m.1);
        self.report.misses = standing.take(PassReport::MAX_MISSES).collect();
        std::mem::take(&mut self.report)
    }
    /// The one element of a constant of a float type, whatever its rank.
    pub fn scalar(&self, v: ValueId) -> Option<f64> {
        number(self.graph().fact(v).constant()?)
    }
    /// The one integer of a constant.
    pub fn integer(&self, v: ValueId) -> Option<i64> {
        match self.graph().fact(v).as_tensor()?.ints()?[..] {
            [n] => Some(n),
            _ => None,
        }
    }
    /// The axes of a value.
    pub fn dims(&self, v: ValueId) -> Option<&[Dim]> {
        self.graph().fact(v).as_tensor()?.dims.as_deref()
    }
    /// The element type of a value.
    pub fn dtype(&self, v: ValueId) -> Option<DType> {
        self.graph().fact(v).dtype()
    }
    /// The node that makes a value as its first output.
    pub fn made_by(&self, v: ValueId) -> Option<(NodeId, &Node)> {
        let (id, place) = self.graph().value(v).producer?;
        (place == 0).then_some(())?;
        Some((id, self.node(id)?))
    }
    /// Puts one operator in the place of whatever makes `value`, which keeps its name and users. What made it goes if
    /// nobody else needs it. False, and nothing changed, where the new result would not have the shape and type of the old.
    pub fn substitute(&mut self, value: ValueId, op: Arc<dyn Op>, inputs: Vec<Option<ValueId>>) -> Result<bool> {
        let Some((old, place)) = self.graph().value(value).producer else { return Ok(false) };
        let facts: Vec<&Fact> = inputs.iter().map(|v| v.map_or(&Fact::Absent, |v| self.graph().fact(v))).collect();
        let Ok(new) = infer_op(&op, &facts, 1) else { return Ok(false) };
        if !new.first().is_some_and(|n| fits(n, self.graph().fact(value))) {
            return Ok(false);
        }
        if place == 0 && self.graph().node(old).outputs.iter().flatten().count() == 1 {
            let gone = self.graph().node(old).inputs.clone();
            self.edit.replace_op(old, op, inputs);
            self.prune(gone);
        } else {
            let name = self.graph().value(value).name.clone();
            let made = self.edit.node(&name, op, inputs, 1)?;
            if let Some((id, _)) = self.graph().value(made[0]).producer {
                self.edit.move_output(id, 0, value);
            }
        }
        self.fired();
        Ok(true)
    }
    /// The value under another shape, given in Reshape's terms.
    pub fn reshape(&mut self, v: ValueId, shape: &[i64]) -> Result<ValueId> {
        let name = format!("{}.axes", self.graph().value(v).name);
        let shape = self.edit.constant(&format!("{name}.shape"), Tensor::from_slice(&[shape.len()], shape)?);
        Ok(self.edit.node(&name, Arc::new(Reshape { allow_zero: false }), vec![Some(v), Some(shape)], 1)?[0])
    }
    /// Removes the nodes behind values that nobody uses any more.
    pub fn prune(&mut self, mut values: Vec<Option<ValueId>>) {
        while let Some(v) = values.pop() {
            let Some(v) = v.filter(|&v| self.edit.uses(v) == 0) else { continue };
            let Some((id, _)) = self.graph().value(v).producer else { continue };
            let Some(node) = self.node(id) else { continue };
            if node.outputs.iter().flatten().all(|&o| self.edit.uses(o) == 0) {
                values.extend(node.inputs.iter().copied());
                self.edit.remove(id);
            }
        }
    }
    /// Whether any of `values` is made, however far back, from one of `sources`.
    pub fn depends_on(&self, values: impl Iterator<Item = ValueId>, sources: &[ValueId]) -> bool {
        if sources.is_empty() {
            return false;
        }
        let mut todo: Vec<ValueId> = values.collect();
        let mut seen = std::collections::HashSet::new();
        while let Some(v) = todo.pop() {
            if sources.contains(&v) {
                return true;
            }
            if seen.insert(v)
                && let Some((id, _)) = self.graph().value(v).producer
                && let Some(node) = self.node(id)
            {
                todo.extend(node.inputs.iter().flatten());
            }
        }
        false
    }
    /// Lets node `id`, changed to `op` with `inputs`, make `value` (the output of a later node that it swallows).
    pub fn absorb(&mut self, id: NodeId, op: Arc<dyn Op>, inputs: Vec<Option<ValueId>>, later: NodeId, value: ValueId) {
        self.edit.replace_op(id, op, inputs);
        self.edit.move_output(id, 0, value);
        self.edit.remove(later);
        self.fired();
    }
}

/// The one element of a float tensor.
pub fn number(t: &Tensor) -> Option<f64> {
    if t.len() != 1 {
        return None;
    }
    match t.dtype() {
        DType::F32 => t.as_slice::<f32>().ok()?.first().map(|&x| f64::from(x)),
        DType::F64 => t.as_slice::<f64>().ok()?.first().copied(),
        DType::F16 => t.as_slice::<half::f16>().ok()?.first().map(|x| x.to_f64()),
        DType::BF16 => t.as_slice::<half::bf16>().ok()?.first().map(|x| x.to_f64()),
        _ => None,
    }
}

/// Whether both are certainly the same shape.
pub fn same_shape(a: Option<&[Dim]>, b: Option<&[Dim]>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)))
}

/// The shape, in Reshape's terms, that gives a value of axes `own` the axes `dims`: one of them may be open, and others
/// that stand where they stood.
pub fn shape_of<'d>(dims: impl Iterator<Item = &'d Dim>, own: &[Dim]) -> Option<Vec<i64>> {
    let mut open = false;
    dims.enumerate()
        .map(|(i, d)| match d.known() {
            Some(n) => (n > 0).then_some(n),
            None if own.get(i).is_some_and(|o| o.same(d)) => Some(0),
            None => (!std::mem::replace(&mut open, true)).then_some(-1),
        })
        .collect()
}

/// Other axes for a value: in Reshape's terms, after an axis of 1 is put in front where more sizes stand where they stood then.
#[derive(Clone, Debug)]
pub struct Regroup {
    front: bool,
    sizes: Vec<i64>,
}

impl Regroup {
    /// From axes `own` to `dims`.
    pub fn of(dims: &[Dim], own: &[Dim]) -> Option<Regroup> {
        let behind = || shape_of(dims.iter(), &[&[Dim::Known(1)], own].concat());
        let plain = shape_of(dims.iter(), own).map(|sizes| Regroup { front: false, sizes });
        plain.or_else(|| Some(Regroup { front: true, sizes: behind()? }))
    }
    /// The value with those axes.
    pub fn of_value(&self, cx: &mut PassCtx<'_, '_>, mut v: ValueId) -> Result<ValueId> {
        if self.front {
            let name = format!("{}.front", cx.graph().value(v).name);
            let axis = cx.edit.constant(&format!("{name}.axis"), Tensor::from_slice(&[1], &[0i64])?);
            v = cx.edit.node(&name, Arc::new(Unsqueeze), vec![Some(v), Some(axis)], 1)?[0];
        }
        cx.reshape(v, &self.sizes)
    }
}

/// Whether both are tensors of one type and rank, and no size contradicts.
fn fits(a: &Fact, b: &Fact) -> bool {
    let (Some(a), Some(b)) = (a.as_tensor(), b.as_tensor()) else { return false };
    let agree = |x: &Dim, y: &Dim| x.known().is_none() || y.known().is_none() || x == y;
    a.dtype == b.dtype
        && match (&a.dims, &b.dims) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agree(a, b)),
            _ => false,
        }
}
