//! Pad: a border around an array, or a cut where a pad is negative.

use super::GRAIN_BYTES;
use super::index::copy_block;
use crate::base::checked;
use crate::ensure;
use crate::error::Result;

/// What the border holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PadMode {
    /// A given element.
    Constant,
    /// The nearest element.
    Edge,
    /// The mirror image about the outermost element.
    Reflect,
    /// The other end.
    Wrap,
}

/// No source: the given element.
const FILL: usize = usize::MAX;

/// One axis: where each place of the result comes from, in bytes of the source.
#[derive(Clone, Debug)]
struct Axis {
    from: Vec<usize>,
    /// The places that are the source in order: first, how many.
    straight: (usize, usize),
}

/// A pad bound to a shape; all arrays are dense.
#[derive(Clone, Debug)]
pub struct Pad {
    /// Axes up to the last that has a border; what lies behind it is a block.
    axes: Vec<Axis>,
    block: usize,
    size: usize,
    shape: Vec<usize>,
    rows_a_task: usize,
}

impl Pad {
    /// Pads elements of `size` bytes; `begins` and `ends` have a number an axis.
    pub fn new(mode: PadMode, size: usize, shape: &[usize], begins: &[i64], ends: &[i64]) -> Result<Pad> {
        ensure!(
            begins.len() == shape.len() && ends.len() == shape.len(),
            InvalidModel,
            "{} and {} pads for rank {}",
            begins.len(),
            ends.len(),
            shape.len()
        );
        checked::product(shape)?;
        let mut out = vec![];
        for (i, &d) in shape.iter().enumerate() {
            let n = (d as i64).checked_add(begins[i]).and_then(|n| n.checked_add(ends[i]));
            let n = n.and_then(|n| usize::try_from(n).ok());
            ensure!(n.is_some(), InvalidModel, "pads {} and {} of an axis of length {d}", begins[i], ends[i]);
            out.push(n.unwrap_or(0));
        }
        let len = checked::product(&out)?;
        checked::product(&[len, size])?;
        let last = (0..shape.len()).rev().find(|&i| begins[i] != 0 || ends[i] != 0);
        let split = last.map_or(0, |i| i + 1);
        let block = shape[split..].iter().product::<usize>() * size;
        let mut step = block;
        let mut axes = vec![];
        for i in (0..split).rev() {
            if len > 0 {
                axes.push(axis(mode, shape[i], begins[i], out[i], step)?);
            }
            step *= shape[i];
        }
        axes.reverse();
        let row = block * if split > 0 { out[split - 1] } else { 1 };
        Ok(Pad { axes, block, size, shape: out, rows_a_task: (GRAIN_BYTES / row.max(16)).max(1) })
    }
    /// The shape of the result.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn rows(&self) -> usize {
        if self.shape.contains(&0) {
            return 0;
        }
        let outer = self.axes.split_last().map_or(&[][..], |(_, outer)| outer);
        outer.iter().map(|a| a.from.len()).product()
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.rows().div_ceil(self.rows_a_task)
    }
    /// Runs one task; `value` is the element of `Constant`.
    /// # Safety
    /// The pointers are valid for the shapes given to `new` and reported by `shape`, and do not overlap.
    pub unsafe fn run(&self, task: usize, from: *const u8, value: *const u8, to: *mut u8) {
        let Some((inner, outer)) = self.axes.split_last() else {
            // SAFETY: no border at all: one block.
            return unsafe { std::ptr::copy_nonoverlapping(from, to, self.block) };
        };
        let row = inner.from.len() * self.block;
        let first = task * self.rows_a_task;
        let last = (first + self.rows_a_task).min(self.rows());
        for r in first..last {
            let (mut rest, mut base) = (r, 0);
            let mut border = false;
            for a in outer.iter().rev() {
                let source = a.from[rest % a.from.len()];
                rest /= a.from.len();
                border |= source == FILL;
                base += if source == FILL { 0 } else { source };
            }
            // SAFETY: places of the tables lie within their axes.
            unsafe {
                let to = to.add(r * row);
                if border {
                    fill(to, row, value, self.size);
                    continue;
                }
                let (start, count) = inner.straight;
                if count > 0 {
                    let at = from.add(base + inner.from[start]);
                    std::ptr::copy_nonoverlapping(at, to.add(start * self.block), count * self.block);
                }
                for i in (0..start).chain(start + count..inner.from.len()) {
                    let to = to.add(i * self.block);
                    match inner.from[i] {
                        FILL => fill(to, self.block, value, self.size),
                        source => copy_block(from.add(base + source), to, self.block),
                    }
                }
            }
        }
    }
}

fn axis(mode: PadMode, len: usize, begin: i64, out: usize, step: usize) -> Result<Axis> {
    let last = len as i64 - 1;
    ensure!(len > 0 || mode == PadMode::Constant, InvalidModel, "an empty axis cannot be padded by {mode:?}");
    let mut from = vec![];
    from.try_reserve_exact(out).map_err(|_| crate::err!(OutOfMemory, "cannot pad to {out} places"))?;
    for i in 0..out as i64 {
        let p = i - begin;
        let p = match mode {
            _ if (0..=last).contains(&p) => p,
            PadMode::Constant => -1,
            PadMode::Edge => p.clamp(0, last),
            PadMode::Wrap => p.rem_euclid(len as i64),
            PadMode::Reflect if last == 0 => 0,
            PadMode::Reflect => {
                let q = p.rem_euclid(2 * last);
                if q > last { 2 * last - q } else { q }
            }
        };
        from.push(if p < 0 { FILL } else { p as usize * step });
    }
    let start = begin.clamp(0, out as i64) as usize;
    let end = begin.saturating_add(len as i64).clamp(start as i64, out as i64) as usize;
    Ok(Axis { from, straight: (start, end - start) })
}

/// Repeats an element.
unsafe fn fill(to: *mut u8, bytes: usize, value: *const u8, size: usize) {
    for i in (0..bytes).step_by(size.max(1)) {
        // SAFETY: the caller answers for `bytes` bytes, a multiple of `size`.
        unsafe { copy_block(value, to.add(i), size) };
    }
}
