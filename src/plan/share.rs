//! Which slots share memory: views, parts of a whole, results that overwrite their operands.
//!
//! Slots of one memory are a family: its root has the memory, the others lie within at a byte offset.

use super::memory::Life;
use super::{Item, Slot, SlotKind};
use crate::backend::Layout;
use crate::backend::step::NO_VALUE;
use crate::ir::Region;
use smallvec::SmallVec;

/// A place in the memory of another slot, which is no part of a third.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within {
    /// The slot.
    pub root: u32,
    /// Bytes from its beginning.
    pub offset: usize,
}

impl Slot {
    /// Where slot `s` of the table lies: itself, if it is within no other.
    pub fn place(slots: &[Slot], s: u32) -> Within {
        slots[s as usize].within.unwrap_or(Within { root: s, offset: 0 })
    }
}

/// How the tensors of a node share memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The part is the whole under another shape; there is no step.
    View,
    /// The parts are read where the whole lies.
    Parts,
    /// The parts are made where the whole will be.
    Joined,
}

/// A node whose tensors may share memory.
#[derive(Clone, Debug)]
pub struct Joint {
    /// The node's position in the graph's order.
    pub at: usize,
    /// How they would.
    pub sharing: Sharing,
    /// The slot that has the others within.
    pub whole: u32,
    /// Whether something reads the whole after this node.
    pub lives_on: bool,
    /// Slots, and where they begin in the whole; `None` where their elements do not lie together.
    pub parts: SmallVec<[(u32, Option<usize>); 2]>,
}

/// Bytes from the beginning of a tensor of shape `whole` to a region's, if the region's elements lie as they would by themselves.
pub fn byte_offset(region: &Region, whole: &[usize], layout: Layout, element: usize) -> Option<usize> {
    let (mut start, mut size, mut whole) =
        (region.start.clone(), region.size.clone(), SmallVec::<[usize; 6]>::from(whole));
    let mut stride = element;
    if let Layout::Blocked(c) = layout {
        let (from, n, all) = (*start.get(1)?, *size.get(1)?, *whole.get(1)?);
        // The lanes behind the last channel are zeros; other channels must not take their place.
        if from % c != 0 || n % c != 0 && from + n != all {
            return None;
        }
        (start[1], size[1], whole[1]) = (from / c, n.div_ceil(c), all.div_ceil(c));
        stride *= c;
    }
    let (mut offset, mut is_cut) = (0, false);
    for ((&start, &size), &whole) in start.iter().zip(&size).zip(&whole).rev() {
        if is_cut && size != 1 {
            return None;
        }
        is_cut |= size != whole;
        offset += start * stride;
        stride *= whole;
    }
    Some(offset)
}

/// The slots of each memory, as a list that is walked from its root.
struct Families {
    next: Vec<u32>,
    end: Vec<u32>,
}

impl Families {
    fn of(slots: &[Slot]) -> Families {
        let n = slots.len() as u32;
        let mut this = Families { next: vec![NO_VALUE; slots.len()], end: (0..n).collect() };
        for s in 0..n {
            if let Some(w) = slots[s as usize].within {
                this.append(w.root, s);
            }
        }
        this
    }
    fn append(&mut self, root: u32, other: u32) {
        let end = self.end[root as usize] as usize;
        self.next[end] = other;
        self.end[root as usize] = self.end[other as usize];
    }
    fn members(&self, root: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(root), |&s| Some(self.next[s as usize]).filter(|&n| n != NO_VALUE))
    }
    /// Moves a whole family into another root's memory.
    fn absorb(&mut self, slots: &mut [Slot], root: u32, into: Within) {
        let mut member = root;
        while member != NO_VALUE {
            let offset = slots[member as usize].within.map_or(0, |w| w.offset) + into.offset;
            slots[member as usize].within = Some(Within { root: into.root, offset });
            member = self.next[member as usize];
        }
        self.append(into.root, root);
    }
}

/// The memory that is alive at each item.
struct Load {
    /// Of each root: its family's life.
    lives: Vec<Life>,
    /// By item.
    bytes: Vec<usize>,
}

