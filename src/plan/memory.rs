//! Places every arena slot: lifetimes, in-place reuse, offsets.

use super::{Item, Slot, SlotKind};
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

fn root_of(slots: &[Slot], s: u32) -> u32 {
    slots[s as usize].alias_of.unwrap_or(s)
}

/// Gives each arena slot and workspace an offset; `pinned` slots stay to the end of the segment. Returns the arena bytes
/// by space.
pub fn plan(items: &mut [Item], slots: &mut [Slot], pinned: &[u32], spaces: usize) -> Vec<usize> {
    let mut last = vec![0usize; slots.len()];
    let mut first = vec![usize::MAX; slots.len()];
    for (i, item) in items.iter().enumerate() {
        visit(item, |s, is_output| {
            let r = root_of(slots, s) as usize;
            last[r] = last[r].max(i);
            if is_output {
                first[r] = first[r].min(i);
            }
        });
    }
    for &s in pinned {
        last[root_of(slots, s) as usize] = items.len();
    }
    share_in_place(items, slots, &mut first, &mut last);

    let mut blocks = Vec::new();
    for (s, slot) in slots.iter().enumerate() {
        if slot.alias_of.is_none() && matches!(slot.kind, SlotKind::Arena(_)) && first[s] != usize::MAX {
            blocks.push(Block {
                slot: Some(s as u32),
                item: 0,
                space: slot.space,
                bytes: round_up(slot.bytes.max(1), ALIGN),
                from: first[s],
                to: last[s],
                offset: 0,
            });
        }
    }
    // What no item makes any more has no place either.
    for (s, slot) in slots.iter_mut().enumerate() {
        if slot.alias_of.is_none() && matches!(slot.kind, SlotKind::Arena(_)) && first[s] == usize::MAX {
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

/// Lets output 0 of a step take the memory of an input that dies there, where the operator allows it.
fn share_in_place(items: &[Item], slots: &mut [Slot], first: &mut [usize], last: &mut [usize]) {
    for (i, item) in items.iter().enumerate() {
        let Item::Step(step) = item else { continue };
        let Some(&out) = step.outputs.first().filter(|&&o| o != NO_VALUE) else { continue };
        let out_root = root_of(slots, out);
        let o = &slots[out_root as usize];
        // The output must be born here, in the arena.
        if !matches!(o.kind, SlotKind::Arena(_)) || first[out_root as usize] != i || out_root != out {
            continue;
        }
        let (bytes, space, layout) = (o.bytes, o.space, o.layout);
        // Memory that the step also reads under another shape would be overwritten before it is read.
        let read_otherwise = |s: u32, r: u32| {
            step.inputs
                .iter()
                .any(|&i| i != NO_VALUE && root_of(slots, i) == r && slots[i as usize].shape != slots[s as usize].shape)
        };
        let candidate = step.in_place.iter().filter_map(|&k| step.inputs.get(k).copied()).find(|&s| {
            if s == NO_VALUE || read_otherwise(s, root_of(slots, s)) {
                return false;
            }
            let r = root_of(slots, s);
            let root = &slots[r as usize];
            let own = &slots[s as usize];
            matches!(root.kind, SlotKind::Arena(_))
                && last[r as usize] == i
                && root.bytes == bytes
                && root.space == space
                && own.layout == layout
        });
        let Some(input) = candidate else { continue };
        let r = root_of(slots, input);
        for s in slots.iter_mut() {
            if s.alias_of == Some(out) {
                s.alias_of = Some(r);
            }
        }
        slots[out as usize].alias_of = Some(r);
        last[r as usize] = last[out as usize];
        first[out as usize] = usize::MAX;
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
