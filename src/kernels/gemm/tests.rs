//! The planned product against three nested loops, at every level, in memory that traps stray accesses.

use super::*;
use crate::kernels::testing::{Guarded, Rng, assert_close};
use crate::kernels::vmath::scalar::{erf64, sigmoid64, softplus64};

struct Case {
    spec: GemmSpec,
    /// Lengths of A, B, C, bias, residual.
    len: [usize; 5],
}

/// The product in f64, and the sum of magnitudes from which the tolerance follows.
fn naive(case: &Case, a: &[f32], b: &[f32], c: &[f32], bias: &[f32], res: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (s, mut out, mut mag) = (&case.spec, c.to_vec(), vec![0.0; c.len()]);
    for item in 0..s.batch.dims.iter().product() {
        let at = s.batch.unravel(item);
        for i in 0..s.m {
            for j in 0..s.n {
                let (mut sum, mut abs) = (0f64, 0f64);
                for p in 0..s.k {
                    let x = a[dot(at, s.batch.a) + i * s.a.row + p * s.a.col] as f64;
                    let y = b[dot(at, s.batch.b) + p * s.b.row + j * s.b.col] as f64;
                    sum += x * y * s.alpha as f64;
                    abs += (x * y * s.alpha as f64).abs();
                }
                let add = match s.epilogue.bias {
                    Bias::None => 0.0,
                    Bias::Column => bias[dot(at, s.batch.bias) + j],
                    Bias::Row => bias[dot(at, s.batch.bias) + i],
                } as f64;
                let r = if s.epilogue.residual {
                    res[dot(at, s.batch.residual) + i * s.residual_row + j] as f64
                } else {
                    0.0
                };
                let o = dot(at, s.batch.c) + i * s.c_row + j;
                out[o] = scalar(s.epilogue.activation, (sum + add + r) as f32);
                mag[o] = (abs + add.abs() + r.abs()) as f32;
            }
        }
    }
    (out, mag)
}

pub(crate) fn scalar(act: Activation, x: f32) -> f32 {
    let hs = |x: f32, a: f32, b: f32| if x.is_nan() { x } else { (a * x + b).clamp(0.0, 1.0) };
    match act {
        Activation::None => x,
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Clip { min, max } => {
            if x < min {
                min
            } else if x > max {
                max
            } else {
                x
            }
        }
        Activation::LeakyRelu { alpha } => {
            if x < 0.0 {
                x * alpha
            } else {
                x
            }
        }
        Activation::HardSigmoid { alpha, beta } => hs(x, alpha, beta),
        Activation::HardSwish => x * hs(x, 1.0 / 6.0, 0.5),
        Activation::Sigmoid => sigmoid64(x as f64) as f32,
        Activation::Tanh => (x as f64).tanh() as f32,
        Activation::Swish { alpha } => (x as f64 * sigmoid64((x * alpha) as f64)) as f32,
        Activation::Gelu => (0.5 * x as f64 * (1.0 + erf64(x as f64 * std::f64::consts::FRAC_1_SQRT_2))) as f32,
        Activation::GeluTanh => {
            let x = x as f64;
            (0.5 * x * (1.0 + (0.7978845608028654 * (x + 0.044715 * x * x * x)).tanh())) as f32
        }
        Activation::Elu { alpha } if x < 0.0 => (alpha as f64 * (x as f64).exp_m1()) as f32,
        Activation::Elu { .. } => x,
        Activation::Mish => (x as f64 * softplus64(x as f64).tanh()) as f32,
    }
}

/// Runs all tasks of all phases, last task first: no order may matter.
pub(crate) fn run_all(g: &Gemm, p: &GemmPtrs) {
    let work = Guarded::nan(g.workspace_bytes() / 4, true);
    for phase in 0..g.phases() {
        for task in (0..g.tasks(phase)).rev() {
            let scratch = Guarded::nan(g.scratch_bytes() / 4, true);
            // SAFETY: the buffers have the lengths that the spec and the plan ask for.
            unsafe { g.run(phase, task, p, work.ptr.cast(), scratch.ptr.cast()) };
        }
    }
}

