//! Constants in the form a kernel wants them: made once a program, shared by its plans.

use crate::error::Result;
use crate::tensor::Tensor;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

type Key = (usize, usize, String);
type Entry = (Tensor, Arc<dyn Any + Send + Sync>);

/// Packed constants by source and format. The source tensors are kept, so that an address stays theirs.
#[derive(Default)]
pub struct PackedCache {
    entries: Mutex<HashMap<Key, Entry>>,
}

impl PackedCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }
    /// Tensors of so few elements are not kept: among them are the lists of sizes that differ from plan to plan.
    const SMALL: usize = 256;

    /// The constant `source` in `format` (a name that tells everything `make` depends on), made at first need.
    pub fn get<T: Any + Send + Sync>(
        &self,
        source: &Tensor,
        format: &str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        if source.len() <= Self::SMALL {
            return Ok(Arc::new(make()?));
        }
        let key = (source.identity(), source.byte_len(), format.to_string());
        let found = self.lock().get(&key).map(|e| e.1.clone());
        if let Some(Ok(x)) = found.map(Arc::downcast::<T>) {
            return Ok(x);
        }
        // Made outside the lock: two plans at once may both make it, and the later one wins.
        let made = Arc::new(make()?);
        source.release();
        self.lock().insert(key, (source.clone(), made.clone()));
        Ok(made)
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
