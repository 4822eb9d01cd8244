//! Products of 8-bit integers, summed in i32: exact, whatever the values (sums past 32 bits wrap).
//!
//! Kernels multiply unsigned bytes by signed ones. Bytes of the other kind are moved by 128, and their zero points with them:
//! `(a - za) * (b - zb)` stays what it is. Zero points are taken into account after the sums, by way of the sums of the columns,
//! which are kept with the packed columns, and of the rows.

pub mod conv;
mod depthwise;
pub mod gemm;
pub(crate) mod micro;
pub mod post;
#[cfg(test)]
mod tests;
mod turn;

use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::isa::Isa;
use crate::kernels::reorder::transpose;
use micro::{GROUP, MAX_COLS, MAX_ROWS, TileArgs, TileSet};
use post::{Along, Lines, Out, Residual, finish};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Zero points as they lie in memory: one for all, or one for each row or column.
#[derive(Clone, Copy, Debug)]
pub struct Zero {
    /// The bytes; null for zero.
    pub at: *const u8,
    /// One for each row or column.
    pub each: bool,
}

impl Zero {
    /// Zero for all.
    pub const NONE: Zero = Zero { at: std::ptr::null(), each: false };

    /// The zero point of row `i` whose bytes are unsigned after those that are `signed` were moved.
    unsafe fn unsigned(self, i: usize, signed: bool) -> i32 {
        // SAFETY: the caller's: there are as many zero points.
        let z = if self.at.is_null() { 0 } else { unsafe { *self.at.add(if self.each { i } else { 0 }) } };
        if signed { i32::from(z as i8) + 128 } else { i32::from(z) }
    }
    /// The zero point of column `j` whose bytes are signed after those that are `unsigned` were moved.
    unsafe fn signed(self, j: usize, unsigned: bool) -> i32 {
        // SAFETY: the caller's: there are as many zero points.
        let z = if self.at.is_null() { 0 } else { unsafe { *self.at.add(if self.each { j } else { 0 }) } };
        if unsigned { i32::from(z) - 128 } else { i32::from(z as i8) }
    }
    /// Whether [`Zero::signed`] is other than 0 for one of `n` columns.
    unsafe fn shifts(self, n: usize, unsigned: bool) -> bool {
        let centre = if unsigned { 128 } else { 0 };
        if self.at.is_null() {
            return centre != 0;
        }
        // SAFETY: the caller's: there are as many zero points.
        let all = unsafe { std::slice::from_raw_parts(self.at, if self.each { n } else { 1 }) };
        all.iter().fold(false, |any, &z| any | (z != centre))
    }
}

/// What becomes of the sums; arrays begin with column 0.
#[derive(Clone, Copy)]
pub struct Post {
    /// What is written.
    pub out: Out,
    /// Added to the sums of each column; or null.
    pub int_bias: *const i32,
    /// Scales the sums; not read for `Out::I32`.
    pub scale: *const f32,
    /// Whether each column has its own scale.
    pub scale_each: bool,
    /// Added to the scaled sums of each column; or null.
    pub bias: *const f32,
    /// Zero point of the result.
    pub zero: f32,
    /// What is negative becomes 0 before it is rounded to 8 bits.
    pub relu: bool,
    /// Added to an 8-bit result.
    pub residual: Option<Residual>,
}

impl Post {
    /// The plain sums.
    pub const SUMS: Post = Post {
        out: Out::I32,
        int_bias: std::ptr::null(),
        scale: std::ptr::null(),
        scale_each: false,
        bias: std::ptr::null(),
        zero: 0.0,
        relu: false,
        residual: None,
    };
}

impl Post {
    /// The residual of the results from element `i` on.
    fn residual_at(&self, i: usize) -> Option<Residual> {
        self.residual.map(|r| Residual { at: r.at.wrapping_add(i), ..r })
    }
}

/// The right operand before it is packed: byte (tap, step, column) lies at
/// `tap * tap_stride + step % run * row + step / run * run_stride + column * col`.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub at: *const u8,
    pub tap_stride: usize,
    pub row: usize,
    pub run: usize,
    pub run_stride: usize,
    pub col: usize,
    /// The bytes are unsigned.
    pub unsigned: bool,
}

/// The right operand, packed in strips of columns: first all strips, then the sum of each column as i32.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub isa: Isa,
    pub set: &'static TileSet,
    /// Columns.
    pub n: usize,
    /// Bytes of a row's part for one tap.
    pub k: usize,
    /// How many of them count: the source's steps. The others are zero in the packed columns.
    pub steps: usize,
    pub taps: usize,
}

