//! What an operator's `parse` sees: a node's attributes by name, its inputs, and a place to add helper nodes.

use super::build::GraphBuilder;
use super::{Fact, Graph, Op, ValueId};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::{bail, ensure, err};
use std::sync::Arc;

/// An attribute's value.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Attr {
    Float(f32),
    Int(i64),
    String(Vec<u8>),
    Tensor(Tensor),
    Graph(Subgraph),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<Vec<u8>>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<Subgraph>),
    Type(Fact),
}

/// A graph inside a node, closed: its inputs are the formal ones, then one for each captured outer value.
#[derive(Clone, Debug)]
pub struct Subgraph {
    /// The graph.
    pub graph: Arc<Graph>,
    /// How many of its inputs the operator feeds.
    pub formal_inputs: usize,
    /// The values of the outer graph that feed the other inputs, in their order.
    pub captures: Vec<ValueId>,
    /// What the file says of its outputs, true or not.
    pub declared: Vec<Fact>,
}

/// A node on its way from a file into a graph.
pub struct ParseCtx<'a> {
    /// The node's name, as the model gives it or made from its first output.
    pub name: &'a str,
    /// ONNX's name of the operator, for definitions that serve several.
    pub op_type: &'a str,
    /// Version of the operator set that the model imports.
    pub version: u32,
    /// The node's inputs; `parse` may add to them or change them.
    pub inputs: Vec<Option<ValueId>>,
    /// For each output whether the model asks for it.
    pub outputs: &'a [bool],
    attrs: Vec<(&'a str, Attr)>,
    /// The graph attributes taken as graphs of the operator, in that order.
    pub(crate) graphs: Vec<String>,
    builder: &'a mut GraphBuilder,
    made: u32,
}

