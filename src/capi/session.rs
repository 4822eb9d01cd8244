//! Sessions: made from a file or memory; their inputs and outputs.

use super::args::{array, get, out, out_ptr, structure, text};
use super::environment::ortx_environment;
use super::guard::{guard, guard_or};
use super::handle::{self, Out, c_string, handle};
use super::options::{self, ortx_session_options};
use super::pool::{Release, ortx_release};
use super::status::ortx_status;
use super::types::*;
use crate::base::alloc::Buffer;
use crate::error::{Context, Error, Result};
use crate::ir::{Dim, Fact};
use crate::session::{Environment, Io, ModelSource, Session};
use crate::{ensure, err};
use bytes::Bytes;
use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::Arc;

/// A model, ready to run, by any number of threads at once.
pub struct ortx_session {
    _opaque: [u8; 0],
}
handle!(ortx_session, Arc<State>, b"sess");

/// The type of an input or output: what is known before the model runs. A part of its session.
pub struct ortx_type {
    _opaque: [u8; 0],
}
impl handle::Handle for ortx_type {
    type State = Type;
    const TAG: u32 = u32::from_le_bytes(*b"type");
}

/// A session with its texts ready for C. Runs and bindings share it with the handle.
pub struct State {
    pub(super) session: Session,
    inputs: Vec<IoText>,
    outputs: Vec<IoText>,
    pub(super) texts: [CString; 5],
    pub(super) opsets: Vec<(CString, i64)>,
    pub(super) properties: Vec<(CString, CString)>,
    pub(super) warnings: Vec<CString>,
}

struct IoText {
    name: CString,
    ty: TypeHandle,
}

/// What C sees of a fact.
pub struct Type {
    kind: ortx_kind,
    /// Of a tensor's elements, or a map's keys.
    dtype: ortx_dtype,
    /// Size (-1 where not known) and symbol of each axis; none where even the rank is not known.
    dims: Option<Vec<(i64, Option<CString>)>>,
    /// Of a sequence, optional, or map's values.
    element: Option<TypeHandle>,
}

/// Owns a handle.
struct TypeHandle(*mut ortx_type);

// SAFETY: a Type is plain data that nobody changes.
unsafe impl Send for TypeHandle {}
// SAFETY: as above.
unsafe impl Sync for TypeHandle {}

impl Drop for TypeHandle {
    fn drop(&mut self) {
        // SAFETY: made by `create`, and ended here only.
        unsafe { handle::destroy(self.0) };
    }
}

impl Type {
    fn of(fact: &Fact) -> TypeHandle {
        let element = |f: &Fact| Some(Type::of(f));
        let (kind, dtype, element) = match fact {
            Fact::Tensor(t) => (ORTX_KIND_TENSOR, t.dtype as i32, None),
            Fact::Sequence(e) => (ORTX_KIND_SEQUENCE, ORTX_DTYPE_UNDEFINED, element(e)),
            Fact::Optional(e) => (ORTX_KIND_OPTIONAL, ORTX_DTYPE_UNDEFINED, element(e)),
            Fact::Map(k, v) => (ORTX_KIND_MAP, *k as i32, element(v)),
            Fact::Absent | Fact::Unknown => (ORTX_KIND_UNKNOWN, ORTX_DTYPE_UNDEFINED, None),
        };
        let axis = |d: &Dim| match d {
            Dim::Known(n) if *n >= 0 => (*n, None),
            Dim::Known(_) | Dim::Unknown => (-1, None),
            Dim::Expr(_) => (-1, Some(c_string(&d.to_string()))),
        };
        let dims = fact.as_tensor().and_then(|t| t.dims.as_ref()).map(|d| d.iter().map(axis).collect());
        TypeHandle(handle::create(Type { kind, dtype, dims, element }))
    }
}

impl State {
    fn new(session: Session) -> State {
        let texts = |list: &[Io]| {
            list.iter().map(|io| IoText { name: c_string(&io.name), ty: Type::of(&io.fact) }).collect::<Vec<_>>()
        };
        let m = session.metadata();
        State {
            inputs: texts(&[session.inputs(), session.overridable_inputs()].concat()),
            outputs: texts(session.outputs()),
            texts: [&m.producer.0, &m.producer.1, &m.graph_name, &m.domain, &m.doc].map(|s| c_string(s)),
            opsets: m.opsets.iter().map(|(d, v)| (c_string(d), i64::from(*v))).collect(),
            properties: m.properties.iter().map(|(k, v)| (c_string(k), c_string(v))).collect(),
            warnings: session.warnings().iter().map(|w| c_string(w)).collect(),
            session,
        }
    }
    fn input(&self, index: usize) -> Result<&IoText> {
        self.inputs.get(index).ok_or_else(|| no_such("input", index, self.inputs.len()))
    }
    fn output(&self, index: usize) -> Result<&IoText> {
        self.outputs.get(index).ok_or_else(|| no_such("output", index, self.outputs.len()))
    }
}

