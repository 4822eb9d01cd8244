//! Matrix products of every kind, and sums of products by subscripts.

use super::draw::{Draw, case};
use super::family;
use super::reference::{Array, broadcast, indices, int_tensor, ints, tensor};
use ortx::DType::{self, *};
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};

const FLOATS: [DType; 4] = [F32, F64, F16, BF16];

/// Shapes of two operands of a product by NumPy's rules, and of their product.
fn shapes(d: &mut Draw) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
    let (m, n, k) = (d.size().min(70), d.size().min(70), d.size());
    let outer = d.shape(0..=3);
    let outer: Vec<usize> = outer.into_iter().map(|n| n.min(4)).collect();
    let (mut a, mut b) = (d.broadcast(&outer), d.broadcast(&outer));
    let mut out = broadcast(&a, &b);
    match d.below(6) {
        0 => {
            // A vector from the left.
            out.truncate(0);
            out.extend(&b);
            out.push(n);
            b.extend([k, n]);
            (vec![k], b, out)
        }
        1 => {
            out.truncate(0);
            out.extend(&a);
            out.push(m);
            a.extend([m, k]);
            (a, vec![k], out)
        }
        2 => (vec![k], vec![k], vec![]),
        _ => {
            a.extend([m, k]);
            b.extend([k, n]);
            out.extend([m, n]);
            (a, b, out)
        }
    }
}

/// The product by NumPy's rules.
fn product(a: &Array, b: &Array, out: &[usize]) -> Array {
    let (one_a, one_b) = (a.shape.len() == 1, b.shape.len() == 1);
    let mut x = a.clone();
    let mut y = b.clone();
    if one_a {
        x.shape.insert(0, 1);
    }
    if one_b {
        y.shape.push(1);
    }
    let mut full = out.to_vec();
    if one_b {
        full.push(1);
    }
    if one_a {
        full.insert(full.len() - 1, 1);
    }
    let k = x.shape[x.shape.len() - 1];
    let rank = full.len();
    let at = |t: &Array, outer: &[usize], i: usize, j: usize| {
        let kept = t.shape.len() - 2;
        let mut index: Vec<usize> =
            outer[outer.len() - kept..].iter().zip(&t.shape).map(|(&i, &n)| if n == 1 { 0 } else { i }).collect();
        index.extend([i, j]);
        t.at(&index)
    };
    let data = indices(&full)
        .iter()
        .map(|i| {
            let (outer, r, c) = (&i[..rank - 2], i[rank - 2], i[rank - 1]);
            (0..k).map(|p| at(&x, outer, r, p) * at(&y, outer, p, c)).sum()
        })
        .collect();
    Array { shape: out.to_vec(), data }
}

fn matmul(d: &mut Draw) -> Option<Case> {
    let (sa, sb, out) = shapes(d);
    let dtype = d.pick(&[F32, F32, F64, F16, BF16, I32, I64, U32, U64]);
    let signed = dtype.is_float() || dtype.is_signed();
    let scale = if dtype.is_float() { 1.0 } else { 9.0 };
    let a = d.values(dtype, &sa, if signed { -scale } else { 0.0 }, scale);
    let b = d.values(dtype, &sb, if signed { -scale } else { 0.0 }, scale);
    let want = product(&Array::of(&a), &Array::of(&b), &out);
    let k = *sa.last().unwrap() as f64;
    let want = if dtype.is_float() {
        want.tensor(dtype)
    } else {
        int_tensor(dtype, &out, &want.data.iter().map(|&x| x as i128).collect::<Vec<_>>())
    };
    let inputs = vec![d.place(a), d.place(b)];
    Some(case("MatMul", 13, inputs, vec![], vec![want], 4.0 + k.sqrt(), k.sqrt().max(1.0)))
}

