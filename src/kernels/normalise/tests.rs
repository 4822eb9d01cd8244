//! Normalisations against f64 loops, in all float types, at every level.

use super::*;
use crate::kernels::elem::{Elem, Narrow};
use crate::kernels::isa::Isa;
use crate::kernels::testing::Rng;
use half::{bf16, f16};

/// Numbers as bytes of a type, and back.
fn encode(elem: Elem, xs: &[f32]) -> Vec<u8> {
    let one = |x: &f32| match elem {
        Elem::F64 => f64::from(*x).to_ne_bytes().to_vec(),
        Elem::F16 => f16::narrow(*x).to_ne_bytes().to_vec(),
        Elem::Bf16 => bf16::narrow(*x).to_ne_bytes().to_vec(),
        _ => x.to_ne_bytes().to_vec(),
    };
    xs.iter().flat_map(one).collect()
}
fn decode(elem: Elem, bytes: &[u8]) -> Vec<f64> {
    let one = |b: &[u8]| match elem {
        Elem::F64 => f64::from_ne_bytes(b.try_into().unwrap()),
        Elem::F16 => f16::from_ne_bytes(b.try_into().unwrap()).to_f64(),
        Elem::Bf16 => bf16::from_ne_bytes(b.try_into().unwrap()).to_f64(),
        _ => f64::from(f32::from_ne_bytes(b.try_into().unwrap())),
    };
    bytes.chunks(elem.size()).map(one).collect()
}

/// Half a unit in the last place of the type near 1, and a few roundings of f32.
fn unit(elem: Elem) -> f64 {
    match elem {
        Elem::F64 => 1e-14,
        Elem::F16 => 5e-4,
        Elem::Bf16 => 4e-3,
        _ => 1e-6,
    }
}

const FLOATS: [Elem; 4] = [Elem::F32, Elem::F64, Elem::F16, Elem::Bf16];

fn assert_near(what: &str, got: f64, want: f64, tol: f64) {
    assert!(got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tol, "{what}: {got}, not {want}");
}

