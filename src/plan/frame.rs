//! The state of one run.

use super::control::Kept;
use super::key::Key;
use super::program::Target;
use super::{Segment, Slot, SlotKind};
use crate::backend::Memory;
use crate::backend::step::Place;
use crate::base::alloc::Buffer;
use crate::base::budget::Charge;
use crate::base::trylock::TryLock;
use crate::ensure;
use crate::error::Result;
use crate::ir::NodeId;
use crate::tensor::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// The state of one run; kept and used again, so that a run of a known shape allocates nothing.
pub struct Frame {
    /// Values that are not in an arena, by graph value: what eager items made, inputs that are no plain tensors.
    pub values: Vec<Option<Value>>,
    /// Where values of earlier segments are, by graph value.
    pub carried: Vec<Place>,
    /// What the first part's segment was planned for.
    key: Key,
    /// Memory for keys, of the first segment and of later ones.
    pub spare_key: Key,
    pub later_key: Key,
    /// By segment.
    pub parts: Vec<Part>,
    /// Scratch of all threads.
    pub scratch: Buffer,
    /// What nodes that work on values keep from run to run.
    kept: Vec<(NodeId, Kept)>,
}

/// Sizes go in steps of an eighth of their power of two, so that a past that grows by one token does not take new memory
/// with each.
fn size_class(bytes: usize) -> usize {
    let step = (bytes.checked_next_power_of_two().unwrap_or(bytes) / 16).max(64);
    bytes.checked_next_multiple_of(step).unwrap_or(bytes)
}

/// One segment's share of a frame.
#[derive(Default)]
pub struct Part {
    /// The table of places, by slot.
    pub places: Vec<Place>,
    /// Arenas in device memory, by space; the host's is `arena`.
    pub memories: Vec<Option<Arc<dyn Memory>>>,
    /// What those take of the session's budget.
    charges: Vec<Charge>,
    /// The host's arena.
    pub arena: Option<Buffer>,
    /// The segment the table was laid out for, by address; 0 for none.
    laid_out: usize,
    /// Keeps that segment alive, so that its address stays its own.
    segment: Option<Arc<Segment>>,
}

/// The frames of a program that no run has. The first few are found without a lock.
#[derive(Default)]
pub struct Frames {
    /// Boxed: a frame is moved out, so that one whose run panics is lost.
    few: [TryLock<Option<Box<Frame>>>; 8],
    #[allow(clippy::vec_box)]
    more: Mutex<Vec<Box<Frame>>>,
}

