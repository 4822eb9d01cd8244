//! C = activation(alpha * A * B + bias + residual), f32, batched, strided.
//!
//! A [`Gemm`] is made from shapes and the instruction set alone. It runs in phases of independent tasks; which element is
//! computed how never depends on who runs which task.

pub mod epilogue;
pub(crate) mod micro;
pub(crate) mod multiply;
pub(crate) mod pack;
#[cfg(test)]
pub(crate) mod tests;

use crate::bail;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::isa::{Isa, Level};
pub use epilogue::{Activation, Bias, Epilogue};
use micro::{TileSet, tiles};
use multiply::{Job, k_block, multiply, scratch_len};
use pack::{Packed, Strided};
use std::ops::Range;

/// Strides of a matrix, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// From one row to the next.
    pub row: usize,
    /// From one column to the next.
    pub col: usize,
}

impl Strides {
    /// A row-major matrix of `cols` columns.
    pub fn rows_of(cols: usize) -> Strides {
        Strides { row: cols, col: 1 }
    }
    /// The transpose of a row-major matrix of `cols` columns.
    pub fn transposed(cols: usize) -> Strides {
        Strides { row: 1, col: cols }
    }
}

/// Up to four batch dimensions. Strides in elements; 0 repeats an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Sizes, outermost first; 1 where unused.
    pub dims: [usize; 4],
    /// Strides of A.
    pub a: [usize; 4],
    /// Strides of B.
    pub b: [usize; 4],
    /// Strides of C.
    pub c: [usize; 4],
    /// Strides of the bias.
    pub bias: [usize; 4],
    /// Strides of the residual.
    pub residual: [usize; 4],
}

impl Default for Batch {
    fn default() -> Self {
        Batch { dims: [1; 4], a: [0; 4], b: [0; 4], c: [0; 4], bias: [0; 4], residual: [0; 4] }
    }
}

impl Batch {
    /// Where the operands of an item begin: A's and B's offsets.
    pub fn offsets(&self, item: usize) -> (usize, usize) {
        let at = self.unravel(item);
        (dot(at, self.a), dot(at, self.b))
    }
    /// The index along each dimension of a flat index.
    fn unravel(&self, mut i: usize) -> [usize; 4] {
        let mut at = [0; 4];
        for d in (0..4).rev() {
            at[d] = i % self.dims[d];
            i /= self.dims[d];
        }
        at
    }
}

fn dot(at: [usize; 4], strides: [usize; 4]) -> usize {
    (0..4).map(|d| at[d] * strides[d]).sum()
}

/// What to multiply.
#[derive(Clone, Copy, Debug)]
pub struct GemmSpec {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Strides of A.
    pub a: Strides,
    /// Strides of B, as it is before packing.
    pub b: Strides,
    /// From one row of C to the next; its columns follow each other.
    pub c_row: usize,
    /// From one row of the residual to the next; its columns follow each other. 0 repeats one row.
    pub residual_row: usize,
    /// Batch dimensions.
    pub batch: Batch,
    /// B is constant: it is packed once with [`Gemm::pack`], and `run` gets the packed B.
    pub b_constant: bool,
    /// Scales the product.
    pub alpha: f32,
    /// Bias, residual, activation.
    pub epilogue: Epilogue,
}

impl GemmSpec {
    /// Row-major A[m, k] times row-major B[k, n] into dense C.
    pub fn dense(m: usize, n: usize, k: usize) -> GemmSpec {
        GemmSpec {
            m,
            n,
            k,
            a: Strides::rows_of(k),
            b: Strides::rows_of(n),
            c_row: n,
            residual_row: n,
            batch: Batch::default(),
            b_constant: false,
            alpha: 1.0,
            epilogue: Epilogue::default(),
        }
    }
}

/// The operands of a run.
#[derive(Clone, Copy, Debug)]
pub struct GemmPtrs {
    /// A.
    pub a: *const f32,
    /// B; packed if the spec says that it is constant.
    pub b: *const f32,
    /// C.
    pub c: *mut f32,
    /// The bias, or null where the epilogue has none.
    pub bias: *const f32,
    /// The residual, or null where the epilogue has none.
    pub residual: *const f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// B was packed when the model was loaded.
    Constant,
    /// A first phase packs B into the workspace.
    Phase,
    /// Each task packs its panels.
    Task,
    /// B is read where it lies.
    InPlace,
}

