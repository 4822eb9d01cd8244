//! Reductions, positions of the greatest and least, the k greatest, running sums and products.

use super::draw::{Draw, case};
use super::family;
use super::reference::{Array, int_tensor, ints, tensor};
use ortx::DType::{self, *};
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};

const FLOATS: [DType; 4] = [F32, F64, F16, BF16];

fn most(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// For each element of the result (axes reduced stay, with size 1) the values that it is made of.
fn groups(x: &Array, mask: &[bool]) -> (Vec<usize>, Vec<Vec<f64>>) {
    let kept: Vec<usize> = x.shape.iter().zip(mask).map(|(&n, &m)| if m { 1 } else { n }).collect();
    let mut all = vec![Vec::new(); kept.iter().product()];
    for i in super::reference::indices(&x.shape) {
        let k: Vec<usize> = i.iter().zip(mask).map(|(&i, &m)| if m { 0 } else { i }).collect();
        all[super::reference::offset(&kept, &k)].push(x.at(&i));
    }
    (kept, all)
}

fn squeeze(shape: &[usize], mask: &[bool]) -> Vec<usize> {
    shape.iter().zip(mask).filter(|(_, m)| !**m).map(|(&n, _)| n).collect()
}

/// Some axes, in any order and of any sign; empty for all or none.
fn axes(d: &mut Draw, rank: usize) -> (Vec<i64>, Vec<bool>) {
    let mut mask = vec![false; rank];
    let mut axes = vec![];
    for _ in 0..d.below(rank + 1) {
        let (axis, signed) = d.axis(rank);
        if !mask[axis] {
            mask[axis] = true;
            axes.push(signed);
        }
    }
    (axes, mask)
}

const KINDS: [&str; 10] = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
];

fn fold(op: &str, v: &[f64]) -> f64 {
    match op {
        "ReduceSum" => v.iter().sum(),
        "ReduceMean" => v.iter().sum::<f64>() / v.len() as f64,
        "ReduceMax" => v.iter().copied().fold(f64::NEG_INFINITY, most),
        "ReduceMin" => v.iter().copied().fold(f64::INFINITY, least),
        "ReduceProd" => v.iter().product(),
        "ReduceL1" => v.iter().map(|x| x.abs()).sum(),
        "ReduceL2" => v.iter().map(|x| x * x).sum::<f64>().sqrt(),
        "ReduceSumSquare" => v.iter().map(|x| x * x).sum(),
        "ReduceLogSum" => v.iter().sum::<f64>().ln(),
        _ => {
            let top = v.iter().copied().fold(f64::NEG_INFINITY, most);
            let top = if top.is_finite() { top } else { 0.0 };
            v.iter().map(|x| (x - top).exp()).sum::<f64>().ln() + top
        }
    }
}

fn reductions(d: &mut Draw) -> Option<Case> {
    let op = d.pick(&KINDS);
    let dtype = d.pick(&FLOATS);
    let shape = d.shape(0..=6);
    let (list, mut mask) = axes(d, shape.len());
    let (keep, noop) = (d.flag(), d.one_in(3));
    if list.is_empty() && !noop {
        mask.fill(true);
    }
    let positive = matches!(op, "ReduceLogSum" | "ReduceProd");
    let x = d.odd_values(dtype, &shape, if positive { 0.5 } else { -2.0 }, 2.0);
    let (kept, all) = groups(&Array::of(&x), &mask);
    let apart = list.is_empty() && noop;
    // Nothing is reduced, whatever the operator is.
    let want: Vec<f64> = all.iter().map(|v| fold(op, v)).collect();
    let shape = if keep { kept } else { squeeze(&kept, &mask) };
    let count = all.first().map_or(1, Vec::len).max(1) as f64;
    // The mean of nothing is 0 / 0; the greatest of nothing stands in no version for floats before 18.
    let mut attrs = vec![("keepdims", Attr::Int(keep.into())), ("noop_with_empty_axes", Attr::Int(noop.into()))];
    let given = if list.is_empty() && (d.flag() || apart) { CaseInput::Absent } else { d.list(&list) };
    let as_attribute = op != "ReduceSum" && d.one_in(4) && !list.is_empty();
    let mut inputs = vec![d.place(x)];
    let version = if as_attribute {
        attrs.pop();
        attrs.push(("axes", Attr::Ints(list)));
        13
    } else {
        inputs.push(given);
        if op == "ReduceSum" { 13 } else { 18 }
    };
    let want = tensor(dtype, &shape, &want);
    let roundings = if matches!(op, "ReduceMax" | "ReduceMin") { 0.0 } else { 8.0 + count.sqrt() };
    let roundings = if op == "ReduceProd" { 2.0 + count } else { roundings };
    let scale = if op == "ReduceProd" { 0.0 } else { count.sqrt().max(1.0) };
    Some(case(op, version, inputs, attrs, vec![want], roundings, scale))
}

