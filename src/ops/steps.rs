//! Steps put together from closures.

use crate::backend::{Step, StepArgs};
use crate::error::Result;

type Run = Box<dyn Fn(&StepArgs<'_>, usize, *mut u8) -> Result<()> + Send + Sync>;

/// A step of several phases, each from a closure under the contract of [`Step::run`].
pub struct Phases {
    kernel: &'static str,
    phases: Vec<(usize, Run)>,
    scratch: usize,
    workspace: usize,
}

impl Phases {
    /// A step without phases yet, whose phases share `workspace` bytes.
    pub fn new(kernel: &'static str, workspace: usize) -> Phases {
        Phases { kernel, phases: Vec::new(), scratch: 0, workspace }
    }
    /// Adds a phase: `run(args, task, scratch)` does one of `tasks` tasks with `scratch` bytes of scratch.
    pub fn then(
        mut self,
        tasks: usize,
        scratch: usize,
        run: impl Fn(&StepArgs<'_>, usize, *mut u8) -> Result<()> + Send + Sync + 'static,
    ) -> Phases {
        self.phases.push((tasks, Box::new(run)));
        self.scratch = self.scratch.max(scratch);
        self
    }
    /// The finished step.
    pub fn boxed(self) -> Box<dyn Step> {
        Box::new(self)
    }
}

impl Step for Phases {
    fn phases(&self) -> usize {
        self.phases.len()
    }
    fn tasks(&self, phase: usize) -> usize {
        self.phases.get(phase).map_or(0, |p| p.0)
    }
    fn scratch_bytes(&self) -> usize {
        self.scratch
    }
    fn workspace_bytes(&self) -> usize {
        self.workspace
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        (self.phases[phase].1)(args, task, scratch)
    }
    fn kernel(&self) -> &str {
        self.kernel
    }
}
