//! Adds columns back into an image: what a transposed convolution ends with, and ONNX's Col2Im.

use super::elem::Number;

/// What can be added up: numbers, and truth values.
pub trait Sum: Copy + Send + Sync + 'static {
    /// Of nothing.
    const NOTHING: Self;
    /// Of two.
    fn sum(self, b: Self) -> Self;
}
impl<T: Number> Sum for T {
    const NOTHING: T = T::ZERO;
    #[inline(always)]
    fn sum(self, b: T) -> T {
        self.add(b)
    }
}

/// A truth value, 0 or 1: the sum is true where one is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth(pub u8);
impl Sum for Truth {
    const NOTHING: Truth = Truth(0);
    #[inline(always)]
    fn sum(self, b: Truth) -> Truth {
        Truth(self.0 | b.0)
    }
}

/// Columns and image of one channel, of three axes; missing ones are in front, of size 1 (padding 0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Col2Im {
    /// Places of the window: what a convolution over the image would have as its output.
    pub places: [usize; 3],
    /// The image.
    pub image: [usize; 3],
    /// The window.
    pub kernel: [usize; 3],
    /// Steps.
    pub stride: [usize; 3],
    /// Distances between taps.
    pub dilation: [usize; 3],
    /// Padding before the image.
    pub pad: [usize; 3],
}

impl Col2Im {
    /// Places that a tap keeps inside the image, along an axis.
    #[inline(always)]
    fn inside(&self, d: usize, tap: usize) -> std::ops::Range<usize> {
        // Place p lands at p * stride + shift - pad.
        let (shift, pad, step) = (tap * self.dilation[d], self.pad[d], self.stride[d]);
        let from = pad.saturating_sub(shift).div_ceil(step).min(self.places[d]);
        let to = (self.image[d] + pad).saturating_sub(shift).div_ceil(step).min(self.places[d]);
        from..to.max(from)
    }
    /// Where a place inside lands.
    #[inline(always)]
    fn at(&self, d: usize, place: usize, tap: usize) -> usize {
        place * self.stride[d] + tap * self.dilation[d] - self.pad[d]
    }
    /// Whether every index the kernel computes fits.
    pub fn fits(&self) -> bool {
        (0..3).all(|d| {
            let reach = self.kernel[d].checked_mul(self.dilation[d]);
            let last = self.places[d].checked_mul(self.stride[d]);
            let sum = reach.zip(last).and_then(|(a, b)| a.checked_add(b)?.checked_add(self.pad[d]));
            self.stride[d] > 0
                && self.dilation[d] > 0
                && sum.and_then(|s| s.checked_add(self.image[d])).is_some_and(|s| s < isize::MAX as usize)
        })
    }
    /// Adds the columns `[taps, places]` of one channel to its image.
    /// # Safety
    /// `columns` is valid for reading as many values, `image` for reading and writing the image; `fits` holds.
    pub unsafe fn add<T: Sum>(&self, columns: *const T, image: *mut T) {
        // SAFETY: the caller's; a tap's places follow those of the one before.
        unsafe { self.add_part(columns, self.places.iter().product(), image) }
    }
    /// The same where each tap's places begin `size` values behind those of the tap before.
    /// # Safety
    /// As for `add`.
    pub unsafe fn add_part<T: Sum>(&self, columns: *const T, size: usize, image: *mut T) {
        let [_, ph, pw] = self.places;
        let mut tap = 0;
        for a in 0..self.kernel[0] {
            for b in 0..self.kernel[1] {
                for c in 0..self.kernel[2] {
                    let xs = self.inside(2, c);
                    for z in self.inside(0, a) {
                        for y in self.inside(1, b) {
                            let from = tap * size + (z * ph + y) * pw + xs.start;
                            let line = (self.at(0, z, a) * self.image[1] + self.at(1, y, b)) * self.image[2];
                            if !xs.is_empty() {
                                let to = line + self.at(2, xs.start, c);
                                // SAFETY: places inside the columns, and in the image by `inside`.
                                unsafe { add_line(columns.add(from), image.add(to), xs.len(), self.stride[2]) };
                            }
                        }
                    }
                    tap += 1;
                }
            }
        }
    }
}

