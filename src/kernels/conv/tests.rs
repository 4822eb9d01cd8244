//! Each convolution kernel against nested loops, at every level, in memory that traps stray accesses.

use super::blocked::{BlockedConv, Input};
use super::dense::DenseConv;
use super::depthwise::DepthwiseConv;
use super::*;
use crate::kernels::gemm::tests::{own, scalar};
use crate::kernels::isa::Isa;
use crate::kernels::testing::{Guarded, Rng, assert_close};

/// The convolution in f64, and the sum of magnitudes from which the tolerance follows.
pub(super) fn naive(s: &ConvSpec, x: &[f32], w: &[f32], bias: &[f32], res: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (ci, co) = (s.c_in / s.groups, s.c_out / s.groups);
    let (mut out, mut mag) = (Vec::new(), Vec::new());
    for n in 0..s.n {
        for oc in 0..s.c_out {
            for o in 0..s.out_size() {
                let at = [o / s.output[2] / s.output[1], o / s.output[2] % s.output[1], o % s.output[2]];
                let (mut sum, mut abs) = (0f64, 0f64);
                for ic in 0..ci {
                    for t in 0..s.taps() {
                        let k = [t / s.kernel[2] / s.kernel[1], t / s.kernel[2] % s.kernel[1], t % s.kernel[2]];
                        let mut i = 0;
                        let mut inside = true;
                        for d in 0..3 {
                            let p = (at[d] * s.stride[d] + k[d] * s.dilation[d]) as isize - s.pad[d] as isize;
                            inside &= p >= 0 && p < s.input[d] as isize;
                            i = i * s.input[d] as isize + p;
                        }
                        if inside {
                            let c = oc / co * ci + ic;
                            let v = x[(n * s.c_in + c) * s.in_size() + i as usize] as f64
                                * w[(oc * ci + ic) * s.taps() + t] as f64;
                            sum += v;
                            abs += v.abs();
                        }
                    }
                }
                let b = if s.bias { bias[oc] as f64 } else { 0.0 };
                let r = if s.residual { res[out.len()] as f64 } else { 0.0 };
                out.push(match s.residual_last {
                    true => scalar(s.activation, (sum + b) as f32) + r as f32,
                    false => scalar(s.activation, (sum + b + r) as f32),
                });
                mag.push((abs + b.abs() + r.abs()) as f32);
            }
        }
    }
    (out, mag)
}

/// The textbook bound of a sum of `terms` products, doubled for the activation's roundings.
pub(super) fn bound(s: &ConvSpec) -> f32 {
    (s.c_in / s.groups * s.taps() + 4) as f32 * f32::EPSILON
}

pub(super) struct Data {
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub bias: Vec<f32>,
    pub res: Vec<f32>,
}

pub(super) fn data(s: &ConvSpec, rng: &mut Rng) -> Data {
    Data {
        x: rng.floats(s.n * s.c_in * s.in_size()),
        w: rng.floats(s.c_out * (s.c_in / s.groups) * s.taps()),
        bias: rng.floats(if s.bias { s.c_out } else { 0 }),
        res: rng.floats(if s.residual { s.n * s.c_out * s.out_size() } else { 0 }),
    }
}

/// A random shape; `dims` spatial dimensions.
pub(super) fn random_spec(rng: &mut Rng, dims: usize) -> ConvSpec {
    let groups = [1, 1, 1, 2, 3][rng.below(5)];
    let depthwise = rng.below(6) == 0;
    let (ci, co) = (1 + rng.below(20), 1 + rng.below(40));
    let residual = rng.below(2) == 0;
    let mut s = ConvSpec {
        groups,
        bias: rng.below(2) == 0,
        residual,
        residual_last: residual && rng.below(2) == 0,
        activation: [Activation::None, Activation::Relu, Activation::HardSwish, Activation::Sigmoid][rng.below(4)],
        ..ConvSpec::square(rng.below(3), [ci * groups, co * groups], [1, 1], 1, 1, 0)
    };
    if depthwise {
        (s.groups, s.c_in, s.c_out) = (ci, ci, ci * (1 + rng.below(2)));
    }
    for d in 3 - dims..3 {
        s.kernel[d] = 1 + rng.below(if dims == 3 { 3 } else { 5 });
        s.stride[d] = 1 + rng.below(3);
        s.dilation[d] = 1 + rng.below(2);
        s.pad[d] = rng.below(4);
        s.input[d] = 1 + rng.below([0, 60, 24, 8][dims]);
        // Any output size is allowed: what lies outside the input counts as zero.
        let reach = (s.kernel[d] - 1) * s.dilation[d] + 1;
        s.output[d] = ((s.input[d] + 2 * s.pad[d]).saturating_sub(reach) / s.stride[d]) + rng.below(3);
    }
    s
}

