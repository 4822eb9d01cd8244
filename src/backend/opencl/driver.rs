//! The OpenCL driver behind safe types: the only file that speaks to the `ocl` crate (its `core` layer).
//!
//! `ocl` panics where a driver answers a status that it does not know; [`call`] and [`Guarded`] stop those panics.

use super::status::status_name;
pub use crate::backend::DeviceKind;
use crate::{
    bail, ensure,
    error::{Error, ErrorKind, Result},
};
use ocl::core::{self, ArgVal, ProgramBuildInfo, ProgramBuildInfoResult, ffi};
use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// Runs one call of `ocl`: its errors become ours, and so does a panic.
fn call<T>(what: &str, f: impl FnOnce() -> core::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(match e.api_status() {
            Some(status) => status_error(what, status as i32),
            None => Error::new(ErrorKind::Device, format!("{what}: {}", e.to_string().trim())),
        }),
        Err(_) => bail!(Device, "{what}: the driver answered a status that OpenCL does not define"),
    }
}

/// The error of a raw call's status, if it is one.
fn check(what: &str, status: i32) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(status_error(what, status)) }
}

fn status_error(what: &str, status: i32) -> Error {
    // CL_MEM_OBJECT_ALLOCATION_FAILURE, CL_OUT_OF_RESOURCES, CL_OUT_OF_HOST_MEMORY, CL_INVALID_BUFFER_SIZE
    let kind = if matches!(status, -4 | -5 | -6 | -61) { ErrorKind::OutOfMemory } else { ErrorKind::Device };
    Error::new(kind, format!("{what}: {}", status_name(status)))
}

/// An object whose release may panic in `ocl`.
struct Guarded<T>(ManuallyDrop<T>);

impl<T> Guarded<T> {
    fn new(object: T) -> Self {
        Guarded(ManuallyDrop::new(object))
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: dropped here only, and not used again. A release that fails leaves nothing for us to do.
        let _ = catch_unwind(AssertUnwindSafe(|| unsafe { ManuallyDrop::drop(&mut self.0) }));
    }
}

/// What a device says of itself.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The device's name.
    pub name: String,
    /// Its maker.
    pub vendor: String,
    /// The name of the platform (the driver) that offers it.
    pub platform: String,
    /// The version of the driver.
    pub driver: String,
    /// The OpenCL version, as the device words it.
    pub version: String,
    /// The same as numbers: (1, 2) for OpenCL 1.2.
    pub opencl: (u32, u32),
    /// The kind of processor.
    pub kind: DeviceKind,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the largest buffer.
    pub max_buffer: u64,
    /// Bytes of local memory for a work-group.
    pub local_memory: u64,
    /// Whether local memory is a memory of its own, and not carved out of the global one.
    pub has_local_memory: bool,
    /// Processors in it.
    pub compute_units: u32,
    /// Work-items in a work-group at most.
    pub max_group: usize,
    /// The same for each of the first three dimensions.
    pub max_group_dims: [usize; 3],
    /// Alignment that the start of a sub-range must have to be a buffer of its own, in bytes.
    pub alignment: usize,
    /// Floats in a vector register, 1 where vectors do not pay.
    pub f32_lanes: u32,
    /// Whether the host shares its memory.
    pub unified_memory: bool,
    /// Whether programs can be built from source (an FPGA takes bitstreams only).
    pub has_compiler: bool,
    /// Whether multiply-add is one instruction.
    pub fma: bool,
    /// Whether division and square root can be asked to round correctly.
    pub exact_divide: bool,
    /// Half precision arithmetic.
    pub fp16: bool,
    /// Double precision arithmetic.
    pub fp64: bool,
    /// Sub-groups.
    pub sub_groups: bool,
    /// Integer dot products.
    pub int_dot: bool,
}

/// A device of a platform.
#[derive(Clone, Copy)]
pub struct DeviceId {
    platform: core::PlatformId,
    device: core::DeviceId,
}

