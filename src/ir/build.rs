//! Building a graph node by node; facts are inferred as nodes are added.

use super::{Fact, Graph, InferCtx, Node, NodeId, Op, Spelling, TensorFact, ValueId, ValueInfo};
use crate::base::checked;
use crate::error::{Context, Result};
use crate::tensor::Tensor;
use crate::{bail, ensure};
use std::sync::Arc;

/// Adds to a new graph. Nodes must come after what they need.
#[derive(Default, Debug)]
pub struct GraphBuilder {
    graph: Graph,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        GraphBuilder { graph: Graph { name: name.to_string(), ..Graph::default() } }
    }
    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// A value that the caller will supply.
    pub fn input(&mut self, name: &str, fact: Fact) -> ValueId {
        let v = self.graph.new_value(name.into(), fact);
        self.graph.inputs.push(v);
        v
    }
    /// A constant.
    pub fn constant(&mut self, name: &str, t: Tensor) -> ValueId {
        self.graph.new_value(name.into(), Fact::Tensor(TensorFact::constant(t)))
    }
    /// A value that nothing makes: stands for the result of a node that could not be read. Such a graph cannot run.
    pub fn hole(&mut self, name: &str) -> ValueId {
        self.graph.new_value(name.into(), Fact::Unknown)
    }
    /// A node with `outputs` output names (`None`: not asked for), its facts inferred. Returns the outputs' values.
    pub fn node(
        &mut self,
        name: &str,
        op: Arc<dyn Op>,
        inputs: Vec<Option<ValueId>>,
        outputs: &[Option<&str>],
    ) -> Result<Vec<Option<ValueId>>> {
        let node = Node { name: name.into(), op, inputs, outputs: Vec::new(), spelling: None };
        let inputs: Vec<&Fact> = self.graph.input_facts(&node).collect();
        // Names may be empty beyond what the operator has: some exporters list every output of the standard.
        let asked = outputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        let infer = |outputs| infer_op(&node.op, &inputs, outputs);
        let facts = infer(outputs.len())
            .or_else(|e| if asked < outputs.len() { infer(asked) } else { Err(e) })
            .context(|| describe_with_inputs(&node, &inputs))?;
        let outputs = &outputs[..facts.len()];
        let values: Vec<_> =
            outputs.iter().zip(facts).map(|(name, fact)| name.map(|n| self.graph.new_value(n.into(), fact))).collect();
        self.graph.push_node(Node { outputs: values.clone(), ..node });
        Ok(values)
    }
    /// Notes how the model said the node that was added last.
    pub fn spell(&mut self, spelling: Spelling) {
        if let Some(Some(node)) = self.graph.nodes.last_mut() {
            node.spelling = Some(Arc::new(spelling));
        }
    }
    /// Names the graph's outputs and ends the building.
    pub fn finish(mut self, outputs: Vec<ValueId>) -> Result<Graph> {
        for v in &outputs {
            ensure!(
                v.index() < self.graph.values.len(),
                Internal,
                "an output of graph '{}' does not exist",
                self.graph.name
            );
        }
        self.graph.outputs = outputs;
        Ok(self.graph)
    }
}

/// The facts of a node's outputs; the error names the node and its inputs.
pub fn infer_node(graph: &Graph, node: &Node, outputs: usize) -> Result<Vec<Fact>> {
    let inputs: Vec<&Fact> = graph.input_facts(node).collect();
    infer_op(&node.op, &inputs, outputs).context(|| describe_with_inputs(node, &inputs))
}

/// The facts of an operator's outputs, exactly `outputs` of them.
pub fn infer_op(op: &Arc<dyn Op>, inputs: &[&Fact], outputs: usize) -> Result<Vec<Fact>> {
    let mut facts = match op.infer(&mut InferCtx { inputs, outputs }) {
        Ok(facts) => facts,
        // Inside a graph whose inputs are not even typed nothing can be said, nor held against it.
        Err(_) if inputs.iter().any(|f| matches!(f, Fact::Unknown)) => return Ok(vec![Fact::Unknown; outputs]),
        Err(e) => return Err(e),
    };
    if facts.len() < outputs {
        bail!(InvalidModel, "the operator has {} outputs, the model asks for {outputs}", facts.len());
    }
    facts.truncate(outputs);
    // What an operator passes on must be there.
    ensure!(!facts.iter().any(Fact::is_absent), InvalidModel, "an input that the operator needs is missing");
    for shape in facts.iter().filter_map(Fact::shape) {
        checked::product(&shape)?;
    }
    Ok(facts)
}

/// `node 'name' (Op) of float[1,3], int64[2]`, for messages.
pub fn describe_with_inputs(node: &Node, inputs: &[&Fact]) -> String {
    let facts: Vec<String> = inputs.iter().map(|f| f.to_string()).collect();
    format!("{} of {}", node.describe(), if facts.is_empty() { "no inputs".into() } else { facts.join(", ") })
}

impl Graph {
    pub(super) fn new_value(&mut self, name: Arc<str>, fact: Fact) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(ValueInfo { name, fact, producer: None });
        id
    }
    pub(super) fn push_node(&mut self, node: Node) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        for (i, v) in node.outputs.iter().enumerate() {
            if let Some(v) = v {
                self.values[v.index()].producer = Some((id, i as u32));
            }
        }
        self.nodes.push(Some(node));
        self.order.push(id);
        id
    }
}
