//! Pages of mapped files.

/// Gives the memory of `part` back to the system; its pages are read from the file again when touched. Only whole pages
/// go: the ends are shared with neighbours that may be in use.
///
/// # Safety
/// `part` lies in a live mapping of a file that nobody writes through: then what comes back is what was there.
#[cfg(unix)]
pub unsafe fn release(part: &[u8]) {
    let at = part.as_ptr_range();
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(1);
    let (first, last) = ((at.start as usize).div_ceil(page) * page, at.end as usize / page * page);
    if first < last {
        // SAFETY: whole pages of the mapping that the caller vouches for.
        unsafe { libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_DONTNEED) };
    }
}

/// Nothing where there is no such call.
///
/// # Safety
/// None; as on other systems.
#[cfg(not(unix))]
pub unsafe fn release(_part: &[u8]) {}
