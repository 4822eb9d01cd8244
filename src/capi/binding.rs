//! Bindings: inputs and outputs set once, for repeated runs that allocate nothing.

use super::args::{get, get_mut, out_ptr};
use super::guard::{guard, guard_or};
use super::handle::{self, handle};
use super::run::{check_input, ortx_run_options, preallocated, run_options, with_defaults};
use super::session::{self, no_such, ortx_session};
use super::status::ortx_status;
use super::value::ortx_value;
use crate::base::trylock::{Locked, TryLock};
use crate::error::{Context, Result};
use crate::plan::Output;
use crate::tensor::{Tensor, Value};
use crate::{bail, ensure, err};
use std::sync::Arc;

/// The inputs and outputs of repeated runs. One thread at a time may use it; make one for each thread.
pub struct ortx_binding {
    _opaque: [u8; 0],
}
handle!(ortx_binding, State, b"bind");

/// A session's inputs and outputs.
pub struct State {
    session: Arc<session::State>,
    slots: TryLock<Slots>,
}

struct Slots {
    /// Those that have a default after the others. What is not set is not there.
    inputs: Vec<Option<Value>>,
    /// What runs are given, once it is made of `inputs` and defaults; empty after one of those was changed.
    all: Vec<Value>,
    /// What the runs write to.
    outputs: Vec<Output>,
    /// The host's tensors of outputs that it set, which keep their memory.
    given: Vec<Option<Tensor>>,
}

impl State {
    fn slots(&self) -> Result<Locked<'_, Slots>> {
        let used = || err!(InvalidArgument, "the binding is in use by another thread: make one for each thread");
        self.slots.try_lock().ok_or_else(used)
    }
}

/// Makes a binding of a session.
///
/// Parameters: `session`; `binding` receives the handle.
/// Ownership: the caller owns the binding and ends it with ortx_binding_destroy, before or after the session.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_binding_create(
    session: *const ortx_session,
    binding: *mut *mut ortx_binding,
) -> *mut ortx_status {
    guard(|| {
        let binding = out_ptr!(binding);
        let session = get!(session).clone();
        let ins = session.session.inputs().len() + session.session.overridable_inputs().len();
        let outs = session.session.outputs().len();
        let slots = Slots {
            inputs: vec![None; ins],
            all: Vec::with_capacity(ins),
            outputs: (0..outs).map(|_| Output::Own(None)).collect(),
            given: vec![None; outs],
        };
        binding.set(handle::create(State { session, slots: TryLock::new(slots) }))
    })
}

/// Ends a binding.
///
/// Parameters: `binding`, which may be NULL.
/// Ownership: takes the binding; values set in it stay the caller's.
/// Thread safety: any thread, once, when no other call uses it.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_binding_destroy(binding: *mut ortx_binding) {
    // SAFETY: the function's contract.
    guard_or((), || Ok(unsafe { handle::destroy(binding) }));
}

/// Sets an input for all runs to come. Later runs see what is written to its memory between them.
///
/// Parameters: `binding`; `index`, the input's place in the model's order; `value`, or NULL for an input that has a default,
/// which it has again then.
/// Ownership: the value stays the caller's, who may end it at once; the binding shares its memory.
/// Thread safety: one thread at a time for each binding.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an index out of range, a wrong kind, element type or shape, or memory that
/// overlaps that of an output.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_binding_set_input(
    binding: *const ortx_binding,
    index: usize,
    value: *const ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let state = get!(binding);
        let (ins, open) = (state.session.session.inputs(), state.session.session.overridable_inputs());
        let count = ins.len() + open.len();
        let io = ins.iter().chain(open).nth(index).ok_or_else(|| no_such("input", index, count))?;
        if value.is_null() && index >= ins.len() {
            let mut slots = state.slots()?;
            slots.inputs[index] = None;
            slots.all.clear();
            return Ok(());
        }
        let v = get!(value);
        check_input(io, v)?;
        let mut slots = state.slots()?;
        for t in slots.given.iter().flatten() {
            ensure!(
                !super::run::overlaps(v, t),
                InvalidArgument,
                "input '{}' overlaps the memory of an output",
                io.name
            );
        }
        slots.inputs[index] = Some(v.clone());
        slots.all.clear();
        Ok(())
    })
}

