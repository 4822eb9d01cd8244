//! Runs, and what stops them.

use super::args::{array, get, out, out_ptr, structure};
use super::guard::{guard, guard_or};
use super::handle::{self, Structure, handle};
use super::session::{no_such, ortx_session};
use super::status::ortx_status;
use super::tensor::{check_bools, writable};
use super::value::ortx_value;
use crate::base::cancel::CancelToken;
use crate::error::{Context, Result};
use crate::plan::{Lent, Output};
use crate::session::{Io, RunOptions, Session};
use crate::tensor::{Tensor, Value};
use crate::{bail, ensure};
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// Stops runs from another thread.
pub struct ortx_cancel_token {
    _opaque: [u8; 0],
}
handle!(ortx_cancel_token, CancelToken, b"stop");

/// How one run goes. Set struct_size to sizeof(ortx_run_options) and all else to zero, then change what you want.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ortx_run_options {
    /// sizeof(ortx_run_options).
    pub struct_size: usize,
    /// Stops the run when cancelled; may be NULL.
    pub cancel_token: *const ortx_cancel_token,
    /// Nanoseconds after which the run stops with ORTX_ERROR_CANCELLED, counted from the call. 0: no limit.
    pub timeout_ns: u64,
}
// SAFETY: integers and a pointer, the size first.
unsafe impl Structure for ortx_run_options {}

/// The library's own options.
///
/// # Safety
/// `options` keeps the header's promises.
pub(super) unsafe fn run_options(options: *const ortx_run_options) -> Result<RunOptions> {
    let mut to = RunOptions::default();
    if let Some(o) = structure!(options) {
        let cancel_token = o.cancel_token;
        if !cancel_token.is_null() {
            to.cancel = Some(get!(cancel_token).clone());
        }
        if o.timeout_ns > 0 {
            // A time too far to be told is none.
            to.deadline = Instant::now().checked_add(Duration::from_nanos(o.timeout_ns));
        }
    }
    Ok(to)
}

/// Makes a cancel token, for as many runs as wanted.
///
/// Parameters: `token` receives the handle.
/// Ownership: the caller owns the token and ends it with ortx_cancel_token_destroy, also while runs have it.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_cancel_token_create(token: *mut *mut ortx_cancel_token) -> *mut ortx_status {
    guard(|| {
        let token = out_ptr!(token);
        token.set(handle::create(CancelToken::new()))
    })
}

/// Ends a cancel token. Runs that have it go on.
///
/// Parameters: `token`, which may be NULL.
/// Ownership: takes the token.
/// Thread safety: any thread, once, when no other call uses it.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_cancel_token_destroy(token: *mut ortx_cancel_token) {
    // SAFETY: the function's contract.
    guard_or((), || Ok(unsafe { handle::destroy(token) }));
}

/// Asks all runs that have the token to stop; each returns ORTX_ERROR_CANCELLED within a task's time, far below a
/// millisecond on the processor. Runs that start later stop at once, until the token is reset.
///
/// Parameters: `token`.
/// Thread safety: any thread, also during runs.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_cancel_token_cancel(token: *const ortx_cancel_token) -> *mut ortx_status {
    guard(|| {
        get!(token).cancel();
        Ok(())
    })
}

/// Makes a cancelled token usable again.
///
/// Parameters: `token`.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_cancel_token_reset(token: *const ortx_cancel_token) -> *mut ortx_status {
    guard(|| {
        get!(token).reset();
        Ok(())
    })
}

/// Tells whether a token is cancelled.
///
/// Parameters: `token`; `cancelled` receives 0 or 1.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_cancel_token_is_cancelled(
    token: *const ortx_cancel_token,
    cancelled: *mut i32,
) -> *mut ortx_status {
    guard(|| {
        let cancelled = out!(cancelled);
        cancelled.set(i32::from(get!(token).is_cancelled()))
    })
}

