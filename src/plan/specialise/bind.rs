//! From a node with concrete operands to a step: which backend takes it, in which layouts, by which kernel.
//!
//! The CPU's kernels are bound when the walk over the nodes is over, all on all threads: packing weights is most of what a
//! first plan costs.

use super::again::Did;
use super::{Made, Specialiser};
use crate::backend::step::{NO_VALUE, Step, StepArgs};
use crate::backend::{Layout, NodeLayouts, NodeView, Operand};
use crate::base::parallel::{self, Parallel};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::ir::{Alias, Fact, Node, NodeId, ValueId};
use crate::plan::program::{Program, Target};
use crate::plan::segment::{Item, SlotKind, StepItem};
use crate::plan::share::{Joint, Sharing, byte_offset};
use crate::{bail, err};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::sync::Arc;

/// A node's operands in the layouts that its backend wants.
pub(super) struct Operands {
    pub(super) ins: Vec<Option<Operand>>,
    pub(super) outs: Vec<Option<Operand>>,
    pub(super) layouts: NodeLayouts,
}

impl Operands {
    /// `inputs` are as they are now.
    pub(super) fn new(
        target: &Target,
        backend: usize,
        node: &Node,
        inputs: Vec<Option<Operand>>,
        outputs: &[Fact],
    ) -> Result<Operands> {
        let (mut ins, mut outs) = (inputs, output_operands(node, outputs)?);
        let view = NodeView { name: &node.name, op: &*node.op, inputs: &ins, outputs: &outs };
        let layouts = target.backend(backend).layouts(&view);
        for (i, o) in ins.iter_mut().enumerate() {
            o.iter_mut().for_each(|o| o.layout = layouts.input(i));
        }
        for (i, o) in outs.iter_mut().enumerate() {
            o.iter_mut().for_each(|o| o.layout = layouts.output(i));
        }
        Ok(Operands { ins, outs, layouts })
    }

    /// Whether input `i` is a constant that the kernel takes as it is in the graph.
    pub(super) fn is_plain_constant(&self, i: usize) -> bool {
        self.layouts.input(i) == Layout::Dense && self.ins[i].as_ref().is_some_and(|o| o.constant.is_some())
    }

    /// Whether input `i` is no constant that lies askew in its file.
    pub(super) fn is_aligned(&self, i: usize) -> bool {
        let constant = self.ins[i].as_ref().and_then(|o| o.constant.as_ref());
        constant.is_none_or(|t| t.data_ptr().addr() % t.dtype().align() == 0)
    }

    fn bind(&self, target: &Target, backend: usize, node: &Node) -> Result<Box<dyn Step>> {
        let view = NodeView { name: &node.name, op: &*node.op, inputs: &self.ins, outputs: &self.outs };
        target.backend(backend).bind(&view, &target.cache)
    }
}

/// A value as backends see it.
pub(super) fn operand(fact: &Fact, layout: Layout) -> Result<Operand> {
    let (Some(dtype), Some(shape)) = (fact.dtype(), fact.shape()) else {
        bail!(Internal, "an operand needs a concrete fact, not {fact}")
    };
    Ok(Operand { dtype, shape, layout, constant: fact.contents_tensor() })
}

fn output_operands(node: &Node, outputs: &[Fact]) -> Result<Vec<Option<Operand>>> {
    let dense = |(v, f): (&Option<ValueId>, &Fact)| match (v, f.dtype(), f.shape()) {
        (None, ..) => Ok(None),
        (Some(_), Some(d), Some(s)) => Ok(Some(Operand::dense(d, &s))),
        _ => bail!(Internal, "an output's fact is not concrete: {f}"),
    };
    node.outputs.iter().zip(outputs).map(dense).collect()
}

/// Where the parts of a node's whole (its inputs or outputs, by its `Alias`) begin in it, in bytes. `None` for one whose
/// elements do not lie together, and for a graph's output, which has memory of its own.
pub(super) fn part_offsets(
    program: &Program,
    node: &Node,
    inputs: &[&Fact],
    outputs: &[Fact],
    operands: &Operands,
) -> SmallVec<[Option<usize>; 4]> {
    let (whole, parts, values) = match node.op.alias() {
        Alias::Parts => (&operands.ins, &operands.outs, &node.outputs),
        Alias::Joined => (&operands.outs, &operands.ins, &node.inputs),
        _ => return SmallVec::new(),
    };
    let of = |(k, (part, v)): (usize, (&Option<Operand>, &Option<ValueId>))| {
        let (whole, part) = (whole.first()?.as_ref()?, part.as_ref()?);
        let own = program.last_use[v.as_ref()?.index()] == usize::MAX || whole.layout != part.layout;
        let region = node.op.part(k, inputs, outputs).filter(|_| !own)?;
        byte_offset(&region, &whole.shape, whole.layout, whole.dtype.size()?)
    };
    parts.iter().zip(values).enumerate().map(of).collect()
}

