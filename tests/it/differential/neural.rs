//! Sums and what is made of them: products of matrices, convolutions, pools, reductions, normalisations.

use super::generator::{A, Attrs, Gen, Id, SETS, Size, Val, broadcast, each, fixed, rounding};
use ortx::DType::{self, *};

/// A convolution or pool: kernel, strides, dilations, pads at both ends, one entry an axis.
#[derive(Clone)]
pub struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub pads: Vec<usize>,
}

impl Window {
    pub fn draw(g: &mut Gen, image: &[Size]) -> Option<Window> {
        let n = image.len();
        let kernel: Vec<usize> = (0..n).map(|_| g.d.pick(&[1, 3, 3, 2, 5])).collect();
        let kernel = if g.d.flag() { vec![kernel[0]; n] } else { kernel };
        let strides = vec![g.d.pick(&[1, 1, 2]); n];
        let dilations: Vec<usize> = kernel.iter().map(|&k| if k > 1 && g.d.one_in(6) { 2 } else { 1 }).collect();
        let pads = (0..2 * n).map(|i| if g.d.flag() { kernel[i % n] / 2 } else { 0 }).collect();
        let w = Window { kernel, strides, dilations, pads };
        let all = w.output(image)?;
        all.iter().flatten().all(|&n| n > 0).then_some(w)
    }
    pub fn output(&self, image: &[Size]) -> Option<Vec<Size>> {
        let n = image.len();
        let one = |i: usize| -> Option<Size> {
            let reach = self.dilations[i] * (self.kernel[i] - 1) + 1;
            let padded = |k: usize| image[i][k] + self.pads[i] + self.pads[i + n];
            let ok = (0..SETS).all(|k| padded(k) >= reach && image[i][k] > 0);
            ok.then(|| each(|k| (padded(k) - reach) / self.strides[i] + 1))
        };
        (0..n).map(one).collect()
    }
    pub fn attrs(&self, pool: bool) -> Attrs {
        let list = |v: &[usize]| A::Is(v.iter().map(|&n| n as i64).collect());
        let mut attrs =
            vec![("kernel_shape", list(&self.kernel)), ("strides", list(&self.strides)), ("pads", list(&self.pads))];
        if !pool || self.dilations.iter().any(|&d| d > 1) {
            attrs.push(("dilations", list(&self.dilations)));
        }
        attrs
    }
}

