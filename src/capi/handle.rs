//! Handles and pointers on their way in and out: NULL, handles of another kind, lengths and text are checked here.

use crate::error::Result;
use crate::{bail, ensure};
use std::ffi::{CStr, c_char};

/// An opaque type of the header. The C side holds pointers to a [`Block`] of its state.
pub trait Handle {
    /// What is behind the pointer.
    type State;
    /// Tells the kinds of handles apart.
    const TAG: u32;
}

/// Declares an opaque type: `handle!(ortx_session, Arc<State>, *b"sess")`.
macro_rules! handle {
    ($name:ident, $state:ty, $tag:expr) => {
        impl $crate::capi::handle::Handle for $name {
            type State = $state;
            const TAG: u32 = u32::from_le_bytes(*$tag);
        }
    };
}
pub(super) use handle;

/// Written where a handle was destroyed: using it again is an error of the caller, noticed where luck allows.
const DEAD: u32 = u32::from_le_bytes(*b"dead");

#[repr(C)]
struct Block<S> {
    tag: u32,
    state: S,
}

/// A new handle; the caller owns it.
pub fn create<H: Handle>(state: H::State) -> *mut H {
    Box::into_raw(Box::new(Block { tag: H::TAG, state })).cast()
}

fn name<H>() -> &'static str {
    std::any::type_name::<H>().rsplit("::").next().unwrap_or("handle")
}

fn check<H: Handle>(handle: *const H, argument: &str) -> Result<()> {
    ensure!(!handle.is_null(), InvalidArgument, "argument '{argument}' ({}) is NULL", name::<H>());
    ensure!(handle.cast::<Block<H::State>>().is_aligned(), InvalidArgument, "argument '{argument}' is no handle");
    // SAFETY: all handles begin with their tag; that the pointer is a handle that was not destroyed is the caller's part.
    match unsafe { handle.cast::<u32>().read() } {
        tag if tag == H::TAG => Ok(()),
        DEAD => bail!(InvalidArgument, "argument '{argument}' ({}) was destroyed already", name::<H>()),
        _ => bail!(InvalidArgument, "argument '{argument}' is not of type {}", name::<H>()),
    }
}

/// The state behind a handle.
///
/// # Safety
/// `handle` is NULL or a live handle of any kind, and nobody changes it during `'a`.
pub unsafe fn get<'a, H: Handle>(handle: *const H, argument: &str) -> Result<&'a H::State> {
    check(handle, argument)?;
    // SAFETY: the tag proved the type; the caller promised the rest.
    Ok(unsafe { &(*handle.cast::<Block<H::State>>()).state })
}

/// The state behind a handle, to be changed.
///
/// # Safety
/// As [`get`], and nobody else uses the handle during `'a`.
pub unsafe fn get_mut<'a, H: Handle>(handle: *mut H, argument: &str) -> Result<&'a mut H::State> {
    check(handle, argument)?;
    // SAFETY: as above.
    Ok(unsafe { &mut (*handle.cast::<Block<H::State>>()).state })
}

/// Ends a handle. NULL, and a handle of another kind, is left alone.
///
/// # Safety
/// `handle` is NULL or a live handle of any kind that nobody uses any more.
pub unsafe fn destroy<H: Handle>(handle: *mut H) {
    if check(handle, "").is_ok() {
        // SAFETY: made by `create` with this state type, as the tag tells.
        unsafe {
            handle.cast::<u32>().write_volatile(DEAD);
            drop(Box::from_raw(handle.cast::<Block<H::State>>()));
        }
    }
}

/// An output argument that is there.
pub struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    /// Writes `empty` to the output at once, so that it is never left undefined.
    ///
    /// # Safety
    /// `out` is NULL or valid for writing.
    pub unsafe fn new(out: *mut T, empty: T, argument: &str) -> Result<Out<T>> {
        ensure!(!out.is_null(), InvalidArgument, "argument '{argument}' is NULL");
        ensure!(out.is_aligned(), InvalidArgument, "argument '{argument}' is not aligned");
        // SAFETY: the caller's promise.
        unsafe { out.write(empty) };
        Ok(Out(out))
    }
    /// Gives the result.
    pub fn set(self, value: T) -> Result<()> {
        // SAFETY: checked in `new`, and the call is still going on.
        unsafe { self.0.write(value) };
        Ok(())
    }
}

/// A NUL-terminated UTF-8 string.
///
/// # Safety
/// `text` is NULL or such a string that stays as it is during `'a`.
pub unsafe fn text<'a>(text: *const c_char, argument: &str) -> Result<&'a str> {
    ensure!(!text.is_null(), InvalidArgument, "argument '{argument}' is NULL");
    // SAFETY: the caller's promise.
    match unsafe { CStr::from_ptr(text) }.to_str() {
        Ok(s) => Ok(s),
        Err(_) => bail!(InvalidArgument, "argument '{argument}' is not UTF-8"),
    }
}

