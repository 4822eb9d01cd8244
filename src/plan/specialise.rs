//! Makes a segment: walks the nodes in order with concrete facts, folds shape arithmetic, picks backends and layouts,
//! binds kernels, and inserts the copies and reorders between them.

mod again;
mod bind;
mod variants;

pub use again::{Recipe, again};

use super::memory::{self, Life};
use super::program::Program;
use super::segment::{DynamicItem, Item, Segment, Slot, SlotKind, Tail};
use super::share::{Joint, Sharing, share};
use crate::backend::cpu::evaluate;
use crate::backend::step::NO_VALUE;
use crate::backend::{Layout, Operand};
use crate::base::alloc::ALIGN;
use crate::base::parallel::{Parallel, Serial};
use crate::error::{Context, Result};
use crate::ir::build::{describe_with_inputs, infer_op};
use crate::ir::fact::MAX_CONTENTS;
use crate::ir::{Alias, Fact, Node, NodeId, TensorFact, ValueId};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure, err};
use again::{Did, NO_ITEM};
use bind::Unbound;
use smallvec::smallvec;

/// The longest list of sizes that a plan depends on.
const MAX_LIST: usize = 64;

/// Where a segment starts: the position in the graph's order, and what is known by then.
pub struct Start {
    /// Position of the first node.
    pub at: usize,
    /// By value: what is known.
    pub facts: Vec<Fact>,
    /// By value: made by an earlier segment, or a graph input.
    pub ready: Ready,
}

/// What is there before a segment begins.
pub enum Ready {
    /// The graph's inputs.
    Inputs,
    /// What earlier segments made: all values produced before this position.
    Before(usize),
}

/// Makes the segment that begins at `start`.
pub fn specialise(program: &Program, start: Start, threads: &dyn Parallel) -> Result<Segment> {
    Ok(Specialiser::new(program, start.at, start.facts).run(start.ready, threads, false)?.0)
}

/// The same for the first segment, with the recipe for other sizes of the inputs, if there is one.
pub fn specialise_first(
    program: &Program,
    facts: Vec<Fact>,
    threads: &dyn Parallel,
) -> Result<(Segment, Option<Recipe>)> {
    Specialiser::new(program, 0, facts).run(Ready::Inputs, threads, true)
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Made {
    /// Not in this segment.
    No,
    /// By a step of this segment, or folded: its fact is concrete.
    Planned,
    /// By an eager or control item of this segment.
    Dynamic,
}

pub(super) struct Specialiser<'p> {
    pub(super) program: &'p Program,
    start: usize,
    pub(super) facts: Vec<Fact>,
    slots: Vec<Slot>,
    /// By value: its slots in the layouts and spaces it has been needed in.
    pub(super) variants: Vec<Vec<u32>>,
    items: Vec<Item>,
    unbound: Vec<Unbound>,
    pub(super) made: Vec<Made>,
    /// Position of the node at hand.
    at: usize,
    /// By position in the order: what became of the node, and its item.
    did: Vec<Did>,
    item_of: Vec<u32>,
    /// Items that change a layout.
    reorders: Vec<usize>,
    /// Nodes whose tensors may share memory, in their order.
    joints: Vec<Joint>,
    /// By slot: the items that use it, before any was dropped.
    lives: Vec<Life>,
    /// For each part of each joint: whether it does.
    shared: Vec<bool>,
}

pub(super) enum Flow {
    Next,
    /// The segment ends before this node; watch these values.
    Cut(Vec<(ValueId, bool)>),
}

impl<'p> Specialiser<'p> {
    pub(super) fn new(program: &'p Program, start: usize, facts: Vec<Fact>) -> Self {
        let n = program.graph.value_count();
        let nodes = program.graph.order().len();
        Specialiser {
            program,
            start,
            facts,
            slots: Vec::new(),
            variants: vec![Vec::new(); n],
            items: Vec::new(),
            unbound: Vec::new(),
            made: vec![Made::No; n],
            at: start,
            did: vec![Did::Other; nodes],
            item_of: vec![NO_ITEM; nodes],
            reorders: Vec::new(),
            joints: Vec::new(),
            lives: Vec::new(),
            shared: Vec::new(),
        }
    }