impl Gen<'_> {
    /// The product of two values along an inner size of `k`, with what is added to it.
    fn product(&self, a: &Val, b: &Val, k: usize, times: f64) -> (f64, f64) {
        let k = k as f64;
        let most = k * a.most() * b.most();
        // Sums in any order: (k - 1) roundings of partial sums, none above the sum of magnitudes.
        (most, k * (a.most() * b.error + b.most() * a.error) + rounding(a.dtype, times * (k + 2.0), most))
    }
    pub fn matmul(&mut self, a: Id, b: Id) -> Option<Id> {
        let (x, y) = (self.get(a), self.get(b));
        if x.rank() < 2 || y.rank() < 2 || x.dtype != y.dtype {
            return None;
        }
        let (m, k) = (x.dims[x.rank() - 2], x.dims[x.rank() - 1]);
        if y.dims[y.rank() - 2] != k {
            return None;
        }
        let mut dims = broadcast(&x.dims[..x.rank() - 2], &y.dims[..y.rank() - 2])?;
        dims.extend([m, y.dims[y.rank() - 1]]);
        let (most, error) = self.product(&x, &y, k.iter().copied().max()?, 1.0);
        self.one("MatMul", &[a, b], vec![], x.sized(dims).bounds(-most, most, error))
    }
    /// How large weights may be, so that a sum of `k` products with x stays about `target`.
    fn scale(&self, x: &Val, k: usize, target: f64) -> f64 {
        (target / (x.most().max(0.1) * k.max(1) as f64)).min(1.0)
    }
    /// x times constant weights: `[.., k]` to `[.., n]`.
    pub fn project(&mut self, x: Id, n: usize, target: f64) -> Option<Id> {
        let v = self.get(x);
        let k = *v.dims.last()?;
        if !fixed(&k) || k[0] == 0 || v.rank() < 2 {
            return None;
        }
        let bound = self.scale(&v, k[0], target);
        let w = self.weights(v.dtype, &[k[0], n], bound);
        self.matmul(x, w)
    }
    /// Adds a constant row.
    pub fn biased(&mut self, x: Id) -> Option<Id> {
        let v = self.get(x);
        let n = *v.dims.last()?;
        if !fixed(&n) {
            return None;
        }
        // A near-miss: a single number.
        let n = if self.d.one_in(10) { 1 } else { n[0] };
        let b = self.weights(v.dtype, &[n], 0.5);
        self.add(x, b)
    }
    pub fn conv(&mut self, x: Id, w: &Window, channels: usize, group: usize, bias: bool) -> Option<Id> {
        let v = self.get(x);
        let (c, image) = (v.dims[1][0], w.output(&v.dims[2..])?);
        let k = c / group * w.kernel.iter().product::<usize>();
        let bound = self.scale(&v, k, 3.0);
        let shape = [&[channels, c / group][..], &w.kernel].concat();
        let kernel = self.weights(v.dtype, &shape, bound);
        let mut inputs = vec![x, kernel];
        if bias {
            inputs.push(self.weights(v.dtype, &[channels], 0.5));
        }
        // Winograd's transforms, where they are used, cost some digits: as much again as so many roundings.
        let (most, error) = self.product(&v, &self.get(kernel), k, 4.0);
        let most = most + 0.5;
        let dims = [&[v.dims[0], [channels; SETS]][..], &image].concat();
        let mut attrs = w.attrs(false);
        attrs.push(("group", A::I(group as i64)));
        self.one("Conv", &inputs, attrs, v.sized(dims).bounds(-most, most, error + rounding(F32, 2.0, most)))
    }
    /// A picture: `[n, c, ..]` of channels that are fixed.
    pub fn picture(&mut self) -> Option<Id> {
        let found = self.float(|v| (3..=4).contains(&v.rank()) && v.full() && fixed(&v.dims[1]) && v.dims[1][0] <= 40);
        if let (Some(x), false) = (found, self.d.one_in(4)) {
            return Some(x);
        }
        let dtype = self.float_type();
        let (n, c) = (self.full_size(3), 1 + self.d.below(20));
        let rank = self.d.pick(&[4, 4, 4, 3]);
        let mut dims = vec![n, [c; SETS]];
        for _ in 2..rank {
            dims.push(self.full_size(if rank == 3 { 40 } else { 14 }));
        }
        self.fits(&dims)?;
        Some(self.feed(dtype, &dims, -2.0, 2.0))
    }
    /// Of numbers of such magnitude, where those that are far below have no weight.
    pub fn softmax(&mut self, x: Id, axis: i64, most: f64) -> Option<Id> {
        let v = self.get(x);
        // Slopes of at most one; an exponential's rounding grows with its argument.
        let error = (v.error + rounding(v.dtype, 20.0 + 2.0 * most, 1.0)).min(1.0);
        let (op, out) = ("Softmax", v.bounds(0.0, 1.0, error));
        self.one(op, &[x], vec![("axis", A::I(axis))], out)
    }
    /// A reduction along fixed axes.
    pub fn reduce(&mut self, op: &'static str, x: Id, axes: &[usize], keep: bool) -> Option<Id> {
        let v = self.get(x);
        let n = count_along(&v, axes);
        let (least, n) = (n.iter().copied().min()?, n.iter().copied().max()? as f64);
        if least == 0 && !matches!(op, "ReduceSum" | "ReduceL1" | "ReduceSumSquare") {
            return None;
        }
        let (m, e, r) = (v.most(), v.error, |times: f64, most: f64| rounding(v.dtype, times, most));
        let (low, high, error) = match op {
            "ReduceSum" => (n * v.low.min(0.0), n * v.high.max(0.0), n * e + r(n, n * m)),
            "ReduceMean" => (v.low, v.high, e + r(n + 2.0, m)),
            "ReduceMax" | "ReduceMin" => (v.low, v.high, e),
            "ReduceL1" => (0.0, n * m, n * e + r(n, n * m)),
            "ReduceL2" => (0.0, n.sqrt() * m, n.sqrt() * e + r(n + 4.0, n.sqrt() * m)),
            "ReduceSumSquare" => (0.0, n * m * m, 2.0 * n * m * e + r(n + 2.0, n * m * m)),
            "ReduceLogSumExp" => (v.low, v.high + n.ln(), e + r(20.0 + n, m + n.ln() + 1.0)),
            "ReduceProd" if n <= 3.0 && m <= 3.0 => (-m.powf(n), m.powf(n), n * e * m.powf(n - 1.0) + r(n, m.powf(n))),
            _ => return None,
        };
        if !v.is_float() && (high.abs() > 1e6 || !matches!(op, "ReduceSum" | "ReduceMax" | "ReduceMin")) {
            return None;
        }
        let error = if v.is_float() { error } else { 0.0 };
        let mut dims = Vec::new();
        for (i, d) in v.dims.iter().enumerate() {
            match axes.contains(&i) {
                true if keep => dims.push([1; SETS]),
                true => {}
                false => dims.push(*d),
            }
        }
        let negative = self.d.flag();
        let list: Vec<i64> =
            axes.iter().map(|&a| if negative { a as i64 - v.rank() as i64 } else { a as i64 }).collect();
        let out = v.clone().sized(dims).bounds(low, high, error);
        let attrs = vec![("keepdims", A::I(keep.into()))];
        let axes = self.ints(&list);
        self.one(op, &[x, axes], attrs, out)
    }
    /// What (x - mean) / sqrt(variance + epsilon) is bounded by, for `n` numbers: no result above sqrt(n); slopes of 1 / sqrt(epsilon), for
    /// the difference from the mean is what is divided, and a variance is a sum of squares, which loses no digits.
    pub fn normalised(v: &Val, n: usize, epsilon: f64) -> (f64, f64) {
        let n = n as f64;
        let most = n.sqrt().min(v.most() * 2.0 / epsilon.sqrt());
        (
            most,
            (2.0 * v.error + rounding(v.dtype, n + 8.0, v.most())) * 2.0 / epsilon.sqrt()
                + rounding(v.dtype, 2.0 * n + 16.0, most),
        )
    }
}

