//! What exporters write and passes look for, and near-misses of it.

use super::generator::{A, Gen, Id, SETS, Size, each, fixed, rounding, tame};
use super::neural::Window;
use ortx::DType::{self, *};

impl Gen<'_> {
    /// An activation as one operator, or written out.
    pub fn activation(&mut self, x: Id) -> Option<Id> {
        let v = self.get(x);
        let dtype = v.dtype;
        let written = |g: &mut Self, x: Id| -> Option<Id> {
            match g.d.below(9) {
                0 => {
                    // x / 2 * (1 + erf(x / sqrt(2))), in an order that is drawn.
                    let half = if g.d.flag() {
                        g.with("Div", x, std::f64::consts::SQRT_2)?
                    } else {
                        g.with("Mul", x, std::f64::consts::FRAC_1_SQRT_2)?
                    };
                    let e = g.unary("Erf", half)?;
                    let sum = g.with("Add", e, 1.0)?;
                    if g.d.flag() {
                        let y = g.mul(x, sum)?;
                        g.with("Mul", y, 0.5)
                    } else {
                        let y = g.with("Mul", x, 0.5)?;
                        g.mul(y, sum)
                    }
                }
                1 => {
                    let cube = if g.d.flag() {
                        g.power(x, 3.0)?
                    } else {
                        let square = g.mul(x, x)?;
                        g.mul(square, x)?
                    };
                    let cubic = g.with("Mul", cube, 0.044715)?;
                    let sum = g.add(x, cubic)?;
                    let inner = g.with("Mul", sum, (2.0 / std::f64::consts::PI).sqrt())?;
                    let t = g.unary("Tanh", inner)?;
                    let one = g.with("Add", t, 1.0)?;
                    let half = g.with("Mul", x, 0.5)?;
                    g.mul(half, one)
                }
                2 | 3 => {
                    let s = if g.d.one_in(3) {
                        let scaled = g.with("Mul", x, 1.702)?;
                        g.unary("Sigmoid", scaled)?
                    } else {
                        g.unary("Sigmoid", x)?
                    };
                    g.mul(x, s)
                }
                4 => {
                    let s = g.unary("HardSigmoid", x)?;
                    g.mul(x, s)
                }
                5 => {
                    let three = g.with("Add", x, 3.0)?;
                    let six = g.clip(three, 0.0, 6.0)?;
                    let y = g.mul(x, six)?;
                    g.with("Div", y, 6.0)
                }
                6 => {
                    let mut s = g.unary("Softplus", x)?;
                    if g.d.one_in(3) {
                        // Beyond a threshold the operand itself, which differs by e^-threshold at most.
                        let threshold = g.d.pick(&[20.0, 9.0]);
                        let t = g.number(x, threshold);
                        let test = g.get(x).of(Bool).bounds(0.0, 1.0, 0.0);
                        let test = g.one("Greater", &[x, t], vec![], test)?;
                        let v = g.get(s);
                        let error = v.error + (-threshold).exp();
                        let v = v.clone().bounds(v.low, v.high, error);
                        s = g.one("Where", &[test, x, s], vec![], v)?;
                    }
                    let t = g.unary("Tanh", s)?;
                    g.mul(x, t)
                }
                7 => {
                    let n = g.unary("Neg", x)?;
                    let e = g.unary("Exp", n)?;
                    let one = g.with("Add", e, 1.0)?;
                    g.binary("Div", x, one)
                }
                _ => g.clip(x, 0.0, 6.0),
            }
        };
        if dtype.is_float() && self.d.flag() {
            let high = v.high.max(0.0);
            let y = written(self, x)?;
            // None of them is steeper than this, nor above its operand by more.
            let bound = self.get(y);
            return Some(self.refine(y, bound.low.max(-v.most()), bound.high.min(1.2 * high + 1.0), bound.error));
        }
        let op = self.d.pick(&[
            "Relu",
            "Relu",
            "Sigmoid",
            "Tanh",
            "LeakyRelu",
            "HardSwish",
            "Gelu",
            "Elu",
            "Mish",
            "HardSigmoid",
        ]);
        self.unary(op, x)
    }

    /// (x - mean) / sqrt(variance + epsilon), times scale, plus shift; or x / sqrt(mean of squares + epsilon) times scale.
    pub fn written_norm(&mut self, x: Id, axes: &[usize], rms: bool) -> Option<Id> {
        let v = self.get(x);
        let epsilon = self.d.pick(&[1e-5, 1e-3, 0.1]);
        let n = super::neural::count_along(&v, axes).into_iter().max()?;
        if n == 0 || !v.full() || n > 300 {
            return None;
        }
        let (most, error) = Gen::normalised(&v, n, epsilon);
        let from = if rms {
            x
        } else {
            let mean = self.reduce("ReduceMean", x, axes, true)?;
            self.binary("Sub", x, mean)?
        };
        let square = if self.d.flag() { self.power(from, 2.0)? } else { self.mul(from, from)? };
        let variance = self.reduce("ReduceMean", square, axes, true)?;
        let e = self.number(x, epsilon);
        let sum = self.add(variance, e)?;
        let root = self.get(sum).bounds(0.0, f64::INFINITY, f64::INFINITY);
        let out = v.clone().bounds(-most, most, error);
        // Intervals know nothing of these: they are bounded by what the whole is.
        let y = match self.d.below(3) {
            0 => {
                let s = self.one("Sqrt", &[sum], vec![], root)?;
                self.one("Div", &[from, s], vec![], out)?
            }
            1 => {
                let s = self.one("Sqrt", &[sum], vec![], root.clone())?;
                let r = self.one("Reciprocal", &[s], vec![], root)?;
                self.one("Mul", &[from, r], vec![], out)?
            }
            _ => {
                let k = self.constant(crate::properties::reference::tensor(v.dtype, &[], &[-0.5]));
                let r = self.one("Pow", &[sum, k], vec![], root)?;
                self.one("Mul", &[from, r], vec![], out)?
            }
        };
        let by_channel = axes.first() == Some(&2) && self.d.flag();
        let mut shape: Vec<usize> = Vec::new();
        for &a in if by_channel { &[1][..] } else { axes } {
            if !fixed(&v.dims[a]) {
                return Some(y);
            }
            shape.push(v.dims[a][0]);
        }
        if by_channel {
            shape.extend(vec![1; axes.len()]);
        }
        let scale = self.weights(v.dtype, &shape, 1.0);
        let y = self.mul(y, scale)?;
        if rms || self.d.one_in(4) {
            return Some(y);
        }
        let shift = self.weights(v.dtype, &shape, 1.0);
        self.add(y, shift)
    }
}