fn reductions_of_integers(d: &mut Draw) -> Option<Case> {
    let op = d.pick(&["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare"]);
    let dtype = match op {
        "ReduceMax" | "ReduceMin" => d.pick(&[I32, I64, I8, U8, U32, U64, Bool]),
        _ => d.pick(&[I32, I64, U32, U64]),
    };
    let shape = d.full_shape(0..=5);
    let (list, mut mask) = axes(d, shape.len());
    let keep = d.flag();
    if list.is_empty() {
        mask.fill(true);
    }
    let signed = dtype.is_signed();
    let x = match dtype {
        Bool => d.values(Bool, &shape, 0.0, 1.0),
        _ => d.values(dtype, &shape, if signed { -9.0 } else { 0.0 }, 9.0),
    };
    let (kept, all) = groups(&Array::of(&x), &mask);
    let fold = |v: &Vec<f64>| {
        let v = v.iter().map(|&x| x as i128);
        match op {
            "ReduceSum" => v.sum(),
            "ReduceMax" => v.max().unwrap(),
            "ReduceMin" => v.min().unwrap(),
            "ReduceProd" => v.fold(1i128, |a, x| (a * x) as i64 as i128),
            "ReduceL1" => v.map(i128::abs).sum(),
            _ => v.map(|x| x * x).sum(),
        }
    };
    let want: Vec<i128> = all.iter().map(fold).collect();
    let want = int_tensor(dtype, &if keep { kept } else { squeeze(&kept, &mask) }, &want);
    let version = match op {
        "ReduceSum" => 13,
        "ReduceMax" | "ReduceMin" => 20,
        _ => 18,
    };
    let attrs = vec![("keepdims", Attr::Int(keep.into()))];
    Some(case(op, version, vec![d.place(x), d.list(&list)], attrs, vec![want], 0.0, 0.0))
}

/// Values of which many are equal.
fn equals(d: &mut Draw, dtype: DType, shape: &[usize]) -> Tensor {
    let low = if dtype.is_float() || dtype.is_signed() { -4.0 } else { 0.0 };
    let t = d.values(dtype, shape, low, 4.0);
    let mut v: Vec<f64> = Array::of(&t).data.iter().map(|x| x.round()).collect();
    if dtype.is_float() && d.one_in(5) && !v.is_empty() {
        let i = d.below(v.len());
        v[i] = f64::NAN;
    }
    tensor(dtype, shape, &v)
}

fn positions(d: &mut Draw) -> Option<Case> {
    let op = d.pick(&["ArgMax", "ArgMin"]);
    let dtype = d.pick(&[F32, F64, F16, BF16, I32, I64, I8, U8, I16, U16, U32, U64]);
    let shape = d.shape(1..=5);
    let (axis, signed) = d.axis(shape.len());
    if shape[axis] == 0 {
        return None;
    }
    let (keep, last) = (d.flag(), d.flag());
    let x = equals(d, dtype, &shape);
    let mut mask = vec![false; shape.len()];
    mask[axis] = true;
    let (kept, all) = groups(&Array::of(&x), &mask);
    let place = |v: &Vec<f64>| {
        let better = |a: f64, b: f64| {
            // NaN is the greatest and the least.
            let equal = a == b || a.is_nan() && b.is_nan();
            let beats = if op == "ArgMax" { a > b } else { a < b };
            (a.is_nan() && !b.is_nan()) || (beats && !b.is_nan()) || (last && equal)
        };
        (1..v.len()).fold(0, |best, i| if better(v[i], v[best]) { i } else { best }) as i128
    };
    let want: Vec<i128> = all.iter().map(place).collect();
    let want = int_tensor(I64, &if keep { kept } else { squeeze(&kept, &mask) }, &want);
    let attrs = vec![
        ("axis", Attr::Int(signed)),
        ("keepdims", Attr::Int(keep.into())),
        ("select_last_index", Attr::Int(last.into())),
    ];
    Some(case(op, 13, vec![d.place(x)], attrs, vec![want], 0.0, 0.0))
}

