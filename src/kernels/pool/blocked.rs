//! Pooling on NCHWc: a vector holds one place's channels.

use super::{Kind, PoolSpec};
use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, Mask, dispatch};
use std::ops::Range;

/// Pools lines of one plane (a block of channels of one image).
/// # Safety
/// Plane and lines exist in `x` and `y`.
pub(super) unsafe fn plane(isa: Isa, s: &PoolSpec, plane: usize, lines: Range<usize>, x: *const f32, y: *mut f32) {
    dispatch(isa, Plane { s, plane, lines, x, y });
}

struct Plane<'a> {
    s: &'a PoolSpec,
    plane: usize,
    lines: Range<usize>,
    x: *const f32,
    y: *mut f32,
}

/// The larger; NaN if either is NaN.
#[inline(always)]
pub(super) fn max_nan<V: F32>(acc: V, x: V) -> V {
    // `max` keeps its argument where either is NaN: a NaN in acc stays, one in x is put in.
    V::select(x.is_nan(), x, x.max(acc))
}

impl Kernel for Plane<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Plane { s, plane, lines, x, y } = self;
        let [_, ih, iw] = s.input;
        let x = x.wrapping_add(plane * s.in_size() * V::LANES);
        let y = y.wrapping_add(plane * s.out_size() * V::LANES);
        // An empty window gives minus infinity or NaN, but padding lanes must be zero.
        let blocks = s.channels.div_ceil(V::LANES);
        let used = V::M::first(V::LANES.min(s.channels - plane % blocks * V::LANES));
        for line in lines {
            let (wd, wh) = (s.taps(0, line / s.output[1]), s.taps(1, line % s.output[1]));
            // Wrapping: taps below lo lie before the input and are never read.
            let d0 = (line / s.output[1] * s.stride[0]).wrapping_sub(s.pad[0]);
            let h0 = (line % s.output[1] * s.stride[1]).wrapping_sub(s.pad[1]);
            for ow in 0..s.output[2] {
                let ww = s.taps(2, ow);
                let w0 = (ow * s.stride[2]).wrapping_sub(s.pad[2]);
                let start = match s.kind {
                    Kind::Max => V::splat(f32::NEG_INFINITY),
                    _ => V::zero(),
                };
                let mut acc = start;
                for d in wd.0..wd.1 {
                    let id = d0.wrapping_add(d * s.dilation[0]);
                    for h in wh.0..wh.1 {
                        let row = (id * ih + h0.wrapping_add(h * s.dilation[1])) * iw;
                        // Line by line, so that sums over large maps err little.
                        let mut part = start;
                        for w in ww.0..ww.1 {
                            let at = row + w0.wrapping_add(w * s.dilation[2]);
                            // SAFETY: taps lo..hi lie inside the input.
                            let v = unsafe { V::load(x.add(at * V::LANES)) };
                            part = match s.kind {
                                Kind::Max => max_nan(part, v),
                                Kind::Average { .. } => part + v,
                                Kind::Lp { p } => part + power(v.abs(), p),
                            };
                        }
                        acc = if s.kind == Kind::Max { max_nan(acc, part) } else { acc + part };
                    }
                }
                acc = match s.kind {
                    Kind::Max => acc,
                    Kind::Average { .. } => acc / V::splat(s.divisor([wd, wh, ww])),
                    Kind::Lp { p } => root(acc, p),
                };
                let acc = V::select(used, acc, V::zero());
                // SAFETY: the place lies in the output.
                unsafe { acc.store(y.add((line * s.output[2] + ow) * V::LANES)) };
            }
        }
    }
}

/// |x|^p for a whole p.
#[inline(always)]
pub(super) fn power<V: F32>(x: V, p: i32) -> V {
    let mut r = x;
    for _ in 1..p {
        r = r * x;
    }
    r
}

/// x^(1/p).
#[inline(always)]
pub(super) fn root<V: F32>(x: V, p: i32) -> V {
    match p {
        1 => x,
        2 => x.sqrt(),
        _ => {
            let mut a = x.to_array();
            for v in &mut a {
                *v = v.powf(1.0 / p as f32);
            }
            // SAFETY: 16 is the most lanes there are.
            unsafe { V::load(a.as_ptr()) }
        }
    }
}
