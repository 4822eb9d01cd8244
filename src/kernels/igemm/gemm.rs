//! Integer matrix products: batched, strided, in tasks.

use super::micro::{TileSet, best};
use super::post::Out;
use super::{Columns, Job, Post, Source, Zero, row_terms};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::gemm::{READ_ROWS, Strides};
use crate::kernels::isa::{Isa, Level};

/// What to multiply. Strides and offsets count bytes in A and B, elements in C.
#[derive(Clone, Debug)]
pub struct IntGemmSpec {
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
    /// A is i8, not u8.
    pub a_signed: bool,
    /// B is u8, not i8.
    pub b_unsigned: bool,
    /// For each product of a batch, which A and which B it takes; As, too, lie one behind another.
    pub items: Vec<(usize, usize)>,
    /// How many different Bs there are, one behind another.
    pub bs: usize,
    /// B is packed once with [`IntGemm::pack`], and `run` gets it packed.
    pub b_constant: bool,
    /// What is written.
    pub out: Out,
}

/// The operands of a run.
#[derive(Clone, Copy)]
pub struct IntGemmPtrs {
    /// A.
    pub a: *const u8,
    /// B; packed if the spec says that it is constant.
    pub b: *const u8,
    /// C.
    pub c: *mut u8,
    /// Zero points of A; `each` is for rows.
    pub a_zero: Zero,
    /// Rows' zero points go on with each A.
    pub a_zero_items: bool,
    /// Zero points of B; `each` is for columns.
    pub b_zero: Zero,
    /// Columns' zero points go on with each B.
    pub b_zero_items: bool,
    /// What becomes of the sums.
    pub post: Post,
}

/// A product of given sizes.
pub struct IntGemm {
    spec: IntGemmSpec,
    columns: Columns,
    task_rows: usize,
    task_strips: usize,
    tasks_m: usize,
    tasks_n: usize,
    scratch: [usize; 3],
}

/// Rows of a task at most: their bytes stay in L1 or L2 while the strips go by.
const MOST_ROWS: usize = 96;

/// Multiplications worth a task of their own.
pub(crate) fn task_products(isa: Isa) -> usize {
    match isa.level() {
        Level::Scalar => 200_000,
        Level::Avx2 => 2_000_000,
        Level::Avx512 => 4_000_000,
    }
}

