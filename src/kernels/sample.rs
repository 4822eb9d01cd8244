//! Values between the elements of an N-d plane: nearest, N-linear and N-cubic sampling at given places, with what lies outside.

use super::isa::Isa;
use super::real::Real;
use super::simd::{F32, I32, Kernel, dispatch};
use smallvec::SmallVec;

/// How a value is made from its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest one; halves go to the even one.
    Nearest,
    /// Two an axis.
    Linear,
    /// Four an axis (Keys' kernel, a = -0.75).
    Cubic,
}

/// What lies outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Zeros.
    Zeros,
    /// The nearest element.
    Border,
    /// The mirror image.
    Reflection,
}

/// What places are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// -1 and 1 are the outer edges of the outermost elements.
    Edges,
    /// -1 and 1 are the centres of the outermost elements.
    Centers,
    /// Elements: 0 is the centre of the first.
    Elements,
}

/// The index of a tap that is zero.
pub const NOWHERE: i32 = -1;

/// Most taps of a place.
pub const MOST_TAPS: usize = 4096;

/// Sampling of planes of one shape.
#[derive(Clone, Debug)]
pub struct Sampler {
    /// Sizes of a plane.
    pub sizes: SmallVec<[usize; 3]>,
    /// Neighbours.
    pub interpolation: Interpolation,
    /// Outside.
    pub outside: Outside,
    /// What places are counted in.
    pub unit: Unit,
}

/// One axis of one place: up to four indices along the axis and their weights.
#[derive(Clone, Copy)]
struct Taps<G> {
    at: [i32; 4],
    weight: [G; 4],
}

fn reflect<G: Real>(x: G, low: G, high: G) -> G {
    let range = high - low;
    if range <= G::ZERO || range.is_nan() {
        return low;
    }
    let below = x < low;
    let distance = if below { low - x } else { x - high };
    let turns = (distance / range).floor();
    let rest = distance - turns * range;
    let even = (turns / G::of(2.0)).floor() * G::of(2.0) == turns;
    if below == even { low + rest } else { high - rest }
}

