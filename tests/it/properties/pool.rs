//! Pools: the greatest, the mean, the norm of windows and of whole maps.

use super::draw::{Draw, case};
use super::family;
use super::reference::{Array, indices, offset};
use ortx::DType::*;
use ortx::ir::parse::Attr;
use ortx::ops::case::Case;

fn i64s(v: &[usize]) -> Attr {
    Attr::Ints(v.iter().map(|&n| n as i64).collect())
}

/// Along an axis: the output's size, the padding before, and where the padded input ends.
fn extent(
    n: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pads: (usize, usize),
    auto: &str,
    ceil: bool,
) -> Option<(usize, usize, usize)> {
    let span = (kernel - 1) * dilation + 1;
    match auto {
        "SAME_UPPER" | "SAME_LOWER" => {
            let out = n.div_ceil(stride);
            let total = ((out - 1) * stride + span).saturating_sub(n);
            let begin = if auto == "SAME_UPPER" { total / 2 } else { total.div_ceil(2) };
            Some((out, begin, n + total - begin))
        }
        _ => {
            let (begin, end) = if auto == "VALID" { (0, 0) } else { pads };
            let room = (n + begin + end).checked_sub(span)?;
            let mut out = if ceil { room.div_ceil(stride) } else { room / stride } + 1;
            // A window that begins behind the input and its padding before is none.
            if ceil && (out - 1) * stride >= n + begin {
                out -= 1;
            }
            Some((out, begin, n + end))
        }
    }
}

