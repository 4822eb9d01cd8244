//! Pools over regions of a picture: sampled bins (RoiAlign), whole bins (RoiPool).

use super::real::Real;

/// Bins of one axis that regions are cut into, and how they are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinAxis {
    /// Elements of the picture.
    pub size: usize,
    /// Bins.
    pub bins: usize,
    /// Samples a bin; 0 for as many as the bin has elements.
    pub samples: usize,
}

/// One sample that lies in the picture: its bin, its two neighbours and their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tap<T> {
    /// The neighbours.
    pub at: [u32; 2],
    /// Their weights.
    pub weight: [T; 2],
}

/// The samples of one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Where they begin in the list, and how many lie in the picture.
    pub first: u32,
    /// See `first`.
    pub count: u32,
    /// Whether some lie outside.
    pub outside: bool,
}

impl BinAxis {
    /// Most taps that [`BinAxis::cut`] writes; `None` where they are too many.
    pub fn most_taps(&self) -> Option<usize> {
        let n = match self.samples {
            // As many samples as elements lie at least half an element apart.
            0 => self.size.checked_mul(2)?.checked_add(self.bins.checked_mul(4)?)?.checked_add(8)?,
            s => s.checked_mul(self.bins)?,
        };
        (u32::try_from(n).is_ok()).then_some(n)
    }
    /// Cuts a region that begins at `start` and is `length` long. Gives the samples a bin, all of them counted, or `None` if the
    /// region is no number.
    /// # Safety
    /// `bins` is valid for writing a bin each, `taps` for `most_taps`.
    pub unsafe fn cut<T: Real>(&self, start: T, length: T, bins: *mut Bin, taps: *mut Tap<T>) -> Option<f64> {
        let (start, length) = (start.to_f64(), length.to_f64());
        if !start.is_finite() || !length.is_finite() {
            return None;
        }
        let bin = T::of(length) / T::of(self.bins as f64);
        let samples = if self.samples > 0 { self.samples as f64 } else { bin.ceil().to_f64().max(0.0) };
        let (mut written, limit) = (0, self.most_taps()?);
        let last = self.size as f64;
        for b in 0..self.bins {
            let mut entry = Bin { first: written as u32, count: 0, outside: false };
            if samples > 0.0 {
                let from = T::of(start) + T::of(b as f64) * bin;
                let step = bin.to_f64() / samples;
                // Which samples can lie in -1..size, with one to spare on either side.
                let (a, z) = ((-1.0 - from.to_f64()) / step - 0.5, (last - from.to_f64()) / step - 0.5);
                let (low, high) = match step == 0.0 {
                    true => (0.0, samples),
                    false => (a.min(z).floor() - 1.0, a.max(z).ceil() + 2.0),
                };
                let (mut low, high) = (low.clamp(0.0, samples), high.clamp(0.0, samples));
                if high > 1e15 {
                    // So far away that numbers don't count on by one any more.
                    low = high;
                }
                entry.outside = low > 0.0 || high < samples;
                let mut i = low;
                while i < high {
                    let x = from + T::of(i + 0.5) * bin / T::of(samples);
                    i += 1.0;
                    if x < -T::ONE || x > T::of(last) || written >= limit {
                        entry.outside = true;
                        continue;
                    }
                    // SAFETY: fewer than `limit` are written.
                    unsafe { *taps.add(written) = self.tap(x) };
                    written += 1;
                    entry.count += 1;
                }
            }
            // SAFETY: bin b.
            unsafe { *bins.add(b) = entry };
        }
        Some(samples)
    }
    fn tap<T: Real>(&self, x: T) -> Tap<T> {
        let x = if x > T::ZERO { x } else { T::ZERO };
        let low = x.floor().to_f64() as usize;
        if low + 1 >= self.size {
            let last = self.size as u32 - 1;
            return Tap { at: [last, last], weight: [T::ONE, T::ZERO] };
        }
        let rest = x - T::of(low as f64);
        Tap { at: [low as u32, low as u32 + 1], weight: [T::ONE - rest, rest] }
    }
}

