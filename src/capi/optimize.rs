//! Optimised models in files.

use super::args::{get, structure, text};
use super::environment::ortx_environment;
use super::guard::guard;
use super::options::{self, ortx_session_options};
use super::status::ortx_status;
use crate::session::{Environment, ModelSource, compile, write_optimized};
use std::ffi::c_char;
use std::path::{Path, PathBuf};

/// Writes an optimised model to a file. If the file's name ends in ".ortx" it is a compiled model: weights as this library's
/// kernels want them on this processor, mapped and used where they lie, so that a session opens in a fraction of the time;
/// other versions of the library and other levels of instructions refuse it. Else it is an ONNX file, of ONNX's own
/// operators, for any reader. Sessions open both as they do any model. (The setting "cache" of a session's options does
/// both at once: it opens a compiled model, and makes it where it must.)
///
/// A compiled model that is there already, and current, stays. One that is stale, damaged or another library's is refused
/// with the reason, unless the setting "rebuild" is "1". The file appears whole or not at all.
///
/// Parameters: `environment`, or NULL; `path`, the model, UTF-8; `options`, or NULL for the defaults: those of the optimiser,
/// `isa`, `load` and the pool count; `file`, what to write, UTF-8.
/// Ownership: the arguments may go after the call; the host's thread pool is released by it.
/// Thread safety: any thread.
/// Errors: as ortx_session_create_from_file; ORTX_ERROR_UNSUPPORTED or ORTX_ERROR_INVALID_MODEL with the reason for which a
/// compiled model is refused, or with the nodes that ONNX has no operator for; ORTX_ERROR_IO.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_model_optimize(
    environment: *const ortx_environment,
    path: *const c_char,
    options: *const ortx_session_options,
    file: *const c_char,
) -> *mut ortx_status {
    guard(|| {
        let options = structure!(options);
        // SAFETY: the function's contract.
        let pool = unsafe { options::take_pool(options.as_ref()) }?;
        let source = ModelSource::Path(PathBuf::from(text!(path)));
        let file = Path::new(text!(file));
        // SAFETY: the function's contract.
        let options = unsafe { options::convert(options.as_ref(), pool) }?;
        let own;
        let env = if environment.is_null() {
            own = Environment::new();
            &own
        } else {
            &get!(environment).env
        };
        if file.extension().is_some_and(|e| e == "ortx") {
            compile(env, &source, &options, file, options.rebuild, &[]).map(drop)
        } else {
            write_optimized(env, &source, &options, file).map(drop)
        }
    })
}