/// Pad, Conv, BatchNormalization, activation, residual: as many of them as are drawn.
pub fn conv_block(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.idiom(|g| {
        let v = g.get(x);
        let n = v.rank() - 2;
        let mut from = x;
        let mut dims = v.dims.clone();
        if g.d.one_in(3) {
            let mut pads = vec![0i64; 2 * v.rank()];
            for i in 2..v.rank() {
                pads[i] = g.d.within(0, 2);
                pads[i + v.rank()] = g.d.within(0, 2);
                dims[i] = each(|k| dims[i][k] + (pads[i] + pads[i + v.rank()]) as usize);
            }
            if g.d.one_in(8) {
                pads[1] = 1;
                dims[1] = each(|k| dims[1][k] + 1);
            }
            let p = g.ints(&pads);
            let mut inputs = vec![x, p];
            let mut out = v.clone().sized(dims).bounds(v.low.min(0.0), v.high.max(0.0), v.error);
            if g.d.one_in(6) {
                let fill = g.constant(crate::properties::reference::tensor(v.dtype, &[], &[-1.0]));
                inputs.push(fill);
                out.low = out.low.min(-1.0);
            }
            from = g.one("Pad", &inputs, vec![], out)?;
            dims = g.val(from).dims.clone();
        }
        let c = dims[1][0];
        let mut w = Window::draw(g, &dims[2..])?;
        let same = g.d.flag();
        if same {
            // As large as before, so that a residual fits.
            (w.strides, w.dilations, w.kernel) = (vec![1; n], vec![1; n], vec![3; n]);
            w.pads = vec![1; 2 * n];
        }
        let (group, channels) = if g.d.one_in(4) { (c, c) } else { (1, if same { c } else { 1 + g.d.below(33) }) };
        let bias = g.d.flag();
        let mut y = g.conv(from, &w, channels, group, bias)?;
        if g.d.below(3) > 0 {
            y = g.batch_norm(y)?;
        } else if g.d.one_in(3) {
            let shape = [vec![channels], vec![1; n]].concat();
            let k = g.weights(v.dtype, &shape, 1.0);
            y = if g.d.flag() { g.mul(y, k)? } else { g.add(y, k)? };
        }
        let residual = |g: &mut Gen, y: Id| -> Option<Id> {
            let like = g.get(y);
            let other = g.pick(|v| tame(v) && v.dtype == like.dtype && v.dims == like.dims).unwrap_or(y);
            g.add(y, other)
        };
        if g.d.one_in(3) {
            y = residual(g, y)?;
        }
        if g.d.below(4) > 0 {
            y = g.activation(y)?;
        }
        if g.d.one_in(4) {
            y = residual(g, y)?;
        }
        Some(y)
    })
}

