//! The one place where panics stop and errors become statuses.

use super::status::ortx_status;
use crate::error::{Error, ErrorKind, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of an exported function: success is NULL, an error or a panic a status that the caller owns.
pub fn guard(body: impl FnOnce() -> Result<()>) -> *mut ortx_status {
    match caught(body) {
        Ok(()) => std::ptr::null_mut(),
        Err(e) => ortx_status::new(e),
    }
}

/// The same for functions that cannot report: `otherwise` stands for whatever goes wrong.
pub fn guard_or<T>(otherwise: T, body: impl FnOnce() -> Result<T>) -> T {
    caught(body).unwrap_or(otherwise)
}

/// Whoever is called back, or dropped, may panic as well: nothing leaves here but an error.
fn caught<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // Handles are not left half-changed by a panic: their state is replaced whole, after the work.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(payload) => Err(from_panic(payload)),
    }
}

fn from_panic(payload: Box<dyn Any + Send>) -> Error {
    // A host's thread pool has no other way to say what went wrong (see `pool`).
    let payload = match payload.downcast::<Error>() {
        Ok(e) => return *e,
        Err(p) => p,
    };
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(s), _) => s.to_string(),
        (_, Some(s)) => s.clone(),
        _ => String::from("a panic without a message"),
    };
    // Dropping a foreign payload may panic again.
    std::mem::forget(payload);
    Error::new(ErrorKind::Internal, format!("a fault of ortx itself, please report it: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_errors_become_statuses() {
        let kind = |body: fn() -> Result<()>| caught(body).unwrap_err().kind();
        assert_eq!(kind(|| Err(Error::new(ErrorKind::Io, "x"))), ErrorKind::Io);
        assert_eq!(kind(|| std::panic::resume_unwind(Box::new("text"))), ErrorKind::Internal);
        assert_eq!(kind(|| std::panic::resume_unwind(Box::new(7))), ErrorKind::Internal);
        let thrown = || std::panic::resume_unwind(Box::new(Error::new(ErrorKind::Run, "from a callback")));
        assert_eq!(kind(thrown), ErrorKind::Run);
        assert_eq!(guard_or(3, || Err(Error::new(ErrorKind::Io, "x"))), 3);
    }
}
