//! The backend trait over an OpenCL device: memory, bindings, steps.

use super::call::{Call, Place};
use super::device::{self, Device};
use super::driver::{Buffer, Queue};
use super::recipe::{Arg, Recipe};
use super::widen;
use crate::backend::{Backend, DeviceEntry, Memory, NodeView, PackedCache, Provider, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::error::{Context, Result};
use crate::ir::Op;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure, err};
use smallvec::SmallVec;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

type RecipeFn = Box<dyn Fn(&dyn Op, &NodeView<'_>) -> Result<Recipe> + Send + Sync>;

/// How an operator type's recipes are written, and whether they take narrow floats as they are.
struct Binding {
    write: RecipeFn,
    native: bool,
}

/// What OpenCL devices can do for each operator type. Each family adds its own.
#[derive(Default)]
pub struct OpenClBindings(HashMap<TypeId, Binding>);

impl OpenClBindings {
    /// `write` writes the recipe of nodes of operator type `T`, all of whose operands have known shapes; an error means
    /// that the node is left to another backend. It is asked about f32: nodes of narrower floats become such, with
    /// conversions around them.
    pub fn recipe<T: Op>(&mut self, write: fn(&T, &NodeView<'_>) -> Result<Recipe>) {
        self.insert(write, false);
    }
    /// The same of an operator whose kernels take narrow floats as they are.
    pub fn native_recipe<T: Op>(&mut self, write: fn(&T, &NodeView<'_>) -> Result<Recipe>) {
        self.insert(write, true);
    }
    fn insert<T: Op>(&mut self, write: fn(&T, &NodeView<'_>) -> Result<Recipe>, native: bool) {
        let write: RecipeFn = Box::new(move |op, node| match op.downcast::<T>() {
            Some(op) => write(op, node),
            None => bail!(Internal, "a binding met another operator: {}", op.name()),
        });
        self.0.insert(TypeId::of::<T>(), Binding { write, native });
    }

    /// Whether there are kernels for the node, on devices that have the types that it needs.
    pub fn takes(&self, node: &NodeView<'_>) -> bool {
        self.find(node).is_ok()
    }

    fn find(&self, node: &NodeView<'_>) -> Result<Recipe> {
        let op: &dyn Any = node.op;
        let Some(binding) = self.0.get(&op.type_id()) else {
            bail!(Unsupported, "OpenCL has no kernel for {}", node.op.name());
        };
        for o in node.inputs.iter().chain(node.outputs).flatten() {
            // Kernels count in `int`, over 8 dimensions at most.
            let counts = i32::try_from(crate::base::checked::product(&o.shape)?).is_ok();
            ensure!(counts && o.shape.len() <= 8, Unsupported, "OpenCL kernels cannot count {:?}", o.shape);
            ensure!(o.dtype != DType::String, Unsupported, "OpenCL has no strings");
        }
        if !binding.native && widen::is_narrow(node) {
            return widen::recipe(node, |node| (binding.write)(node.op, node));
        }
        (binding.write)(node.op, node)
    }
}

/// One OpenCL device.
pub struct OpenClBackend {
    name: String,
    device: Device,
    bindings: Arc<OpenClBindings>,
    /// Copies constants.
    upload: Queue,
    /// The queues of all memories, for `sync`.
    queues: Mutex<Vec<Weak<Queue>>>,
}

/// An arena on the device. Each has its own queue, so that runs do not wait for one another.
struct DeviceMemory {
    buffer: Buffer,
    queue: Arc<Queue>,
    /// A mark, an index, the length of its axis: what a kernel leaves that met an index outside.
    faults: Buffer,
    /// Whether such a kernel was queued since the last look.
    watched: AtomicBool,
}

impl DeviceMemory {
    /// Fails where a kernel met an index outside its axis. Waits for the kernels, if there were any that look at indices.
    fn look_for_faults(&self) -> Result<()> {
        if !self.watched.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut found = [0i32; 4];
        // SAFETY: `found` has the bytes of the buffer.
        unsafe { self.queue.read(&self.faults, 0, found.as_mut_ptr().cast(), size_of_val(&found))? };
        if found[0] == 0 {
            return Ok(());
        }
        self.queue.write(&self.faults, 0, &[0; 16])?;
        bail!(Run, "index {} is outside an axis of length {}", found[1], found[2])
    }
}

impl Memory for DeviceMemory {
    fn len(&self) -> usize {
        self.buffer.len()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn own(memory: &dyn Memory) -> Result<&DeviceMemory> {
    memory.as_any().downcast_ref().ok_or_else(|| err!(Internal, "memory of another backend"))
}

impl OpenClBackend {
    /// A backend of an opened device.
    pub fn new(name: String, device: Device, bindings: Arc<OpenClBindings>) -> Result<Self> {
        let upload = device.context.queue(false)?;
        Ok(OpenClBackend { name, device, bindings, upload, queues: Mutex::default() })
    }

    /// A constant in device memory, sent once for all plans.
    fn constant(&self, t: &Tensor, cache: &PackedCache) -> Result<Arc<Buffer>> {
        cache.get(t, &self.name, || {
            let buffer = self.device.context.buffer(t.byte_len())?;
            self.upload.write(&buffer, 0, t.bytes())?;
            Ok(buffer)
        })
    }

    /// A constant matrix with rows and columns swapped.
    fn turned(&self, t: &Tensor, rows: usize, columns: usize, cache: &PackedCache) -> Result<Arc<Buffer>> {
        cache.get(t, &format!("{} turned {rows}x{columns}", self.name), || {
            let from = t.as_slice::<f32>()?;
            ensure!(from.len() == rows * columns, Internal, "{} elements as {rows} x {columns}", from.len());
            let turned = Tensor::uninit(DType::F32, &[columns, rows])?;
            let to = turned.data_ptr().cast_mut().cast::<f32>();
            for (i, row) in from.chunks_exact(columns.max(1)).enumerate() {
                for (j, x) in row.iter().enumerate() {
                    // SAFETY: i < rows and j < columns of a new tensor of columns x rows.
                    unsafe { *to.add(j * rows + i) = *x };
                }
            }
            let buffer = self.device.context.buffer(turned.byte_len())?;
            self.upload.write(&buffer, 0, turned.bytes())?;
            Ok(buffer)
        })
    }

    /// A constant of f16 or bf16 as f32.
    fn wide(&self, t: &Tensor, cache: &PackedCache) -> Result<Arc<Buffer>> {
        cache.get(t, &format!("{} wide", self.name), || {
            let wide = widen::to_f32(t)?;
            let buffer = self.device.context.buffer(wide.byte_len())?;
            self.upload.write(&buffer, 0, wide.bytes())?;
            Ok(buffer)
        })
    }

    fn operand(&self, arg: &Arg, node: &NodeView<'_>, offsets: &[usize], cache: &PackedCache) -> Result<Bound> {
        Ok(match *arg {
            Arg::Input(i) => match node.constant(i) {
                Some(t) => Bound::Constant(self.constant(t, cache)?),
                None => Bound::Input(i),
            },
            Arg::Turned(i, rows, columns) => match node.constant(i) {
                Some(t) => Bound::Constant(self.turned(t, rows, columns, cache)?),
                None => bail!(Internal, "input {i} is no constant"),
            },
            Arg::Wide(i) => match node.constant(i) {
                Some(t) => Bound::Constant(self.wide(t, cache)?),
                None => bail!(Internal, "input {i} is no constant"),
            },
            Arg::Fault => Bound::Fault,
            Arg::Output(i) => Bound::Output(i),
            Arg::Temporary(i) => match offsets.get(i) {
                Some(o) => Bound::Workspace(*o),
                None => bail!(Internal, "a recipe without temporary {i}"),
            },
        })
    }
}

impl Backend for OpenClBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn claims(&self, node: &NodeView<'_>) -> Result<(), String> {
        self.bindings.find(node).map(drop).map_err(|e| e.to_string())
    }

    fn bind(&self, node: &NodeView<'_>, cache: &PackedCache) -> Result<Box<dyn Step>> {
        let recipe = self.bindings.find(node)?;
        let mut workspace = 0;
        let mut offsets = Vec::with_capacity(recipe.temporaries.len());
        for bytes in &recipe.temporaries {
            offsets.push(workspace);
            workspace += round_up(*bytes, ALIGN);
        }
        let mut calls = Vec::new();
        // Stages follow one another, so they share the memory of their scratch.
        let mut scratch = 0;
        for stage in &recipe.stages {
            let made = stage.work.calls(&self.device).context(|| self.name.clone())?;
            let mut args = Vec::with_capacity(stage.args.len() + 1);
            for a in &stage.args {
                args.push(self.operand(a, node, &offsets, cache)?);
            }
            args.push(Bound::Workspace(workspace));
            scratch = scratch.max(made.scratch.saturating_mul(4));
            let args: Arc<[Bound]> = args.into();
            calls.extend(made.calls.into_iter().map(|c| (c, args.clone())));
        }
        let kernel = recipe.stages.first().map_or("cl_nothing", |s| s.work.name());
        Ok(Box::new(OpenClStep { calls, workspace: workspace + scratch, outputs: node.outputs.len(), kernel }))
    }

    fn alloc(&self, bytes: usize) -> Result<Arc<dyn Memory>> {
        let queue = Arc::new(self.device.context.queue(false)?);
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|q| q.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        let faults = self.device.context.buffer(16)?;
        queue.write(&faults, 0, &[0; 16])?;
        let watched = AtomicBool::new(false);
        Ok(Arc::new(DeviceMemory { buffer: self.device.context.buffer(bytes)?, queue, faults, watched }))
    }

    unsafe fn copy_in(&self, src: *const u8, dst: &dyn Memory, offset: usize, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let dst = own(dst)?;
        // SAFETY: the caller's promise.
        let src = unsafe { std::slice::from_raw_parts(src, bytes) };
        dst.queue.write(&dst.buffer, offset, src)
    }

    unsafe fn copy_out(&self, src: &dyn Memory, offset: usize, dst: *mut u8, bytes: usize) -> Result<()> {
        let src = own(src)?;
        // SAFETY: the caller's promise.
        unsafe { src.queue.read(&src.buffer, offset, dst, bytes)? };
        src.look_for_faults()
    }

    fn sync(&self) -> Result<()> {
        let queues: Vec<_> = {
            let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.iter().filter_map(Weak::upgrade).collect()
        };
        queues.iter().try_for_each(|q| q.finish())
    }
}

/// Where an operand of a bound call is.
enum Bound {
    Input(usize),
    Output(usize),
    Workspace(usize),
    Constant(Arc<Buffer>),
    Fault,
}

struct OpenClStep {
    calls: Vec<(Call, Arc<[Bound]>)>,
    workspace: usize,
    outputs: usize,
    kernel: &'static str,
}

impl Step for OpenClStep {
    fn workspace_bytes(&self) -> usize {
        self.workspace
    }

    unsafe fn run(&self, args: &StepArgs<'_>, _phase: usize, _task: usize, _scratch: *mut u8) -> Result<()> {
        let missing = || err!(Internal, "an operand is not in the device's memory");
        let memory = own((0..self.outputs).find_map(|i| args.device_output(i)).ok_or_else(missing)?.0)?;
        for (call, operands) in &self.calls {
            let mut places: SmallVec<[Place<'_>; 8]> = SmallVec::new();
            for o in operands.iter() {
                let (found, plus) = match o {
                    Bound::Constant(buffer) => {
                        places.push(Place { buffer, offset: 0 });
                        continue;
                    }
                    Bound::Fault => {
                        memory.watched.store(true, Ordering::Relaxed);
                        places.push(Place { buffer: &memory.faults, offset: 0 });
                        continue;
                    }
                    Bound::Input(i) => (args.device_input(*i), 0),
                    Bound::Output(i) => (args.device_output(*i), 0),
                    // The place of scratch that a kernel does not use.
                    Bound::Workspace(_) if self.workspace == 0 => {
                        places.push(Place { buffer: &memory.buffer, offset: 0 });
                        continue;
                    }
                    Bound::Workspace(offset) => (args.device_workspace(), *offset),
                };
                let (m, offset) = found.ok_or_else(missing)?;
                places.push(Place { buffer: &own(m)?.buffer, offset: offset + plus });
            }
            // SAFETY: the places are those of the operands that the calls were made for; outputs lie apart from inputs but
            // where the operator allows it and the kernel, elementwise, does too (Step::run).
            unsafe { call.enqueue(&memory.queue, &places)? };
        }
        // The device begins while the rest is being queued.
        memory.queue.flush()
    }

    fn kernel(&self) -> &str {
        self.kernel
    }
}

/// Finds OpenCL devices.
pub struct OpenClProvider {
    bindings: Arc<OpenClBindings>,
}

impl OpenClProvider {
    /// A provider of devices with these bindings.
    pub fn new(bindings: OpenClBindings) -> Self {
        OpenClProvider { bindings: Arc::new(bindings) }
    }
}

impl Provider for OpenClProvider {
    fn kind(&self) -> &str {
        "opencl"
    }
    fn list(&self) -> Result<Vec<DeviceEntry>> {
        let entry = |d: device::Listed| DeviceEntry {
            name: d.spec(),
            description: d.description(),
            kind: d.info.kind,
            memory: d.info.memory,
        };
        Ok(device::list()?.into_iter().map(entry).collect())
    }
    fn resolve(&self, spec: &str) -> Result<String> {
        Ok(device::find(spec)?.spec())
    }
    fn open(&self, name: &str) -> Result<Arc<dyn Backend>> {
        let listed = device::find(name)?;
        let backend = OpenClBackend::new(listed.spec(), Device::open(&listed)?, self.bindings.clone())?;
        Ok(Arc::new(backend))
    }
}
