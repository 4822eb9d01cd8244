//! The only way to change a finished graph.

use super::build::infer_node;
use super::{Fact, Graph, Node, NodeId, Op, TensorFact, ValueId};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::{bail, ensure, err};
use std::sync::Arc;

/// Changes to one graph. After any number of them call [`Editor::settle`], which puts the graph in order again.
pub struct Editor<'g> {
    graph: &'g mut Graph,
    /// Goes up with every change.
    revision: u64,
    /// The revision that was last put in order.
    settled: u64,
    /// The nodes that read each value, one entry a reading input.
    users: Vec<Vec<NodeId>>,
    /// How many of the graph's outputs each value is.
    asked: Vec<u32>,
}

impl<'g> Editor<'g> {
    /// Begins to edit.
    pub fn new(graph: &'g mut Graph) -> Self {
        let mut users = vec![Vec::new(); graph.values.len()];
        for (i, n) in graph.nodes.iter().enumerate() {
            n.iter().flat_map(|n| n.inputs.iter().flatten()).for_each(|v| users[v.index()].push(NodeId(i as u32)));
        }
        let mut asked = vec![0; graph.values.len()];
        graph.outputs.iter().for_each(|v| asked[v.index()] += 1);
        Editor { graph, revision: 0, settled: 0, users, asked }
    }
    /// How often the graph was changed: as long as this stands still, what was found in the graph is still true.
    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// Puts another graph in the place of this one.
    pub fn restore(&mut self, graph: Graph) {
        *self.graph = graph;
        let Editor { users, asked, .. } = Editor::new(self.graph);
        (self.users, self.asked) = (users, asked);
        self.revision += 1;
        self.settled = self.revision;
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
        let node = Node { name: name.into(), op, inputs, outputs: Vec::new(), spelling: None };
        let facts = infer_node(self.graph, &node, outputs)?;
        let values: Vec<ValueId> = facts
            .into_iter()
            .enumerate()
            .map(|(i, f)| self.graph.new_value(if i == 0 { name.into() } else { format!("{name}:{i}").into() }, f))
            .collect();
        let inputs = node.inputs.clone();
        let id = self.graph.push_node(Node { outputs: values.iter().copied().map(Some).collect(), ..node });
        self.users.resize_with(self.graph.values.len(), Vec::new);
        inputs.iter().flatten().for_each(|v| self.users[v.index()].push(id));
        self.revision += 1;
        Ok(values)
    }
    /// Adds the nodes of another graph, its inputs being these values. Returns what its outputs are here.
    pub fn inline(&mut self, other: &Graph, inputs: &[Option<ValueId>]) -> Result<Vec<ValueId>> {
        let mut here: Vec<Option<ValueId>> = vec![None; other.value_count()];
        ensure!(
            inputs.len() == other.inputs().len(),
            Internal,
            "a graph of {} inputs got {}",
            other.inputs().len(),
            inputs.len()
        );
        for (v, &to) in other.inputs().iter().zip(inputs) {
            here[v.index()] = to;
        }
        for (i, v) in other.values.iter().enumerate() {
            if let Some(t) = v.fact.constant().filter(|_| v.producer.is_none() && here[i].is_none()) {
                here[i] = Some(self.constant(&v.name, t.clone()));
            }
        }
        for (_, node) in other.nodes() {
            let inputs: Vec<_> = node.inputs.iter().map(|v| v.and_then(|v| here[v.index()])).collect();
            let made = self.node(&node.name, node.op.clone(), inputs, node.outputs.len())?;
            if let Some(n) = self.graph.nodes.last_mut().and_then(Option::as_mut) {
                n.spelling = node.spelling.clone();
            }
            for (place, (v, made)) in node.outputs.iter().zip(made).enumerate() {
                match v {
                    Some(v) => here[v.index()] = Some(made),
                    // Not asked for.
                    None => {
                        let maker = self.graph.values[made.index()].producer.take();
                        if let Some(n) = maker.and_then(|(id, _)| self.graph.nodes[id.index()].as_mut()) {
                            n.outputs[place] = None;
                        }
                    }
                }
            }
        }
        let result = |v: &ValueId| here[v.index()].ok_or_else(|| err!(Internal, "a graph's output is not made"));
        other.outputs().iter().map(result).collect()
    }
    /// Puts another operator and inputs in a node's place; its outputs stay the same values.
    pub fn replace_op(&mut self, id: NodeId, op: Arc<dyn Op>, inputs: Vec<Option<ValueId>>) {
        self.users.resize_with(self.graph.values.len(), Vec::new);
        if let Some(n) = self.graph.nodes[id.index()].as_mut() {
            inputs.iter().flatten().for_each(|v| self.users[v.index()].push(id));
            let old = std::mem::replace(&mut n.inputs, inputs);
            n.op = op;
            n.spelling = None;
            self.revision += 1;
            self.forget(id, &old);
        }
    }
    /// Puts other graphs inside a node, in the order of `Op::subgraphs`.
    pub fn replace_subgraphs(&mut self, id: NodeId, graphs: Vec<Arc<Graph>>) {
        if let Some(n) = self.graph.nodes[id.index()].as_mut()
            && let Some(op) = n.op.with_subgraphs(graphs)
        {
            n.op = op;
            self.revision += 1;
        }
    }
    /// Takes a node off the users of what it read.
    fn forget(&mut self, id: NodeId, inputs: &[Option<ValueId>]) {
        for v in inputs.iter().flatten() {
            let users = &mut self.users[v.index()];
            if let Some(at) = users.iter().position(|&u| u == id) {
                users.swap_remove(at);
            }
        }
    }
    /// Makes every user of `from` (nodes and graph outputs) use `to`.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        if from == to {
            return;
        }
        self.users.resize_with(self.graph.values.len(), Vec::new);
        self.asked.resize(self.graph.values.len(), 0);
        let moved = std::mem::take(&mut self.users[from.index()]);
        for &u in &moved {
            if let Some(n) = self.graph.nodes[u.index()].as_mut() {
                n.inputs.iter_mut().flatten().filter(|v| **v == from).for_each(|v| *v = to);
            }
        }
        self.users[to.index()].extend(moved);
        let asked = std::mem::take(&mut self.asked[from.index()]);
        if asked > 0 {
            self.graph.outputs.iter_mut().filter(|v| **v == from).for_each(|v| *v = to);
            self.asked[to.index()] += asked;
        }
        self.revision += 1;
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
        self.revision += 1;
    }
    /// Tells the maker of a value that nobody uses not to make it.
    pub fn drop_output(&mut self, v: ValueId) {
        if let Some((id, place)) = self.graph.values[v.index()].producer.take()
            && let Some(n) = self.graph.nodes[id.index()].as_mut()
        {
            n.outputs[place as usize] = None;
            self.revision += 1;
        }
    }
    /// Makes a computed value a constant.
    pub fn set_constant(&mut self, v: ValueId, t: Tensor) {
        self.drop_output(v);
        self.graph.values[v.index()].fact = Fact::Tensor(TensorFact::constant(t));
        self.revision += 1;
    }
    /// Narrows what is known of a value.
    pub fn set_fact(&mut self, v: ValueId, fact: Fact) {
        self.graph.values[v.index()].fact = fact;
        self.revision += 1;
    }
    /// Removes a node; its outputs must be unused by then.
    pub fn remove(&mut self, id: NodeId) {
        if let Some(n) = self.graph.nodes[id.index()].take() {
            n.outputs.iter().flatten().for_each(|v| self.graph.values[v.index()].producer = None);
            self.revision += 1;
            self.forget(id, &n.inputs);
        }
    }
    /// The nodes that read a value, one entry a reading input.
    pub fn users(&self, v: ValueId) -> &[NodeId] {
        self.users.get(v.index()).map_or(&[], Vec::as_slice)
    }
    /// Whether the value is an output of the graph.
    pub fn is_output(&self, v: ValueId) -> bool {
        self.asked.get(v.index()).is_some_and(|&n| n > 0)
    }
    /// How many node inputs and graph outputs use a value.
    pub fn uses(&self, v: ValueId) -> usize {
        self.users(v).len() + self.asked.get(v.index()).map_or(0, |&n| n as usize)
    }
    /// Removes dead nodes, restores the order, and frees the contents of constants that nobody uses.
    pub fn settle(&mut self) -> Result<()> {
        if self.settled != self.revision {
            for (id, node) in self.graph.tidy()? {
                self.forget(id, &node.inputs);
            }
            self.settled = self.revision;
        }
        Ok(())
    }
}

impl Graph {
    /// Dead code out, order restored: depth first from the outputs, without recursion. Returns the dead.
    pub(crate) fn tidy(&mut self) -> Result<Vec<(NodeId, Node)>> {
        let mut dead = Vec::new();
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
                dead.push((NodeId(i as u32), n));
            }
        }
        for (i, v) in self.values.iter_mut().enumerate() {
            if !used[i] && v.producer.is_none() && v.fact.constant().is_some() {
                v.fact = v.fact.without_contents();
            }
        }
        self.order = order;
        Ok(dead)
    }
}
