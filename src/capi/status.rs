//! Statuses: errors as handles.

use super::args::get;
use super::guard::guard_or;
use super::handle::{self, c_string, handle};
use super::types::{ORTX_OK, ortx_code};
use crate::error::Error;
use std::ffi::{CString, c_char};
use std::ptr;

/// The result of a call that failed. NULL is success.
pub struct ortx_status {
    _opaque: [u8; 0],
}
handle!(ortx_status, State, b"stat");

/// An error, its texts ready for C.
pub struct State {
    code: ortx_code,
    message: CString,
    contexts: Vec<CString>,
    whole: CString,
}

impl ortx_status {
    pub(super) fn new(e: Error) -> *mut ortx_status {
        handle::create(State {
            code: e.kind() as i32,
            message: c_string(e.message()),
            // Outermost first, as one reads.
            contexts: e.contexts().iter().rev().map(|c| c_string(c)).collect(),
            whole: c_string(&e.to_string()),
        })
    }
}

/// Tells what went wrong, as a number.
///
/// Parameters: `status`, which may be NULL.
/// Returns: an ORTX_ERROR_ number; ORTX_OK for NULL.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_status_code(status: *const ortx_status) -> ortx_code {
    guard_or(ORTX_OK, || Ok(if status.is_null() { ORTX_OK } else { get!(status).code }))
}

/// Tells what went wrong, in one line: the places that the error passed, outermost first, and the message.
///
/// Parameters: `status`, which may be NULL.
/// Returns: UTF-8 text that lives as long as the status; "" for NULL.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_status_text(status: *const ortx_status) -> *const c_char {
    guard_or(c"".as_ptr(), || Ok(if status.is_null() { c"".as_ptr() } else { get!(status).whole.as_ptr() }))
}

/// Tells what went wrong, without the places.
///
/// Parameters: `status`, which may be NULL.
/// Returns: UTF-8 text that lives as long as the status; "" for NULL.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_status_message(status: *const ortx_status) -> *const c_char {
    guard_or(c"".as_ptr(), || Ok(if status.is_null() { c"".as_ptr() } else { get!(status).message.as_ptr() }))
}

/// Counts the places that the error passed.
///
/// Parameters: `status`, which may be NULL.
/// Returns: the count; 0 for NULL.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_status_context_count(status: *const ortx_status) -> usize {
    guard_or(0, || Ok(if status.is_null() { 0 } else { get!(status).contexts.len() }))
}

/// Names one of the places that the error passed, such as "node 'conv1' (Conv)".
///
/// Parameters: `status`, which may be NULL; `index`, 0 for the outermost.
/// Returns: UTF-8 text that lives as long as the status; NULL where there is no such place.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_status_context(status: *const ortx_status, index: usize) -> *const c_char {
    guard_or(ptr::null(), || {
        Ok(if status.is_null() {
            ptr::null()
        } else {
            get!(status).contexts.get(index).map_or(ptr::null(), |c| c.as_ptr())
        })
    })
}

/// Frees a status.
///
/// Parameters: `status`, which may be NULL.
/// Ownership: takes the status; its texts end with it.
/// Thread safety: any thread, once.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_status_destroy(status: *mut ortx_status) {
    // SAFETY: the function's contract.
    guard_or((), || Ok(unsafe { handle::destroy(status) }));
}