/// An array of `len` entries; NULL is fine for none.
///
/// # Safety
/// `data` is NULL or valid for `len` entries that stay as they are during `'a`.
pub unsafe fn array<'a, T>(data: *const T, len: usize, argument: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    ensure!(!data.is_null(), InvalidArgument, "argument '{argument}' is NULL, its length is {len}");
    ensure!(data.is_aligned(), InvalidArgument, "argument '{argument}' is not aligned");
    ensure!(
        len.checked_mul(size_of::<T>()).is_some_and(|n| isize::try_from(n).is_ok()),
        InvalidArgument,
        "argument '{argument}' cannot have {len} entries"
    );
    // SAFETY: not null, aligned, of a possible size; the caller promised the entries.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// A structure that begins with its size, and for which all bits zero are the defaults. A caller compiled against an
/// older header gives a shorter one; what it lacks is zero. One compiled against a newer header may give a longer one if
/// the part that is not known here is zero.
///
/// # Safety
/// All bits zero are a valid value, and the first field is the `usize` of the size.
pub unsafe trait Structure: Copy {}

/// The largest size that is believed.
const MAX_STRUCT: usize = 4096;

/// The structure, completed with zeros; `None` for NULL.
///
/// # Safety
/// `given` is NULL or valid for as many bytes as its first field says.
pub unsafe fn structure<T: Structure>(given: *const T, argument: &str) -> Result<Option<T>> {
    if given.is_null() {
        return Ok(None);
    }
    ensure!(given.cast::<usize>().is_aligned(), InvalidArgument, "argument '{argument}' is not aligned");
    // SAFETY: the first field, as the trait says.
    let size = unsafe { given.cast::<usize>().read() };
    ensure!(
        (size_of::<usize>()..=MAX_STRUCT).contains(&size) && size.is_multiple_of(align_of::<T>()),
        InvalidArgument,
        "argument '{argument}': struct_size is {size}; set it to sizeof, which is {} here",
        size_of::<T>()
    );
    let known = size.min(size_of::<T>());
    let mut copy = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are there on both sides; the copy is valid as all other bits are zero.
    let copy = unsafe {
        std::ptr::copy_nonoverlapping(given.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known);
        copy.assume_init()
    };
    // SAFETY: the caller's promise, for the bytes past those known here.
    let tail = unsafe { std::slice::from_raw_parts(given.cast::<u8>().add(known), size - known) };
    ensure!(
        tail.iter().all(|&b| b == 0),
        Unsupported,
        "argument '{argument}' uses fields of a newer version of ortx (its size is {size}, {} is known here)",
        size_of::<T>()
    );
    Ok(Some(copy))
}

/// Text for C: what stands after a zero byte would be lost, so zeros are replaced.
pub fn c_string(s: &str) -> std::ffi::CString {
    let clean = s.replace('\0', "\u{fffd}");
    std::ffi::CString::new(clean).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct apple;
    struct pear;
    handle!(apple, String, b"appl");
    handle!(pear, u64, b"pear");

    #[test]
    fn kinds_are_told_apart() {
        let a: *mut apple = create("red".into());
        // SAFETY: live handles throughout.
        unsafe {
            assert_eq!(get(a, "a").unwrap(), "red");
            let e = get(a.cast::<pear>(), "fruit").unwrap_err();
            assert_eq!(e.message(), "argument 'fruit' is not of type pear");
            destroy(a.cast::<pear>());
            get_mut(a, "a").unwrap().push('!');
            assert_eq!(get(a, "a").unwrap(), "red!");
            destroy(a);
            destroy::<apple>(std::ptr::null_mut());
            assert!(get::<apple>(std::ptr::null(), "a").unwrap_err().message().contains("'a' (apple) is NULL"));
        }
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Options {
        struct_size: usize,
        a: u64,
        b: u64,
    }
    // SAFETY: integers, the size first.
    unsafe impl Structure for Options {}

    #[test]
    fn structures_grow_both_ways() {
        let read = |words: &[u64]| {
            // SAFETY: each test gives at least as many bytes as it says.
            unsafe { structure(words.as_ptr().cast::<Options>(), "options") }
        };
        assert_eq!(read(&[16, 1, 77]).unwrap().unwrap(), Options { struct_size: 16, a: 1, b: 0 });
        assert_eq!(read(&[24, 1, 2]).unwrap().unwrap().b, 2);
        assert_eq!(read(&[40, 1, 2, 0, 0]).unwrap().unwrap().b, 2);
        assert!(read(&[40, 1, 2, 0, 9]).unwrap_err().message().contains("newer"));
        for bad in [0, 7, 12, 1 << 40] {
            assert!(read(&[bad, 1, 2]).unwrap_err().message().contains("struct_size"), "{bad}");
        }
        // SAFETY: NULL.
        assert!(unsafe { structure::<Options>(std::ptr::null(), "options") }.unwrap().is_none());
    }
}
