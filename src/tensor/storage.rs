//! Where a tensor's elements live.

use super::DType;
use crate::base::alloc::Buffer;
use crate::base::budget::Charge;
use crate::base::pages;
use crate::error::Result;
use bytes::Bytes;
use std::any::Any;
use std::sync::OnceLock;

pub(super) enum Storage {
    /// Memory of our own, from `base::alloc`.
    Owned(Buffer),
    /// Part of a model file.
    File(FilePart),
    /// The caller's memory, borrowed without copying; `_keep` lives as long as anyone may look at it.
    Foreign { ptr: *mut u8, writable: bool, _keep: Option<Box<dyn Any + Send + Sync>> },
    /// String elements, charged like a buffer.
    Strings(Vec<String>, #[allow(dead_code, reason = "held for its drop")] Charge),
}

// SAFETY: the only part that is not Send or Sync by itself is the foreign pointer, whose giver promised (see
// `Tensor::borrow_raw`) that it may be used from any thread.
unsafe impl Send for Storage {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Storage {}

/// Bytes of a file, mapped or in memory, at whatever address the file puts them. Protobuf does not align, so three in
/// four f32 weights lie askew; a weight that is packed for its kernel is read once, and needs no copy to stay.
pub(super) struct FilePart {
    bytes: Bytes,
    mapped: bool,
    align: usize,
    /// The copy for those who need it aligned.
    settled: OnceLock<Buffer>,
}

/// Unaligned parts below this size are copied when they are read: pages of their own cost more.
const SMALL: usize = 1 << 16;

impl Storage {
    /// String elements, charged to the session that is at work.
    pub fn strings(data: Vec<String>) -> Result<Storage> {
        let text: usize = data.iter().map(String::capacity).sum();
        let charge = Charge::current(text.saturating_add(data.capacity().saturating_mul(size_of::<String>())))?;
        Ok(Storage::Strings(data, charge))
    }
    /// Shares `data` where that is worth while, else copies it.
    pub fn of_file(dtype: DType, data: Bytes, mapped: bool) -> Result<Storage> {
        let part = FilePart { bytes: data, mapped, align: dtype.align(), settled: OnceLock::new() };
        if !part.is_aligned() && part.bytes.len() < SMALL {
            return Ok(Storage::Owned(copy_of(&part.bytes)?));
        }
        Ok(Storage::File(part))
    }
    pub fn ptr(&self) -> *const u8 {
        match self {
            Storage::Owned(b) => b.ptr(),
            Storage::File(f) => f.settled.get().map_or(f.bytes.as_ptr(), |b| b.ptr()),
            Storage::Foreign { ptr, .. } => *ptr,
            Storage::Strings(..) => std::ptr::null(),
        }
    }
    /// An address that never changes, aligned or not.
    pub fn identity(&self) -> usize {
        match self {
            Storage::File(f) => f.bytes.as_ptr() as usize,
            other => other.ptr() as usize,
        }
    }
    /// Makes sure that `ptr` is aligned.
    pub fn settle(&self) -> Result<()> {
        if let Storage::File(f) = self
            && !f.is_aligned()
            && f.settled.get().is_none()
        {
            // Of two threads at once one copy wins.
            let _ = f.settled.set(copy_of(&f.bytes)?);
        }
        Ok(())
    }
    /// An aligned copy to use once, where there is no lasting one.
    pub fn passing(&self) -> Result<Option<Buffer>> {
        match self {
            Storage::File(f) if !f.is_aligned() && f.settled.get().is_none() => Ok(Some(copy_of(&f.bytes)?)),
            _ => Ok(None),
        }
    }
    /// Gives the memory of mapped pages back; they are read again when touched.
    pub fn release(&self) {
        if let Storage::File(f) = self
            && f.mapped
        {
            // SAFETY: `Tensor::from_file` was told that these bytes are a read-only mapping, which `bytes` keeps alive.
            unsafe { pages::release(&f.bytes) };
        }
    }
}

impl FilePart {
    fn is_aligned(&self) -> bool {
        (self.bytes.as_ptr() as usize).is_multiple_of(self.align)
    }
}

fn copy_of(bytes: &[u8]) -> Result<Buffer> {
    let b = Buffer::uninit(bytes.len())?;
    // SAFETY: as many bytes of its own.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), b.ptr(), bytes.len()) };
    Ok(b)
}