impl Sampler {
    fn taps_an_axis(&self) -> usize {
        match self.interpolation {
            Interpolation::Nearest => 1,
            Interpolation::Linear => 2,
            Interpolation::Cubic => 4,
        }
    }
    /// Taps of a place; `None` if they are more than [`MOST_TAPS`] or a plane is too large.
    pub fn taps(&self) -> Option<usize> {
        let n = u32::try_from(self.sizes.len()).ok()?;
        let plane = self.sizes.iter().try_fold(1usize, |a, &b| a.checked_mul(b))?;
        i32::try_from(plane).ok()?;
        self.taps_an_axis().checked_pow(n).filter(|t| *t <= MOST_TAPS)
    }
    /// A place in elements along an axis.
    fn place<G: Real>(&self, x: G, axis: usize) -> G {
        let (n, one, two) = (G::of(self.sizes[axis] as f64), G::ONE, G::of(2.0));
        match self.unit {
            Unit::Edges => ((x + one) * n - one) / two,
            Unit::Centers => (x + one) / two * (n - one),
            Unit::Elements => x,
        }
    }
    /// The index that stands for `i`.
    fn index<G: Real>(&self, i: i64, axis: usize, [low, high]: [G; 2]) -> i32 {
        let n = self.sizes[axis] as i64;
        if (0..n).contains(&i) {
            return i as i32;
        }
        match self.outside {
            Outside::Zeros => NOWHERE,
            Outside::Border => i.clamp(0, n - 1) as i32,
            Outside::Reflection => (reflect(G::of(i as f64), low, high).to_f64() as i64).clamp(0, n - 1) as i32,
        }
    }
    /// The taps around a place along an axis.
    fn axis<G: Real>(&self, x: G, axis: usize) -> Taps<G> {
        let n = G::of(self.sizes[axis] as f64);
        let half = G::of(0.5);
        let borders = if self.unit == Unit::Edges { [-half, n - half] } else { [G::ZERO, n - G::ONE] };
        let mut x = if self.interpolation == Interpolation::Nearest {
            // Halves to even, also for what has no fraction left.
            let down = x.floor();
            let rest = x - down;
            let odd = (down / G::of(2.0)).floor() * G::of(2.0) != down;
            if rest > half || rest == half && odd { down + G::ONE } else { down }
        } else {
            x
        };
        if !(x >= borders[0] && x <= borders[1]) {
            x = match self.outside {
                // Far enough that no tap is inside, near enough for an index; NaN is outside.
                Outside::Zeros if x >= -G::of(8.0) && x <= n + G::of(8.0) => x,
                Outside::Zeros => -G::of(8.0),
                Outside::Border if x > n - G::ONE => n - G::ONE,
                Outside::Border => G::ZERO,
                Outside::Reflection if x > -G::HIGHEST && x < G::HIGHEST => reflect(x, borders[0], borders[1]),
                Outside::Reflection => G::ZERO,
            };
        }
        let first = x.floor();
        let t = x - first;
        let i = first.to_f64() as i64;
        let mut taps = Taps { at: [0; 4], weight: [G::ZERO; 4] };
        let from = match self.interpolation {
            Interpolation::Nearest => {
                taps.weight[0] = G::ONE;
                0
            }
            Interpolation::Linear => {
                taps.weight[..2].copy_from_slice(&[G::ONE - t, t]);
                0
            }
            Interpolation::Cubic => {
                let a = G::of(-0.75);
                let (two, three) = (G::of(2.0), G::of(3.0));
                let near = |t: G| ((a + two) * t - (a + three)) * t * t + G::ONE;
                let far = |t: G| ((a * t - G::of(5.0) * a) * t + G::of(8.0) * a) * t - G::of(4.0) * a;
                taps.weight = [far(t + G::ONE), near(t), near(G::ONE - t), far(two - t)];
                -1
            }
        };
        for k in 0..self.taps_an_axis() {
            taps.at[k] = self.index(i + from + k as i64, axis, borders);
        }
        taps
    }
    /// Writes index and weight of each tap of `points` places: tap `k` of place `p` at `k * row + p`. A place has a number an
    /// axis in `grid`, the last axis first.
    /// # Safety
    /// `grid` is valid for the places, `index` and `weight` for writing `taps` rows. No axis is empty.
    pub unsafe fn table<G: Real>(&self, grid: *const G, points: usize, row: usize, index: *mut i32, weight: *mut G) {
        let (rank, each) = (self.sizes.len(), self.taps_an_axis());
        for p in 0..points {
            // SAFETY: place p, and its entries in the table.
            unsafe {
                // Combinations of the axes so far, built up in the table itself: axis by axis, from the back so that none is
                // overwritten before it is used.
                let mut made = 1;
                *index.add(p) = 0;
                *weight.add(p) = G::ONE;
                for axis in 0..rank {
                    let place = self.place(*grid.add(p * rank + rank - 1 - axis), axis);
                    let taps = self.axis(place, axis);
                    for k in (0..made).rev() {
                        let (i, w) = (*index.add(k * row + p), *weight.add(k * row + p));
                        for t in (0..each).rev() {
                            let to = (k * each + t) * row + p;
                            let nowhere = i == NOWHERE || taps.at[t] == NOWHERE;
                            *index.add(to) = if nowhere { NOWHERE } else { i * self.sizes[axis] as i32 + taps.at[t] };
                            *weight.add(to) = w * taps.weight[t];
                        }
                    }
                    made *= each;
                }
            }
        }
    }
}

/// What can be weighted and added up.
pub trait Sample: Copy + Send + Sync + 'static {
    /// The sum so far.
    type Sum: Copy;
    /// Of nothing.
    const NOTHING: Self::Sum;
    /// One more.
    fn add(self, weight: f64, sum: Self::Sum) -> Self::Sum;
    /// The result.
    fn of(sum: Self::Sum) -> Self;
}

macro_rules! real {
    ($($t:ty)*) => { $(
        impl Sample for $t {
            type Sum = f64;
            const NOTHING: f64 = 0.0;
            #[inline(always)]
            fn add(self, weight: f64, sum: f64) -> f64 {
                sum + weight * self as f64
            }
            #[inline(always)]
            fn of(sum: f64) -> $t {
                sum as $t
            }
        }
    )* };
}
real!(f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);

