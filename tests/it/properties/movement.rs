//! Operators that move elements or make them from indices: any type, the same bits.

use super::draw::{Draw, case};
use super::family;
use super::reference::{indices, offset, pick, tensor};
use ortx::DType::{self, *};
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};

const TYPES: [DType; 10] = [F32, I64, F16, U8, F64, Bool, I32, BF16, I8, U16];

/// Values from 0 to 99 of any type.
fn anything(d: &mut Draw, shape: &[usize]) -> Tensor {
    let dtype = d.pick(&TYPES);
    d.values(dtype, shape, 0.0, if dtype == Bool { 1.0 } else { 99.0 })
}

fn exact(
    op: &'static str,
    version: u32,
    inputs: Vec<CaseInput>,
    attrs: Vec<(&'static str, Attr)>,
    want: Vec<Tensor>,
) -> Option<Case> {
    Some(case(op, version, inputs, attrs, want, 0.0, 0.0))
}

/// The tensor of this shape whose element at an index is the one of `t` at the index that `f` gives.
fn moved(t: &Tensor, shape: &[usize], f: impl Fn(&[usize]) -> Option<Vec<usize>>) -> Tensor {
    let places: Vec<_> = indices(shape).iter().map(|i| f(i).map(|j| offset(t.shape(), &j))).collect();
    pick(t, shape, &places, None)
}

fn i64s(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&n| n as i64).collect()
}

fn shuffled(d: &mut Draw, n: usize) -> Vec<usize> {
    let mut v: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        v.swap(i, i - d.below(i + 1));
    }
    v
}

fn transpose(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(0..=6);
    let x = anything(d, &shape);
    let given = d.flag();
    let perm = if given { shuffled(d, shape.len()) } else { (0..shape.len()).rev().collect() };
    let out: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
    let want = moved(&x, &out, |i| {
        let mut j = vec![0; i.len()];
        perm.iter().zip(i).for_each(|(&p, &i)| j[p] = i);
        Some(j)
    });
    let attrs = if given { vec![("perm", Attr::Ints(i64s(&perm)))] } else { vec![] };
    exact("Transpose", 21, vec![d.place(x)], attrs, vec![want])
}

fn reshape(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(0..=5);
    let x = anything(d, &shape);
    // Splits of dimensions and joins of neighbours.
    let mut out: Vec<usize> = vec![];
    for &n in &shape {
        let p = d.pick(&[1usize, 2, 3]);
        match d.below(4) {
            0 if n > 0 && n % p == 0 => out.extend([n / p, p]),
            1 if !out.is_empty() => *out.last_mut().unwrap() *= n,
            2 => out.extend([n, 1]),
            _ => out.push(n),
        }
    }
    let mut asked = i64s(&out);
    let allow = d.flag();
    let zeros = out.contains(&0);
    if zeros && !allow {
        // Zero means the input's own size there.
        let same = (0..out.len()).all(|i| out[i] != 0 || shape.get(i) == Some(&0));
        if !same {
            return None;
        }
    } else if !asked.is_empty() && d.flag() && !zeros {
        let i = d.below(asked.len());
        asked[i] = -1;
    }
    if !allow && d.one_in(3) {
        for i in 0..asked.len().min(shape.len()) {
            if asked[i] == shape[i] as i64 {
                asked[i] = 0;
            }
        }
    }
    let want = x.reshaped(&out).unwrap();
    exact("Reshape", 19, vec![d.place(x), d.list(&asked)], vec![("allowzero", Attr::Int(allow.into()))], vec![want])
}

