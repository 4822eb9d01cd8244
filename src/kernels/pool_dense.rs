//! Pooling of any window over one plane of dense memory, for any type: the way for what has no faster kernel.

use super::elem::Number;
use super::real::Real;
use std::ops::Range;

/// A window over a plane of three axes; missing ones are in front, of size 1.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct PoolSpec {
    pub input: [usize; 3],
    pub output: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub dilation: [usize; 3],
    pub pad: [usize; 3],
    pub pad_end: [usize; 3],
}

impl PoolSpec {
    /// Output elements a plane.
    pub fn out_size(&self) -> usize {
        self.output.iter().product()
    }
    /// The taps of output place `o` along axis `d` that lie inside `before` and `after` more places than the input has.
    #[inline(always)]
    fn taps(&self, d: usize, o: usize, before: usize, after: usize) -> Range<usize> {
        let (first, step) = (o * self.stride[d] + before, self.dilation[d]);
        let pad = self.pad[d];
        let from = pad.saturating_sub(first).div_ceil(step).min(self.kernel[d]);
        let to = (self.input[d] + before + after + pad).saturating_sub(first).div_ceil(step).min(self.kernel[d]);
        from..to.max(from)
    }
    /// The input index of a tap that lies inside.
    #[inline(always)]
    fn at(&self, d: usize, o: usize, tap: usize) -> usize {
        o * self.stride[d] + tap * self.dilation[d] - self.pad[d]
    }
    /// Calls `f(output index, taps by axis, places by axis)` for each output place of a plane.
    #[inline(always)]
    fn each(&self, mut f: impl FnMut(usize, [Range<usize>; 3], [usize; 3])) {
        let mut i = 0;
        for z in 0..self.output[0] {
            let tz = self.taps(0, z, 0, 0);
            for y in 0..self.output[1] {
                let ty = self.taps(1, y, 0, 0);
                for x in 0..self.output[2] {
                    f(i, [tz.clone(), ty.clone(), self.taps(2, x, 0, 0)], [z, y, x]);
                    i += 1;
                }
            }
        }
    }
    /// Calls `f` with the input index of each tap.
    #[inline(always)]
    fn each_tap(&self, taps: [Range<usize>; 3], place: [usize; 3], mut f: impl FnMut(usize)) {
        let [tz, ty, tx] = taps;
        for a in tz {
            let z = self.at(0, place[0], a) * self.input[1];
            for b in ty.clone() {
                let y = (z + self.at(1, place[1], b)) * self.input[2];
                for c in tx.clone() {
                    f(y + self.at(2, place[2], c));
                }
            }
        }
    }
}

/// Where the places of the greatest elements go.
#[derive(Clone, Copy, Debug)]
pub struct MaxIndex {
    /// One for each output element.
    pub to: *mut i64,
    /// Added to each: the plane's first element.
    pub base: i64,
    /// What a step along each axis adds.
    pub strides: [usize; 3],
}

/// The greatest element under each window; NaN if there is one. A window without elements gives the lowest value.
/// # Safety
/// `x` is valid for the input plane, `y` (and the index) for the output plane.
pub unsafe fn max_plane<T: Number>(s: &PoolSpec, x: *const T, y: *mut T, index: Option<MaxIndex>) {
    s.each(|i, taps, place| {
        let (mut best, mut at) = (T::LOWEST, None);
        s.each_tap(taps, place, |j| {
            // SAFETY: taps inside the input only.
            let v = unsafe { *x.add(j) };
            if at.is_none() || v > best || (v.is_nan() && !best.is_nan()) {
                (best, at) = (v, Some(j));
            }
        });
        // SAFETY: i is below the output's size.
        unsafe { *y.add(i) = best };
        if let Some(ix) = index {
            let j = at.unwrap_or(0);
            let (w, h) = (s.input[2].max(1), s.input[1].max(1));
            let flat = j % w * ix.strides[2] + j / w % h * ix.strides[1] + j / (w * h) * ix.strides[0];
            // SAFETY: as above.
            unsafe { *ix.to.add(i) = ix.base + flat as i64 };
        }
    });
}