pub fn count_along(v: &Val, axes: &[usize]) -> Size {
    each(|k| axes.iter().map(|&a| v.dims[a][k]).product())
}

/// Some axes, in order.
pub fn axes(g: &mut Gen, rank: usize) -> Vec<usize> {
    let all: Vec<usize> = (0..rank).filter(|_| g.d.flag()).collect();
    if all.is_empty() { vec![rank - 1] } else { all }
}

pub fn products(g: &mut Gen) -> Option<Id> {
    let x = g.operand(2, 4, |v| v.dims.last().is_some_and(|k| fixed(k) && k[0] > 0))?;
    let v = g.get(x);
    let n = 1 + g.d.size().min(70);
    match g.d.below(5) {
        0 => {
            // Two activations, one of them turned.
            let rank = v.rank();
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(rank - 1, rank - 2);
            let t = g.transpose(x, &perm)?;
            let y = g.matmul(x, t)?;
            let k = 1.0 / g.val(y).most().max(1.0);
            g.with("Mul", y, k)
        }
        1 if v.rank() == 2 => {
            let (turn_a, turn_b) = (g.d.one_in(3), g.d.flag());
            let (m, k) = if turn_a { (v.dims[1], v.dims[0]) } else { (v.dims[0], v.dims[1]) };
            if !fixed(&k) || k[0] == 0 {
                return None;
            }
            let bound = g.scale(&v, k[0], 4.0);
            let w = g.weights(v.dtype, &if turn_b { [n, k[0]] } else { [k[0], n] }, bound);
            let mut inputs = vec![x, w];
            let (most, error) = g.product(&v, &g.get(w), k[0], 1.0);
            let (alpha, beta) = (g.d.pick(&[1.0, 0.5]), g.d.pick(&[1.0, 1.0, 0.25]));
            if g.d.flag() {
                let shape = g.d.pick(&[vec![n], vec![1, n], vec![1], vec![]]);
                inputs.push(g.weights(v.dtype, &shape, 0.5));
            }
            let attrs = vec![
                ("transA", A::I(turn_a.into())),
                ("transB", A::I(turn_b.into())),
                ("alpha", A::F(alpha)),
                ("beta", A::F(beta)),
            ];
            let out = v.clone().sized(vec![m, [n; SETS]]).bounds(
                -most - 0.5,
                most + 0.5,
                error + rounding(v.dtype, 4.0, most + 0.5),
            );
            g.one("Gemm", &inputs, attrs, out)
        }
        2 if v.rank() == 3 && v.dtype != F16 => {
            let k = v.dims[2][0];
            let bound = g.scale(&v, k, 4.0);
            let w = g.weights(v.dtype, &[n, k], bound);
            let (most, error) = g.product(&v, &g.get(w), k, 1.0);
            let out = v.clone().sized(vec![v.dims[0], v.dims[1], [n; SETS]]).bounds(-most, most, error);
            g.one("Einsum", &[x, w], vec![("equation", A::S("bsk,nk->bsn"))], out)
        }
        _ => g.project(x, n, 4.0),
    }
}