pub(super) fn no_such(what: &str, index: usize, count: usize) -> Error {
    err!(InvalidArgument, "the model has no {what} of index {index}, it has {count}")
}

/// Makes the session; `pool` was taken out of the options already.
///
/// # Safety
/// The pointers keep the header's promises.
unsafe fn create(
    environment: *const ortx_environment,
    source: impl FnOnce() -> Result<ModelSource>,
    options: Option<&ortx_session_options>,
    pool: Option<super::pool::HostPool>,
    session: Out<*mut ortx_session>,
) -> Result<()> {
    // SAFETY: passed on.
    let options = unsafe { options::convert(options, pool) }?;
    let made = if environment.is_null() {
        Session::new_from(&Environment::new(), source, &options)?
    } else {
        Session::new_from(&get!(environment).env, source, &options)?
    };
    session.set(handle::create(Arc::new(State::new(made))))
}

/// Makes a session from a model file. Tensors that the model keeps in other files are looked for in its folder, and nowhere
/// else.
///
/// Parameters: `environment`, or NULL; `path`, UTF-8; `options`, or NULL for the defaults; `session` receives the handle.
/// Ownership: the caller owns the session and ends it with ortx_session_destroy. The arguments may go after the call, but
/// for the host's thread pool, which is released with the session, or by this call where it fails.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_NOT_FOUND, ORTX_ERROR_IO for the file; ORTX_ERROR_INVALID_MODEL for what is in it;
/// ORTX_ERROR_UNSUPPORTED, with all operators that are missing; ORTX_ERROR_INVALID_ARGUMENT for options and NULL;
/// ORTX_ERROR_OUT_OF_MEMORY.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_create_from_file(
    environment: *const ortx_environment,
    path: *const c_char,
    options: *const ortx_session_options,
    session: *mut *mut ortx_session,
) -> *mut ortx_status {
    guard(|| {
        let session = out_ptr!(session, later);
        let options = structure!(options);
        // SAFETY: the function's contract.
        let pool = unsafe { options::take_pool(options.as_ref()) }?;
        let session = session?;
        let path = text!(path);
        let source = || Ok(ModelSource::Path(PathBuf::from(path)));
        // SAFETY: the function's contract.
        unsafe { create(environment, source, options.as_ref(), pool, session) }
    })
}

/// Makes a session from a model in memory, which is copied.
///
/// Parameters: `environment`, or NULL; `data`, `size` bytes; `folder`, UTF-8, where the files are that the model keeps
/// tensors in, or NULL if there are none; `options`, or NULL for the defaults; `session` receives the handle.
/// Ownership: as ortx_session_create_from_file.
/// Thread safety: any thread.
/// Errors: as ortx_session_create_from_file.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_create_from_memory(
    environment: *const ortx_environment,
    data: *const c_void,
    size: usize,
    folder: *const c_char,
    options: *const ortx_session_options,
    session: *mut *mut ortx_session,
) -> *mut ortx_status {
    guard(|| {
        let session = out_ptr!(session, later);
        let options = structure!(options);
        // SAFETY: the function's contract.
        let pool = unsafe { options::take_pool(options.as_ref()) }?;
        let session = session?;
        let data = data.cast::<u8>();
        let bytes = array!(data, size);
        let folder = folder_of(folder)?;
        let source = || {
            let copy = Buffer::uninit(size).context(|| "a copy of the model".into())?;
            // SAFETY: both have `size` bytes, and the copy is new.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy.ptr(), size) };
            Ok(ModelSource::Bytes(Bytes::from_owner(Copied(copy)), folder))
        };
        // SAFETY: the function's contract.
        unsafe { create(environment, source, options.as_ref(), pool, session) }
    })
}

