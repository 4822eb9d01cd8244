//! Discrete Fourier transforms of any length, in f32 or f64: mixed radix (Stockham, self-sorting) where the prime factors
//! are small, Bluestein's chirp transform where they are not; real input of even length by a transform of half of it.
//!
//! Stages and butterflies come in the order of NumPy's (fours, a two, odd factors; decimation in frequency), so that f32
//! rounds where NumPy's does.

use crate::base::alloc::reserved;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::real::Real;
use std::f64::consts::PI;

/// A complex number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Complex<T> {
    /// Real part.
    pub re: T,
    /// Imaginary part.
    pub im: T,
}

impl<T: Real> Complex<T> {
    /// From its parts.
    #[inline(always)]
    pub fn new(re: T, im: T) -> Self {
        Complex { re, im }
    }
    /// The complex conjugate.
    #[inline(always)]
    pub fn conj(self) -> Self {
        Complex::new(self.re, -self.im)
    }
    /// Real and imaginary part exchanged: turns a forward transform into an inverse one.
    #[inline(always)]
    pub fn swapped(self) -> Self {
        Complex::new(self.im, self.re)
    }
    #[inline(always)]
    fn plus(self, b: Self) -> Self {
        Complex::new(self.re + b.re, self.im + b.im)
    }
    #[inline(always)]
    fn minus(self, b: Self) -> Self {
        Complex::new(self.re - b.re, self.im - b.im)
    }
    #[inline(always)]
    fn times(self, b: Self) -> Self {
        Complex::new(self.re * b.re - self.im * b.im, self.re * b.im + self.im * b.re)
    }
    /// Times a real number.
    #[inline(always)]
    pub fn scaled(self, by: T) -> Self {
        Complex::new(self.re * by, self.im * by)
    }
    /// Times -i.
    #[inline(always)]
    fn turned(self) -> Self {
        Complex::new(self.im, -self.re)
    }
}

/// The greatest prime factor that has a butterfly; beyond it Bluestein's way is cheaper.
const MAX_RADIX: usize = 31;

/// `exp(-2 pi i k / n)`; the angle is brought into an eighth of the circle, so that no place is worse than another.
fn root<T: Real>(k: usize, n: usize) -> Complex<T> {
    let k = k % n;
    // Eighths of the circle passed, and what is left over, as a fraction of n.
    let eighth = (k as u128 * 8 / n as u128) as usize;
    let angle = |k: f64| 2.0 * PI * k / n as f64;
    let (c, s) = match eighth {
        0 | 7 => {
            let a = if eighth == 0 { angle(k as f64) } else { -angle((n - k) as f64) };
            (a.cos(), a.sin())
        }
        1 | 2 => {
            let a = angle(k as f64 - n as f64 / 4.0);
            (-a.sin(), a.cos())
        }
        3 | 4 => {
            let a = angle(k as f64 - n as f64 / 2.0);
            (-a.cos(), -a.sin())
        }
        _ => {
            let a = angle(k as f64 - n as f64 * 0.75);
            (a.sin(), -a.cos())
        }
    };
    Complex::new(T::of(c), T::of(-s))
}

struct Stage<T> {
    radix: usize,
    /// Length of the transforms after it.
    rest: usize,
    /// How many are interleaved.
    stride: usize,
    /// Where its factors begin: `rest * radix` of them.
    twiddles: usize,
    /// The roots of unity of the radix.
    roots: Vec<Complex<T>>,
}

enum Kind<T> {
    Mixed { stages: Vec<Stage<T>>, twiddles: Vec<Complex<T>> },
    Chirp { inner: Box<Fft<T>>, chirp: Vec<Complex<T>>, spectrum: Vec<Complex<T>> },
}

/// The forward transform of one length, not scaled.
pub struct Fft<T> {
    n: usize,
    kind: Kind<T>,
}