pub fn convolutions(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    let v = g.get(x);
    let w = Window::draw(g, &v.dims[2..])?;
    let c = v.dims[1][0];
    let (group, channels) = match g.d.below(4) {
        0 => (c, c),
        1 if c.is_multiple_of(2) => (2, 2 * (1 + g.d.below(9))),
        _ => (1, 1 + g.d.below(33)),
    };
    let bias = g.d.flag();
    g.conv(x, &w, channels, group, bias)
}

pub fn upward(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.upward(x)
}

impl Gen<'_> {
    /// A transposed convolution.
    pub fn upward(&mut self, x: Id) -> Option<Id> {
        let g = self;
        let v = g.get(x);
        let (c, n, out) = (v.dims[1][0], v.rank() - 2, 1 + g.d.below(9));
        let (kernel, stride) = (g.d.pick(&[1usize, 2, 3]), g.d.pick(&[1usize, 2]));
        let k = c * kernel.pow(n as u32);
        let bound = g.scale(&v, k, 3.0);
        let w = g.weights(v.dtype, &[vec![c, out], vec![kernel; n]].concat(), bound);
        let (most, error) = g.product(&v, &g.get(w), k, 1.0);
        let image = v.dims[2..].iter().map(|d| each(|k| (d[k] - 1) * stride + kernel));
        let dims = [v.dims[0], [out; SETS]].into_iter().chain(image).collect();
        g.one(
            "ConvTranspose",
            &[x, w],
            vec![("strides", A::Is(vec![stride as i64; n]))],
            v.sized(dims).bounds(-most, most, error),
        )
    }
}

pub fn pools(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    let v = g.get(x);
    if g.d.one_in(4) {
        let op = g.d.pick(&["GlobalAveragePool", "GlobalMaxPool"]);
        let n = v.dims[2..].iter().map(|d| d.iter().max().copied().unwrap_or(1)).product::<usize>();
        let error = if op == "GlobalMaxPool" { v.error } else { v.error + rounding(v.dtype, n as f64 + 2.0, v.most()) };
        let dims = v.dims.iter().enumerate().map(|(i, d)| if i < 2 { *d } else { [1; SETS] }).collect();
        return g.one(op, &[x], vec![], v.clone().sized(dims).bounds(v.low, v.high, error));
    }
    let mut w = Window::draw(g, &v.dims[2..])?;
    w.dilations.fill(1);
    // No window may lie in the pads alone.
    let n = v.rank() - 2;
    for i in 0..2 * n {
        w.pads[i] = w.pads[i].min(w.kernel[i % n] / 2).min(w.kernel[i % n] - 1);
    }
    let dims = [&v.dims[..2], &w.output(&v.dims[2..])?].concat();
    let size = w.kernel.iter().product::<usize>() as f64;
    let (op, out) = match g.d.flag() {
        true => ("MaxPool", v.clone()),
        false => (
            "AveragePool",
            v.clone().bounds(v.low.min(0.0), v.high.max(0.0), v.error + rounding(v.dtype, size + 2.0, v.most())),
        ),
    };
    let mut attrs = w.attrs(true);
    if op == "AveragePool" {
        attrs.push(("count_include_pad", A::I(g.d.flag().into())));
    }
    g.one(op, &[x], attrs, out.sized(dims))
}