/// Rows of the left operand times strips of the right one.
pub(crate) struct Job {
    /// For each tap a pointer to each row's bytes, as many as `padded` says: the last row's again and again after it.
    pub rows: *const *const u8,
    pub m: usize,
    /// What a zero point of the right operand is multiplied by, for each row: see [`row_terms`]. Null where it is zero.
    pub terms: *const i32,
    pub strips: Range<usize>,
    pub packed: *const u8,
    pub a_zero: Zero,
    pub a_signed: bool,
    /// [`Zero::NONE`], and signed, where it [shifts](Zero::shifts) nothing.
    pub b_zero: Zero,
    pub b_unsigned: bool,
    /// Its residual is for `out`.
    pub post: Post,
    /// Where row 0 of column 0 goes, and the elements to the next of each. `col` is 1, or `row` is.
    pub out: *mut u8,
    pub out_row: usize,
    pub out_col: usize,
}

impl Job {
    /// One line of the result from element `to` on, its sums still missing: across the columns from `column` on, or down that
    /// one.
    /// # Safety
    /// The result has an element `to`.
    unsafe fn lines(&self, column: usize, across: bool, to: usize) -> Lines {
        let p = &self.post;
        let none = Along { at: std::ptr::null(), each: true };
        // SAFETY: the caller's.
        let (residual, to) = unsafe { (p.residual_at(to), self.out.add(to * p.out.size())) };
        Lines {
            n: 0,
            rows: 1,
            sums: std::ptr::null(),
            sums_row: 0,
            add: none,
            x: none,
            y: none,
            scale: along(p.scale, across && p.scale_each, if p.scale_each { column } else { 0 }),
            bias: along(p.bias, across, column),
            zero: p.zero,
            relu: p.relu,
            residual,
            out: p.out,
            to,
            to_row: self.out_row,
        }
    }
}

impl Columns {
    pub fn new(isa: Isa, set: &'static TileSet, n: usize, k: usize, taps: usize) -> Result<Columns> {
        product(&[taps.max(1), k.max(1) + GROUP, n.max(1) + set.lanes, 4])?;
        Ok(Columns { isa, set, n, k, steps: k, taps })
    }
    /// With rows whose parts are padded to whole groups.
    pub fn padded_steps(self) -> Columns {
        Columns { k: self.steps.next_multiple_of(GROUP), ..self }
    }
    pub fn strips(&self) -> usize {
        self.n.div_ceil(self.set.lanes)
    }
    /// Bytes of a strip.
    pub fn strip(&self) -> usize {
        self.taps * self.k.div_ceil(GROUP) * GROUP * self.set.lanes
    }
    pub fn packed_bytes(&self) -> usize {
        self.strips() * (self.strip() + self.set.lanes * 4)
    }
    /// Tells everything that the packed bytes depend on but the source's bytes.
    pub fn format(&self, s: &Source) -> String {
        let (set, strides) = (self.set.name, (s.tap_stride, s.row, s.run, s.run_stride, s.col, s.unsigned));
        format!("igemm_b {set} {}x{}x{} {strides:?}", self.taps, self.steps, self.n)
    }
    /// Rows of pointers that a job of `m` rows has for each tap.
    pub fn padded(&self, m: usize) -> usize {
        m.next_multiple_of(self.set.rows)
    }