fn flatten_squeeze_unsqueeze(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(0..=5);
    let x = anything(d, &shape);
    let rank = shape.len();
    match d.below(3) {
        0 => {
            let axis = d.within(-(rank as i64), rank as i64);
            let at = if axis < 0 { (axis + rank as i64) as usize } else { axis as usize };
            let out = [shape[..at].iter().product(), shape[at..].iter().product()];
            let want = x.reshaped(&out).unwrap();
            exact("Flatten", 21, vec![d.place(x)], vec![("axis", Attr::Int(axis))], vec![want])
        }
        1 => {
            let ones: Vec<usize> = (0..rank).filter(|&i| shape[i] == 1).collect();
            let all = d.flag();
            let chosen: Vec<usize> = if all { ones } else { ones.into_iter().filter(|_| d.flag()).collect() };
            let out: Vec<usize> = (0..rank).filter(|i| !chosen.contains(i)).map(|i| shape[i]).collect();
            let want = x.reshaped(&out).unwrap();
            let list: Vec<i64> = chosen.iter().map(|&i| i as i64 - if d.flag() { rank as i64 } else { 0 }).collect();
            if list.is_empty() && !all {
                return None;
            }
            let axes = if all && d.flag() || list.is_empty() { CaseInput::Absent } else { d.list(&list) };
            exact("Squeeze", 21, vec![d.place(x), axes], vec![], vec![want])
        }
        _ => {
            let total = rank + d.below(3);
            let chosen: Vec<usize> = shuffled(d, total).into_iter().take(total - rank).collect();
            let mut rest = shape.iter();
            let out: Vec<usize> =
                (0..total).map(|i| if chosen.contains(&i) { 1 } else { *rest.next().unwrap() }).collect();
            let want = x.reshaped(&out).unwrap();
            let list: Vec<i64> = chosen.iter().map(|&i| i as i64 - if d.flag() { total as i64 } else { 0 }).collect();
            exact("Unsqueeze", 21, vec![d.place(x), d.list(&list)], vec![], vec![want])
        }
    }
}

fn slice(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(1..=5);
    let rank = shape.len();
    let x = anything(d, &shape);
    let count = 1 + d.below(rank);
    let by_order = d.flag();
    let axes: Vec<usize> =
        if by_order { (0..count).collect() } else { shuffled(d, rank).into_iter().take(count).collect() };
    let (mut starts, mut ends, mut steps) = (vec![], vec![], vec![]);
    // For each axis its start, step and count.
    let mut plan: Vec<(i64, i64, usize)> = shape.iter().map(|&n| (0, 1, n)).collect();
    for &a in &axes {
        let n = shape[a] as i64;
        let extreme = [i64::MAX, i64::MIN, i32::MAX.into(), i32::MIN.into()];
        let place = |d: &mut Draw| if d.one_in(6) { d.pick(&extreme) } else { d.within(-n - 2, n + 2) };
        let (start, end) = (place(d), place(d));
        let step = d.pick(&[1, 1, 2, -1, 3, -2, -3, 100, i64::MAX, i64::MIN]);
        starts.push(start);
        ends.push(end);
        steps.push(step);
        let wrap = |p: i64| if p < 0 { p.saturating_add(n) } else { p };
        let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
        let start = wrap(start).clamp(if step > 0 { 0 } else { 0.min(n - 1) }, high);
        let end = wrap(end).clamp(low, high);
        let distance = if step > 0 { end - start } else { start - end };
        let stride = step.unsigned_abs() as i128;
        let len = ((distance.max(0) as i128 + stride - 1) / stride) as usize;
        plan[a] = (start, step, len);
    }
    let out: Vec<usize> = plan.iter().map(|p| p.2).collect();
    let want = moved(&x, &out, |i| {
        Some(i.iter().zip(&plan).map(|(&i, p)| (i128::from(p.0) + i as i128 * i128::from(p.1)) as usize).collect())
    });
    let axes: Vec<i64> = axes.iter().map(|&a| a as i64 - if d.flag() { rank as i64 } else { 0 }).collect();
    let plain = steps.iter().all(|&s| s == 1);
    let mut inputs = vec![d.place(x), d.list(&starts), d.list(&ends)];
    inputs.push(if by_order && d.flag() { CaseInput::Absent } else { d.list(&axes) });
    inputs.push(if plain && d.flag() { CaseInput::Absent } else { d.list(&steps) });
    exact("Slice", 13, inputs, vec![], vec![want])
}

