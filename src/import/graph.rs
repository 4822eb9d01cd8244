//! Graphs, nodes, functions.

use super::gap::{self, Gap, Reason};
use super::order::{free_names, topological};
use super::tensor::{dense_from_sparse, tensor_from_proto};
use super::types::fact_from_type;
use crate::error::{Context, ErrorKind, Result};
use crate::ir::build::GraphBuilder;
use crate::ir::parse::Attr;
use crate::ir::{Fact, Graph, ParseCtx, Registry, Said, Spelling, Subgraph, ValueId, verify};
use crate::proto::external::External;
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::proto::onnx::tensor_proto::DataLocation;
use crate::proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
};
use crate::tensor::Tensor;
use crate::{bail, ensure, err};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A model in the IR.
#[derive(Debug)]
pub struct Imported {
    /// The main graph.
    pub graph: Graph,
    /// Domain and version of each operator set the model imports.
    pub opsets: Vec<(String, u32)>,
    /// The defaults of the graph's last inputs: initialisers that the file also lists as inputs, where they are to be
    /// read as such.
    pub defaults: Vec<Tensor>,
    /// The main graph's initialisers, where the other reading needs them as well.
    decoded: HashMap<String, Tensor>,
}

/// Functions nested in each other deeper than this are taken for a cycle.
const MAX_CALLS: usize = 64;
/// Nodes after inlining.
const MAX_NODES: usize = 2_000_000;
/// Gaps that are noted.
const MAX_GAPS: usize = 10_000;

/// Builds the IR of a model. All that is not supported is named at once.
pub fn import_model(model: &ModelProto, registry: &Registry, external: &External) -> Result<Imported> {
    import_as(model, registry, external, None, false)
}

/// The same for a graph that is to be written as a model again: nodes keep the spelling they have, and initialisers that are
/// also inputs are inputs, unless the model cannot be read so.
pub fn import_to_keep(model: &ModelProto, registry: &Registry, external: &External) -> Result<Imported> {
    let first = import_as(model, registry, external, None, true)?;
    if overridable_inputs(model).is_empty() {
        return Ok(first);
    }
    import_as(model, registry, external, Some(&first.decoded), true).or(Ok(first))
}

/// The same with the initialisers that are also inputs as inputs, which follow the others; the constants that they are
/// in `first`, the other reading, are their defaults: both share their memory.
pub fn import_overridable(
    model: &ModelProto,
    registry: &Registry,
    external: &External,
    first: &Imported,
) -> Result<Imported> {
    import_as(model, registry, external, Some(&first.decoded), false)
}

fn import_as(
    model: &ModelProto,
    registry: &Registry,
    external: &External,
    overridable: Option<&HashMap<String, Tensor>>,
    spell: bool,
) -> Result<Imported> {
    let (imported, gaps) = import_all(model, registry, external, overridable, spell)?;
    if !gaps.is_empty() {
        return Err(gap::error(&gaps));
    }
    verify::verify(&imported.graph)?;
    Ok(imported)
}

/// Reads a model as far as it goes. Where there are gaps the graph has holes: it tells facts, but must not be run.
pub fn import_with_gaps(model: &ModelProto, registry: &Registry, external: &External) -> Result<(Imported, Vec<Gap>)> {
    import_all(model, registry, external, None, false)
}

fn import_all(
    model: &ModelProto,
    registry: &Registry,
    external: &External,
    overridable: Option<&HashMap<String, Tensor>>,
    spell: bool,
) -> Result<(Imported, Vec<Gap>)> {
    let Some(graph) = &model.graph else { bail!(InvalidModel, "the model has no graph") };
    let opsets = opsets(&model.opset_import);
    let functions = functions(model);
    let keep = overridable.is_none() && !overridable_inputs(model).is_empty();
    let mut im = Importer {
        registry,
        external,
        functions,
        gaps: Vec::new(),
        nodes: 0,
        overridable,
        keep,
        decoded: HashMap::new(),
        spell,
    };
    let scope = Scope { opsets: &opsets, attrs: None, prefix: String::new(), depth: 0 };
    let (graph, defaults) = im.graph(graph, &scope, None)?;
    Ok((Imported { graph, opsets: opset_list(model), defaults, decoded: im.decoded }, im.gaps))
}

/// The operator sets that a model imports, sorted.
pub fn opset_list(model: &ModelProto) -> Vec<(String, u32)> {
    let mut list: Vec<_> = opsets(&model.opset_import).into_iter().collect();
    list.sort();
    list
}

