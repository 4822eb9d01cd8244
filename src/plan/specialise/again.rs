//! A plan for other sizes, from one made before: only the nodes that the other sizes reach are inferred and bound anew.
//!
//! A decoder that keeps its past asks for a new plan with every token; all but attention stays as it was. Where the new sizes
//! change more than sizes (a node that was folded cannot be any more, another layout is wanted), there is no short way, and
//! the plan is made from scratch.

use super::bind::{Operands, Unbound, bind_all, operand, part_offsets};
use super::{Parts, can_be_output, fold};
use crate::backend::step::NO_VALUE;
use crate::backend::{Layout, Operand};
use crate::base::parallel::Parallel;
use crate::ir::build::infer_op;
use crate::ir::{Fact, TensorFact, ValueId};
use crate::plan::memory::Life;
use crate::plan::program::Program;
use crate::plan::segment::{Item, Segment, Slot, SlotKind};
use crate::plan::share::{Joint, Sharing, share};
use smallvec::SmallVec;

/// Stands for an item that was dropped, or never was.
pub(super) const NO_ITEM: u32 = u32::MAX;

/// What became of a node.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Did {
    /// Its results are constants of the plan.
    Folded,
    /// Its result is another name of its input's memory.
    View,
    /// A kernel is bound.
    Step,
    /// Anything else.
    Other,
}

/// How a segment came about.
pub struct Recipe {
    /// By value: what was known in the end.
    pub(super) facts: Vec<Fact>,
    /// By value: its slots.
    pub(super) variants: Vec<Vec<u32>>,
    /// By position in the graph's order: what became of the node.
    pub(super) did: Vec<Did>,
    /// By position in the graph's order: its item.
    pub(super) items: Vec<u32>,
    /// Items that change a layout.
    pub(super) reorders: Vec<u32>,
    /// The slots before they got places, and before they shared memory.
    pub(super) slots: Vec<Slot>,
    /// Nodes whose tensors may share memory, in their order.
    pub(super) joints: Vec<Joint>,
    /// For each part of each joint: whether it does.
    pub(super) shared: Vec<bool>,
    /// The lives of the slots then.
    pub(super) lives: Vec<Life>,
    /// Slots that are needed after the last item.
    pub(super) pinned: Vec<u32>,
}

impl Recipe {
    /// Only for a whole plan of the CPU's kernels alone, and where there can be other sizes at all.
    pub(super) fn can_be_made_of(program: &Program, start: usize, parts: &Parts) -> bool {
        let cpu = program.target.cpu_index();
        let graph = &program.graph;
        start == 0
            && parts.tail.is_none()
            && parts.items.iter().all(|i| matches!(i, Item::Step(s) if s.backend == cpu))
            && graph.inputs().iter().any(|&v| graph.fact(v).shape().is_none())
    }
}

/// The facts of a recipe with some replaced.
struct Facts<'r> {
    before: &'r [Fact],
    place: Vec<u32>,
    new: Vec<(ValueId, Fact)>,
}

impl Facts<'_> {
    fn get(&self, v: ValueId) -> &Fact {
        self.new.get(self.place[v.index()] as usize).map_or(&self.before[v.index()], |x| &x.1)
    }
    fn has_changed(&self, v: ValueId) -> bool {
        self.place[v.index()] != NO_ITEM
    }
    fn set(&mut self, v: ValueId, fact: Fact) {
        if !fact.is_same(&self.before[v.index()]) {
            self.place[v.index()] = self.new.len() as u32;
            self.new.push((v, fact));
        }
    }
}

/// The segment for other facts of the graph's inputs, from one and its recipe. `None` where that takes a plan from scratch,
/// or would be no shorter: then more than half of the nodes change.
pub fn again(
    program: &Program,
    old: &Segment,
    recipe: &Recipe,
    inputs: impl Iterator<Item = Fact>,
    threads: &dyn Parallel,
) -> Option<Segment> {
    let (graph, target) = (&program.graph, &program.target);
    let place = vec![NO_ITEM; recipe.facts.len()];
    let mut facts = Facts { before: &recipe.facts, place, new: Vec::new() };
    for (&v, fact) in graph.inputs().iter().zip(inputs) {
        facts.set(v, fact);
    }
    let mut left = graph.order().len() / 2;
    let mut waiting: Vec<Unbound> = Vec::new();
    let mut joints = recipe.joints.clone();
    for (at, &id) in graph.order().iter().enumerate() {
        let node = graph.node(id);
        if !node.inputs.iter().flatten().any(|&v| facts.has_changed(v)) {
            continue;
        }
        left = left.checked_sub(1)?;
        let given: SmallVec<[&Fact; 8]> =
            node.inputs.iter().map(|v| v.map_or(&Fact::Absent, |v| facts.get(v))).collect();
        // An error is told by the plan from scratch, in full.
        let results = infer_op(&node.op, &given, node.outputs.len()).ok()?;
        let constants = fold(program, node, &given, &results).ok()?;
        let results = match (recipe.did[at], constants) {
            (Did::Folded, Some(t)) => t.into_iter().map(|t| Fact::Tensor(TensorFact::constant(t))).collect(),
            (Did::View, None) => results,
            (Did::Step, None) => {
                let item = recipe.items[at];
                let joint = joints.binary_search_by_key(&at, |j| j.at).ok();
                if item != NO_ITEM || joint.is_some() {
                    let layout = |v: ValueId| {
                        recipe.variants[v.index()].first().map_or(Layout::Dense, |&s| recipe.slots[s as usize].layout)
                    };
                    let ins = node.inputs.iter().map(|v| v.map(|v| operand(facts.get(v), layout(v))).transpose());
                    let ins: Vec<Option<Operand>> = ins.collect::<Result<_, _>>().ok()?;
                    let operands = Operands::new(target, target.cpu_index(), node, ins, &results).ok()?;
                    if let Some(j) = joint {
                        let offsets = part_offsets(program, node, &given, &results, &operands);
                        joints[j].again(&offsets, &operands, &recipe.slots)?;
                    }
                    if item != NO_ITEM {
                        waiting.push(Unbound { item: item as usize, node: id, operands });
                    }
                }
                results
            }
            _ => return None,
        };
        if !results.iter().all(Fact::is_concrete) {
            return None;
        }
        drop(given);
        for (v, fact) in node.outputs.iter().zip(results) {
            if let Some(v) = *v {
                facts.set(v, fact);
            }
        }
    }
    let slots = slots(recipe, &joints, old, &facts)?;
    let items = items(program, old, recipe, waiting, &slots, threads)?;
    let parts = Parts {
        items,
        slots,
        direct: old.direct_outputs.clone(),
        output_slots: old.output_slots.clone(),
        copied: old.copied_outputs.clone(),
        exports: Vec::new(),
        pinned: recipe.pinned.clone(),
        tail: None,
    };
    parts.place(target.spaces()).ok()
}