/// Runs the model once. Names are resolved beforehand, with ortx_session_input_index and _output_index.
///
/// Parameters: `session`; `options`, or NULL; `input_indices`, the place of each input in the model's order, or NULL for
/// 0, 1, 2...; `inputs`, `input_count` values: all that the model has, of those with a default as many as wanted; `output_indices`, the place of each output that is
/// wanted, or NULL for 0, 1, 2...; `outputs`, `output_count` handles: each is NULL on entry and receives a new value, or is
/// a tensor of the output's type and shape, which is written to. If the call fails NULL handles are still NULL, and what
/// is in the tensors is not defined.
/// Ownership: inputs stay the caller's; the caller owns new outputs and ends them with ortx_value_destroy. An output that
/// the model passes through may share memory with an input.
/// Thread safety: any number of threads may run one session, with outputs of their own each.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a wrong count, index, kind, element type or shape, an output given twice or
/// overlapping an input; ORTX_ERROR_CANCELLED; ORTX_ERROR_RUN, ORTX_ERROR_OUT_OF_MEMORY, ORTX_ERROR_DEVICE,
/// ORTX_ERROR_UNSUPPORTED for what the operators meet, with the node in the context.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_session_run(
    session: *const ortx_session,
    options: *const ortx_run_options,
    input_indices: *const usize,
    inputs: *const *const ortx_value,
    input_count: usize,
    output_indices: *const usize,
    outputs: *mut *mut ortx_value,
    output_count: usize,
) -> *mut ortx_status {
    guard(|| {
        let session = &get!(session).session;
        // SAFETY: the function's contract.
        let options = unsafe { run_options(options) }?;
        let (ins, open, outs) = (session.inputs(), session.overridable_inputs(), session.outputs());
        ensure!(
            (ins.len()..=ins.len() + open.len()).contains(&input_count),
            InvalidArgument,
            "the model has {} inputs ({}), {input_count} are given",
            ins.len(),
            names(ins)
        );
        ensure!(
            output_count <= outs.len(),
            InvalidArgument,
            "the model has {} outputs ({}), {output_count} are asked for",
            outs.len(),
            names(outs)
        );
        let input_places = places(array!(input_indices, if input_indices.is_null() { 0 } else { input_count }));
        let output_places = places(array!(output_indices, if output_indices.is_null() { 0 } else { output_count }));

        let mut given: Many<Option<&Value>> = smallvec::smallvec![None; ins.len() + open.len()];
        for (k, &value) in array!(inputs, input_count).iter().enumerate() {
            let i = input_places(k);
            let io = ins.iter().chain(open).nth(i).ok_or_else(|| no_such("input", i, given.len()))?;
            // SAFETY: the function's contract.
            let v = unsafe { handle::get(value, "inputs") }.context(|| format!("input '{}'", io.name))?;
            ensure!(given[i].is_none(), InvalidArgument, "input '{}' is given twice", io.name);
            check_input(io, v)?;
            given[i] = Some(v);
        }
        let mut all: Many<&Value> = Many::new();
        with_defaults(session, given.iter().copied(), |v| all.push(v))?;

        let handles = array!(outputs, output_count);
        let mut results: Many<Output> = outs.iter().map(|_| Output::Own(None)).collect();
        let mut asked: Many<bool> = smallvec::smallvec![false; outs.len()];
        let mut own: Many<Region> = Many::new();
        for (k, &output) in handles.iter().enumerate() {
            let i = output_places(k);
            let io = outs.get(i).ok_or_else(|| no_such("output", i, outs.len()))?;
            ensure!(
                !std::mem::replace(&mut asked[i], true),
                InvalidArgument,
                "output '{}' is asked for twice",
                io.name
            );
            if !output.is_null() {
                // SAFETY: the function's contract.
                let value = unsafe { handle::get_mut(output, "outputs") };
                let lent = value.and_then(|v| preallocated(v, all.iter().copied(), &mut own));
                results[i] = Output::Lent(lent.context(|| format!("output '{}'", io.name))?);
            }
        }
        session.run_into(&all, &mut results, &options, None)?;

        // First all checks, then the handles: so that a failure leaves no new ones behind.
        for k in 0..handles.len() {
            let made = !matches!(results[output_places(k)], Output::Own(None));
            ensure!(made, Internal, "output '{}' was not made", outs[output_places(k)].name);
        }
        for k in 0..handles.len() {
            if let Output::Own(v @ Some(_)) = &mut results[output_places(k)]
                && let Some(v) = v.take()
            {
                // SAFETY: k is below output_count, for which the array has room.
                unsafe { outputs.add(k).write(handle::create(v)) };
            }
        }
        Ok(())
    })
}