impl<T: Real> Fft<T> {
    /// Plans a transform of `n` numbers.
    pub fn new(n: usize) -> Result<Self> {
        let mut factors = Vec::new();
        let mut rest = n;
        while rest > 0 && rest.is_multiple_of(4) {
            factors.push(4);
            rest /= 4;
        }
        if rest > 0 && rest.is_multiple_of(2) {
            factors.push(2);
            rest /= 2;
            let last = factors.len() - 1;
            factors.swap(0, last);
        }
        for r in [3, 5, 7, 11, 13, 17, 19, 23, 29, MAX_RADIX] {
            while rest > 1 && rest.is_multiple_of(r) {
                factors.push(r);
                rest /= r;
            }
        }
        if rest > 1 { Fft::chirp(n) } else { Fft::mixed(n, &factors) }
    }
    fn mixed(n: usize, factors: &[usize]) -> Result<Self> {
        let mut stages = Vec::with_capacity(factors.len());
        let mut twiddles = reserved(product(&[n.max(1), 2])?)?;
        let (mut len, mut stride) = (n, 1);
        for &radix in factors {
            let rest = len / radix;
            let roots = (0..radix).map(|k| root(k, radix)).collect();
            stages.push(Stage { radix, rest, stride, twiddles: twiddles.len(), roots });
            twiddles.extend((0..rest * radix).map(|i| root((i % radix) * (i / radix), len)));
            (len, stride) = (rest, stride * radix);
        }
        Ok(Fft { n, kind: Kind::Mixed { stages, twiddles } })
    }
    /// As a convolution with a chirp, whose length may be a power of two.
    fn chirp(n: usize) -> Result<Self> {
        let m = product(&[n, 4])?.next_power_of_two() / 2;
        let inner = Fft::new(m)?;
        let mut chirp = reserved(n)?;
        let square = |k: usize| (k as u128 * k as u128 % (2 * n as u128)) as usize;
        chirp.extend((0..n).map(|k| root::<T>(square(k), 2 * n)));
        let mut spectrum: Vec<Complex<T>> = reserved(m)?;
        spectrum.resize(m, Complex::default());
        for (k, c) in chirp.iter().enumerate() {
            spectrum[k] = c.conj();
            spectrum[(m - k) % m] = c.conj();
        }
        let mut scratch = reserved(inner.scratch_len())?;
        scratch.resize(inner.scratch_len(), Complex::default());
        inner.run(&mut spectrum, &mut scratch);
        Ok(Fft { n, kind: Kind::Chirp { inner: Box::new(inner), chirp, spectrum } })
    }
    /// The length.
    pub fn len(&self) -> usize {
        self.n
    }
    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }
    /// Numbers of scratch that `run` needs.
    pub fn scratch_len(&self) -> usize {
        match &self.kind {
            Kind::Mixed { .. } => self.n,
            Kind::Chirp { inner, .. } => inner.n + inner.scratch_len(),
        }
    }
    /// Transforms `x`, which has `len` numbers, in place; `scratch` has at least `scratch_len`.
    pub fn run(&self, x: &mut [Complex<T>], scratch: &mut [Complex<T>]) {
        let x = &mut x[..self.n];
        match &self.kind {
            Kind::Mixed { stages, twiddles } => {
                let (mut from, mut to) = (&mut *x, &mut scratch[..self.n]);
                for s in stages {
                    s.run(&twiddles[s.twiddles..], from, to);
                    std::mem::swap(&mut from, &mut to);
                }
                // After an odd number of stages the result stands in the scratch.
                if stages.len() % 2 == 1 {
                    to.copy_from_slice(from);
                }
            }
            Kind::Chirp { inner, chirp, spectrum } => {
                let (y, scratch) = scratch.split_at_mut(inner.n);
                y.fill(Complex::default());
                for ((y, x), c) in y.iter_mut().zip(&*x).zip(chirp) {
                    *y = x.times(*c);
                }
                inner.run(y, scratch);
                // The inverse transform is the forward one between two exchanges of the parts.
                for (y, s) in y.iter_mut().zip(spectrum) {
                    *y = y.times(*s).swapped();
                }
                inner.run(y, scratch);
                let scale = T::of(1.0 / inner.n as f64);
                for ((x, y), c) in x.iter_mut().zip(&*y).zip(chirp) {
                    *x = y.swapped().scaled(scale).times(*c);
                }
            }
        }
    }
}