fn the_greatest(d: &mut Draw) -> Option<Case> {
    let dtype = d.pick(&[F32, F64, F16, I32, I64, I8, U8, I16, U16, U32, U64]);
    let shape = d.shape(1..=4);
    let (axis, signed) = d.axis(shape.len());
    let k = d.below(shape[axis] + 1);
    let (largest, sorted) = (d.flag(), d.flag());
    let x = equals(d, dtype, &shape);
    let a = Array::of(&x);
    let mut out = shape.clone();
    out[axis] = k;
    let order = |index: &[usize]| {
        let at = |i: usize| {
            let mut index = index.to_vec();
            index[axis] = i;
            a.at(&index)
        };
        let mut all: Vec<usize> = (0..shape[axis]).collect();
        // NaN is greater than all; of equals the first goes first.
        let key = |x: f64| if x.is_nan() { f64::INFINITY } else { x };
        all.sort_by(|&i, &j| {
            let c = key(at(i)).partial_cmp(&key(at(j))).unwrap();
            if largest { c.reverse() } else { c }
        });
        all.truncate(k);
        if !sorted {
            all.sort_unstable();
        }
        all
    };
    let places = Array::from_fn(&out, |i| order(i)[i[axis]] as f64);
    let values = Array::from_fn(&out, |i| {
        let mut from = i.to_vec();
        from[axis] = places.at(i) as usize;
        a.at(&from)
    });
    let attrs =
        vec![("axis", Attr::Int(signed)), ("largest", Attr::Int(largest.into())), ("sorted", Attr::Int(sorted.into()))];
    let want = vec![values.tensor(dtype), places.tensor(I64)];
    Some(case("TopK", 11, vec![d.place(x), d.list(&[k as i64])], attrs, want, 0.0, 0.0))
}

fn running(d: &mut Draw) -> Option<Case> {
    let (op, version) = d.pick(&[("CumSum", 14), ("CumProd", 26)]);
    let product = op == "CumProd";
    let dtype = d.pick(&[F32, F64, F16, BF16, I32, I64, U32, U64]);
    let shape = d.shape(1..=4);
    let (axis, signed) = d.axis(shape.len());
    let (exclusive, reverse) = (d.flag(), d.flag());
    let n = shape[axis];
    let floats = dtype.is_float();
    let x = if product {
        d.values(dtype, &shape, if floats { 0.7 } else { 1.0 }, if floats { 1.3 } else { 2.0 })
    } else {
        d.values(dtype, &shape, if floats || dtype.is_signed() { -2.0 } else { 0.0 }, 9.0)
    };
    let attrs = vec![("exclusive", Attr::Int(exclusive.into())), ("reverse", Attr::Int(reverse.into()))];
    let inside = |i: usize, j: usize| match (reverse, exclusive) {
        (false, false) => j <= i,
        (false, true) => j < i,
        (true, false) => j >= i,
        (true, true) => j > i,
    };
    let along = |index: &[usize]| -> Vec<usize> {
        let all = (0..n).filter(|&j| inside(index[axis], j));
        all.map(|j| {
            let mut at = index.to_vec();
            at[axis] = j;
            super::reference::offset(&shape, &at)
        })
        .collect()
    };
    let axis_input = Tensor::from_slice(&[], &[signed]).unwrap();
    let index = super::reference::indices(&shape);
    let want = if floats {
        let v = Array::of(&x).data;
        let sum = |i: &Vec<usize>| -> f64 {
            let all = along(i).into_iter().map(|k| v[k]);
            if product { all.product() } else { all.sum() }
        };
        tensor(dtype, &shape, &index.iter().map(sum).collect::<Vec<_>>())
    } else {
        let v = ints(&x);
        let sum = |i: &Vec<usize>| -> i128 {
            let all = along(i).into_iter().map(|k| v[k]);
            if product { all.fold(1i128, |a, x| (a * x) as u64 as i128) } else { all.sum() }
        };
        int_tensor(dtype, &shape, &index.iter().map(sum).collect::<Vec<_>>())
    };
    let inputs = vec![d.place(x), d.place(axis_input)];
    let scale = (n as f64).sqrt() * 4.0;
    Some(case(op, version, inputs, attrs, vec![want], 3.0 + n as f64 / 2.0, if product { 1.0 } else { scale }))
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { reductions reductions_of_integers positions the_greatest running }
