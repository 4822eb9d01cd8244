//! Pooling against nested loops, at every level, in memory that traps stray accesses.

use super::*;
use crate::kernels::conv::tests::to_blocked;
use crate::kernels::testing::{Guarded, Rng, assert_close};

/// Values, indices (row-major), and the tolerance of each value.
fn naive(s: &PoolSpec, x: &[f32]) -> (Vec<f32>, Vec<i64>, Vec<f32>) {
    let (mut out, mut at, mut tol) = (Vec::new(), Vec::new(), Vec::new());
    for plane in 0..s.n * s.channels {
        for o in 0..s.out_size() {
            let o = [o / s.output[2] / s.output[1], o / s.output[2] % s.output[1], o % s.output[2]];
            let (mut sum, mut abs, mut max, mut index) = (0f64, 0f64, f32::NEG_INFINITY, None);
            let (mut seen, mut padded) = (0, 0);
            for t in 0..s.kernel.iter().product() {
                let k = [t / s.kernel[2] / s.kernel[1], t / s.kernel[2] % s.kernel[1], t % s.kernel[2]];
                let p: [isize; 3] =
                    std::array::from_fn(|d| (o[d] * s.stride[d] + k[d] * s.dilation[d]) as isize - s.pad[d] as isize);
                let within = |end: [usize; 3], before: [usize; 3]| {
                    (0..3).all(|d| p[d] >= -(before[d] as isize) && p[d] < (s.input[d] + end[d]) as isize)
                };
                padded += within(s.pad_end, s.pad) as usize;
                if within([0; 3], [0; 3]) {
                    seen += 1;
                    let i =
                        plane * s.in_size() + (p[0] as usize * s.input[1] + p[1] as usize) * s.input[2] + p[2] as usize;
                    let v = match s.kind {
                        Kind::Lp { p } => (x[i].abs() as f64).powi(p),
                        _ => x[i] as f64,
                    };
                    sum += v;
                    abs += v.abs();
                    if index.is_none() || x[i] > max || (x[i].is_nan() && !max.is_nan()) {
                        (max, index) = (x[i], Some(i as i64));
                    }
                }
            }
            let count = if s.kind == (Kind::Average { include_pad: true }) { padded } else { seen } as f64;
            // Each sum rounds at half an eps of at most the sum of magnitudes; a power and a root add a few.
            let eps = (seen + 8) as f64 * f32::EPSILON as f64;
            let (v, t) = match s.kind {
                Kind::Max => (max, 0.0),
                Kind::Average { .. } => ((sum / count) as f32, eps * abs / count),
                Kind::Lp { p } => (sum.powf(1.0 / p as f64) as f32, eps * abs.powf(1.0 / p as f64)),
            };
            out.push(v);
            tol.push(t as f32);
            at.push(index.unwrap_or((plane * s.in_size()) as i64));
        }
    }
    (out, at, tol)
}

fn check(s: &PoolSpec, x: &[f32], at_end: bool) {
    let (want, at, tol) = naive(s, x);
    for isa in Isa::detect().levels() {
        for blocked in [false, true] {
            let c = isa.f32_lanes();
            let lay = |v: &[f32], size| if blocked { to_blocked(v, s.n, s.channels, size, c) } else { v.to_vec() };
            let pool = Pool::new(isa, *s, blocked).unwrap();
            let x = Guarded::new(&lay(x, s.in_size()), at_end);
            let (want, tol) = (lay(&want, s.out_size()), lay(&tol, s.out_size()));
            let y = Guarded::new(&vec![-77.0; want.len()], at_end);
            for task in (0..pool.tasks()).rev() {
                // SAFETY: the buffers have the layout's length.
                unsafe { pool.run(task, x.ptr, y.ptr, Indices::NONE) };
            }
            assert_close(&format!("blocked {blocked} {s:?}"), isa, y.slice(), &want, |i| tol[i]);
            if blocked || s.kind != Kind::Max {
                continue;
            }
            let mut got = vec![-1i64; at.len()];
            for column_major in [true, false] {
                for task in 0..pool.tasks() {
                    // SAFETY: as above.
                    unsafe { pool.run(task, x.ptr, y.ptr, Indices { to: got.as_mut_ptr(), column_major }) };
                }
                for (g, w) in got.iter().zip(&at) {
                    let size = s.in_size() as i64;
                    let (plane, i) = (w / size.max(1), w % size.max(1));
                    let [d, h, wide] = s.input.map(|d| d.max(1) as i64);
                    let turned = plane * size + ((i % wide) * h + i / wide % h) * d + i / wide / h;
                    assert_eq!(*g, if column_major { turned } else { *w }, "{s:?}");
                }
            }
            assert_close("values beside indices", isa, y.slice(), &want, |_| 0.0);
        }
    }
}

