//! Reductions against f64 loops, with random shapes, strides, axes and types, at every level.

use super::*;
use crate::kernels::elem::{Elem, Narrow, Number};
use crate::kernels::isa::Isa;
use crate::kernels::nd::random::{self, Layout};
use crate::kernels::testing::Rng;
use half::f16;

/// The elements that each output reduces, in row-major order.
fn groups(layout: &Layout, axes: &[bool]) -> Vec<Vec<usize>> {
    let outputs: usize = layout.shape.iter().zip(axes).filter(|(_, a)| !**a).map(|(d, _)| d).product();
    let mut groups = vec![vec![]; outputs];
    for (i, at) in layout.offsets().into_iter().enumerate() {
        let (mut rest, mut out, mut step) = (i, 0, 1);
        for k in (0..axes.len()).rev() {
            let index = rest % layout.shape[k];
            rest /= layout.shape[k];
            if !axes[k] {
                out += index * step;
                step *= layout.shape[k];
            }
        }
        groups[out].push(at);
    }
    groups
}

fn plain(kind: ReduceKind, xs: &[f64]) -> f64 {
    let n = xs.len() as f64;
    let sum = |f: fn(f64) -> f64| xs.iter().map(|x| f(*x)).sum::<f64>();
    match kind {
        ReduceKind::Sum => sum(|x| x),
        ReduceKind::Mean => sum(|x| x) / n,
        ReduceKind::Max => xs.iter().fold(f64::NEG_INFINITY, |a, x| a.most(*x)),
        ReduceKind::Min => xs.iter().fold(f64::INFINITY, |a, x| a.least(*x)),
        ReduceKind::Prod => xs.iter().product(),
        ReduceKind::L1 => sum(f64::abs),
        ReduceKind::L2 => sum(|x| x * x).sqrt(),
        ReduceKind::SumSquare => sum(|x| x * x),
        ReduceKind::LogSum => sum(|x| x).ln(),
        ReduceKind::LogSumExp => sum(f64::exp).ln(),
    }
}

fn run<T: Copy, R: Copy + Default>(
    isa: Isa,
    kind: ReduceKind,
    elem: Elem,
    l: &Layout,
    axes: &[bool],
    xs: &[T],
) -> Vec<R> {
    let kernel = Reduce::new(isa, kind, elem, &l.shape, &l.strides, axes).unwrap();
    let outputs: usize = l.shape.iter().zip(axes).filter(|(_, a)| !**a).map(|(d, _)| d).product();
    let mut out = vec![R::default(); outputs];
    for t in 0..kernel.tasks() {
        // SAFETY: the layout lies within its block.
        unsafe { kernel.run(t, xs.as_ptr().add(l.offset).cast(), out.as_mut_ptr().cast()) };
    }
    out
}

#[test]
fn floats() {
    let mut rng = Rng::new(21);
    for isa in Isa::detect().levels() {
        for kind in ReduceKind::ALL {
            for round in 0..40 {
                let shape = random::shape(&mut rng);
                let l = random::layout(&mut rng, &shape, true);
                let axes: Vec<bool> = shape.iter().map(|_| rng.below(2) == 0).collect();
                let mut xs: Vec<f32> = rng.floats(l.span);
                if kind == ReduceKind::LogSum {
                    xs.iter_mut().for_each(|x| *x = x.abs() + 0.01);
                }
                if round % 8 == 0 {
                    let i = rng.below(l.span);
                    xs[i] = f32::NAN;
                }
                let narrow: Vec<f16> = xs.iter().map(|x| f16::narrow(*x)).collect();
                let got: Vec<f32> = run(isa, kind, Elem::F32, &l, &axes, &xs);
                let got16: Vec<f16> = run(isa, kind, Elem::F16, &l, &axes, &narrow);
                for (k, group) in groups(&l, &axes).into_iter().enumerate() {
                    let check = |values: Vec<f64>, got: f64, unit: f64| {
                        let want = plain(kind, &values);
                        let size: f64 = match kind {
                            // The narrow type has no numbers below 6e-8.
                            ReduceKind::Prod => want.abs() * values.len() as f64 + 1e-4,
                            ReduceKind::Sum => values.iter().map(|x| x.abs()).sum(),
                            _ => want.abs() + 1.0,
                        };
                        let same = got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= unit * size;
                        assert!(same, "{isa:?} {kind:?} {l:?} {axes:?} [{k}]: {got}, not {want}");
                    };
                    // Sums of a few thousand terms lose a few roundings of the sum of magnitudes.
                    check(group.iter().map(|&i| f64::from(xs[i])).collect(), f64::from(got[k]), 1e-6);
                    check(group.iter().map(|&i| narrow[i].to_f64()).collect(), got16[k].to_f64(), 1e-3);
                }
            }
        }
    }
}