/// What a run is given: all inputs, and where one that has a default is among them, all that have.
pub(super) fn with_defaults<'a>(
    session: &'a Session,
    given: impl Iterator<Item = Option<&'a Value>> + Clone,
    mut give: impl FnMut(&'a Value),
) -> Result<()> {
    let ins = session.inputs();
    let overridden = given.clone().skip(ins.len()).any(|v| v.is_some());
    for (i, v) in given.take(if overridden { usize::MAX } else { ins.len() }).enumerate() {
        give(match (v, i.checked_sub(ins.len())) {
            (Some(v), _) => v,
            (None, Some(k)) => &session.defaults()[k],
            (None, None) => bail!(InvalidArgument, "input '{}' ({}) is not set", ins[i].name, ins[i].fact),
        });
    }
    Ok(())
}

/// As many as models usually have of inputs and outputs, decoders with a cache included, without allocating.
pub(super) type Many<T> = SmallVec<[T; 32]>;

/// The place in the model's order of the k-th entry.
fn places(indices: &[usize]) -> impl Fn(usize) -> usize {
    move |k| indices.get(k).copied().unwrap_or(k)
}

fn names(list: &[Io]) -> String {
    let names: Vec<&str> = list.iter().map(|i| &*i.name).collect();
    names.join(", ")
}

/// Checks a value before the run sees it.
pub(super) fn check_input(io: &Io, v: &Value) -> Result<()> {
    // The session checks the rest again; here the message can name the input before anything is done.
    io.check(v)?;
    bools(v).context(|| format!("input '{}'", io.name))
}

fn bools(v: &Value) -> Result<()> {
    match v {
        Value::Tensor(t) => check_bools(t),
        Value::Sequence(s) => s.iter().try_for_each(bools),
        Value::Optional(o) => o.as_deref().map_or(Ok(()), bools),
        Value::Map(m) => bools(&m.values),
    }
}

/// Whether a value has memory in common with a tensor.
pub(super) fn overlaps(v: &Value, t: &Tensor) -> bool {
    touches(v, region(t))
}

/// The memory of the tensors there are.
pub(super) fn regions<'a>(tensors: impl Iterator<Item = (usize, &'a Option<Tensor>)>) -> Many<Region> {
    tensors.filter_map(|(_, t)| t.as_ref()).map(region).collect()
}

/// First byte, and the byte after the last.
pub(super) type Region = (usize, usize);

fn region(t: &Tensor) -> Region {
    let start = t.data_ptr() as usize;
    (start, start + t.byte_len())
}

fn overlap(a: Region, b: Region) -> bool {
    a.0 < b.1 && b.0 < a.1
}

fn touches(v: &Value, r: Region) -> bool {
    match v {
        Value::Tensor(t) => overlap(region(t), r),
        Value::Sequence(s) => s.iter().any(|v| touches(v, r)),
        Value::Optional(o) => o.as_deref().is_some_and(|v| touches(v, r)),
        Value::Map(m) => touches(&Value::Tensor(m.keys.clone()), r) || touches(&m.values, r),
    }
}

/// The memory of a host's tensor, for an output. The host's own handle keeps it, or the caller here.
pub(super) fn preallocated<'a>(
    v: &mut Value,
    mut inputs: impl Iterator<Item = &'a Value>,
    others: &mut Many<Region>,
) -> Result<Lent> {
    let Value::Tensor(t) = v else { bail!(InvalidArgument, "only tensors can be given; give NULL for {}", v.kind()) };
    let ptr = writable(t)?;
    let r = region(t);
    ensure!(!inputs.any(|i| touches(i, r)), InvalidArgument, "its memory overlaps that of an input");
    ensure!(!others.iter().any(|&o| overlap(o, r)), InvalidArgument, "its memory overlaps that of another output");
    others.push(r);
    // SAFETY: the tensor's own memory, which may be written as `writable` tells; that nobody reads it meanwhile, and that it
    // stays, is the host's part, or that of a binding, which holds the tensor.
    Ok(unsafe { Lent::new(t, ptr) })
}