fn check(case: &Case, rng: &mut Rng, at_end: bool, in_place: bool) {
    let s = &case.spec;
    let a = Guarded::new(&rng.floats(case.len[0]), at_end);
    let b = Guarded::new(&rng.floats(case.len[1]), at_end);
    let bias = Guarded::new(&rng.floats(case.len[3]), at_end);
    let res = Guarded::new(&rng.floats(case.len[4]), at_end);
    let fresh = vec![-77.0; case.len[2]];
    let before = if in_place { res.slice().to_vec() } else { fresh };
    let (want, mag) = naive(case, a.slice(), b.slice(), &before, bias.slice(), res.slice());
    for isa in Isa::detect().levels() {
        let g = Gemm::new(isa, *s).unwrap();
        let c = Guarded::new(&before, at_end);
        let packed = Guarded::nan(g.packed_bytes() / 4, at_end);
        if s.b_constant {
            // SAFETY: as long as the plan asks.
            unsafe { g.pack(b.ptr, packed.ptr) };
        }
        let residual = if in_place { c.ptr } else { res.ptr };
        let b_ptr = if s.b_constant { packed.ptr } else { b.ptr };
        run_all(&g, &GemmPtrs { a: a.ptr, b: b_ptr, c: c.ptr, bias: bias.ptr, residual });
        // Each of k products and k + 2 sums rounds once at relative eps / 2 of at most the sum of magnitudes: the textbook bound
        // (k + 3) * eps / 2 * mag, doubled for the activations' slopes (at most 2 here); 8 more eps for their own error, relative
        // to their argument, of which the sum of magnitudes is a bound, or to one.
        let bound = (s.k + 12) as f32 * f32::EPSILON;
        assert_close(&format!("{s:?}"), isa, c.slice(), &want, |i| bound * mag[i] + own(s.epilogue.activation));
    }
}

/// The absolute error of an activation near zero, where it may be large beside its argument.
pub(crate) fn own(act: Activation) -> f32 {
    if act.is_clamp() { 1e-30 } else { 4.0 * f32::EPSILON }
}

fn simple(spec: GemmSpec) -> Case {
    let s = &spec;
    let extent = |r: usize, c: usize, st: Strides| if r * c == 0 { 0 } else { (r - 1) * st.row + (c - 1) * st.col + 1 };
    let rows = |row: usize| if s.m * s.n == 0 { 0 } else { (s.m - 1) * row + s.n };
    let bias = match s.epilogue.bias {
        Bias::None => 0,
        Bias::Column => s.n,
        Bias::Row => s.m,
    };
    let res = if s.epilogue.residual { rows(s.residual_row) } else { 0 };
    Case { len: [extent(s.m, s.k, s.a), extent(s.k, s.n, s.b), rows(s.c_row), bias, res], spec }
}

const ACTS: [Activation; 13] = [
    Activation::None,
    Activation::Relu,
    Activation::Clip { min: -0.25, max: 1.5 },
    Activation::LeakyRelu { alpha: 0.1 },
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
    Activation::HardSwish,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Swish { alpha: 1.5 },
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Elu { alpha: 0.7 },
    Activation::Mish,
];

#[test]
fn random_shapes_strides_and_epilogues() {
    let mut rng = Rng::new(7);
    for round in 0..220 {
        let size = |rng: &mut Rng| match rng.below(12) {
            0 => 0,
            1 => 1,
            2..8 => 1 + rng.below(40),
            _ => 1 + rng.below(150),
        };
        let (m, n) = (size(&mut rng), size(&mut rng));
        let k = if round % 20 == 0 { 500 + rng.below(700) } else { size(&mut rng) };
        let strides = |rng: &mut Rng, r: usize, c: usize| {
            let pad = rng.below(2) * rng.below(5);
            match rng.below(5) {
                0 => Strides { row: 1, col: r.max(1) + pad },
                1 => Strides { row: 2 * (c.max(1) + pad), col: 2 },
                _ => Strides { row: c.max(1) + pad, col: 1 },
            }
        };
        let spec = GemmSpec {
            a: strides(&mut rng, m, k),
            b: strides(&mut rng, k, n),
            c_row: n + rng.below(2) * 3,
            residual_row: if rng.below(3) == 0 { 0 } else { n + rng.below(3) },
            b_constant: rng.below(2) == 0,
            alpha: if rng.below(3) == 0 { 0.5 } else { 1.0 },
            epilogue: Epilogue {
                bias: [Bias::None, Bias::Column, Bias::Row][rng.below(3)],
                residual: rng.below(2) == 0,
                activation: ACTS[rng.below(ACTS.len())],
            },
            ..GemmSpec::dense(m, n, k)
        };
        check(&simple(spec), &mut rng, round % 2 == 0, false);
    }
}

#[test]
fn every_tile_height_and_source() {
    let mut rng = Rng::new(8);
    for m in 1..=30 {
        for (n, k) in [(33, 9), (64, 16), (100, 5)] {
            for b_constant in [false, true] {
                check(&simple(GemmSpec { b_constant, ..GemmSpec::dense(m, n, k) }), &mut rng, true, false);
            }
        }
    }
    // Large enough for several tasks in both directions, several blocks of K, and a packing phase.
    for (m, n, k) in [(300, 520, 70), (700, 40, 600), (1, 2000, 600), (3, 700, 1100), (150, 300, 1030)] {
        for b_constant in [false, true] {
            let base = GemmSpec { b_constant, ..GemmSpec::dense(m, n, k) };
            check(&simple(base), &mut rng, true, false);
            check(
                &simple(GemmSpec { a: Strides::transposed(m), b: Strides::transposed(k), ..base }),
                &mut rng,
                true,
                false,
            );
        }
    }
}

