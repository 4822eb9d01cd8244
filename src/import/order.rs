//! Puts a graph's nodes in an order in which each comes after those it needs, and finds what subgraphs capture.

use crate::bail;
use crate::error::Result;
use crate::proto::onnx::{GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};

/// Indices of the nodes, each after those it needs. Files should be in order already; those that are not still load.
/// A cycle is an error that names a node on it.
pub fn topological(nodes: &[NodeProto]) -> Result<Vec<usize>> {
    let mut maker: HashMap<&str, usize> = HashMap::new();
    for (i, n) in nodes.iter().enumerate() {
        for o in n.output.iter().filter(|o| !o.is_empty()) {
            if maker.insert(o, i).is_some() {
                bail!(InvalidModel, "two nodes make '{o}', the second is node '{}' ({})", n.name(), n.op_type());
            }
        }
    }
    // Depth first without recursion: hostile graphs are deep.
    let needs: Vec<Vec<usize>> = nodes
        .iter()
        .enumerate()
        .map(|(i, n)| {
            let mut v: Vec<usize> = n.input.iter().filter_map(|x| maker.get(x.as_str()).copied()).collect();
            for g in subgraphs(n) {
                v.extend(free_names(g).iter().filter_map(|f| maker.get(f.as_str()).copied()));
            }
            // Gradient names what it differentiates in attributes.
            if n.op_type() == "Gradient" && n.domain() == "ai.onnx.preview.training" {
                let names = n.attribute.iter().flat_map(|a| a.strings.iter().chain(&a.s)).map(|s| &s[..]);
                let maker = |s: &[u8]| std::str::from_utf8(s).ok().and_then(|s| maker.get(s).copied());
                v.extend(names.filter_map(maker).filter(|&j| j != i));
            }
            v
        })
        .collect();
    let (mut state, mut order, mut stack) = (vec![0u8; nodes.len()], Vec::with_capacity(nodes.len()), Vec::new());
    for root in 0..nodes.len() {
        if state[root] == 0 {
            state[root] = 1;
            stack.push((root, 0));
        }
        while let Some((i, next)) = stack.pop() {
            match needs[i].get(next) {
                None => {
                    state[i] = 2;
                    order.push(i);
                }
                Some(&j) => {
                    stack.push((i, next + 1));
                    match state[j] {
                        0 => {
                            state[j] = 1;
                            stack.push((j, 0));
                        }
                        1 => bail!(
                            InvalidModel,
                            "the graph has a cycle through node '{}' ({})",
                            nodes[j].name(),
                            nodes[j].op_type()
                        ),
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(order)
}

/// The graphs in a node's attributes.
pub fn subgraphs(n: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    n.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs))
}

/// Names that a graph reads but does not make, in order of first use. Nesting is bounded by the reader.
pub fn free_names(g: &GraphProto) -> Vec<String> {
    let mut made: HashSet<&str> = g.input.iter().map(|v| v.name()).collect();
    made.extend(g.initializer.iter().map(|t| t.name()));
    made.extend(g.sparse_initializer.iter().filter_map(|t| t.values.as_ref()).map(|t| t.name()));
    made.extend(g.node.iter().flat_map(|n| n.output.iter().map(String::as_str)));
    let mut seen = HashSet::new();
    let mut free = Vec::new();
    let mut note = |name: &str| {
        if !name.is_empty() && !made.contains(name) && seen.insert(name.to_string()) {
            free.push(name.to_string());
        }
    };
    for n in &g.node {
        n.input.iter().for_each(|i| note(i));
        for sub in subgraphs(n) {
            free_names(sub).iter().for_each(|f| note(f));
        }
    }
    g.output.iter().for_each(|o| note(o.name()));
    free
}