macro_rules! complex {
    ($($t:ty)*) => { $(
        impl Sample for [$t; 2] {
            type Sum = [f64; 2];
            const NOTHING: [f64; 2] = [0.0; 2];
            #[inline(always)]
            fn add(self, weight: f64, sum: [f64; 2]) -> [f64; 2] {
                [sum[0] + weight * f64::from(self[0]), sum[1] + weight * f64::from(self[1])]
            }
            #[inline(always)]
            fn of(sum: [f64; 2]) -> [$t; 2] {
                [sum[0] as $t, sum[1] as $t]
            }
        }
    )* };
}
complex!(f32 f64);

/// A truth value: true where the sum is not zero.
#[derive(Clone, Copy)]
pub struct Truth(pub u8);
impl Sample for Truth {
    type Sum = f64;
    const NOTHING: f64 = 0.0;
    #[inline(always)]
    fn add(self, weight: f64, sum: f64) -> f64 {
        sum + weight * f64::from(self.0)
    }
    #[inline(always)]
    fn of(sum: f64) -> Truth {
        Truth(u8::from(sum != 0.0))
    }
}

/// The weighted sums of taps in one plane.
/// # Safety
/// The table is one of [`Sampler::table`] for planes of `x`'s size; `y` is valid for writing `points` values.
pub unsafe fn gather<T: Sample, G: Real>(
    x: *const T,
    y: *mut T,
    points: usize,
    taps: usize,
    row: usize,
    index: *const i32,
    weight: *const G,
) {
    for p in 0..points {
        let mut sum = T::NOTHING;
        for k in 0..taps {
            // SAFETY: the caller's.
            unsafe {
                let i = *index.add(k * row + p);
                if i != NOWHERE {
                    sum = (*x.add(i as usize)).add((*weight.add(k * row + p)).to_f64(), sum);
                }
            }
        }
        // SAFETY: the caller's.
        unsafe { *y.add(p) = T::of(sum) };
    }
}

/// One tap's element as it is, zero bits for none.
/// # Safety
/// As for [`gather`].
pub unsafe fn pick<T: Copy + Default>(x: *const T, y: *mut T, points: usize, index: *const i32) {
    for p in 0..points {
        // SAFETY: the caller's; complex numbers are aligned as their parts, hence unaligned.
        unsafe {
            let i = *index.add(p);
            y.add(p).write_unaligned(if i == NOWHERE { T::default() } else { x.add(i as usize).read_unaligned() });
        }
    }
}

/// [`gather`] in f32 with vectors; for several planes with one table.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Gather32 {
    pub x: *const f32,
    pub y: *mut f32,
    pub planes: usize,
    /// From plane to plane of x and of y.
    pub x_plane: usize,
    pub y_plane: usize,
    pub points: usize,
    pub taps: usize,
    pub row: usize,
    pub index: *const i32,
    pub weight: *const f32,
}

impl Gather32 {
    /// # Safety
    /// As for [`gather`], for each plane; `index` and `weight` may be read up to whole vectors, as `row` is a multiple of 16.
    pub unsafe fn run(self, isa: Isa) {
        dispatch(isa, self);
    }
}