/// A step of the CPU whose kernel is not bound yet.
pub(super) struct Unbound {
    /// Its place among the items.
    pub(super) item: usize,
    pub(super) node: NodeId,
    pub(super) operands: Operands,
}

impl Unbound {
    /// Bytes of constants, by which the time is guessed that binding takes.
    fn weight(&self) -> usize {
        self.operands.ins.iter().flatten().filter_map(|o| Some(o.constant.as_ref()?.byte_len())).sum()
    }
}

/// Holds the place of a kernel until it is bound.
struct Placeholder;

impl Step for Placeholder {
    unsafe fn run(&self, _: &StepArgs<'_>, _: usize, _: usize, _: *mut u8) -> Result<()> {
        bail!(Internal, "a step was not bound")
    }
}

impl Specialiser<'_> {
    /// The device that takes the node, by index in the target's list.
    pub(super) fn device_for(&self, node: &Node, outputs: &[Fact]) -> Option<usize> {
        let target = &self.program.target;
        if target.devices.is_empty() {
            return None;
        }
        let ins: Option<Vec<_>> = node
            .inputs
            .iter()
            .map(|v| match v {
                None => Some(None),
                Some(v) => self.operand(*v, u32::MAX).ok().map(Some),
            })
            .collect();
        let (ins, outs) = (ins?, output_operands(node, outputs).ok()?);
        let view = NodeView { name: &node.name, op: &*node.op, inputs: &ins, outputs: &outs };
        (0..target.devices.len()).find(|&i| target.devices[i].claims(&view).is_ok())
    }

    fn operand(&self, v: ValueId, space: u32) -> Result<Operand> {
        operand(&self.facts[v.index()], self.current_layout(v, space))
    }

    /// The node's operands in the layouts that a backend wants.
    fn operands(&self, backend: usize, node: &Node, outputs: &[Fact]) -> Result<Operands> {
        let target = &self.program.target;
        let space = target.space(backend);
        let ins = node.inputs.iter().map(|v| v.map(|v| self.operand(v, space)).transpose());
        Operands::new(target, backend, node, ins.collect::<Result<_>>()?, outputs)
    }

    /// Adds the node's step.
    pub(super) fn step(&mut self, id: NodeId, node: &Node, outputs: Vec<Fact>) -> Result<()> {
        if node.op.alias() == Alias::View && self.view(node, &outputs)? {
            self.did[self.at] = Did::View;
            return Ok(());
        }
        let target = &self.program.target;
        let cpu = target.cpu_index();
        let device = match self.device_for(node, &outputs) {
            None => None,
            Some(device) => {
                let operands = self.operands(device, node, &outputs)?;
                match operands.bind(target, device, node) {
                    // A device may find only here that a shape is beyond its kernels: the CPU takes its place.
                    Err(e) if e.kind() == ErrorKind::Unsupported && !target.required => None,
                    bound => Some((device, bound?, operands)),
                }
            }
        };
        let (backend, step, operands): (usize, Option<Box<dyn Step>>, _) = match device {
            Some((device, step, operands)) => (device, Some(step), operands),
            None if target.required => return Err(self.not_claimed(node, &outputs)),
            None => (cpu, None, self.operands(cpu, node, &outputs)?),
        };
        let space = target.space(backend);
        let offsets = part_offsets(self.program, node, &self.input_facts(node), &outputs, &operands);
        let is_part = node.op.alias() == Alias::Parts && offsets.iter().all(Option::is_some);

        let mut inputs: SmallVec<[u32; 4]> = SmallVec::with_capacity(node.inputs.len());
        for (i, v) in node.inputs.iter().enumerate() {
            let is_constant = operands.ins[i].as_ref().is_some_and(|o| o.constant.is_some());
            let is_read = match &step {
                // Devices keep constants themselves: they took them when the step was bound.
                Some(step) => step.reads(i) && !(is_constant && space != 0),
                // Known when the kernel is.
                None => !operands.is_plain_constant(i) || i == 0 && is_part && operands.is_aligned(i),
            };
            inputs.push(match v {
                Some(v) if is_read => self.variant(*v, space, operands.layouts.input(i))?,
                _ => NO_VALUE,
            });
        }
        let mut results: SmallVec<[u32; 2]> = SmallVec::with_capacity(node.outputs.len());
        for ((v, o), fact) in node.outputs.iter().zip(&operands.outs).zip(outputs) {
            results.push(match (v, o) {
                (Some(v), Some(o)) => {
                    self.facts[v.index()] = fact;
                    self.made[v.index()] = Made::Planned;
                    let s = self.new_slot(o.clone(), space, SlotKind::Arena(0))?;
                    self.variants[v.index()].push(s);
                    s
                }
                _ => NO_VALUE,
            });
        }
        let (mut in_place, mut sharing): (&[usize], _) = (&[], None);
        match node.op.alias() {
            Alias::InPlace(k) => in_place = k,
            Alias::Parts => sharing = Some((Sharing::Parts, inputs[0], &results[..])),
            Alias::Joined => sharing = Some((Sharing::Joined, results[0], &inputs[..])),
            Alias::None | Alias::View => {}
        }
        if let Some((sharing, whole, parts)) = sharing.filter(|_| step.is_none()) {
            let parts = parts.iter().copied().zip(offsets).filter(|p| p.0 != NO_VALUE || sharing == Sharing::Joined);
            let read_later = |v: ValueId| self.program.last_use[v.index()] > self.at;
            let lives_on = node.inputs.first().copied().flatten().is_some_and(read_later);
            self.joints.push(Joint { at: self.at, sharing, whole, lives_on, parts: parts.collect() });
        }
        (self.did[self.at], self.item_of[self.at]) = (Did::Step, self.items.len() as u32);
        if step.is_none() {
            self.unbound.push(Unbound { item: self.items.len(), node: id, operands });
        }
        self.items.push(Item::Step(StepItem {
            node: id,
            step: step.map_or_else(|| Arc::new(Placeholder) as Arc<dyn Step>, Arc::from),
            inputs,
            outputs: results,
            in_place,
            backend,
            space,
            workspace: 0,
        }));
        Ok(())
    }

    /// Binds the kernels that wait for it.
    pub(in crate::plan) fn bind_all(&mut self, threads: &dyn Parallel) -> Result<()> {
        let graph = &self.program.graph;
        for (u, step) in bind_all(self.program, std::mem::take(&mut self.unbound), threads)? {
            let node = graph.node(u.node);
            let step = step.context(|| self.describe(node))?;
            for (i, v) in node.inputs.iter().enumerate() {
                let Some(v) = v.filter(|_| u.operands.is_plain_constant(i) && step.reads(i)) else { continue };
                let slot = self.constant(v, step.needs_alignment(i))?;
                if let Item::Step(item) = &mut self.items[u.item] {
                    item.inputs[i] = slot;
                }
            }
            if let Item::Step(item) = &mut self.items[u.item] {
                item.step = step.into();
            }
        }
        Ok(())
    }

    /// The error of a node that only the CPU could run, where a device is required.
    pub(super) fn not_claimed(&self, node: &Node, outputs: &[Fact]) -> Error {
        let ins: Result<Vec<_>> =
            node.inputs.iter().map(|v| v.map(|v| self.operand(v, u32::MAX)).transpose()).collect();
        let (Ok(ins), Ok(outs)) = (ins, output_operands(node, outputs)) else {
            return err!(Unsupported, "a device is required, and operator {} runs on the CPU only", node.op.name());
        };
        let view = NodeView { name: &node.name, op: &*node.op, inputs: &ins, outputs: &outs };
        let devices = self.program.target.devices.iter();
        let whys: Vec<String> =
            devices.filter_map(|d| Some(format!("{}: {}", d.name(), d.claims(&view).err()?))).collect();
        err!(Unsupported, "a device is required, and none runs operator {}: {}", node.op.name(), whys.join("; "))
    }
}

/// Binds kernels of the CPU on all threads, the one with the largest weights first; gives them in the nodes' order.
pub(super) fn bind_all(
    program: &Program,
    mut waiting: Vec<Unbound>,
    threads: &dyn Parallel,
) -> Result<Vec<(Unbound, Result<Box<dyn Step>>)>> {
    let (graph, target) = (&program.graph, &program.target);
    waiting.sort_by_cached_key(|u| Reverse(u.weight()));
    let bound = parallel::map(threads, waiting.len(), |i| {
        let u = &waiting[i];
        u.operands.bind(target, target.cpu_index(), graph.node(u.node))
    })?;
    let mut done: Vec<_> = waiting.into_iter().zip(bound).collect();
    done.sort_by_key(|(u, _)| u.item);
    Ok(done)
}
