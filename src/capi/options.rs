//! Session options: the C structure, and how it becomes the library's own.

use super::args::{array, text};
use super::handle::Structure;
use super::pool::{HostPool, ortx_thread_pool};
use super::types::*;
use crate::error::Result;
use crate::proto::source::Mode;
use crate::session::SessionOptions;
use crate::{bail, ensure};
use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

/// How a model file comes into memory.
pub type ortx_load = i32;
/// Mapped: read as needed, shared between processes. Whoever shortens the file while a session lives ends the process with
/// SIGBUS.
pub const ORTX_LOAD_MAP: ortx_load = 0;
/// Read at once: the file may change afterwards.
pub const ORTX_LOAD_READ: ortx_load = 1;

/// A device that a session may use before the processor. Arrays of it never grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ortx_device_choice {
    /// The device's name, as ortx_environment_device_name tells it.
    pub name: *const c_char,
    /// 1: it is an error if the device is not there, or cannot run an operator. 0: the processor takes its place; where the
    /// device is not there at all, ortx_session_warning tells.
    pub required: i32,
    /// Must be 0.
    pub reserved: i32,
}

/// A rarely needed option as text. Arrays of it never grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ortx_setting {
    /// The option's name.
    pub key: *const c_char,
    /// Its value.
    pub value: *const c_char,
}

/// How a session is made. Set struct_size to sizeof(ortx_session_options) and all else to zero, then change what you want.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ortx_session_options {
    /// sizeof(ortx_session_options).
    pub struct_size: usize,
    /// Threads that work on one run, the calling one included. 0: as many as ortx_threads_available tells.
    pub threads: i32,
    /// The highest level of instructions to use; ORTX_ISA_DEFAULT for the processor's own.
    pub isa: ortx_isa,
    /// How long idle threads spin before they sleep, in nanoseconds. 0: a few dozen microseconds, so that the steps of one
    /// run do not each pay a wake-up. -1: they sleep at once.
    pub spin_ns: i64,
    /// Devices in order of preference, before the processor.
    pub devices: *const ortx_device_choice,
    /// How many.
    pub device_count: usize,
    /// How a model file comes into memory: ORTX_LOAD_MAP or ORTX_LOAD_READ.
    pub load: ortx_load,
    /// 1: denormal numbers count as they are. 0: they are flushed to zero while running, which is faster.
    pub keep_denormals: i32,
    /// 1: the graph runs as it stands in the file. 0: it is optimised first.
    pub disable_optimization: i32,
    /// Must be 0.
    pub reserved: i32,
    /// The most bytes that the session's tensors may take at once: weights that are not read where they lie (in a mapped
    /// file or borrowed memory), packed constants, intermediate values, outputs as long as they live. 0: no limit. What
    /// passes it is ORTX_ERROR_OUT_OF_MEMORY; ortx_session_memory tells how much is in use.
    pub memory_limit: u64,
    /// The host's threads instead of threads of the session's own; NULL for the latter. `threads` has no effect then.
    pub pool: *const ortx_thread_pool,
    /// Further options as text, stronger than the fields above: the keys are "threads", "isa", "spin_us", "devices" (a
    /// list with commas, "!" after a required one), "load" (map, read), "denormals" (flush, keep), "optimize" (0, 1),
    /// "disabled_passes" (a list with commas), "stop_after" (a pass), "memory_limit" (bytes), "cache" (a file in which the
    /// model is kept compiled: opened if it is there and current, else made, of which ortx_session_warning tells the reason),
    /// "rebuild" (0, 1: make that file anew), "plan_bytes".
    pub settings: *const ortx_setting,
    /// How many.
    pub setting_count: usize,
    /// About how many bytes the plans take that are kept for shapes seen before: those of the model, and as many of each
    /// loop's body and branch. The ones that were not used for the longest time go first. 0: 64 MiB.
    pub plan_bytes: u64,
}
// SAFETY: integers and pointers, the size first.
unsafe impl Structure for ortx_session_options {}

/// The most entries of an array of options: more is a size that was not set.
const MAX_ENTRIES: usize = 1024;

/// Takes the host's pool out of the options before anything can fail, so that its release is called in any case.
///
/// # Safety
/// `options` holds pointers that keep the header's promises.
pub unsafe fn take_pool(options: Option<&ortx_session_options>) -> Result<Option<HostPool>> {
    let Some(o) = options else { return Ok(None) };
    // SAFETY: the caller's promise.
    let pool = unsafe { super::handle::structure(o.pool, "options.pool") }?;
    pool.as_ref().map(HostPool::new).transpose()
}

/// The library's own options.
///
/// # Safety
/// `options` holds pointers that keep the header's promises.
pub unsafe fn convert(options: Option<&ortx_session_options>, pool: Option<HostPool>) -> Result<SessionOptions> {
    let mut to = SessionOptions::default();
    if let Some(p) = pool {
        to.pool = Some(Arc::new(p));
    }
    let Some(o) = options else { return Ok(to) };
    ensure!(o.reserved == 0, InvalidArgument, "the options' 'reserved' must be 0, it is {}", o.reserved);
    to.threads = match usize::try_from(o.threads) {
        Ok(n) => n,
        Err(_) => bail!(InvalidArgument, "{} threads are not possible", o.threads),
    };
    to.isa = level(o.isa)?;
    match o.spin_ns {
        0 => {}
        -1 => to.spin = Duration::ZERO,
        n => match u64::try_from(n) {
            Ok(n) => to.spin = Duration::from_nanos(n),
            Err(_) => bail!(InvalidArgument, "'spin_ns' is {n}: it is -1, 0 or a time"),
        },
    }
    to.mode = match o.load {
        ORTX_LOAD_MAP => Mode::Map,
        ORTX_LOAD_READ => Mode::Read,
        n => bail!(InvalidArgument, "there is no way to load of number {n}"),
    };
    to.flush_denormals = !truth(o.keep_denormals, "keep_denormals")?;
    to.optimize = !truth(o.disable_optimization, "disable_optimization")?;
    if o.memory_limit > 0 {
        to.memory_limit = Some(usize::try_from(o.memory_limit).unwrap_or(usize::MAX));
    }
    if o.plan_bytes > 0 {
        to.plan_bytes = usize::try_from(o.plan_bytes).unwrap_or(usize::MAX);
    }
    let (devices, settings) = (o.devices, o.settings);
    for count in [o.device_count, o.setting_count] {
        ensure!(
            count <= MAX_ENTRIES,
            InvalidArgument,
            "{count} entries in the options, at most {MAX_ENTRIES} are allowed"
        );
    }
    for d in array!(devices, o.device_count) {
        let name = d.name;
        ensure!(d.reserved == 0, InvalidArgument, "a device's 'reserved' must be 0");
        let mark = if truth(d.required, "required")? { "!" } else { "" };
        to.devices.push(format!("{}{mark}", text!(name)));
    }
    for s in array!(settings, o.setting_count) {
        let (key, value) = (s.key, s.value);
        to.set(text!(key), text!(value))?;
    }
    Ok(to)
}