fn check_dense(s: &ConvSpec, rng: &mut Rng, at_end: bool) {
    let d = data(s, rng);
    let (want, mag) = naive(s, &d.x, &d.w, &d.bias, &d.res);
    let [x, w, bias, res] = [&d.x, &d.w, &d.bias, &d.res].map(|v| Guarded::new(v, at_end));
    for isa in Isa::detect().levels() {
        let conv = DenseConv::new(isa, *s).unwrap();
        let y = Guarded::nan(want.len(), at_end);
        let p = ConvPtrs { x: x.ptr, w: w.ptr, y: y.ptr, bias: bias.ptr, residual: res.ptr };
        for task in (0..conv.tasks(0)).rev() {
            let scratch = Guarded::nan(conv.scratch_bytes() / 4, true);
            // SAFETY: the buffers have the lengths that the spec and the plan ask for.
            unsafe { conv.run(0, task, &p, std::ptr::null_mut(), scratch.ptr.cast()) };
        }
        assert_close(&format!("{s:?}"), isa, y.slice(), &want, |i| bound(s) * mag[i] + own(s.activation));
    }
}

#[test]
fn dense_random_shapes() {
    let mut rng = Rng::new(21);
    for round in 0..120 {
        let s = random_spec(&mut rng, 1 + round % 3);
        check_dense(&s, &mut rng, round % 2 == 0);
    }
}

#[test]
fn dense_several_tasks_and_blocks() {
    let mut rng = Rng::new(22);
    let base = ConvSpec {
        bias: true,
        residual: true,
        activation: Activation::Relu,
        ..ConvSpec::square(1, [70, 150], [19, 23], 3, 1, 1)
    };
    check_dense(&base, &mut rng, true);
    check_dense(&ConvSpec { n: 2, ..ConvSpec::square(1, [3, 32], [64, 64], 7, 2, 3) }, &mut rng, true);
    check_dense(&ConvSpec::square(1, [600, 33], [9, 9], 1, 1, 0), &mut rng, true);
}

/// `[n][channels][size]` as `[n][blocks][size][c]`, padding lanes zero. Groups of channels fill whole blocks or there is one.
pub(crate) fn to_blocked(x: &[f32], n: usize, channels: usize, size: usize, c: usize) -> Vec<f32> {
    let blocks = channels.div_ceil(c);
    let mut out = vec![0.0; n * blocks * size * c];
    for i in 0..n {
        for ch in 0..channels {
            for p in 0..size {
                out[((i * blocks + ch / c) * size + p) * c + ch % c] = x[(i * channels + ch) * size + p];
            }
        }
    }
    out
}

fn check_blocked(s: &ConvSpec, input: Input, rng: &mut Rng, at_end: bool, in_place: bool) {
    let d = data(s, rng);
    let (want, mag) = naive(s, &d.x, &d.w, &d.bias, &d.res);
    for isa in Isa::detect().levels() {
        if !BlockedConv::supports(isa, s, input) {
            continue;
        }
        let (c, conv) = (isa.f32_lanes(), BlockedConv::new(isa, *s, input).unwrap());
        let blocked = |v: &[f32], channels, size| to_blocked(v, s.n, channels, size, c);
        let x = if input == Input::Dense { d.x.clone() } else { blocked(&d.x, s.c_in, s.in_size()) };
        let x = Guarded::new(&x, at_end);
        let w = Guarded::new(&d.w, at_end);
        let packed = Guarded::nan(conv.packed_bytes() / 4, at_end);
        // SAFETY: as long as the plan asks.
        unsafe { conv.pack(w.ptr, packed.ptr) };
        let mut bias = d.bias.clone();
        bias.resize(if s.bias { conv.bias_len() } else { 0 }, 0.0);
        let bias = Guarded::new(&bias, at_end);
        let res = if s.residual { blocked(&d.res, s.c_out, s.out_size()) } else { Vec::new() };
        let (want, mag) = (blocked(&want, s.c_out, s.out_size()), blocked(&mag, s.c_out, s.out_size()));
        // A residual that is added last is none that the result may take the place of.
        let in_place = in_place && !s.residual_last;
        let y = if in_place && s.residual { res.clone() } else { vec![f32::NAN; want.len()] };
        let (y, res) = (Guarded::new(&y, at_end), Guarded::new(&res, at_end));
        let residual = if in_place { y.ptr } else { res.ptr };
        let p = ConvPtrs { x: x.ptr, w: packed.ptr, y: y.ptr, bias: bias.ptr, residual };
        for task in (0..conv.tasks(0)).rev() {
            let scratch = Guarded::nan(conv.scratch_bytes() / 4, true);
            // SAFETY: the buffers have the lengths that the spec and the plan ask for.
            unsafe { conv.run(0, task, &p, std::ptr::null_mut(), scratch.ptr.cast()) };
        }
        assert_close(&format!("{input:?} {s:?}"), isa, y.slice(), &want, |i| bound(s) * mag[i] + own(s.activation));
    }
}