impl IntGemm {
    /// Plans the product, or says what is wrong with its sizes.
    pub fn new(isa: Isa, spec: IntGemmSpec) -> Result<IntGemm> {
        Self::with(isa, best(isa), spec)
    }
    pub(crate) fn with(isa: Isa, set: &'static TileSet, spec: IntGemmSpec) -> Result<IntGemm> {
        let columns = Columns::new(isa, set, spec.n, spec.k, 1)?;
        product(&[spec.items.len().max(1), spec.m, spec.n, 4])?;
        product(&[spec.bs.max(1), columns.packed_bytes()])?;
        let task_rows = spec.m.clamp(1, MOST_ROWS);
        // Of few rows the time is that of reading B.
        let a_strip = (task_rows.max(READ_ROWS) * columns.set.lanes).saturating_mul(spec.k.max(1));
        let strips = columns.strips();
        let widest = 1 << (columns.set.tall.len() - 1);
        let task_strips = (task_products(isa) / a_strip.max(1)).max(1).next_multiple_of(widest).min(strips.max(1));
        let (tasks_m, tasks_n) = (spec.m.div_ceil(task_rows), strips.div_ceil(task_strips));
        let rows = columns.padded(task_rows);
        let copies = spec.a_signed || spec.a.col != 1;
        let bytes = if copies { product(&[task_rows, spec.k])? } else { 0 };
        let scratch = [round_up(rows * 8, ALIGN), round_up(rows * 4, ALIGN), bytes];
        Ok(IntGemm { spec, columns, task_rows, task_strips, tasks_m, tasks_n, scratch })
    }
    /// The kernel's name in the table.
    pub fn name(&self) -> &'static str {
        self.columns.set.name
    }
    /// Phases, to be run one after the other.
    pub fn phases(&self) -> usize {
        if self.spec.b_constant { 1 } else { 2 }
    }
    /// Strips of one packing task: some 32 KiB.
    fn pack_step(&self) -> usize {
        (32 * 1024 / self.columns.strip().max(1)).max(1)
    }
    /// Independent tasks of a phase.
    pub fn tasks(&self, phase: usize) -> usize {
        if phase + 1 < self.phases() {
            return self.spec.bs * self.columns.strips().div_ceil(self.pack_step());
        }
        self.spec.items.len() * self.tasks_m * self.tasks_n
    }
    /// Bytes of scratch that each thread must lend to `run`.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch.iter().sum()
    }
    /// Bytes of workspace shared by all phases and tasks of a run.
    pub fn workspace_bytes(&self) -> usize {
        if self.spec.b_constant { 0 } else { self.packed_bytes() }
    }
    /// Bytes of packed Bs.
    pub fn packed_bytes(&self) -> usize {
        self.spec.bs * self.columns.packed_bytes()
    }
    /// Names the packed format.
    pub fn packed_format(&self) -> String {
        format!("{} x{}", self.columns.format(&self.source(std::ptr::null(), 0)), self.spec.bs)
    }
    fn source(&self, b: *const u8, which: usize) -> Source {
        let s = &self.spec;
        let at = b.wrapping_add(which * s.k * s.n);
        Source { at, tap_stride: 0, row: s.b.row, run: s.k.max(1), run_stride: 0, col: s.b.col, unsigned: s.b_unsigned }
    }
    /// Packs all Bs.
    /// # Safety
    /// `b` is valid by the spec's sizes, `dst` for `packed_bytes`.
    pub unsafe fn pack(&self, b: *const u8, dst: *mut u8) {
        for which in 0..self.spec.bs {
            let to = dst.wrapping_add(which * self.columns.packed_bytes());
            // SAFETY: the caller's.
            unsafe { self.columns.pack(0..self.columns.strips(), &self.source(b, which), to) };
        }
    }

    /// Runs one task of a phase.
    /// # Safety
    /// The operands are valid by the spec's sizes; C overlaps none of them. `workspace` and `scratch` are valid for the bytes that
    /// `workspace_bytes` and `scratch_bytes` tell; no other task uses `scratch` meanwhile. All tasks of a phase end before those
    /// of the next begin.
    pub unsafe fn run(&self, phase: usize, task: usize, p: &IntGemmPtrs, workspace: *mut u8, scratch: *mut u8) {
        let (s, c) = (&self.spec, &self.columns);
        if phase + 1 < self.phases() {
            let per = c.strips().div_ceil(self.pack_step());
            let (which, first) = (task / per, task % per * self.pack_step());
            let to = workspace.wrapping_add(which * c.packed_bytes());
            // SAFETY: the caller's.
            return unsafe { c.pack(first..c.strips().min(first + self.pack_step()), &self.source(p.b, which), to) };
        }
        let per_item = self.tasks_m * self.tasks_n;
        let (item, within) = (task / per_item, task % per_item);
        let (tn, tm) = (within / self.tasks_m, within % self.tasks_m);
        let (a_which, which) = s.items[item];
        let (row0, rows) = (tm * self.task_rows, self.task_rows.min(s.m - tm * self.task_rows));
        let a = p.a.wrapping_add(a_which * s.m * s.k + row0 * s.a.row);
        let pointers = scratch.cast::<*const u8>();
        let terms = scratch.wrapping_add(self.scratch[0]).cast::<i32>();
        let copy = scratch.wrapping_add(self.scratch[0] + self.scratch[1]);
        let copies = s.a_signed || s.a.col != 1;
        let flip = if s.a_signed { 0x80 } else { 0 };
        let mut a_zero = p.a_zero;
        if a_zero.each {
            a_zero.at = a_zero.at.wrapping_add(row0 + if p.a_zero_items { a_which * s.m } else { 0 });
        }
        let mut b_zero = p.b_zero;
        if b_zero.each && p.b_zero_items {
            b_zero.at = b_zero.at.wrapping_add(which * s.n);
        }
        // SAFETY: rows row0..row0 + rows of the item's A; the scratch has room for pointers, terms and a copy of them.
        unsafe {
            for i in 0..if copies { rows } else { 0 } {
                let (from, to) = (a.add(i * s.a.row), copy.add(i * s.k));
                if s.a.col == 1 {
                    (0..s.k).for_each(|k| *to.add(k) = *from.add(k) ^ flip);
                } else {
                    (0..s.k).for_each(|k| *to.add(k) = *from.add(k * s.a.col) ^ flip);
                }
            }
            for i in 0..c.padded(rows) {
                let i0 = i.min(rows - 1);
                let row = if copies { copy.cast_const().add(i0 * s.k) } else { a.add(i0 * s.a.row) };
                pointers.add(i).write(row);
            }
            let shifted = b_zero.shifts(s.n, s.b_unsigned);
            if shifted {
                row_terms(c, pointers, rows, a_zero, s.a_signed, terms);
            }
            let packed = if s.b_constant { p.b } else { workspace.cast_const() }.add(which * c.packed_bytes());
            let job = Job {
                rows: pointers,
                m: rows,
                terms,
                strips: tn * self.task_strips..c.strips().min((tn + 1) * self.task_strips),
                packed,
                a_zero,
                a_signed: s.a_signed,
                b_zero: if shifted { b_zero } else { Zero::NONE },
                b_unsigned: s.b_unsigned && shifted,
                post: p.post,
                out: p.c.add((item * s.m + row0) * s.n * s.out.size()),
                out_row: s.n,
                out_col: 1,
            };
            c.run(&job, std::ptr::null_mut());
        }
    }
}
