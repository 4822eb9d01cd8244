//! Aligned memory whose allocation can fail without harm.

use super::budget::Charge;
use crate::{bail, err, error::Result};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of every buffer: a cache line, and the widest vector register.
pub const ALIGN: usize = 64;

/// Size of a huge page. Large buffers begin at a multiple of it, so that weights and intermediates cost few page-table look-ups.
const HUGE: usize = 2 << 20;

const fn align_of(len: usize) -> usize {
    if len >= HUGE { HUGE } else { ALIGN }
}

/// A hint; where the system refuses, nothing is lost.
fn ask_for_huge_pages(ptr: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: whole pages inside a fresh allocation; their contents do not change.
    unsafe {
        libc::madvise(ptr.cast(), len / HUGE * HUGE, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (ptr, len);
}

/// An empty vector with room for `n` elements, or an `OutOfMemory` error.
pub fn reserved<T>(n: usize) -> Result<Vec<T>> {
    let mut v = Vec::new();
    match v.try_reserve_exact(n) {
        Ok(()) => Ok(v),
        Err(_) => bail!(OutOfMemory, "cannot allocate {n} elements of {} bytes", size_of::<T>()),
    }
}

/// What an iterator gives, or an `OutOfMemory` error.
pub fn gathered<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>> {
    try_gathered(items.map(Ok))
}

/// The same for items that may be errors: the first one ends it.
pub fn try_gathered<T>(items: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut v = reserved(items.size_hint().0)?;
    for x in items {
        if v.len() == v.capacity() && v.try_reserve(1).is_err() {
            bail!(OutOfMemory, "cannot allocate more than {} elements of {} bytes", v.len(), size_of::<T>());
        }
        v.push(x?);
    }
    Ok(v)
}

/// Empties a list that is there, and sees to it that it has room for `n` elements; or gives an `OutOfMemory` error.
pub fn emptied<T>(list: &mut Vec<T>, n: usize) -> Result<()> {
    list.clear();
    list.try_reserve(n).map_err(|_| err!(OutOfMemory, "cannot allocate {n} elements of {} bytes", size_of::<T>()))
}

/// Puts other items into a list that is there. Only where its room is too small is there other memory, or an `OutOfMemory`
/// error.
pub fn refill<T>(list: &mut Vec<T>, items: impl Iterator<Item = T>) -> Result<()> {
    emptied(list, items.size_hint().0)?;
    for x in items {
        if list.len() == list.capacity() && list.try_reserve(1).is_err() {
            bail!(OutOfMemory, "cannot allocate more than {} elements of {} bytes", list.len(), size_of::<T>());
        }
        list.push(x);
    }
    Ok(())
}

/// `n` copies of `x`, or an `OutOfMemory` error.
pub fn filled<T: Clone>(n: usize, x: T) -> Result<Vec<T>> {
    let mut v = reserved(n)?;
    v.resize(n, x);
    Ok(v)
}

/// A block of bytes, charged to the thread's current [`Budget`](super::budget::Budget), at a multiple of [`ALIGN`]. Its contents may be uninitialised after [`Buffer::uninit`];
/// it is meant to be reached through raw pointers.
pub struct Buffer {
    ptr: NonNull<u8>,
    len: usize,
    _charge: Charge,
    /// The block that it is a part of.
    within: Option<Arc<Buffer>>,
}

// SAFETY: a Buffer owns its bytes alone, like a Box<[u8]>.
unsafe impl Send for Buffer {}
// SAFETY: shared access only hands out a pointer; whoever writes through it answers for races.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer; allocates nothing.
    pub const fn empty() -> Self {
        // ALIGN as an address: dangling but well aligned, for a length of zero.
        let ptr = NonNull::new(std::ptr::without_provenance_mut(ALIGN)).unwrap();
        Buffer { ptr, len: 0, _charge: Charge::NONE, within: None }
    }
    /// `len` zero bytes, or an `OutOfMemory` error.
    pub fn zeroed(len: usize) -> Result<Self> {
        Self::with(len, true, Charge::current(len)?)
    }
    /// `len` bytes of anything, or an `OutOfMemory` error.
    pub fn uninit(len: usize) -> Result<Self> {
        Self::with(len, false, Charge::current(len)?)
    }
    /// The charge comes first, to the session that is at work, before anything is asked of the system.
    fn with(len: usize, zero: bool, charge: Charge) -> Result<Self> {
        if len == 0 {
            return Ok(Self::empty());
        }
        let Ok(layout) = Layout::from_size_align(len, align_of(len)) else {
            bail!(OutOfMemory, "a buffer of {len} bytes is larger than the address space");
        };
        let huge = layout.align() == HUGE;
        // SAFETY: the layout's size is not zero.
        let ptr = unsafe { if zero && !huge { alloc_zeroed(layout) } else { alloc(layout) } };
        if huge && !ptr.is_null() {
            ask_for_huge_pages(ptr, len);
            if zero {
                // SAFETY: len bytes were just allocated.
                unsafe { ptr.write_bytes(0, len) };
            }
        }
        match NonNull::new(ptr) {
            Some(ptr) => Ok(Buffer { ptr, len, _charge: charge, within: None }),
            None => bail!(OutOfMemory, "cannot allocate {len} bytes"),
        }
    }
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The first byte; valid for `len` bytes as long as the buffer lives.
    pub fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len != 0 && self.within.is_none() {
            // SAFETY: allocated in `with` with this very layout, which was valid then.
            unsafe { dealloc(self.ptr.as_ptr(), Layout::from_size_align_unchecked(self.len, align_of(self.len))) }
        }
    }
}

