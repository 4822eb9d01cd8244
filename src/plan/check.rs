//! Tries every node's kernel on given input facts, so that all that a plan would be refused for is known at once.

use super::program::Program;
use super::segment::SlotKind;
use super::specialise::{Flow, Made, Ready, Specialiser};
use crate::base::parallel::Serial;
use crate::error::Result;
use crate::ir::build::infer_op;
use crate::ir::{Alias, Fact, Node};

/// A node that no kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its name; for a node of a subgraph the names of the nodes around it go before, with slashes.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// What it is given.
    pub inputs: Vec<String>,
    /// Why not.
    pub message: String,
}

/// What a plan would meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Nodes that no kernel takes.
    pub refusals: Vec<Refusal>,
    /// Nodes that can run, or are computed beforehand.
    pub fine: usize,
    /// Nodes whose operator is implemented, but whose sizes are only known while running.
    pub open: usize,
}

impl Program {
    /// Tries every node, those of subgraphs too, for inputs of these facts: as far as they tell sizes, kernels are bound.
    pub fn check(&self, inputs: &[Fact]) -> Result<Check> {
        let mut check = Check::default();
        self.check_into(inputs, "", &mut check)?;
        Ok(check)
    }

    fn check_into(&self, inputs: &[Fact], prefix: &str, check: &mut Check) -> Result<()> {
        let facts = self.source_facts(inputs.iter().cloned());
        let mut s = Specialiser::new(self, 0, facts);
        s.begin(Ready::Inputs)?;
        for (id, node) in self.graph.nodes() {
            let given: Vec<Fact> = s.input_facts(node).into_iter().cloned().collect();
            let mut refuse = |message: String| {
                check.refusals.push(Refusal {
                    node: format!("{prefix}{}", node.name),
                    op: node.op.name().into(),
                    inputs: given.iter().map(Fact::to_string).collect(),
                    message,
                })
            };
            let refs: Vec<&Fact> = given.iter().collect();
            let outputs = match infer_op(&node.op, &refs, node.outputs.len()) {
                Ok(outputs) => outputs,
                Err(e) => {
                    refuse(e.to_string());
                    s.skip(node, vec![Fact::Unknown; node.outputs.len()])?;
                    continue;
                }
            };
            if let Some(bodies) = self.inner.get(&id).filter(|_| !s.has_eager(node)) {
                for (k, body) in bodies.iter().enumerate() {
                    let inputs = body_inputs(node, k, body, &given);
                    body.check_into(&inputs, &format!("{prefix}{}/", node.name), check)?;
                }
                check.fine += 1;
                s.skip(node, outputs)?;
                continue;
            }
            match s.node(id, node).and_then(|flow| s.bind_all(&Serial).map(|()| flow)) {
                Ok(Flow::Next) => {
                    check.fine += 1;
                    continue;
                }
                Ok(Flow::Cut(_)) => check.open += 1,
                // Without sizes nothing was bound: that there is an implementation is all that can be said.
                Err(_) if given.iter().any(|f| !f.is_concrete()) && s.is_implemented(node) => check.open += 1,
                Err(e) => refuse(e.to_string()),
            }
            s.skip(node, outputs)?;
        }
        Ok(())
    }
}

/// What is known of a subgraph's inputs: of captured values all, of what changes from turn to turn what the graph says.
fn body_inputs(node: &Node, k: usize, body: &Program, given: &[Fact]) -> Vec<Fact> {
    let captures = node.op.captures(k);
    let formal = body.graph.inputs();
    let mut facts: Vec<Fact> = formal.iter().map(|&v| body.graph.fact(v).clone()).collect();
    let first = facts.len().saturating_sub(captures.len());
    for (f, &i) in facts[first..].iter_mut().zip(captures) {
        if let Some(given) = given.get(i) {
            *f = given.without_contents();
        }
    }
    facts
}

impl Specialiser<'_> {
    /// Leaves a node out: its results count as made on the fly.
    fn skip(&mut self, node: &Node, outputs: Vec<Fact>) -> Result<()> {
        for (v, fact) in node.outputs.iter().zip(outputs) {
            let Some(v) = v else { continue };
            self.facts[v.index()] = fact.without_contents();
            self.made[v.index()] = Made::Dynamic;
            if fact.is_concrete() && !fact.is_absent() && self.variants[v.index()].is_empty() {
                self.add_slot(*v, SlotKind::Dynamic)?;
            }
        }
        Ok(())
    }

    fn has_eager(&self, node: &Node) -> bool {
        self.program.target.cpu.bindings().find_eager(&*node.op).is_some()
    }

    /// Whether anything can run the operator, if it likes the operands.
    fn is_implemented(&self, node: &Node) -> bool {
        let cpu = &self.program.target.cpu;
        self.has_eager(node) || cpu.bindings().has_step(&*node.op) || node.op.alias() == Alias::View
    }
}
