//! Convolutions of one to three dimensions, transposed ones, and those of bytes.

use super::draw::{Draw, case};
use super::family;
use super::reference::{Array, indices};
use ortx::DType::*;
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};

/// What describes a window's way over an input.
struct Geometry {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// First all begins, then all ends.
    pads: Vec<usize>,
    auto: &'static str,
}

fn i64s(v: &[usize]) -> Attr {
    Attr::Ints(v.iter().map(|&n| n as i64).collect())
}

impl Geometry {
    fn draw(d: &mut Draw, rank: usize) -> Geometry {
        let list = |d: &mut Draw, from: &[usize]| (0..rank).map(|_| d.pick(from)).collect::<Vec<_>>();
        let kernel = list(d, &[3, 1, 2, 5, 4]);
        let strides = list(d, &[1, 1, 2, 3]);
        let dilations = list(d, &[1, 1, 1, 2, 3]);
        let pads = (0..2 * rank).map(|_| d.pick(&[0, 1, 2, 3])).collect();
        let auto = d.pick(&["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]);
        Geometry { kernel, strides, dilations, pads, auto }
    }
    fn attrs(&self, d: &mut Draw) -> Vec<(&'static str, Attr)> {
        let mut attrs = vec![("strides", i64s(&self.strides)), ("dilations", i64s(&self.dilations))];
        if d.flag() {
            attrs.push(("kernel_shape", i64s(&self.kernel)));
        }
        if self.auto == "NOTSET" {
            attrs.push(("pads", i64s(&self.pads)));
        } else {
            attrs.push(("auto_pad", Attr::String(self.auto.into())));
        }
        attrs
    }
    fn span(&self, a: usize) -> usize {
        (self.kernel[a] - 1) * self.dilations[a] + 1
    }
    /// The output's size and the padding before, along each axis; `None` where the window does not fit.
    fn output(&self, input: &[usize]) -> Option<Vec<(usize, usize)>> {
        let rank = self.kernel.len();
        (0..rank)
            .map(|a| {
                let (n, s, span) = (input[a], self.strides[a], self.span(a));
                match self.auto {
                    "SAME_UPPER" | "SAME_LOWER" => {
                        let out = n.div_ceil(s);
                        let total = ((out.max(1) - 1) * s + span).saturating_sub(n);
                        Some((out, if self.auto == "SAME_UPPER" { total / 2 } else { total.div_ceil(2) }))
                    }
                    auto => {
                        let (begin, end) = if auto == "VALID" { (0, 0) } else { (self.pads[a], self.pads[a + rank]) };
                        Some(((n + begin + end).checked_sub(span)? / s + 1, begin))
                    }
                }
            })
            .collect()
    }
}

/// Sums over windows: `x` is (n, c, ...), `w` is (m, c / groups, kernel).
fn convolved(x: &Array, w: &Array, g: &Geometry, groups: usize, out: &[(usize, usize)]) -> Array {
    let (m, per_group) = (w.shape[0], w.shape[1]);
    let mut shape = vec![x.shape[0], m];
    shape.extend(out.iter().map(|o| o.0));
    let inner: Vec<usize> = w.shape[1..].to_vec();
    let inner = indices(&inner);
    Array::from_fn(&shape, |i| {
        let group = i[1] / (m / groups);
        inner
            .iter()
            .map(|k| {
                let mut at = vec![i[0] as i64, (group * per_group + k[0]) as i64];
                for a in 0..out.len() {
                    at.push((i[2 + a] * g.strides[a] + k[1 + a] * g.dilations[a]) as i64 - out[a].1 as i64);
                }
                let mut from = vec![i[1]];
                from.extend(k);
                x.inside(&at).unwrap_or(0.0) * w.at(&from)
            })
            .sum()
    })
}

/// Sizes of an input, its groups and channels: (rank, batch, groups, channels in and out of a group, sizes).
fn sizes(d: &mut Draw) -> (usize, usize, usize, usize, usize, Vec<usize>) {
    let rank = d.pick(&[2usize, 2, 2, 1, 3]);
    let groups = d.pick(&[1usize, 1, 2, 3, 8, 17]);
    let (c, m) = match groups {
        1 => (d.pick(&[1usize, 3, 4, 16, 17, 32]), d.pick(&[1usize, 2, 8, 16, 19, 33])),
        _ => (d.pick(&[1usize, 1, 2, 8]), d.pick(&[1usize, 1, 2, 8])),
    };
    let most = match rank {
        1 => 40,
        2 => 12,
        _ => 6,
    };
    let size = (0..rank).map(|_| 1 + d.below(most)).collect();
    (rank, d.pick(&[1usize, 1, 2, 3, 0]), groups, c, m, size)
}

fn convolution(d: &mut Draw) -> Option<Case> {
    let (rank, n, groups, c, m, size) = sizes(d);
    let g = Geometry::draw(d, rank);
    let out = g.output(&size)?;
    let dtype = d.pick(&[F32, F32, F32, F32, F64, F16, BF16]);
    let mut sx = vec![n, groups * c];
    sx.extend(&size);
    let mut sw = vec![groups * m, c];
    sw.extend(&g.kernel);
    let work = n * groups * m * out.iter().map(|o| o.0).product::<usize>() * c * g.kernel.iter().product::<usize>();
    if work > 300_000 {
        return None;
    }
    let (x, w) = (d.values(dtype, &sx, -1.0, 1.0), d.values(dtype, &sw, -1.0, 1.0));
    let b = d.flag().then(|| d.values(dtype, &[groups * m], -1.0, 1.0));
    let mut want = convolved(&Array::of(&x), &Array::of(&w), &g, groups, &out);
    if let Some(b) = &b {
        let b = Array::of(b).data;
        let inner: usize = want.shape[2..].iter().product();
        for (i, y) in want.data.iter_mut().enumerate() {
            *y += b[i / inner % (groups * m)];
        }
    }
    let mut attrs = g.attrs(d);
    attrs.push(("group", Attr::Int(groups as i64)));
    let k = (c * g.kernel.iter().product::<usize>()) as f64;
    let mut inputs = vec![d.place(x)];
    // Weights are constants in most models.
    inputs.push(if d.one_in(3) { CaseInput::Given(w) } else { CaseInput::Constant(w) });
    inputs.extend(b.map(|b| d.place(b)));
    // Winograd's transforms multiply the error of a rounding by some.
    let version = if dtype == BF16 { 22 } else { 11 };
    Some(case("Conv", version, inputs, attrs, vec![want.tensor(dtype)], 20.0 + k.sqrt(), k.sqrt().max(1.0)))
}

fn convolution_of_bytes(d: &mut Draw) -> Option<Case> {
    let (rank, n, groups, c, m, size) = sizes(d);
    let g = Geometry::draw(d, rank);
    let out = g.output(&size)?;
    let (tx, tw) = (d.pick(&[U8, I8]), d.pick(&[U8, I8]));
    let range = |t| if t == U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
    let mut sx = vec![n, groups * c];
    sx.extend(&size);
    let mut sw = vec![groups * m, c];
    sw.extend(&g.kernel);
    let work = n * groups * m * out.iter().map(|o| o.0).product::<usize>() * c * g.kernel.iter().product::<usize>();
    if work > 300_000 {
        return None;
    }
    let (x, w) = (d.values(tx, &sx, range(tx).0, range(tx).1), d.values(tw, &sw, range(tw).0, range(tw).1));
    let zx = d.flag().then(|| d.values(tx, &[], range(tx).0, range(tx).1));
    let by_channel = d.flag();
    let zw = d.flag().then(|| {
        let shape = if by_channel { vec![groups * m] } else { vec![] };
        d.values(tw, &shape, range(tw).0, range(tw).1)
    });
    let shifted = |t: &Tensor, z: &Option<Tensor>, by: usize| {
        let mut a = Array::of(t);
        if let Some(z) = z {
            let z = Array::of(z).data;
            a.data.iter_mut().enumerate().for_each(|(i, v)| *v -= if z.len() == 1 { z[0] } else { z[i / by] });
        }
        a
    };
    let inner = c * g.kernel.iter().product::<usize>();
    let want = convolved(&shifted(&x, &zx, 1), &shifted(&w, &zw, inner), &g, groups, &out);
    let mut attrs = g.attrs(d);
    attrs.push(("group", Attr::Int(groups as i64)));
    let mut inputs = vec![d.place(x), d.place(w)];
    if zx.is_some() || zw.is_some() {
        inputs.push(zx.map_or(CaseInput::Absent, |z| d.place(z)));
        inputs.push(zw.map_or(CaseInput::Absent, |z| d.place(z)));
    }
    Some(case("ConvInteger", 10, inputs, attrs, vec![want.tensor(I32)], 0.0, 0.0))
}

fn transposed(d: &mut Draw) -> Option<Case> {
    let (rank, n, groups, c, m, size) = sizes(d);
    let mut g = Geometry::draw(d, rank);
    g.auto = "NOTSET";
    let extra: Vec<usize> = (0..rank).map(|a| if d.one_in(4) { d.below(g.strides[a]) } else { 0 }).collect();
    let mut shape = vec![n, groups * m];
    for a in 0..rank {
        let whole = g.strides[a] * (size[a] - 1) + extra[a] + g.span(a);
        shape.push(whole.checked_sub(g.pads[a] + g.pads[a + rank]).filter(|&n| n > 0)?);
    }
    let dtype = d.pick(&[F32, F32, F64, F16]);
    let mut sx = vec![n, groups * c];
    sx.extend(&size);
    let mut sw = vec![groups * c, m];
    sw.extend(&g.kernel);
    if sx.iter().product::<usize>() * m * g.kernel.iter().product::<usize>() > 200_000 {
        return None;
    }
    let (x, w) = (d.values(dtype, &sx, -1.0, 1.0), d.values(dtype, &sw, -1.0, 1.0));
    let b = d.flag().then(|| d.values(dtype, &[groups * m], -1.0, 1.0));
    let bias = b.as_ref().map(|b| Array::of(b).data);
    let mut want = Array::from_fn(&shape, |i| bias.as_ref().map_or(0.0, |b| b[i[1]]));
    let (ax, aw) = (Array::of(&x), Array::of(&w));
    let inner = indices(&sw[1..]);
    for i in indices(&sx) {
        for k in &inner {
            let mut to = vec![i[0] as i64, (i[1] / c * m + k[0]) as i64];
            for a in 0..rank {
                to.push((i[2 + a] * g.strides[a] + k[1 + a] * g.dilations[a]) as i64 - g.pads[a] as i64);
            }
            if to.iter().zip(&shape).all(|(&t, &n)| t >= 0 && t < n as i64) {
                let to: Vec<usize> = to.iter().map(|&t| t as usize).collect();
                let mut from = vec![i[1]];
                from.extend(k);
                let at = super::reference::offset(&shape, &to);
                want.data[at] += ax.at(&i) * aw.at(&from);
            }
        }
    }
    let mut attrs = g.attrs(d);
    attrs.push(("group", Attr::Int(groups as i64)));
    if extra.iter().any(|&e| e > 0) {
        attrs.push(("output_padding", i64s(&extra)));
    }
    let k = (c * g.kernel.iter().product::<usize>()) as f64;
    let mut inputs = vec![d.place(x), d.place(w)];
    inputs.extend(b.map(|b| d.place(b)));
    Some(case("ConvTranspose", 11, inputs, attrs, vec![want.tensor(dtype)], 10.0 + k.sqrt(), k.sqrt().max(1.0)))
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { convolution convolution_of_bytes transposed }

/// The planner turns a constant picture into the blocked layout; its f16 contents are no longer what is read then.
#[test]
fn constant_pictures_of_half_floats() {
    let g = Geometry {
        kernel: vec![3, 3],
        strides: vec![1, 1],
        dilations: vec![1, 2],
        pads: vec![0, 0, 2, 0],
        auto: "NOTSET",
    };
    let out = g.output(&[1, 7]).unwrap();
    let value = |shape: &[usize], seed| ortx::ops::case::random(F16, shape, -1.0, 1.0, seed).unwrap();
    let (x, w) = (value(&[1, 4, 1, 7], 1), value(&[8, 4, 3, 3], 2));
    let want = convolved(&Array::of(&x), &Array::of(&w), &g, 1, &out).tensor(F16);
    let attrs = vec![("dilations", i64s(&g.dilations)), ("pads", i64s(&g.pads))];
    let inputs = vec![CaseInput::Constant(x), CaseInput::Given(w)];
    super::check(&case("Conv", 11, inputs, attrs, vec![want], 20.0, 2.0)).unwrap();
}