#[test]
fn softmaxes() {
    let mut rng = Rng::new(31);
    let shapes =
        [(1, 1, 1), (3, 10, 1), (2, 1000, 1), (5, 33, 1), (2, 7, 40), (1, 12, 16), (3, 5, 3), (2, 0, 4), (0, 3, 1)];
    for isa in Isa::detect().levels() {
        for (outer, axis, inner) in shapes.into_iter().chain([(700, 64, 1), (40, 9, 200)]) {
            for kind in [SoftmaxKind::Softmax, SoftmaxKind::Log, SoftmaxKind::Hard] {
                for elem in FLOATS {
                    let n = outer * axis * inner;
                    let mut xs: Vec<f32> = (0..n).map(|_| rng.float() * 20.0).collect();
                    if n > 30 {
                        xs[rng.below(n)] = f32::NEG_INFINITY;
                        xs[rng.below(n)] = f32::NAN;
                    }
                    let mut data = encode(elem, &xs);
                    let exact = decode(elem, &data);
                    let kernel = Softmax::new(isa, kind, elem, outer, axis, inner).unwrap();
                    let mut scratch = vec![0.0f32; kernel.scratch_bytes() / 4];
                    let p = data.as_mut_ptr();
                    for t in 0..kernel.tasks() {
                        // SAFETY: the array has the shape; it is its own result.
                        unsafe { kernel.run(t, p, p, scratch.as_mut_ptr().cast()) };
                    }
                    let got = decode(elem, &data);
                    for (o, j) in (0..outer).flat_map(|o| (0..inner).map(move |j| (o, j))) {
                        let at: Vec<usize> = (0..axis).map(|i| (o * axis + i) * inner + j).collect();
                        let nan = at.iter().any(|&i| exact[i].is_nan());
                        let top = at.iter().map(|&i| exact[i]).fold(f64::NEG_INFINITY, f64::max);
                        let best = at.iter().position(|&i| if nan { exact[i].is_nan() } else { exact[i] == top });
                        let sum: f64 = at.iter().map(|&i| (exact[i] - top).exp()).sum();
                        for (k, &i) in at.iter().enumerate() {
                            let log = exact[i] - top - sum.ln();
                            let want = match kind {
                                SoftmaxKind::Hard => f64::from(u8::from(Some(k) == best)),
                                _ if nan => f64::NAN,
                                SoftmaxKind::Softmax => (exact[i] - top).exp() / sum,
                                SoftmaxKind::Log => log,
                            };
                            let what = format!("{isa:?} {kind:?} {elem:?} {outer} {axis} {inner} [{i}]");
                            // A logarithm near zero has the rounding of a sum near one.
                            let least = if kind == SoftmaxKind::Log { 0.2 } else { 1e-3 };
                            assert_near(&what, got[i], want, unit(elem) * want.abs().clamp(least, 1e9) * 2.0);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn layers() {
    let mut rng = Rng::new(32);
    for isa in Isa::detect().levels() {
        for (rows, len) in [(1, 1), (3, 17), (50, 768), (2, 5000), (0, 4), (4, 0)] {
            for kind in [LayerNormKind::Layer, LayerNormKind::Rms, LayerNormKind::Length] {
                for (elem, affine) in FLOATS.into_iter().flat_map(|e| [(e, false), (e, true)]) {
                    let xs: Vec<f32> = (0..rows * len).map(|_| rng.float() * 3.0 + 1.0).collect();
                    let (scale, bias) = (encode(elem, &rng.floats(len)), encode(elem, &rng.floats(len)));
                    let data = encode(elem, &xs);
                    let mut out = vec![0u8; data.len()];
                    let kernel = LayerNorm::new(isa, kind, elem, rows, len, 1e-5).unwrap();
                    let mut scratch = vec![0.0f32; kernel.scratch_bytes() / 4];
                    let wide = if elem == Elem::F64 { Elem::F64 } else { Elem::F32 };
                    let (mut mean, mut inverse) = (vec![0u8; rows * wide.size()], vec![0u8; rows * wide.size()]);
                    let null = std::ptr::null();
                    let p = LayerNormPointers {
                        from: data.as_ptr(),
                        scale: if affine { scale.as_ptr() } else { null },
                        bias: if affine { bias.as_ptr() } else { null },
                        to: out.as_mut_ptr(),
                        mean: mean.as_mut_ptr(),
                        inverse: inverse.as_mut_ptr(),
                    };
                    for t in 0..kernel.tasks() {
                        // SAFETY: the arrays have the shape.
                        unsafe { kernel.run(t, p, scratch.as_mut_ptr().cast()) };
                    }
                    let (x, y) = (decode(elem, &data), decode(elem, &out));
                    let (scale, bias) = (decode(elem, &scale), decode(elem, &bias));
                    let (mean, inverse) = (decode(wide, &mean), decode(wide, &inverse));
                    for r in 0..rows {
                        let row = &x[r * len..(r + 1) * len];
                        let m = if kind == LayerNormKind::Layer { row.iter().sum::<f64>() / len as f64 } else { 0.0 };
                        let v = row.iter().map(|x| (x - m).powi(2)).sum::<f64>();
                        let k = match kind {
                            LayerNormKind::Length => 1.0 / v.sqrt().max(1e-5),
                            _ => 1.0 / (v / len as f64 + 1e-5).sqrt(),
                        };
                        let what = format!("{isa:?} {kind:?} {elem:?} {rows} {len}");
                        assert_near(&what, mean[r], m, 1e-6);
                        assert_near(&what, inverse[r], k, 2e-6 * k.abs());
                        for i in 0..len {
                            let (s, b) = if affine { (scale[i], bias[i]) } else { (1.0, 0.0) };
                            let want = (row[i] - m) * k * s + b;
                            assert_near(
                                &what,
                                y[r * len + i],
                                want,
                                unit(elem) * (1.0 + want.abs()) * k.clamp(1.0, 400.0),
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn groups() {
    let mut rng = Rng::new(33);
    for isa in Isa::detect().levels() {
        for (batch, channels, space, groups) in
            [(2, 6, 35, 3), (1, 4, 1000, 4), (3, 5, 7, 1), (1, 2, 0, 1), (0, 2, 3, 2)]
        {
            for elem in FLOATS {
                let xs: Vec<f32> = (0..batch * channels * space).map(|_| rng.float() + 5.0).collect();
                let (scale, bias) = (encode(elem, &rng.floats(channels)), encode(elem, &rng.floats(channels)));
                let data = encode(elem, &xs);
                let mut out = vec![0u8; data.len()];
                let kernel = GroupNorm::new(isa, elem, batch, channels, space, groups, 1e-5).unwrap();
                for t in 0..kernel.tasks() {
                    // SAFETY: the arrays have the shape.
                    unsafe { kernel.run(t, data.as_ptr(), scale.as_ptr(), bias.as_ptr(), out.as_mut_ptr()) };
                }
                let (x, y) = (decode(elem, &data), decode(elem, &out));
                let (scale, bias) = (decode(elem, &scale), decode(elem, &bias));
                let len = channels / groups * space;
                for g in 0..if space == 0 { 0 } else { batch * groups } {
                    let group = &x[g * len..(g + 1) * len];
                    let m = group.iter().sum::<f64>() / len as f64;
                    let v = group.iter().map(|x| (x - m).powi(2)).sum::<f64>() / len as f64;
                    for i in 0..len {
                        let c = g % groups * (channels / groups) + i / space;
                        let want = (group[i] - m) / (v + 1e-5).sqrt() * scale[c] + bias[c];
                        // The mean is five times the deviation, which the differences inherit.
                        assert_near("group", y[g * len + i], want, unit(elem) * 5.0 * (1.0 + want.abs()));
                    }
                }
            }
        }
    }
    assert!(GroupNorm::new(Isa::SCALAR, Elem::F32, 1, 5, 2, 2, 0.0).is_err());
    assert!(GroupNorm::new(Isa::SCALAR, Elem::F32, 1, 5, 2, 0, 0.0).is_err());
}