/// Where many small buffers come from that live about as long as one another, such as a session's weights. Once they are a
/// megabyte they are parts of blocks in huge pages: the system has one of those ready sooner than 512 small ones, and the
/// processor finds it with one look-up.
#[derive(Default)]
pub struct Pile(Mutex<Top>);

#[derive(Default)]
struct Top {
    /// Bytes that were asked for so far.
    taken: usize,
    block: Option<Arc<Buffer>>,
    /// Of the block.
    used: usize,
}

impl Pile {
    /// Up to here they are buffers of their own.
    const FIRST: usize = HUGE / 2;
    /// No block is larger; what is not used of one is not touched.
    const BLOCK: usize = 32 * HUGE;

    /// `len` bytes of anything, or an `OutOfMemory` error.
    pub fn take(&self, len: usize) -> Result<Buffer> {
        let mut top = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        top.taken = top.taken.saturating_add(len);
        if len == 0 || len >= HUGE || top.taken <= Self::FIRST {
            drop(top);
            return Buffer::uninit(len);
        }
        let charge = Charge::current(len)?;
        let fits = |b: &Arc<Buffer>| len <= b.len() - top.used;
        let block = match top.block.clone().filter(fits) {
            Some(block) => block,
            None => {
                let size = round_up(top.taken.min(Self::BLOCK), HUGE);
                // Its parts are charged.
                let Ok(block) = Buffer::with(size, false, Charge::NONE) else {
                    return Buffer::with(len, false, charge);
                };
                top.used = 0;
                top.block.insert(Arc::new(block)).clone()
            }
        };
        // SAFETY: the part ends within the block: sizes of blocks are multiples of ALIGN, and so is what is used of them.
        let ptr = unsafe { block.ptr.add(top.used) };
        top.used += round_up(len, ALIGN);
        Ok(Buffer { ptr, len, _charge: charge, within: Some(block) })
    }
}

/// Rounds `n` up to a multiple of `to`, a power of two.
pub const fn round_up(n: usize, to: usize) -> usize {
    (n + to - 1) & !(to - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_pile_lie_apart_and_outlive_it() {
        let pile = Pile::default();
        let sizes = [0, 1, 63, 100_000, 700_000, HUGE - 1, HUGE, 3, 1_500_000, 64, 1_000_000, 65];
        let parts: Vec<Buffer> = sizes.iter().cycle().take(60).map(|&n| pile.take(n).unwrap()).collect();
        drop(pile);
        let fill = |i: usize| i as u8 ^ 0x5a;
        for (i, p) in parts.iter().enumerate() {
            assert_eq!(p.len(), sizes[i % sizes.len()]);
            assert_eq!(p.ptr() as usize % ALIGN, 0);
            // SAFETY: as many bytes, which nobody else has if all is well.
            unsafe { p.ptr().write_bytes(fill(i), p.len()) };
        }
        for (i, p) in parts.iter().enumerate() {
            // SAFETY: written above.
            assert!(unsafe { std::slice::from_raw_parts(p.ptr(), p.len()) }.iter().all(|&b| b == fill(i)), "part {i}");
        }
        assert!(parts.iter().any(|p| p.within.is_some()));
    }

    #[test]
    fn parts_of_a_pile_are_charged() {
        let budget = super::super::budget::Budget::new(Some(3 << 20));
        let _scope = budget.enter();
        let pile = Pile::default();
        let parts: Vec<Buffer> = (0..3).map(|_| pile.take(1 << 20).unwrap()).collect();
        assert!(pile.take(1).is_err(), "no more than the limit");
        drop(parts);
        assert_eq!(pile.take(3 << 20).unwrap().len(), 3 << 20);
    }
}