/// Cut axes: of rows and of columns.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a, T> {
    /// Bins.
    pub bins: [&'a [Bin]; 2],
    /// Their taps.
    pub taps: [&'a [Tap<T>]; 2],
    /// Samples a bin of both axes together, those outside counted.
    pub samples: f64,
    /// Columns of a plane.
    pub width: usize,
}

impl<T: Real> Cut<'_, T> {
    fn taps(&self, axis: usize, bin: usize) -> &[Tap<T>] {
        let b = self.bins[axis][bin];
        &self.taps[axis][b.first as usize..(b.first + b.count) as usize]
    }
    /// The mean of each bin's samples; none count as zero. `line` has room for a number a column of bins.
    /// # Safety
    /// `x` is the plane, `y` is valid for writing the bins, `line` for as many as the last axis has.
    pub unsafe fn mean(&self, x: *const T, y: *mut T, line: *mut T) {
        let columns = self.bins[1].len();
        let scale = T::ONE / T::of(self.samples.max(1.0));
        for r in 0..self.bins[0].len() {
            // SAFETY: row r of the bins; taps lie in the plane.
            unsafe {
                let y = y.add(r * columns);
                for c in 0..columns {
                    *y.add(c) = T::ZERO;
                }
                // Neighbouring samples share rows: a row is summed once, with its weights added up. Two rows at a time are open.
                let mut open = [(0, T::ZERO); 2];
                for (row, weight) in
                    self.taps(0, r).iter().flat_map(|t| [(t.at[0], t.weight[0]), (t.at[1], t.weight[1])])
                {
                    if let Some(o) = open.iter_mut().find(|o| o.0 == row) {
                        o.1 += weight;
                    } else {
                        self.add_row(x, open[0], y, line);
                        open = [open[1], (row, weight)];
                    }
                }
                self.add_row(x, open[0], y, line);
                self.add_row(x, open[1], y, line);
                for c in 0..columns {
                    *y.add(c) = *y.add(c) * scale;
                }
            }
        }
    }
    /// Adds a row of the plane with a weight to a row of bins.
    unsafe fn add_row(&self, x: *const T, (row, weight): (u32, T), y: *mut T, line: *mut T) {
        if weight != T::ZERO {
            // SAFETY: the caller's; a row with a weight is one of the plane.
            unsafe {
                self.line(x.add(row as usize * self.width), line);
                for c in 0..self.bins[1].len() {
                    *y.add(c) += weight * *line.add(c);
                }
            }
        }
    }
    /// Each column of bins summed along one row of the plane.
    unsafe fn line(&self, x: *const T, line: *mut T) {
        for c in 0..self.bins[1].len() {
            let mut sum = T::ZERO;
            for t in self.taps(1, c) {
                // SAFETY: taps lie in the row.
                unsafe { sum += t.weight[0] * *x.add(t.at[0] as usize) + t.weight[1] * *x.add(t.at[1] as usize) };
            }
            // SAFETY: column c.
            unsafe { *line.add(c) = sum };
        }
    }
    /// The greatest weighted neighbour of each bin's samples (the standard's reading of a maximum); samples outside are zeros.
    /// # Safety
    /// As [`Cut::mean`].
    pub unsafe fn greatest(&self, x: *const T, y: *mut T) {
        let columns = self.bins[1].len();
        for r in 0..self.bins[0].len() {
            for c in 0..columns {
                let outside = self.bins[0][r].outside || self.bins[1][c].outside;
                let mut most = (outside && self.samples > 0.0).then_some(T::ZERO);
                for v in self.taps(0, r) {
                    for h in self.taps(1, c) {
                        for k in 0..4 {
                            let at = v.at[k / 2] as usize * self.width + h.at[k % 2] as usize;
                            // SAFETY: taps lie in the plane.
                            let x = v.weight[k / 2] * h.weight[k % 2] * unsafe { *x.add(at) };
                            most = Some(most.map_or(x, |m| m.most(x)));
                        }
                    }
                }
                // SAFETY: bin (r, c).
                unsafe { *y.add(r * columns + c) = most.unwrap_or(T::ZERO) };
            }
        }
    }
}

