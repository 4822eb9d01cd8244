//! What a model says of itself.

use super::args::{get, out, out_ptr};
use super::guard::guard;
use super::session::ortx_session;
use super::status::ortx_status;
use crate::{bail, err};
use std::ffi::c_char;

/// A text of a model's metadata.
pub type ortx_text = i32;
/// The tool that wrote the model.
pub const ORTX_TEXT_PRODUCER_NAME: ortx_text = 1;
/// The version of that tool.
pub const ORTX_TEXT_PRODUCER_VERSION: ortx_text = 2;
/// The name of the model's graph.
pub const ORTX_TEXT_GRAPH_NAME: ortx_text = 3;
/// The domain that the model's author gave it, as "org.example".
pub const ORTX_TEXT_DOMAIN: ortx_text = 4;
/// A description for humans.
pub const ORTX_TEXT_DOC: ortx_text = 5;

/// Tells one of the texts that a model carries.
///
/// Parameters: `session`; `which`, an ORTX_TEXT_ number; `text` receives UTF-8 text, "" where the model says nothing.
/// Ownership: the text lives as long as the session.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a number that is none.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_text(
    session: *const ortx_session,
    which: ortx_text,
    text: *mut *const c_char,
) -> *mut ortx_status {
    guard(|| {
        let text = out_ptr!(text, const);
        let texts = &get!(session).texts;
        let index = usize::try_from(which).ok().and_then(|n| n.checked_sub(1));
        match index.and_then(|i| texts.get(i)) {
            Some(t) => text.set(t.as_ptr()),
            None => bail!(InvalidArgument, "there is no text {which}"),
        }
    })
}

/// Tells the version that the model's author gave it.
///
/// Parameters: `session`; `version` receives the number, 0 where the model says nothing.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_model_version(
    session: *const ortx_session,
    version: *mut i64,
) -> *mut ortx_status {
    guard(|| {
        let version = out!(version);
        version.set(get!(session).session.metadata().version)
    })
}

/// Tells the version of the ONNX file format (the IR version) that the model uses.
///
/// Parameters: `session`; `version` receives the number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_ir_version(session: *const ortx_session, version: *mut i64) -> *mut ortx_status {
    guard(|| {
        let version = out!(version);
        version.set(get!(session).session.metadata().ir_version)
    })
}

/// Counts the operator sets that the model imports.
///
/// Parameters: `session`; `count` receives the number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_opset_count(session: *const ortx_session, count: *mut usize) -> *mut ortx_status {
    guard(|| {
        let count = out!(count);
        count.set(get!(session).opsets.len())
    })
}

/// Tells an operator set that the model imports.
///
/// Parameters: `session`; `index` below the count; `domain` receives UTF-8 text, "" for ONNX's own; `version` receives the
/// version.
/// Ownership: the text lives as long as the session.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_opset(
    session: *const ortx_session,
    index: usize,
    domain: *mut *const c_char,
    version: *mut i64,
) -> *mut ortx_status {
    guard(|| {
        let domain = out_ptr!(domain, const);
        let version = out!(version);
        let all = &get!(session).opsets;
        let (d, v) = all.get(index).ok_or_else(|| err!(InvalidArgument, "there is no operator set {index}"))?;
        domain.set(d.as_ptr())?;
        version.set(*v)
    })
}

/// Counts the model's key/value pairs.
///
/// Parameters: `session`; `count` receives the number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_property_count(
    session: *const ortx_session,
    count: *mut usize,
) -> *mut ortx_status {
    guard(|| {
        let count = out!(count);
        count.set(get!(session).properties.len())
    })
}

/// Tells one of the model's key/value pairs, such as its classes' names.
///
/// Parameters: `session`; `index` below the count; `key` and `value` receive UTF-8 text.
/// Ownership: the texts live as long as the session.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_property(
    session: *const ortx_session,
    index: usize,
    key: *mut *const c_char,
    value: *mut *const c_char,
) -> *mut ortx_status {
    guard(|| {
        let key = out_ptr!(key, const);
        let value = out_ptr!(value, const);
        let all = &get!(session).properties;
        let (k, v) = all.get(index).ok_or_else(|| err!(InvalidArgument, "there is no property {index}"))?;
        key.set(k.as_ptr())?;
        value.set(v.as_ptr())
    })
}

/// Counts what the caller should hear of: devices that the options prefer and that cannot be used, so that the processor takes
/// their place. They are known when the session is made, and stay.
///
/// Parameters: `session`; `count` receives the number, 0 where all is as asked for.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_warning_count(
    session: *const ortx_session,
    count: *mut usize,
) -> *mut ortx_status {
    guard(|| {
        let count = out!(count);
        count.set(get!(session).warnings.len())
    })
}

/// Tells one of them.
///
/// Parameters: `session`; `index` below the count; `text` receives UTF-8 text of one line.
/// Ownership: the text lives as long as the session.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_warning(
    session: *const ortx_session,
    index: usize,
    text: *mut *const c_char,
) -> *mut ortx_status {
    guard(|| {
        let text = out_ptr!(text, const);
        let all = &get!(session).warnings;
        let none = || err!(InvalidArgument, "there is no warning {index}, there are {}", all.len());
        text.set(all.get(index).ok_or_else(none)?.as_ptr())
    })
}
