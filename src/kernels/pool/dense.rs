//! Pooling on NCHW: a vector holds neighbouring output places of a line, or, for windows as wide as a line, neighbouring taps.

use super::blocked::{max_nan, power, root};
use super::{Indices, Kind, PoolSpec};
use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, I32, Kernel, Mask, dispatch, scalar};
use std::ops::Range;

/// Pools lines of one channel of one image.
/// # Safety
/// Plane and lines exist in `x`, `y`, and `indices` where that is not null.
pub(super) unsafe fn plane(
    isa: Isa,
    s: &PoolSpec,
    plane: usize,
    lines: Range<usize>,
    x: *const f32,
    y: *mut f32,
    indices: Indices,
) {
    let x = x.wrapping_add(plane * s.in_size());
    let y = y.wrapping_add(plane * s.out_size());
    for line in lines {
        let y = y.wrapping_add(line * s.output[2]);
        if s.kind == Kind::Max && !indices.to.is_null() {
            let to = indices.to.wrapping_add(plane * s.out_size() + line * s.output[2]);
            let base = (plane * s.in_size()) as i64;
            // SAFETY: the line lies in the operands.
            unsafe { max_with_indices(s, line, x, y, to, base, indices.column_major) };
        } else if s.output[2] <= 2 && s.dilation[2] == 1 {
            dispatch(isa, WideWindow { s, line, x, y });
        } else {
            dispatch(isa, Line { s, line, x, y });
        }
    }
}

/// The windows of a line in depth and height, and the (wrapping) places of their first taps.
#[inline(always)]
fn window(s: &PoolSpec, line: usize) -> ([(usize, usize, usize); 2], [usize; 2]) {
    let (od, oh) = (line / s.output[1], line % s.output[1]);
    let first = [(od * s.stride[0]).wrapping_sub(s.pad[0]), (oh * s.stride[1]).wrapping_sub(s.pad[1])];
    ([s.taps(0, od), s.taps(1, oh)], first)
}

/// The input line that taps `d` and `h` see.
#[inline(always)]
fn input_line(s: &PoolSpec, first: [usize; 2], d: usize, h: usize) -> usize {
    (first[0].wrapping_add(d * s.dilation[0]) * s.input[1] + first[1].wrapping_add(h * s.dilation[1])) * s.input[2]
}

#[inline(always)]
fn empty<V: F32>(kind: Kind) -> V {
    if kind == Kind::Max { V::splat(f32::NEG_INFINITY) } else { V::zero() }
}

#[inline(always)]
fn join<V: F32>(kind: Kind, acc: V, v: V) -> V {
    match kind {
        Kind::Max => max_nan(acc, v),
        Kind::Average { .. } => acc + v,
        Kind::Lp { p } => acc + power(v.abs(), p),
    }
}

struct Line<'a> {
    s: &'a PoolSpec,
    line: usize,
    x: *const f32,
    y: *mut f32,
}

impl Kernel for Line<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Line { s, line, x, y } = self;
        let ([wd, wh], first) = window(s, line);
        let step = s.stride[2];
        let strides = V::I::iota() * V::I::splat(step as i32);
        // Places whose whole window lies inside the line.
        let reach = (s.kernel[2].max(1) - 1) * s.dilation[2];
        let lo = s.pad[2].div_ceil(step).min(s.output[2]);
        let hi = match (s.input[2] + s.pad[2]).checked_sub(reach + 1) {
            Some(last) => (last / step + 1).clamp(lo, s.output[2]),
            None => lo,
        };
        let mut ow = 0;
        while ow < s.output[2] {
            let inner = ow >= lo && ow + V::LANES <= hi && step <= 1 << 20;
            if !inner {
                one::<scalar::F>(s, ow, [wd, wh], first, x, y);
                ow += 1;
                continue;
            }
            let mut acc = empty::<V>(s.kind);
            for d in wd.0..wd.1 {
                for h in wh.0..wh.1 {
                    let row = input_line(s, first, d, h) + ow * step - s.pad[2];
                    for w in 0..s.kernel[2] {
                        // SAFETY: all LANES windows lie inside the line.
                        let v = unsafe {
                            let at = x.add(row + w * s.dilation[2]);
                            if step == 1 { V::load(at) } else { V::gather(at, strides) }
                        };
                        acc = join(s.kind, acc, v);
                    }
                }
            }
            let acc = match s.kind {
                Kind::Max => acc,
                Kind::Average { .. } => acc / V::splat(s.divisor([wd, wh, s.taps(2, ow)])),
                Kind::Lp { p } => root(acc, p),
            };
            // SAFETY: ow + LANES <= output.
            unsafe { acc.store(y.add(ow)) };
            ow += V::LANES;
        }
    }
}

