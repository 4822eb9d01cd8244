//! From a node with concrete operands to a step: which backend takes it, in which layouts, by which kernel.
//!
//! The CPU's kernels are bound when the walk over the nodes is over, all on all threads: packing weights is most of what a
//! first plan costs.

use super::{Made, Specialiser};
use crate::backend::step::{NO_VALUE, Step, StepArgs};
use crate::backend::{NodeLayouts, NodeView, Operand};
use crate::base::parallel::Parallel;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::ir::{Alias, Fact, Node, NodeId, ValueId};
use crate::plan::segment::{Item, SlotKind, StepItem};
use crate::{bail, err};
use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};

/// A node's operands in the layouts that its backend wants.
pub(super) struct Operands {
    ins: Vec<Option<Operand>>,
    outs: Vec<Option<Operand>>,
    layouts: NodeLayouts,
}

/// A step of the CPU whose kernel is not bound yet.
pub(super) struct Unbound {
    /// Its place among the items.
    item: usize,
    node: NodeId,
    operands: Operands,
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
        let (ins, outs) = (ins?, self.output_operands(node, outputs).ok()?);
        let view = NodeView { name: &node.name, op: &*node.op, inputs: &ins, outputs: &outs };
        (0..target.devices.len()).find(|&i| target.devices[i].claims(&view).is_ok())
    }

    fn operand(&self, v: ValueId, space: u32) -> Result<Operand> {
        let f = &self.facts[v.index()];
        let (Some(dtype), Some(shape)) = (f.dtype(), f.shape()) else {
            bail!(Internal, "an operand needs a concrete fact, not {f}")
        };
        Ok(Operand { dtype, shape, layout: self.current_layout(v, space), constant: f.contents_tensor() })
    }

    fn output_operands(&self, node: &Node, outputs: &[Fact]) -> Result<Vec<Option<Operand>>> {
        node.outputs
            .iter()
            .zip(outputs)
            .map(|(v, f)| match (v, f.dtype(), f.shape()) {
                (None, ..) => Ok(None),
                (Some(_), Some(d), Some(s)) => Ok(Some(Operand::dense(d, &s))),
                _ => bail!(Internal, "an output's fact is not concrete: {f}"),
            })
            .collect()
    }

    /// The node's operands in the layouts that a backend wants.
    fn operands(&self, backend: usize, node: &Node, outputs: &[Fact]) -> Result<Operands> {
        let target = &self.program.target;
        let space = target.space(backend);
        let mut ins: Vec<Option<Operand>> = Vec::with_capacity(node.inputs.len());
        for v in &node.inputs {
            ins.push(v.map(|v| self.operand(v, space)).transpose()?);
        }
        let mut outs = self.output_operands(node, outputs)?;
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

    fn bind(&self, backend: usize, node: &Node, operands: &Operands) -> Result<Box<dyn Step>> {
        let target = &self.program.target;
        let view = NodeView { name: &node.name, op: &*node.op, inputs: &operands.ins, outputs: &operands.outs };
        target.backend(backend).bind(&view, &target.cache)
    }

    /// Adds the node's step.
    pub(super) fn step(&mut self, id: NodeId, node: &Node, outputs: Vec<Fact>) -> Result<()> {
        if node.op.alias() == Alias::View && self.view(node, &outputs)? {
            return Ok(());
        }
        let target = &self.program.target;
        let cpu = target.cpu_index();
        let device = match self.device_for(node, &outputs) {
            None => None,
            Some(device) => {
                let operands = self.operands(device, node, &outputs)?;
                match self.bind(device, node, &operands) {
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

        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (i, v) in node.inputs.iter().enumerate() {
            let is_constant = operands.ins[i].as_ref().is_some_and(|o| o.constant.is_some());
            let is_read = match &step {
                // Devices keep constants themselves: they took them when the step was bound.
                Some(step) => step.reads(i) && !(is_constant && space != 0),
                // Known when the kernel is.
                None => !(is_constant && operands.layouts.input(i) == Default::default()),
            };
            inputs.push(match v {
                Some(v) if is_read => self.variant(*v, space, operands.layouts.input(i))?,
                _ => NO_VALUE,
            });
        }
        let mut results = Vec::with_capacity(node.outputs.len());
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
        let in_place = match node.op.alias() {
            Alias::InPlace(k) => k,
            _ => &[],
        };
        if step.is_none() {
            self.unbound.push(Unbound { item: self.items.len(), node: id, operands });
        }
        self.items.push(Item::Step(StepItem {
            node: id,
            step: step.unwrap_or_else(|| Box::new(Placeholder)),
            inputs: inputs.into(),
            outputs: results.into(),
            in_place,
            backend,
            space,
            workspace: 0,
        }));
        Ok(())
    }

    /// Binds the kernels that wait for it, the one with the largest weights first.
    pub(in crate::plan) fn bind_all(&mut self, threads: &dyn Parallel) -> Result<()> {
        let mut waiting = std::mem::take(&mut self.unbound);
        waiting.sort_by_cached_key(|u| Reverse(u.weight()));
        let graph = &self.program.graph;
        let cpu = self.program.target.cpu_index();
        let bound: Vec<Mutex<Option<Result<Box<dyn Step>>>>> = waiting.iter().map(|_| Mutex::new(None)).collect();
        threads.run(waiting.len(), &|_, i| {
            let made = self.bind(cpu, graph.node(waiting[i].node), &waiting[i].operands);
            *bound[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        });
        let bound = bound.into_iter().map(|b| b.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut done: Vec<_> = waiting.into_iter().zip(bound).collect();
        // In the nodes' order again, so that the first node's error is told.
        done.sort_by_key(|(u, _)| u.item);
        for (u, step) in done {
            let node = graph.node(u.node);
            let step = step.unwrap_or_else(|| Err(err!(Internal, "the pool left out a task")));
            let step = step.context(|| self.describe(node))?;
            for (i, v) in node.inputs.iter().enumerate() {
                let Some(v) = v.filter(|_| u.operands.ins[i].as_ref().is_some_and(|o| o.constant.is_some())) else {
                    continue;
                };
                if step.reads(i) && u.operands.layouts.input(i) == Default::default() {
                    let slot = self.constant(v, step.needs_alignment(i))?;
                    if let Item::Step(item) = &mut self.items[u.item] {
                        item.inputs[i] = slot;
                    }
                }
            }
            if let Item::Step(item) = &mut self.items[u.item] {
                item.step = step;
            }
        }
        Ok(())
    }

    /// The error of a node that only the CPU could run, where a device is required.
    pub(super) fn not_claimed(&self, node: &Node, outputs: &[Fact]) -> Error {
        let ins: Result<Vec<_>> =
            node.inputs.iter().map(|v| v.map(|v| self.operand(v, u32::MAX)).transpose()).collect();
        let (Ok(ins), Ok(outs)) = (ins, self.output_operands(node, outputs)) else {
            return err!(Unsupported, "a device is required, and operator {} runs on the CPU only", node.op.name());
        };
        let view = NodeView { name: &node.name, op: &*node.op, inputs: &ins, outputs: &outs };
        let devices = self.program.target.devices.iter();
        let whys: Vec<String> =
            devices.filter_map(|d| Some(format!("{}: {}", d.name(), d.claims(&view).err()?))).collect();
        err!(Unsupported, "a device is required, and none runs operator {}: {}", node.op.name(), whys.join("; "))
    }
}