#[test]
fn residual_in_place() {
    let mut rng = Rng::new(9);
    for (m, n, k) in [(5, 17, 3), (40, 100, 1200), (200, 260, 64)] {
        let epilogue = Epilogue { bias: Bias::Column, residual: true, activation: Activation::Relu };
        check(&simple(GemmSpec { epilogue, ..GemmSpec::dense(m, n, k) }), &mut rng, true, true);
    }
}

#[test]
fn batches_broadcast() {
    let mut rng = Rng::new(10);
    for (m, n, k) in [(3, 5, 4), (20, 40, 16), (70, 90, 33)] {
        for b_constant in [false, true] {
            let (a, b, c) = (m * k, k * n, m * n);
            for (sa, sb, items) in [
                ([0, 0, a, 0], [b, 0, 0, 0], [2, 1, 3, 1]),
                ([0, 0, 2 * a, a], [0, 0, 0, b], [1, 1, 5, 2]),
                ([0, 0, 0, a], [0, 0, 0, 0], [1, 1, 1, 7]),
            ] {
                let inner: usize = items[3];
                let batch = Batch {
                    dims: items,
                    a: sa,
                    b: sb,
                    c: [items[2] * inner * c, 0, inner * c, c],
                    bias: [0, 0, 0, n],
                    residual: [0; 4],
                };
                let last = |s: [usize; 4], len: usize| (0..4).map(|d| (items[d] - 1) * s[d]).sum::<usize>() + len;
                let epilogue = Epilogue { bias: Bias::Column, residual: true, activation: Activation::None };
                let spec = GemmSpec { batch, b_constant, epilogue, ..GemmSpec::dense(m, n, k) };
                let len = [last(sa, a), last(sb, b), last(batch.c, c), last(batch.bias, n), c];
                check(&Case { spec, len }, &mut rng, true, false);
            }
        }
    }
}

#[test]
fn nan_and_infinity_keep_their_meaning() {
    for isa in Isa::detect().levels() {
        for activation in ACTS {
            let spec =
                GemmSpec { epilogue: Epilogue { activation, ..Epilogue::default() }, ..GemmSpec::dense(2, 3, 2) };
            let a = [1.0, 0.0, 1.0, 1.0];
            let b = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0, 1.0, 1.0];
            let mut c = [0.0; 6];
            let g = Gemm::new(isa, spec).unwrap();
            let none = std::ptr::null();
            run_all(&g, &GemmPtrs { a: a.as_ptr(), b: b.as_ptr(), c: c.as_mut_ptr(), bias: none, residual: none });
            let row = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|x| scalar(activation, x));
            assert_close("specials", isa, &c, &[row, row].concat(), |_| 0.0);
        }
    }
}

/// A stack without matrices has none to pack, however large each would be.
#[test]
fn an_empty_stack_packs_nothing() {
    let one = GemmSpec::dense(2, 4, 3);
    let batch = Batch { dims: [1, 1, 1, 0], b: [0, 0, 0, 12], ..one.batch };
    let spec = GemmSpec { b_constant: true, batch, ..one };
    for isa in Isa::detect().levels() {
        let gemm = Gemm::new(isa, spec).unwrap();
        assert_eq!(gemm.packed_bytes(), 0);
        // SAFETY: nothing is read or written.
        unsafe { gemm.pack(std::ptr::null(), std::ptr::null_mut()) };
    }
}

/// No rows are no work, however much a row would be; no more are no columns, or no steps.
#[test]
fn empty_products_have_nothing_to_do() {
    for isa in Isa::detect().levels() {
        for (m, n, k) in [(0, 4096, 4096), (4096, 0, 4096), (0, 0, 0)] {
            for b_constant in [false, true] {
                let gemm = Gemm::new(isa, GemmSpec { b_constant, ..GemmSpec::dense(m, n, k) }).unwrap();
                assert_eq!(gemm.tasks(gemm.phases() - 1), 0);
            }
        }
    }
}

#[test]
fn impossible_sizes_are_errors() {
    let huge = 1 << 40;
    assert!(Gemm::new(Isa::SCALAR, GemmSpec::dense(huge, huge, 1)).is_err());
    assert!(Gemm::new(Isa::SCALAR, GemmSpec::dense(1, huge, huge)).is_err());
    assert!(Gemm::new(Isa::SCALAR, GemmSpec::dense(huge, 1, huge)).is_err());
}
