//! Along an axis, against the plainest code.

use super::*;
use crate::kernels::elem::{Elem, Narrow};
use crate::kernels::isa::Isa;
use crate::kernels::testing::Rng;
use half::f16;

const SHAPES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (9, 77, 1), (3, 10, 1), (2, 7, 5), (2, 300, 70), (40, 9, 130), (0, 3, 2), (2, 3, 0)];

/// Few values, so that many are equal.
fn data(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| if rng.below(40) == 0 { f32::NAN } else { rng.below(6) as f32 }).collect()
}

#[test]
fn positions() {
    let mut rng = Rng::new(51);
    for (outer, axis, inner) in SHAPES {
        let xs = data(&mut rng, outer * axis * inner);
        let halves: Vec<f16> = xs.iter().map(|x| f16::narrow(*x)).collect();
        for (least, last) in [(false, false), (false, true), (true, false), (true, true)] {
            let levels = Isa::detect().levels().map(|isa| (isa, Elem::F32));
            for (isa, elem) in levels.chain([(Isa::SCALAR, Elem::F16)]) {
                let p = if elem == Elem::F32 { xs.as_ptr().cast::<u8>() } else { halves.as_ptr().cast() };
                let mut out = vec![-1i64; outer * inner];
                let kernel = ArgReduce::new(isa, elem, outer, axis, inner, least, last).unwrap();
                for t in 0..kernel.tasks() {
                    // SAFETY: the arrays have this shape.
                    unsafe { kernel.run(t, p, out.as_mut_ptr()) };
                }
                for (k, got) in out.iter().enumerate() {
                    let column: Vec<f32> = (0..axis).map(|i| xs[(k / inner * axis + i) * inner + k % inner]).collect();
                    let best = column.iter().copied().reduce(|a, b| match (a.is_nan() || b.is_nan(), least) {
                        (true, _) => f32::NAN,
                        (false, true) => a.min(b),
                        (false, false) => a.max(b),
                    });
                    let is = |x: &f32| best.is_some_and(|b| *x == b || (x.is_nan() && b.is_nan()));
                    let want = if last { column.iter().rposition(is) } else { column.iter().position(is) };
                    assert_eq!(Some(*got as usize), want, "{column:?} {least} {last}");
                }
            }
        }
    }
    assert!(ArgReduce::new(Isa::SCALAR, Elem::F32, 1, 0, 1, false, false).is_err());
}

#[test]
fn running_sums_and_products() {
    let mut rng = Rng::new(52);
    for (outer, axis, inner) in SHAPES {
        let xs: Vec<i32> = (0..outer * axis * inner).map(|_| rng.next() as i32).collect();
        for bits in 0..8 {
            let [product, exclusive, reverse] = [1, 2, 4].map(|b| bits & b != 0);
            let mut out = xs.clone();
            let kernel = Cumulate::new(Elem::I32, outer, axis, inner, product, exclusive, reverse).unwrap();
            let p = out.as_mut_ptr().cast::<u8>();
            for t in 0..kernel.tasks() {
                // SAFETY: the array has this shape, and is its own result.
                unsafe { kernel.run(t, p, p) };
            }
            for k in 0..outer * inner {
                let at = |i: usize| (k / inner * axis + i) * inner + k % inner;
                for i in 0..axis {
                    let counts = |j: usize| match (exclusive, reverse) {
                        (false, false) => j <= i,
                        (true, false) => j < i,
                        (false, true) => j >= i,
                        (true, true) => j > i,
                    };
                    let all = (0..axis).filter(|j| counts(*j)).map(|j| xs[at(j)]);
                    let want = if product { all.fold(1, i32::wrapping_mul) } else { all.fold(0, i32::wrapping_add) };
                    assert_eq!(out[at(i)], want);
                }
            }
        }
    }
}

#[test]
fn the_greatest() {
    let mut rng = Rng::new(53);
    for (outer, axis, inner) in SHAPES {
        let xs = data(&mut rng, outer * axis * inner);
        for k in [0, 1, axis / 2, axis] {
            for (largest, sorted) in [(true, true), (false, true), (true, false)] {
                let kernel = TopK::new(Elem::F32, outer, axis, inner, k, largest, sorted).unwrap();
                let (mut values, mut places) = (vec![0.0f32; outer * k * inner], vec![0i64; outer * k * inner]);
                let mut scratch = vec![0u32; kernel.scratch_bytes() / 4];
                for t in 0..kernel.tasks() {
                    // SAFETY: the arrays have these shapes.
                    unsafe {
                        let v = values.as_mut_ptr().cast();
                        kernel.run(t, xs.as_ptr().cast(), v, places.as_mut_ptr(), scratch.as_mut_ptr().cast());
                    }
                }
                for c in 0..outer * inner {
                    let (o, j) = (c / inner, c % inner);
                    let column: Vec<f32> = (0..axis).map(|i| xs[(o * axis + i) * inner + j]).collect();
                    // A stable sort by value alone keeps equals in order; NaN counts as more than all.
                    let key = |i: &usize| if column[*i].is_nan() { 1e9 } else { column[*i] };
                    let mut want: Vec<usize> = (0..axis).collect();
                    want.sort_by(|a, b| {
                        let order = key(a).total_cmp(&key(b));
                        if largest { order.reverse() } else { order }
                    });
                    want.truncate(k);
                    if !sorted {
                        want.sort();
                    }
                    for (r, w) in want.into_iter().enumerate() {
                        let at = (o * k + r) * inner + j;
                        assert_eq!(places[at] as usize, w);
                        assert_eq!(values[at].to_bits(), column[w].to_bits());
                    }
                }
            }
        }
    }
    assert!(TopK::new(Elem::F32, 1, 2, 1, 3, true, true).is_err());
}