/// Makes a session from a model in memory that is used where it is. Weights that need no conversion are read from there
/// during runs.
///
/// Parameters: `environment`, or NULL; `data`, `size` bytes; `release`, or NULL, is called once with `user` when the memory
/// is not needed any more: after the session and all values that came from it are gone, or by this call where it fails;
/// `folder` and `options` as in ortx_session_create_from_memory; `session` receives the handle.
/// Ownership: the caller owns the session and ends it with ortx_session_destroy. The memory must stay, unchanged, until
/// the release.
/// Thread safety: any thread.
/// Errors: as ortx_session_create_from_file.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_create_from_borrowed_memory(
    environment: *const ortx_environment,
    data: *const c_void,
    size: usize,
    release: ortx_release,
    user: *mut c_void,
    folder: *const c_char,
    options: *const ortx_session_options,
    session: *mut *mut ortx_session,
) -> *mut ortx_status {
    guard(|| {
        let release = Release::new(release, user);
        let session = out_ptr!(session, later);
        let options = structure!(options);
        // SAFETY: the function's contract.
        let pool = unsafe { options::take_pool(options.as_ref()) }?;
        let session = session?;
        let data = data.cast::<u8>();
        let borrowed = Borrowed { bytes: array!(data, size), _release: release };
        let folder = folder_of(folder)?;
        let source = || Ok(ModelSource::Bytes(Bytes::from_owner(borrowed), folder));
        // SAFETY: the function's contract.
        unsafe { create(environment, source, options.as_ref(), pool, session) }
    })
}

fn folder_of(folder: *const c_char) -> Result<Option<PathBuf>> {
    Ok(if folder.is_null() { None } else { Some(PathBuf::from(text!(folder))) })
}

/// A buffer that is all written.
struct Copied(Buffer);

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: written in full before this was made, and never after.
        unsafe { std::slice::from_raw_parts(self.0.ptr(), self.0.len()) }
    }
}

/// The host's memory.
struct Borrowed {
    bytes: &'static [u8],
    _release: Release,
}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

/// Ends a session. Runs that are going on in other threads must be over; bindings, values and cancel tokens made with it
/// live on.
///
/// Parameters: `session`, which may be NULL.
/// Ownership: takes the session; names, types and texts that it gave out end with it.
/// Thread safety: any thread, once, when no other call uses it.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_destroy(session: *mut ortx_session) {
    // SAFETY: the function's contract.
    guard_or((), || Ok(unsafe { handle::destroy(session) }));
}

/// Counts the model's inputs, without those that have a default (see ortx_session_overridable_count).
///
/// Parameters: `session`; `count` receives the number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_input_count(session: *const ortx_session, count: *mut usize) -> *mut ortx_status {
    guard(|| {
        let count = out!(count);
        count.set(get!(session).session.inputs().len())
    })
}

/// Counts the inputs that have a default: initialisers that a model of IR version 4 or later lists as inputs too. Their
/// indices follow those of the inputs that ortx_session_input_count counts; a run may give them another value, and then
/// is slower than one that leaves them as they are.
///
/// Parameters: `session`; `count` receives the number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_overridable_count(
    session: *const ortx_session,
    count: *mut usize,
) -> *mut ortx_status {
    guard(|| {
        let count = out!(count);
        count.set(get!(session).session.overridable_inputs().len())
    })
}

/// Counts the model's outputs.
///
/// Parameters: `session`; `count` receives the number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_output_count(
    session: *const ortx_session,
    count: *mut usize,
) -> *mut ortx_status {
    guard(|| {
        let count = out!(count);
        count.set(get!(session).outputs.len())
    })
}

/// Tells the name of an input.
///
/// Parameters: `session`; `index` below the count; `name` receives UTF-8 text.
/// Ownership: the text lives as long as the session.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_input_name(
    session: *const ortx_session,
    index: usize,
    name: *mut *const c_char,
) -> *mut ortx_status {
    guard(|| {
        let name = out_ptr!(name, const);
        name.set(get!(session).input(index)?.name.as_ptr())
    })
}

/// Tells the name of an output.
///
/// Parameters: `session`; `index` below the count; `name` receives UTF-8 text.
/// Ownership: the text lives as long as the session.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_output_name(
    session: *const ortx_session,
    index: usize,
    name: *mut *const c_char,
) -> *mut ortx_status {
    guard(|| {
        let name = out_ptr!(name, const);
        name.set(get!(session).output(index)?.name.as_ptr())
    })
}

/// Finds an input by name. Do it once, and run by index.
///
/// Parameters: `session`; `name`, UTF-8; `index` receives the place in the model's order.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an unknown name; the message lists the names there are.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_input_index(
    session: *const ortx_session,
    name: *const c_char,
    index: *mut usize,
) -> *mut ortx_status {
    guard(|| {
        let index = out!(index);
        index.set(get!(session).session.input_index(text!(name))?)
    })
}

/// Finds an output by name. Do it once, and run by index.
///
/// Parameters: `session`; `name`, UTF-8; `index` receives the place in the model's order.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an unknown name; the message lists the names there are.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_output_index(
    session: *const ortx_session,
    name: *const c_char,
    index: *mut usize,
) -> *mut ortx_status {
    guard(|| {
        let index = out!(index);
        index.set(get!(session).session.output_index(text!(name))?)
    })
}