impl<T: Real> Stage<T> {
    fn run(&self, twiddles: &[Complex<T>], from: &[Complex<T>], to: &mut [Complex<T>]) {
        let (r, s, m) = (self.radix, self.stride, self.rest);
        for p in 0..m {
            let w = &twiddles[p * r..][..r];
            let block = &mut to[s * r * p..][..s * r];
            match r {
                2 => {
                    let (a, b) = (&from[s * p..][..s], &from[s * (p + m)..][..s]);
                    let (y0, y1) = block.split_at_mut(s);
                    for q in 0..s {
                        y0[q] = a[q].plus(b[q]);
                        y1[q] = a[q].minus(b[q]).times(w[1]);
                    }
                }
                4 => {
                    let x = |k: usize| &from[s * (p + m * k)..][..s];
                    let (x0, x1, x2, x3) = (x(0), x(1), x(2), x(3));
                    let (lower, upper) = block.split_at_mut(2 * s);
                    let ((y0, y1), (y2, y3)) = (lower.split_at_mut(s), upper.split_at_mut(s));
                    for q in 0..s {
                        let (a, b) = (x0[q].plus(x2[q]), x0[q].minus(x2[q]));
                        let (c, d) = (x1[q].plus(x3[q]), x1[q].minus(x3[q]).turned());
                        y0[q] = a.plus(c);
                        y1[q] = b.plus(d).times(w[1]);
                        y2[q] = a.minus(c).times(w[2]);
                        y3[q] = b.minus(d).times(w[3]);
                    }
                }
                _ => self.any(w, p, from, block),
            }
        }
    }
    /// A butterfly of any odd radix, from the sums and differences of numbers that mirror each other.
    fn any(&self, w: &[Complex<T>], p: usize, from: &[Complex<T>], block: &mut [Complex<T>]) {
        let (r, s, m) = (self.radix, self.stride, self.rest);
        let half = r / 2;
        let (mut sums, mut diffs) = ([Complex::default(); MAX_RADIX / 2], [Complex::default(); MAX_RADIX / 2]);
        for q in 0..s {
            let x = |k: usize| from[q + s * (p + m * k)];
            let first = x(0);
            let mut all = first;
            for u in 1..=half {
                sums[u - 1] = x(u).plus(x(r - u));
                diffs[u - 1] = x(u).minus(x(r - u));
                all = all.plus(sums[u - 1]);
            }
            block[q] = all;
            for j in 1..=half {
                let (mut even, mut odd) = (first, Complex::default());
                let mut turn = 0;
                for u in 0..half {
                    turn = (turn + j) % r;
                    let c = self.roots[turn];
                    even = even.plus(sums[u].scaled(c.re));
                    // i times the sine; the roots are of the forward transform, so their sines are negative.
                    odd = odd.plus(diffs[u].scaled(-c.im));
                }
                let odd = odd.turned();
                block[q + s * j] = even.plus(odd);
                block[q + s * (r - j)] = even.minus(odd);
            }
            if p > 0 {
                (1..r).for_each(|j| block[q + s * j] = block[q + s * j].times(w[j]));
            }
        }
    }
}

/// The forward transform of real numbers.
pub struct RealFft<T> {
    n: usize,
    /// Of half the length, if the length is even.
    fft: Fft<T>,
    twiddles: Vec<Complex<T>>,
}

