//! Gathers and scatters of every kind, and choosing by a condition.

use super::draw::{Draw, case};
use super::family;
use super::reference::{Array, indices, int_tensor, offset, pick, tensor};
use ortx::DType::{self, *};
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};

const TYPES: [DType; 10] = [F32, I64, F16, U8, F64, Bool, I32, BF16, I8, U16];

fn anything(d: &mut Draw, shape: &[usize]) -> Tensor {
    let dtype = d.pick(&TYPES);
    d.values(dtype, shape, 0.0, if dtype == Bool { 1.0 } else { 99.0 })
}

/// Indices into `n` elements, negative ones among them: the tensor, and what they mean.
fn into(d: &mut Draw, shape: &[usize], n: usize) -> (Tensor, Vec<usize>) {
    let dtype = d.pick(&[I64, I32]);
    let count: usize = shape.iter().product();
    let t = d.values(I64, &[count], 0.0, 1e9);
    let negative = d.flag();
    let plain: Vec<usize> = t.to_i64s().unwrap().iter().map(|&i| i as usize % n.max(1)).collect();
    let signed: Vec<i128> = plain
        .iter()
        .enumerate()
        .map(|(k, &i)| if negative && k % 3 == 0 { i as i128 - n as i128 } else { i as i128 })
        .collect();
    (int_tensor(dtype, shape, &signed), plain)
}

fn gather(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(1..=4);
    let (axis, signed) = d.axis(shape.len());
    let at = d.shape(0..=3);
    if shape[axis] == 0 && !at.contains(&0) {
        return None;
    }
    let x = anything(d, &shape);
    let (list, plain) = into(d, &at, shape[axis]);
    let mut out = shape[..axis].to_vec();
    out.extend(&at);
    out.extend(&shape[axis + 1..]);
    if out.iter().product::<usize>() > 20_000 {
        return None;
    }
    let places: Vec<_> = indices(&out)
        .iter()
        .map(|i| {
            let mut j = i[..axis].to_vec();
            j.push(plain[offset(&at, &i[axis..axis + at.len()])]);
            j.extend(&i[axis + at.len()..]);
            Some(offset(&shape, &j))
        })
        .collect();
    let want = pick(&x, &out, &places, None);
    let inputs = vec![d.place(x), d.place(list)];
    Some(case("Gather", 13, inputs, vec![("axis", Attr::Int(signed))], vec![want], 0.0, 0.0))
}

fn gather_elements(d: &mut Draw) -> Option<Case> {
    let shape = d.full_shape(1..=4);
    let (axis, signed) = d.axis(shape.len());
    let x = anything(d, &shape);
    let mut at: Vec<usize> = shape.iter().map(|&n| d.below(n + 1)).collect();
    at[axis] = d.size().min(40);
    let (list, plain) = into(d, &at, shape[axis]);
    let places: Vec<_> = indices(&at)
        .iter()
        .zip(&plain)
        .map(|(i, &k)| {
            let mut j = i.clone();
            j[axis] = k;
            Some(offset(&shape, &j))
        })
        .collect();
    let want = pick(&x, &at, &places, None);
    let attrs = vec![("axis", Attr::Int(signed))];
    Some(case("GatherElements", 13, vec![d.place(x), d.place(list)], attrs, vec![want], 0.0, 0.0))
}

/// Tuples of indices into the dimensions of `shape` from `from` on: the tensor of shape `at` + [count], and the tuples.
fn tuples(d: &mut Draw, shape: &[usize], from: usize, count: usize, at: &[usize]) -> (Tensor, Vec<Vec<usize>>) {
    let n: usize = at.iter().product();
    let seeds = d.values(I64, &[n * count], 0.0, 1e9).to_i64s().unwrap();
    let negative = d.flag();
    let (mut signed, mut all) = (vec![], vec![]);
    for k in 0..n {
        let mut tuple = vec![];
        for c in 0..count {
            let size = shape[from + c];
            let i = seeds[k * count + c] as usize % size.max(1);
            signed.push(if negative && (k + c) % 3 == 0 { i as i64 - size as i64 } else { i as i64 });
            tuple.push(i);
        }
        all.push(tuple);
    }
    let mut dims = at.to_vec();
    dims.push(count);
    (Tensor::from_slice(&dims, &signed).unwrap(), all)
}