impl Kernel for Gather32 {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        for c in 0..self.planes {
            for p in (0..self.points).step_by(V::LANES) {
                let lanes = V::LANES.min(self.points - p);
                // SAFETY: the caller's contract; lanes behind the points have index NOWHERE.
                unsafe {
                    let x = self.x.add(c * self.x_plane);
                    let mut sum = V::zero();
                    for k in 0..self.taps {
                        let at = k * self.row + p;
                        let i = V::I::load(self.index.add(at));
                        let there = i.gt(V::I::splat(NOWHERE));
                        let v = V::gather(x, i.max(V::I::splat(0)));
                        let v = V::select(there, v, V::zero());
                        let w = V::load(self.weight.add(at));
                        // Beside what is not there nothing counts, not even an infinite weight.
                        sum = V::select(there, v.mul_add(w, sum), sum);
                    }
                    sum.store_n(self.y.add(c * self.y_plane + p), lanes);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::Rng;

    fn sampler(sizes: &[usize], interpolation: Interpolation, outside: Outside, centers: bool) -> Sampler {
        let unit = if centers { Unit::Centers } else { Unit::Edges };
        Sampler { sizes: sizes.into(), interpolation, outside, unit }
    }

    #[test]
    fn reflection_keeps_turning() {
        // The standard's own example: -3.5 about -1 is 1.5, about 1 is 0.5.
        assert_eq!(reflect(-3.5f32, -1.0, 1.0), 0.5);
        assert_eq!(reflect(1.25f64, -1.0, 1.0), 0.75);
        assert_eq!(reflect(5.0f32, -1.0, 1.0), 1.0);
        assert_eq!(reflect(7.0f32, 2.0, 2.0), 2.0);
    }

    #[test]
    fn vectors_give_what_single_values_do() {
        use Interpolation::*;
        let mut rng = Rng::new(9);
        for sizes in [&[7][..], &[5, 6], &[3, 4, 2]] {
            let plane: usize = sizes.iter().product();
            let x = rng.floats(2 * plane);
            for points in [1, 16, 37] {
                let mut grid: Vec<f32> = rng.floats(points * sizes.len()).iter().map(|v| v * 1.7).collect();
                grid[0] = f32::NAN;
                for mode in [Nearest, Linear, Cubic] {
                    for outside in [Outside::Zeros, Outside::Border, Outside::Reflection] {
                        let s = sampler(sizes, mode, outside, points % 2 == 0);
                        let (taps, row) = (s.taps().unwrap(), points.next_multiple_of(16));
                        let (mut index, mut weight) = (vec![NOWHERE; taps * row], vec![0f32; taps * row]);
                        // SAFETY: the sizes of grid and table.
                        unsafe { s.table(grid.as_ptr(), points, row, index.as_mut_ptr(), weight.as_mut_ptr()) };
                        assert!(index.iter().all(|&i| i < plane as i32));
                        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                        let mut want = vec![0f64; 2 * points];
                        for c in 0..2 {
                            // SAFETY: as above.
                            unsafe {
                                let (x, y) = (wide.as_ptr().add(c * plane), want.as_mut_ptr().add(c * points));
                                gather(x, y, points, taps, row, index.as_ptr(), weight.as_ptr());
                            }
                        }
                        for isa in Isa::detect().levels() {
                            let mut got = vec![0f32; 2 * points];
                            let g = Gather32 {
                                x: x.as_ptr(),
                                y: got.as_mut_ptr(),
                                planes: 2,
                                x_plane: plane,
                                y_plane: points,
                                points,
                                taps,
                                row,
                                index: index.as_ptr(),
                                weight: weight.as_ptr(),
                            };
                            // SAFETY: as above.
                            unsafe { g.run(isa) };
                            for (g, w) in got.iter().zip(&want) {
                                // 64 products and sums of numbers below 2, each rounded by at most 2^-24.
                                assert!((f64::from(*g) - w).abs() < 1e-5, "{sizes:?} {mode:?} {outside:?}: {g} {w}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn places_without_numbers_stay_inside() {
        for outside in [Outside::Zeros, Outside::Border, Outside::Reflection] {
            for mode in [Interpolation::Nearest, Interpolation::Linear, Interpolation::Cubic] {
                for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 3e9] {
                    for n in [1, 2, 9] {
                        let s = sampler(&[n], mode, outside, n == 2);
                        let (mut index, mut weight) = ([NOWHERE; 4], [0f32; 4]);
                        // SAFETY: one place of one axis, at most four taps.
                        unsafe { s.table(&x, 1, 1, index.as_mut_ptr(), weight.as_mut_ptr()) };
                        assert!(index.iter().all(|&i| (NOWHERE..n as i32).contains(&i)), "{outside:?} {x}");
                        assert!(weight.iter().all(|w| w.is_finite()), "{outside:?} {mode:?} {x} {weight:?}");
                    }
                }
            }
        }
    }
}
