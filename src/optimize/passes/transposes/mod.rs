//! Fewer transpositions: between two of them stands much that could as well work on the axes in the other order. Which
//! operators do is chosen by a least cut: each value whose maker and readers differ costs its bytes once.

mod cut;
mod ones;
mod places;
mod turned;

use crate::err;
use crate::error::Result;
use crate::ir::{Dim, Fact, NodeId, Op, ValueId};
use crate::ops::movement::Transpose;
use crate::optimize::{Pass, PassCtx};
use cut::{NEVER, Network};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use turned::{Turned, turned};

/// See the file's head. One order of axes (and its inverse) a round: the one that saves most.
pub struct Transposes;

/// Orders of axes that are looked at in one round.
const MOST_ORDERS: usize = 8;
/// Nodes of a graph for which a cut is sought: its time may grow with more than their number.
const MOST_NODES: usize = 50_000;

impl Pass for Transposes {
    fn name(&self) -> &'static str {
        "transposes"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        places::rows_of_places(cx)?;
        ones::before(cx)?;
        let mut seen: HashSet<Vec<usize>> = HashSet::new();
        let mut best: Option<Plan> = None;
        for id in cx.order().into_iter().filter(|_| cx.graph().order().len() <= MOST_NODES) {
            let Some(perm) = order_of(cx, id) else { continue };
            let inverse = inverse(&perm);
            if seen.len() == MOST_ORDERS || !seen.insert(perm.clone().min(inverse.clone())) {
                continue;
            }
            // The other axes' order is what the operators that are turned get; both ways are tried.
            for perm in [perm.clone(), inverse].into_iter().take(if is_own_inverse(&perm) { 1 } else { 2 }) {
                let plan = plan(cx, &perm);
                if plan.saved > best.as_ref().map_or(0, |b| b.saved) {
                    best = Some(plan);
                }
            }
        }
        match best {
            Some(plan) => turn(cx, plan),
            None => {
                tell(cx);
                Ok(())
            }
        }
    }
}

/// Why transpositions stay: what beside them needs its axes where they are.
fn tell(cx: &mut PassCtx<'_, '_>) {
    for id in cx.order() {
        let Some(perm) = order_of(cx, id) else { continue };
        let node = cx.graph().node(id);
        let (Some(&Some(x)), Some(&Some(y))) = (node.inputs.first(), node.outputs.first()) else { continue };
        let back = inverse(&perm);
        let fixed = |n: &NodeId, back: &[usize]| order_of(cx, *n).is_none() && turned(cx, *n, back).is_none();
        let reader = cx.edit.users(y).iter().copied().find(|n| fixed(n, &back));
        let maker = cx.graph().value(x).producer.map(|p| p.0).filter(|n| fixed(n, &perm));
        let blocker = reader.or(maker).map(|n| cx.graph().node(n).describe());
        cx.miss(id, || match blocker {
            Some(b) => format!("{b} needs its axes where they are"),
            None => "it would only move elsewhere".into(),
        });
    }
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
    inverse
}

fn is_own_inverse(perm: &[usize]) -> bool {
    perm.iter().enumerate().all(|(i, &p)| perm[p] == i)
}