    /// Packs some strips, and writes the sums of their columns.
    /// # Safety
    /// The source has all taps, steps and columns; `dst` has `packed_bytes`.
    pub unsafe fn pack(&self, strips: Range<usize>, s: &Source, dst: *mut u8) {
        let (lanes, flip) = (self.set.lanes, if s.unsigned { 0x80 } else { 0 });
        let one_run = s.run >= self.steps;
        for strip in strips {
            let (n0, cols) = (strip * lanes, lanes.min(self.n - strip * lanes));
            // SAFETY: the caller's.
            unsafe {
                let mut to = dst.add(strip * self.strip());
                let mut sums = [0i32; 16];
                for tap in 0..self.taps {
                    for k0 in (0..self.k).step_by(GROUP) {
                        let first = s.at.add(tap * s.tap_stride + n0 * s.col);
                        let steps = GROUP.min(self.steps.saturating_sub(k0));
                        let from = first.wrapping_add(k0 * s.row);
                        if steps < GROUP || cols < lanes || !one_run {
                            std::ptr::write_bytes(to, 0, lanes * GROUP);
                        } else if s.row == 1 {
                            for (j, sum) in sums.iter_mut().enumerate().take(cols) {
                                let x = from.add(j * s.col).cast::<[u8; GROUP]>().read().map(|x| x ^ flip);
                                to.add(j * GROUP).cast::<[u8; GROUP]>().write(x);
                                *sum = x.iter().fold(*sum, |s, &x| s.wrapping_add(i32::from(x as i8)));
                            }
                            to = to.add(lanes * GROUP);
                            continue;
                        } else if s.col == 1 {
                            let row = |i: usize| std::slice::from_raw_parts(from.add(i * s.row), lanes);
                            let rows = [row(0), row(1), row(2), row(3)];
                            for (j, sum) in sums.iter_mut().enumerate().take(cols) {
                                let x = rows.map(|r| r[j] ^ flip);
                                to.add(j * GROUP).cast::<[u8; GROUP]>().write(x);
                                *sum = x.iter().fold(*sum, |s, &x| s.wrapping_add(i32::from(x as i8)));
                            }
                            to = to.add(lanes * GROUP);
                            continue;
                        }
                        for (j, sum) in sums.iter_mut().enumerate().take(cols) {
                            for i in 0..steps {
                                let k = k0 + i;
                                let x = *first.add(k % s.run * s.row + k / s.run * s.run_stride + j * s.col) ^ flip;
                                *to.add(j * GROUP + i) = x;
                                *sum = sum.wrapping_add(i32::from(x as i8));
                            }
                        }
                        to = to.add(lanes * GROUP);
                    }
                }
                let at = dst.add(self.strips() * self.strip()).cast::<i32>().add(n0);
                std::ptr::copy_nonoverlapping(sums.as_ptr(), at, lanes);
            }
        }
    }

    /// Bytes of scratch that `run` needs for jobs of up to `m` rows whose results lie in columns.
    pub fn scratch_bytes(&self, m: usize, by_columns: bool) -> Result<usize> {
        if by_columns { product(&[self.padded(m).max(1), MAX_COLS, 8]) } else { Ok(0) }
    }

    /// Runs a job.
    /// # Safety
    /// The operands are valid for the job's rows and strips, the arrays of `post` for `n` columns; the result overlaps none of
    /// them. `scratch` is valid for `scratch_bytes`.
    pub unsafe fn run(&self, job: &Job, scratch: *mut u8) {
        let lanes = self.set.lanes;
        let sums = job.packed.wrapping_add(self.strips() * self.strip()).cast::<i32>();
        let mut strip = job.strips.start;
        while strip < job.strips.end {
            // The widest tile that the strips left fill: 1, 2 or 4 of them.
            let left = job.strips.end - strip;
            let index = (0..self.set.tall.len()).rev().find(|i| 1 << i <= left).unwrap_or(0);
            let n0 = strip * lanes;
            let cols = (lanes << index).min(self.n - n0);
            // SAFETY: the columns n0..n0 + cols exist.
            unsafe {
                let block = Block::new(job, n0, cols, sums.add(n0));
                let b = job.packed.add(strip * self.strip()).cast::<i8>();
                if job.out_col == 1 {
                    self.by_rows(job, &block, b, index);
                } else {
                    let sums = scratch.cast::<i32>();
                    let mut i = 0;
                    while i < job.m {
                        i += self.tile(job, b, index, i, sums.add(i * MAX_COLS), MAX_COLS);
                    }
                    finish_columns(self.isa, job, &block, sums, self.padded(job.m));
                }
            }
            strip += 1 << index;
        }
    }

    /// Computes rows `i..` of a block into `c`; returns how many that were.
    unsafe fn tile(&self, job: &Job, b: *const i8, index: usize, i: usize, c: *mut i32, c_row: usize) -> usize {
        let (tile, rows) = match job.m - i {
            1 => (self.set.flat[index], 1),
            left => (self.set.tall[index], left.min(self.set.rows)),
        };
        let (rows_at, tap_stride) = (job.rows.wrapping_add(i), self.padded(job.m));
        let args = TileArgs { rows: rows_at, tap_stride, taps: self.taps, k: self.k, b, strip: self.strip(), c, c_row };
        // SAFETY: the job's rows, padded to whole tiles; the caller's room for the sums.
        unsafe { tile(&args) };
        rows
    }