impl Frames {
    /// Lends one, or a new one for a graph of so many values.
    pub fn with<R>(&self, values: usize, run: impl FnOnce(&mut Frame) -> R) -> R {
        let new = || Box::new(Frame::new(values));
        if let Some(mut place) = self.few.iter().find_map(TryLock::try_lock) {
            let mut frame = place.take().unwrap_or_else(new);
            let result = run(&mut frame);
            *place = Some(frame);
            return result;
        }
        let idle = || self.more.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frame = idle().pop().unwrap_or_else(new);
        let result = run(&mut frame);
        idle().push(frame);
        result
    }
    /// Frees them.
    pub fn clear(&self) {
        self.few.iter().filter_map(TryLock::try_lock).for_each(|mut place| *place = None);
        self.more.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

// SAFETY: the places point into memory that the frame itself owns, constants, or the caller's tensors during one run;
// a frame is used by one run at a time.
unsafe impl Send for Frame {}

impl Frame {
    /// An empty frame for a graph of so many values.
    pub fn new(values: usize) -> Self {
        Frame {
            values: vec![None; values],
            carried: vec![Place::NONE; values],
            key: Key::new(),
            spare_key: Key::new(),
            later_key: Key::new(),
            parts: Vec::new(),
            scratch: Buffer::empty(),
            kept: Vec::new(),
        }
    }
    /// What a node kept; `keep` gives it back.
    pub fn take_kept(&mut self, node: NodeId) -> Kept {
        self.kept.iter_mut().find(|k| k.0 == node).map(|k| std::mem::take(&mut k.1)).unwrap_or_default()
    }
    /// Keeps what a node may use again.
    pub fn keep(&mut self, node: NodeId, kept: Kept) {
        match self.kept.iter_mut().find(|k| k.0 == node) {
            Some(k) => k.1 = kept,
            None => self.kept.push((node, kept)),
        }
    }
    /// Lets go of the values of a run, but neither of memory nor of the segment it began with.
    pub fn end_run(&mut self, key: Key, first: Arc<Segment>) {
        self.values.iter_mut().for_each(|v| *v = None);
        self.spare_key = std::mem::replace(&mut self.key, key);
        if let Some(part) = self.parts.first_mut() {
            part.segment = Some(first);
        }
        self.kept.iter_mut().for_each(|k| k.1.end_run());
    }
    /// Makes scratch for `width` threads of `each` bytes.
    pub fn need_scratch(&mut self, bytes: usize) -> Result<()> {
        if self.scratch.len() < bytes {
            self.scratch = Buffer::empty();
            self.scratch = Buffer::uninit(bytes)?;
        }
        Ok(())
    }
    /// The first segment of the last run, if it was planned for this key. Moved out and, by `end_run`, back in: a count
    /// of users that changes twice a run is seen in small models.
    pub fn take_first(&mut self, key: &Key) -> Option<Arc<Segment>> {
        if self.key == *key { self.parts.first_mut()?.segment.take() } else { None }
    }
    /// Readies part `depth` for a segment: its arenas and the places of constants and arena slots.
    pub fn lay_out(&mut self, depth: usize, segment: &Arc<Segment>, target: &Target) -> Result<()> {
        if self.parts.len() <= depth {
            self.parts.resize_with(depth + 1, Part::default);
        }
        let part = &mut self.parts[depth];
        let id = Arc::as_ptr(segment) as usize;
        if part.laid_out == id {
            return Ok(());
        }
        part.laid_out = 0;
        let host = segment.arena.first().copied().unwrap_or(0);
        if part.arena.as_ref().is_none_or(|a| a.len() < host) {
            part.arena = None;
            part.arena = Some(Buffer::uninit(size_class(host))?);
        }
        part.memories.resize(target.spaces() + 1, None);
        part.charges.resize_with(target.spaces() + 1, || Charge::NONE);
        for (space, &bytes) in segment.arena.iter().enumerate().skip(1) {
            if bytes > 0 && part.memories[space].as_ref().is_none_or(|m| m.len() < bytes) {
                part.memories[space] = None;
                part.charges[space] = Charge::NONE;
                part.charges[space] = Charge::current(bytes)?;
                part.memories[space] = Some(target.backend(space - 1).alloc(bytes)?);
            }
        }
        let base = part.arena.as_ref().map_or(std::ptr::null_mut(), Buffer::ptr);
        part.places.clear();
        part.places.resize(segment.slots.len(), Place::NONE);
        for (i, slot) in segment.slots.iter().enumerate() {
            let within = Slot::place(&segment.slots, i as u32);
            let root = &segment.slots[within.root as usize];
            part.places[i] = match &root.kind {
                SlotKind::Arena(offset) if root.space == 0 => {
                    let offset = offset + within.offset;
                    ensure!(offset + slot.bytes <= host, Internal, "a slot lies outside the arena");
                    // SAFETY: just checked: within the arena of `host` bytes.
                    Place { addr: unsafe { base.add(offset) }, space: 0 }
                }
                SlotKind::Arena(offset) => {
                    Place { addr: std::ptr::without_provenance_mut(offset + within.offset), space: root.space }
                }
                SlotKind::Constant(t) => Place { addr: t.data_ptr().cast_mut(), space: 0 }.at(within.offset),
                _ => Place::NONE,
            };
        }
        part.laid_out = id;
        part.segment = Some(segment.clone());
        Ok(())
    }
}
