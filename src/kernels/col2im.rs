//! Adds columns back into an image: what a transposed convolution ends with, and ONNX's Col2Im.

use super::elem::Number;

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
    pub unsafe fn add<T: Number>(&self, columns: *const T, image: *mut T) {
        let [_, ph, pw] = self.places;
        let size = self.places.iter().product::<usize>();
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

/// `to[i * step] += from[i]`
#[inline(always)]
unsafe fn add_line<T: Number>(from: *const T, to: *mut T, n: usize, step: usize) {
    // SAFETY: the caller's line.
    unsafe {
        if step == 1 {
            for i in 0..n {
                *to.add(i) = (*to.add(i)).add(*from.add(i));
            }
        } else {
            for i in 0..n {
                *to.add(i * step) = (*to.add(i * step)).add(*from.add(i));
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
        let far = Col2Im { places: one, image: one, kernel: one, stride: one, dilation: one, pad: [usize::MAX; 3] };
        assert!(!far.fits());
    }
}