#[test]
fn random_shapes() {
    let mut rng = Rng::new(41);
    for round in 0..240 {
        let dims = 1 + round % 3;
        let kinds = [
            Kind::Max,
            Kind::Average { include_pad: false },
            Kind::Average { include_pad: true },
            Kind::Lp { p: 1 + (round % 3) as i32 },
        ];
        let mut s = PoolSpec::global(rng.below(3), rng.below(40), [1; 3], kinds[rng.below(4)]);
        for d in 3 - dims..3 {
            s.kernel[d] = 1 + rng.below(4);
            s.stride[d] = 1 + rng.below(3);
            s.dilation[d] = 1 + rng.below(2);
            s.pad[d] = rng.below(s.kernel[d]);
            s.pad_end[d] = rng.below(s.kernel[d]);
            s.input[d] = 1 + rng.below([0, 90, 20, 7][dims]);
            let reach = (s.kernel[d] - 1) * s.dilation[d] + 1;
            let room = (s.input[d] + s.pad[d] + s.pad_end[d]).saturating_sub(reach);
            s.output[d] = if rng.below(2) == 0 { room / s.stride[d] + 1 } else { room.div_ceil(s.stride[d]) + 1 };
        }
        let x = rng.floats(s.n * s.channels * s.in_size());
        check(&s, &x, round % 2 == 0);
    }
}

#[test]
fn global_and_large() {
    let mut rng = Rng::new(42);
    for kind in [Kind::Max, Kind::Average { include_pad: false }, Kind::Lp { p: 2 }] {
        for input in [[1, 1, 1], [1, 7, 7], [1, 56, 57], [3, 5, 11]] {
            let s = PoolSpec::global(2, 35, input, kind);
            check(&s, &rng.floats(2 * 35 * s.in_size()), true);
        }
        let s = PoolSpec {
            kernel: [1, 3, 3],
            stride: [1, 2, 2],
            pad: [0, 1, 1],
            pad_end: [0, 1, 1],
            output: [1, 56, 56],
            ..PoolSpec::global(1, 64, [1, 112, 112], kind)
        };
        check(&s, &rng.floats(64 * 112 * 112), true);
    }
}

#[test]
fn nan_reaches_the_maximum() {
    let s = PoolSpec { kernel: [1, 2, 2], output: [1, 4, 39], ..PoolSpec::global(1, 3, [1, 5, 40], Kind::Max) };
    let mut x = Rng::new(43).floats(600);
    x[77] = f32::NAN;
    x[301] = f32::NEG_INFINITY;
    x[302] = f32::INFINITY;
    check(&s, &x, true);
    check(&PoolSpec::global(1, 3, [1, 5, 40], Kind::Max), &x, true);
}

#[test]
fn impossible_sizes_are_errors() {
    let ok = PoolSpec::global(1, 1, [1, 4, 4], Kind::Max);
    assert!(Pool::new(Isa::SCALAR, PoolSpec { stride: [0; 3], ..ok }, false).is_err());
    assert!(Pool::new(Isa::SCALAR, PoolSpec { pad: [usize::MAX; 3], ..ok }, false).is_err());
    assert!(Pool::new(Isa::SCALAR, PoolSpec { input: [1 << 30; 3], ..ok }, true).is_err());
    assert!(Pool::new(Isa::SCALAR, PoolSpec { kind: Kind::Lp { p: 0 }, ..ok }, true).is_err());
}