/// A matrix product of given shapes.
pub struct Gemm {
    isa: Isa,
    set: &'static TileSet,
    spec: GemmSpec,
    source: Source,
    kc: usize,
    panels: usize,
    items: usize,
    /// B's strides over the batch once packed.
    packed_b: [usize; 4],
    distinct_b: usize,
    /// Rows and panels of a task, and how many tasks they make an item.
    task_rows: usize,
    task_panels: usize,
    tasks_m: usize,
    tasks_n: usize,
    /// Items of a task, where items are small.
    task_items: usize,
}

/// Floating-point operations worth a task of their own: some 20 to 40 microseconds.
pub(crate) fn task_flops(isa: Isa) -> usize {
    match isa.level() {
        Level::Scalar => 500_000,
        Level::Avx2 => 3_000_000,
        Level::Avx512 => 5_000_000,
    }
}

/// Reading a value of B from memory takes about as long as multiplying so many rows of A with it, in f32 and in bytes.
pub(crate) const READ_ROWS: usize = 8;

impl Gemm {
    /// Plans the product, or says what is wrong with its sizes.
    pub fn new(isa: Isa, spec: GemmSpec) -> Result<Gemm> {
        let set = tiles(isa);
        let (m, n, k) = (spec.m, spec.n, spec.k);
        let items = product(&spec.batch.dims)?;
        product(&[items.max(1), m, n])?;
        product(&[m, k])?;
        let panels = n.div_ceil(set.panel);
        let packed_len = product(&[panels, k, set.panel])?;
        // B repeats along batch dimensions of stride 0: pack each distinct one once.
        let (mut packed_b, mut distinct_b) = ([0; 4], 1usize);
        for d in (0..4).rev() {
            if spec.batch.b[d] != 0 && spec.batch.dims[d] > 1 {
                packed_b[d] = distinct_b * packed_len;
                distinct_b = product(&[distinct_b, spec.batch.dims[d]])?;
            }
        }
        if items == 0 {
            // There may be no B at all.
            distinct_b = 0;
        }
        product(&[distinct_b, packed_len, 4])?;

        // Of few rows the time is that of reading B.
        let flops = 2usize.saturating_mul(m.max(READ_ROWS)).saturating_mul(n).saturating_mul(k.max(8));
        let total = flops.saturating_mul(items);
        let worth = task_flops(isa);
        let target = (total / 24).clamp(worth, 4 * worth);
        let kc = k_block(k);
        let (mut task_rows, mut task_panels, mut task_items) = (m.max(1), panels.max(1), 1);
        if flops < target {
            task_items = (target / flops.max(1)).clamp(1, items.max(1));
        } else {
            // A's block should stay in L2 beside B's panel: 128 KiW of it. Where there are few panels, rows are split instead.
            let most_rows = (128 * 1024 / kc).max(4 * set.narrow.len());
            let pieces = flops.div_ceil(target);
            let (mut split_m, mut split_n) = (m.div_ceil(most_rows).max(1), 1);
            if split_m < pieces {
                split_n = pieces.div_ceil(split_m).min(panels);
            }
            // Cutting rows as well reads B again in each piece: only for the sake of a few tasks.
            if split_m * split_n * items < 8 && split_m * split_n < pieces {
                split_m = pieces.div_ceil(split_n).min(m.div_ceil(set.narrow.len()));
            }
            task_rows = m.div_ceil(split_m.max(1)).max(1);
            task_panels = panels.div_ceil(split_n).max(1);
        }
        let (tasks_m, tasks_n) = (m.div_ceil(task_rows), panels.div_ceil(task_panels));
        let rows_of_b = spec.b.col == 1 || n == 1;
        let source = if spec.b_constant {
            Source::Constant
        } else if rows_of_b && spec.alpha == 1.0 && (m <= 2 * set.narrow.len() || k.saturating_mul(n) <= 64 * 1024) {
            Source::InPlace
        } else if tasks_m > 1 || distinct_b < items {
            Source::Phase
        } else {
            Source::Task
        };
        let gemm = Gemm {
            isa,
            set,
            spec,
            source,
            kc,
            panels,
            items,
            packed_b,
            distinct_b,
            task_rows,
            task_panels,
            tasks_m,
            tasks_n,
            task_items,
        };
        if scratch_len(set, task_rows, kc, true).is_none_or(|n| n > isize::MAX as usize / 4) {
            bail!(InvalidModel, "a product of {m}x{k} by {k}x{n} needs more scratch than memory can hold");
        }
        Ok(gemm)
    }

