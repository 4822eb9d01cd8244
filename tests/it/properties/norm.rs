//! Normalisations and softmax.

use super::draw::{Draw, case};
use super::family;
use super::reference::{Array, indices};
use ortx::DType::{self, *};
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};

const FLOATS: [DType; 4] = [F32, F64, F16, BF16];

/// An array changed part by part: `key` names the part of an index, `f` maps the values of a part.
fn by_parts(x: &Array, key: impl Fn(&[usize]) -> Vec<usize>, f: impl Fn(&[f64]) -> Vec<f64>) -> Array {
    let mut parts = std::collections::BTreeMap::<Vec<usize>, Vec<usize>>::new();
    for (k, i) in indices(&x.shape).iter().enumerate() {
        parts.entry(key(i)).or_default().push(k);
    }
    let mut y = x.clone();
    for places in parts.values() {
        let values: Vec<f64> = places.iter().map(|&p| x.data[p]).collect();
        for (&p, v) in places.iter().zip(f(&values)) {
            y.data[p] = v;
        }
    }
    y
}

fn mean_and_variance(v: &[f64]) -> (f64, f64) {
    let mean = v.iter().sum::<f64>() / v.len() as f64;
    (mean, v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / v.len() as f64)
}

fn softmaxes(d: &mut Draw) -> Option<Case> {
    let op = d.pick(&["Softmax", "LogSoftmax", "Hardmax"]);
    let shape = d.shape(1..=5);
    let (axis, signed) = d.axis(shape.len());
    let dtype = d.pick(&FLOATS);
    // Before version 13 all that follows the axis is one part.
    let flat = d.one_in(4) && dtype != BF16;
    let size = d.pick(&[1.0, 10.0, 90.0]);
    let x = d.values(dtype, &shape, -size, size);
    let key = |i: &[usize]| {
        let mut k = i.to_vec();
        if flat {
            k.truncate(axis);
        } else {
            k[axis] = 0;
        }
        k
    };
    let want = by_parts(&Array::of(&x), key, |v| {
        let top = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = v.iter().map(|x| (x - top).exp()).sum();
        let first = v.iter().position(|&x| x == top);
        v.iter()
            .enumerate()
            .map(|(i, x)| match op {
                "Softmax" => (x - top).exp() / sum,
                "LogSoftmax" => x - top - sum.ln(),
                _ => f64::from(u8::from(first == Some(i))),
            })
            .collect()
    });
    let version = if flat { 11 } else { 13 };
    let signed = if flat { signed.rem_euclid(shape.len() as i64) } else { signed };
    let roundings = if op == "Hardmax" { 0.0 } else { 10.0 + size };
    let attrs = vec![("axis", Attr::Int(signed))];
    let mut c = case(op, version, vec![d.place(x)], attrs, vec![want.tensor(dtype)], roundings, 1e-3);
    if op == "LogSoftmax" {
        c.atol = c.rtol * 4.0;
    }
    // Results that would be denormal may be zero.
    c.atol = c.atol.max(1.2e-38);
    Some(c)
}

/// Scale and bias of a shape.
fn affine(d: &mut Draw, dtype: DType, shape: &[usize]) -> (Tensor, Tensor) {
    (d.values(dtype, shape, 0.5, 1.5), d.values(dtype, shape, -1.0, 1.0))
}

fn batch(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(2..=5);
    let dtype = d.pick(&[F32, F32, F64, F16]);
    let c = [shape[1]];
    let x = d.values(dtype, &shape, -2.0, 2.0);
    let (scale, bias) = affine(d, dtype, &c);
    let (mean, var) = (d.values(dtype, &c, -1.0, 1.0), d.values(dtype, &c, 0.1, 2.0));
    let eps = d.pick(&[1e-5f32, 0.1]);
    let at = |t: &Tensor| Array::of(t).data;
    let (s, b, m, v, a) = (at(&scale), at(&bias), at(&mean), at(&var), Array::of(&x));
    let want = Array::from_fn(&shape, |i| {
        let k = i[1];
        (a.at(i) - m[k]) / (v[k] + f64::from(eps)).sqrt() * s[k] + b[k]
    });
    let inputs = vec![d.place(x), d.place(scale), d.place(bias), d.place(mean), d.place(var)];
    let attrs = vec![("epsilon", Attr::Float(eps))];
    Some(case("BatchNormalization", 15, inputs, attrs, vec![want.tensor(dtype)], 12.0, 8.0))
}

fn layer(d: &mut Draw) -> Option<Case> {
    let shape = d.full_shape(1..=5);
    let rank = shape.len();
    let (axis, signed) = d.axis(rank);
    let dtype = d.pick(&[F32, F32, F64, F16, BF16]);
    let rms = d.flag();
    let x = d.values(dtype, &shape, -2.0, 2.0);
    let inner = &shape[axis..];
    let few = d.broadcast(inner);
    let (scale, bias) = affine(d, dtype, &few);
    let with_bias = !rms && d.flag();
    let eps = d.pick(&[1e-5f32, 0.1]);
    let normal = by_parts(
        &Array::of(&x),
        |i| i[..axis].to_vec(),
        |v| {
            let (mean, var) = mean_and_variance(v);
            let square = v.iter().map(|x| x * x).sum::<f64>() / v.len() as f64;
            let (mean, var) = if rms { (0.0, square) } else { (mean, var) };
            v.iter().map(|x| (x - mean) / (var + f64::from(eps)).sqrt()).collect()
        },
    );
    let (s, b) = (Array::of(&scale), Array::of(&bias));
    let want = Array::from_fn(&shape, |i| normal.at(i) * s.spread(i) + if with_bias { b.spread(i) } else { 0.0 });
    let mut inputs = vec![d.place(x), d.place(scale)];
    if with_bias {
        inputs.push(d.place(bias));
    }
    let attrs = vec![("axis", Attr::Int(signed)), ("epsilon", Attr::Float(eps))];
    let (op, version) = if rms { ("RMSNormalization", 23) } else { ("LayerNormalization", 17) };
    // With few, nearly equal numbers the variance is near zero, and the difference from the mean cancels.
    Some(case(op, version, inputs, attrs, vec![want.tensor(dtype)], 60.0, 20.0))
}