fn gemm(d: &mut Draw) -> Option<Case> {
    let (m, n, k) = (d.size().min(90), d.size().min(90), d.size());
    let dtype = d.pick(&FLOATS);
    let (ta, tb) = (d.flag(), d.flag());
    let (alpha, beta) = (d.pick(&[1.0f32, 0.5, -2.0, 0.0]), d.pick(&[1.0f32, 0.25, 0.0, -1.5]));
    let a = d.values(dtype, &if ta { [k, m] } else { [m, k] }, -1.0, 1.0);
    let b = d.values(dtype, &if tb { [n, k] } else { [k, n] }, -1.0, 1.0);
    let sc = d.broadcast(&[m, n]);
    let c = (!d.one_in(4)).then(|| d.values(dtype, &sc, -1.0, 1.0));
    let (x, y, z) = (Array::of(&a), Array::of(&b), c.as_ref().map(Array::of));
    let want = Array::from_fn(&[m, n], |i| {
        let at = |p: usize| {
            let l = if ta { x.at(&[p, i[0]]) } else { x.at(&[i[0], p]) };
            l * if tb { y.at(&[i[1], p]) } else { y.at(&[p, i[1]]) }
        };
        let sum: f64 = (0..k).map(at).sum();
        f64::from(alpha) * sum + z.as_ref().map_or(0.0, |z| f64::from(beta) * z.spread(i))
    });
    let attrs = vec![
        ("alpha", Attr::Float(alpha)),
        ("beta", Attr::Float(beta)),
        ("transA", Attr::Int(ta.into())),
        ("transB", Attr::Int(tb.into())),
    ];
    let mut inputs = vec![d.place(a), d.place(b)];
    inputs.push(c.map_or(CaseInput::Absent, |c| d.place(c)));
    let k = k as f64;
    Some(case("Gemm", 13, inputs, attrs, vec![want.tensor(dtype)], 6.0 + k.sqrt(), 2.0 * k.sqrt().max(1.0)))
}

fn matmul_of_bytes(d: &mut Draw) -> Option<Case> {
    let (sa, sb, out) = shapes(d);
    if sa.len() < 2 || sb.len() < 2 {
        return None;
    }
    let (ta, tb) = (d.pick(&[U8, I8]), d.pick(&[U8, I8]));
    let range = |t: DType| if t == U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
    let (ra, rb) = (range(ta), range(tb));
    let (a, b) = (d.values(ta, &sa, ra.0, ra.1), d.values(tb, &sb, rb.0, rb.1));
    let za = (!d.one_in(3)).then(|| d.values(ta, &[], ra.0, ra.1));
    let n = *sb.last().unwrap();
    let by_column = d.flag();
    let zb = (!d.one_in(3)).then(|| d.values(tb, if by_column { std::slice::from_ref(&n) } else { &[] }, rb.0, rb.1));
    let less = |t: &Tensor, z: &Option<Tensor>| {
        let mut x = Array::of(t);
        if let Some(z) = z {
            let z = Array::of(z);
            let columns = *x.shape.last().unwrap();
            for (i, v) in x.data.iter_mut().enumerate() {
                *v -= if z.shape.is_empty() { z.data[0] } else { z.data[i % columns] };
            }
        }
        x
    };
    let want = product(&less(&a, &za), &less(&b, &zb), &out).tensor(I32);
    let mut inputs = vec![d.place(a), d.place(b)];
    inputs.push(za.map_or(CaseInput::Absent, |z| d.place(z)));
    inputs.push(zb.map_or(CaseInput::Absent, |z| d.place(z)));
    Some(case("MatMulInteger", 10, inputs, vec![], vec![want], 0.0, 0.0))
}

