//! The only way to change a finished graph.

use super::build::infer_node;
use super::{Fact, Graph, Node, NodeId, Op, TensorFact, ValueId};
use crate::bail;
use crate::error::Result;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Changes to one graph. After any number of them call [`Editor::finish`], which puts the graph in order again.
pub struct Editor<'g> {
    graph: &'g mut Graph,
    changed: bool,
}

impl<'g> Editor<'g> {
    /// Begins to edit.
    pub fn new(graph: &'g mut Graph) -> Self {
        Editor { graph, changed: false }
    }
    /// The graph as it stands. Its order does not yet have nodes in place that were added since.
    pub fn graph(&self) -> &Graph {
        self.graph
    }
    /// A new constant.
    pub fn constant(&mut self, name: &str, t: Tensor) -> ValueId {
        self.graph.new_value(name.into(), Fact::Tensor(TensorFact::constant(t)))
    }
    /// A new node with `outputs` new values, facts inferred.
    pub fn node(
        &mut self,
        name: &str,
        op: Arc<dyn Op>,
        inputs: Vec<Option<ValueId>>,
        outputs: usize,
    ) -> Result<Vec<ValueId>> {
        let node = Node { name: name.into(), op, inputs, outputs: Vec::new() };
        let facts = infer_node(self.graph, &node, outputs)?;
        let values: Vec<ValueId> = facts
            .into_iter()
            .enumerate()
            .map(|(i, f)| self.graph.new_value(if i == 0 { name.into() } else { format!("{name}:{i}").into() }, f))
            .collect();
        self.graph.push_node(Node { outputs: values.iter().copied().map(Some).collect(), ..node });
        self.changed = true;
        Ok(values)
    }
    /// Puts another operator and inputs in a node's place; its outputs stay the same values.
    pub fn replace_op(&mut self, id: NodeId, op: Arc<dyn Op>, inputs: Vec<Option<ValueId>>) {
        if let Some(n) = self.graph.nodes[id.index()].as_mut() {
            n.op = op;
            n.inputs = inputs;
            self.changed = true;
        }
    }
    /// Makes every user of `from` (nodes and graph outputs) use `to`.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        for n in self.graph.nodes.iter_mut().flatten() {
            n.inputs.iter_mut().flatten().filter(|v| **v == from).for_each(|v| *v = to);
        }
        self.graph.outputs.iter_mut().filter(|v| **v == from).for_each(|v| *v = to);
        self.changed = true;
    }
    /// Lets node `id` make `value` as output `place`, instead of the value it made there.
    pub fn move_output(&mut self, id: NodeId, place: usize, value: ValueId) {
        if let Some((old, p)) = self.graph.values[value.index()].producer.take()
            && let Some(n) = self.graph.nodes[old.index()].as_mut()
        {
            n.outputs[p as usize] = None;
        }
        if let Some(n) = self.graph.nodes[id.index()].as_mut() {
            if let Some(gone) = n.outputs[place].replace(value) {
                self.graph.values[gone.index()].producer = None;
            }
            self.graph.values[value.index()].producer = Some((id, place as u32));
        }
        self.changed = true;
    }
    /// Makes a computed value a constant.
    pub fn set_constant(&mut self, v: ValueId, t: Tensor) {
        if let Some((id, place)) = self.graph.values[v.index()].producer.take()
            && let Some(n) = self.graph.nodes[id.index()].as_mut()
        {
            n.outputs[place as usize] = None;
        }
        self.graph.values[v.index()].fact = Fact::Tensor(TensorFact::constant(t));
        self.changed = true;
    }
    /// Narrows what is known of a value.
    pub fn set_fact(&mut self, v: ValueId, fact: Fact) {
        self.graph.values[v.index()].fact = fact;
    }
    /// Removes a node; its outputs must be unused by then.
    pub fn remove(&mut self, id: NodeId) {
        if let Some(n) = self.graph.nodes[id.index()].take() {
            n.outputs.iter().flatten().for_each(|v| self.graph.values[v.index()].producer = None);
            self.changed = true;
        }
    }
    /// How many node inputs and graph outputs use each value, nodes added since the last `finish` included.
    pub fn live_use_counts(&self) -> Vec<u32> {
        let mut n = vec![0; self.graph.values.len()];
        let inputs = self.graph.nodes.iter().flatten().flat_map(|node| node.inputs.iter().flatten());
        inputs.chain(&self.graph.outputs).for_each(|v| n[v.index()] += 1);
        n
    }
    /// Removes dead nodes, restores the order, and frees the contents of constants that nobody uses. Returns whether
    /// anything changed.
    pub fn finish(self) -> Result<bool> {
        if self.changed {
            self.graph.tidy()?;
        }
        Ok(self.changed)
    }
}

impl Graph {
    /// Dead code out, order restored: depth first from the outputs, without recursion.
    pub(crate) fn tidy(&mut self) -> Result<()> {
        let mut state = vec![0u8; self.nodes.len()]; // 0 new, 1 entered, 2 placed
        let mut order = Vec::with_capacity(self.order.len());
        let mut stack: Vec<(NodeId, usize)> = Vec::new();
        let mut used = vec![false; self.values.len()];
        let roots: Vec<NodeId> =
            self.outputs.iter().filter_map(|v| self.values[v.index()].producer.map(|p| p.0)).collect();
        self.inputs.iter().chain(&self.outputs).for_each(|v| used[v.index()] = true);
        for root in roots {
            if state[root.index()] == 0 {
                state[root.index()] = 1;
                stack.push((root, 0));
            }
            while let Some((id, next)) = stack.pop() {
                let Some(node) = self.nodes[id.index()].as_ref() else {
                    bail!(Internal, "a removed node is still used")
                };
                match node.inputs.get(next) {
                    None => {
                        state[id.index()] = 2;
                        order.push(id);
                    }
                    Some(input) => {
                        stack.push((id, next + 1));
                        let Some(v) = input else { continue };
                        used[v.index()] = true;
                        let Some((p, _)) = self.values[v.index()].producer else { continue };
                        match state[p.index()] {
                            0 => {
                                state[p.index()] = 1;
                                stack.push((p, 0));
                            }
                            1 => bail!(Internal, "an edit made a cycle through {}", self.node(p).describe()),
                            _ => {}
                        }
                    }
                }
            }
        }
        for (i, s) in state.iter().enumerate() {
            if *s != 2
                && let Some(n) = self.nodes[i].take()
            {
                n.outputs.iter().flatten().for_each(|v| self.values[v.index()].producer = None);
            }
        }
        for (i, v) in self.values.iter_mut().enumerate() {
            if !used[i] && v.producer.is_none() && v.fact.constant().is_some() {
                v.fact = v.fact.without_contents();
            }
        }
        self.order = order;
        Ok(())
    }
}
