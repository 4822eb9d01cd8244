//! Places every arena slot: lifetimes and offsets.

use super::share::share_in_place;
use super::{Item, Segment, Slot, SlotKind};
use crate::backend::step::NO_VALUE;
use crate::base::alloc::{ALIGN, round_up};

/// A block of bytes that is needed from one item to another.
struct Block {
    slot: Option<u32>,
    item: usize,
    space: u32,
    bytes: usize,
    from: usize,
    to: usize,
    offset: usize,
}

/// The items that use a slot.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// The first that writes it; `usize::MAX` for none.
    pub first: usize,
    /// The last that uses it.
    pub last: usize,
}

impl Life {
    /// Until both have ended.
    pub fn with(self, other: Life) -> Life {
        Life { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// Gives each arena slot and workspace an offset; `pinned` slots stay to the end of the segment. Returns the arena bytes
/// by space.
pub fn plan(items: &mut [Item], slots: &mut [Slot], pinned: &[u32], spaces: usize) -> Vec<usize> {
    let mut lives = lives(items, slots.len(), pinned.iter().copied());
    share_in_place(items, slots, &lives);
    merge(&mut lives, slots);

    let mut blocks = Vec::new();
    for (s, slot) in slots.iter().enumerate() {
        if slot.within.is_none() && matches!(slot.kind, SlotKind::Arena(_)) && lives[s].first != usize::MAX {
            blocks.push(Block {
                slot: Some(s as u32),
                item: 0,
                space: slot.space,
                bytes: round_up(slot.bytes.max(1), ALIGN),
                from: lives[s].first,
                to: lives[s].last,
                offset: 0,
            });
        }
    }
    // What no item makes any more has no place either.
    for (s, slot) in slots.iter_mut().enumerate() {
        if slot.within.is_none() && matches!(slot.kind, SlotKind::Arena(_)) && lives[s].first == usize::MAX {
            slot.kind = SlotKind::Unused;
        }
    }
    for (i, item) in items.iter().enumerate() {
        if let Item::Step(step) = item
            && step.step.workspace_bytes() > 0
        {
            let bytes = round_up(step.step.workspace_bytes(), ALIGN);
            blocks.push(Block { slot: None, item: i, space: step.space, bytes, from: i, to: i, offset: 0 });
        }
    }
    let sizes = place(&mut blocks, spaces);
    for b in &blocks {
        match b.slot {
            Some(s) => slots[s as usize].kind = SlotKind::Arena(b.offset),
            None => {
                if let Item::Step(step) = &mut items[b.item] {
                    step.workspace = b.offset;
                }
            }
        }
    }
    sizes
}

/// By slot: the items that use it, `pinned` ones to the end.
fn lives(items: &[Item], slots: usize, pinned: impl Iterator<Item = u32>) -> Vec<Life> {
    let mut lives = vec![Life { first: usize::MAX, last: 0 }; slots];
    for (i, item) in items.iter().enumerate() {
        visit(item, |s, is_output| {
            let first = if is_output { i } else { usize::MAX };
            lives[s as usize] = lives[s as usize].with(Life { first, last: i });
        });
    }
    pinned.for_each(|s| lives[s as usize].last = items.len());
    lives
}

/// Gives the slots that have memory the lives of those within it.
fn merge(lives: &mut [Life], slots: &[Slot]) {
    for s in 0..slots.len() as u32 {
        let root = Slot::place(slots, s).root as usize;
        lives[root] = lives[root].with(lives[s as usize]);
    }
}

/// What a segment's steps need of the host's arena at least, in whole cache lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The values alive at one step, and its workspace, where they are largest together: no arena can be smaller.
    pub live: usize,
    /// The largest workspace of a step.
    pub workspace: usize,
}

impl Segment {
    /// What the steps need of the host's arena at least.
    pub fn needed(&self) -> Needed {
        let outputs = self.output_slots.iter().chain(&self.copied_outputs).map(|o| o.1);
        let mut lives = lives(&self.items, self.slots.len(), outputs.chain(self.exports.iter().map(|e| e.1)));
        merge(&mut lives, &self.slots);
        let mut needed = vec![0usize; self.items.len() + 1];
        for (slot, life) in self.slots.iter().zip(&lives) {
            if slot.within.is_none() && slot.space == 0 && matches!(slot.kind, SlotKind::Arena(_)) {
                let bytes = round_up(slot.bytes.max(1), ALIGN);
                needed.iter_mut().take(life.last + 1).skip(life.first).for_each(|n| *n += bytes);
            }
        }
        let mut workspace = 0;
        for (item, n) in self.items.iter().zip(&mut needed) {
            if let Item::Step(s) = item
                && s.space == 0
            {
                let bytes = round_up(s.step.workspace_bytes(), ALIGN);
                (workspace, *n) = (workspace.max(bytes), *n + bytes);
            }
        }
        Needed { live: needed.into_iter().max().unwrap_or(0), workspace }
    }
}

/// Calls `f(slot, is_output)` for each slot of an item.
pub fn visit(item: &Item, mut f: impl FnMut(u32, bool)) {
    let mut lists = |ins: &[u32], outs: &[u32]| {
        ins.iter().filter(|&&s| s != NO_VALUE).for_each(|&s| f(s, false));
        outs.iter().filter(|&&s| s != NO_VALUE).for_each(|&s| f(s, true));
    };
    match item {
        Item::Step(s) => lists(&s.inputs, &s.outputs),
        Item::CopyIn { from, to, .. } | Item::CopyOut { from, to, .. } => lists(&[*from], &[*to]),
        Item::Eager(d) | Item::Control(d) => lists(&d.inputs, &d.outputs),
    }
}

/// Offsets by "largest first, lowest gap": each block goes to the lowest offset at which nothing placed before it and
/// alive at the same time lies.
fn place(blocks: &mut [Block], spaces: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(blocks[i].bytes), blocks[i].from));
    let mut placed: Vec<Vec<usize>> = vec![Vec::new(); spaces + 1];
    let mut sizes = vec![0usize; spaces + 1];
    for i in order {
        let (space, bytes, from, to) = (blocks[i].space as usize, blocks[i].bytes, blocks[i].from, blocks[i].to);
        let mut offset = 0;
        // `placed` is kept in order of offset, so the first fitting gap is the lowest.
        for &j in &placed[space] {
            let b = &blocks[j];
            if b.to < from || to < b.from {
                continue;
            }
            if offset + bytes <= b.offset {
                break;
            }
            offset = offset.max(b.offset + b.bytes);
        }
        blocks[i].offset = offset;
        let at = placed[space].partition_point(|&j| blocks[j].offset < offset);
        placed[space].insert(at, i);
        sizes[space] = sizes[space].max(offset + bytes);
    }
    sizes
}