impl Load {
    fn of(slots: &[Slot], lives: &[Life]) -> Load {
        let end = lives.iter().map(|l| l.last + 1).max().unwrap_or(0);
        let mut this = Load { lives: lives.to_vec(), bytes: vec![0; end] };
        for (s, &life) in slots.iter().zip(lives) {
            if s.within.is_none() && is_arena(s) {
                this.count(life, s.bytes, usize::wrapping_add);
            }
        }
        this
    }
    fn count(&mut self, life: Life, bytes: usize, add: fn(usize, usize) -> usize) {
        let alive = self.bytes.iter_mut().take(life.last + 1).skip(life.first);
        alive.for_each(|n| *n = add(*n, bytes));
    }
    /// What changes when a family moves into another.
    fn move_into(&mut self, slots: &[Slot], root: u32, part: u32) {
        let (whole, own) = (self.lives[root as usize], self.lives[part as usize]);
        self.lives[root as usize] = whole.with(own);
        let (all, part) = (&slots[root as usize], &slots[part as usize]);
        if is_arena(part) {
            self.count(own, part.bytes, usize::wrapping_sub);
        }
        if is_arena(all) {
            self.count(whole, all.bytes, usize::wrapping_sub);
            self.count(whole.with(own), all.bytes, usize::wrapping_add);
        }
    }
    /// Whether there was more at some time than at any now, if these moved into another.
    fn grows(&self, slots: &[Slot], root: u32, parts: &[(u32, usize)]) -> bool {
        let all = || parts.iter().map(|p| p.0).chain([root]);
        let life = all().map(|s| self.lives[s as usize]).fold(self.lives[root as usize], Life::with);
        let alive = |t: usize| {
            all().filter(move |&s| (self.lives[s as usize].first..=self.lives[s as usize].last).contains(&t))
        };
        let now = |t: usize| alive(t).map(|s| slots[s as usize].bytes).sum::<usize>();
        let peak = self.peak();
        (life.first..=life.last).any(|t| self.bytes[t] + slots[root as usize].bytes > peak + now(t))
    }
    fn peak(&self) -> usize {
        self.bytes.iter().copied().max().unwrap_or(0)
    }
}

/// Whether a slot's memory is planned, or could be. A graph output's counts as the arena's here: plans for other sizes come with
/// their outputs marked already.
fn is_arena(s: &Slot) -> bool {
    matches!(s.kind, SlotKind::Arena(_) | SlotKind::Output(_))
}

/// Lets the tensors of nodes share memory where that is right and saves some. Tells it for each part of each joint. `lives`
/// are those of the slots by themselves.
pub fn share(slots: &mut [Slot], joints: &[Joint], lives: &[Life]) -> Vec<bool> {
    let mut families = Families::of(slots);
    let mut load = Load::of(slots, lives);
    let mut shared = Vec::with_capacity(joints.len());
    for j in joints {
        if j.sharing == Sharing::Joined {
            let mut joined = SmallVec::<[(u32, usize); 8]>::new();
            let mut fits = |&(part, offset): &(u32, Option<usize>)| {
                if part == NO_VALUE || slots[part as usize].bytes == 0 {
                    return part != NO_VALUE;
                }
                let root = Slot::place(slots, part).root;
                let (own, all, whole) = (&slots[part as usize], &slots[root as usize], &slots[j.whole as usize]);
                // It has its memory for itself, and that is not somebody else's part already.
                let is_own = is_arena(all) && all.bytes == own.bytes && all.space == whole.space && root != j.whole;
                match offset.filter(|_| is_own && !joined.iter().any(|p| p.0 == root)) {
                    Some(offset) => joined.push((root, offset)),
                    None => return false,
                }
                true
            };
            let first = shared.len();
            shared.extend(j.parts.iter().map(&mut fits));
            // All of the whole is alive from the first part on: not where that is more than there is at any time now.
            if load.grows(slots, j.whole, &joined) {
                let is_empty = |p: &(u32, Option<usize>)| p.0 != NO_VALUE && slots[p.0 as usize].bytes == 0;
                shared.truncate(first);
                shared.extend(j.parts.iter().map(is_empty));
                joined.clear();
            }
            for (root, offset) in joined {
                load.move_into(slots, j.whole, root);
                families.absorb(slots, root, Within { root: j.whole, offset });
            }
            continue;
        }
        let bytes: usize = j.parts.iter().map(|p| slots[p.0 as usize].bytes).sum();
        let joins = j.whole != NO_VALUE && j.parts.iter().all(|p| p.1.is_some()) && {
            let root = &slots[Slot::place(slots, j.whole).root as usize];
            let whole = slots[j.whole as usize].bytes;
            match j.sharing {
                Sharing::View => bytes == whole,
                // A small part must not keep a large whole in memory.
                _ => j.lives_on || !is_arena(root) || bytes.saturating_mul(2) >= whole,
            }
        };
        for &(part, offset) in &j.parts {
            if let Some(offset) = offset.filter(|_| joins) {
                let at = Slot::place(slots, j.whole);
                load.move_into(slots, at.root, part);
                families.absorb(slots, part, Within { root: at.root, offset: at.offset + offset });
            }
            shared.push(joins);
        }
    }
    shared
}

