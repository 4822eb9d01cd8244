//! Resize: every mode and way of placing coordinates.

use super::draw::{Draw, case};
use super::family;
use super::reference::{Array, indices};
use ortx::DType::*;
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};

/// One axis: its length, its new length, and what coordinates are divided by.
#[derive(Clone, Copy)]
struct Axis {
    from: usize,
    to: usize,
    scale: f64,
}

fn coordinate(mode: &str, a: Axis, x: usize) -> f64 {
    let (n, x) = (a.from as f64, x as f64);
    match mode {
        "half_pixel" => (x + 0.5) / a.scale - 0.5,
        "half_pixel_symmetric" => {
            let adjustment = a.to as f64 / (a.scale * n);
            n / 2.0 * (1.0 - adjustment) + (x + 0.5) / a.scale - 0.5
        }
        "pytorch_half_pixel" if a.to > 1 => (x + 0.5) / a.scale - 0.5,
        // The new length before it was rounded, as the suite's cases have it.
        "align_corners" if a.to > 1 => x * (n - 1.0) / (a.scale * n - 1.0),
        "asymmetric" => x / a.scale,
        _ => 0.0,
    }
}

fn nearest(how: &str, x: f64) -> f64 {
    match how {
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        "round_prefer_floor" => (x - 0.5).ceil(),
        _ => (x + 0.5).floor(),
    }
}

/// The places along an axis that an output takes from, and their weights.
fn taps(mode: &str, how: &str, a: Axis, x: f64, cubic: f64, exclude: bool) -> Vec<(usize, f64)> {
    let last = a.from as i64 - 1;
    let clamp = |i: i64| i.clamp(0, last) as usize;
    if mode == "nearest" {
        return vec![(clamp(nearest(how, x) as i64), 1.0)];
    }
    let (i, r) = (x.floor() as i64, x - x.floor());
    if mode == "linear" {
        return vec![(clamp(i), 1.0 - r), (clamp(i + 1), r)];
    }
    let near = |t: f64| ((cubic + 2.0) * t - (cubic + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((cubic * t - 5.0 * cubic) * t + 8.0 * cubic) * t - 4.0 * cubic;
    let mut weights = [far(r + 1.0), near(r), near(1.0 - r), far(2.0 - r)];
    if exclude {
        for (k, w) in weights.iter_mut().enumerate() {
            let at = i + k as i64 - 1;
            if at < 0 || at > last {
                *w = 0.0;
            }
        }
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
    }
    weights.iter().enumerate().map(|(k, &w)| (clamp(i + k as i64 - 1), w)).collect()
}

fn resize(d: &mut Draw) -> Option<Case> {
    let rank = 1 + d.below(4);
    let mut shape: Vec<usize> = (0..rank).map(|_| 1 + d.below(9)).collect();
    if d.one_in(30) {
        shape[0] = 0;
    }
    let mode = d.pick(&["nearest", "linear", "cubic"]);
    let how = d.pick(&["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]);
    let place = d.pick(&["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]);
    let by_size = d.flag();
    let chosen: Vec<usize> = (0..rank).filter(|_| !d.one_in(3)).collect();
    let mut axes: Vec<Axis> = shape.iter().map(|&n| Axis { from: n, to: n, scale: 1.0 }).collect();
    let (mut scales, mut sizes) = (vec![], vec![]);
    let all = d.flag();
    for a in if all { (0..rank).collect() } else { chosen.clone() } {
        let n = shape[a];
        let resized = chosen.contains(&a) && n > 0;
        if by_size {
            let to = if resized { 1 + d.below(14) } else { n };
            sizes.push(to as i64);
            axes[a] = Axis { from: n, to, scale: if n > 0 { to as f64 / n as f64 } else { 1.0 } };
        } else {
            let scale = if resized { d.pick(&[2.0f32, 0.5, 1.5, 3.0, 0.75, 1.25, 1.0]) } else { 1.0 };
            scales.push(scale);
            let to = (n as f64 * f64::from(scale)).floor() as usize;
            axes[a] = Axis { from: n, to, scale: f64::from(scale) };
        }
    }
    if !all && chosen.is_empty() || axes.iter().any(|a| a.to == 0 && a.from > 0) {
        return None;
    }
    let out: Vec<usize> = axes.iter().map(|a| a.to).collect();
    let dtype = match mode {
        "nearest" => d.pick(&[F32, F32, F64, F16, U8, I32, I8]),
        "linear" => d.pick(&[F32, F32, F64, F16]),
        _ => d.pick(&[F32, F32, F64]),
    };
    let cubic = d.pick(&[-0.75f32, -0.5]);
    let exclude = d.flag() && mode == "cubic";
    let x = d.values(dtype, &shape, if dtype == U8 { 0.0 } else { -9.0 }, 9.0);
    // Where a coordinate all but hits the edge between two places, f32 and f64 may choose apart.
    let plain = |s: f64| (s * 16.0).fract() == 0.0 && s.log2().fract() == 0.0;
    for a in &axes {
        for i in 0..a.to {
            let x = coordinate(place, *a, i);
            let edge = (2.0 * x - (2.0 * x).round()).abs() < 1e-4;
            if mode == "nearest" && edge && a.from != a.to && !(plain(a.scale) && place != "align_corners") {
                return None;
            }
        }
    }
    let tables: Vec<Vec<Vec<(usize, f64)>>> = axes
        .iter()
        .map(|&a| {
            // An axis that keeps its length is left alone.
            let same = a.from == a.to && a.scale == 1.0;
            let tap = |i: usize| {
                if same {
                    vec![(i, 1.0)]
                } else {
                    taps(mode, how, a, coordinate(place, a, i), f64::from(cubic), exclude)
                }
            };
            (0..a.to).map(tap).collect()
        })
        .collect();
    let v = Array::of(&x);
    let want = Array::from_fn(&out, |i| {
        let lists: Vec<&Vec<(usize, f64)>> = i.iter().zip(&tables).map(|(&i, t)| &t[i]).collect();
        let counts: Vec<usize> = lists.iter().map(|l| l.len()).collect();
        indices(&counts)
            .iter()
            .map(|k| {
                let at: Vec<usize> = k.iter().zip(&lists).map(|(&k, l)| l[k].0).collect();
                let w: f64 = k.iter().zip(&lists).map(|(&k, l)| l[k].1).product();
                v.at(&at) * w
            })
            .sum()
    });
    let mut attrs = vec![
        ("mode", Attr::String(mode.into())),
        ("nearest_mode", Attr::String(how.into())),
        ("coordinate_transformation_mode", Attr::String(place.into())),
        ("cubic_coeff_a", Attr::Float(cubic)),
        ("exclude_outside", Attr::Int(exclude.into())),
    ];
    if !all {
        attrs.push(("axes", Attr::Ints(chosen.iter().map(|&a| a as i64).collect())));
    }
    let mut inputs = vec![d.place(x), CaseInput::Absent];
    if by_size {
        inputs.extend([CaseInput::Absent, d.list(&sizes)]);
    } else {
        let t = Tensor::from_slice(&[scales.len()], &scales).unwrap();
        inputs.push(if d.one_in(4) { CaseInput::Given(t) } else { CaseInput::Constant(t) });
    }
    let exact = mode == "nearest";
    Some(case("Resize", 19, inputs, attrs, vec![want.tensor(dtype)], if exact { 0.0 } else { 60.0 }, 9.0))
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { resize }
