//! Environments: what sessions share, and the list of devices.

use super::args::{get, out, out_ptr};
use super::guard::guard;
use super::handle::{self, c_string, handle};
use super::status::ortx_status;
use super::types::*;
use crate::backend::DeviceKind;
use crate::error::Result;
use crate::session::Environment;
use crate::{err, error::Error};
use std::ffi::{CString, c_char};
use std::sync::OnceLock;

/// What sessions share: the operators known, the devices found.
pub struct ortx_environment {
    _opaque: [u8; 0],
}
handle!(ortx_environment, State, b"envi");

/// The environment, and its devices once somebody asked.
pub struct State {
    pub(super) env: Environment,
    devices: OnceLock<Vec<Device>>,
}

struct Device {
    name: CString,
    description: CString,
    kind: ortx_device_type,
    memory: u64,
}

impl State {
    /// Looks for devices at the first call; a machine without any answers at once.
    fn devices(&self) -> Result<&[Device]> {
        if let Some(d) = self.devices.get() {
            return Ok(d);
        }
        let list = self.env.devices()?;
        let list = list.into_iter().map(|d| Device {
            name: c_string(&d.name),
            description: c_string(&d.description),
            kind: match d.kind {
                DeviceKind::Cpu => ORTX_DEVICE_CPU,
                DeviceKind::Gpu => ORTX_DEVICE_GPU,
                DeviceKind::Accelerator => ORTX_DEVICE_ACCELERATOR,
            },
            memory: d.memory,
        });
        let list = list.collect();
        Ok(self.devices.get_or_init(|| list))
    }
    fn device(&self, index: usize) -> Result<&Device> {
        let all = self.devices()?;
        all.get(index).ok_or_else(|| no_device(index, all.len()))
    }
}

fn no_device(index: usize, count: usize) -> Error {
    err!(InvalidArgument, "there is no device {index}, there are {count}")
}

/// Makes an environment. Sessions can be made without one; then they share nothing.
///
/// Parameters: `environment` receives the handle.
/// Ownership: the caller owns the environment and ends it with ortx_environment_destroy, before or after its sessions.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_environment_create(environment: *mut *mut ortx_environment) -> *mut ortx_status {
    guard(|| {
        let environment = out_ptr!(environment);
        environment.set(handle::create(State { env: Environment::new(), devices: OnceLock::new() }))
    })
}

/// Ends an environment. Sessions made with it go on.
///
/// Parameters: `environment`, which may be NULL.
/// Ownership: takes the environment; names and descriptions of its devices end with it.
/// Thread safety: any thread, once, when no other call uses it.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_environment_destroy(environment: *mut ortx_environment) {
    // SAFETY: the function's contract.
    super::guard::guard_or((), || Ok(unsafe { handle::destroy(environment) }));
}

/// Counts the devices beside the processor itself that sessions can use. They are looked for at the first call and kept;
/// where there is no OpenCL the answer is 0 at once.
///
/// Parameters: `environment`; `count` receives the number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL; ORTX_ERROR_DEVICE where a driver fails.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_environment_device_count(
    environment: *const ortx_environment,
    count: *mut usize,
) -> *mut ortx_status {
    guard(|| {
        let count = out!(count);
        count.set(get!(environment).devices()?.len())
    })
}

/// Tells the name that session options take for a device, as "opencl:0".
///
/// Parameters: `environment`; `index` below the count; `name` receives UTF-8 text.
/// Ownership: the text lives as long as the environment.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_environment_device_name(
    environment: *const ortx_environment,
    index: usize,
    name: *mut *const c_char,
) -> *mut ortx_status {
    guard(|| {
        let name = out_ptr!(name, const);
        name.set(get!(environment).device(index)?.name.as_ptr())
    })
}

/// Describes a device for a human: model, kind, size, driver.
///
/// Parameters: `environment`; `index` below the count; `description` receives UTF-8 text of one line.
/// Ownership: the text lives as long as the environment.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_environment_device_description(
    environment: *const ortx_environment,
    index: usize,
    description: *mut *const c_char,
) -> *mut ortx_status {
    guard(|| {
        let description = out_ptr!(description, const);
        description.set(get!(environment).device(index)?.description.as_ptr())
    })
}

/// Tells what kind of processor a device is.
///
/// Parameters: `environment`; `index` below the count; `device_type` receives an ORTX_DEVICE_ number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_environment_device_type(
    environment: *const ortx_environment,
    index: usize,
    device_type: *mut ortx_device_type,
) -> *mut ortx_status {
    guard(|| {
        let kind = out!(device_type);
        kind.set(get!(environment).device(index)?.kind)
    })
}

/// Tells how much memory a device has.
///
/// Parameters: `environment`; `index` below the count; `bytes` receives the size.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_environment_device_memory(
    environment: *const ortx_environment,
    index: usize,
    bytes: *mut u64,
) -> *mut ortx_status {
    guard(|| {
        let bytes = out!(bytes);
        bytes.set(get!(environment).device(index)?.memory)
    })
}