fn concat_and_split(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(1..=5);
    let (axis, signed) = d.axis(shape.len());
    let dtype = d.pick(&TYPES);
    let sizes: Vec<usize> = (0..1 + d.below(5)).map(|_| d.below(shape[axis] + 2)).collect();
    let total: usize = sizes.iter().sum();
    let mut whole = shape.clone();
    whole[axis] = total;
    let x = d.values(dtype, &whole, 0.0, if dtype == Bool { 1.0 } else { 99.0 });
    let mut first = 0;
    let parts: Vec<Tensor> = sizes
        .iter()
        .map(|&n| {
            let mut part = shape.clone();
            part[axis] = n;
            let t = moved(&x, &part, |i| {
                let mut j = i.to_vec();
                j[axis] += first;
                Some(j)
            });
            first += n;
            t
        })
        .collect();
    let attrs = vec![("axis", Attr::Int(signed))];
    if d.flag() {
        let inputs = parts.into_iter().map(|p| d.place(p)).collect();
        return exact("Concat", 13, inputs, attrs, vec![x]);
    }
    exact("Split", 13, vec![d.place(x), d.list(&i64s(&sizes))], attrs, parts)
}

fn even_split(d: &mut Draw) -> Option<Case> {
    let shape = d.full_shape(1..=4);
    let (axis, signed) = d.axis(shape.len());
    let parts = 1 + d.below(shape[axis].min(5));
    let size = shape[axis].div_ceil(parts);
    let x = anything(d, &shape);
    if size * (parts - 1) >= shape[axis] && parts > 1 {
        return None;
    }
    let want = (0..parts)
        .map(|k| {
            let mut part = shape.clone();
            part[axis] = size.min(shape[axis] - k * size);
            moved(&x, &part, |i| {
                let mut j = i.to_vec();
                j[axis] += k * size;
                Some(j)
            })
        })
        .collect();
    let attrs = vec![("axis", Attr::Int(signed)), ("num_outputs", Attr::Int(parts as i64))];
    exact("Split", 18, vec![d.place(x)], attrs, want)
}

fn pad(d: &mut Draw) -> Option<Case> {
    let shape = d.full_shape(1..=5);
    let rank = shape.len();
    let mode = d.pick(&["constant", "edge", "reflect", "wrap"]);
    let x = anything(d, &shape);
    let some = d.one_in(3);
    let axes: Vec<usize> =
        if some { shuffled(d, rank).into_iter().take(1 + d.below(rank)).collect() } else { (0..rank).collect() };
    let mut pads = vec![(0i64, 0i64); rank];
    for &a in &axes {
        let n = shape[a] as i64;
        let most = match mode {
            "reflect" => n - 1,
            "wrap" => n,
            _ => 4,
        };
        let least = if mode == "constant" || d.one_in(4) { -(n / 2) } else { 0 };
        pads[a] = (d.within(least, most), d.within(least, most));
    }
    let out: Vec<usize> = shape.iter().zip(&pads).map(|(&n, p)| (n as i64 + p.0 + p.1).max(0) as usize).collect();
    if out.iter().product::<usize>() > 20_000 || shape.iter().zip(&pads).any(|(&n, p)| n as i64 + p.0 + p.1 < 0) {
        return None;
    }
    // Cuts and paddings of one axis: what is cut is no source any more, which the modes read differently.
    if mode != "constant" && pads.iter().any(|p| p.0 < 0 || p.1 < 0) {
        return None;
    }
    let fill = tensor(x.dtype(), &[], &[1.0]);
    let filled = d.flag();
    let places: Vec<Option<usize>> = indices(&out)
        .iter()
        .map(|i| {
            let mut j = vec![];
            for a in 0..rank {
                let (n, at) = (shape[a] as i64, i[a] as i64 - pads[a].0);
                j.push(match mode {
                    "constant" if at < 0 || at >= n => return None,
                    "edge" => at.clamp(0, n - 1),
                    "reflect" if at < 0 => -at,
                    "reflect" if at >= n => 2 * (n - 1) - at,
                    "wrap" => at.rem_euclid(n),
                    _ => at,
                } as usize);
            }
            Some(offset(&shape, &j))
        })
        .collect();
    let want = pick(&x, &out, &places, filled.then_some(&fill));
    let list: Vec<i64> = axes.iter().map(|&a| pads[a].0).chain(axes.iter().map(|&a| pads[a].1)).collect();
    let mut inputs = vec![d.place(x), d.list(&list), CaseInput::Absent, CaseInput::Absent];
    if filled {
        inputs[2] = d.place(fill);
    }
    if some {
        let axes: Vec<i64> = axes.iter().map(|&a| a as i64 - if d.flag() { rank as i64 } else { 0 }).collect();
        inputs[3] = d.list(&axes);
    }
    exact("Pad", 19, inputs, vec![("mode", Attr::String(mode.into()))], vec![want])
}

