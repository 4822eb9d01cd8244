//! The C API's side of the worker: the calls that a C program makes, its arguments made once.

use super::Result;
use ortx::Tensor;
use ortx::capi::{binding::*, options::*, run::*, session::*, status::*, tensor::*, types::*, value::*};
use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

/// How a run is asked for.
#[derive(Clone, Copy, PartialEq)]
pub enum Call {
    /// `ortx_session_run` with new outputs each time, ended after it.
    Session,
    /// `ortx_binding_run`.
    Binding,
}

/// A session with its inputs.
pub struct Worker {
    session: *mut ortx_session,
    inputs: Vec<*const ortx_value>,
    outputs: Vec<*mut ortx_value>,
    binding: *mut ortx_binding,
    call: Call,
}

fn ok(status: *mut ortx_status) -> Result<()> {
    if status.is_null() {
        return Ok(());
    }
    // SAFETY: a status that is not NULL is ours; its text is read before it ends.
    unsafe {
        let text = CStr::from_ptr(ortx_status_text(status)).to_string_lossy().into_owned();
        ortx_status_destroy(status);
        Err(text.into())
    }
}

impl Worker {
    /// Loads the model.
    pub fn new(model: &str, threads: i32, call: Call) -> Result<Worker> {
        let (mut session, model) = (null_mut(), CString::new(model)?);
        // SAFETY: zero is valid for options; the path ends with NUL.
        unsafe {
            let mut options: ortx_session_options = std::mem::zeroed();
            (options.struct_size, options.threads) = (size_of_val(&options), threads);
            ok(ortx_session_create_from_file(null(), model.as_ptr(), &options, &mut session))?;
        }
        Ok(Worker { session, inputs: Vec::new(), outputs: Vec::new(), binding: null_mut(), call })
    }
    /// Sets the inputs, by name.
    pub fn set(&mut self, given: &[(String, Tensor)]) -> Result<()> {
        // SAFETY: live handles; the arrays are alive during the calls, which copy.
        unsafe {
            ok(ortx_binding_create(self.session, &mut self.binding))?;
            let (mut count, mut outputs) = (0, 0);
            ok(ortx_session_input_count(self.session, &mut count))?;
            ok(ortx_session_output_count(self.session, &mut outputs))?;
            self.outputs = vec![null_mut(); outputs];
            for i in 0..count {
                let mut name = null();
                ok(ortx_session_input_name(self.session, i, &mut name))?;
                let name = CStr::from_ptr(name).to_str()?;
                let (_, t) = given.iter().find(|g| g.0 == name).ok_or_else(|| format!("no data for input '{name}'"))?;
                let shape: Vec<i64> = t.shape().iter().map(|&d| d as i64).collect();
                let (data, mut value) = (t.bytes(), null_mut());
                let (dtype, at) = (t.dtype() as ortx_dtype, data.as_ptr().cast());
                ok(ortx_tensor_create_from_copy(dtype, shape.as_ptr(), shape.len(), at, data.len(), &mut value))?;
                ok(ortx_binding_set_input(self.binding, i, value))?;
                self.inputs.push(value);
            }
        }
        Ok(())
    }
    /// Runs once.
    pub fn run(&mut self) -> Result<()> {
        // SAFETY: live handles; as many as the arrays hold.
        unsafe {
            if self.call == Call::Binding {
                return ok(ortx_binding_run(self.binding, null()));
            }
            let (ins, outs) = (&self.inputs, &mut self.outputs);
            let status = ortx_session_run(
                self.session,
                null(),
                null(),
                ins.as_ptr(),
                ins.len(),
                null(),
                outs.as_mut_ptr(),
                outs.len(),
            );
            for o in outs {
                ortx_value_destroy(std::mem::replace(o, null_mut()));
            }
            ok(status)
        }
    }
}