/// MatMul or Gemm, scale, bias, activation, residual.
pub fn dense_block(g: &mut Gen) -> Option<Id> {
    let x = g.operand(2, 4, |v| v.dims.last().is_some_and(|k| fixed(k) && k[0] > 0))?;
    g.idiom(|g| {
        let n = if g.d.flag() { g.val(x).dims.last()?[0] } else { 1 + g.d.below(40) };
        let mut y = g.project(x, n, 3.0)?;
        if g.d.one_in(4) {
            y = g.with("Mul", y, 0.5)?;
        }
        if g.d.below(4) > 0 {
            y = g.biased(y)?;
        }
        let early = g.d.one_in(3);
        for step in 0..2 {
            if (step == 0) == early {
                let like = g.get(y);
                if let Some(other) = g.pick(|v| tame(v) && v.dtype == like.dtype && v.dims == like.dims) {
                    y = g.add(y, other)?;
                }
            } else if g.d.below(4) > 0 {
                y = g.activation(y)?;
            }
        }
        Some(y)
    })
}

pub fn activations(g: &mut Gen) -> Option<Id> {
    let x = g.operand(0, 4, |v| v.most() <= 4.5)?;
    g.idiom(|g| g.activation(x))
}

pub fn norms(g: &mut Gen) -> Option<Id> {
    let x = g.operand(1, 4, |v| v.full() && v.most() <= 16.0)?;
    let rank = g.val(x).rank();
    g.idiom(|g| {
        let rms = g.d.one_in(3);
        let axes: Vec<usize> = match g.d.below(8) {
            0 => vec![g.d.below(rank)],
            1 if rank > 2 => (2..rank).collect(),
            2 if rank > 1 => vec![rank - 2, rank - 1],
            _ => vec![rank - 1],
        };
        // In a wider type than it comes in.
        if g.val(x).dtype == F16 && g.d.flag() {
            let wide = g.cast(x, F32)?;
            let y = g.written_norm(wide, &axes, rms)?;
            return g.cast(y, F16);
        }
        g.written_norm(x, &axes, rms)
    })
}

/// Reshape, InstanceNormalization, Reshape, scale, shift.
pub fn group_norm(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.idiom(|g| {
        let v = g.get(x);
        let c = v.dims[1][0];
        let groups = (1..=4).rev().find(|k| c % k == 0)?;
        let inner: Vec<usize> = (1..v.rank()).collect();
        let all = super::neural::count_along(&v, &inner);
        let dims = vec![v.dims[0], [groups; SETS], each(|k| all[k] / groups)];
        let cut = g.reshape(x, dims.clone())?;
        let fill = |g: &mut Gen, x: f64| {
            let x = if g.d.one_in(10) { x + 0.5 } else { x };
            g.constant(crate::properties::reference::tensor(v.dtype, &[groups], &vec![x; groups]))
        };
        let (one, zero) = (fill(g, 1.0), fill(g, 0.0));
        let n = dims[2].iter().copied().max()?;
        let (most, error) = Gen::normalised(&v, n, 1e-3);
        let out = g.get(cut).bounds(-1.5 * most - 0.5, 1.5 * most + 0.5, 1.5 * error + rounding(v.dtype, 2.0, most));
        let y = g.one("InstanceNormalization", &[cut, one, zero], vec![("epsilon", A::F(1e-3))], out)?;
        let y = g.reshape(y, v.dims.clone())?;
        let shape = [vec![c], vec![1; v.rank() - 2]].concat();
        let (scale, shift) = (g.weights(v.dtype, &shape, 1.0), g.weights(v.dtype, &shape, 1.0));
        let y = g.mul(y, scale)?;
        g.add(y, shift)
    })
}

/// Several elementwise operators one after the other, with operands of other shapes, and a value used twice.
pub fn chain(g: &mut Gen) -> Option<Id> {
    let x = g.operand(0, 4, |_| true)?;
    let n = 2 + g.d.below(5);
    g.idiom(|g| {
        let mut y = x;
        for _ in 0..n {
            let next = match g.d.below(5) {
                0 | 1 => g.activation(y),
                2 => g.mul(y, x),
                _ => {
                    let p = g.partner(y)?;
                    let op = g.d.pick(&["Add", "Mul", "Sub", "Max"]);
                    g.binary(op, y, p)
                }
            };
            match next {
                Some(v) if tame(g.val(v)) => y = v,
                _ => break,
            }
        }
        (y != x).then_some(y)
    })
}

