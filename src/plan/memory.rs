//! Places every arena slot: lifetimes and offsets.

use super::share::share_in_place;
use super::{Item, Segment, Slot, SlotKind};
use crate::backend::step::NO_VALUE;
use crate::base::alloc::{ALIGN, round_up};
use std::cmp::Reverse;

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
pub fn lives(items: &[Item], slots: usize, pinned: impl Iterator<Item = u32>) -> Vec<Life> {
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

/// How many pairs of blocks are compared at most beyond the first try: a fraction of a millisecond. Eight times as many while
/// there is more than a twentieth to win.
const PATIENCE: usize = 1 << 17;

/// Gives each block an offset; returns the bytes of each space.
///
/// Blocks go one after the other to the lowest gap among those placed before them and alive at the same time: the largest
/// first. Where that takes more than what is alive at one time, other orders are tried: by lifetime, then the best so far
/// with one block moved to another turn, over and over: any, and in between one that reaches too far, to an earlier turn.
/// Nothing but the blocks decides, so that equal plans stay equal.
fn place(blocks: &mut [Block], spaces: usize) -> Vec<usize> {
    let mut sizes = vec![0usize; spaces + 1];
    let mut gaps = Vec::new();
    for (space, size) in sizes.iter_mut().enumerate() {
        let mut order: Vec<usize> = (0..blocks.len()).filter(|&i| blocks[i].space as usize == space).collect();
        let near = Neighbours::of(blocks, &order);
        order.sort_by_key(|&i| (Reverse(blocks[i].bytes), blocks[i].from));
        *size = fit(blocks, &order, &near, &mut gaps);
        let bound = largest_live(blocks, &order);
        let tries = PATIENCE / near.list.len().max(1);
        if *size <= bound || tries == 0 {
            continue;
        }
        let of = order.clone();
        let offsets = |blocks: &[Block]| of.iter().map(|&i| blocks[i].offset).collect::<Vec<_>>();
        let reaches_too_far = |blocks: &[Block], i: usize| blocks[i].offset + blocks[i].bytes > bound;
        let too_far = |blocks: &[Block], order: &[usize]| {
            let turns = order.iter().enumerate().filter(|&(_, &i)| reaches_too_far(blocks, i));
            turns.map(|(turn, _)| turn).collect::<Vec<_>>()
        };
        let (mut best, mut best_order, mut far) = (offsets(blocks), order.clone(), too_far(blocks, &order));
        let life = |b: &Block| b.to - b.from + 1;
        let mut seed = 1u64;
        let mut below = |n: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % n
        };
        for k in 0..8 * tries {
            if *size <= bound || k >= tries && *size <= bound + bound / 20 {
                break;
            }
            order.clone_from(&best_order);
            match k {
                0 => order.sort_by_key(|&i| Reverse(blocks[i].bytes.saturating_mul(life(&blocks[i])))),
                1 => order.sort_by_key(|&i| Reverse(life(&blocks[i]))),
                _ => {
                    let (from, to) = match k % 2 {
                        0 => (below(of.len()), of.len()),
                        _ => {
                            let from = far[below(far.len())];
                            (from, from + 1)
                        }
                    };
                    let moved = order.remove(from);
                    order.insert(below(to), moved);
                }
            }
            let new = fit(blocks, &order, &near, &mut gaps);
            // Moves that change nothing are taken too: others become possible by them.
            if new <= *size {
                (far, best) = (too_far(blocks, &order), offsets(blocks));
                best_order.clone_from(&order);
                *size = new;
            }
        }
        of.iter().zip(best).for_each(|(&i, offset)| blocks[i].offset = offset);
    }
    sizes
}

/// For each block those that are alive at the same time, as one list.
struct Neighbours {
    /// By block: where its part begins; one more entry for the end.
    starts: Vec<usize>,
    list: Vec<u32>,
}

impl Neighbours {
    /// Among blocks of one space.
    fn of(blocks: &[Block], of: &[usize]) -> Neighbours {
        let mut by_time = of.to_vec();
        by_time.sort_unstable_by_key(|&i| blocks[i].from);
        let each_pair = |f: &mut dyn FnMut(usize, usize)| {
            for (k, &i) in by_time.iter().enumerate() {
                let later = by_time[k + 1..].iter().take_while(|&&j| blocks[j].from <= blocks[i].to);
                later.for_each(|&j| f(i, j));
            }
        };
        let mut starts = vec![0; blocks.len() + 1];
        each_pair(&mut |i, j| {
            starts[i] += 1;
            starts[j] += 1;
        });
        let mut end = 0;
        for s in &mut starts {
            end += *s;
            *s = end;
        }
        // Filled from behind: each part's end becomes its beginning.
        let mut list = vec![0; end];
        each_pair(&mut |i, j| {
            for (own, other) in [(i, j), (j, i)] {
                starts[own] -= 1;
                list[starts[own]] = other as u32;
            }
        });
        Neighbours { starts, list }
    }
    fn of_block(&self, i: usize) -> &[u32] {
        &self.list[self.starts[i]..self.starts[i + 1]]
    }
}

