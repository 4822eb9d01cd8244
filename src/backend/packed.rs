//! Constants in the form a kernel wants them: made once a program, shared by its plans.

use crate::error::Result;
use crate::tensor::Tensor;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Key = (usize, usize, String);
type Packed = Arc<dyn Any + Send + Sync>;
/// The source, kept so that its address stays its own, and what was made of it. Locked while that is made: who needs it
/// too waits for it.
type Entry = Arc<Mutex<Option<(Tensor, Packed)>>>;

/// Packed constants by source and format.
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
        let entry = lock(&self.entries).entry(key).or_default().clone();
        let mut entry = lock(&entry);
        if let Some((_, packed)) = &*entry
            && let Ok(x) = packed.clone().downcast::<T>()
        {
            return Ok(x);
        }
        let made = Arc::new(make()?);
        source.release();
        *entry = Some((source.clone(), made.clone()));
        Ok(made)
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
