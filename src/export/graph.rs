//! Graphs as messages.

use super::types;
use crate::error::{Context, Result};
use crate::ir::{Graph, Node, Registry, Said, Spelling, ValueId};
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use crate::tensor::{DType, Dims, Tensor};
use crate::{bail, err};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A model as messages.
#[derive(Debug)]
pub struct Exported {
    /// Everything but the initialisers; what [`externalise`](super::externalise) took out of the weights stands here.
    pub model: ModelProto,
    /// The initialisers, whose bytes are written from where they lie.
    pub weights: Vec<(String, Tensor)>,
}

/// The default operator set of a model that imports none, should it need one now.
const DEFAULT_VERSION: u32 = 13;
/// The oldest file format in which constants need not be inputs.
const IR_VERSION: i64 = 4;

/// The version of ONNX's own operators that a model imports.
pub fn default_version(opsets: &[(String, u32)]) -> u32 {
    opsets.iter().find(|o| o.0.is_empty()).map_or(DEFAULT_VERSION, |o| o.1)
}

/// The messages of a graph that was read from the model `like`, and changed since; its last inputs have `defaults`.
///
/// # Errors
/// `Unsupported` with all nodes that ONNX has no one operator for.
pub fn export(
    graph: &Graph,
    defaults: &[Tensor],
    opsets: &[(String, u32)],
    like: &ModelProto,
    registry: &Registry,
) -> Result<Exported> {
    let Some(old) = &like.graph else { bail!(Internal, "a graph from a model without one") };
    let mut w = Writer {
        registry,
        version: default_version(opsets),
        opsets: opsets.iter().cloned().collect(),
        taken: old.output.iter().map(|o| o.name().to_string()).collect(),
        shared: HashMap::new(),
        weights: Vec::new(),
        unsaid: Vec::new(),
    };
    let mut names: Names = vec![None; graph.value_count()];
    for &v in graph.inputs() {
        let name = graph.value(v).name.to_string();
        w.taken.insert(name.clone());
        names[v.index()] = Some(name);
    }
    let first = graph.inputs().len() - defaults.len().min(graph.inputs().len());
    for (&v, t) in graph.inputs()[first..].iter().zip(defaults) {
        w.weights.push((graph.value(v).name.to_string(), t.clone()));
    }
    let is_input = |p: &&ValueInfoProto| graph.inputs().iter().any(|&v| *graph.value(v).name == *p.name());
    let input = old.input.iter().filter(is_input).cloned().collect();
    let outputs: Vec<String> = old.output.iter().map(|o| o.name().to_string()).collect();
    let node = w.body(graph, names, &outputs)?;
    if !w.unsaid.is_empty() {
        bail!(Unsupported, "ONNX {} has no one operator for: {}", w.version, w.unsaid.join(", "));
    }
    let opset = |(domain, version): (String, u32)| OperatorSetIdProto {
        domain: Some(domain),
        version: Some(i64::from(version)),
        ..OperatorSetIdProto::default()
    };
    let new = GraphProto {
        node,
        name: Some(if old.name().is_empty() { "graph".into() } else { old.name().into() }),
        doc_string: old.doc_string.clone(),
        input,
        output: old.output.clone(),
        metadata_props: old.metadata_props.clone(),
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(like.ir_version().max(IR_VERSION)),
        producer_name: like.producer_name.clone(),
        producer_version: like.producer_version.clone(),
        domain: like.domain.clone(),
        model_version: like.model_version,
        doc_string: like.doc_string.clone(),
        graph: Some(new),
        opset_import: w.opsets.into_iter().map(opset).collect(),
        metadata_props: like.metadata_props.clone(),
        ..ModelProto::default()
    };
    Ok(Exported { model, weights: w.weights })
}

/// By value: its name in the file, once it has one.
type Names = Vec<Option<String>>;

struct Writer<'a> {
    registry: &'a Registry,
    /// Of ONNX's own operators.
    version: u32,
    opsets: BTreeMap<String, u32>,
    /// Names that are given, in any graph of the model.
    taken: HashSet<String>,
    /// Constants by storage: those of inner graphs are mostly the outer graph's.
    shared: HashMap<(usize, DType, Dims), String>,
    weights: Vec<(String, Tensor)>,
    /// Nodes that cannot be said.
    unsaid: Vec<String>,
}