/// Gives the blocks offsets in this order; returns the bytes they take.
fn fit(blocks: &mut [Block], order: &[usize], near: &Neighbours, taken: &mut Vec<(usize, usize)>) -> usize {
    const NOWHERE: usize = usize::MAX;
    order.iter().for_each(|&i| blocks[i].offset = NOWHERE);
    let mut size = 0;
    for &i in order {
        taken.clear();
        let others = near.of_block(i).iter().map(|&j| &blocks[j as usize]);
        taken.extend(others.filter(|b| b.offset != NOWHERE).map(|b| (b.offset, b.offset + b.bytes)));
        taken.sort_unstable();
        let (mut offset, bytes) = (0, blocks[i].bytes);
        for &(from, to) in taken.iter() {
            if offset + bytes <= from {
                break;
            }
            offset = offset.max(to);
        }
        blocks[i].offset = offset;
        size = size.max(offset + bytes);
    }
    size
}

/// The most bytes of these blocks that are alive at one time.
fn largest_live(blocks: &[Block], of: &[usize]) -> usize {
    let end = of.iter().map(|&i| blocks[i].to + 2).max().unwrap_or(0);
    let mut change = vec![0isize; end];
    for b in of.iter().map(|&i| &blocks[i]) {
        change[b.from] += b.bytes as isize;
        change[b.to + 1] -= b.bytes as isize;
    }
    let sums = change.iter().scan(0isize, |live, &c| {
        *live += c;
        Some(*live)
    });
    sums.max().unwrap_or(0).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(of: &[(usize, usize, usize)]) -> Vec<Block> {
        let block = |&(bytes, from, to)| Block { slot: None, item: 0, space: 0, bytes, from, to, offset: 0 };
        of.iter().map(block).collect()
    }

    /// The last blocks of HiFi-GAN: three branches of convolutions, whose results are added in the end.
    #[test]
    #[rustfmt::skip]
    fn a_vocoder_takes_what_is_alive() {
        let all = [
            (1, 0, 1), (1, 1, 27), (1, 2, 25), (2, 3, 4), (1, 4, 5), (1, 5, 8), (1, 6, 7), (1, 7, 9), (2, 8, 9), (2, 9, 13),
            (2, 10, 11), (1, 11, 12), (1, 12, 13), (2, 13, 36), (2, 14, 15), (1, 15, 16), (1, 16, 19), (1, 17, 18),
            (1, 18, 20), (2, 19, 20), (2, 20, 24), (2, 21, 22), (1, 22, 23), (1, 23, 24), (2, 24, 36), (2, 25, 26),
            (1, 26, 27), (1, 27, 30), (1, 28, 29), (1, 29, 31), (2, 30, 31), (2, 31, 35), (2, 32, 33), (1, 33, 34),
            (1, 34, 35), (2, 35, 36), (2, 36, 37), (1, 37, 38),
            // Workspaces.
            (2, 1, 1), (1, 5, 5), (1, 7, 7), (1, 12, 12), (1, 16, 16), (1, 18, 18), (1, 23, 23), (1, 27, 27), (1, 29, 29),
            (1, 34, 34),
        ];
        assert_eq!(place(&mut blocks(&all), 0), [9]);
    }

    #[test]
    fn what_lives_at_one_time_lies_apart_and_close() {
        // Made so that the largest first leaves a hole: (bytes, from, to).
        let tight = blocks(&[(64, 0, 1), (128, 1, 2), (192, 2, 3), (64, 2, 4), (128, 4, 5), (256, 4, 4)]);
        let mut seed = 7u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        let mut worst: f64 = 0.0;
        let cases = (0..200).map(|_| {
            let block = |_| {
                let from = random(40) as usize;
                (64 * (1 + random(30) as usize), from, from + random(6) as usize)
            };
            blocks(&(0..40).map(block).collect::<Vec<_>>())
        });
        for mut case in std::iter::once(tight).chain(cases.collect::<Vec<_>>()) {
            let all: Vec<usize> = (0..case.len()).collect();
            let (size, bound) = (place(&mut case, 0)[0], largest_live(&case, &all));
            for (i, a) in case.iter().enumerate() {
                assert!(a.offset + a.bytes <= size);
                for b in &case[i + 1..] {
                    let apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
                    assert!(apart || a.to < b.from || b.to < a.from);
                }
            }
            worst = worst.max(size as f64 / bound as f64);
        }
        assert!(worst <= 1.1, "{worst:.3} of the largest live set");
    }
}
