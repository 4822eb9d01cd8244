//! Plan cache keys: the shapes (and small contents) that a plan was made for.

use super::Segment;
use crate::backend::cpu::Arg;
use crate::tensor::Value;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a plan depends on, flattened. Stays on the stack for usual models.
pub type Key = SmallVec<[u64; 48]>;

/// The key of a first segment.
pub fn of_inputs(inputs: &[Arg<'_>]) -> Key {
    let mut key = Key::new();
    inputs.iter().for_each(|a| push_arg(&mut key, a));
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

/// Segments by key, at most [`SegmentCache::CAPACITY`]; the longest unused one goes first.
#[derive(Default)]
pub struct SegmentCache(Mutex<State>);

#[derive(Default)]
struct State {
    map: HashMap<Key, (Arc<Segment>, u64)>,
    clock: u64,
}

impl SegmentCache {
    /// How many shapes are remembered.
    pub const CAPACITY: usize = 32;

    /// The segment of a key.
    pub fn get(&self, key: &Key) -> Option<Arc<Segment>> {
        let mut s = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        s.clock += 1;
        let now = s.clock;
        s.map.get_mut(key).map(|e| {
            e.1 = now;
            e.0.clone()
        })
    }
    /// Remembers a segment.
    pub fn put(&self, key: Key, segment: Arc<Segment>) {
        let mut s = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if s.map.len() >= Self::CAPACITY
            && let Some(old) = s.map.iter().min_by_key(|e| e.1.1).map(|e| e.0.clone())
        {
            s.map.remove(&old);
        }
        s.clock += 1;
        let now = s.clock;
        s.map.insert(key, (segment, now));
    }
    /// All segments remembered, the oldest first.
    pub fn all(&self) -> Vec<Arc<Segment>> {
        let s = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = s.map.values().cloned().collect();
        all.sort_by_key(|e| e.1);
        all.into_iter().map(|e| e.0).collect()
    }
}