/// The same twice; what folds; what changes nothing; what nobody needs.
pub fn redundant(g: &mut Gen) -> Option<Id> {
    let x = g.operand(1, 4, |_| true)?;
    let v = g.get(x);
    match g.d.below(6) {
        0 => {
            let op = g.d.pick(&["Relu", "Sigmoid", "Abs"]);
            let (a, b) = (g.unary(op, x)?, g.unary(op, x)?);
            g.add(a, b)
        }
        1 => g.idiom(|g| {
            // Constants among themselves, one of them made from a shape.
            let a = g.spread(v.dtype, &[3, 1], -1.0, 1.0);
            let b = g.spread(v.dtype, &[1, 1], 0.5, 1.0);
            let c = g.mul(a, b)?;
            let d = g.reduce("ReduceSum", c, &[0, 1], false)?;
            g.mul(x, d)
        }),
        2 => {
            let k = g.d.pick(&[("Mul", 1.0), ("Add", 0.0), ("Sub", 0.0), ("Div", 1.0), ("Mul", 0.0), ("Mul", -1.0)]);
            g.with(k.0, x, k.1)
        }
        3 => {
            let a = g.with("Mul", x, 0.5)?;
            let b = g.with("Mul", a, 1.5)?;
            g.with("Add", b, 0.25)
        }
        4 => {
            // Dropout does nothing when it runs.
            g.one("Dropout", &[x], vec![], v)
        }
        _ => {
            let a = g.unary("Neg", x)?;
            g.unary("Neg", a)
        }
    }
}

/// Q/DQ groups: around convolutions, products, elementwise operators, softmax, norms and what only moves numbers.
pub fn quantised(g: &mut Gen) -> Option<Id> {
    if g.odd {
        return None;
    }
    let picture = g.d.flag();
    let x = if picture {
        let dims = [g.full_size(3), [g.d.pick(&[1, 3, 4, 8, 16]); SETS], g.full_size(12), g.full_size(12)];
        g.feed(F32, &dims, -2.0, 2.0)
    } else {
        let (m, k) = (g.full_size(9), 1 + g.d.below(40));
        g.feed(F32, &[m, [k; SETS]], -2.0, 2.0)
    };
    g.idiom(|g| {
        let dtype = g.d.pick(&[U8, U8, I8]);
        let mut y = g.steps(x, dtype)?;
        for _ in 0..1 + g.d.below(3) {
            let v = g.get(y);
            let next = match g.d.below(8) {
                0 | 1 if picture => g.quantised_conv(y),
                0 | 1 => g.quantised_product(y),
                2 => {
                    let op = g.d.pick(&["Relu", "Sigmoid", "Tanh"]);
                    g.unary(op, y)
                }
                3 => g.add(y, y),
                4 if picture => {
                    let pool = g.d.flag();
                    let dims = vec![
                        v.dims[0],
                        v.dims[1],
                        each(|k| v.dims[2][k].div_ceil(2)),
                        each(|k| v.dims[3][k].div_ceil(2)),
                    ];
                    let attrs = vec![
                        ("kernel_shape", A::Is(vec![2, 2])),
                        ("strides", A::Is(vec![2, 2])),
                        ("ceil_mode", A::I(1)),
                    ];
                    let error = v.error + if pool { 0.0 } else { rounding(F32, 8.0, v.most()) };
                    g.one(
                        if pool { "MaxPool" } else { "AveragePool" },
                        &[y],
                        attrs,
                        v.clone().sized(dims).bounds(v.low, v.high, error),
                    )
                }
                4 => g.transpose(y, &[1, 0]).filter(|&t| fixed(g.val(t).dims.last().expect("two axes"))),
                5 => g.softmax(y, -1, v.most()),
                6 if v.dims.last().is_some_and(fixed) => {
                    let n = v.dims.last()?[0];
                    let (scale, shift) = (g.weights(F32, &[n], 1.0), g.weights(F32, &[n], 1.0));
                    let (most, error) = Gen::normalised(&v, n, 0.1);
                    let out = v.bounds(-most - 1.0, most + 1.0, error + rounding(F32, 2.0, most));
                    let attrs = vec![("axis", A::I(-1)), ("epsilon", A::F(0.1))];
                    g.one("LayerNormalization", &[y, scale, shift], attrs, out)
                }
                _ => g.concat(&[y, y], 1),
            };
            let Some(next) = next else { break };
            y = g.steps(next, dtype)?;
        }
        Some(y)
    })
}