fn gather_nd(d: &mut Draw) -> Option<Case> {
    let shape = d.full_shape(1..=5);
    let batch = d.below(shape.len());
    let count = 1 + d.below(shape.len() - batch);
    let mut at = shape[..batch].to_vec();
    at.extend(d.shape(0..=2));
    if at.iter().product::<usize>() * shape[batch + count..].iter().product::<usize>() > 20_000 {
        return None;
    }
    let x = anything(d, &shape);
    let (list, all) = tuples(d, &shape, batch, count, &at);
    let mut out = at.clone();
    out.extend(&shape[batch + count..]);
    let places: Vec<_> = indices(&out)
        .iter()
        .map(|i| {
            let mut j = i[..batch].to_vec();
            j.extend(&all[offset(&at, &i[..at.len()])]);
            j.extend(&i[at.len()..]);
            Some(offset(&shape, &j))
        })
        .collect();
    let want = pick(&x, &out, &places, None);
    let attrs = vec![("batch_dims", Attr::Int(batch as i64))];
    Some(case("GatherND", 13, vec![d.place(x), d.place(list)], attrs, vec![want], 0.0, 0.0))
}

/// How an update joins what is there.
fn join(how: &str, a: f64, b: f64) -> f64 {
    match how {
        "add" => a + b,
        "mul" => a * b,
        "max" => a.max(b),
        "min" => a.min(b),
        _ => b,
    }
}

/// The result of updates at places, in order.
fn scattered(x: &Tensor, places: &[usize], updates: &Tensor, how: &str) -> Tensor {
    let mut y = Array::of(x).data;
    for (&p, u) in places.iter().zip(Array::of(updates).data) {
        y[p] = join(how, y[p], u);
        // Each step is rounded where the type is a float.
        y[p] = Array::of(&tensor(x.dtype(), &[], &[y[p]])).data[0];
    }
    tensor(x.dtype(), x.shape(), &y)
}

fn no_repeats(places: &[usize]) -> bool {
    let mut sorted = places.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).all(|w| w[0] != w[1])
}

fn scatter_elements(d: &mut Draw) -> Option<Case> {
    let shape = d.full_shape(1..=4);
    let (axis, signed) = d.axis(shape.len());
    let how = d.pick(&["none", "add", "mul", "max", "min"]);
    let dtype = if how == "none" { d.pick(&TYPES) } else { d.pick(&[F32, F64, I64, I32, F16, U8, I8]) };
    let top = if dtype == Bool { 1.0 } else { 9.0 };
    let x = d.values(dtype, &shape, 0.0, top);
    let at: Vec<usize> = shape.iter().map(|&n| d.below(n + 1)).collect();
    let (list, plain) = into(d, &at, shape[axis]);
    let places: Vec<usize> = indices(&at)
        .iter()
        .zip(&plain)
        .map(|(i, &k)| {
            let mut j = i.clone();
            j[axis] = k;
            offset(&shape, &j)
        })
        .collect();
    let updates = d.values(dtype, &at, 0.0, if how == "mul" { 1.0 } else { top });
    let want = scattered(&x, &places, &updates, how);
    // The order of repeated plain updates is not fixed.
    if how == "none" && !no_repeats(&places) {
        return None;
    }
    let whole = !dtype.is_float();
    let attrs = vec![("axis", Attr::Int(signed)), ("reduction", Attr::String(how.into()))];
    let inputs = vec![d.place(x), d.place(list), d.place(updates)];
    Some(case("ScatterElements", 18, inputs, attrs, vec![want], if whole { 0.0 } else { 60.0 }, 9.0))
}

