//! Adds columns back into an image: what a transposed convolution ends with, and ONNX's Col2Im.

use super::elem::Number;
use std::ops::Range;

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
    fn inside(&self, d: usize, tap: usize) -> Range<usize> {
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
        // Taps side by side that land in turns are added together: whole vectors of the image.
        let pairs = self.stride[2] == 2 && self.dilation[2] == 1;
        for (row, (a, b)) in (0..self.kernel[0]).flat_map(|a| (0..self.kernel[1]).map(move |b| (a, b))).enumerate() {
            let mut c = 0;
            while c < self.kernel[2] {
                let xs = self.inside(2, c);
                let second = (pairs && c + 1 < self.kernel[2]).then(|| self.inside(2, c + 1));
                for (z, y) in self.inside(0, a).flat_map(|z| self.inside(1, b).map(move |y| (z, y))) {
                    let line = (self.at(0, z, a) * self.image[1] + self.at(1, y, b)) * self.image[2];
                    let from = columns.wrapping_add((row * self.kernel[2] + c) * size + (z * ph + y) * pw);
                    let one = |tap: usize, xs: Range<usize>| {
                        if !xs.is_empty() {
                            let from = from.wrapping_add((tap - c) * size + xs.start);
                            let to = image.wrapping_add(line + self.at(2, xs.start, tap));
                            // SAFETY: places inside the columns, and in the image by `inside`.
                            unsafe { add_line(from, to, xs.len(), self.stride[2]) };
                        }
                    };
                    let Some(ys) = second.clone() else {
                        one(c, xs.clone());
                        continue;
                    };
                    let both = xs.start.max(ys.start)..xs.end.min(ys.end).max(xs.start.max(ys.start));
                    for (tap, of) in [(c, &xs), (c + 1, &ys)] {
                        one(tap, of.start..both.start.min(of.end));
                        one(tap, both.end.max(of.start)..of.end);
                    }
                    if !both.is_empty() {
                        let from = from.wrapping_add(both.start);
                        let to = image.wrapping_add(line + self.at(2, both.start, c));
                        // SAFETY: as above, of both taps.
                        unsafe { add_pair(from, from.wrapping_add(size), to, both.len()) };
                    }
                }
                c += if second.is_some() { 2 } else { 1 };
            }
        }
    }
    /// Adds columns `[places, taps]` of one channel, each place's `size` values behind those of the place before.
    /// # Safety
    /// As for `add`.
    pub unsafe fn add_places<T: Sum>(&self, columns: *const T, size: usize, image: *mut T) {
        let [_, ph, pw] = self.places;
        for place in 0..self.places.iter().product::<usize>() {
            let at = [place / pw / ph, place / pw % ph, place % pw];
            let start: [isize; 3] = std::array::from_fn(|d| (at[d] * self.stride[d]) as isize - self.pad[d] as isize);
            let step = self.dilation[2] as isize;
            let lo = (-start[2]).max(0).unsigned_abs().div_ceil(self.dilation[2]).min(self.kernel[2]);
            let left = (self.image[2] as isize - start[2]).max(0).unsigned_abs();
            let hi = left.div_ceil(self.dilation[2]).clamp(lo, self.kernel[2]);
            for (row, (a, b)) in (0..self.kernel[0]).flat_map(|a| (0..self.kernel[1]).map(move |b| (a, b))).enumerate()
            {
                let z = start[0] + (a * self.dilation[0]) as isize;
                let y = start[1] + (b * self.dilation[1]) as isize;
                if z as usize >= self.image[0] || y as usize >= self.image[1] || lo == hi {
                    continue;
                }
                let line = (z as usize * self.image[1] + y as usize) * self.image[2];
                let to = line.wrapping_add_signed(start[2] + lo as isize * step);
                // SAFETY: the place's taps lo..hi of the row, which land in the image.
                unsafe {
                    let from = columns.add(place * size + row * self.kernel[2] + lo);
                    add_line(from, image.add(to), hi - lo, self.dilation[2]);
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

/// `to[2 * i] += a[i]; to[2 * i + 1] += b[i]`
#[inline(always)]
unsafe fn add_pair<T: Sum>(a: *const T, b: *const T, to: *mut T, n: usize) {
    // SAFETY: the caller's lines; the columns and the image are apart.
    unsafe {
        let (a, b) = (std::slice::from_raw_parts(a, n), std::slice::from_raw_parts(b, n));
        for ((to, &a), &b) in std::slice::from_raw_parts_mut(to.cast::<[T; 2]>(), n).iter_mut().zip(a).zip(b) {
            *to = [to[0].sum(a), to[1].sum(b)];
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
        // Pairs of taps, odd ones, borders that cut them; in both orders.
        for (kernel, pad, image) in [(4, 1, 10), (5, 2, 9), (3, 0, 11), (2, 0, 10), (2, 1, 3), (4, 3, 4)] {
            let (places, kernel) = ([1, 2, 5], [1, 2, kernel]);
            let s = Col2Im { places, image: [1, 5, image], kernel, stride: [1, 3, 2], dilation: one, pad: [0, 1, pad] };
            let (taps, n) = (2 * kernel[2], 10);
            let columns: Vec<i32> = (0..(taps * n) as i32).map(|i| i * i % 97).collect();
            let turned: Vec<i32> = (0..taps * n).map(|i| columns[i % taps * n + i / taps]).collect();
            let mut want = vec![0; 5 * image];
            for (tap, place) in (0..taps).flat_map(|t| (0..n).map(move |p| (t, p))) {
                let y = (place / 5 * 3 + tap / kernel[2]).wrapping_sub(1);
                let x = (place % 5 * 2 + tap % kernel[2]).wrapping_sub(pad);
                if y < 5 && x < image {
                    want[y * image + x] += columns[tap * n + place];
                }
            }
            let (mut a, mut b) = (vec![0; 5 * image], vec![0; 5 * image]);
            // SAFETY: as many columns and values as the sizes say.
            unsafe {
                s.add(columns.as_ptr(), a.as_mut_ptr());
                s.add_places(turned.as_ptr(), taps, b.as_mut_ptr());
            }
            assert_eq!((&a, &b), (&want, &want), "{s:?}");
        }
        let far = Col2Im { places: one, image: one, kernel: one, stride: one, dilation: one, pad: [usize::MAX; 3] };
        assert!(!far.fits());
    }
}