macro_rules! getter {
    ($(#[$doc:meta])* $opt:ident $plain:ident $variant:ident $t:ty) => {
        $(#[$doc])*
        pub fn $opt(&self, name: &str) -> Result<Option<$t>> {
            match self.attr(name) {
                None => Ok(None),
                Some(Attr::$variant(x)) => Ok(Some(x.clone())),
                Some(x) => bail!(InvalidModel, "attribute '{name}' must be of type {}, it is {x:?}", stringify!($variant)),
            }
        }
        /// The same, with an error where the attribute is missing.
        pub fn $plain(&self, name: &str) -> Result<$t> {
            self.$opt(name)?.ok_or_else(|| err!(InvalidModel, "attribute '{name}' is missing"))
        }
    };
}

impl<'a> ParseCtx<'a> {
    /// A context for one node; for the importer and tests.
    pub fn new(
        builder: &'a mut GraphBuilder,
        name: &'a str,
        op_type: &'a str,
        version: u32,
        inputs: Vec<Option<ValueId>>,
        outputs: &'a [bool],
        attrs: Vec<(&'a str, Attr)>,
    ) -> Self {
        ParseCtx { name, op_type, version, inputs, outputs, attrs, graphs: Vec::new(), builder, made: 0 }
    }
    /// The attribute, if given.
    pub fn attr(&self, name: &str) -> Option<&Attr> {
        self.attrs.iter().find(|(n, _)| *n == name).map(|(_, a)| a)
    }
    getter!(
        /// An integer attribute.
        int_opt int Int i64
    );
    getter!(
        /// A float attribute.
        float_opt float Float f32
    );
    getter!(
        /// A tensor attribute.
        tensor_opt tensor Tensor Tensor
    );
    getter!(
        /// A list of integers.
        ints_opt ints Ints Vec<i64>
    );
    getter!(
        /// A list of floats.
        floats_opt floats Floats Vec<f32>
    );
    getter!(
        /// A type attribute.
        type_opt type_attr Type Fact
    );
    /// An integer attribute or its default.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.int_opt(name)?.unwrap_or(default))
    }
    /// An integer attribute as a flag.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.int_or(name, i64::from(default))? != 0)
    }
    /// A float attribute or its default.
    pub fn float_or(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.float_opt(name)?.unwrap_or(default))
    }
    /// A string attribute.
    pub fn string_opt(&self, name: &str) -> Result<Option<String>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::String(s)) => utf8(name, s).map(Some),
            Some(x) => bail!(InvalidModel, "attribute '{name}' must be a string, it is {x:?}"),
        }
    }
    /// A string attribute or its default.
    pub fn string_or(&self, name: &str, default: &str) -> Result<String> {
        Ok(self.string_opt(name)?.unwrap_or_else(|| default.to_string()))
    }
    /// A list of strings.
    pub fn strings_opt(&self, name: &str) -> Result<Option<Vec<String>>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Strings(s)) => s.iter().map(|s| utf8(name, s)).collect::<Result<_>>().map(Some),
            Some(x) => bail!(InvalidModel, "attribute '{name}' must be a list of strings, it is {x:?}"),
        }
    }
    /// A graph attribute. Its captures join the node's inputs here; the answer tells their places.
    pub fn subgraph(&mut self, name: &str) -> Result<(Arc<Graph>, Vec<usize>)> {
        let sub = match self.attr(name) {
            Some(Attr::Graph(g)) => g.clone(),
            Some(x) => bail!(InvalidModel, "attribute '{name}' must be a graph, it is {x:?}"),
            None => bail!(InvalidModel, "attribute '{name}' is missing"),
        };
        self.graphs.push(name.into());
        let places = sub.captures.iter().map(|&v| {
            self.inputs.push(Some(v));
            self.inputs.len() - 1
        });
        Ok((sub.graph, places.collect()))
    }
    /// What the file says of an output of a graph attribute.
    pub fn declared(&self, name: &str, output: usize) -> Option<&Fact> {
        match self.attr(name) {
            Some(Attr::Graph(g)) => g.declared.get(output),
            _ => None,
        }
    }
    /// Adds the nodes of a graph attribute before this one, its formal inputs fed by `inputs`. Returns its outputs.
    pub fn inline(&mut self, name: &str, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        let sub = match self.attr(name) {
            Some(Attr::Graph(g)) => g.clone(),
            _ => bail!(InvalidModel, "attribute '{name}' must be a graph"),
        };
        let formal = sub.graph.inputs();
        ensure!(
            sub.formal_inputs == inputs.len() && formal.len() == inputs.len() + sub.captures.len(),
            InvalidModel,
            "the graph '{name}' has {} inputs, it must have {}",
            sub.formal_inputs,
            inputs.len()
        );
        let mut here: Vec<Option<ValueId>> = vec![None; sub.graph.value_count()];
        for (v, from) in formal.iter().zip(inputs.iter().chain(&sub.captures)) {
            here[v.index()] = Some(*from);
        }
        let find = |cx: &mut Self, here: &mut Vec<Option<ValueId>>, v: ValueId| -> Result<ValueId> {
            if let Some(x) = here[v.index()] {
                return Ok(x);
            }
            let Some(t) = sub.graph.fact(v).constant() else {
                bail!(InvalidModel, "a value of the graph '{name}' is made by nothing")
            };
            let x = cx.constant(t.clone());
            here[v.index()] = Some(x);
            Ok(x)
        };
        for (_, node) in sub.graph.nodes() {
            let mut ins = Vec::with_capacity(node.inputs.len());
            for v in &node.inputs {
                ins.push(v.map(|v| find(self, &mut here, v)).transpose()?);
            }
            let names: Vec<String> = node.outputs.iter().map(|_| self.fresh_name()).collect();
            let names: Vec<Option<&str>> =
                names.iter().zip(&node.outputs).map(|(n, v)| v.map(|_| n.as_str())).collect();
            let made = self.builder.node(&format!("{}/{}", self.name, node.name), node.op.clone(), ins, &names)?;
            for (v, x) in node.outputs.iter().zip(made) {
                if let Some(v) = v {
                    here[v.index()] = x;
                }
            }
        }
        sub.graph.outputs().iter().map(|&v| find(self, &mut here, v)).collect()
    }
    /// Whether input `i` is given.
    pub fn has_input(&self, i: usize) -> bool {
        self.inputs.get(i).is_some_and(Option::is_some)
    }
    /// What is known of input `i`.
    pub fn input_fact(&self, i: usize) -> &Fact {
        self.inputs.get(i).copied().flatten().map_or(&Fact::Absent, |v| self.builder.graph().fact(v))
    }
    /// Fails unless between `min` and `max` inputs are given; trailing absent ones are cut off first.
    pub fn expect_inputs(&mut self, min: usize, max: usize) -> Result<()> {
        while self.inputs.len() > min && self.inputs.last() == Some(&None) {
            self.inputs.pop();
        }
        let n = self.inputs.len();
        ensure!(
            (min..=max).contains(&n),
            InvalidModel,
            "the operator takes {min} to {max} inputs, the model gives {n}"
        );
        if let Some(i) = self.inputs[..min].iter().position(Option::is_none) {
            bail!(InvalidModel, "input {i} is missing");
        }
        Ok(())
    }
    /// Puts a constant at input `i`, which must not be beyond the next free place by more than absent ones.
    pub fn set_constant_input(&mut self, i: usize, t: Tensor) {
        let name = self.fresh_name();
        let v = self.builder.constant(&name, t);
        while self.inputs.len() <= i {
            self.inputs.push(None);
        }
        self.inputs[i] = Some(v);
    }
    /// Adds a helper node before this one; returns its first output.
    pub fn emit(&mut self, op: Arc<dyn Op>, inputs: Vec<Option<ValueId>>) -> Result<ValueId> {
        let name = self.fresh_name();
        let out = self.builder.node(&name, op, inputs, &[Some(&name)])?;
        out.first().copied().flatten().ok_or_else(|| err!(Internal, "a helper node has no output"))
    }
    /// The same for a node of several outputs; `outputs` tells which of them are asked for.
    pub fn emit_outputs(
        &mut self,
        op: Arc<dyn Op>,
        inputs: Vec<Option<ValueId>>,
        outputs: &[bool],
    ) -> Result<Vec<Option<ValueId>>> {
        let name = self.fresh_name();
        let names: Vec<String> = (0..outputs.len()).map(|i| format!("{name}/{i}")).collect();
        let names: Vec<Option<&str>> = names.iter().zip(outputs).map(|(n, &on)| on.then_some(n.as_str())).collect();
        self.builder.node(&name, op, inputs, &names)
    }
    /// The graph so far, for what looks at more than its inputs.
    pub fn graph(&self) -> &Graph {
        self.builder.graph()
    }
    /// A constant for helper nodes.
    pub fn constant(&mut self, t: Tensor) -> ValueId {
        let name = self.fresh_name();
        self.builder.constant(&name, t)
    }
    fn fresh_name(&mut self) -> String {
        self.made += 1;
        format!("{}/{}", self.name, self.made)
    }
}

fn utf8(name: &str, s: &[u8]) -> Result<String> {
    String::from_utf8(s.to_vec()).map_err(|_| err!(InvalidModel, "attribute '{name}' is not UTF-8"))
}
