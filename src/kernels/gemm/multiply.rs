//! One task of a matrix product: some rows of A times some panels of B, blocked over K.

use super::epilogue::{Activation, activate};
use super::micro::{LINE, MAX_ROWS, TileArgs, TileFn, TileSet};
use super::pack::BSource;
use crate::kernels::isa::Isa;
use crate::kernels::reorder::transpose;
use std::ops::Range;

/// What a task multiplies. Pointers are at the task's first row; columns count from column 0.
pub(crate) struct Job {
    pub isa: Isa,
    pub set: &'static TileSet,
    /// Rows of this task.
    pub m: usize,
    /// Columns of the whole matrix.
    pub n: usize,
    pub k: usize,
    /// Steps of K at a time.
    pub kc: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub a_col: usize,
    pub c: *mut f32,
    pub c_row: usize,
    /// A value a column, from column 0; or null.
    pub bias_col: *const f32,
    /// A value a row, from the task's first row; or null.
    pub bias_row: *const f32,
    /// Laid out as C with its own row stride; or null.
    pub residual: *const f32,
    pub residual_row: usize,
    pub activation: Activation,
    /// Panels of this task.
    pub panels: Range<usize>,
}

/// Steps of K at a time: short enough that a panel's block stays in L2 with A's.
pub(crate) fn k_block(k: usize) -> usize {
    const MOST: usize = 512;
    let blocks = k.div_ceil(MOST).max(1);
    k.div_ceil(blocks).next_multiple_of(4).min(k.max(1))
}

/// Values of scratch that `multiply` needs for `m` rows.
pub(crate) fn scratch_len(set: &TileSet, m: usize, kc: usize, packs_a: bool) -> Option<usize> {
    let a = if packs_a { m.checked_mul(kc)?.checked_next_multiple_of(16)? } else { 0 };
    a.checked_add(kc.checked_mul(2 * set.panel)?)
}

/// Splits `m` rows into tiles of nearly equal height, at most `most` each: (tiles, height, how many are one higher).
pub(crate) fn split_rows(m: usize, most: usize) -> (usize, usize, usize) {
    let tiles = m.div_ceil(most);
    if tiles == 0 { (0, 0, 0) } else { (tiles, m / tiles, m % tiles) }
}

/// Runs a task.
/// # Safety
/// A, B (through `b`), C, bias and residual are valid for the job's rows, panels and K; C overlaps none of them, except that the residual
/// may be C itself. `scratch` is valid for `scratch_len` values.
pub(crate) unsafe fn multiply<B: BSource>(job: &Job, b: &B, scratch: *mut f32) {
    if job.m == 0 {
        return;
    }
    debug_assert!(job.set.narrow.len() <= MAX_ROWS);
    let width = job.set.panel;
    let blocks = job.k.div_ceil(job.kc.max(1)).max(1);
    let packs_a = job.a_col != 1 && job.k > 1;
    let wide = job.m <= job.set.wide.len();
    let group = if wide { 2 } else { 1 };
    // SAFETY: scratch_len counts A's block first, then two panels.
    let b_scratch = if packs_a { unsafe { scratch.add((job.m * job.kc).next_multiple_of(16)) } } else { scratch };
    let clamp = job.activation.clamp();
    for block in 0..blocks {
        let k0 = block * job.kc;
        let kc = job.kc.min(job.k - k0);
        let last = block + 1 == blocks;
        let (a, a_row) = if packs_a {
            // SAFETY: rows and columns of A exist; the scratch holds them.
            unsafe { pack_a(job, k0, kc, scratch) };
            (scratch.cast_const(), kc)
        } else {
            (job.a.wrapping_add(k0), job.a_row)
        };
        let mut p = job.panels.start;
        while p < job.panels.end {
            let n0 = p * width;
            let count = group.min(job.panels.end - p);
            // SAFETY: panels and K rows exist; two panels of scratch are there.
            let at = unsafe { b.panels(p, count, k0, kc, b_scratch) };
            let fns: &[TileFn] = if count == 2 { job.set.wide } else { job.set.narrow };
            let cols = (count * width).min(job.n - n0);
            let (tiles, height, higher) = split_rows(job.m, fns.len());
            // The next panel of this block, or the first of the next block.
            let ahead = if p + count < job.panels.end {
                b.ahead(p + count, k0)
            } else if !last {
                b.ahead(job.panels.start, k0 + kc)
            } else {
                None
            };
            let mut i = 0;
            for t in 0..tiles {
                let rows = height + (t < higher) as usize;
                let offset = |p: *const f32, by: usize| if p.is_null() { p } else { p.wrapping_add(by) };
                let args = TileArgs {
                    a: a.wrapping_add(i * a_row),
                    a_row,
                    b: at.b,
                    b_row: at.b_row,
                    b_panel: at.b_panel,
                    next: ahead.map_or(at.b, |p| p.wrapping_add(t * (kc / 4) * LINE)),
                    k: kc,
                    c: job.c.wrapping_add(i * job.c_row + n0),
                    c_row: job.c_row,
                    n: cols,
                    accumulate: block > 0,
                    bias_col: offset(job.bias_col, n0),
                    bias_row: offset(job.bias_row, i),
                    residual: offset(job.residual, i * job.residual_row + n0),
                    residual_row: job.residual_row,
                    clamp: if last { clamp } else { (f32::NEG_INFINITY, f32::INFINITY) },
                };
                // SAFETY: rows i..i + rows and columns n0..n0 + cols lie in the job.
                unsafe { fns[rows - 1](&args) };
                i += rows;
            }
            if last && !job.activation.is_clamp() {
                // SAFETY: the rows just written.
                unsafe { activate(job.isa, job.activation, job.c.add(n0), job.m, cols, job.c_row) };
            }
            p += count;
        }
    }
}

/// Copies a block of A so that each row's values follow each other.
unsafe fn pack_a(job: &Job, k0: usize, kc: usize, dst: *mut f32) {
    // SAFETY: the job's rows and columns k0..k0 + kc of A exist; dst holds m * kc.
    unsafe {
        let src = job.a.add(k0 * job.a_col);
        if job.a_row == 1 {
            transpose(job.isa, src, job.a_col, dst, kc, kc, job.m);
        } else {
            for i in 0..job.m {
                for k in 0..kc {
                    *dst.add(i * kc + k) = *src.add(i * job.a_row + k * job.a_col);
                }
            }
        }
    }
}