/// The elements of bin `bin` of `bins` of a region that begins at `start` and has `length` elements, inside `0..size`.
pub fn whole_bin(start: i64, length: i64, bin: usize, bins: usize, size: usize) -> std::ops::Range<usize> {
    let each = length as f32 / bins as f32;
    let clip = |x: f32| (i64::from(x as i32) + start).clamp(0, size as i64) as usize;
    let (low, high) = (clip((bin as f32 * each).floor()), clip(((bin + 1) as f32 * each).ceil()));
    low..high.max(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::Rng;

    fn cut<'a>(
        axes: [BinAxis; 2],
        region: [f64; 4],
        bins: &'a mut [Vec<Bin>; 2],
        taps: &'a mut [Vec<Tap<f64>>; 2],
    ) -> Cut<'a, f64> {
        let mut samples = 1.0;
        for a in 0..2 {
            bins[a] = vec![Bin::default(); axes[a].bins];
            taps[a] = vec![Tap { at: [0; 2], weight: [0.0; 2] }; axes[a].most_taps().unwrap()];
            let (start, length) = (region[a], region[2 + a]);
            // SAFETY: bins and taps as asked for.
            samples *= unsafe { axes[a].cut(start, length, bins[a].as_mut_ptr(), taps[a].as_mut_ptr()).unwrap() };
        }
        let [b0, b1] = &*bins;
        let [t0, t1] = &*taps;
        Cut { bins: [b0, b1], taps: [t0, t1], samples, width: axes[1].size }
    }

    /// Sample by sample, as the standard has it.
    fn naive(x: &[f64], axes: [BinAxis; 2], [top, left, height, width]: [f64; 4]) -> (Vec<f64>, Vec<f64>) {
        let (h, w) = (axes[0].size as f64, axes[1].size as f64);
        let (bh, bw) = (height / axes[0].bins as f64, width / axes[1].bins as f64);
        let count = |n: usize, b: f64| if n > 0 { n as i64 } else { b.ceil() as i64 };
        let (nh, nw) = (count(axes[0].samples, bh), count(axes[1].samples, bw));
        let (mut mean, mut most) = (Vec::new(), Vec::new());
        for r in 0..axes[0].bins {
            for c in 0..axes[1].bins {
                let (mut sum, mut max) = (0.0, None::<f64>);
                for i in 0..nh {
                    for j in 0..nw {
                        let y = top + r as f64 * bh + (i as f64 + 0.5) * bh / nh as f64;
                        let x_ = left + c as f64 * bw + (j as f64 + 0.5) * bw / nw as f64;
                        let mut four = [0.0; 4];
                        if !(y < -1.0 || y > h || x_ < -1.0 || x_ > w) {
                            let (y, x_) = (y.max(0.0).min(h - 1.0), x_.max(0.0).min(w - 1.0));
                            let (y0, x0) = (y.floor(), x_.floor());
                            let at = |y: f64, x_: f64| x[(y.min(h - 1.0) * w + x_.min(w - 1.0)) as usize];
                            let (ly, lx) = (y - y0, x_ - x0);
                            four = [
                                (1.0 - ly) * (1.0 - lx) * at(y0, x0),
                                (1.0 - ly) * lx * at(y0, x0 + 1.0),
                                ly * (1.0 - lx) * at(y0 + 1.0, x0),
                                ly * lx * at(y0 + 1.0, x0 + 1.0),
                            ];
                        }
                        sum += four.iter().sum::<f64>();
                        let m = four.into_iter().fold(f64::NEG_INFINITY, f64::max);
                        max = Some(max.map_or(m, |a: f64| a.max(m)));
                    }
                }
                mean.push(sum / (nh.max(0) * nw.max(0)).max(1) as f64);
                most.push(max.unwrap_or(0.0));
            }
        }
        (mean, most)
    }

    #[test]
    fn bins_are_those_of_the_naive_loop() {
        let mut rng = Rng::new(3);
        let x: Vec<f64> = (0..63).map(|_| f64::from(rng.float())).collect();
        let (mut bins, mut taps) = Default::default();
        for samples in [0, 1, 3] {
            for _ in 0..40 {
                let axis = |size, bins| BinAxis { size, bins, samples };
                let axes = [axis(7, 1 + rng.below(4)), axis(9, 1 + rng.below(3))];
                let mut r = || f64::from(rng.float());
                let region = [r() * 9.0, r() * 9.0, r() * 12.0 + 6.0, r() * 30.0];
                let c = cut(axes, region, &mut bins, &mut taps);
                let (mean, most) = naive(&x, axes, region);
                let n = mean.len();
                let (mut a, mut b, mut line) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
                // SAFETY: a plane of 63 elements, as many bins as the naive loop has.
                unsafe {
                    c.mean(x.as_ptr(), a.as_mut_ptr(), line.as_mut_ptr());
                    c.greatest(x.as_ptr(), b.as_mut_ptr());
                }
                for i in 0..n {
                    assert!((a[i] - mean[i]).abs() < 1e-12, "{axes:?} {region:?}: {a:?} {mean:?}");
                    assert!((b[i] - most[i]).abs() < 1e-12, "{axes:?} {region:?}: {b:?} {most:?}");
                }
            }
        }
    }

    #[test]
    fn far_and_endless_regions_end_soon() {
        let axis = BinAxis { size: 5, bins: 2, samples: 0 };
        let mut bins = [Bin::default(); 2];
        let mut taps = vec![Tap { at: [0; 2], weight: [0f32; 2] }; axis.most_taps().unwrap()];
        for (start, length) in [(-1e30f32, 2e30), (1e9, 5.0), (0.0, 1e38), (0.0, -1e38), (-1e9, 1e9)] {
            // SAFETY: bins and taps as asked for.
            let n = unsafe { axis.cut(start, length, bins.as_mut_ptr(), taps.as_mut_ptr()) };
            assert!(n.is_some());
        }
        // SAFETY: as above.
        assert!(unsafe { axis.cut(f32::NAN, 1.0, bins.as_mut_ptr(), taps.as_mut_ptr()) }.is_none());
    }

    #[test]
    fn whole_bins_round_outwards() {
        let bins: Vec<_> = (0..3).map(|b| whole_bin(1, 5, b, 3, 6)).collect();
        assert_eq!(bins, [1..3, 2..5, 4..6]);
        assert_eq!(whole_bin(i64::from(i32::MAX), 7, 0, 2, 6), 6..6);
    }
}