    /// The kernel's name in the table.
    pub fn name(&self) -> &'static str {
        self.set.name
    }
    /// What it was made from.
    pub fn spec(&self) -> &GemmSpec {
        &self.spec
    }
    /// Phases, to be run one after the other.
    pub fn phases(&self) -> usize {
        1 + (self.source == Source::Phase) as usize
    }
    fn packs(&self, phase: usize) -> bool {
        self.source == Source::Phase && phase == 0
    }
    /// Independent tasks of a phase.
    pub fn tasks(&self, phase: usize) -> usize {
        if self.packs(phase) {
            return self.distinct_b * self.pack_tasks();
        }
        if self.spec.m == 0 || self.spec.n == 0 {
            return 0;
        }
        self.items.div_ceil(self.task_items) * self.tasks_m * self.tasks_n
    }
    /// Panels of one packing task: some 64 KiB.
    fn pack_step(&self) -> usize {
        (16 * 1024 / (self.spec.k.max(1) * self.set.panel)).max(1)
    }
    fn pack_tasks(&self) -> usize {
        self.panels.div_ceil(self.pack_step())
    }
    /// Bytes of scratch that each thread must lend to `run`, aligned as base's buffers are.
    pub fn scratch_bytes(&self) -> usize {
        let packs_a = self.spec.a.col != 1 && self.spec.k > 1;
        scratch_len(self.set, self.task_rows, self.kc, packs_a).unwrap_or(0) * 4
    }
    /// Bytes of workspace shared by all phases and tasks of a run.
    pub fn workspace_bytes(&self) -> usize {
        if self.source == Source::Phase { self.packed_len() * 4 } else { 0 }
    }
    fn packed_len(&self) -> usize {
        self.distinct_b * self.panels * self.spec.k * self.set.panel
    }
    /// Bytes of a packed constant B; 0 if B is not constant.
    pub fn packed_bytes(&self) -> usize {
        if self.source == Source::Constant { self.packed_len() * 4 } else { 0 }
    }
    /// Names the packed format: equal strings mean that a packed B may be shared.
    pub fn packed_format(&self) -> String {
        let s = &self.spec;
        let batch = if self.distinct_b > 1 { format!(" {:?}{:?}", s.batch.dims, s.batch.b) } else { String::new() };
        format!("gemm_b f32 w{} k{} n{} s{},{} x{}{batch}", self.set.panel, s.k, s.n, s.b.row, s.b.col, s.alpha)
    }

    /// Packs a constant B.
    /// # Safety
    /// `b` is valid for reading by the spec's shape and strides and need not be aligned, `dst` for writing `packed_bytes`.
    pub unsafe fn pack(&self, b: *const f32, dst: *mut f32) {
        // In the order in which B lies in memory, as far as caches see it: its pages may be read from a file here.
        let k = self.spec.k;
        let step = if self.spec.b.col == 1 { 32 } else { k.max(1) };
        for item in 0..self.distinct_b {
            for k0 in (0..k).step_by(step) {
                // SAFETY: the caller's.
                unsafe { self.pack_panels(item, 0..self.panels, k0..k.min(k0 + step), b, dst) };
            }
        }
    }

    /// Packs some rows of some panels.
    /// # Safety
    /// As for `pack`; the panels and rows exist.
    unsafe fn pack_panels(
        &self,
        distinct: usize,
        panels: Range<usize>,
        rows: Range<usize>,
        b: *const f32,
        dst: *mut f32,
    ) {
        // The distinct B's index along each batch dimension, from the packed strides.
        let len = self.panels * self.spec.k * self.set.panel;
        let (mut rest, mut offset) = (distinct, 0);
        for d in (0..4).rev() {
            if self.spec.batch.b[d] != 0 && self.spec.batch.dims[d] > 1 {
                offset += rest % self.spec.batch.dims[d] * self.spec.batch.b[d];
                rest /= self.spec.batch.dims[d];
            }
        }
        for p in panels {
            // SAFETY: the batch offset, panel and rows lie in B, and in the packed B.
            unsafe {
                let to = dst.add(distinct * len + (p * self.spec.k + rows.start) * self.set.panel);
                self.strided(b.add(offset), false).pack(p, rows.start, rows.len(), to);
            }
        }
    }

    fn strided(&self, b: *const f32, in_place: bool) -> Strided {
        let s = &self.spec;
        let (isa, width) = (self.isa, self.set.panel);
        Strided { isa, b, row: s.b.row, col: s.b.col, n: s.n, width, alpha: s.alpha, in_place }
    }

    /// Runs one task of a phase.
    /// # Safety
    /// The operands are valid by the spec's shapes, strides and batch; C overlaps none of them, except that the residual may be C
    /// itself. `workspace` and `scratch` are valid for the bytes that `workspace_bytes` and `scratch_bytes` tell; no other task
    /// uses `scratch` meanwhile. All tasks of a phase end before those of the next begin.
    pub unsafe fn run(&self, phase: usize, task: usize, ptrs: &GemmPtrs, workspace: *mut u8, scratch: *mut u8) {
        let (workspace, scratch) = (workspace.cast::<f32>(), scratch.cast::<f32>());
        if self.packs(phase) {
            let (distinct, first) = (task / self.pack_tasks(), task % self.pack_tasks() * self.pack_step());
            let panels = first..self.panels.min(first + self.pack_step());
            // SAFETY: the caller's.
            return unsafe { self.pack_panels(distinct, panels, 0..self.spec.k, ptrs.b, workspace) };
        }
        let (s, e) = (&self.spec, &self.spec.epilogue);
        let per_item = self.tasks_m * self.tasks_n;
        let (group, within) = (task / per_item, task % per_item);
        // Neighbouring tasks share panels of B.
        let (tn, tm) = (within / self.tasks_m, within % self.tasks_m);
        let row0 = tm * self.task_rows;
        for item in group * self.task_items..self.items.min((group + 1) * self.task_items) {
            let at = s.batch.unravel(item);
            let some = |on: bool, p: *const f32, by: usize| if on { p.wrapping_add(by) } else { std::ptr::null() };
            let bias = dot(at, s.batch.bias);
            let job = Job {
                isa: self.isa,
                set: self.set,
                m: self.task_rows.min(s.m - row0),
                n: s.n,
                k: s.k,
                kc: self.kc,
                a: ptrs.a.wrapping_add(dot(at, s.batch.a) + row0 * s.a.row),
                a_row: s.a.row,
                a_col: s.a.col,
                c: ptrs.c.wrapping_add(dot(at, s.batch.c) + row0 * s.c_row),
                c_row: s.c_row,
                bias_col: some(e.bias == Bias::Column, ptrs.bias, bias),
                bias_row: some(e.bias == Bias::Row, ptrs.bias, bias + row0),
                residual: some(e.residual, ptrs.residual, dot(at, s.batch.residual) + row0 * s.residual_row),
                residual_row: s.residual_row,
                activation: e.activation,
                panels: tn * self.task_panels..self.panels.min((tn + 1) * self.task_panels),
            };
            let packed = dot(at, self.packed_b);
            // SAFETY: the task's rows and panels lie in the operands, by the caller's contract.
            unsafe {
                match self.source {
                    Source::Constant => {
                        let b = ptrs.b.add(packed);
                        multiply(&job, &Packed { b, k: s.k, width: self.set.panel }, scratch)
                    }
                    Source::Phase => {
                        let b = workspace.add(packed).cast_const();
                        multiply(&job, &Packed { b, k: s.k, width: self.set.panel }, scratch)
                    }
                    Source::Task => multiply(&job, &self.strided(ptrs.b.add(dot(at, s.batch.b)), false), scratch),
                    Source::InPlace => multiply(&job, &self.strided(ptrs.b.add(dot(at, s.batch.b)), true), scratch),
                }
            }
        }
    }
}
