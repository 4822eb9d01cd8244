//! A value in the memory space and layout that a step wants it in: found, or made by copies and reorders.

use super::Specialiser;
use crate::backend::{Layout, Operand};
use crate::bail;
use crate::error::Result;
use crate::ir::{NodeId, ValueId};
use crate::plan::segment::{Item, SlotKind, StepItem};
use smallvec::smallvec;

impl Specialiser<'_> {
    /// The value's slot in a space and layout, made by copies and reorders where need be.
    pub(super) fn variant(&mut self, v: ValueId, space: u32, layout: Layout) -> Result<u32> {
        let find = |this: &Self, space, layout| {
            this.variants[v.index()].iter().copied().find(|&s| {
                let s = &this.slots[s as usize];
                s.space == space && s.layout == layout
            })
        };
        if let Some(s) = find(self, space, layout) {
            return Ok(s);
        }
        if self.variants[v.index()].is_empty() {
            self.constant(v, true)?;
            return self.variant(v, space, layout);
        }
        if layout != Layout::Dense
            || find(self, space, Layout::Dense).is_none() && space == 0 && self.device_only(v).is_none()
        {
            // A reorder within the space, from dense or to it.
            let from = match find(self, space, Layout::Dense) {
                Some(s) => s,
                None if layout == Layout::Dense => {
                    match self.variants[v.index()].iter().copied().find(|&s| self.slots[s as usize].space == space) {
                        Some(s) => s,
                        None => bail!(Internal, "no variant to reorder"),
                    }
                }
                None => self.variant(v, space, Layout::Dense)?,
            };
            return self.reorder(v, from, layout);
        }
        // Dense in another space: through the host.
        match (space, self.device_only(v)) {
            (0, Some(from)) => {
                let backend = self.slots[from as usize].space as usize - 1;
                let to = self.copy_slot(v, 0)?;
                let bytes = self.slots[from as usize].bytes;
                self.items.push(Item::CopyOut { backend, from, to, bytes });
                Ok(to)
            }
            (space, _) => {
                let from = self.variant(v, 0, Layout::Dense)?;
                let to = self.copy_slot(v, space)?;
                let bytes = self.slots[from as usize].bytes;
                self.items.push(Item::CopyIn { backend: space as usize - 1, from, to, bytes });
                Ok(to)
            }
        }
    }

    /// The slot of a constant as it is, on the host. If it lies askew in its file and `aligned` is asked for, it moves.
    pub(super) fn constant(&mut self, v: ValueId, aligned: bool) -> Result<u32> {
        let Some(t) = self.facts[v.index()].contents_tensor() else {
            bail!(Internal, "value '{}' has no place", self.program.graph.value(v).name)
        };
        if aligned {
            t.settle()?;
        }
        match self.variants[v.index()].first() {
            Some(&slot) => Ok(slot),
            None => self.add_slot(v, SlotKind::Constant(t)),
        }
    }

    /// A dense device slot of a value that has no host slot.
    pub(super) fn device_only(&self, v: ValueId) -> Option<u32> {
        let slots = &self.variants[v.index()];
        if slots.iter().any(|&s| self.slots[s as usize].space == 0) {
            return None;
        }
        slots.iter().copied().find(|&s| self.slots[s as usize].layout == Layout::Dense)
    }

    pub(super) fn copy_slot(&mut self, v: ValueId, space: u32) -> Result<u32> {
        let s = &self.slots[self.variants[v.index()][0] as usize];
        let o = Operand::dense(s.dtype, &s.shape);
        let s = self.new_slot(o, space, SlotKind::Arena(0))?;
        self.variants[v.index()].push(s);
        Ok(s)
    }

    pub(super) fn reorder(&mut self, v: ValueId, from: u32, layout: Layout) -> Result<u32> {
        let s = self.slots[from as usize].clone();
        self.reorders.push(self.items.len());
        let backend = if s.space == 0 { self.program.target.cpu_index() } else { s.space as usize - 1 };
        let a = Operand { layout: s.layout, ..Operand::dense(s.dtype, &s.shape) };
        let b = Operand { layout, ..a.clone() };
        let step = self.program.target.backend(backend).bind_reorder(&a, &b)?;
        let to = self.new_slot(b, s.space, SlotKind::Arena(0))?;
        self.variants[v.index()].push(to);
        let node = self.program.graph.value(v).producer.map_or(NodeId(u32::MAX), |p| p.0);
        self.items.push(Item::Step(StepItem {
            node,
            step: step.into(),
            inputs: smallvec![from],
            outputs: smallvec![to],
            in_place: &[],
            backend,
            space: s.space,
            workspace: 0,
        }));
        Ok(to)
    }
}