impl Writer<'_> {
    /// A name that nothing has yet, `wish` if that is free.
    fn fresh(&mut self, wish: &str) -> String {
        let base = if wish.is_empty() { "value" } else { wish };
        let mut name = base.to_string();
        let mut n = 0;
        while !self.taken.insert(name.clone()) {
            n += 1;
            name = format!("{base}_{n}");
        }
        name
    }

    /// The name of a constant, which is an initialiser of the main graph wherever it is used.
    fn constant(&mut self, wish: &str, t: &Tensor) -> String {
        let key = (t.identity(), t.dtype(), Dims::from(t.shape()));
        let has_place = t.dtype() != DType::String && !t.is_empty();
        if let Some(name) = self.shared.get(&key).filter(|_| has_place) {
            return name.clone();
        }
        let name = self.fresh(wish);
        self.weights.push((name.clone(), t.clone()));
        if has_place {
            self.shared.insert(key, name.clone());
        }
        name
    }

    /// The name of a value that is made already, or constant.
    fn name(&mut self, g: &Graph, names: &mut Names, v: ValueId) -> Result<String> {
        if let Some(name) = &names[v.index()] {
            return Ok(name.clone());
        }
        let value = g.value(v);
        let Some(t) = value.fact.constant() else { bail!(Internal, "value '{}' is made by nothing", value.name) };
        let name = self.constant(&value.name, t);
        names[v.index()] = Some(name.clone());
        Ok(name)
    }

    /// The nodes of a graph whose inputs have names; its outputs get those given, by an Identity where they are not made
    /// by a node of their own.
    fn body(&mut self, g: &Graph, mut names: Names, outputs: &[String]) -> Result<Vec<NodeProto>> {
        let mut copies = Vec::new();
        for (&v, name) in g.outputs().iter().zip(outputs) {
            match &mut names[v.index()] {
                free @ None if g.value(v).producer.is_some() => *free = Some(name.clone()),
                _ => copies.push((v, name)),
            }
        }
        let mut nodes = Vec::with_capacity(g.order().len());
        for (_, node) in g.nodes() {
            let said = self.node(g, &mut names, node).context(|| node.describe())?;
            nodes.extend(said);
        }
        for (v, name) in copies {
            let Some(s) = Spelling::since(1, self.version, "Identity").filter(|s| self.agrees(s)) else {
                bail!(Unsupported, "ONNX {} has no Identity", self.version)
            };
            nodes.push(NodeProto {
                input: vec![self.name(g, &mut names, v)?],
                output: vec![name.clone()],
                op_type: Some(s.name),
                ..NodeProto::default()
            });
        }
        Ok(nodes)
    }

    /// Whether the spelling means the same in the operator sets of the file; one that it does not import is added.
    fn agrees(&mut self, s: &Spelling) -> bool {
        let ours = *self.opsets.entry(s.domain.clone()).or_insert(s.version);
        let (low, high) = (ours.min(s.version), ours.max(s.version));
        let changed = |v: &u32| low < *v && *v <= high;
        low == high || self.registry.find(&s.domain, &s.name).is_some_and(|d| !d.versions.iter().any(changed))
    }

    fn node(&mut self, g: &Graph, names: &mut Names, node: &Node) -> Result<Option<NodeProto>> {
        let inner = node.op.subgraphs();
        let spelling = node.spelled(self.version).filter(|s| s.graphs.len() == inner.len() && self.agrees(s));
        let mut output = Vec::with_capacity(node.outputs.len());
        for v in &node.outputs {
            output.push(match v {
                None => String::new(),
                Some(v) => match &names[v.index()] {
                    Some(name) => name.clone(),
                    None => {
                        let name = self.fresh(&g.value(*v).name);
                        names[v.index()].insert(name).clone()
                    }
                },
            });
        }
        while output.last().is_some_and(String::is_empty) {
            output.pop();
        }
        let Some(s) = spelling else {
            self.unsaid.push(node.describe());
            return Ok(None);
        };
        let mut input = Vec::with_capacity(node.inputs.len());
        let all: Vec<Said> = (0..node.inputs.len()).map(Said::Input).collect();
        for said in s.inputs.as_ref().unwrap_or(&all) {
            input.push(match said {
                Said::Nothing => String::new(),
                Said::Constant(t) => self.constant(&node.name, t),
                Said::Input(i) => match node.inputs.get(*i).copied().flatten() {
                    Some(v) => self.name(g, names, v)?,
                    None => String::new(),
                },
            });
        }
        while input.last().is_some_and(String::is_empty) {
            input.pop();
        }
        let mut attribute = s.attributes.clone();
        for (k, (inside, name)) in inner.into_iter().zip(&s.graphs).enumerate() {
            let inside = self.inner(g, names, node, k, inside).context(|| format!("graph '{name}'"))?;
            attribute.push(AttributeProto {
                name: Some(name.clone()),
                r#type: Some(AttributeType::Graph as i32),
                g: Some(Box::new(inside)),
                ..AttributeProto::default()
            });
        }
        Ok(Some(NodeProto {
            input,
            output,
            name: Some(node.name.to_string()),
            op_type: Some(s.name.clone()),
            domain: Some(s.domain.clone()).filter(|d| !d.is_empty()),
            attribute,
            ..NodeProto::default()
        }))
    }

    /// The `k`th graph inside a node: what feeds its last inputs it names as its outer graph does.
    fn inner(&mut self, g: &Graph, names: &mut Names, node: &Node, k: usize, inside: &Graph) -> Result<GraphProto> {
        let captures = node.op.captures(k);
        let formal = inside.inputs().len().checked_sub(captures.len());
        let formal = formal.ok_or_else(|| err!(Internal, "a graph with more captures than inputs"))?;
        let mut own: Names = vec![None; inside.value_count()];
        let mut input = Vec::with_capacity(formal);
        for &v in &inside.inputs()[..formal] {
            let value = inside.value(v);
            let name = self.fresh(&value.name);
            input.push(info(&name, types::type_of(&value.fact)));
            own[v.index()] = Some(name);
        }
        for (&v, &place) in inside.inputs()[formal..].iter().zip(captures) {
            let Some(outer) = node.inputs.get(place).copied().flatten() else {
                bail!(Internal, "a captured value is not there")
            };
            own[v.index()] = Some(self.name(g, names, outer)?);
        }
        let outputs: Vec<String> = inside.outputs().iter().map(|&v| self.fresh(&inside.value(v).name)).collect();
        let types = inside.outputs().iter().map(|&v| types::type_of(inside.fact(v)));
        let output = outputs.iter().zip(types).map(|(n, t)| info(n, t)).collect();
        let node = self.body(inside, own, &outputs)?;
        Ok(GraphProto { node, name: Some(format!("graph_{k}")), input, output, ..GraphProto::default() })
    }
}

fn info(name: &str, r#type: Option<crate::proto::onnx::TypeProto>) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), r#type, ..ValueInfoProto::default() }
}