fn pools(d: &mut Draw) -> Option<Case> {
    let op = d.pick(&["MaxPool", "AveragePool", "LpPool"]);
    let rank = d.pick(&[2usize, 2, 1, 3]);
    let size: Vec<usize> = (0..rank).map(|_| 1 + d.below(if rank == 3 { 7 } else { 14 })).collect();
    let list = |d: &mut Draw, from: &[usize]| (0..rank).map(|_| d.pick(from)).collect::<Vec<usize>>();
    let kernel = list(d, &[2, 3, 1, 4]);
    let strides = list(d, &[1, 2, 3]);
    let dilations = list(d, &[1, 1, 1, 2]);
    let begin: Vec<usize> = kernel.iter().map(|&k| d.below(k)).collect();
    let end: Vec<usize> = kernel.iter().map(|&k| d.below(k)).collect();
    let auto = d.pick(&["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]);
    let ceil = d.flag() && auto == "NOTSET";
    let with_pad = d.flag();
    let mut out = vec![];
    for a in 0..rank {
        out.push(extent(size[a], kernel[a], strides[a], dilations[a], (begin[a], end[a]), auto, ceil)?);
    }
    let (n, c) = (d.below(3), d.pick(&[1usize, 2, 3, 16, 17]));
    let mut shape = vec![n, c];
    shape.extend(&size);
    let mut result = vec![n, c];
    result.extend(out.iter().map(|o| o.0));
    if shape.iter().product::<usize>() > 8000 {
        return None;
    }
    let dtype = match op {
        "MaxPool" => d.pick(&[F32, F32, F64, F16, I8, U8]),
        _ => d.pick(&[F32, F32, F64, F16]),
    };
    let low = if dtype == U8 { 0.0 } else { -9.0 };
    let x = d.values(dtype, &shape, low, 9.0);
    let a = Array::of(&x);
    let p = d.pick(&[2i64, 1, 3]);
    let by_column = op == "MaxPool" && d.one_in(3);
    let windows = indices(&kernel);
    // The elements of a window that are in the input, and how many of it are in the input or its padding.
    let window = |i: &[usize]| {
        let (mut inside, mut counted) = (vec![], 0);
        for k in &windows {
            let at: Vec<i64> =
                (0..rank).map(|d| (i[2 + d] * strides[d] + k[d] * dilations[d]) as i64 - out[d].1 as i64).collect();
            counted += usize::from(at.iter().zip(&out).all(|(&p, o)| p < o.2 as i64));
            let mut full = vec![i[0] as i64, i[1] as i64];
            full.extend(at);
            if let Some(v) = a.inside(&full) {
                inside.push((full.iter().map(|&i| i as usize).collect::<Vec<_>>(), v));
            }
        }
        (inside, counted)
    };
    let empty = indices(&result).iter().any(|i| window(i).0.is_empty());
    if empty {
        // All padding: no answer that the standard fixes.
        return None;
    }
    let greatest = |i: &[usize]| {
        let inside = window(i).0;
        inside.iter().fold(inside[0].clone(), |best, w| if w.1 > best.1 { w.clone() } else { best })
    };
    let want = Array::from_fn(&result, |i| match op {
        "MaxPool" => greatest(i).1,
        "AveragePool" => {
            let (inside, counted) = window(i);
            let sum: f64 = inside.iter().map(|w| w.1).sum();
            sum / if with_pad { counted } else { inside.len() } as f64
        }
        _ => window(i).0.iter().map(|w| w.1.abs().powi(p as i32)).sum::<f64>().powf(1.0 / p as f64),
    });
    let mut attrs = vec![
        ("kernel_shape", i64s(&kernel)),
        ("strides", i64s(&strides)),
        ("dilations", i64s(&dilations)),
        ("ceil_mode", Attr::Int(ceil.into())),
    ];
    if auto == "NOTSET" {
        attrs.push(("pads", i64s(&[begin, end].concat())));
    } else {
        attrs.push(("auto_pad", Attr::String(auto.into())));
    }
    let mut wants = vec![want.tensor(dtype)];
    match op {
        "AveragePool" => attrs.push(("count_include_pad", Attr::Int(with_pad.into()))),
        "LpPool" => attrs.push(("p", Attr::Int(p))),
        _ if d.flag() => {
            attrs.push(("storage_order", Attr::Int(by_column.into())));
            let place = |i: &[usize]| {
                let at = greatest(i).0;
                let plane: usize = size.iter().product();
                let inner = if by_column {
                    let (mut order, mut sizes) = (at[2..].to_vec(), size.clone());
                    order.reverse();
                    sizes.reverse();
                    offset(&sizes, &order)
                } else {
                    offset(&size, &at[2..])
                };
                ((at[0] * c + at[1]) * plane + inner) as f64
            };
            wants.push(Array::from_fn(&result, place).tensor(I64));
        }
        _ => {}
    }
    let version = match op {
        "MaxPool" => 12,
        "AveragePool" => 19,
        _ => 18,
    };
    let k = kernel.iter().product::<usize>() as f64;
    let roundings = if op == "MaxPool" { 0.0 } else { 8.0 + k };
    Some(case(op, version, vec![d.place(x)], attrs, wants, roundings, if op == "MaxPool" { 0.0 } else { 9.0 }))
}

fn whole_maps(d: &mut Draw) -> Option<Case> {
    let op = d.pick(&["GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"]);
    let mut shape = d.full_shape(3..=5);
    if d.one_in(8) {
        shape[0] = 0;
    }
    let dtype = d.pick(&[F32, F32, F64, F16]);
    let x = d.values(dtype, &shape, -9.0, 9.0);
    let a = Array::of(&x);
    let mut out = shape.clone();
    out[2..].fill(1);
    let inner = indices(&shape[2..]);
    let want = Array::from_fn(&out, |i| {
        let v: Vec<f64> = inner.iter().map(|k| a.at(&[&i[..2], k].concat())).collect();
        match op {
            "GlobalMaxPool" => v.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            "GlobalAveragePool" => v.iter().sum::<f64>() / v.len() as f64,
            _ => v.iter().map(|x| x * x).sum::<f64>().sqrt(),
        }
    });
    let version = if op == "GlobalLpPool" { 2 } else { 1 };
    let roundings = if op == "GlobalMaxPool" { 0.0 } else { 8.0 + (inner.len() as f64).sqrt() };
    Some(case(op, version, vec![d.place(x)], vec![], vec![want.tensor(dtype)], roundings, 9.0))
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { pools whole_maps }