#[test]
fn other_types() {
    let mut rng = Rng::new(22);
    for _ in 0..60 {
        let shape = random::shape(&mut rng);
        let l = random::layout(&mut rng, &shape, true);
        let axes: Vec<bool> = shape.iter().map(|_| rng.below(2) == 0).collect();
        let ints: Vec<i32> = (0..l.span).map(|_| rng.next() as i32 >> 3).collect();
        let bytes: Vec<u8> = (0..l.span).map(|_| rng.next() as u8).collect();
        let bools: Vec<u8> = (0..l.span).map(|_| rng.below(8) as u8 / 7).collect();
        let doubles: Vec<f64> = (0..l.span).map(|_| f64::from(rng.float())).collect();
        let groups = groups(&l, &axes);
        let sums: Vec<i32> = run(Isa::SCALAR, ReduceKind::Sum, Elem::I32, &l, &axes, &ints);
        let tops: Vec<u8> = run(Isa::SCALAR, ReduceKind::Max, Elem::U8, &l, &axes, &bytes);
        let any: Vec<u8> = run(Isa::SCALAR, ReduceKind::Max, Elem::Bool, &l, &axes, &bools);
        let all: Vec<u8> = run(Isa::SCALAR, ReduceKind::Min, Elem::Bool, &l, &axes, &bools);
        let norms: Vec<f64> = run(Isa::SCALAR, ReduceKind::L2, Elem::F64, &l, &axes, &doubles);
        for (k, g) in groups.iter().enumerate() {
            assert_eq!(sums[k], g.iter().fold(0i32, |a, &i| a.wrapping_add(ints[i])));
            assert_eq!(tops[k], g.iter().map(|&i| bytes[i]).max().unwrap_or(0));
            assert_eq!(any[k], u8::from(g.iter().any(|&i| bools[i] != 0)));
            assert_eq!(all[k], u8::from(g.iter().all(|&i| bools[i] != 0)));
            let want = g.iter().map(|&i| doubles[i] * doubles[i]).sum::<f64>().sqrt();
            assert!((norms[k] - want).abs() <= 1e-12 * (want + 1.0));
        }
    }
}

#[test]
fn edges() {
    let l = |shape: &[usize]| {
        let strides = crate::kernels::nd::dense_strides(shape).to_vec();
        Layout { shape: shape.into(), strides, offset: 0, span: shape.iter().product() }
    };
    for isa in Isa::detect().levels() {
        let one = |kind, xs: &[f32]| run::<_, f32>(isa, kind, Elem::F32, &l(&[xs.len()]), &[true], xs)[0];
        assert_eq!(one(ReduceKind::Sum, &[]), 0.0);
        assert_eq!(one(ReduceKind::Prod, &[]), 1.0);
        assert_eq!(one(ReduceKind::Max, &[]), f32::NEG_INFINITY);
        assert_eq!(one(ReduceKind::Min, &[]), f32::INFINITY);
        assert_eq!(one(ReduceKind::LogSumExp, &[]), f32::NEG_INFINITY);
        assert!(one(ReduceKind::Mean, &[]).is_nan());
        let inf = f32::INFINITY;
        assert_eq!(one(ReduceKind::LogSumExp, &[-inf, -inf]), -inf);
        assert_eq!(one(ReduceKind::LogSumExp, &[1.0, inf]), inf);
        assert_eq!(one(ReduceKind::LogSumExp, &[1000.0; 3]), 1000.0 + 3f32.ln());
        // Sixteen million ones: an f32 sum that went one by one would stop at 2^24.
        assert_eq!(one(ReduceKind::Sum, &vec![1.0; 17_000_000]), 17_000_000.0);
        let tall = vec![1.0f32; 4 * 5_000_000];
        let sums: Vec<f32> = run(isa, ReduceKind::Sum, Elem::F32, &l(&[5_000_000, 4]), &[true, false], &tall);
        assert_eq!(sums, [5_000_000.0; 4]);
    }
}
