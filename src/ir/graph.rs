//! Graphs: nodes over values, in static single assignment form.

use super::{Fact, Op, Spelling};
use std::sync::Arc;

/// A value of one graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ValueId(pub u32);

/// A node of one graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u32);

impl ValueId {
    /// As an index into tables.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    /// As an index into tables.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a graph knows of a value.
#[derive(Clone, Debug)]
pub struct ValueInfo {
    /// The model's name for it; may be empty for values of our own.
    pub name: Arc<str>,
    /// What is known; a known content without producer is a constant.
    pub fact: Fact,
    /// The node that makes it and the output's place; none for inputs and constants.
    pub producer: Option<(NodeId, u32)>,
}

/// One application of an operator.
#[derive(Clone, Debug)]
pub struct Node {
    /// The model's name for it, or a made one.
    pub name: Arc<str>,
    /// The canonical operator.
    pub op: Arc<dyn Op>,
    /// Inputs; `None` for an optional one that is not given.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs; `None` for one that nobody asked for.
    pub outputs: Vec<Option<ValueId>>,
    /// How the model said it, where the importer was asked to keep that: what it computes is still the same.
    pub spelling: Option<Arc<Spelling>>,
}

impl Node {
    /// `node 'name' (Op)`, for messages.
    pub fn describe(&self) -> String {
        format!("node '{}' ({})", self.name, self.op.name())
    }
}

/// A graph. It is closed: nothing in it refers to another graph's values.
#[derive(Clone, Default, Debug)]
pub struct Graph {
    /// The model's name for it.
    pub name: String,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) values: Vec<ValueInfo>,
    pub(super) inputs: Vec<ValueId>,
    pub(super) outputs: Vec<ValueId>,
    /// Node ids in an order in which each comes after those it needs.
    pub(super) order: Vec<NodeId>,
}

impl Graph {
    /// Values the caller supplies, in the model's order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }
    /// Values the caller gets, in the model's order. One value may stand here more than once, or be an input.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }
    /// A node; panics if it was removed.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()].as_ref().expect("a live node")
    }
    /// Whether the node still stands.
    pub fn has_node(&self, id: NodeId) -> bool {
        self.nodes.get(id.index()).is_some_and(Option::is_some)
    }
    /// A value.
    pub fn value(&self, id: ValueId) -> &ValueInfo {
        &self.values[id.index()]
    }
    /// What is known of a value.
    pub fn fact(&self, id: ValueId) -> &Fact {
        &self.values[id.index()].fact
    }
    /// Number of values, the bound of their indices.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }
    /// Number of node slots, the bound of their indices.
    pub fn node_slots(&self) -> usize {
        self.nodes.len()
    }
    /// The nodes in an order in which each comes after those it needs.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }
    /// The live nodes in that order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.order.iter().map(|&id| (id, self.node(id)))
    }
    /// Whether the value is a constant of the graph: known, and neither computed nor supplied.
    pub fn is_constant(&self, id: ValueId) -> bool {
        let v = self.value(id);
        v.producer.is_none() && v.fact.constant().is_some() && !self.inputs.contains(&id)
    }
    /// The facts of a node's inputs, `Absent` where there is none.
    pub fn input_facts<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Fact> {
        node.inputs.iter().map(|v| v.map_or(&Fact::Absent, |v| self.fact(v)))
    }
    /// How many node inputs and graph outputs use each value, by value index.
    pub fn use_counts(&self) -> Vec<u32> {
        let mut n = vec![0; self.values.len()];
        for (_, node) in self.nodes() {
            node.inputs.iter().flatten().for_each(|v| n[v.index()] += 1);
        }
        self.outputs.iter().for_each(|v| n[v.index()] += 1);
        n
    }
}