/// The mean under each window, of the elements inside the input, or of the padding too.
/// # Safety
/// `x` is valid for the input plane, `y` for the output plane.
pub unsafe fn average_plane<T: Real>(s: &PoolSpec, include_pad: bool, x: *const T, y: *mut T) {
    s.each(|i, taps, place| {
        let count: usize = if include_pad {
            (0..3).map(|d| padded_taps(s, d, place[d])).product()
        } else {
            taps.iter().map(Range::len).product()
        };
        let mut sum = T::ZERO;
        // SAFETY: taps inside the input only.
        s.each_tap(taps, place, |j| sum += unsafe { *x.add(j) });
        // SAFETY: i is below the output's size.
        unsafe { *y.add(i) = if count == 0 { T::ZERO } else { sum / T::of(count as f64) } };
    });
}

/// Taps of an output place that lie inside the padded input.
fn padded_taps(s: &PoolSpec, d: usize, o: usize) -> usize {
    let room = (s.input[d] + s.pad[d] + s.pad_end[d]).saturating_sub(o * s.stride[d]);
    room.div_ceil(s.dilation[d]).min(s.kernel[d])
}

/// The p-norm under each window.
/// # Safety
/// `x` is valid for the input plane, `y` for the output plane.
pub unsafe fn lp_plane<T: Real>(s: &PoolSpec, p: u32, x: *const T, y: *mut T) {
    s.each(|i, taps, place| {
        let mut sum = T::ZERO;
        // SAFETY: taps inside the input only.
        s.each_tap(taps, place, |j| sum += power(unsafe { *x.add(j) }.abs(), p));
        // SAFETY: i is below the output's size.
        unsafe { *y.add(i) = root(sum, p) };
    });
}

/// |x|^p of a norm.
#[inline(always)]
pub fn power<T: Real>(x: T, p: u32) -> T {
    match p {
        1 => x,
        2 => x * x,
        _ => x.powr(T::of(f64::from(p))),
    }
}

/// The p-th root that ends a norm.
#[inline(always)]
pub fn root<T: Real>(x: T, p: u32) -> T {
    match p {
        1 => x,
        2 => x.sqrt(),
        _ => x.powr(T::of(1.0 / f64::from(p))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(input: usize, kernel: usize, stride: usize, dilation: usize, pad: [usize; 2], output: usize) -> PoolSpec {
        PoolSpec {
            input: [1, 1, input],
            output: [1, 1, output],
            kernel: [1, 1, kernel],
            stride: [1, 1, stride],
            dilation: [1, 1, dilation],
            pad: [0, 0, pad[0]],
            pad_end: [0, 0, pad[1]],
        }
    }

    #[test]
    fn windows_meet_paddings_and_dilations() {
        let x = [1.0f32, -2.0, 3.0, 4.0, f32::NAN];
        let s = spec(5, 2, 1, 2, [1, 1], 5);
        let (mut y, mut at) = ([0.0f32; 5], [0i64; 5]);
        let index = MaxIndex { to: at.as_mut_ptr(), base: 10, strides: [5, 5, 1] };
        // SAFETY: five places in, five out.
        unsafe { max_plane(&s, x.as_ptr(), y.as_mut_ptr(), Some(index)) };
        assert_eq!(y[..3], [-2.0, 3.0, 4.0]);
        assert!(y[3].is_nan());
        assert_eq!((y[4], at), (4.0, [11, 12, 13, 14, 13]));
        let ones = [1.0f64; 5];
        let mut z = [0.0f64; 5];
        // SAFETY: as above.
        unsafe { average_plane(&s, true, ones.as_ptr(), z.as_mut_ptr()) };
        assert_eq!(z, [0.5, 1.0, 1.0, 1.0, 0.5]);
        // SAFETY: as above.
        unsafe { average_plane(&s, false, ones.as_ptr(), z.as_mut_ptr()) };
        assert_eq!(z, [1.0; 5]);
    }

    #[test]
    fn rounded_up_windows_count_only_padded_places() {
        // Input 4, kernel 3, stride 2, no padding, rounded up: the second window hangs over the end by one.
        let s = spec(4, 3, 2, 1, [0, 0], 2);
        let (x, mut y) = ([1.0f32, 2.0, 3.0, 4.0], [0.0f32; 2]);
        // SAFETY: four places in, two out.
        unsafe { average_plane(&s, true, x.as_ptr(), y.as_mut_ptr()) };
        assert_eq!(y, [2.0, 3.5]);
        // SAFETY: as above.
        unsafe { lp_plane(&s, 2, x.as_ptr(), y.as_mut_ptr()) };
        assert_eq!(y, [14f32.sqrt(), 5.0]);
    }
}