pub fn reductions(g: &mut Gen) -> Option<Id> {
    let x = match g.d.one_in(6) {
        true => g.pick(|v| matches!(v.dtype, I32 | I64) && v.rank() > 0 && v.exact() && !v.loose)?,
        false => g.operand(1, 5, |_| true)?,
    };
    let rank = g.val(x).rank();
    let axes = axes(g, rank);
    let op = g.d.pick(&[
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
        "ReduceProd",
    ]);
    let keep = g.d.flag();
    g.reduce(op, x, &axes, keep)
}

/// Sums along an axis, the greatest elements and where they are.
pub fn orders(g: &mut Gen) -> Option<Id> {
    if g.odd {
        return None;
    }
    let x = g.operand(1, 4, |v| v.full() && v.exact() && v.count() > 0)?;
    let v = g.get(x);
    let axis = g.d.below(v.rank());
    let n = v.dims[axis];
    let most = n.iter().copied().max()? as f64;
    match g.d.below(4) {
        0 => {
            let a = g.int(axis as i64);
            let out = v.clone().bounds(-most * v.most(), most * v.most(), rounding(v.dtype, most, most * v.most()));
            let attrs = vec![("exclusive", A::I(g.d.flag().into())), ("reverse", A::I(g.d.flag().into()))];
            g.one("CumSum", &[x, a], attrs, out)
        }
        1 => {
            let mut dims = v.dims.clone();
            dims[axis] = [1; SETS];
            let op = g.d.pick(&["ArgMax", "ArgMin"]);
            let out = v.clone().of(I64).sized(dims).bounds(0.0, most - 1.0, 0.0);
            g.one(op, &[x], vec![("axis", A::I(axis as i64)), ("keepdims", A::I(1))], out)
        }
        2 => {
            let k = 1 + g.d.below(n.iter().copied().min()?.min(5));
            let mut dims = v.dims.clone();
            dims[axis] = [k; SETS];
            let k = g.ints(&[k as i64]);
            let attrs = vec![("axis", A::I(axis as i64)), ("largest", A::I(g.d.flag().into()))];
            let outs = vec![v.clone().sized(dims.clone()), v.of(I64).sized(dims).bounds(0.0, most - 1.0, 0.0)];
            g.node("TopK", &[Some(x), Some(k)], attrs, outs).map(|ids| ids[0])
        }
        _ => g.one("Hardmax", &[x], vec![("axis", A::I(axis as i64))], v.bounds(0.0, 1.0, 0.0)),
    }
}

pub fn normalisations(g: &mut Gen) -> Option<Id> {
    let epsilon = g.d.pick(&[1e-5f32, 1e-3, 0.1]);
    match g.d.below(6) {
        0 | 1 => {
            let x = g.operand(1, 4, |v| v.dims.last().is_some_and(|n| fixed(n) && n[0] > 0))?;
            let v = g.get(x);
            let n = v.dims.last()?[0];
            let (scale, shift) = (g.weights(v.dtype, &[n], 1.0), g.weights(v.dtype, &[n], 1.0));
            let (most, error) = Gen::normalised(&v, n, f64::from(epsilon));
            let out = v.bounds(-most - 1.0, most + 1.0, error + rounding(F32, 2.0, most));
            let inputs = if g.d.flag() { vec![x, scale, shift] } else { vec![x, scale] };
            g.one("LayerNormalization", &inputs, vec![("axis", A::I(-1)), ("epsilon", A::F(epsilon))], out)
        }
        2 => {
            let x = g.picture()?;
            let v = g.get(x);
            let c = v.dims[1][0];
            let (scale, shift) = (g.weights(v.dtype, &[c], 1.0), g.weights(v.dtype, &[c], 1.0));
            let n = count_along(&v, &(2..v.rank()).collect::<Vec<_>>()).into_iter().max()?;
            let (most, error) = Gen::normalised(&v, n, f64::from(epsilon));
            g.one(
                "InstanceNormalization",
                &[x, scale, shift],
                vec![("epsilon", A::F(epsilon))],
                v.bounds(-most - 1.0, most + 1.0, error),
            )
        }
        3 => {
            let x = g.picture()?;
            g.batch_norm(x)
        }
        4 => {
            let x = g.operand(1, 4, |v| v.full())?;
            let v = g.get(x);
            let axis = g.d.within(-1, v.rank() as i64 - 1);
            if g.d.flag() {
                return g.softmax(x, axis, v.most());
            }
            let n = v.dims.iter().flatten().copied().max()? as f64;
            let low = v.low - v.high - n.ln();
            let out = v.clone().bounds(low, 0.0, 2.0 * v.error + rounding(v.dtype, 30.0 + n, low.abs() + 1.0));
            g.one("LogSoftmax", &[x], vec![("axis", A::I(axis))], out)
        }
        _ => {
            let x = g.picture()?;
            let v = g.get(x);
            if v.rank() != 4 || v.dtype != F32 {
                return None;
            }
            let out = v.clone().bounds(-v.most(), v.most(), 2.0 * v.error + rounding(v.dtype, 30.0, v.most()));
            g.one(
                "LRN",
                &[x],
                vec![("size", A::I(3)), ("alpha", A::F(0.01)), ("beta", A::F(0.75)), ("bias", A::F(1.0))],
                out,
            )
        }
    }
}