    /// Gives what is there before the segment its slots.
    pub(super) fn begin(&mut self, ready: Ready) -> Result<()> {
        let program = self.program;
        let graph = &program.graph;
        for (i, &v) in graph.inputs().iter().enumerate() {
            if self.facts[v.index()].is_concrete() && self.variants[v.index()].is_empty() {
                self.add_slot(v, SlotKind::Input(i))?;
            }
        }
        if let Ready::Before(at) = ready {
            for &id in &graph.order()[..at] {
                for &v in graph.node(id).outputs.iter().flatten() {
                    let needed = program.last_use[v.index()] >= at;
                    let folded = self.facts[v.index()].constant().is_some();
                    if needed && !folded && self.facts[v.index()].is_concrete() {
                        self.add_slot(v, SlotKind::Carried(v))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn run(mut self, ready: Ready, threads: &dyn Parallel, want_recipe: bool) -> Result<(Segment, Option<Recipe>)> {
        self.begin(ready)?;
        let graph = &self.program.graph;
        let mut tail = None;
        for (at, &id) in graph.order().iter().enumerate().skip(self.start) {
            let node = graph.node(id);
            self.at = at;
            let flow = self.node(id, node).context(|| self.describe(node))?;
            if let Flow::Cut(mut watch) = flow {
                self.add_late(&mut watch, at);
                ensure!(at > self.start || !self.items.is_empty() || !watch.is_empty(), Internal, "an empty segment");
                tail = Some(Tail { at, watch, facts: Vec::new(), id: self.program.new_tail() });
                break;
            }
        }
        self.share();
        self.bind_all(threads)?;
        self.finish(tail, want_recipe)
    }

    /// Adds to what a cut watches the other values made by now whose shapes later steps wait for: one cut serves all.
    fn add_late(&self, watch: &mut Vec<(ValueId, bool)>, at: usize) {
        let graph = &self.program.graph;
        let bindings = self.program.target.cpu.bindings();
        for &id in &graph.order()[at..] {
            let node = graph.node(id);
            for &v in node.inputs.iter().flatten().filter(|_| bindings.has_step(&*node.op)) {
                let (made, fact) = (self.made[v.index()], &self.facts[v.index()]);
                let is_plain = fact.as_tensor().is_some_and(|t| t.dtype != DType::String);
                if made == Made::Dynamic && is_plain && !fact.is_concrete() && !watch.iter().any(|w| w.0 == v) {
                    watch.push((v, false));
                }
            }
        }
    }

    fn describe(&self, node: &Node) -> String {
        describe_with_inputs(node, &self.input_facts(node))
    }

    pub(super) fn input_facts(&self, node: &Node) -> Vec<&Fact> {
        node.inputs.iter().map(|v| v.map_or(&Fact::Absent, |v| &self.facts[v.index()])).collect()
    }

    pub(super) fn node(&mut self, id: NodeId, node: &Node) -> Result<Flow> {
        let cpu = &self.program.target.cpu;
        let has_eager = cpu.bindings().find_eager(&*node.op).is_some();
        let is_control = self.program.inner.contains_key(&id) && !has_eager;
        let outputs = infer_op(&node.op, &self.input_facts(node), node.outputs.len())?;
        if !is_control && self.fold(node, &outputs)? {
            return Ok(Flow::Next);
        }
        // Values made on the fly in this segment have no planned place: whoever needs one waits for the next segment,
        // but for eager and control items, which take values as they come.
        // One made in an earlier segment that nobody has looked at yet is as late.
        let is_late = |v: &ValueId| match &self.facts[v.index()] {
            f if f.is_concrete() => false,
            Fact::Tensor(t) if t.dtype != DType::String => true,
            _ => self.made[v.index()] == Made::Dynamic,
        };
        let late: Vec<_> = node.inputs.iter().flatten().filter(|v| is_late(v)).map(|&v| (v, false)).collect();
        let inputs_plain = self.input_facts(node).iter().all(|f| f.is_concrete());
        let outputs_plain = outputs.iter().all(Fact::is_concrete);
        let dynamic_view = node.op.alias() == Alias::View && !(inputs_plain && outputs_plain);

        if is_control {
            return self.dynamic(id, node, outputs, true);
        }
        if inputs_plain
            && outputs_plain
            && (node.op.alias() == Alias::View
                || cpu.bindings().has_step(&*node.op)
                || self.device_for(node, &outputs).is_some())
        {
            self.step(id, node, outputs)?;
            return Ok(Flow::Next);
        }
        if !late.is_empty() && !has_eager {
            return Ok(Flow::Cut(late));
        }
        let has_step = cpu.bindings().has_step(&*node.op);
        if has_step && has_eager {
            // Its eager form is for strings: plain data waits for its shape.
            let is_string = |v: &ValueId| self.facts[v.index()].dtype() == Some(DType::String);
            let plain: Vec<_> = late.iter().filter(|(v, _)| !is_string(v)).copied().collect();
            if !plain.is_empty() && late.len() == plain.len() {
                return Ok(Flow::Cut(plain));
            }
        }
        if inputs_plain && (has_step || dynamic_view) {
            // A shape that hangs on the contents of small integer tensors which a step computes: cut, and look at them.
            let watch: Vec<_> =
                node.inputs.iter().flatten().filter(|v| self.is_watchable(**v)).map(|&v| (v, true)).collect();
            if !watch.is_empty() {
                return Ok(Flow::Cut(watch));
            }
        }
        if has_eager || dynamic_view {
            return self.dynamic(id, node, outputs, false);
        }
        if !has_step {
            bail!(Unsupported, "operator {} is not implemented", node.op.name());
        }
        bail!(
            Unsupported,
            "operator {} is not implemented for these types, or its output shape cannot be known",
            node.op.name()
        )
    }

    /// Whether a value's contents could decide a shape (a list of sizes, axes or scales) and are not known yet.
    fn is_watchable(&self, v: ValueId) -> bool {
        let Fact::Tensor(t) = &self.facts[v.index()] else { return false };
        let Some(shape) = t.shape() else { return false };
        let n: usize = shape.iter().product();
        let is_float = matches!(t.dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
        let kind = (t.dtype.is_int() || t.dtype == DType::Bool) && n <= MAX_LIST || is_float && n <= 16;
        kind && shape.len() <= 1 && t.tensor().is_none()
    }

    /// Computes the node now if all it needs is known and small.
    fn fold(&mut self, node: &Node, outputs: &[Fact]) -> Result<bool> {
        let Some(tensors) = fold(self.program, node, &self.input_facts(node), outputs)? else { return Ok(false) };
        for (v, t) in node.outputs.iter().zip(tensors) {
            if let Some(v) = v {
                self.facts[v.index()] = Fact::Tensor(TensorFact::constant(t));
                self.made[v.index()] = Made::Planned;
            }
        }
        self.did[self.at] = Did::Folded;
        Ok(true)
    }

    pub(super) fn add_slot(&mut self, v: ValueId, kind: SlotKind) -> Result<u32> {
        let f = &self.facts[v.index()];
        let (Some(dtype), Some(shape)) = (f.dtype(), f.shape()) else {
            bail!(Internal, "a slot needs a concrete fact, not {f}")
        };
        let s = self.new_slot(Operand::dense(dtype, &shape), 0, kind)?;
        self.variants[v.index()].push(s);
        Ok(s)
    }

    fn new_slot(&mut self, o: Operand, space: u32, kind: SlotKind) -> Result<u32> {
        let bytes = o.byte_len()?;
        self.slots.push(Slot { dtype: o.dtype, shape: o.shape, layout: o.layout, space, bytes, kind, within: None });
        Ok(self.slots.len() as u32 - 1)
    }

    /// The layout a value has now in a space (dense where it is not there yet).
    fn current_layout(&self, v: ValueId, space: u32) -> Layout {
        let slots = self.variants[v.index()].iter().map(|&s| &self.slots[s as usize]);
        slots.filter(|s| s.space == space).map(|s| s.layout).next().unwrap_or_default()
    }

    /// Makes output 0 the same memory as input 0. False where the operator has to run after all.
    fn view(&mut self, node: &Node, outputs: &[Fact]) -> Result<bool> {
        let (Some(&Some(from)), Some(&Some(to))) = (node.inputs.first(), node.outputs.first()) else { return Ok(true) };
        // Where the value lies on a device only, the view stays there.
        let space = self.device_only(from).map_or(0, |s| self.slots[s as usize].space);
        let s = self.variant(from, space, Layout::Dense)?;
        self.facts[to.index()] = outputs[0].clone();
        self.made[to.index()] = Made::Planned;
        let (Some(dtype), Some(shape)) = (outputs[0].dtype(), outputs[0].shape()) else {
            bail!(Internal, "a view's fact is not concrete")
        };
        let new = self.new_slot(Operand::dense(dtype, &shape), space, SlotKind::Arena(0))?;
        ensure!(self.slots[new as usize].bytes == self.slots[s as usize].bytes, Internal, "a view changes the size");
        self.variants[to.index()].push(new);
        self.joints.push(Joint {
            at: self.at,
            sharing: Sharing::View,
            whole: s,
            lives_on: true,
            parts: smallvec![(new, Some(0))],
        });
        if let Some(v) = node.outputs.iter().skip(1).flatten().next() {
            bail!(Unsupported, "output '{}' of a view", self.program.graph.value(*v).name);
        }
        Ok(true)
    }

    /// Lets tensors share memory; steps that would only copy have nothing to do any more, and are dropped in the end.
    fn share(&mut self) {
        self.lives = memory::lives(&self.items, self.slots.len(), std::iter::empty());
        self.shared = share(&mut self.slots, &self.joints, &self.lives);
        let mut shared = &self.shared[..];
        for j in &self.joints {
            let (own, rest) = shared.split_at(j.parts.len());
            shared = rest;
            let item = self.items.get_mut(self.item_of[j.at] as usize);
            if let (Some(Item::Step(item)), false) = (item, own.contains(&false)) {
                (item.inputs, item.outputs) = Default::default();
            }
        }
        let items = &self.items;
        self.unbound.retain(|u| !matches!(&items[u.item], Item::Step(s) if s.outputs.is_empty()));
    }

    /// Whether the value's elements became known only while planning.
    fn folded(&self, v: ValueId) -> bool {
        self.program.graph.fact(v).constant().is_none()
            && self.facts[v.index()].is_concrete()
            && self.facts[v.index()].contents_tensor().is_some()
    }

    /// An eager or control item.
    fn dynamic(&mut self, id: NodeId, node: &Node, outputs: Vec<Fact>, control: bool) -> Result<Flow> {
        if self.program.target.required && !control {
            return Err(self.not_claimed(node, &outputs));
        }
        let mut ins = Vec::with_capacity(node.inputs.len());
        for v in &node.inputs {
            ins.push(match v {
                // What was folded here is no constant of the graph: it needs a place.
                Some(v) if self.variants[v.index()].is_empty() && self.folded(*v) => {
                    self.variant(*v, 0, Layout::Dense)?
                }
                Some(v) if self.variants[v.index()].is_empty() => NO_VALUE,
                Some(v) => self.variant(*v, 0, Layout::Dense)?,
                None => NO_VALUE,
            });
        }
        let mut outs = Vec::with_capacity(node.outputs.len());
        for (v, fact) in node.outputs.iter().zip(outputs) {
            outs.push(match v {
                None => NO_VALUE,
                Some(v) => {
                    let concrete = fact.is_concrete();
                    self.facts[v.index()] = fact.without_contents();
                    self.made[v.index()] = Made::Dynamic;
                    if concrete { self.add_slot(*v, SlotKind::Dynamic)? } else { NO_VALUE }
                }
            });
        }
        let item = DynamicItem { node: id, inputs: ins.into(), outputs: outs.into() };
        self.items.push(if control { Item::Control(item) } else { Item::Eager(item) });
        Ok(Flow::Next)
    }

    fn finish(mut self, mut tail: Option<Tail>, want_recipe: bool) -> Result<(Segment, Option<Recipe>)> {
        let program = self.program;
        let graph = &program.graph;
        let end = tail.as_ref().map_or(graph.order().len(), |t| t.at);
        let (mut direct, mut output_slots, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        let mut pinned = Vec::new();
        // Graph outputs that are plain data by now; each is seen to in the segment that makes it, the rest at the end.
        for (i, &v) in graph.outputs().iter().enumerate() {
            let here = self.made[v.index()] == Made::Planned;
            let at_end = tail.is_none() && self.made[v.index()] == Made::No && !self.variants[v.index()].is_empty();
            let constant = self.facts[v.index()].contents_tensor().is_some();
            if !(here || at_end || tail.is_none() && constant) {
                continue;
            }
            if self.facts[v.index()].dtype() == Some(DType::String) {
                continue;
            }
            let s = self.variant(v, 0, Layout::Dense)?;
            let root = Slot::place(&self.slots, s).root;
            if can_be_output(&self.slots, s) {
                self.slots[root as usize].kind = SlotKind::Output(i);
                direct.push((i, root));
                output_slots.push((i, s));
            } else {
                copied.push((i, s));
            }
            pinned.push(s);
        }
        let mut exports = Vec::new();
        if let Some(t) = &mut tail {
            for &id in &graph.order()[self.start..end] {
                for &v in graph.node(id).outputs.iter().flatten() {
                    let needed = program.last_use[v.index()] >= end;
                    if needed && self.made[v.index()] == Made::Planned && self.facts[v.index()].constant().is_none() {
                        let s = self.variant(v, 0, Layout::Dense)?;
                        exports.push((v, s));
                        pinned.push(s);
                    }
                }
            }
            for (v, _) in &t.watch {
                ensure!(self.facts[v.index()].constant().is_none(), Internal, "a constant is watched");
            }
            t.facts = std::mem::take(&mut self.facts);
        }
        let kept = self.prune(&pinned);
        let parts = Parts { items: self.items, slots: self.slots, direct, output_slots, copied, exports, pinned, tail };
        let recipe = want_recipe && Recipe::can_be_made_of(program, self.start, &parts);
        let recipe = recipe.then(|| Recipe {
            facts: self.facts,
            variants: self.variants,
            did: self.did,
            items: self.item_of.iter().map(|&i| kept.get(i as usize).copied().unwrap_or(NO_ITEM)).collect(),
            reorders: self.reorders.iter().map(|&i| kept[i]).filter(|&i| i != NO_ITEM).collect(),
            slots: parts.slots.iter().map(|s| Slot { within: None, ..s.clone() }).collect(),
            joints: self.joints,
            lives: self.lives,
            shared: self.shared,
            pinned: parts.pinned.clone(),
        });
        Ok((parts.place(program.target.spaces())?, recipe))
    }

    /// Drops steps whose results nobody reads (they fed shape arithmetic that is gone now). Returns where each item went.
    fn prune(&mut self, pinned: &[u32]) -> Vec<u32> {
        let root = |slots: &[Slot], s: u32| Slot::place(slots, s).root;
        let mut needed = vec![false; self.slots.len()];
        pinned.iter().for_each(|&s| needed[root(&self.slots, s) as usize] = true);
        let mut keep = vec![true; self.items.len()];
        for (i, item) in self.items.iter().enumerate().rev() {
            let mut live = matches!(item, Item::Eager(_) | Item::Control(_));
            memory::visit(item, |s, is_output| live |= is_output && needed[root(&self.slots, s) as usize]);
            keep[i] = live;
            if live {
                memory::visit(item, |s, is_output| {
                    if !is_output {
                        needed[root(&self.slots, s) as usize] = true;
                    }
                });
            }
        }
        let mut k = keep.iter();
        self.items.retain(|_| k.next().copied().unwrap_or(true));
        let mut next = 0..;
        keep.iter().map(|&k| if k { next.next().unwrap_or(NO_ITEM) } else { NO_ITEM }).collect()
    }
}

/// Whether the memory behind a slot can be the caller's: it is the slot's alone, and no constant or input.
fn can_be_output(slots: &[Slot], s: u32) -> bool {
    let root = &slots[Slot::place(slots, s).root as usize];
    matches!(root.kind, SlotKind::Arena(_)) && root.bytes == slots[s as usize].bytes
}

/// The results of a node, if all it needs is known and small.
fn fold(program: &Program, node: &Node, inputs: &[&Fact], outputs: &[Fact]) -> Result<Option<Vec<Tensor>>> {
    if !node.op.is_deterministic() || node.outputs.iter().flatten().next().is_none() {
        return Ok(None);
    }
    // What `infer` itself knows (Shape, Size, ...).
    if let Some(known) = outputs.iter().map(Fact::contents_tensor).collect() {
        return Ok(Some(known));
    }
    let small = |f: &Fact| f.shape().is_some_and(|s| s.iter().product::<usize>() <= MAX_CONTENTS);
    if !outputs.iter().all(small) {
        return Ok(None);
    }
    let mut tensors = Vec::with_capacity(inputs.len());
    for f in inputs {
        match (f, f.contents_tensor()) {
            (Fact::Absent, _) => tensors.push(None),
            (_, Some(t)) => tensors.push(Some(t)),
            (_, None) => return Ok(None),
        }
    }
    let results = evaluate(&program.target.cpu, &Serial, &node.name, &*node.op, &tensors, outputs)?;
    // Strings have no slots: they are made in the run.
    Ok(results.filter(|r| r.iter().all(|t| t.dtype() != DType::String)))
}

/// A segment but for where its slots lie.
struct Parts {
    items: Vec<Item>,
    slots: Vec<Slot>,
    direct: Vec<(usize, u32)>,
    output_slots: Vec<(usize, u32)>,
    copied: Vec<(usize, u32)>,
    exports: Vec<(ValueId, u32)>,
    pinned: Vec<u32>,
    tail: Option<Tail>,
}

impl Parts {
    fn place(mut self, spaces: usize) -> Result<Segment> {
        let arena = memory::plan(&mut self.items, &mut self.slots, &self.pinned, spaces);
        let late = self.slots.iter().enumerate().filter_map(|(i, s)| {
            let root = &self.slots[s.within?.root as usize];
            let early = matches!(root.kind, SlotKind::Arena(_) | SlotKind::Constant(_) | SlotKind::Unused);
            if early { None } else { Some((i as u32, s.within?)) }
        });
        let late = late.collect();
        let scratch = self.items.iter().map(|i| if let Item::Step(s) = i { s.step.scratch_bytes() } else { 0 }).max();
        // Each thread's begins at a cache line.
        let scratch = scratch
            .unwrap_or(0)
            .checked_next_multiple_of(ALIGN)
            .ok_or_else(|| err!(OutOfMemory, "a step's scratch memory passes the address space"))?;
        Ok(Segment {
            items: self.items,
            slots: self.slots,
            arena,
            scratch,
            direct_outputs: self.direct,
            output_slots: self.output_slots,
            copied_outputs: self.copied,
            exports: self.exports,
            late,
            tail: self.tail,
        })
    }
}

/// For errors where a value should be there.
pub fn missing(name: &str) -> crate::Error {
    err!(Internal, "value '{name}' is not there")
}
