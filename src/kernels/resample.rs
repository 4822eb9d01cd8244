//! Resampling along axes: weighted sums of neighbours, or picking one of them.

use super::elem::Elem;
use super::isa::Isa;
use super::real::Real;
use super::simd::{F32, Kernel, dispatch};
use std::ops::Range;

/// Weighted sums along one axis: every output place has `taps` input places and weights.
#[derive(Clone, Debug, Default)]
pub struct Filter<T> {
    /// Input places of the axis.
    pub input: usize,
    /// Neighbours of an output place.
    pub taps: usize,
    /// `taps` input places for each output place, all inside.
    pub index: Vec<u32>,
    /// Their weights.
    pub weights: Vec<T>,
    /// Output places that lie outside the input get this value; empty for none.
    pub outside: Vec<bool>,
    /// That value.
    pub fill: T,
}

impl<T: Real> Filter<T> {
    /// Output places of the axis.
    pub fn output(&self) -> usize {
        self.index.len().checked_div(self.taps).unwrap_or(0)
    }
    /// Whether every place is itself.
    pub fn is_identity(&self) -> bool {
        self.output() == self.input
            && !self.outside.iter().any(|&o| o)
            && (0..self.input).all(|i| {
                (i * self.taps..(i + 1) * self.taps)
                    .all(|k| self.weights[k] == T::ZERO || self.index[k] as usize == i && self.weights[k] == T::ONE)
            })
    }
    /// Output rows `rows` of an array seen as (outer, axis, inner); a row is `inner` values of one place of the axis.
    /// # Safety
    /// `from` is valid for (outer, input, inner) values, `to` for (outer, output, inner); they do not overlap.
    pub unsafe fn run(&self, isa: Isa, inner: usize, rows: Range<usize>, from: *const T, to: *mut T) {
        let n = self.output();
        for r in rows {
            let (o, j) = (r / n, r % n);
            let taps = j * self.taps..(j + 1) * self.taps;
            // SAFETY: indices lie in the axis.
            unsafe {
                let (from, to) = (from.add(o * self.input * inner), to.add(r * inner));
                if self.outside.get(j) == Some(&true) {
                    (0..inner).for_each(|i| *to.add(i) = self.fill);
                } else if inner == 1 {
                    let pairs = self.index[taps.clone()].iter().zip(&self.weights[taps]);
                    *to = pairs.map(|(&i, &w)| *from.add(i as usize) * w).sum();
                } else if T::ELEM == Elem::F32 {
                    let (index, weights) = (&self.index[taps.clone()], self.weights[taps].as_ptr().cast());
                    dispatch(isa, Row { from: from.cast(), to: to.cast(), inner, index, weights });
                } else {
                    for i in 0..inner {
                        let pairs = self.index[taps.clone()].iter().zip(&self.weights[taps.clone()]);
                        *to.add(i) = pairs.map(|(&k, &w)| *from.add(k as usize * inner + i) * w).sum();
                    }
                }
            }
        }
    }
}

/// A weighted sum of rows.
struct Row<'a> {
    from: *const f32,
    to: *mut f32,
    inner: usize,
    index: &'a [u32],
    weights: *const f32,
}

impl Kernel for Row<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let mut i = 0;
        while i < self.inner {
            let n = V::LANES.min(self.inner - i);
            let mut sum = V::zero();
            for t in 0..self.index.len() {
                // SAFETY: the rows have `inner` values, the weights as many as the indices.
                unsafe {
                    let p = self.from.add(self.index[t] as usize * self.inner + i);
                    let x = if n == V::LANES { V::load(p) } else { V::load_n(p, n) };
                    sum = x.mul_add(V::splat(*self.weights.add(t)), sum);
                }
            }
            // SAFETY: as above.
            unsafe {
                if n == V::LANES {
                    sum.store(self.to.add(i));
                } else {
                    sum.store_n(self.to.add(i), n);
                }
            }
            i += n;
        }
    }
}

/// Picks one input place for each output place, along every axis.
#[derive(Clone, Debug)]
pub struct Pick {
    /// By axis but the last ones, which stay: the offset of each output place in chunks; negative for outside.
    tables: Vec<Vec<isize>>,
    /// Bytes that stay together.
    chunk: usize,
}