impl Gen<'_> {
    pub fn batch_norm(&mut self, x: Id) -> Option<Id> {
        let v = self.get(x);
        let c = *v.dims.get(1)?;
        if !fixed(&c) {
            return None;
        }
        let list = |g: &mut Self, low: f64, high: f64| g.spread(v.dtype, &[c[0]], low, high);
        let inputs = [x, list(self, 0.5, 1.0), list(self, -1.0, 1.0), list(self, -0.5, 0.5), list(self, 0.7, 2.0)];
        let most = (v.most() + 0.5) / 0.7f64.sqrt() + 1.0;
        let out = v.clone().bounds(-most, most, 1.3 * v.error + rounding(v.dtype, 10.0, most));
        self.one("BatchNormalization", &inputs, vec![("epsilon", A::F(1e-5))], out)
    }
}

/// Recurrent layers: gates keep everything between -1 and 1.
pub fn recurrent(g: &mut Gen) -> Option<Id> {
    let (seq, batch) = (g.full_size(6), g.full_size(4));
    let (input, hidden): (usize, usize) = (1 + g.d.below(9), 1 + g.d.below(18));
    let x = match g.float(|v| {
        v.rank() == 3
            && v.full()
            && v.dtype == F32
            && fixed(&v.dims[2])
            && v.dims[2][0] <= 20
            && v.dims[0].iter().all(|&n| n <= 8)
    }) {
        Some(x) => x,
        None => g.feed(F32, &[seq, batch, [input; SETS]], -1.0, 1.0),
    };
    let v = g.get(x);
    let (op, gates) = g.d.pick(&[("RNN", 1), ("GRU", 3), ("LSTM", 4)]);
    let (seq, batch, input) = (v.dims[0], v.dims[1], v.dims[2][0]);
    let bound = g.scale(&v, input, 2.0);
    let direction = g.d.pick(&["forward", "forward", "reverse", "bidirectional"]);
    let ways = if direction == "bidirectional" { 2 } else { 1 };
    let w = g.weights(DType::F32, &[ways, gates * hidden, input], bound);
    // Rows that sum to less than 1/2: what comes back fades.
    let r = g.weights(DType::F32, &[ways, gates * hidden, hidden], 0.25 / hidden as f64);
    let b = g.weights(DType::F32, &[ways, 2 * gates * hidden], 0.5);
    let steps = seq.iter().copied().max()? as f64;
    // A step's error through gates: two units of everything that goes in, and the roundings of sums and functions.
    let new = 4.0 * (v.error * input as f64 * bound + rounding(F32, (input + hidden + 20) as f64, 3.0));
    let error = new * 2f64.powf(steps.min(12.0));
    let out = v.clone().bounds(-1.0, 1.0, error);
    let whole = vec![seq, [ways; SETS], batch, [hidden; SETS]];
    let outs = vec![out.clone().sized(whole), out.sized(vec![[ways; SETS], batch, [hidden; SETS]])];
    let attrs = vec![("hidden_size", A::I(hidden as i64)), ("direction", A::S(direction))];
    g.node(op, &[Some(x), Some(w), Some(r), Some(b)], attrs, outs).map(|ids| ids[0])
}