/// Tells the type of an input.
///
/// Parameters: `session`; `index` below the count; `value_type` receives it.
/// Ownership: the type is a part of the session and ends with it.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_input_type(
    session: *const ortx_session,
    index: usize,
    value_type: *mut *const ortx_type,
) -> *mut ortx_status {
    guard(|| {
        let ty = out_ptr!(value_type, const);
        ty.set(get!(session).input(index)?.ty.0)
    })
}

/// Tells the type of an output.
///
/// Parameters: `session`; `index` below the count; `value_type` receives it.
/// Ownership: the type is a part of the session and ends with it.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_output_type(
    session: *const ortx_session,
    index: usize,
    value_type: *mut *const ortx_type,
) -> *mut ortx_status {
    guard(|| {
        let ty = out_ptr!(value_type, const);
        ty.set(get!(session).output(index)?.ty.0)
    })
}

/// Tells what kind of value a type is of.
///
/// Parameters: `value_type`; `kind` receives an ORTX_KIND_ number; ORTX_KIND_UNKNOWN where the model does not tell.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_type_kind(value_type: *const ortx_type, kind: *mut ortx_kind) -> *mut ortx_status {
    guard(|| {
        let kind = out!(kind);
        kind.set(get!(value_type).kind)
    })
}

/// Tells the element type of a tensor, or the type of a map's keys.
///
/// Parameters: `value_type`; `dtype` receives an ORTX_DTYPE_ number; ORTX_DTYPE_UNDEFINED for other kinds.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_type_dtype(value_type: *const ortx_type, dtype: *mut ortx_dtype) -> *mut ortx_status {
    guard(|| {
        let dtype = out!(dtype);
        dtype.set(get!(value_type).dtype)
    })
}

/// Tells how many axes a tensor has.
///
/// Parameters: `value_type`; `rank` receives the number; -1 where it is not known, and for other kinds.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_type_rank(value_type: *const ortx_type, rank: *mut i64) -> *mut ortx_status {
    guard(|| {
        let rank = out!(rank, -1);
        rank.set(get!(value_type).dims.as_ref().map_or(-1, |d| d.len() as i64))
    })
}

/// Tells the size of an axis of a tensor.
///
/// Parameters: `value_type`; `axis` below the rank; `size` receives the number of elements, -1 where it depends on the run;
/// `symbol` receives the name that the model gives such a size ("batch", or an expression of such names), else NULL.
/// `symbol` itself may be NULL.
/// Ownership: the text lives as long as the session.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an axis out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_type_dim(
    value_type: *const ortx_type,
    axis: usize,
    size: *mut i64,
    symbol: *mut *const c_char,
) -> *mut ortx_status {
    guard(|| {
        let symbol = if symbol.is_null() { None } else { Some(out_ptr!(symbol, const)) };
        let size = out!(size, -1);
        let dims = get!(value_type).dims.as_deref().unwrap_or_default();
        ensure!(axis < dims.len(), InvalidArgument, "there is no axis {axis}, {} are known", dims.len());
        let (n, name) = &dims[axis];
        if let Some(s) = symbol {
            s.set(name.as_ref().map_or(std::ptr::null(), |n| n.as_ptr()))?;
        }
        size.set(*n)
    })
}

/// Tells the type of what a sequence or optional holds, or of a map's values.
///
/// Parameters: `value_type`; `element` receives the type; NULL for other kinds.
/// Ownership: the type is a part of the session and ends with it.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_type_element(
    value_type: *const ortx_type,
    element: *mut *const ortx_type,
) -> *mut ortx_status {
    guard(|| {
        let element = out_ptr!(element, const);
        element.set(get!(value_type).element.as_ref().map_or(std::ptr::null(), |e| e.0.cast_const()))
    })
}

/// Tells how many threads work on a run, the calling one included.
///
/// Parameters: `session`; `threads` receives the number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_threads(session: *const ortx_session, threads: *mut i32) -> *mut ortx_status {
    guard(|| {
        let threads = out!(threads);
        threads.set(i32::try_from(get!(session).session.threads()).unwrap_or(i32::MAX))
    })
}

/// Tells the level of instructions that the session uses.
///
/// Parameters: `session`; `isa` receives an ORTX_ISA_ number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_isa(session: *const ortx_session, isa: *mut ortx_isa) -> *mut ortx_status {
    guard(|| {
        let isa = out!(isa);
        isa.set(super::types::isa(get!(session).session.isa().level()))
    })
}
