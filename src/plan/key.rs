//! Plan cache keys: the shapes (and small contents) that a plan was made for.

use super::Segment;
use super::dynamic::Given;
use crate::backend::cpu::Arg;
use crate::tensor::Value;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a plan depends on, flattened. Stays on the stack for usual models.
pub type Key = SmallVec<[u64; 48]>;

/// The key of a first segment, in the memory of one that is not used any more.
pub fn of_inputs(inputs: &[impl Given], mut key: Key) -> Key {
    key.clear();
    inputs.iter().for_each(|i| push_arg(&mut key, &i.arg()));
    key
}

/// Adds what a value is to a key, not its elements.
pub fn push_arg(key: &mut Key, a: &Arg<'_>) {
    match a {
        Arg::Absent => key.push(0),
        Arg::Tensor(t) => push_shape(key, t.dtype() as u64, t.shape()),
        Arg::Value(Value::Sequence(s)) => key.extend([1001, s.len() as u64]),
        Arg::Value(Value::Optional(o)) => key.extend([1002, u64::from(o.is_some())]),
        Arg::Value(_) => key.push(1003),
    }
}

/// Adds a dtype number and a shape.
pub fn push_shape(key: &mut Key, dtype: u64, shape: &[usize]) {
    key.push(dtype << 32 | shape.len() as u64);
    key.extend(shape.iter().map(|&d| d as u64));
}

/// Adds contents.
pub fn push_bytes(key: &mut Key, bytes: &[u8]) {
    key.extend(bytes.chunks(8).map(|c| {
        let mut w = [0; 8];
        w[..c.len()].copy_from_slice(c);
        u64::from_le_bytes(w)
    }));
}

/// A key for what follows a segment, in the memory of one that is not used any more.
pub fn continuation(tail: u64, mut key: Key) -> Key {
    key.clear();
    key.push(after(tail));
    key
}

/// The word that such a key begins with; no shape does.
fn after(tail: u64) -> u64 {
    1 << 63 | tail
}

/// The segments of a program by key, first ones and those that follow others. Bounded in bytes: those that were not used for
/// the longest time go first.
pub struct SegmentCache {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    map: HashMap<Key, Entry>,
    clock: u64,
    bytes: usize,
}

struct Entry {
    segment: Arc<Segment>,
    used: u64,
    bytes: usize,
}

impl SegmentCache {
    /// For so many bytes; the newest segment is kept in any case.
    pub fn new(limit: usize) -> SegmentCache {
        SegmentCache { limit, state: Mutex::default() }
    }
    /// The segment of a key.
    pub fn get(&self, key: &Key) -> Option<Arc<Segment>> {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.clock += 1;
        let now = s.clock;
        s.map.get_mut(key).map(|e| {
            e.used = now;
            e.segment.clone()
        })
    }
    /// Remembers a segment.
    pub fn put(&self, key: Key, segment: Arc<Segment>) {
        let spilled = if key.spilled() { size_of_val(&key[..]) } else { 0 };
        let bytes = segment.bytes() + spilled + size_of::<(Key, Entry)>();
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.clock += 1;
        s.bytes += bytes;
        let entry = Entry { segment, used: s.clock, bytes };
        if let Some(old) = s.map.insert(key, entry) {
            s.bytes -= old.bytes;
        }
        // An eighth at a time, so that a full cache is not searched with each segment.
        while s.bytes > self.limit && s.map.len() > 1 {
            let mut ages: Vec<u64> = s.map.values().map(|e| e.used).collect();
            let oldest = (ages.len() - 1) / 8;
            let &mut last = ages.select_nth_unstable(oldest).1;
            s.map.retain(|_, e| e.used > last);
            s.bytes = s.map.values().map(|e| e.bytes).sum();
        }
    }
    /// The segment last used of those that follow the tail of this number.
    pub fn after(&self, tail: u64) -> Option<Arc<Segment>> {
        let s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = after(tail);
        let follows = s.map.iter().filter(|(k, _)| k.first() == Some(&prefix)).map(|(_, e)| e);
        follows.max_by_key(|e| e.used).map(|e| e.segment.clone())
    }
    /// Segments, and the bytes that they are taken to have.
    pub fn size(&self) -> (usize, usize) {
        let s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (s.map.len(), s.bytes)
    }
}