/// Every device of every platform, in the platforms' own order. A platform that fails is passed over, since one broken
/// driver must not hide the others; without OpenCL on the machine the list is empty.
pub fn device_ids() -> Result<Vec<DeviceId>> {
    let mut found = Vec::new();
    for platform in call("clGetPlatformIDs", core::get_platform_ids)? {
        let mut count = 0;
        // SAFETY: with no room given, only the count is written. `ocl` itself trusts the count beyond its room.
        let status =
            unsafe { ffi::clGetDeviceIDs(platform.as_ptr(), ffi::CL_DEVICE_TYPE_ALL, 0, ptr::null_mut(), &mut count) };
        if status != 0 || count == 0 {
            continue;
        }
        let mut raw = vec![ptr::null_mut(); count as usize];
        // SAFETY: `raw` has room for the `count` handles announced.
        let status = unsafe {
            ffi::clGetDeviceIDs(platform.as_ptr(), ffi::CL_DEVICE_TYPE_ALL, count, raw.as_mut_ptr(), ptr::null_mut())
        };
        if status == 0 {
            // SAFETY: the driver has just named these handles; root devices are never released.
            let device = |d: *mut _| DeviceId { platform, device: unsafe { core::DeviceId::from_raw(d) } };
            found.extend(raw.into_iter().filter(|d| !d.is_null()).map(device));
        }
    }
    Ok(found)
}

impl DeviceId {
    fn bytes(&self, what: &str, key: u32) -> Result<Vec<u8>> {
        call(what, || core::get_device_info_raw(self.device, key))
    }

    fn text(&self, key: u32) -> Result<String> {
        let bytes = self.bytes("clGetDeviceInfo", key)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).trim().to_owned())
    }

    /// A number of any width up to eight bytes.
    fn number(&self, key: u32) -> Result<u64> {
        let bytes = self.bytes("clGetDeviceInfo", key)?;
        let mut wide = [0; 8];
        ensure!(bytes.len() <= 8, Device, "clGetDeviceInfo: {} bytes for the number {key:#x}", bytes.len());
        wide[..bytes.len()].copy_from_slice(&bytes);
        // Little-endian hosts only, as every place that OpenCL runs on today.
        Ok(u64::from_le_bytes(wide))
    }

    /// What the device says of itself.
    pub fn info(&self) -> Result<DeviceInfo> {
        let platform = call("clGetPlatformInfo", || core::get_platform_info(self.platform, core::PlatformInfo::Name))?;
        let extensions = self.text(ffi::CL_DEVICE_EXTENSIONS)?;
        let has = |name: &str| extensions.split_whitespace().any(|e| e == name);
        let version = self.text(ffi::CL_DEVICE_VERSION)?;
        let kind = self.number(ffi::CL_DEVICE_TYPE)?;
        let single = self.number(ffi::CL_DEVICE_SINGLE_FP_CONFIG)?;
        let sizes = self.bytes("clGetDeviceInfo", ffi::CL_DEVICE_MAX_WORK_ITEM_SIZES)?;
        let mut max_group_dims = [1; 3];
        for (dim, size) in max_group_dims.iter_mut().zip(sizes.as_chunks::<8>().0) {
            *dim = usize::from_le_bytes(*size);
        }
        let yes = |key| self.number(key).is_ok_and(|n| n != 0);
        Ok(DeviceInfo {
            name: self.text(ffi::CL_DEVICE_NAME)?,
            vendor: self.text(ffi::CL_DEVICE_VENDOR)?,
            platform: platform.to_string().trim_matches(['\0', ' ']).to_owned(),
            driver: self.text(ffi::CL_DRIVER_VERSION)?,
            opencl: parse_version(&version),
            version,
            kind: if kind & ffi::CL_DEVICE_TYPE_GPU != 0 {
                DeviceKind::Gpu
            } else if kind & ffi::CL_DEVICE_TYPE_CPU != 0 {
                DeviceKind::Cpu
            } else {
                DeviceKind::Accelerator
            },
            memory: self.number(ffi::CL_DEVICE_GLOBAL_MEM_SIZE)?,
            max_buffer: self.number(ffi::CL_DEVICE_MAX_MEM_ALLOC_SIZE)?,
            local_memory: self.number(ffi::CL_DEVICE_LOCAL_MEM_SIZE)?,
            has_local_memory: self.number(ffi::CL_DEVICE_LOCAL_MEM_TYPE)? == u64::from(ffi::CL_LOCAL),
            compute_units: self.number(ffi::CL_DEVICE_MAX_COMPUTE_UNITS)? as u32,
            max_group: self.number(ffi::CL_DEVICE_MAX_WORK_GROUP_SIZE)? as usize,
            max_group_dims,
            alignment: (self.number(ffi::CL_DEVICE_MEM_BASE_ADDR_ALIGN)? as usize / 8).max(1),
            f32_lanes: (self.number(ffi::CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT)? as u32).max(1),
            unified_memory: yes(ffi::CL_DEVICE_HOST_UNIFIED_MEMORY),
            has_compiler: yes(ffi::CL_DEVICE_COMPILER_AVAILABLE),
            fma: single & ffi::CL_FP_FMA != 0,
            exact_divide: single & ffi::CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT != 0,
            fp16: has("cl_khr_fp16"),
            fp64: has("cl_khr_fp64") || yes(ffi::CL_DEVICE_DOUBLE_FP_CONFIG),
            sub_groups: has("cl_khr_subgroups") || has("cl_intel_subgroups"),
            int_dot: has("cl_khr_integer_dot_product"),
        })
    }
}