#[test]
fn blocked_random_shapes() {
    let mut rng = Rng::new(31);
    for round in 0..160 {
        let mut s = random_spec(&mut rng, 1 + round % 2);
        if s.groups > 1 {
            (s.groups, s.c_in, s.c_out) = (2, 32, 64);
        }
        if round % 5 == 0 {
            s.activation = [Activation::Clip { min: 0.5, max: 2.0 }, Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }]
                [rng.below(2)];
        }
        check_blocked(&s, Input::Blocked, &mut rng, round % 2 == 0, round % 3 == 0);
        s.groups = 1;
        s.c_in = 1 + rng.below(7);
        s.dilation[2] = 1;
        check_blocked(&s, Input::Dense, &mut rng, round % 2 == 0, false);
    }
}

#[test]
fn blocked_shapes_of_networks() {
    let mut rng = Rng::new(32);
    let full = |s: ConvSpec| ConvSpec { bias: true, residual: true, activation: Activation::Relu, ..s };
    for (c, size, kernel, stride, pad) in [
        ([64, 64], [14, 14], 3, 1, 1),
        ([256, 64], [7, 7], 1, 1, 0),
        ([64, 130], [14, 13], 1, 2, 0),
        ([300, 48], [7, 7], 3, 1, 1),
        ([40, 40], [9, 31], 5, 2, 2),
        ([16, 16], [3, 3], 7, 1, 3),
        ([17, 33], [1, 1], 3, 1, 1),
    ] {
        check_blocked(&full(ConvSpec::square(1, c, size, kernel, stride, pad)), Input::Blocked, &mut rng, true, true);
    }
    check_blocked(&full(ConvSpec::square(2, [3, 64], [56, 50], 7, 2, 3)), Input::Dense, &mut rng, true, false);
    check_blocked(&ConvSpec::square(1, [1, 20], [30, 150], 3, 1, 1), Input::Dense, &mut rng, true, false);
}

#[test]
fn depthwise_random_shapes() {
    let mut rng = Rng::new(41);
    for round in 0..120 {
        let mut s = random_spec(&mut rng, 1 + round % 2);
        let c = 1 + rng.below(40);
        (s.groups, s.c_in, s.c_out) = (c, c, c);
        if round % 4 == 0 {
            s.activation = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };
        }
        if round == 0 {
            s = ConvSpec { groups: 40, bias: true, ..ConvSpec::square(2, [40, 40], [112, 112], 3, 2, 1) };
        }
        let (d, at_end) = (data(&s, &mut rng), round % 2 == 0);
        let (want, mag) = naive(&s, &d.x, &d.w, &d.bias, &d.res);
        for isa in Isa::detect().levels() {
            let (c, conv) = (isa.f32_lanes(), DepthwiseConv::new(isa, s).unwrap());
            let lay = |v: &[f32], size| to_blocked(v, s.n, s.c_in, size, c);
            let (x, w) = (Guarded::new(&lay(&d.x, s.in_size()), at_end), Guarded::new(&d.w, at_end));
            let packed = Guarded::nan(conv.packed_bytes() / 4, at_end);
            // SAFETY: as long as the plan asks.
            unsafe { conv.pack(w.ptr, packed.ptr) };
            let mut bias = d.bias.clone();
            bias.resize(if s.bias { conv.bias_len() } else { 0 }, 0.0);
            let bias = Guarded::new(&bias, at_end);
            let (want, mag) = (lay(&want, s.out_size()), lay(&mag, s.out_size()));
            // The residual may be the output, unless it is added last.
            let y = if s.residual { lay(&d.res, s.out_size()) } else { vec![f32::NAN; want.len()] };
            let (y, apart) = (Guarded::new(&y, at_end), Guarded::new(&y, at_end));
            let residual = if s.residual_last { apart.ptr } else { y.ptr };
            let p = ConvPtrs { x: x.ptr, w: packed.ptr, y: y.ptr, bias: bias.ptr, residual };
            for task in (0..conv.tasks(0)).rev() {
                // SAFETY: the buffers have the lengths that the spec and the plan ask for.
                unsafe { conv.run(0, task, &p, std::ptr::null_mut(), std::ptr::null_mut()) };
            }
            assert_close(&format!("{s:?}"), isa, y.slice(), &want, |i| bound(&s) * mag[i] + own(s.activation));
        }
    }
}