/// The slots in their new sizes, not placed yet.
fn slots(recipe: &Recipe, joints: &[Joint], old: &Segment, facts: &Facts<'_>) -> Option<Vec<Slot>> {
    let mut slots = recipe.slots.clone();
    for (v, fact) in &facts.new {
        let shape = fact.shape()?;
        for &s in &recipe.variants[v.index()] {
            let slot = &mut slots[s as usize];
            if fact.dtype() != Some(slot.dtype) || shape.len() != slot.shape.len() {
                return None;
            }
            slot.bytes = slot.layout.byte_len(slot.dtype, &shape).ok()?;
            slot.shape = shape.clone();
            match (&mut slot.kind, fact.contents_tensor()) {
                (SlotKind::Constant(t), Some(new)) => *t = new,
                (SlotKind::Constant(_), None) => return None,
                _ => {}
            }
        }
    }
    // The same tensors must share memory, and the same of them be the caller's.
    let is_same = share(&mut slots, joints, &recipe.lives) == recipe.shared
        && old.direct_outputs.iter().zip(&old.output_slots).all(|(&(_, root), &(_, seen))| {
            Slot::place(&slots, seen).root == root && slots[root as usize].bytes == slots[seen as usize].bytes
        })
        && !old.copied_outputs.iter().any(|&(_, s)| can_be_output(&slots, s));
    is_same.then_some(slots)
}

impl Joint {
    /// With the parts where they begin now. `None` where a layout is another, or a constant is wanted that has no slot.
    fn again(&mut self, offsets: &[Option<usize>], operands: &Operands, slots: &[Slot]) -> Option<()> {
        let (whole, parts) = match self.sharing {
            Sharing::Joined => (&operands.outs, &operands.ins),
            _ => (&operands.ins, &operands.outs),
        };
        let is_kept = |s: u32, o: &Option<Operand>| {
            s == NO_VALUE || o.as_ref().is_some_and(|o| slots[s as usize].layout == o.layout)
        };
        let is_new = self.whole == NO_VALUE && offsets.iter().all(Option::is_some) && operands.is_aligned(0);
        if is_new || !is_kept(self.whole, whole.first()?) {
            return None;
        }
        let given = parts.iter().zip(offsets).filter(|(p, _)| p.is_some());
        for ((s, offset), (part, new)) in self.parts.iter_mut().zip(given) {
            if !is_kept(*s, part) {
                return None;
            }
            *offset = *new;
        }
        Some(())
    }
}

/// The items, those that wait for it bound anew.
fn items(
    program: &Program,
    old: &Segment,
    recipe: &Recipe,
    waiting: Vec<Unbound>,
    slots: &[Slot],
    threads: &dyn Parallel,
) -> Option<Vec<Item>> {
    let (graph, target) = (&program.graph, &program.target);
    let mut items = old.items.clone();
    for &i in &recipe.reorders {
        let Item::Step(item) = &mut items[i as usize] else { return None };
        let (from, to) = (item.inputs[0] as usize, item.outputs[0] as usize);
        if slots[from].shape != recipe.slots[from].shape {
            let operand = |s: &Slot| Operand { layout: s.layout, ..Operand::dense(s.dtype, &s.shape) };
            let step = target.backend(target.cpu_index()).bind_reorder(&operand(&slots[from]), &operand(&slots[to]));
            item.step = step.ok()?.into();
        }
    }
    let wants = |u: &Unbound| {
        let Item::Step(item) = &items[u.item] else { return false };
        let is = |s: u32, layout: Layout| s == NO_VALUE || slots[s as usize].layout == layout;
        item.inputs.iter().enumerate().all(|(i, &s)| is(s, u.operands.layouts.input(i)))
            && item.outputs.iter().enumerate().all(|(i, &s)| is(s, u.operands.layouts.output(i)))
    };
    if !waiting.iter().all(wants) {
        return None;
    }
    for (u, step) in bind_all(program, waiting, threads).ok()? {
        let step = step.ok()?;
        let Item::Step(item) = &mut items[u.item] else { return None };
        for (i, v) in graph.node(u.node).inputs.iter().enumerate() {
            if v.is_none() || !step.reads(i) {
                continue;
            }
            if item.inputs[i] == NO_VALUE {
                return None;
            }
            if let SlotKind::Constant(t) = &slots[item.inputs[i] as usize].kind
                && step.needs_alignment(i)
            {
                t.settle().ok()?;
            }
        }
        item.step = step.into();
    }
    Some(items)
}