/// The numbers of "OpenCL 3.0 PoCL", (1, 0) where there are none.
fn parse_version(text: &str) -> (u32, u32) {
    let mut numbers = text.split_whitespace().nth(1).unwrap_or("").split('.').map(|n| n.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => (1, 0),
    }
}

/// A device made ready: everything else is made in a context.
pub struct Context {
    raw: Guarded<core::Context>,
    device: DeviceId,
}

impl Context {
    /// A context for one device.
    pub fn new(device: DeviceId) -> Result<Context> {
        let properties = core::ContextProperties::new().platform(device.platform);
        let raw = call("clCreateContext", || core::create_context(Some(&properties), &[device.device], None, None))?;
        Ok(Context { raw: Guarded::new(raw), device })
    }

    /// An in-order queue. With `profiling` its events carry times.
    pub fn queue(&self, profiling: bool) -> Result<Queue> {
        let properties = profiling.then(|| core::CommandQueueProperties::new().profiling());
        let raw =
            call("clCreateCommandQueue", || core::create_command_queue(&*self.raw, self.device.device, properties))?;
        Ok(Queue { raw: Guarded::new(raw) })
    }

    /// A buffer of `len` bytes of anything. An empty one takes a byte, since OpenCL has none smaller.
    pub fn buffer(&self, len: usize) -> Result<Buffer> {
        let flags = core::MemFlags::new().read_write();
        // SAFETY: no host memory is handed over.
        let make = || unsafe { core::create_buffer::<_, u8>(&*self.raw, flags, len.max(1), None) };
        match call("clCreateBuffer", make) {
            Ok(raw) => Ok(Buffer { raw: Guarded::new(raw), len }),
            Err(e) => Err(e.context(format!("a device buffer of {len} bytes"))),
        }
    }

    /// Builds a program from source. A build that fails gives the compiler's log.
    pub fn program(&self, source: &str, options: &str) -> Result<Program> {
        let Ok(text) = CString::new(source) else { bail!(Internal, "an OpenCL source holds a zero byte") };
        let raw = call("clCreateProgramWithSource", || core::create_program_with_source(&*self.raw, &[text]))?;
        self.build(raw, options)
    }

    /// Takes up a program that was built before, by [`Program::binary`] or offline.
    pub fn program_from_binary(&self, binary: &[u8], options: &str) -> Result<Program> {
        let raw = call("clCreateProgramWithBinary", || {
            core::create_program_with_binary(&*self.raw, &[self.device.device], &[binary])
        })?;
        self.build(raw, options)
    }

    fn build(&self, raw: core::Program, options: &str) -> Result<Program> {
        let program = Program { raw: Guarded::new(raw), device: self.device };
        let Ok(options) = CString::new(options) else { bail!(Internal, "OpenCL build options hold a zero byte") };
        let devices = [self.device.device];
        let built = call("clBuildProgram", || core::build_program(&program.raw, Some(&devices), &options, None, None));
        // `ocl` takes a failed build without a log for a success, so the status is asked for.
        let status = program.build_info(ProgramBuildInfo::BuildStatus);
        let done = matches!(status, Ok(ProgramBuildInfoResult::BuildStatus(core::ProgramBuildStatus::Success)));
        if built.is_ok() && done {
            return Ok(program);
        }
        let log = match program.build_info(ProgramBuildInfo::BuildLog) {
            Ok(ProgramBuildInfoResult::BuildLog(log)) => log,
            _ => String::new(),
        };
        let log = log.trim_matches(['\0', ' ', '\n']);
        match built {
            Err(e) if log.is_empty() => Err(e),
            _ => bail!(Device, "clBuildProgram failed with options '{}': {log}", options.to_string_lossy()),
        }
    }
}