/// Inputs that have a default: initialisers that the file also lists as inputs.
pub fn initialised_inputs(g: &GraphProto) -> Vec<String> {
    let mut names: HashSet<&str> = g.initializer.iter().map(|t| t.name()).collect();
    names.extend(g.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).map(|t| t.name()));
    g.input.iter().map(|v| v.name()).filter(|n| names.contains(n)).map(str::to_string).collect()
}

/// Inputs whose default a caller may override: since version 4 of the format an initialiser that is listed as an input
/// is one. Before, all initialisers had to be listed, and are constants, as other runtimes have it.
pub fn overridable_inputs(model: &ModelProto) -> Vec<String> {
    let graph = model.graph.as_ref().filter(|_| model.ir_version() >= 4);
    graph.map(initialised_inputs).unwrap_or_default()
}

/// Domain, name, overload.
pub(super) type FunctionKey = (String, String, String);

/// The model's functions.
pub(super) fn functions(model: &ModelProto) -> HashMap<FunctionKey, &FunctionProto> {
    let key = |f: &FunctionProto| (standard(f.domain()).into(), f.name().into(), f.overload().into());
    model.functions.iter().map(|f| (key(f), f)).collect()
}

struct Importer<'a> {
    registry: &'a Registry,
    external: &'a External,
    functions: HashMap<FunctionKey, &'a FunctionProto>,
    gaps: Vec<Gap>,
    nodes: usize,
    /// Initialisers that are also inputs of the main graph are inputs; here are all of its initialisers.
    overridable: Option<&'a HashMap<String, Tensor>>,
    /// Whether the main graph's initialisers are kept in `decoded`.
    keep: bool,
    decoded: HashMap<String, Tensor>,
    /// Nodes keep the spelling they have in the model.
    spell: bool,
}

/// What nodes are read within: the file's graph, or a function's body.
struct Scope<'a> {
    opsets: &'a HashMap<String, u32>,
    /// In a function: the call's attributes.
    attrs: Option<&'a [AttributeProto]>,
    /// In a function: goes before the names of its nodes.
    prefix: String,
    depth: usize,
}

impl Scope<'_> {
    /// The attribute, or that of the call to which it refers.
    fn resolve<'a>(&'a self, a: &'a AttributeProto) -> Option<&'a AttributeProto> {
        if a.ref_attr_name().is_empty() {
            return Some(a);
        }
        self.attrs?.iter().find(|x| x.name() == a.ref_attr_name())
    }
}

type Names = HashMap<String, ValueId>;

/// What a subgraph may capture.
struct Outer<'a> {
    names: &'a Names,
    builder: &'a GraphBuilder,
    captures: &'a mut Vec<ValueId>,
}

/// The function that a node calls, if there is one of this key.
pub(super) fn function_key(n: &NodeProto) -> FunctionKey {
    (standard(n.domain()).to_string(), n.op_type().to_string(), n.overload().to_string())
}