/// Columns and image of any number of axes: the last three are a [`Col2Im`], the ones before it are walked.
#[derive(Clone, Debug, PartialEq)]
pub struct Col2ImNd {
    /// The last three axes.
    pub inner: Col2Im,
    /// The axes before them, each as a [`Col2Im`] of one axis (its last).
    pub outer: Vec<Col2Im>,
}

impl Col2ImNd {
    /// Whether every index the kernel computes fits; the products of all axes must fit too.
    pub fn fits(&self) -> bool {
        self.inner.fits() && self.outer.iter().all(Col2Im::fits)
    }
    /// Adds the columns `[taps, places]` of one channel to its image.
    /// # Safety
    /// `columns` is valid for reading as many values, `image` for reading and writing the image; `fits` holds.
    pub unsafe fn add<T: Sum>(&self, columns: *const T, image: *mut T) {
        let count = |f: fn(&Col2Im) -> usize| self.outer.iter().map(f).product::<usize>();
        let inner = |v: [usize; 3]| v.iter().product::<usize>();
        let (taps, places) = (count(|o| o.kernel[2]), count(|o| o.places[2]));
        let (inner_taps, inner_places, inner_image) =
            (inner(self.inner.kernel), inner(self.inner.places), inner(self.inner.image));
        for tap in 0..taps {
            'place: for place in 0..places {
                let (mut tap_left, mut place_left, mut at, mut step) = (tap, place, 0, inner_image);
                for o in self.outer.iter().rev() {
                    let (t, p) = (tap_left % o.kernel[2], place_left % o.places[2]);
                    (tap_left, place_left) = (tap_left / o.kernel[2], place_left / o.places[2]);
                    if !o.inside(2, t).contains(&p) {
                        continue 'place;
                    }
                    at += o.at(2, p, t) * step;
                    step *= o.image[2];
                }
                let row = places * inner_places;
                // SAFETY: the outer axes' taps and places lie in the columns, and land in the image.
                unsafe {
                    let from = columns.add(tap * inner_taps * row + place * inner_places);
                    self.inner.add_part(from, row, image.add(at));
                }
            }
        }
    }
}

/// `to[i * step] += from[i]`
#[inline(always)]
unsafe fn add_line<T: Sum>(from: *const T, to: *mut T, n: usize, step: usize) {
    // SAFETY: the caller's line.
    unsafe {
        if step == 1 {
            for i in 0..n {
                *to.add(i) = (*to.add(i)).sum(*from.add(i));
            }
        } else {
            for i in 0..n {
                *to.add(i * step) = (*to.add(i * step)).sum(*from.add(i));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_what_lands_in_the_image() {
        // Two taps two apart, places every three: place p lands at 3 p - 1 and 3 p + 1.
        let one = [1; 3];
        let s = Col2Im {
            places: [1, 1, 3],
            image: [1, 1, 6],
            kernel: [1, 1, 2],
            stride: [1, 1, 3],
            dilation: [1, 1, 2],
            pad: [0, 0, 1],
        };
        assert!(s.fits());
        let columns = [1, 2, 3, 10, 20, 30i32];
        let mut image = [100; 6];
        // SAFETY: two taps of three places, six values.
        unsafe { s.add(columns.as_ptr(), image.as_mut_ptr()) };
        assert_eq!(image, [100, 110, 102, 100, 120, 103]);
        // The same along the first of four axes, and as truth values.
        let unit = Col2Im { places: one, image: one, kernel: one, stride: one, dilation: one, pad: [0; 3] };
        let nd = Col2ImNd { inner: unit, outer: vec![s] };
        let mut image = [100; 6];
        // SAFETY: as above.
        unsafe { nd.add(columns.as_ptr(), image.as_mut_ptr()) };
        assert_eq!(image, [100, 110, 102, 100, 120, 103]);
        let (columns, mut image) = ([Truth(1); 6], [Truth(0); 6]);
        // SAFETY: as above.
        unsafe { s.add(columns.as_ptr(), image.as_mut_ptr()) };
        assert_eq!(image.map(|t| t.0), [0, 1, 1, 0, 1, 1]);
        let far = Col2Im { places: one, image: one, kernel: one, stride: one, dilation: one, pad: [usize::MAX; 3] };
        assert!(!far.fits());
    }
}