/// Commands in order.
pub struct Queue {
    raw: Guarded<core::CommandQueue>,
}

/// A block of device memory.
pub struct Buffer {
    raw: Guarded<core::Mem>,
    len: usize,
}

impl Buffer {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    fn check(&self, offset: usize, len: usize) -> Result<()> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        ensure!(inside, Internal, "bytes {offset}+{len} of a device buffer of {}", self.len);
        Ok(())
    }
}

impl Queue {
    /// Copies `data` to the device; returns when `data` may change again.
    pub fn write(&self, to: &Buffer, offset: usize, data: &[u8]) -> Result<()> {
        to.check(offset, data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: blocking, so `data` outlives the copy; the range was checked.
        call("clEnqueueWriteBuffer", || unsafe {
            core::enqueue_write_buffer(&self.raw, &*to.raw, true, offset, data, None::<()>, None::<()>)
        })
    }

    /// Copies from the device to `len` bytes at `to`; returns when they are there.
    ///
    /// # Safety
    /// `to` must be valid for writes of `len` bytes.
    pub unsafe fn read(&self, from: &Buffer, offset: usize, to: *mut u8, len: usize) -> Result<()> {
        from.check(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range was checked, `to` is the caller's promise, and the call blocks.
        let status = unsafe {
            ffi::clEnqueueReadBuffer(
                self.raw.as_ptr(),
                from.raw.as_ptr(),
                ffi::CL_TRUE,
                offset,
                len,
                to.cast(),
                0,
                ptr::null(),
                ptr::null_mut(),
            )
        };
        check("clEnqueueReadBuffer", status)
    }

    /// Copies between buffers of the device. The ranges must not overlap in one buffer.
    pub fn copy(&self, from: &Buffer, from_offset: usize, to: &Buffer, to_offset: usize, len: usize) -> Result<()> {
        from.check(from_offset, len)?;
        to.check(to_offset, len)?;
        if len == 0 {
            return Ok(());
        }
        call("clEnqueueCopyBuffer", || {
            let (from, to) = (&*from.raw, &*to.raw);
            core::enqueue_copy_buffer::<u8, _, _, _>(
                &self.raw,
                from,
                to,
                from_offset,
                to_offset,
                len,
                None::<()>,
                None::<()>,
            )
        })
    }

    /// Fills `len` bytes with copies of `pattern`, 1, 2, 4 or 8 bytes that divide `offset` and `len`.
    pub fn fill(&self, to: &Buffer, offset: usize, len: usize, pattern: &[u8]) -> Result<()> {
        to.check(offset, len)?;
        let size = pattern.len();
        let fits = matches!(size, 1 | 2 | 4 | 8) && offset.is_multiple_of(size) && len.is_multiple_of(size);
        ensure!(fits, Internal, "a fill of {len} bytes at {offset} with a pattern of {size}");
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range was checked; the pattern is copied by the call.
        let status = unsafe {
            ffi::clEnqueueFillBuffer(
                self.raw.as_ptr(),
                to.raw.as_ptr(),
                pattern.as_ptr().cast(),
                size,
                offset,
                len,
                0,
                ptr::null(),
                ptr::null_mut(),
            )
        };
        check("clEnqueueFillBuffer", status)
    }

    /// Hands the queued commands to the device.
    pub fn flush(&self) -> Result<()> {
        call("clFlush", || core::flush(&self.raw))
    }

    /// Waits until everything queued is done.
    pub fn finish(&self) -> Result<()> {
        call("clFinish", || core::finish(&self.raw))
    }

    /// Queues a kernel: `global` work-items in groups of `local` (or as the driver likes).
    ///
    /// # Safety
    /// `args` must be what the kernel declares, in number and type, and with them it must stay inside its buffers.
    pub unsafe fn launch(
        &self,
        kernel: &Kernel,
        args: &[Arg],
        global: [usize; 3],
        local: Option<[usize; 3]>,
        event: Option<&mut Event>,
    ) -> Result<()> {
        if global.contains(&0) {
            return Ok(());
        }
        // A kernel's arguments are its own state: setting them and queueing is one act.
        let raw = kernel.raw.lock().unwrap_or_else(PoisonError::into_inner);
        let set = |index: usize, value: ArgVal| call(&kernel.name, || core::set_kernel_arg(&raw, index as u32, value));
        for (i, arg) in args.iter().enumerate() {
            match arg {
                Arg::Buffer(b) => set(i, ArgVal::mem(&b.raw))?,
                Arg::I32(v) => set(i, ArgVal::scalar(v))?,
                Arg::I64(v) => set(i, ArgVal::scalar(v))?,
                Arg::F32(v) => set(i, ArgVal::scalar(v))?,
                // SAFETY: the value lives beyond the call, and has the size given; an int8 is eight ints.
                Arg::Int8(v) => set(i, unsafe { ArgVal::from_raw(size_of_val(v), v.as_ptr().cast(), false) })?,
                Arg::Local(bytes) => set(i, ArgVal::local::<u8>(bytes))?,
            }
        }
        // SAFETY: the caller's promise.
        call(&kernel.name, || unsafe {
            match event {
                Some(event) => {
                    core::enqueue_kernel(&self.raw, &raw, 3, None, &global, local, None::<()>, Some(&mut *event.raw.0))
                }
                None => core::enqueue_kernel(&self.raw, &raw, 3, None, &global, local, None::<()>, None::<()>),
            }
        })
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    /// A buffer: a `__global` pointer.
    Buffer(&'a Buffer),
    /// An `int`.
    I32(i32),
    /// A `long`.
    I64(i64),
    /// A `float`.
    F32(f32),
    /// An `int8`.
    Int8([i32; 8]),
    /// So many bytes of local memory: a `__local` pointer.
    Local(usize),
}

/// A built program.
pub struct Program {
    raw: Guarded<core::Program>,
    device: DeviceId,
}

impl Program {
    fn build_info(&self, what: ProgramBuildInfo) -> Result<ProgramBuildInfoResult> {
        call("clGetProgramBuildInfo", || core::get_program_build_info(&self.raw, self.device.device, what))
    }

    /// A kernel by name. Each call makes one of its own, so that arguments are not shared.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        let raw = call("clCreateKernel", || core::create_kernel(&self.raw, name))?;
        Ok(Kernel { raw: Mutex::new(Guarded::new(raw)), name: format!("OpenCL kernel '{name}'") })
    }

    /// The program in the device's own form, for [`Context::program_from_binary`].
    pub fn binary(&self) -> Result<Vec<u8>> {
        let info = call("clGetProgramInfo", || core::get_program_info(&self.raw, core::ProgramInfo::Binaries))?;
        match info {
            core::ProgramInfoResult::Binaries(mut all) if all.len() == 1 && !all[0].is_empty() => Ok(all.remove(0)),
            _ => bail!(Device, "clGetProgramInfo: no program binary"),
        }
    }
}

/// A kernel with its arguments, which one thread at a time may set.
pub struct Kernel {
    raw: Mutex<Guarded<core::Kernel>>,
    name: String,
}

impl Kernel {
    /// The largest work-group that this kernel can have.
    pub fn max_group(&self, device: DeviceId) -> Result<usize> {
        let raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        let what = core::KernelWorkGroupInfo::WorkGroupSize;
        match call(&self.name, || core::get_kernel_work_group_info(&raw, device.device, what))? {
            core::KernelWorkGroupInfoResult::WorkGroupSize(n) => Ok(n),
            _ => bail!(Device, "{}: no work-group size", self.name),
        }
    }
}

/// The times of a launch, from a queue with profiling.
pub struct Event {
    raw: Guarded<core::Event>,
}

impl Default for Event {
    fn default() -> Self {
        Event { raw: Guarded::new(core::Event::null()) }
    }
}

impl Event {
    /// Nanoseconds from start to end on the device, once the command is done.
    pub fn duration(&self) -> Result<u64> {
        ensure!(!self.raw.is_null(), Internal, "an event that was not launched");
        let time = |what| match call("clGetEventProfilingInfo", || core::get_event_profiling_info(&*self.raw, what))? {
            core::ProfilingInfoResult::Start(t) | core::ProfilingInfoResult::End(t) => Ok(t),
            _ => Err(Error::new(ErrorKind::Device, "clGetEventProfilingInfo: not a time")),
        };
        Ok(time(core::ProfilingInfo::End)?.saturating_sub(time(core::ProfilingInfo::Start)?))
    }
}