impl Gen<'_> {
    /// QuantizeLinear and DequantizeLinear: what lies between steps may come out a step apart.
    fn steps(&mut self, x: Id, dtype: DType) -> Option<Id> {
        let v = self.get(x);
        let step = (2.0 * v.most().max(0.1) / 255.0 * 1e4).ceil() / 1e4;
        let zero = if dtype == U8 { if v.low >= 0.0 { 0.0 } else { 128.0 } } else { 0.0 };
        let s = self.constant(crate::properties::reference::tensor(F32, &[], &[step]));
        let z = self.constant(crate::properties::reference::tensor(dtype, &[], &[zero]));
        let range = if dtype == U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
        let bytes = v.clone().of(dtype).bounds(range.0, range.1, (v.error / step).floor() + 1.0);
        let q = self.one("QuantizeLinear", &[x, s, z], vec![], bytes.clone())?;
        // Saturation brings no element further from its neighbours.
        let out = v.bounds(
            (range.0 - zero) * step,
            (range.1 - zero) * step,
            bytes.error * step + rounding(F32, 2.0, 255.0 * step),
        );
        self.one("DequantizeLinear", &[q, s, z], vec![], out)
    }
    /// Quantised weights as numbers: a scale for all, or one an output channel along `axis`.
    fn quantised_weights(&mut self, shape: &[usize], axis: usize, bound: f64) -> Option<Id> {
        let q = self.spread(I8, shape, -127.0, 127.0);
        let step = bound / 127.0;
        let each = self.d.flag();
        let n = shape[axis];
        let s = if each {
            self.spread(F32, &[n], step / 2.0, step)
        } else {
            self.constant(crate::properties::reference::tensor(F32, &[], &[step]))
        };
        let z = self.constant(ortx::Tensor::zeroed(I8, if each { &shape[axis..=axis] } else { &[] }).unwrap());
        let attrs = if each { vec![("axis", A::I(axis as i64))] } else { vec![] };
        let out = self.get(q).of(F32).bounds(-bound, bound, rounding(F32, 1.0, bound));
        self.one("DequantizeLinear", &[q, s, z], attrs, out)
    }
    fn quantised_conv(&mut self, x: Id) -> Option<Id> {
        let v = self.get(x);
        let c = v.dims[1][0];
        let (group, channels) = if self.d.one_in(3) { (c, c) } else { (1, 1 + self.d.below(20)) };
        let k = c / group * 9;
        let bound = 3.0 / (v.most() * k as f64);
        let w = self.quantised_weights(&[channels, c / group, 3, 3], 0, bound)?;
        let most = k as f64 * bound * v.most();
        let error = k as f64 * bound * v.error + rounding(F32, 4.0 * k as f64, most);
        let attrs =
            vec![("pads", A::Is(vec![1; 4])), ("kernel_shape", A::Is(vec![3, 3])), ("group", A::I(group as i64))];
        let dims = vec![v.dims[0], [channels; SETS], v.dims[2], v.dims[3]];
        let y = self.one("Conv", &[x, w], attrs, v.sized(dims).bounds(-most, most, error))?;
        if self.d.flag() { self.unary("Relu", y) } else { Some(y) }
    }
    fn quantised_product(&mut self, x: Id) -> Option<Id> {
        let v = self.get(x);
        let k = v.dims[1][0];
        let n = 1 + self.d.below(20);
        let bound = (3.0 / (v.most() * k as f64)).min(1.0);
        let w = self.quantised_weights(&[k, n], 1, bound)?;
        self.matmul(x, w)
    }
}

/// An embedding: rows of a table, at places that are given.
pub fn embedding(g: &mut Gen) -> Option<Id> {
    let (rows, width) = (2 + g.d.below(20), g.d.pick(&[4usize, 8, 12, 16, 17]));
    let dtype = g.float_type();
    let (batch, seq) = (g.full_size(4), g.full_size(17));
    let table = g.spread(dtype, &[rows, width], -1.0, 1.0);
    let dims: Vec<Size> = if g.d.one_in(4) { vec![seq] } else { vec![batch, seq] };
    let ids = g.feed(I64, &dims, 0.0, rows as f64 - 1.0);
    g.gather(table, ids, 0)
}