fn scatter_nd(d: &mut Draw) -> Option<Case> {
    let shape = d.full_shape(1..=4);
    let count = 1 + d.below(shape.len());
    let at = d.shape(0..=2);
    let how = d.pick(&["none", "add", "mul", "max", "min"]);
    let dtype = if how == "none" { d.pick(&TYPES) } else { d.pick(&[F32, F64, I64, I32, F16, U8, I8]) };
    let top = if dtype == Bool { 1.0 } else { 9.0 };
    let x = d.values(dtype, &shape, 0.0, top);
    let mut dims = at.clone();
    dims.extend(&shape[count..]);
    if dims.iter().product::<usize>() > 20_000 {
        return None;
    }
    let (list, all) = tuples(d, &shape, 0, count, &at);
    if how == "none" {
        let mut sorted = all.clone();
        sorted.sort();
        if sorted.windows(2).any(|w| w[0] == w[1]) {
            return None;
        }
    }
    let updates = d.values(dtype, &dims, 0.0, if how == "mul" { 1.0 } else { top });
    let places: Vec<usize> = indices(&dims)
        .iter()
        .map(|i| {
            let mut j = all[offset(&at, &i[..at.len()])].clone();
            j.extend(&i[at.len()..]);
            offset(&shape, &j)
        })
        .collect();
    let want = scattered(&x, &places, &updates, how);
    let attrs = vec![("reduction", Attr::String(how.into()))];
    let inputs = vec![d.place(x), d.place(list), d.place(updates)];
    let roundings = if dtype.is_float() { 60.0 } else { 0.0 };
    Some(case("ScatterND", 18, inputs, attrs, vec![want], roundings, 9.0))
}

fn compress(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(1..=4);
    let x = anything(d, &shape);
    let flat = d.flag();
    let (axis, signed) = d.axis(shape.len());
    let n = if flat { x.len() } else { shape[axis] };
    let len = d.below(n + 1);
    let condition = d.values(Bool, &[len], 0.0, 1.0);
    let chosen: Vec<usize> = (0..len).filter(|&i| condition.bytes()[i] != 0).collect();
    let (out, places): (Vec<usize>, Vec<Option<usize>>) = if flat {
        (vec![chosen.len()], chosen.iter().map(|&i| Some(i)).collect())
    } else {
        let mut out = shape.clone();
        out[axis] = chosen.len();
        let places = indices(&out)
            .iter()
            .map(|i| {
                let mut j = i.clone();
                j[axis] = chosen[i[axis]];
                Some(offset(&shape, &j))
            })
            .collect();
        (out, places)
    };
    let want = pick(&x, &out, &places, None);
    let attrs = if flat { vec![] } else { vec![("axis", Attr::Int(signed))] };
    Some(case("Compress", 11, vec![d.place(x), d.place(condition)], attrs, vec![want], 0.0, 0.0))
}

fn non_zero(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(1..=4);
    let dtype = d.pick(&[F32, I64, U8, Bool, F16, I32, F64]);
    let x = d.values(dtype, &shape, 0.0, if dtype == Bool { 1.0 } else { 2.4 });
    let whole: Vec<f64> = Array::of(&x).data.iter().map(|x| x.floor()).collect();
    let x = tensor(dtype, &shape, &whole);
    let found: Vec<Vec<usize>> =
        indices(&shape).into_iter().zip(&whole).filter(|(_, x)| **x != 0.0).map(|p| p.0).collect();
    let v: Vec<i64> = (0..shape.len()).flat_map(|a| found.iter().map(move |i| i[a] as i64)).collect();
    let want = Tensor::from_slice(&[shape.len(), found.len()], &v).unwrap();
    let input: CaseInput = d.place(x);
    Some(case("NonZero", 13, vec![input], vec![], vec![want], 0.0, 0.0))
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { gather gather_elements gather_nd scatter_elements scatter_nd compress non_zero }