impl<T: Real> RealFft<T> {
    /// Plans a transform of `n` numbers.
    pub fn new(n: usize) -> Result<Self> {
        let half = n.is_multiple_of(2) && n > 0;
        let mut twiddles = Vec::new();
        if half {
            twiddles = reserved(n / 2 + 1)?;
            twiddles.extend((0..=n / 2).map(|k| root(k, n)));
        }
        Ok(RealFft { n, fft: Fft::new(if half { n / 2 } else { n })?, twiddles })
    }
    /// Numbers of scratch that `run` needs.
    pub fn scratch_len(&self) -> usize {
        self.fft.scratch_len()
    }
    /// Transforms the real parts of `x`, which has `len` numbers; the first `len / 2 + 1` are right afterwards, or all.
    pub fn run(&self, x: &mut [Complex<T>], all: bool, scratch: &mut [Complex<T>]) {
        let (n, h) = (self.n, self.n / 2);
        if self.twiddles.is_empty() {
            x.iter_mut().for_each(|x| x.im = T::ZERO);
            return self.fft.run(x, scratch);
        }
        for k in 0..h {
            x[k] = Complex::new(x[2 * k].re, x[2 * k + 1].re);
        }
        self.fft.run(&mut x[..h], scratch);
        let z0 = x[0];
        let part = |a: Complex<T>, b: Complex<T>, w: Complex<T>| {
            // Transforms of the even and of the odd places.
            let (even, odd) = (a.plus(b.conj()), a.minus(b.conj()).turned());
            even.plus(odd.times(w)).scaled(T::of(0.5))
        };
        for k in 1..h.div_ceil(2) {
            let (a, b) = (x[k], x[h - k]);
            x[k] = part(a, b, self.twiddles[k]);
            x[h - k] = part(b, a, self.twiddles[h - k]);
        }
        if h % 2 == 0 && h > 0 {
            x[h / 2] = part(x[h / 2], x[h / 2], self.twiddles[h / 2]);
        }
        x[0] = Complex::new(z0.re + z0.im, T::ZERO);
        x[h] = Complex::new(z0.re - z0.im, T::ZERO);
        for k in h + 1..if all { n } else { 0 } {
            x[k] = x[n - k].conj();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::Rng;

    /// By the definition.
    fn naive(x: &[Complex<f64>]) -> Vec<Complex<f64>> {
        let n = x.len();
        let term = |k: usize, j: usize| x[j].times(root((k as u128 * j as u128 % n as u128) as usize, n));
        (0..n).map(|k| (0..n).fold(Complex::default(), |s, j| s.plus(term(k, j)))).collect()
    }

    #[test]
    fn roots_lie_on_the_circle() {
        for n in [1, 2, 3, 4, 7, 8, 12, 100, 1001] {
            for k in 0..n {
                let a = -2.0 * PI * k as f64 / n as f64;
                let r = root::<f64>(k, n);
                assert!((r.re - a.cos()).abs() < 1e-15 * 8.0 && (r.im - a.sin()).abs() < 1e-15 * 8.0, "{k} of {n}");
            }
        }
    }

    #[test]
    fn all_lengths_as_defined() {
        let mut rng = Rng::new(7);
        let lengths = (1..70).chain([97, 128, 210, 243, 256, 331, 1000, 1009, 1024, 37 * 37]);
        for n in lengths {
            let x: Vec<_> = (0..n).map(|_| Complex::new(f64::from(rng.float()), f64::from(rng.float()))).collect();
            let want = naive(&x);
            let fft = Fft::new(n).unwrap();
            let (mut y, mut scratch) = (x.clone(), vec![Complex::default(); fft.scratch_len()]);
            fft.run(&mut y, &mut scratch);
            let real: Vec<_> = x.iter().map(|x| Complex::new(x.re, 0.0)).collect();
            let real_want = naive(&real);
            let real_fft = RealFft::new(n).unwrap();
            let (mut r, mut scratch) = (x.clone(), vec![Complex::default(); real_fft.scratch_len()]);
            real_fft.run(&mut r, true, &mut scratch);
            let fft = Fft::<f32>::new(n).unwrap();
            let mut z: Vec<_> = x.iter().map(|x| Complex::new(x.re as f32, x.im as f32)).collect();
            fft.run(&mut z, &mut vec![Complex::default(); fft.scratch_len()]);
            for k in 0..n {
                // Naive sums of n terms are off by some n units in the last place themselves.
                let bound = 1e-15 * n as f64 * 4.0;
                let near =
                    |a: Complex<f64>, b: Complex<f64>| (a.re - b.re).abs() <= bound && (a.im - b.im).abs() <= bound;
                assert!(near(want[k], y[k]), "{k} of {n}: {:?} {:?}", want[k], y[k]);
                let narrow = Complex::new(f64::from(z[k].re), f64::from(z[k].im));
                // The same in f32, whose unit is 2^29 times as large; the sums are of fewer terms.
                let off = (narrow.re - want[k].re).hypot(narrow.im - want[k].im);
                assert!(off < 1e-6 * n as f64, "f32, {k} of {n}: {off}");
                assert!(near(real_want[k], r[k]), "real, {k} of {n}: {:?} {:?}", real_want[k], r[k]);
            }
        }
    }
}