/// Sets the tensor that runs write an output to.
///
/// Parameters: `binding`; `index`, the output's place in the model's order; `tensor`, of the type and shape that the output
/// has, in memory that may be written (see ortx_tensor_data_mut); or NULL, which is how a binding begins: then it has memory
/// of its own, used again by each run whose output has the same shape.
/// Ownership: the tensor stays the caller's, who may end it at once; the binding shares its memory.
/// Thread safety: one thread at a time for each binding.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for a NULL binding, an index out of range, a value that is no tensor, memory that may
/// not be written, or overlaps that of an input or another output.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_binding_set_output(
    binding: *const ortx_binding,
    index: usize,
    tensor: *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let state = get!(binding);
        let outs = state.session.session.outputs();
        let io = outs.get(index).ok_or_else(|| no_such("output", index, outs.len()))?;
        let mut slots = state.slots()?;
        if tensor.is_null() {
            (slots.outputs[index], slots.given[index]) = (Output::Own(None), None);
            return Ok(());
        }
        let v = get_mut!(tensor);
        let mut others = super::run::regions(slots.given.iter().enumerate().filter(|g| g.0 != index));
        let lent =
            preallocated(v, slots.inputs.iter().flatten(), &mut others).context(|| format!("output '{}'", io.name))?;
        let given = v.as_tensor()?.clone();
        (slots.outputs[index], slots.given[index]) = (Output::Lent(lent), Some(given));
        Ok(())
    })
}

/// Runs the model on the inputs set. With shapes that were there before and outputs that are set, or whose values nobody
/// else has, this allocates nothing.
///
/// Parameters: `binding`; `options`, or NULL.
/// Ownership: nothing changes hands.
/// Thread safety: one thread at a time for each binding.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an input that is not set, an output tensor of another type or shape than the
/// model gives; else as ortx_session_run.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_binding_run(
    binding: *const ortx_binding,
    options: *const ortx_run_options,
) -> *mut ortx_status {
    guard(|| {
        let state = get!(binding);
        let session = &state.session.session;
        // SAFETY: the function's contract.
        let options = unsafe { run_options(options) }?;
        let mut slots = state.slots()?;
        let Slots { inputs, all, outputs, .. } = &mut *slots;
        for (io, v) in session.inputs().iter().chain(session.overridable_inputs()).zip(inputs.iter()) {
            // Its memory may have changed since it was set.
            v.as_ref().map_or(Ok(()), |v| check_input(io, v))?;
        }
        if all.is_empty() {
            let filled = with_defaults(session, inputs.iter().map(Option::as_ref), |v| all.push(v.clone()));
            if filled.is_err() {
                all.clear();
            }
            filled?;
        }
        session.run_into(all, outputs, &options, None)
    })
}

/// Gives an output of the last run.
///
/// Parameters: `binding`; `index`, the output's place in the model's order; `value` receives a handle.
/// Ownership: the caller owns the handle and ends it with ortx_value_destroy. A tensor that was set is overwritten by the
/// next run; another value stays as it is, as the next run finds it taken and allocates.
/// Thread safety: one thread at a time for each binding.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an index out of range, or before the first run.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_binding_output(
    binding: *const ortx_binding,
    index: usize,
    value: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let value = out_ptr!(value);
        let state = get!(binding);
        let outs = state.session.session.outputs();
        let io = outs.get(index).ok_or_else(|| no_such("output", index, outs.len()))?;
        let slots = state.slots()?;
        let v = match (&slots.given[index], &slots.outputs[index]) {
            (Some(g), _) => Value::Tensor(g.clone()),
            (None, Output::Own(Some(v))) => v.clone(),
            (None, _) => bail!(InvalidArgument, "output '{}' is not there: the binding did not run yet", io.name),
        };
        value.set(handle::create(v))
    })
}