/// The order of a transposition that is not the identity, up to the last axis that it moves: one order for values of any rank.
fn order_of(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<Vec<usize>> {
    let t = cx.op::<Transpose>(id)?;
    let rank = cx.dims(cx.node(id)?.inputs.first().copied()??)?.len();
    let mut perm = t.perm.clone().unwrap_or_else(|| (0..rank).rev().collect());
    let last = perm.iter().enumerate().rposition(|(i, &p)| i != p).filter(|_| perm.len() == rank)?;
    perm.truncate(last + 1);
    Some(perm)
}

/// An order for values of a rank: the axes behind it stay.
fn of_rank(order: &[usize], rank: usize) -> Option<Vec<usize>> {
    (order.len() <= rank).then(|| order.iter().copied().chain(order.len()..rank).collect())
}

/// What a node is, seen with one order of axes.
enum Kind {
    /// Takes and makes values as they are.
    Fixed,
    /// Could be turned.
    Free(Turned),
    /// From the usual order to the other: what it makes is there in the usual order already, as its input.
    Enters,
    /// Back to the usual order: what it reads is wanted in that order.
    Leaves,
}

/// Which nodes work on values in the usual order, where the graph has `perm` of it.
struct Plan {
    /// `Transpose { perm }` makes a value as the graph has it of the turned one.
    perm: Vec<usize>,
    turned: Vec<(NodeId, Option<Turned>)>,
    /// In bytes.
    saved: u64,
}

/// A guess where a size is open: what of two values is larger is what counts.
const OPEN: i64 = 32;

fn bytes(cx: &PassCtx<'_, '_>, v: ValueId) -> u64 {
    let sizes = cx.dims(v).into_iter().flatten().map(|d| d.known().unwrap_or(OPEN).max(1) as u64);
    let count = sizes.fold(1u64, u64::saturating_mul);
    let size = cx.dtype(v).and_then(|d| d.size()).unwrap_or(4) as u64;
    count.saturating_mul(size).clamp(1, NEVER / (1 << 20))
}

/// What each node is for the order `perm`. A value in the usual order is turned by the inverse.
fn kinds(cx: &PassCtx<'_, '_>, perm: &[usize], order: &[NodeId]) -> HashMap<NodeId, Kind> {
    let back = inverse(perm);
    let own = is_own_inverse(perm);
    // Values on the other side of an order that is its own inverse, as far as is known.
    let mut inside: HashSet<ValueId> = HashSet::new();
    let mut kinds = HashMap::new();
    for &id in order {
        let Some(node) = cx.node(id) else { continue };
        let at = |i: usize| node.inputs.get(i).copied().flatten();
        let kind = match order_of(cx, id) {
            Some(p) if own && p == perm && at(0).is_some_and(|x| inside.contains(&x)) => Kind::Leaves,
            Some(p) if p == perm => Kind::Enters,
            Some(p) if p == back => Kind::Leaves,
            _ => turned(cx, id, &back).map_or(Kind::Fixed, Kind::Free),
        };
        let is_inside = match &kind {
            Kind::Enters => true,
            Kind::Free(t) => t.outputs && t.data.iter().any(|&i| at(i).is_some_and(|v| inside.contains(&v))),
            _ => false,
        };
        if is_inside {
            inside.extend(node.outputs.iter().flatten());
        }
        kinds.insert(id, kind);
    }
    kinds
}

fn plan(cx: &PassCtx<'_, '_>, perm: &[usize]) -> Plan {
    let order = cx.order();
    let mut kinds = kinds(cx, perm, &order);
    let mut net = Network::default();
    let (other, same) = (net.place(), net.place());
    let mut places: HashMap<NodeId, usize> = HashMap::new();
    for id in order.iter().filter(|id| matches!(kinds.get(id), Some(Kind::Free(_)))) {
        places.insert(*id, net.place());
    }
    let mut before = 0u64;
    // For each value who makes it and who reads it, each on a side: turned, as it is, or a place that is to be chosen.
    let reads = |user: NodeId, v: ValueId| match kinds.get(&user) {
        Some(Kind::Free(t)) => {
            let node = cx.node(user);
            let is = |i: usize| node.is_some_and(|n| n.inputs.get(i).copied().flatten() == Some(v));
            if t.data.iter().any(|&i| is(i)) { places.get(&user).copied().unwrap_or(same) } else { same }
        }
        Some(Kind::Leaves) => other,
        _ => same,
    };
    let mut values: Vec<(ValueId, usize)> = Vec::new();
    for &v in cx.graph().inputs() {
        values.push((v, same));
    }
    for &id in &order {
        let Some(node) = cx.node(id) else { continue };
        let made = match kinds.get(&id) {
            Some(Kind::Enters) => other,
            Some(Kind::Free(t)) if t.outputs => places.get(&id).copied().unwrap_or(same),
            _ => same,
        };
        if let (Some(Kind::Free(t)), Some(&p)) = (kinds.get(&id), places.get(&id)) {
            net.edge(p, same, t.dearer);
        }
        values.extend(node.outputs.iter().flatten().map(|&v| (v, made)));
    }
    for (v, made) in values {
        let mut readers: Vec<usize> = cx.edit.users(v).iter().map(|&u| reads(u, v)).collect();
        if cx.edit.is_output(v) {
            readers.push(same);
        }
        readers.sort_unstable();
        readers.dedup();
        if readers.iter().all(|&r| r == made) {
            continue;
        }
        let cost = bytes(cx, v);
        let now = |p: usize| p == other;
        if readers.iter().any(|&r| now(r) != now(made)) {
            before += cost;
        }
        // Made turned, read as it is; made as it is, read turned.
        let (a, b) = (net.place(), net.place());
        net.edge(made, a, cost);
        net.edge(b, made, cost);
        for r in readers {
            net.edge(a, r, NEVER);
            net.edge(r, b, NEVER);
        }
    }
    let (after, side) = net.cut(other, same);
    let mut list = Vec::new();
    for id in order {
        match kinds.remove(&id) {
            Some(Kind::Free(t)) if places.get(&id).is_some_and(|&p| side[p]) => list.push((id, Some(t))),
            Some(Kind::Enters | Kind::Leaves) => list.push((id, None)),
            _ => {}
        }
    }
    Plan { perm: perm.to_vec(), turned: list, saved: before.saturating_sub(after) }
}

/// Makes the nodes of a plan work on the other order.
fn turn(cx: &mut PassCtx<'_, '_>, plan: Plan) -> Result<()> {
    let back = inverse(&plan.perm);
    let op = |order: &[usize], rank: Option<usize>| -> Result<Arc<dyn Op>> {
        let perm = rank.and_then(|r| of_rank(order, r));
        let perm = perm.ok_or_else(|| err!(Internal, "a value whose axes {order:?} are not known"))?;
        Ok(Arc::new(Transpose { perm: Some(perm) }))
    };
    // For a value as the graph has it the turned one.
    let mut others: HashMap<ValueId, ValueId> = HashMap::new();
    for (id, t) in plan.turned {
        let Some(node) = cx.node(id).cloned() else { continue };
        let Some(t) = t else {
            let (Some(&Some(x)), Some(&Some(y))) = (node.inputs.first(), node.outputs.first()) else { continue };
            match others.get(&x).copied() {
                // The way back of something that is there turned.
                Some(turned) if order_of(cx, id).as_deref() == Some(&back) => cx.edit.replace_uses(y, turned),
                _ if order_of(cx, id).as_ref() == Some(&plan.perm) => {
                    others.insert(y, x);
                }
                _ => {}
            }
            continue;
        };
        let mut inputs = node.inputs.clone();
        for &i in &t.data {
            let Some(v) = inputs[i] else { continue };
            let turned = match others.get(&v) {
                Some(&turned) => turned,
                None => {
                    let name = format!("{}.turned", cx.graph().value(v).name);
                    let turn = op(&back, cx.dims(v).map(<[Dim]>::len))?;
                    let made = cx.edit.node(&name, turn, vec![Some(v)], 1)?[0];
                    others.insert(v, made);
                    made
                }
            };
            inputs[i] = Some(turned);
        }
        for (i, constant) in &t.constants {
            let name = format!("{}.{i}", node.name);
            let v = cx.edit.constant(&name, constant.tensor.clone());
            let v = match &constant.perm {
                None => v,
                Some(p) => {
                    let turn = Arc::new(Transpose { perm: Some(p.clone()) });
                    let made = cx.edit.node(&name, turn, vec![Some(v)], 1)?[0];
                    // Passes that follow want constants.
                    if let Some((maker, _)) = cx.graph().value(made).producer {
                        super::fold::fold(cx, maker)?;
                    }
                    made
                }
            };
            if inputs.len() <= *i {
                inputs.resize(i + 1, None);
            }
            inputs[*i] = Some(v);
        }
        cx.fired();
        if !t.outputs {
            cx.edit.replace_op(id, t.op, inputs);
            continue;
        }
        let made = cx.edit.node(&format!("{}.turned", node.name), t.op, inputs, node.outputs.len())?;
        for (v, made) in node.outputs.iter().zip(made) {
            let Some(v) = *v else { continue };
            let forth = op(&plan.perm, cx.dims(v).map(<[Dim]>::len))?;
            // What was known of the sizes stays known.
            let order = cx.dims(v).and_then(|d| of_rank(&back, d.len()));
            if let (Some(dims), Some(order), Some(dtype)) = (cx.dims(v), order, cx.dtype(v)) {
                let dims = order.iter().map(|&p| dims[p].clone()).collect();
                cx.edit.set_fact(made, Fact::tensor(dtype, dims));
            }
            others.insert(v, made);
            let name = cx.graph().value(v).name.clone();
            let way = cx.edit.node(&name, forth, vec![Some(made)], 1)?;
            if let Some((maker, _)) = cx.graph().value(way[0]).producer {
                cx.edit.move_output(maker, 0, v);
            }
        }
    }
    Ok(())
}
