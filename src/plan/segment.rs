//! The finished form of a plan's part: items over slots.

use super::share::Within;
use crate::backend::{Layout, Step};
use crate::ir::fact::MAX_CONTENTS;
use crate::ir::{Fact, NodeId, ValueId};
use crate::tensor::{DType, Dims, Tensor};
use smallvec::SmallVec;
use std::sync::Arc;

/// A place in a segment's table: a graph's value in one layout and memory space.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Element type.
    pub dtype: DType,
    /// Axis sizes.
    pub shape: Dims,
    /// Layout.
    pub layout: Layout,
    /// 0 is the host; others are index of the backend in the target's list, plus one.
    pub space: u32,
    /// Size in bytes.
    pub bytes: usize,
    /// Where its memory comes from.
    pub kind: SlotKind,
    /// Where it lies, if in another's memory (a view, a part, or in place).
    pub within: Option<Within>,
}

/// Where a slot's memory comes from.
#[derive(Clone, Debug)]
pub enum SlotKind {
    /// The caller's input of this index.
    Input(usize),
    /// A constant of the plan or graph.
    Constant(Tensor),
    /// The arena of its space, at this byte offset once planned.
    Arena(usize),
    /// The caller's output of this index.
    Output(usize),
    /// Made by an eager or control item of this segment.
    Dynamic,
    /// Made by an earlier segment.
    Carried(ValueId),
    /// Nowhere: its step was dropped, for nobody reads the result.
    Unused,
}

/// One entry of the list. A clone shares the kernel.
#[derive(Clone)]
pub enum Item {
    /// A bound kernel.
    Step(StepItem),
    /// Host to device: from slot, to slot, bytes; `backend` indexes the target's list.
    CopyIn { backend: usize, from: u32, to: u32, bytes: usize },
    /// Device to host.
    CopyOut { backend: usize, from: u32, to: u32, bytes: usize },
    /// An eager operator, or a view of something that is not plain data.
    Eager(DynamicItem),
    /// A node with subgraphs.
    Control(DynamicItem),
}

/// A bound kernel with its operands.
#[derive(Clone)]
pub struct StepItem {
    /// The node, for messages and profiles.
    pub node: NodeId,
    /// The kernel.
    pub step: Arc<dyn Step>,
    /// Slots of the inputs; `NO_VALUE` where one is not given.
    pub inputs: SmallVec<[u32; 4]>,
    /// Slots of the outputs; `NO_VALUE` where one is not asked for.
    pub outputs: SmallVec<[u32; 2]>,
    /// Inputs whose memory output 0 may take.
    pub in_place: &'static [usize],
    /// Index of the backend in the target's list.
    pub backend: usize,
    /// The memory space it works in.
    pub space: u32,
    /// Offset of the workspace in the arena of that space.
    pub workspace: usize,
}

/// A node that works on values.
#[derive(Clone)]
pub struct DynamicItem {
    /// The node.
    pub node: NodeId,
    /// For each input the dense host slot, or `NO_VALUE` where it is a frame value, constant, or not given.
    pub inputs: Box<[u32]>,
    /// For each output: a `Dynamic` slot if later items read it as plain data.
    pub outputs: Box<[u32]>,
}

/// A straight list of items, its memory planned.
pub struct Segment {
    /// What to do, in order.
    pub items: Vec<Item>,
    /// The table of places.
    pub slots: Vec<Slot>,
    /// Arena bytes by space.
    pub arena: Vec<usize>,
    /// Scratch bytes a thread.
    pub scratch: usize,
    /// Graph outputs that steps write directly: output index, slot.
    pub direct_outputs: Vec<(usize, u32)>,
    /// The slots under which the directly written outputs are seen (a view of the slot written): output index, slot.
    pub output_slots: Vec<(usize, u32)>,
    /// Graph outputs copied from a host slot at the end of this segment: output index, slot.
    pub copied_outputs: Vec<(usize, u32)>,
    /// Plain values that later segments read: value, dense host slot.
    pub exports: Vec<(ValueId, u32)>,
    /// Slots whose place follows, in each run, that of another (within inputs, outputs, and values made on the fly).
    pub late: Vec<(u32, Within)>,
    /// What follows.
    pub tail: Option<Tail>,
}

/// The continuation of a segment, planned when the watched values are there.
pub struct Tail {
    /// Position in the graph's order of the node to plan next.
    pub at: usize,
    /// Values whose shapes (and contents, where `true`) decide the continuation.
    pub watch: Vec<(ValueId, bool)>,
    /// What is known of each value so far.
    pub facts: Vec<Fact>,
    /// Tells the segments apart that have a continuation.
    pub id: u64,
}

impl Segment {
    /// About how many bytes of memory it has for itself: its tables, small constants, and kernels that no other plan shares;
    /// not packed weights, which plans share.
    pub(super) fn bytes(&self) -> usize {
        /// An allocation's own, and the few numbers that a kernel keeps in a list.
        const HEAP: usize = 16;
        const LISTS: usize = 64;
        let item = |i: &Item| match i {
            Item::Step(s) if Arc::strong_count(&s.step) == 1 => HEAP + LISTS + size_of_val(&*s.step),
            Item::Eager(d) | Item::Control(d) => 2 * HEAP + 4 * (d.inputs.len() + d.outputs.len()),
            _ => 0,
        };
        let small = |s: &Slot| match &s.kind {
            SlotKind::Constant(t) if t.len() <= MAX_CONTENTS => t.byte_len(),
            _ => 0,
        };
        let tail = |t: &Tail| t.facts.len() * 2 * size_of::<Fact>() + t.watch.len() * size_of::<(ValueId, bool)>();
        size_of::<Segment>()
            + 8 * HEAP
            + self.items.capacity() * size_of::<Item>()
            + self.items.iter().map(item).sum::<usize>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.slots.iter().map(small).sum::<usize>()
            + self.late.len() * size_of::<(u32, Within)>()
            + self.exports.len() * size_of::<(ValueId, u32)>()
            + 3 * self.output_slots.len() * size_of::<(usize, u32)>()
            + self.tail.as_ref().map_or(0, tail)
    }
}
