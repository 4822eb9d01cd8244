//! Steps: what a plan is a list of.

use super::Memory;
use crate::base::cancel::Stop;
use crate::base::parallel::Parallel;
use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a value is during a run.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Host memory: the address. Other spaces: the byte offset, as an address. Null for what is not there.
    pub addr: *mut u8,
    /// 0 is the host; others index the frame's device memories.
    pub space: u32,
}

impl Place {
    /// Of a value that is not there.
    pub const NONE: Place = Place { addr: std::ptr::null_mut(), space: 0 };
    /// The place so many bytes further on.
    pub fn at(self, offset: usize) -> Place {
        Place { addr: self.addr.wrapping_add(offset), ..self }
    }
}

/// The index that stands for an operand that is not given.
pub const NO_VALUE: u32 = u32::MAX;

/// One run's operands of one step.
#[derive(Clone, Copy)]
pub struct StepArgs<'a> {
    places: &'a [Place],
    memories: &'a [Option<Arc<dyn Memory>>],
    inputs: &'a [u32],
    outputs: &'a [u32],
    workspace: Place,
}

// SAFETY: a step's tasks run on several threads at once over these pointers; that they write disjoint parts is the
// contract of `Step::run`.
unsafe impl Send for StepArgs<'_> {}
// SAFETY: as above.
unsafe impl Sync for StepArgs<'_> {}

impl<'a> StepArgs<'a> {
    /// For the executor, and for tests of steps.
    pub fn new(
        places: &'a [Place],
        memories: &'a [Option<Arc<dyn Memory>>],
        inputs: &'a [u32],
        outputs: &'a [u32],
        workspace: *mut u8,
    ) -> Self {
        StepArgs { places, memories, inputs, outputs, workspace: Place { addr: workspace, space: 0 } }
    }
    /// With the workspace at a byte offset in a device's memory instead.
    pub fn with_device_workspace(mut self, space: u32, offset: usize) -> Self {
        self.workspace = Place { addr: std::ptr::without_provenance_mut(offset), space };
        self
    }
    /// The same operands with another workspace, for steps made of steps.
    pub fn with_workspace(&self, workspace: *mut u8) -> Self {
        StepArgs { workspace: Place { addr: workspace, space: 0 }, ..*self }
    }
    /// Which value input `i` is.
    pub fn input_slot(&self, i: usize) -> u32 {
        self.inputs.get(i).copied().unwrap_or(NO_VALUE)
    }
    /// Which value output `i` is.
    pub fn output_slot(&self, i: usize) -> u32 {
        self.outputs.get(i).copied().unwrap_or(NO_VALUE)
    }
    /// Other operands of the same run, for steps made of steps.
    pub fn with_slots<'b>(&self, inputs: &'b [u32], outputs: &'b [u32]) -> StepArgs<'b>
    where
        'a: 'b,
    {
        StepArgs { inputs, outputs, ..*self }
    }
    fn place(&self, list: &[u32], i: usize) -> Place {
        list.get(i).and_then(|&v| self.places.get(v as usize)).copied().unwrap_or(Place::NONE)
    }
    /// The host address of input `i`; null if it is not given.
    pub fn input<T>(&self, i: usize) -> *const T {
        self.place(self.inputs, i).addr.cast::<T>().cast_const()
    }
    /// The host address of output `i`; null if it is not asked for.
    pub fn output<T>(&self, i: usize) -> *mut T {
        self.place(self.outputs, i).addr.cast()
    }
    /// Host memory that the phases of this step share, of `Step::workspace_bytes`.
    pub fn workspace<T>(&self) -> *mut T {
        self.workspace.addr.cast()
    }
    /// The device memory and byte offset of input `i`, if it is in a device's memory.
    pub fn device_input(&self, i: usize) -> Option<(&'a dyn Memory, usize)> {
        self.device(self.place(self.inputs, i))
    }
    /// The device memory and byte offset of output `i`, if it is in a device's memory.
    pub fn device_output(&self, i: usize) -> Option<(&'a dyn Memory, usize)> {
        self.device(self.place(self.outputs, i))
    }
    /// The device memory and byte offset of the workspace of a device's step.
    pub fn device_workspace(&self) -> Option<(&'a dyn Memory, usize)> {
        self.device(self.workspace)
    }
    fn device(&self, p: Place) -> Option<(&'a dyn Memory, usize)> {
        if p.space == 0 {
            return None;
        }
        Some((self.memories.get(p.space as usize)?.as_deref()?, p.addr as usize))
    }
    /// How many inputs there are, absent ones counted.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }
}

