//! Plans that others can be made from.

use super::Segment;
use super::key::Key;
use super::specialise::Recipe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A plan and how it came about.
pub struct Template {
    key: Key,
    /// The plan.
    pub segment: Arc<Segment>,
    /// How it came about.
    pub recipe: Recipe,
    /// How often in a row it was of no use.
    misses: AtomicU32,
}

impl Template {
    /// After so many misses in a row it is not tried any more.
    const PATIENCE: u32 = 3;

    /// A template for the plan of a key.
    pub fn new(key: Key, segment: Arc<Segment>, recipe: Recipe) -> Template {
        Template { key, segment, recipe, misses: AtomicU32::new(0) }
    }
    /// Tells whether a plan could be made from it.
    pub fn note(&self, of_use: bool) {
        let misses = if of_use { 0 } else { self.misses.load(Ordering::Relaxed).saturating_add(1) };
        self.misses.store(misses, Ordering::Relaxed);
    }
    fn distance(&self, key: &Key) -> Option<usize> {
        let alike = self.key.len() == key.len() && self.misses.load(Ordering::Relaxed) < Self::PATIENCE;
        alike.then(|| self.key.iter().zip(key).filter(|(a, b)| a != b).count())
    }
}

/// The templates of a program, the newest last.
#[derive(Default)]
pub struct Templates(Mutex<Vec<Arc<Template>>>);

impl Templates {
    /// How many are kept: for a decoder, one for the prompt and one for its tokens, and some for other batches.
    const CAPACITY: usize = 4;

    /// The template whose sizes differ in the fewest places.
    pub fn nearest(&self, key: &Key) -> Option<Arc<Template>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let near = all.iter().filter_map(|t| Some((t.distance(key)?, t)));
        near.min_by_key(|(d, _)| *d).map(|(_, t)| t.clone())
    }
    /// Keeps a template; the oldest goes.
    pub fn put(&self, t: Template) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= Self::CAPACITY {
            all.remove(0);
        }
        all.push(Arc::new(t));
    }
}