fn einsum(d: &mut Draw) -> Option<Case> {
    let letters = ['a', 'b', 'c', 'd', 'e'];
    let sizes: Vec<usize> = letters.iter().map(|_| 1 + d.below(6)).collect();
    let terms: Vec<Vec<usize>> = (0..1 + d.below(3)).map(|_| (0..d.below(5)).map(|_| d.below(5)).collect()).collect();
    let used: Vec<usize> = (0..5).filter(|l| terms.iter().any(|t| t.contains(l))).collect();
    let mut out: Vec<usize> = used.iter().copied().filter(|_| d.flag()).collect();
    let explicit = d.flag();
    if explicit {
        for i in (1..out.len()).rev() {
            out.swap(i, d.below(i + 1));
        }
    } else {
        // Letters that come once, in order.
        out = used.iter().copied().filter(|l| terms.iter().flatten().filter(|x| *x == l).count() == 1).collect();
    }
    if used.iter().map(|&l| sizes[l]).product::<usize>() > 4000 {
        return None;
    }
    let name = |t: &[usize]| t.iter().map(|&l| letters[l]).collect::<std::string::String>();
    let mut equation = terms.iter().map(|t| name(t)).collect::<Vec<_>>().join(",");
    if explicit {
        equation += &format!("->{}", name(&out));
    }
    let dtype = d.pick(&[F32, F64, F32, F16]);
    let shape = |t: &[usize]| t.iter().map(|&l| sizes[l]).collect::<Vec<_>>();
    let xs: Vec<Tensor> = terms.iter().map(|t| d.values(dtype, &shape(t), -1.0, 1.0)).collect();
    let arrays: Vec<Array> = xs.iter().map(Array::of).collect();
    let dims: Vec<usize> = (0..5).map(|l| if used.contains(&l) { sizes[l] } else { 1 }).collect();
    let out_shape = shape(&out);
    let mut sums = vec![0.0; out_shape.iter().product()];
    for i in indices(&dims) {
        let at = |t: &[usize]| t.iter().map(|&l| i[l]).collect::<Vec<_>>();
        let p: f64 = terms.iter().zip(&arrays).map(|(t, x)| x.at(&at(t))).product();
        sums[super::reference::offset(&out_shape, &at(&out))] += p;
    }
    let want = tensor(dtype, &out_shape, &sums);
    let n = (dims.iter().product::<usize>() as f64).sqrt();
    let inputs = xs.into_iter().map(|x| d.place(x)).collect();
    let attrs = vec![("equation", Attr::String(equation.into_bytes()))];
    Some(case("Einsum", 12, inputs, attrs, vec![want], 8.0 + n, n))
}

fn linear_quantized(d: &mut Draw) -> Option<Case> {
    let (m, n, k) = (d.size().min(60), d.size().min(60), d.size());
    let (ta, tb, to) = (d.pick(&[U8, I8]), d.pick(&[U8, I8]), d.pick(&[U8, I8]));
    let range = |t: DType| if t == U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
    let make = |d: &mut Draw, t: DType, s: &[usize]| d.values(t, s, range(t).0, range(t).1);
    let (a, b) = (make(d, ta, &[m, k]), make(d, tb, &[k, n]));
    let (za, zb, zc) = (make(d, ta, &[]), make(d, tb, &[]), make(d, to, &[]));
    // Powers of two: then no rounding depends on the order of the factors.
    let (sa, sb, sc) = (0.5f32, 0.25f32, d.pick(&[1024.0f32, 64.0, 4096.0]));
    let (x, y) = (ints(&a), ints(&b));
    let zero = |t: &Tensor| ints(t)[0];
    let (low, high) = range(to);
    let want = Array::from_fn(&[m, n], |i| {
        let sum: i128 = (0..k).map(|p| (x[i[0] * k + p] - zero(&za)) * (y[p * n + i[1]] - zero(&zb))).sum();
        let v = sum as f64 * f64::from(sa) * f64::from(sb) / f64::from(sc);
        (v.round_ties_even() + zero(&zc) as f64).clamp(low, high)
    });
    let scale = |x: f32| CaseInput::Constant(Tensor::from_slice(&[], &[x]).unwrap());
    let zero = CaseInput::Constant;
    let inputs = vec![d.place(a), scale(sa), zero(za), d.place(b), scale(sb), zero(zb), scale(sc), zero(zc)];
    Some(case("QLinearMatMul", 10, inputs, vec![], vec![want.tensor(to)], 0.0, 0.0))
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { matmul gemm matmul_of_bytes einsum linear_quantized }
