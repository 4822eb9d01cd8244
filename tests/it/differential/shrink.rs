//! Makes a failing graph smaller: fewer outputs, and values given where nodes made them.

use super::compare::{Failure, Subject, Way, check, run, session};
use super::generator::{SETS, texts};
use crate::tiny::Tiny;
use ortx::Tensor;
use ortx::ops::case::random;
use ortx::proto::onnx::{GraphProto, ValueInfoProto};
use std::collections::BTreeSet;

/// The smallest graph found that fails in the same manner, and how it does.
pub fn smallest(mut s: Subject, mut failure: Failure) -> (Subject, Failure) {
    let mut accept = |s: &mut Subject, next: Option<Subject>| -> bool {
        let Some(next) = next else { return false };
        match check(&next, &[]) {
            Err(f) if f.kind == failure.kind => {
                failure = f;
                *s = next;
                true
            }
            _ => false,
        }
    };
    loop {
        let mut changed = false;
        let outputs = graph(&s).output.len();
        if outputs > 1 {
            changed = (0..outputs).any(|i| {
                let next = with_outputs(&s, |all| vec![all[i].clone()]);
                accept(&mut s, Some(next))
            });
            if !changed {
                changed = (0..outputs).any(|i| {
                    let next = with_outputs(&s, |all| [&all[..i], &all[i + 1..]].concat());
                    accept(&mut s, Some(next))
                });
            }
        }
        // What a node makes, given instead: from the last but the outputs' own, since that removes most.
        let mut i = graph(&s).node.len();
        while i > 0 {
            i -= 1;
            let next = given(&s, i);
            if accept(&mut s, next) {
                changed = true;
                i = i.min(graph(&s).node.len());
            }
        }
        let mut i = 0;
        while let Some(next) = given_inside(&s, &mut i) {
            changed |= accept(&mut s, next);
        }
        if !changed {
            return (s, failure);
        }
    }
}

fn graph(s: &Subject) -> &GraphProto {
    s.model.graph.as_ref().expect("every model of the generator has one")
}

fn with_outputs(s: &Subject, f: impl Fn(&[ValueInfoProto]) -> Vec<ValueInfoProto>) -> Subject {
    let mut next = s.clone();
    if let Some(g) = &mut next.model.graph {
        g.output = f(&g.output);
    }
    pruned(next)
}

/// Without the nodes, constants and inputs that nobody needs.
fn pruned(mut s: Subject) -> Subject {
    let Some(g) = &mut s.model.graph else { return s };
    let mut needed: BTreeSet<String> = g.output.iter().map(|o| o.name().to_string()).collect();
    let mut kept = Vec::new();
    for n in g.node.drain(..).rev() {
        if n.output.iter().any(|o| needed.contains(o)) {
            needed.extend(n.input.iter().cloned());
            n.attribute.iter().filter_map(|a| a.g.as_ref()).for_each(|g| captured(g, &mut needed));
            kept.push(n);
        }
    }
    kept.reverse();
    g.node = kept;
    g.initializer.retain(|t| needed.contains(t.name()));
    g.input.retain(|i| needed.contains(i.name()));
    s.feeds.retain(|f| needed.contains(&f.0));
    s
}

/// All names that an inner graph reads: its own are none of the outer's, since no name is used twice.
fn captured(g: &GraphProto, needed: &mut BTreeSet<String>) {
    needed.extend(g.output.iter().map(|o| o.name().to_string()));
    for n in &g.node {
        needed.extend(n.input.iter().cloned());
        n.attribute.iter().filter_map(|a| a.g.as_ref()).for_each(|g| captured(g, needed));
    }
}

/// Values as inputs of the model.
fn fed(s: &mut Subject, name: &str, data: [Tensor; SETS]) {
    let symbol = |d: usize| {
        let all: [usize; SETS] = std::array::from_fn(|k| data[k].shape()[d]);
        if all.iter().all(|&n| n == all[0]) { all[0].to_string() } else { format!("m{}_{}_{}", all[0], all[1], all[2]) }
    };
    let dims: Vec<String> = (0..data[0].shape().len()).map(symbol).collect();
    let input = Tiny::default().input(name, data[0].dtype() as i32, &texts(&dims)).0.input;
    if let Some(g) = &mut s.model.graph {
        g.input.extend(input);
    }
    s.feeds.push((name.into(), data));
}

/// Without a node: what the plain graph makes of it is given.
fn given(s: &Subject, at: usize) -> Option<Subject> {
    let g = graph(s);
    let node = g.node.get(at)?;
    let names: Vec<String> = node.output.iter().filter(|o| !o.is_empty()).cloned().collect();
    if names.iter().any(|n| g.output.iter().any(|o| o.name() == n)) || node.op_type() == "Constant" {
        return None;
    }
    let probe = with_outputs(s, |_| names.iter().flat_map(|n| Tiny::default().output(n).0.output).collect());
    let mut made: Vec<Vec<Tensor>> = vec![Vec::new(); names.len()];
    for k in 0..SETS {
        let plain = session(probe.bytes(Some(k)), Way::PLAIN).ok()?;
        for (list, t) in made.iter_mut().zip(run(&plain, &probe.inputs(k), None).ok()?) {
            list.push(t);
        }
    }
    let mut next = s.clone();
    next.model.graph.as_mut()?.node.remove(at);
    for (name, list) in names.iter().zip(made) {
        fed(&mut next, name, list.try_into().ok()?);
    }
    Some(pruned(next))
}

/// The same for a node of an inner graph, the i-th of all: it reads an input of the model, of values that may be there. `None` when
/// there are no more; `Some(None)` where it cannot be.
fn given_inside(s: &Subject, i: &mut usize) -> Option<Option<Subject>> {
    let mut next = s.clone();
    let mut left = *i;
    let outputs = graph(s).node.len();
    let mut taken = None;
    for n in 0..outputs {
        let node = &mut next.model.graph.as_mut()?.node[n];
        for g in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
            if taken.is_none() {
                taken = take(g, &mut left);
            }
        }
    }
    *i += 1;
    let names = taken?;
    let mut all = Vec::new();
    for name in &names {
        let Some(v) = s.known.get(name).filter(|v| v.low.is_finite() && v.high.is_finite() && !v.loose) else {
            return Some(None);
        };
        let data = (0..SETS).map(|k| {
            let shape: Vec<usize> = v.dims.iter().map(|d| d[k]).collect();
            random(v.dtype, &shape, v.low, v.high, *i as u64 * 7 + k as u64).ok()
        });
        let Some(data) = data.collect::<Option<Vec<Tensor>>>().and_then(|d| d.try_into().ok()) else {
            return Some(None);
        };
        all.push((name, data));
    }
    for (name, data) in all {
        fed(&mut next, name, data);
    }
    Some(Some(pruned(next)))
}

/// Removes a node of the graph or those in it, the `left`-th: what it made.
fn take(g: &mut GraphProto, left: &mut usize) -> Option<Vec<String>> {
    let outputs: Vec<String> = g.output.iter().map(|o| o.name().to_string()).collect();
    for n in 0..g.node.len() {
        let node = &g.node[n];
        let fits = node.op_type() != "Constant" && !node.output.iter().any(|o| outputs.contains(o));
        if fits {
            if *left == 0 {
                return Some(g.node.remove(n).output);
            }
            *left -= 1;
        }
        for inner in g.node[n].attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
            if let Some(found) = take(inner, left) {
                return Some(found);
            }
        }
    }
    None
}