/// Lets output 0 of a step take the memory of an input that nobody needs behind it, where the operator allows it.
pub fn share_in_place(items: &[Item], slots: &mut [Slot], lives: &[Life]) {
    let mut families = Families::of(slots);
    // Of each root: its family's.
    let mut all: Vec<Life> = lives.to_vec();
    for s in 0..slots.len() as u32 {
        let root = Slot::place(slots, s).root;
        all[root as usize] = all[root as usize].with(lives[s as usize]);
    }
    for (i, item) in items.iter().enumerate() {
        let Item::Step(step) = item else { continue };
        let Some(&out) = step.outputs.first().filter(|&&o| o != NO_VALUE) else { continue };
        let to = Slot::place(slots, out);
        let o = &slots[out as usize];
        // Its own memory, born here, or its part of a larger one, which nobody looks at before.
        let is_own = to.root == out && all[out as usize].first == i;
        if !matches!(slots[to.root as usize].kind, SlotKind::Arena(_)) || !is_own && to.root == out {
            continue;
        }
        let candidate = step.in_place.iter().filter_map(|&k| step.inputs.get(k).copied()).find(|&s| {
            if s == NO_VALUE {
                return false;
            }
            let (own, at) = (&slots[s as usize], Slot::place(slots, s));
            let root = &slots[at.root as usize];
            let overlaps = |t: u32| {
                let (t, other) = (&slots[t as usize], Slot::place(slots, t));
                other.root == at.root && other.offset < at.offset + own.bytes && at.offset < other.offset + t.bytes
            };
            // Memory that the step also reads under another shape would be overwritten before it is read.
            let reads_otherwise = |t: u32| {
                t != NO_VALUE && overlaps(t) && (Slot::place(slots, t) != at || slots[t as usize].shape != own.shape)
            };
            let (mine, theirs) = (all[at.root as usize], all[to.root as usize]);
            let is_whole = root.bytes == own.bytes;
            matches!(root.kind, SlotKind::Arena(_))
                && at.root != to.root
                && own.bytes == o.bytes
                // Wider elements of a smaller input, which is broadcast, may have as many bytes.
                && own.dtype.bits() == o.dtype.bits()
                && own.space == o.space
                && own.layout == o.layout
                // The memory that is left must not be kept longer for it.
                && if is_own { is_whole || theirs.last <= mine.last } else { is_whole && theirs.first <= mine.first }
                && !step.inputs.iter().any(|&t| reads_otherwise(t))
                && families.members(at.root).all(|t| !overlaps(t) || lives[t as usize].last <= i)
        });
        let Some(input) = candidate else { continue };
        let at = Slot::place(slots, input);
        let (gone, into) = if is_own { (out, at) } else { (at.root, to) };
        all[into.root as usize] = all[into.root as usize].with(all[gone as usize]);
        families.absorb(slots, gone, into);
    }
}