    unsafe fn by_rows(&self, job: &Job, block: &Block, b: *const i8, index: usize) {
        let mut c = MaybeUninit::<[i32; MAX_ROWS * MAX_COLS]>::uninit();
        let c = c.as_mut_ptr().cast::<i32>();
        let mut i = 0;
        while i < job.m {
            // SAFETY: `c` holds the largest tile, of which the kernel writes whole rows; rows i..i + rows exist.
            unsafe {
                let rows = self.tile(job, b, index, i, c, MAX_COLS);
                // Rows that have their own zero points are finished one at a time.
                let step = if job.a_zero.each { 1 } else { rows };
                for r in (0..rows).step_by(step) {
                    let mut own = [0i32; MAX_COLS];
                    let mut add = block.add.as_ptr();
                    if job.a_zero.each {
                        let zero = job.a_zero.unsigned(i + r, job.a_signed);
                        for (j, x) in own.iter_mut().enumerate().take(block.cols) {
                            *x = block.add[j].wrapping_sub(zero.wrapping_mul(*block.sums.add(j)));
                        }
                        add = own.as_ptr();
                    }
                    let to = (i + r) * job.out_row + block.n0;
                    let x = if block.shifted { block.zero.as_ptr() } else { std::ptr::null() };
                    let lines = Lines {
                        n: block.cols,
                        rows: step,
                        sums: c.add(r * MAX_COLS),
                        sums_row: MAX_COLS,
                        add: Along { at: add, each: true },
                        x: Along { at: x, each: true },
                        y: Along { at: job.terms.wrapping_add(i + r), each: false },
                        ..job.lines(block.n0, true, to)
                    };
                    finish(self.isa, lines);
                }
                i += rows;
            }
        }
    }
}

/// Writes a block of `MAX_COLS` columns a row column by column; behind the sums is as much room.
unsafe fn finish_columns(isa: Isa, job: &Job, block: &Block, sums: *mut i32, padded: usize) {
    // SAFETY: the caller's: the scratch holds two blocks of all rows; the block's columns exist.
    unsafe {
        let turned = sums.add(padded * MAX_COLS);
        // Bits are moved, whatever they mean.
        let from = sums.cast::<f32>().cast_const();
        transpose(isa, from, MAX_COLS, turned.cast::<f32>(), padded, job.m, block.cols);
        for j in 0..block.cols {
            let lines = Lines {
                n: job.m,
                sums: turned.add(j * padded),
                add: Along { at: &block.add[j], each: false },
                x: Along { at: if block.shifted { job.terms } else { std::ptr::null() }, each: true },
                y: Along { at: &block.zero[j], each: false },
                ..job.lines(block.n0 + j, false, (block.n0 + j) * job.out_col)
            };
            finish(isa, lines);
        }
    }
}

fn along(at: *const f32, each: bool, from: usize) -> Along<f32> {
    Along { at: if at.is_null() { at } else { at.wrapping_add(from) }, each }
}

/// What the columns of one tile have in common for all rows.
struct Block {
    n0: usize,
    cols: usize,
    /// Sums of the columns.
    sums: *const i32,
    /// Added to each sum: the bias, and the left operand's zero point where it is one for all.
    add: [i32; MAX_COLS],
    /// Zero points of the right operand.
    zero: [i32; MAX_COLS],
    /// Whether one of them is not zero.
    shifted: bool,
}

impl Block {
    unsafe fn new(job: &Job, n0: usize, cols: usize, sums: *const i32) -> Block {
        let mut b = Block { n0, cols, sums, add: [0; MAX_COLS], zero: [0; MAX_COLS], shifted: false };
        // SAFETY: the caller's: the columns exist, and the arrays reach over all columns.
        unsafe {
            let za = if job.a_zero.each { 0 } else { job.a_zero.unsigned(0, job.a_signed) };
            for j in 0..cols {
                let bias = if job.post.int_bias.is_null() { 0 } else { *job.post.int_bias.add(n0 + j) };
                b.add[j] = bias.wrapping_sub(za.wrapping_mul(*sums.add(j)));
            }
            b.shifted = !job.b_zero.at.is_null() || job.b_unsigned;
            for j in 0..if b.shifted { cols } else { 0 } {
                b.zero[j] = job.b_zero.signed(n0 + j, job.b_unsigned);
            }
        }
        b
    }
}

/// `k * za - sum of the row`, which the right operand's zero points are multiplied by; for each row of a job.
/// # Safety
/// The rows are valid as those of a [`Job`]; `to` for `m` values.
pub(crate) unsafe fn row_terms(c: &Columns, rows: *const *const u8, m: usize, zero: Zero, signed: bool, to: *mut i32) {
    for i in 0..m {
        // SAFETY: the caller's.
        unsafe {
            let mut sum = 0i32;
            for tap in 0..c.taps {
                if c.steps > 0 {
                    let row = std::slice::from_raw_parts(*rows.add(tap * c.padded(m) + i), c.steps);
                    sum = row.iter().fold(sum, |s, &x| s.wrapping_add(i32::from(x)));
                }
            }
            let all = (c.taps * c.steps) as i32;
            *to.add(i) = all.wrapping_mul(zero.unsigned(i, signed)).wrapping_sub(sum);
        }
    }
}