/// One output place at a time, a lane doing all of it.
#[inline(always)]
fn one<V: F32>(
    s: &PoolSpec,
    ow: usize,
    [wd, wh]: [(usize, usize, usize); 2],
    first: [usize; 2],
    x: *const f32,
    y: *mut f32,
) {
    let ww = s.taps(2, ow);
    let w0 = (ow * s.stride[2]).wrapping_sub(s.pad[2]);
    let mut acc = empty::<V>(s.kind);
    for d in wd.0..wd.1 {
        for h in wh.0..wh.1 {
            let row = input_line(s, first, d, h);
            for w in ww.0..ww.1 {
                // SAFETY: taps lo..hi lie inside the line.
                let v = unsafe { V::load_n(x.add(row + w0.wrapping_add(w * s.dilation[2])), 1) };
                acc = join(s.kind, acc, v);
            }
        }
    }
    let acc = match s.kind {
        Kind::Max => acc,
        Kind::Average { .. } => acc / V::splat(s.divisor([wd, wh, ww])),
        Kind::Lp { p } => root(acc, p),
    };
    // SAFETY: the place lies in the output.
    unsafe { acc.store_n(y.add(ow), 1) };
}

/// Numbers summed in f32 before the sum goes into an f64.
const SUMMED: usize = 4096;

/// One or two output places, whose windows are runs of neighbouring values.
struct WideWindow<'a> {
    s: &'a PoolSpec,
    line: usize,
    x: *const f32,
    y: *mut f32,
}

impl Kernel for WideWindow<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let WideWindow { s, line, x, y } = self;
        let ([wd, wh], first) = window(s, line);
        for ow in 0..s.output[2] {
            let ww = s.taps(2, ow);
            // Lines that follow each other are one run.
            let whole = ww.1 - ww.0 == s.input[2] && s.dilation[1] == 1;
            let mut acc = [empty::<V>(s.kind); 4];
            // Sums of many numbers go on in f64.
            let (mut total, mut pending) = (0.0f64, 0);
            for d in wd.0..wd.1 {
                let mut h = wh.0;
                while h < wh.1 {
                    let (len, lines) = if whole { ((wh.1 - h) * s.input[2], wh.1 - h) } else { (ww.1 - ww.0, 1) };
                    let start = (ow * s.stride[2]).wrapping_sub(s.pad[2]).wrapping_add(ww.0);
                    let row = x.wrapping_add(input_line(s, first, d, h).wrapping_add(start));
                    h += lines;
                    let mut start = 0;
                    while start < len {
                        let end = len.min(start + SUMMED);
                        let mut i = start;
                        // SAFETY: the run lies inside the input.
                        unsafe {
                            while i + 4 * V::LANES <= end {
                                for (j, a) in acc.iter_mut().enumerate() {
                                    *a = join(s.kind, *a, V::load(row.add(i + j * V::LANES)));
                                }
                                i += 4 * V::LANES;
                            }
                            while i < end {
                                let n = V::LANES.min(end - i);
                                let v = V::load_n(row.add(i), n);
                                let m = V::M::first(n);
                                acc[0] = join(s.kind, acc[0], V::select(m, v, empty(s.kind)));
                                i += n;
                            }
                        }
                        pending += end - start;
                        start = end;
                        if pending >= SUMMED && s.kind != Kind::Max {
                            total += f64::from(((acc[0] + acc[1]) + (acc[2] + acc[3])).sum());
                            (acc, pending) = ([empty::<V>(s.kind); 4], 0);
                        }
                    }
                }
            }
            let result = if s.kind == Kind::Max {
                let m = max_nan(max_nan(acc[0], acc[1]), max_nan(acc[2], acc[3]));
                let lanes = m.to_array();
                lanes[..V::LANES].iter().fold(f32::NEG_INFINITY, |a, &v| if v > a || v.is_nan() { v } else { a })
            } else {
                let sum = (total + f64::from(((acc[0] + acc[1]) + (acc[2] + acc[3])).sum())) as f32;
                match s.kind {
                    Kind::Average { .. } => sum / s.divisor([wd, wh, ww]),
                    Kind::Lp { p } => root(scalar::F::splat(sum), p).0[0],
                    Kind::Max => sum,
                }
            };
            // SAFETY: the place lies in the output.
            unsafe { *y.add(ow) = result };
        }
    }
}

/// The largest values of a line and where they were: the first of equals, or the first NaN.
unsafe fn max_with_indices(
    s: &PoolSpec,
    line: usize,
    x: *const f32,
    y: *mut f32,
    to: *mut i64,
    base: i64,
    column_major: bool,
) {
    let ([wd, wh], first) = window(s, line);
    let [id, ih, iw] = s.input;
    for ow in 0..s.output[2] {
        let ww = s.taps(2, ow);
        let w0 = (ow * s.stride[2]).wrapping_sub(s.pad[2]);
        let (mut best, mut at) = (f32::NEG_INFINITY, None);
        for d in wd.0..wd.1 {
            for h in wh.0..wh.1 {
                let row = input_line(s, first, d, h);
                for w in ww.0..ww.1 {
                    let i = row + w0.wrapping_add(w * s.dilation[2]);
                    // SAFETY: taps lo..hi lie inside the input.
                    let v = unsafe { *x.add(i) };
                    if at.is_none() || v > best || (v.is_nan() && !best.is_nan()) {
                        (best, at) = (v, Some(i));
                    }
                }
            }
        }
        let at = at.unwrap_or(0);
        let at = if column_major {
            let (d, h, w) = (at / iw.max(1) / ih.max(1), at / iw.max(1) % ih.max(1), at % iw.max(1));
            (w * ih + h) * id + d
        } else {
            at
        };
        // SAFETY: the place lies in the outputs.
        unsafe {
            *y.add(ow) = best;
            *to.add(ow) = base + at as i64;
        }
    }
}
