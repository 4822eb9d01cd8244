//! The memory that a session takes.

use super::args::{get, out};
use super::guard::guard;
use super::session::ortx_session;
use super::status::ortx_status;

/// Tells how much memory a session takes: what `memory_limit` of the options bounds.
///
/// Parameters: `session`; `used` receives the bytes in use now; `peak`, which may be NULL, the most at one time.
/// Thread safety: any thread, also during runs.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_memory(
    session: *const ortx_session,
    used: *mut u64,
    peak: *mut u64,
) -> *mut ortx_status {
    guard(|| {
        let used = out!(used);
        let (now, most) = get!(session).session.memory();
        if !peak.is_null() {
            out!(peak).set(most as u64)?;
        }
        used.set(now as u64)
    })
}

/// Frees the memory for intermediate values that no run uses now; the next run takes it again.
///
/// Parameters: `session`.
/// Thread safety: any thread, also during runs.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_trim(session: *const ortx_session) -> *mut ortx_status {
    guard(|| {
        get!(session).session.trim();
        Ok(())
    })
}