/// Numbers quantised while running, multiplied as bytes, and scaled back.
pub fn dynamic(g: &mut Gen) -> Option<Id> {
    if g.odd {
        return None;
    }
    let x = g.operand(2, 3, |v| {
        v.exact() && v.dtype == F32 && v.full() && v.dims.last().is_some_and(fixed) && (0.5..=4.0).contains(&v.most())
    })?;
    let (k, n) = (g.val(x).dims.last()?[0], 1 + g.d.below(20));
    g.idiom(|g| {
        let v = g.get(x);
        let range = v.high.max(0.0) - v.low.min(0.0);
        let outs = vec![
            v.clone().of(U8).bounds(0.0, 255.0, 1.0),
            v.clone().sized(vec![]).bounds(0.0, range / 255.0, rounding(F32, 4.0, range)),
            v.clone().of(U8).sized(vec![]).bounds(0.0, 255.0, 1.0),
        ];
        let made = g.node("DynamicQuantizeLinear", &[Some(x)], vec![], outs)?;
        let w = g.spread(I8, &[k, n], -127.0, 127.0);
        let most = k as f64 * 255.0 * 127.0;
        let mut dims = v.dims.clone();
        *dims.last_mut()? = [n; SETS];
        // A step apart in each of k, and in the zero point.
        let sums = v.clone().of(I32).sized(dims).bounds(-most, most, 2.0 * k as f64 * 127.0);
        let y = g.node("MatMulInteger", &[Some(made[0]), Some(w), Some(made[2])], vec![], vec![sums.clone()])?[0];
        let wide = sums.of(F32);
        let y = g.one(
            "Cast",
            &[y],
            vec![("to", A::I(1))],
            wide.clone().bounds(-most, most, wide.error + rounding(F32, 1.0, most)),
        )?;
        let scale = g.spread(F32, &[n], 0.001, 0.01);
        let scales = g.mul(made[1], scale)?;
        let y = g.mul(y, scales)?;
        g.biased(y)
    })
}

/// Products of bytes: exact.
pub fn whole(g: &mut Gen) -> Option<Id> {
    let (m, k, n) = (g.full_size(9), 1 + g.d.below(40), 1 + g.d.below(20));
    let (a, b) = (g.d.pick(&[U8, U8, I8]), g.d.pick(&[U8, I8]));
    let range = |d: DType| if d == U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
    let x = g.feed(a, &[m, [k; SETS]], range(a).0, range(a).1);
    let w = g.spread(b, &[k, n], range(b).0, range(b).1);
    let (za, zb) = (g.spread(a, &[], 3.0, 9.0), g.spread(b, &[], 0.0, 5.0));
    let most = 65536.0 * 2.0 * k as f64;
    let out = g.get(x).of(I32).sized(vec![m, [n; SETS]]).bounds(-most, most, 0.0);
    if g.d.flag() {
        // As exporters of dynamically quantised models have it.
        return g.idiom(|g| {
            let y = g.one("MatMulInteger", &[x, w, za, zb], vec![], out)?;
            let float = g.get(y).of(F32).bounds(-most, most, rounding(F32, 1.0, most));
            let f = g.one("Cast", &[y], vec![("to", A::I(1))], float)?;
            let columns = if g.d.flag() { vec![n] } else { vec![] };
            let (sa, sb) = (g.feed(F32, &[], 0.5, 1.5), g.spread(F32, &columns, 0.5 / most, 1.0 / most));
            let s = g.mul(sa, sb)?;
            let y = g.mul(f, s)?;
            if g.d.flag() { g.biased(y) } else { Some(y) }
        });
    }
    let y = g.one("MatMulInteger", &[x, w, za, zb], vec![], out)?;
    let f = g.idiom(|g| {
        let f =
            g.one("Cast", &[y], vec![("to", A::I(1))], g.get(y).of(F32).bounds(-most, most, rounding(F32, 1.0, most)))?;
        g.with("Mul", f, 1.0 / most)
    })?;
    Some(f)
}