fn tile(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(0..=5);
    let x = anything(d, &shape);
    let times: Vec<usize> = shape.iter().map(|_| d.pick(&[1, 2, 1, 3, 0, 5])).collect();
    let out: Vec<usize> = shape.iter().zip(&times).map(|(a, b)| a * b).collect();
    if out.iter().product::<usize>() > 30_000 {
        return None;
    }
    let want = moved(&x, &out, |i| Some(i.iter().zip(&shape).map(|(&i, &n)| i % n).collect()));
    exact("Tile", 13, vec![d.place(x), d.list(&i64s(&times))], vec![], vec![want])
}

fn depth_and_space(d: &mut Draw) -> Option<Case> {
    let b = 1 + d.below(3);
    let (n, c, h, w) = (d.below(3), 1 + d.below(4), 1 + d.below(5), 1 + d.below(5));
    let (deep, wide) = ([n, c * b * b, h, w], [n, c, h * b, w * b]);
    let block = Attr::Int(b as i64);
    let crd = d.flag();
    // (channel, row, column) of the deep one for those of the wide one.
    let source = |i: &[usize], crd: bool| {
        let (y, x) = (i[2] % b, i[3] % b);
        let channel = if crd { (i[1] * b + y) * b + x } else { (y * b + x) * c + i[1] };
        vec![i[0], channel, i[2] / b, i[3] / b]
    };
    let x = anything(d, &deep);
    let want = moved(&x, &wide, |i| Some(source(i, crd)));
    if d.flag() {
        let mode = if crd { "CRD" } else { "DCR" };
        let attrs = vec![("blocksize", block), ("mode", Attr::String(mode.into()))];
        return exact("DepthToSpace", 13, vec![d.place(x)], attrs, vec![want]);
    }
    let want = moved(&x, &wide, |i| Some(source(i, false)));
    exact("SpaceToDepth", 13, vec![d.place(want)], vec![("blocksize", block)], vec![x])
}

fn triangle(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(2..=4);
    let x = anything(d, &shape);
    let k = if d.one_in(6) { d.pick(&[i64::MAX, i64::MIN, 1000, -1000]) } else { d.within(-6, 6) };
    let upper = d.flag();
    let rank = shape.len();
    let want = moved(&x, &shape, |i| {
        let distance = i[rank - 1] as i128 - i[rank - 2] as i128;
        let kept = if upper { distance >= k.into() } else { distance <= k.into() };
        kept.then(|| i.to_vec())
    });
    let k = Tensor::from_slice(&[], &[k]).unwrap();
    exact("Trilu", 14, vec![d.place(x), d.place(k)], vec![("upper", Attr::Int(upper.into()))], vec![want])
}