/// A bound kernel: phases of independent tasks. The counts follow from shapes and ISA, never from the thread count.
/// All phases but the last are barriers.
pub trait Step: Send + Sync {
    /// How many phases.
    fn phases(&self) -> usize {
        1
    }
    /// How many tasks a phase has; small work has one.
    fn tasks(&self, _phase: usize) -> usize {
        1
    }
    /// Bytes of scratch a thread needs; not initialised, aligned to a cache line.
    fn scratch_bytes(&self) -> usize {
        0
    }
    /// Bytes that all tasks of all phases share, in the space of the step's backend; not initialised, aligned to a
    /// cache line.
    fn workspace_bytes(&self) -> usize {
        0
    }
    /// Whether `run` looks at input `i`. False for a constant that the step holds in a form of its own: then the plan
    /// gives it no place, and its file's pages need not stay in memory.
    fn reads(&self, _input: usize) -> bool {
        true
    }
    /// Whether input `i` must lie at a multiple of its type's size. False for a step that copies bytes: then a constant
    /// that lies askew in its file is read there, instead of from an aligned copy.
    fn needs_alignment(&self, _input: usize) -> bool {
        true
    }
    /// Does one task.
    ///
    /// # Safety
    /// The operands are those the step was bound for; `scratch` is valid for `scratch_bytes` and not used by another
    /// task at this time; earlier phases are done; each task of a phase runs once. Tasks of a phase write disjoint bytes.
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()>;
    /// The kernel's name, for plans and profiles.
    fn kernel(&self) -> &str {
        "?"
    }
}

/// Runs a step's phases, each over all threads; `stop` may end it between tasks.
///
/// # Safety
/// The operands are those the step was bound for; `scratch` holds `each` bytes for each thread, no fewer than the step's
/// `scratch_bytes`, and nobody else uses them.
pub unsafe fn run_phases(
    step: &dyn Step,
    args: &StepArgs<'_>,
    scratch: *mut u8,
    each: usize,
    threads: &dyn Parallel,
    stop: &Stop<'_>,
) -> Result<()> {
    let armed = stop.is_armed();
    for phase in 0..step.phases() {
        let n = step.tasks(phase);
        if n == 1 || threads.width() == 1 {
            for task in 0..n {
                if armed {
                    stop.check()?;
                }
                // SAFETY: operands as bound; one thread uses the scratch; phases go in order.
                unsafe { step.run(args, phase, task, scratch)? };
            }
            continue;
        }
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let scratch = SendPtr(scratch);
        threads.run(n, &|worker, task| {
            let mine = scratch.at(worker * each);
            let stopped = if armed { stop.check() } else { Ok(()) };
            // SAFETY: as above; each worker has its own scratch, for `worker` is below the width it was made for.
            if let Err(e) = stopped.and_then(|()| unsafe { step.run(args, phase, task, mine) }) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        });
        if let Some(e) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(e);
        }
    }
    Ok(())
}

/// The scratch of all workers.
struct SendPtr(*mut u8);

impl SendPtr {
    fn at(&self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

// SAFETY: workers use disjoint parts.
unsafe impl Send for SendPtr {}
// SAFETY: as above.
unsafe impl Sync for SendPtr {}

/// A step of one phase from a closure.
pub struct FnStep<F> {
    kernel: &'static str,
    tasks: usize,
    scratch: usize,
    run: F,
}

impl<F> FnStep<F>
where
    F: Fn(&StepArgs<'_>, usize, *mut u8) -> Result<()> + Send + Sync + 'static,
{
    /// `run(args, task, scratch)` does one of `tasks` tasks with `scratch` bytes of scratch, under the contract of
    /// [`Step::run`].
    pub fn boxed(kernel: &'static str, tasks: usize, scratch: usize, run: F) -> Box<dyn Step> {
        Box::new(FnStep { kernel, tasks, scratch, run })
    }
}

impl<F> Step for FnStep<F>
where
    F: Fn(&StepArgs<'_>, usize, *mut u8) -> Result<()> + Send + Sync,
{
    fn tasks(&self, _phase: usize) -> usize {
        self.tasks
    }
    fn scratch_bytes(&self) -> usize {
        self.scratch
    }
    unsafe fn run(&self, args: &StepArgs<'_>, _phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        (self.run)(args, task, scratch)
    }
    fn kernel(&self) -> &str {
        self.kernel
    }
}

/// Splits `n` items into tasks of about `grain` items, at most 4096 of them: returns the task count and the items a task.
pub fn split(n: usize, grain: usize) -> (usize, usize) {
    let per = grain.max(n.div_ceil(4096)).max(1);
    (n.div_ceil(per).max(1), per)
}
