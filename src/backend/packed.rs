//! Constants in the form a kernel wants them: made once a session, shared by its plans, or there already in a compiled
//! model.

use crate::base::alloc::{ALIGN, Buffer, Pile};
use crate::error::Result;
use crate::tensor::{DType, Tensor};
use bytes::Bytes;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The source's address and length, and the format's name.
type Key = (usize, usize, String);
/// What a compiled model keeps.
pub type Kept = HashMap<Key, Bytes>;
type Made = Arc<dyn Any + Send + Sync>;
/// The source, kept so that its address stays its own, and what was made of it. Locked while that is made: who needs it
/// too waits for it.
type Entry = Arc<Mutex<Option<(Tensor, Made)>>>;

/// A constant as its kernel reads it.
pub struct Packed(Memory);

enum Memory {
    /// Packed in this session.
    Made(Buffer),
    /// A part of a compiled model.
    Kept(Bytes),
}

impl Packed {
    /// The first byte, aligned as buffers are.
    pub fn ptr(&self) -> *const u8 {
        match &self.0 {
            Memory::Made(b) => b.ptr(),
            Memory::Kept(b) => b.as_ptr(),
        }
    }
    /// All bytes.
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: `packed` had the whole buffer written before it made this, and nobody writes to it again.
            Memory::Made(b) => unsafe { std::slice::from_raw_parts(b.ptr(), b.len()) },
            Memory::Kept(b) => b,
        }
    }
}

/// One packed constant, as a compiled model keeps it.
pub struct PackedEntry {
    /// What it was made of.
    pub source: Tensor,
    /// The format's name.
    pub format: String,
    made: Made,
}

impl PackedEntry {
    /// Its bytes; none for what a device holds.
    pub fn bytes(&self) -> Option<&[u8]> {
        let packed = self.made.downcast_ref::<Packed>().map(Packed::bytes);
        packed.or_else(|| self.tensor().map(Tensor::bytes))
    }
    /// Whether it is a part of a compiled model, and takes no memory of its own.
    pub fn is_kept(&self) -> bool {
        self.made.downcast_ref::<Packed>().is_some_and(|p| matches!(p.0, Memory::Kept(_)))
    }
    /// The packed constant as a tensor, if it is one: others may be made of it.
    pub fn tensor(&self) -> Option<&Tensor> {
        self.made.downcast_ref()
    }
}

/// Packed constants by source and format.
#[derive(Default)]
pub struct PackedCache {
    entries: Mutex<HashMap<Key, Entry>>,
    kept: Kept,
    memory: Pile,
}

impl PackedCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }
    /// One that finds what a compiled model keeps.
    pub fn with_kept(kept: Kept) -> Self {
        PackedCache { kept, ..Self::default() }
    }
    /// The constant `source` in `format` (a name that tells everything `pack` depends on), of `len` bytes, which `pack` writes
    /// to the address that it is given, all of them.
    pub fn packed(
        &self,
        source: &Tensor,
        format: &str,
        len: usize,
        pack: impl FnOnce(*mut u8) -> Result<()>,
    ) -> Result<Arc<Packed>> {
        self.get(source, format, || {
            if let Some(kept) = self.kept(source, format, len) {
                return Ok(Packed(Memory::Kept(kept)));
            }
            let buffer = if keeps(source) { self.memory.take(len)? } else { Buffer::uninit(len)? };
            pack(buffer.ptr())?;
            Ok(Packed(Memory::Made(buffer)))
        })
    }
    /// The constant `source` as a tensor of another type, of the same shape.
    pub fn converted(
        &self,
        source: &Tensor,
        format: &str,
        dtype: DType,
        convert: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Arc<Tensor>> {
        self.get(source, format, || match self.kept(source, format, dtype.byte_len(source.len())?) {
            Some(kept) => Tensor::from_bytes(dtype, source.shape(), kept),
            None => convert(),
        })
    }
    /// The constant `source` in `format`, made at first need.
    pub fn get<T: Any + Send + Sync>(
        &self,
        source: &Tensor,
        format: &str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        if !keeps(source) {
            return Ok(Arc::new(make()?));
        }
        let entry = lock(&self.entries).entry(key(source, format)).or_default().clone();
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
    /// What a compiled model keeps of a constant, if it is of the right length and lies as a buffer would.
    fn kept(&self, source: &Tensor, format: &str, len: usize) -> Option<Bytes> {
        if self.kept.is_empty() {
            return None;
        }
        let fits = |b: &&Bytes| b.len() == len && (b.as_ptr() as usize).is_multiple_of(ALIGN);
        self.kept.get(&key(source, format)).filter(fits).cloned()
    }
    /// All that was made or found so far, in no order.
    pub fn entries(&self) -> Vec<PackedEntry> {
        let all: Vec<(String, Entry)> = lock(&self.entries).iter().map(|(k, e)| (k.2.clone(), e.clone())).collect();
        let entry = |(format, e): (String, Entry)| {
            let (source, made) = lock(&e).clone()?;
            Some(PackedEntry { source, format, made })
        };
        all.into_iter().filter_map(entry).collect()
    }
}

/// Tensors of few elements are not kept: among them are the lists of sizes that differ from plan to plan.
fn keeps(source: &Tensor) -> bool {
    source.len() > 256
}

fn key(source: &Tensor, format: &str) -> Key {
    (source.identity(), source.byte_len(), format.to_string())
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