fn groups_and_instances(d: &mut Draw) -> Option<Case> {
    let mut shape = d.full_shape(3..=5);
    let groups = d.pick(&[1usize, 2, 3]);
    let instance = d.flag();
    if !instance {
        shape[1] = groups * (1 + d.below(4));
    }
    let dtype = d.pick(&[F32, F32, F64, F16]);
    let x = d.values(dtype, &shape, -2.0, 2.0);
    let c = [shape[1]];
    let (scale, bias) = affine(d, dtype, &c);
    let eps = d.pick(&[1e-3f32, 0.1]);
    let a_group = if instance { 1 } else { shape[1] / groups };
    let normal = by_parts(
        &Array::of(&x),
        |i| vec![i[0], i[1] / a_group],
        |v| {
            let (mean, var) = mean_and_variance(v);
            v.iter().map(|x| (x - mean) / (var + f64::from(eps)).sqrt()).collect()
        },
    );
    let (s, b) = (Array::of(&scale).data, Array::of(&bias).data);
    let want = Array::from_fn(&shape, |i| normal.at(i) * s[i[1]] + b[i[1]]);
    let inputs = vec![d.place(x), d.place(scale), d.place(bias)];
    let mut attrs = vec![("epsilon", Attr::Float(eps))];
    let (op, version) = if instance { ("InstanceNormalization", 6) } else { ("GroupNormalization", 21) };
    if !instance {
        attrs.push(("num_groups", Attr::Int(groups as i64)));
    }
    Some(case(op, version, inputs, attrs, vec![want.tensor(dtype)], 60.0, 20.0))
}

fn others(d: &mut Draw) -> Option<Case> {
    match d.below(3) {
        0 => {
            let shape = d.full_shape(1..=4);
            let (axis, signed) = d.axis(shape.len());
            let dtype = d.pick(&[F32, F64, F16]);
            let p = d.pick(&[1i64, 2]);
            let x = d.values(dtype, &shape, 0.1, 2.0);
            let key = |i: &[usize]| {
                let mut k = i.to_vec();
                k[axis] = 0;
                k
            };
            let want = by_parts(&Array::of(&x), key, |v| {
                let norm =
                    if p == 1 { v.iter().map(|x| x.abs()).sum() } else { v.iter().map(|x| x * x).sum::<f64>().sqrt() };
                v.iter().map(|x| x / norm).collect()
            });
            let attrs = vec![("axis", Attr::Int(signed)), ("p", Attr::Int(p))];
            Some(case("LpNormalization", 22, vec![d.place(x)], attrs, vec![want.tensor(dtype)], 20.0, 0.1))
        }
        1 => {
            let shape = d.full_shape(3..=5);
            let size = 1 + d.below(7);
            let (alpha, beta, bias) = (1e-2f32, 0.75f32, d.pick(&[1.0f32, 2.0]));
            let x = d.values(F32, &shape, -9.0, 9.0);
            let a = Array::of(&x);
            let want = Array::from_fn(&shape, |i| {
                let (before, after) = ((size - 1) / 2, (size - 1).div_ceil(2));
                let (from, to) = (i[1].saturating_sub(before), (i[1] + after).min(shape[1] - 1));
                let at = |c: usize| {
                    let mut j = i.to_vec();
                    j[1] = c;
                    a.at(&j).powi(2)
                };
                let sum: f64 = (from..=to).map(at).sum();
                a.at(i) / (f64::from(bias) + f64::from(alpha) / size as f64 * sum).powf(f64::from(beta))
            });
            let attrs = vec![
                ("size", Attr::Int(size as i64)),
                ("alpha", Attr::Float(alpha)),
                ("beta", Attr::Float(beta)),
                ("bias", Attr::Float(bias)),
            ];
            Some(case("LRN", 13, vec![d.place(x)], attrs, vec![want.tensor(F32)], 30.0, 1.0))
        }
        _ => {
            let shape = d.full_shape(4..=4);
            let mut axes: Vec<usize> = (0..4).filter(|_| d.flag()).collect();
            if axes.is_empty() {
                axes = vec![0, 2, 3];
            }
            let x = d.values(F32, &shape, -2.0, 2.0);
            let key = |i: &[usize]| i.iter().enumerate().map(|(a, &i)| if axes.contains(&a) { 0 } else { i }).collect();
            let size: usize = axes.iter().map(|&a| shape[a]).product();
            if size < 4 {
                return None;
            }
            let want = by_parts(&Array::of(&x), key, |v| {
                let (mean, var) = mean_and_variance(v);
                v.iter().map(|x| (x - mean) / (var.sqrt() + 1e-9)).collect()
            });
            let attrs = vec![("axes", Attr::Ints(axes.iter().map(|&a| a as i64).collect()))];
            let input: CaseInput = d.place(x);
            Some(case("MeanVarianceNormalization", 13, vec![input], attrs, vec![want.tensor(F32)], 200.0, 5.0))
        }
    }
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { softmaxes batch layer groups_and_instances others }
