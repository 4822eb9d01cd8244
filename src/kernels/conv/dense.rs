//! Any convolution on plain NCHW: a matrix product whose B is the input seen through the kernel's taps, packed on the way.
//! Weights are read as they are, so they may also change from run to run.

use super::im2col::Im2col;
use super::{ConvPtrs, ConvSpec};
use crate::bail;
use crate::error::Result;
use crate::kernels::gemm::epilogue::add;
use crate::kernels::gemm::micro::{TileSet, tiles};
use crate::kernels::gemm::multiply::{Job, k_block, multiply, scratch_len};
use crate::kernels::gemm::task_flops;
use crate::kernels::isa::Isa;

/// A convolution of given shapes on dense memory.
pub struct DenseConv {
    isa: Isa,
    set: &'static TileSet,
    spec: ConvSpec,
    kc: usize,
    /// Rows (output channels) and panels of a task.
    task_rows: usize,
    task_panels: usize,
    tasks_m: usize,
    tasks_n: usize,
}

impl DenseConv {
    /// Plans the convolution, or says what is wrong with its sizes.
    pub fn new(isa: Isa, spec: ConvSpec) -> Result<DenseConv> {
        spec.check()?;
        let set = tiles(isa);
        let (m, k) = (spec.c_out / spec.groups, spec.c_in / spec.groups * spec.taps());
        let panels = spec.out_size().div_ceil(set.panel);
        let kc = k_block(k);
        let worth = task_flops(isa);
        let item = spec.flops() / (spec.n * spec.groups).max(1);
        let target = (spec.flops() / 24).clamp(worth, 4 * worth);
        let pieces = item.div_ceil(target).max(1);
        // Panels first: each piece of the rows packs the input again.
        let split_n = pieces.min(panels).max(1);
        let split_m = pieces.div_ceil(split_n).min(m.div_ceil(64)).max(1);
        let task_rows = m.div_ceil(split_m).max(1);
        let task_panels = panels.div_ceil(split_n).max(1);
        if scratch_len(set, 0, kc, false).is_none() {
            bail!(InvalidModel, "a convolution's kernel of {k} weights is out of range");
        }
        let (tasks_m, tasks_n) = (m.div_ceil(task_rows), panels.div_ceil(task_panels));
        Ok(DenseConv { isa, set, spec, kc, task_rows, task_panels, tasks_m, tasks_n })
    }
    /// What it was made from.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }
    /// The kernel's name in the table.
    pub fn name(&self) -> &'static str {
        self.set.name
    }
    /// Phases, to be run one after the other.
    pub fn phases(&self) -> usize {
        1
    }
    /// Independent tasks of a phase.
    pub fn tasks(&self, _phase: usize) -> usize {
        self.spec.n * self.spec.groups * self.tasks_m * self.tasks_n
    }
    /// Bytes of scratch that each thread must lend to `run`.
    pub fn scratch_bytes(&self) -> usize {
        scratch_len(self.set, 0, self.kc, false).unwrap_or(0) * 4
    }
    /// Bytes of workspace shared by all tasks of a run.
    pub fn workspace_bytes(&self) -> usize {
        0
    }

    /// Runs one task.
    /// # Safety
    /// The operands are valid by the spec's shapes; the output overlaps none of them, except that a residual that is not
    /// added last may be the output itself. `scratch` is valid for `scratch_bytes` and no other task uses it meanwhile.
    pub unsafe fn run(&self, _phase: usize, task: usize, ptrs: &ConvPtrs, _workspace: *mut u8, scratch: *mut u8) {
        let s = &self.spec;
        let per_item = self.tasks_m * self.tasks_n;
        let (item, within) = (task / per_item, task % per_item);
        let (tn, tm) = (within / self.tasks_m, within % self.tasks_m);
        let (c_in, c_out) = (s.c_in / s.groups, s.c_out / s.groups);
        let (k, pixels, group) = (c_in * s.taps(), s.out_size(), item % s.groups);
        let row0 = tm * self.task_rows;
        let some = |on: bool, p: *const f32, by: usize| if on { p.wrapping_add(by) } else { std::ptr::null() };
        // Items run over images, then groups, as channels do in memory.
        let out = (item * c_out + row0) * pixels;
        let job = Job {
            isa: self.isa,
            set: self.set,
            m: self.task_rows.min(c_out - row0),
            n: pixels,
            k,
            kc: self.kc,
            a: ptrs.w.wrapping_add((group * c_out + row0) * k),
            a_row: k,
            a_col: 1,
            c: ptrs.y.wrapping_add(out),
            c_row: pixels,
            bias_col: std::ptr::null(),
            bias_row: some(s.bias, ptrs.bias, group * c_out + row0),
            residual: some(s.residual && !s.residual_last, ptrs.residual, out),
            residual_row: pixels,
            activation: s.activation,
            panels: tn * self.task_panels..pixels.div_ceil(self.set.panel).min((tn + 1) * self.task_panels),
        };
        let x = ptrs.x.wrapping_add(item * c_in * s.in_size());
        // SAFETY: the task's rows and panels lie in the operands, by the caller's contract.
        unsafe {
            multiply(&job, &Im2col { spec: s, x, width: self.set.panel }, scratch.cast());
            if s.residual_last {
                let n0 = job.panels.start * self.set.panel;
                let cols = pixels.min(job.panels.end * self.set.panel) - n0;
                add(self.isa, ptrs.residual.add(out + n0), job.c.add(n0), job.m, cols, pixels);
            }
        }
    }
}
