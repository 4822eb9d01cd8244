//! What a model is made of, read off the file: its operators, also those inside subgraphs and functions, and its weights.

use super::gap;
use super::graph::{function_key, functions, opsets};
use super::order::subgraphs;
use crate::ir::Registry;
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::tensor::DType;
use std::collections::{BTreeMap, HashSet};

/// An operator with the number of nodes that use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorUse {
    /// Domain, `ai.onnx` for the default one.
    pub domain: String,
    /// Name.
    pub op: String,
    /// The version of the operator set that the model imports; `None` if it imports none.
    pub version: Option<u32>,
    /// Nodes, as written: those of a function count once, however often it is called.
    pub nodes: usize,
    /// Whether it is a function that the model itself defines.
    pub function: bool,
    /// Whether it is known here, or a function.
    pub known: bool,
}

/// The operators that a model can reach, sorted by domain and name.
pub fn survey(model: &ModelProto, registry: &Registry) -> Vec<OperatorUse> {
    let functions = functions(model);
    let mut found: BTreeMap<(String, String, Option<u32>), (usize, bool)> = BTreeMap::new();
    let mut seen = HashSet::new();
    let main = opsets(&model.opset_import);
    let mut bodies: Vec<(&[NodeProto], _)> = model.graph.iter().map(|g| (&g.node[..], main.clone())).collect();
    while let Some((nodes, versions)) = bodies.pop() {
        let mut lists = vec![nodes];
        while let Some(nodes) = lists.pop() {
            for n in nodes {
                lists.extend(subgraphs(n).map(|g| &g.node[..]));
                let key = function_key(n);
                let call = functions.get(&key).copied();
                if let Some(f) = call.filter(|_| seen.insert(key)) {
                    let mut inner = opsets(&f.opset_import);
                    for (d, v) in &versions {
                        inner.entry(d.clone()).or_insert(*v);
                    }
                    bodies.push((&f.node, inner));
                }
                let domain = if n.domain() == "ai.onnx" { "" } else { n.domain() };
                let id = (domain.to_string(), n.op_type().to_string(), versions.get(domain).copied());
                let entry = found.entry(id).or_insert((0, call.is_some()));
                entry.0 += 1;
            }
        }
    }
    let with_use = |((domain, op, version), (nodes, function)): ((String, String, _), _)| {
        let known = function || gap::find(registry, &domain, &op, version).is_ok();
        let domain = if domain.is_empty() { "ai.onnx".into() } else { domain };
        OperatorUse { domain, op, version, nodes, function, known }
    };
    found.into_iter().map(with_use).collect()
}

/// Weights of one element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Element type.
    pub dtype: DType,
    /// Tensors.
    pub tensors: usize,
    /// Elements in all of them.
    pub elements: u64,
    /// Bytes in memory (the elements alone; 0 for strings).
    pub bytes: u64,
}

/// The initialisers of a model, also those inside subgraphs, by element type: most bytes first. What a damaged tensor
/// says of itself is taken as it stands; the importer judges it.
pub fn weights(model: &ModelProto) -> Vec<Weights> {
    let mut by_type: BTreeMap<DType, Weights> = BTreeMap::new();
    let mut graphs: Vec<&GraphProto> = model.graph.iter().collect();
    while let Some(g) = graphs.pop() {
        graphs.extend(g.node.iter().flat_map(subgraphs));
        let sparse = g.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
        for t in g.initializer.iter().chain(sparse) {
            let Ok(dtype) = DType::from_onnx(t.data_type()) else { continue };
            let n = elements(t);
            let w = by_type.entry(dtype).or_insert(Weights { dtype, tensors: 0, elements: 0, bytes: 0 });
            w.tensors += 1;
            w.elements = w.elements.saturating_add(n);
            w.bytes = w.bytes.saturating_add((n.saturating_mul(dtype.bits() as u64)).div_ceil(8));
        }
    }
    let mut all: Vec<_> = by_type.into_values().collect();
    all.sort_by_key(|w| std::cmp::Reverse(w.bytes));
    all
}

fn elements(t: &TensorProto) -> u64 {
    t.dims.iter().fold(1, |n: u64, &d| n.saturating_mul(u64::try_from(d).unwrap_or(0)))
}