/// The default domain has two names.
fn standard(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Makes inputs of these names absent, also those of nodes in subgraphs.
fn clear_inputs(nodes: &mut [NodeProto], absent: &[&str]) {
    for n in nodes {
        n.input.iter_mut().filter(|i| absent.contains(&i.as_str())).for_each(String::clear);
        for a in &mut n.attribute {
            for g in a.g.as_deref_mut().into_iter().chain(&mut a.graphs) {
                clear_inputs(&mut g.node, absent);
            }
        }
    }
}

/// Versions by domain; the default domain is empty.
pub(super) fn opsets(list: &[OperatorSetIdProto]) -> HashMap<String, u32> {
    list.iter().map(|o| (standard(o.domain()).to_string(), u32::try_from(o.version()).unwrap_or(0))).collect()
}

impl Importer<'_> {
    /// A graph and the defaults of its last inputs.
    fn graph(&mut self, g: &GraphProto, scope: &Scope<'_>, outer: Option<Outer<'_>>) -> Result<(Graph, Vec<Tensor>)> {
        let mut b = GraphBuilder::new(g.name());
        let mut names = Names::new();
        let mut constants = HashMap::new();
        let known = self.overridable.filter(|_| outer.is_none());
        for t in &g.initializer {
            let shared = known.and_then(|k| k.get(t.name()).cloned());
            constants.insert(t.name(), shared.map_or_else(|| tensor_from_proto(t, self.external), Ok)?);
        }
        for s in &g.sparse_initializer {
            let name = s.values.as_ref().map_or("", |v| v.name());
            constants.insert(name, dense_from_sparse(s, self.external).context(|| format!("sparse tensor '{name}'"))?);
        }
        if self.keep && outer.is_none() {
            self.decoded = constants.iter().map(|(name, t)| (name.to_string(), t.clone())).collect();
        }
        for v in g.input.iter().filter(|v| !constants.contains_key(v.name())) {
            let fact = fact_from_type(v.r#type.as_ref()).context(|| format!("input '{}'", v.name()))?;
            let id = b.input(v.name(), fact);
            ensure!(names.insert(v.name().into(), id).is_none(), InvalidModel, "two inputs are named '{}'", v.name());
        }
        let mut defaults = Vec::new();
        if known.is_some() {
            for v in &g.input {
                let Some(t) = constants.remove(v.name()) else { continue };
                let fact = fact_from_type(v.r#type.as_ref()).context(|| format!("input '{}'", v.name()))?;
                let fact = if fact.dtype() == Some(t.dtype()) { fact } else { Fact::any_tensor(t.dtype()) };
                names.insert(v.name().into(), b.input(v.name(), fact));
                defaults.push(t);
            }
        }
        if let Some(outer) = outer {
            for name in free_names(g) {
                let v = match outer.names.get(&name) {
                    Some(&v) => v,
                    // What a missing operator would have made; that one is reported.
                    None if !self.gaps.is_empty() => continue,
                    None => bail!(InvalidModel, "graph '{}' reads '{name}', which nothing before it makes", g.name()),
                };
                let fact = outer.builder.graph().fact(v);
                let id = match fact.constant() {
                    Some(t) => b.constant(&name, t.clone()),
                    None => {
                        outer.captures.push(v);
                        b.input(&name, fact.without_contents())
                    }
                };
                names.insert(name, id);
            }
        }
        for (name, t) in constants {
            names.insert(name.to_string(), b.constant(name, t));
        }
        self.nodes(&mut b, &mut names, &g.node, scope)?;
        let outputs = g.output.iter().map(|o| {
            names
                .get(o.name())
                .copied()
                .ok_or_else(|| err!(InvalidModel, "nothing makes output '{}' of graph '{}'", o.name(), g.name()))
        });
        Ok((b.finish(outputs.collect::<Result<_>>()?)?, defaults))
    }

    fn nodes(&mut self, b: &mut GraphBuilder, names: &mut Names, nodes: &[NodeProto], scope: &Scope<'_>) -> Result<()> {
        for i in topological(nodes)? {
            let n = &nodes[i];
            self.nodes += 1;
            ensure!(
                self.nodes <= MAX_NODES,
                InvalidModel,
                "the model has more than {MAX_NODES} nodes with its functions inlined"
            );
            let name = self.node_name(n, scope);
            self.node(b, names, n, &name, scope).context(|| format!("node '{name}' ({})", n.op_type()))?;
        }
        Ok(())
    }

    fn node_name(&self, n: &NodeProto, scope: &Scope<'_>) -> String {
        let own =
            if n.name().is_empty() { n.output.iter().find(|o| !o.is_empty()).map_or("", |o| o) } else { n.name() };
        format!("{}{own}", scope.prefix)
    }

    fn node(
        &mut self,
        b: &mut GraphBuilder,
        names: &mut Names,
        n: &NodeProto,
        name: &str,
        scope: &Scope<'_>,
    ) -> Result<()> {
        let mut inputs = Vec::with_capacity(n.input.len());
        for i in &n.input {
            inputs.push(match names.get(i) {
                Some(&v) => Some(v),
                None if i.is_empty() => None,
                None => bail!(InvalidModel, "nothing makes its input '{i}'"),
            });
        }
        let domain = standard(n.domain());
        if let Some(f) = self.functions.get(&function_key(n)).copied() {
            return self.call(b, names, n, f, inputs, name, scope);
        }
        let version = scope.opsets.get(domain).copied();
        let def = match gap::find(self.registry, domain, n.op_type(), version) {
            Ok(def) => def,
            Err(reason) => {
                self.gap(b, names, n, name, Some(reason));
                return Ok(());
            }
        };
        // A model may use a domain without importing it (com.microsoft, from careless exporters): take the newest.
        let version = version.unwrap_or_else(|| def.versions.last().copied().unwrap_or(1));
        let outputs: Vec<bool> = n.output.iter().map(|o| !o.is_empty()).collect();
        let gaps_before = self.gaps.len();
        let mut attrs = Vec::with_capacity(n.attribute.len());
        for a in &n.attribute {
            if let Some(source) = scope.resolve(a) {
                let value = self.attribute(b, names, source, scope).context(|| format!("attribute '{}'", a.name()))?;
                attrs.push((a.name(), value));
            }
        }
        // What fails after a gap (before the node, or in its own subgraphs) may fail because of it.
        let unknown = |v: &ValueId| matches!(b.graph().fact(*v), Fact::Unknown);
        let follows = self.gaps.len() > gaps_before || gaps_before > 0 && inputs.iter().flatten().any(unknown);
        let given = if self.spell { inputs.clone() } else { Vec::new() };
        let mut cx = ParseCtx::new(b, name, n.op_type(), version, inputs, &outputs, attrs);
        let op = (def.parse)(&mut cx);
        let (inputs, graphs) = (std::mem::take(&mut cx.inputs), std::mem::take(&mut cx.graphs));
        let spelling = self.spell.then(|| spelling(b, n, scope, version, &given, &inputs, graphs)).flatten();
        let out_names: Vec<Option<&str>> = n.output.iter().map(|o| (!o.is_empty()).then_some(o.as_str())).collect();
        match op.and_then(|op| b.node(name, op, inputs, &out_names)) {
            Ok(values) => {
                spelling.into_iter().for_each(|s| b.spell(s));
                for (o, v) in n.output.iter().zip(values) {
                    if let Some(v) = v {
                        names.insert(o.clone(), v);
                    }
                }
            }
            Err(e) if e.kind() == ErrorKind::OutOfMemory => return Err(e),
            Err(_) if follows => self.gap(b, names, n, name, None),
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                self.gap(b, names, n, name, Some(Reason::Refused(e.to_string())));
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Notes why a node cannot be read, and goes on with nothing known of its results.
    fn gap(&mut self, b: &mut GraphBuilder, names: &mut Names, n: &NodeProto, name: &str, reason: Option<Reason>) {
        if let Some(reason) = reason.filter(|_| self.gaps.len() < MAX_GAPS) {
            self.gaps.push(Gap { node: name.into(), op: n.op_type().into(), reason });
        }
        for o in n.output.iter().filter(|o| !o.is_empty()) {
            names.insert(o.clone(), b.hole(o));
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn call(
        &mut self,
        b: &mut GraphBuilder,
        names: &mut Names,
        n: &NodeProto,
        f: &FunctionProto,
        inputs: Vec<Option<ValueId>>,
        name: &str,
        scope: &Scope<'_>,
    ) -> Result<()> {
        ensure!(scope.depth < MAX_CALLS, InvalidModel, "functions call each other more than {MAX_CALLS} deep");
        ensure!(
            inputs.len() <= f.input.len(),
            InvalidModel,
            "the function takes {} inputs, the call gives {}",
            f.input.len(),
            inputs.len()
        );
        let mut inner = Names::new();
        for (formal, v) in f.input.iter().zip(inputs) {
            if let Some(v) = v {
                inner.insert(formal.clone(), v);
            }
        }
        // An input that the call leaves out reads as absent inside: an empty name.
        let absent: Vec<&str> = f.input.iter().filter(|i| !inner.contains_key(*i)).map(String::as_str).collect();
        let mut body = f.node.clone();
        if !absent.is_empty() {
            clear_inputs(&mut body, &absent);
        }
        // The call's attributes, resolved if they refer to those of a call around it; then the function's defaults.
        let mut attrs: Vec<AttributeProto> = Vec::new();
        for a in &n.attribute {
            if let Some(x) = scope.resolve(a) {
                attrs.push(AttributeProto { name: a.name.clone(), ..x.clone() });
            }
        }
        for d in &f.attribute_proto {
            if !attrs.iter().any(|a| a.name() == d.name()) {
                attrs.push(d.clone());
            }
        }
        let mut sets = opsets(&f.opset_import);
        for (d, v) in scope.opsets {
            sets.entry(d.clone()).or_insert(*v);
        }
        let inner_scope =
            Scope { opsets: &sets, attrs: Some(&attrs), prefix: format!("{name}/"), depth: scope.depth + 1 };
        self.nodes(b, &mut inner, &body, &inner_scope)?;
        for (formal, actual) in f.output.iter().zip(&n.output).filter(|(_, a)| !a.is_empty()) {
            match inner.get(formal) {
                Some(&v) => {
                    names.insert(actual.clone(), v);
                }
                None => bail!(InvalidModel, "function '{}' does not make its output '{formal}'", f.name()),
            }
        }
        Ok(())
    }

    fn attribute(&mut self, b: &GraphBuilder, names: &Names, a: &AttributeProto, scope: &Scope<'_>) -> Result<Attr> {
        use AttributeType as T;
        Ok(match type_of(a) {
            T::Float => Attr::Float(a.f()),
            T::Int => Attr::Int(a.i()),
            T::String => Attr::String(a.s().to_vec()),
            T::Floats => Attr::Floats(a.floats.clone()),
            T::Ints => Attr::Ints(a.ints.clone()),
            T::Strings => Attr::Strings(a.strings.iter().map(|s| s.to_vec()).collect()),
            T::Tensor => match &a.t {
                Some(t) => Attr::Tensor(tensor_from_proto(t, self.external)?),
                None => bail!(InvalidModel, "it says it is a tensor and has none"),
            },
            T::Tensors => {
                Attr::Tensors(a.tensors.iter().map(|t| tensor_from_proto(t, self.external)).collect::<Result<_>>()?)
            }
            T::SparseTensor => match &a.sparse_tensor {
                Some(t) => Attr::Tensor(dense_from_sparse(t, self.external)?),
                None => bail!(InvalidModel, "it says it is a sparse tensor and has none"),
            },
            T::SparseTensors => Attr::Tensors(
                a.sparse_tensors.iter().map(|t| dense_from_sparse(t, self.external)).collect::<Result<_>>()?,
            ),
            T::Graph => match &a.g {
                Some(g) => Attr::Graph(self.subgraph(b, names, g, scope)?),
                None => bail!(InvalidModel, "it says it is a graph and has none"),
            },
            T::Graphs => {
                Attr::Graphs(a.graphs.iter().map(|g| self.subgraph(b, names, g, scope)).collect::<Result<_>>()?)
            }
            T::TypeProto => Attr::Type(fact_from_type(a.tp.as_deref())?),
            T::TypeProtos => match a.type_protos.first() {
                Some(t) => Attr::Type(fact_from_type(Some(t))?),
                None => Attr::Type(Fact::Unknown),
            },
            T::Undefined => bail!(InvalidModel, "it has no value"),
        })
    }

    fn subgraph(&mut self, b: &GraphBuilder, names: &Names, g: &GraphProto, scope: &Scope<'_>) -> Result<Subgraph> {
        let mut captures = Vec::new();
        let outer = Outer { names, builder: b, captures: &mut captures };
        let (graph, _) = self.graph(g, scope, Some(outer))?;
        let formal_inputs = graph.inputs().len() - captures.len();
        let declared = g.output.iter().map(|v| fact_from_type(v.r#type.as_ref()).unwrap_or(Fact::Unknown)).collect();
        Ok(Subgraph { formal_inputs, graph: Arc::new(graph), captures, declared })
    }
}

/// How the model says a node whose canonical operator has `inputs`: none where what it was given is not to be found among
/// them (part of it went into helper nodes), or where a graph of it did not become one of the operator's.
fn spelling(
    b: &GraphBuilder,
    n: &NodeProto,
    scope: &Scope<'_>,
    version: u32,
    given: &[Option<ValueId>],
    inputs: &[Option<ValueId>],
    graphs: Vec<String>,
) -> Option<Spelling> {
    let find = |(i, v): (usize, &Option<ValueId>)| {
        let Some(value) = v else { return Some(Said::Nothing) };
        let place = if inputs.get(i) == Some(v) { Some(i) } else { inputs.iter().position(|x| x == v) };
        place.map(Said::Input).or_else(|| b.graph().fact(*value).constant().cloned().map(Said::Constant))
    };
    let mut attributes = Vec::with_capacity(n.attribute.len());
    for a in &n.attribute {
        let Some(source) = scope.resolve(a) else { continue };
        let is_outside = |t: &TensorProto| t.data_location() == DataLocation::External;
        if source.t.iter().map(|t| &**t).chain(&source.tensors).any(is_outside) {
            return None;
        }
        match type_of(source) {
            AttributeType::Graphs => return None,
            AttributeType::Graph if graphs.iter().any(|g| g == a.name()) => {}
            AttributeType::Graph => return None,
            t => attributes.push(AttributeProto { name: a.name.clone(), r#type: Some(t as i32), ..source.clone() }),
        }
    }
    Some(Spelling {
        domain: standard(n.domain()).into(),
        name: n.op_type().into(),
        version,
        attributes,
        graphs,
        inputs: Some(given.iter().enumerate().map(find).collect::<Option<_>>()?),
    })
}

/// An attribute's type, which files of IR version 1 do not say.
fn type_of(a: &AttributeProto) -> AttributeType {
    use AttributeType as T;
    if a.r#type() != T::Undefined {
        a.r#type()
    } else if a.f.is_some() {
        T::Float
    } else if a.i.is_some() {
        T::Int
    } else if a.s.is_some() {
        T::String
    } else if a.t.is_some() {
        T::Tensor
    } else if a.g.is_some() {
        T::Graph
    } else if !a.floats.is_empty() {
        T::Floats
    } else if !a.strings.is_empty() {
        T::Strings
    } else {
        T::Ints
    }
}
