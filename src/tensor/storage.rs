//! Where a tensor's elements live.

use super::DType;
use crate::base::alloc::Buffer;
use crate::base::budget::Charge;
use crate::base::fpmode::FpMode;
use crate::base::pages;
use crate::error::Result;
use bytes::Bytes;
use std::any::Any;
use std::sync::{Mutex, OnceLock, PoisonError};

pub(super) enum Storage {
    /// Memory of our own, from `base::alloc`.
    Owned(Buffer),
    /// Part of a model file.
    File(FilePart),
    /// Memory of our own whose elements are computed by whoever reads them first.
    Late(Late),
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

/// Weights that a pass changes are wanted by kernels only, which pack them on all threads, right behind the computing.
pub(super) struct Late {
    memory: Buffer,
    /// Writes all of the memory. Gone, with what it reads, when that is done.
    fill: Mutex<Option<Fill>>,
    filled: OnceLock<()>,
}

/// Writes as many bytes as it was made for to an address.
pub(super) type Fill = Box<dyn FnOnce(*mut u8) + Send>;

impl Late {
    pub fn new(memory: Buffer, fill: Fill) -> Late {
        Late { memory, fill: Mutex::new(Some(fill)), filled: OnceLock::new() }
    }
    fn ptr(&self) -> *const u8 {
        self.filled.get_or_init(|| {
            // They belong to the model, as what is folded at load: a run's way with denormals is none of theirs.
            let _mode = FpMode::enter(false);
            if let Some(fill) = self.fill.lock().unwrap_or_else(PoisonError::into_inner).take() {
                fill(self.memory.ptr());
            }
        });
        self.memory.ptr()
    }
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
            Storage::Late(l) => l.ptr(),
            Storage::Foreign { ptr, .. } => *ptr,
            Storage::Strings(..) => std::ptr::null(),
        }
    }
    /// An address that never changes, aligned or not.
    pub fn identity(&self) -> usize {
        match self {
            Storage::File(f) => f.bytes.as_ptr() as usize,
            Storage::Late(l) => l.memory.ptr() as usize,
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

#[cfg(test)]
mod tests {
    use crate::base::alloc::Pile;
    use crate::base::fpmode::FpMode;
    use crate::tensor::Tensor;
    use std::hint::black_box;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn late_elements_are_computed_once_by_whoever_reads_them() {
        let (pile, calls) = (Pile::default(), Arc::new(AtomicUsize::new(0)));
        let late = || {
            let calls = calls.clone();
            let fill = move |to: &mut [f32]| {
                calls.fetch_add(1, Ordering::Relaxed);
                to.iter_mut().zip(1u8..).for_each(|(t, i)| *t = i.into());
            };
            Tensor::late(&pile, &[3], fill).unwrap()
        };
        let (read, unread) = (late(), late());
        assert!(read.identity() != unread.identity() && read.reshaped(&[1, 3]).unwrap().identity() == read.identity());
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| assert_eq!(read.as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0]));
            }
        });
        drop(unread);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&calls), 1, "what the computing reads is let go of");
    }

    #[test]
    fn late_elements_keep_denormals_whoever_reads_them() {
        // Half of the smallest normal number.
        let fill = |to: &mut [f32]| to[0] = black_box(f32::MIN_POSITIVE) * 0.5;
        let late = Tensor::late(&Pile::default(), &[1], fill).unwrap();
        let read = {
            let _flush = FpMode::enter(true);
            late.as_slice::<f32>().unwrap()[0].to_bits()
        };
        assert_eq!(read, (f32::MIN_POSITIVE * 0.5).to_bits());
    }
}