fn made_from_indices(d: &mut Draw) -> Option<Case> {
    match d.below(3) {
        0 => {
            let dtype = d.pick(&[F32, I64, F64, I32, I16]);
            let (start, delta) = (d.within(-9, 9), d.pick(&[1i64, 2, -1, 3, -7]));
            let limit = start + delta * d.below(40) as i64 + d.within(-1, 1);
            let n = ((limit - start) as f64 / delta as f64).ceil().max(0.0) as usize;
            let v: Vec<f64> = (0..n).map(|i| (start + i as i64 * delta) as f64).collect();
            let one = |x: i64| tensor(dtype, &[], &[x as f64]);
            let inputs = vec![d.place(one(start)), d.place(one(limit)), d.place(one(delta))];
            exact("Range", 11, inputs, vec![], vec![tensor(dtype, &[n], &v)])
        }
        1 => {
            let shape = [d.size().min(50), d.size().min(50)];
            let k = d.within(-9, 9);
            let dtype = d.pick(&[F32, I64, U8, F64, Bool, F16]);
            let x = d.values(F32, &shape, 0.0, 1.0);
            let v: Vec<f64> =
                indices(&shape).iter().map(|i| f64::from(u8::from(i[1] as i64 - i[0] as i64 == k))).collect();
            let attrs = vec![("k", Attr::Int(k)), ("dtype", Attr::Int(dtype as i64))];
            exact("EyeLike", 22, vec![d.place(x)], attrs, vec![tensor(dtype, &shape, &v)])
        }
        _ => {
            let shape = d.shape(0..=3);
            let depth = 1 + d.below(7);
            let axis = d.within(-(shape.len() as i64) - 1, shape.len() as i64);
            let at = if axis < 0 { (axis + shape.len() as i64 + 1) as usize } else { axis as usize };
            let kind = d.pick(&[I64, I32, F32, U8]);
            let signed = kind != U8;
            let low = if signed { -(depth as f64) - 1.0 } else { 0.0 };
            let x = d.values(kind, &shape, low, depth as f64 + 0.4);
            let whole: Vec<f64> = super::reference::Array::of(&x).data.iter().map(|x| x.round()).collect();
            let x = tensor(kind, &shape, &whole);
            let dtype = d.pick(&[F32, I64, F16, I32, U8]);
            let mut out = shape.clone();
            out.insert(at, depth);
            let v: Vec<f64> = indices(&out)
                .iter()
                .map(|i| {
                    let mut j = i.clone();
                    let k = j.remove(at) as i64;
                    let w = whole[offset(&shape, &j)] as i64;
                    let w = if w < 0 { w + depth as i64 } else { w };
                    if w == k { 3.0 } else { 1.0 }
                })
                .collect();
            let depth = Tensor::from_slice(&[], &[depth as i64]).unwrap();
            let pair = tensor(dtype, &[2], &[1.0, 3.0]);
            let inputs = vec![d.place(x), CaseInput::Constant(depth), d.place(pair)];
            exact("OneHot", 11, inputs, vec![("axis", Attr::Int(axis))], vec![tensor(dtype, &out, &v)])
        }
    }
}

fn reversed(d: &mut Draw) -> Option<Case> {
    let mut shape = d.full_shape(2..=4);
    let batch = d.below(2);
    let time = 1 - batch;
    shape[batch] = shape[batch].min(20);
    let x = anything(d, &shape);
    let lens: Vec<i64> = (0..shape[batch]).map(|_| d.within(1, shape[time] as i64)).collect();
    let want = moved(&x, &shape, |i| {
        let (mut j, n) = (i.to_vec(), lens[i[batch]] as usize);
        if i[time] < n {
            j[time] = n - 1 - i[time];
        }
        Some(j)
    });
    let attrs = vec![("batch_axis", Attr::Int(batch as i64)), ("time_axis", Attr::Int(time as i64))];
    exact("ReverseSequence", 10, vec![d.place(x), d.list(&lens)], attrs, vec![want])
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { transpose reshape flatten_squeeze_unsqueeze slice concat_and_split even_split pad tile depth_and_space triangle made_from_indices reversed }