impl Pick {
    /// From the input's shape, the element size, and by axis the input place (or none) of each output place.
    pub fn new(shape: &[usize], size: usize, places: &[Vec<Option<usize>>]) -> Pick {
        let same = |axis: usize| {
            let p = &places[axis];
            p.len() == shape[axis] && p.iter().enumerate().all(|(i, x)| *x == Some(i))
        };
        let mut axes = shape.len();
        while axes > 0 && same(axes - 1) {
            axes -= 1;
        }
        let chunk = size * shape[axes..].iter().product::<usize>();
        let mut stride = 1;
        let mut tables = Vec::with_capacity(axes);
        for axis in (0..axes).rev() {
            tables.push(places[axis].iter().map(|p| p.map_or(-1, |p| (p * stride) as isize)).collect());
            stride *= shape[axis];
        }
        tables.reverse();
        if tables.is_empty() {
            tables.push(vec![0]);
        }
        Pick { tables, chunk }
    }
    /// Rows of chunks: the output places of all axes but the last one that changes.
    pub fn rows(&self) -> usize {
        self.tables[..self.tables.len() - 1].iter().map(Vec::len).product()
    }
    /// Bytes of an output row.
    pub fn row_bytes(&self) -> usize {
        self.tables.last().map_or(0, Vec::len) * self.chunk
    }
    /// Writes output rows; `fill` is one element, for places outside.
    /// # Safety
    /// `from` and `to` are valid for the whole arrays and do not overlap.
    pub unsafe fn run(&self, rows: Range<usize>, fill: &[u8], from: *const u8, to: *mut u8) {
        let Some((last, outer)) = self.tables.split_last() else { return };
        for r in rows {
            let (mut rest, mut base, mut inside) = (r, 0isize, true);
            for t in outer.iter().rev() {
                let o = t[rest % t.len()];
                rest /= t.len();
                inside &= o >= 0;
                base += o;
            }
            // SAFETY: offsets lie in the input, row r in the output.
            unsafe {
                let to = to.add(r * self.row_bytes());
                if !inside || last.iter().any(|&o| o < 0) {
                    for (j, &o) in last.iter().enumerate() {
                        let to = to.add(j * self.chunk);
                        if inside && o >= 0 {
                            let from = from.add((base + o) as usize * self.chunk);
                            std::ptr::copy_nonoverlapping(from, to, self.chunk);
                        } else {
                            for k in (0..self.chunk).step_by(fill.len().max(1)) {
                                std::ptr::copy_nonoverlapping(fill.as_ptr(), to.add(k), fill.len());
                            }
                        }
                    }
                    continue;
                }
                let from = from.add(base as usize * self.chunk);
                match self.chunk {
                    1 => copy::<1>(last, from, to),
                    2 => copy::<2>(last, from, to),
                    4 => copy::<4>(last, from, to),
                    8 => copy::<8>(last, from, to),
                    32 => copy::<32>(last, from, to),
                    64 => copy::<64>(last, from, to),
                    chunk => {
                        for (j, &o) in last.iter().enumerate() {
                            std::ptr::copy_nonoverlapping(from.add(o as usize * chunk), to.add(j * chunk), chunk);
                        }
                    }
                }
            }
        }
    }
}

/// Chunks of a size known to the compiler.
#[inline(always)]
unsafe fn copy<const N: usize>(table: &[isize], from: *const u8, to: *mut u8) {
    for (j, &o) in table.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from.add(o as usize * N), to.add(j * N), N) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_rows_at_every_level() {
        let f = Filter {
            input: 3,
            taps: 2,
            index: vec![0, 0, 0, 1, 1, 2, 2, 2],
            weights: vec![1.0f32, 0.0, 0.5, 0.5, 0.25, 0.75, 0.0, 1.0],
            outside: vec![false, false, false, true],
            fill: -7.0,
        };
        assert!(!f.is_identity());
        for isa in Isa::detect().levels() {
            for inner in [1, 5, 40] {
                let x: Vec<f32> = (0..2 * 3 * inner).map(|i| i as f32).collect();
                let mut y = vec![0.0; 2 * 4 * inner];
                // SAFETY: two outer parts on both sides.
                unsafe { f.run(isa, inner, 0..8, x.as_ptr(), y.as_mut_ptr()) };
                for (at, &v) in y.iter().enumerate() {
                    let (o, j, i) = (at / (4 * inner), at / inner % 4, at % inner);
                    let x = |k: usize| x[(o * 3 + k) * inner + i];
                    let want = [x(0), 0.5 * x(0) + 0.5 * x(1), 0.25 * x(1) + 0.75 * x(2), -7.0][j];
                    assert_eq!(v, want);
                }
            }
        }
    }

    #[test]
    fn picks_in_chunks() {
        let x: Vec<u8> = (0..2 * 3 * 2).collect();
        let all = |n: usize| (0..n).map(Some).collect::<Vec<_>>();
        let p = Pick::new(&[2, 3, 2], 1, &[vec![Some(1), Some(0)], vec![Some(2), None, Some(0)], all(2)]);
        assert_eq!((p.rows(), p.row_bytes()), (2, 6));
        let mut y = [0; 12];
        // SAFETY: twelve bytes in and out.
        unsafe { p.run(0..2, &[99], x.as_ptr(), y.as_mut_ptr()) };
        assert_eq!(y, [10, 11, 99, 99, 6, 7, 4, 5, 99, 99, 0, 1]);
        let id = Pick::new(&[2, 6], 1, &[all(2), all(6)]);
        // SAFETY: as above.
        unsafe { id.run(0..id.rows(), &[0], x.as_ptr(), y.as_mut_ptr()) };
        assert_eq!(y[..], x[..]);
    }
}
