//! Operators that work element by element, and what they do to ranges and errors.

use super::generator::{A, Attrs, Gen, Id, Val, broadcast, rounding, tame};
use ortx::DType::{self, *};

/// A function of one number: its least and greatest value over a range, and the steepest slope there.
type Shape = fn(f64, f64) -> Option<(f64, f64, f64)>;

fn rising(f: fn(f64) -> f64, low: f64, high: f64, slope: f64) -> Option<(f64, f64, f64)> {
    Some((f(low), f(high), slope))
}
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
fn softplus(x: f64) -> f64 {
    if x > 30.0 { x } else { x.exp().ln_1p() }
}

/// Name, attributes of one number, roundings, and the shape of the function. No rounding: the result is exact.
const FUNCTIONS: [(&str, &[(&str, f32)], f64, Shape); 29] = [
    ("Relu", &[], 0.0, |l, h| rising(|x| x.max(0.0), l, h, 1.0)),
    ("Neg", &[], 0.0, |l, h| Some((-h, -l, 1.0))),
    ("Abs", &[], 0.0, |l, h| {
        Some((if l <= 0.0 && h >= 0.0 { 0.0 } else { l.abs().min(h.abs()) }, l.abs().max(h.abs()), 1.0))
    }),
    ("Identity", &[], 0.0, |l, h| Some((l, h, 1.0))),
    ("Sigmoid", &[], 8.0, |l, h| rising(sigmoid, l, h, 0.25)),
    ("Tanh", &[], 8.0, |l, h| rising(f64::tanh, l, h, 1.0)),
    ("Erf", &[], 8.0, |_, _| Some((-1.0, 1.0, 1.13))),
    ("Exp", &[], 8.0, |l, h| if h < 5.0 { rising(f64::exp, l, h, h.exp()) } else { None }),
    ("Log", &[], 8.0, |l, h| if l > 0.1 { rising(f64::ln, l, h, 1.0 / l) } else { None }),
    ("Sqrt", &[], 4.0, |l, h| if l > 0.05 { rising(f64::sqrt, l, h, 0.5 / l.sqrt()) } else { None }),
    ("Reciprocal", &[], 4.0, |l, h| if l > 0.1 { Some((1.0 / h, 1.0 / l, 1.0 / (l * l))) } else { None }),
    ("Sin", &[], 8.0, |_, _| Some((-1.0, 1.0, 1.0))),
    ("Cos", &[], 8.0, |_, _| Some((-1.0, 1.0, 1.0))),
    ("Atan", &[], 8.0, |l, h| rising(f64::atan, l, h, 1.0)),
    ("Asinh", &[], 8.0, |l, h| rising(f64::asinh, l, h, 1.0)),
    ("Softplus", &[], 8.0, |l, h| rising(softplus, l, h, 1.0)),
    ("Softsign", &[], 8.0, |l, h| rising(|x| x / (1.0 + x.abs()), l, h, 1.0)),
    ("Elu", &[("alpha", 0.75)], 8.0, |l, h| rising(|x| if x < 0.0 { 0.75 * x.exp_m1() } else { x }, l, h, 1.0)),
    ("Selu", &[], 8.0, |l, h| Some((if l < 0.0 { -1.76 } else { 0.0 }, 1.06 * h.max(0.0), 1.76))),
    ("Celu", &[("alpha", 1.5)], 8.0, |l, h| rising(|x| if x < 0.0 { 1.5 * (x / 1.5).exp_m1() } else { x }, l, h, 1.0)),
    ("LeakyRelu", &[("alpha", 0.1)], 1.0, |l, h| Some((l.min(0.1 * l), h.max(0.1 * h), 1.0))),
    ("HardSigmoid", &[("alpha", 0.2), ("beta", 0.5)], 4.0, |_, _| Some((0.0, 1.0, 0.2))),
    ("HardSwish", &[], 8.0, |_, h| Some((-0.376, h.max(0.0), 1.5))),
    ("Mish", &[], 16.0, |_, h| Some((-0.31, h.max(0.0), 1.1))),
    ("Gelu", &[], 16.0, |_, h| Some((-0.171, h.max(0.0), 1.13))),
    ("Floor", &[], f64::INFINITY, |l, h| rising(f64::floor, l, h, 1.0)),
    ("Ceil", &[], f64::INFINITY, |l, h| rising(f64::ceil, l, h, 1.0)),
    ("Round", &[], f64::INFINITY, |l, h| rising(f64::round_ties_even, l, h, 1.0)),
    ("Sign", &[], f64::INFINITY, |_, _| Some((-1.0, 1.0, 0.0))),
];

impl Gen<'_> {
    /// A function by its name; `None` where the operand is not for it.
    pub fn unary(&mut self, op: &'static str, x: Id) -> Option<Id> {
        let (_, attrs, times, shape) = FUNCTIONS.iter().find(|f| f.0 == op)?;
        let v = self.get(x);
        let jumps = times.is_infinite();
        if jumps && !v.exact() || !v.is_float() && !["Neg", "Abs", "Identity"].contains(&op) {
            return None;
        }
        // The one that has f32 only.
        if op == "Celu" && v.dtype != F32 {
            return None;
        }
        let (low, high, slope) = shape(v.low, v.high)?;
        let new = if jumps || *times == 0.0 { 0.0 } else { rounding(v.dtype, *times, low.abs().max(high.abs())) };
        let mut attrs: Attrs = attrs.iter().map(|&(n, x)| (n, A::F(x))).collect();
        if op == "Gelu" && self.d.flag() {
            attrs.push(("approximate", A::S("tanh")));
        }
        let out = v.clone().bounds(low, high, slope * v.error + new);
        self.one(op, &[x], attrs, out)
    }

    /// Add, Sub, Mul, Div, Min, Max; operands of those that commute change places.
    pub fn binary(&mut self, op: &'static str, a: Id, b: Id) -> Option<Id> {
        let commutes = matches!(op, "Add" | "Mul" | "Min" | "Max");
        let (a, b) = if commutes && self.d.flag() { (b, a) } else { (a, b) };
        let (x, y) = (self.get(a), self.get(b));
        if x.dtype != y.dtype {
            return None;
        }
        let dims = broadcast(&x.dims, &y.dims)?;
        let over = |f: fn(f64, f64) -> f64| {
            let all = [f(x.low, y.low), f(x.low, y.high), f(x.high, y.low), f(x.high, y.high)];
            (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        };
        let ((mut low, high), error) = match op {
            "Add" => (over(|a, b| a + b), x.error + y.error),
            "Sub" => (over(|a, b| a - b), x.error + y.error),
            "Mul" => (over(|a, b| a * b), x.error * y.most() + y.error * x.most()),
            "Div" => {
                let least = if y.low > 0.0 { y.low } else { -y.high };
                if least < 0.1 || !x.is_float() {
                    return None;
                }
                (over(|a, b| a / b), (x.error + x.most() / least * y.error) / least)
            }
            "Min" => (over(f64::min), x.error.max(y.error)),
            "Max" => (over(f64::max), x.error.max(y.error)),
            _ => return None,
        };
        if op == "Mul" && a == b {
            low = 0.0;
        }
        let most = low.abs().max(high.abs());
        if !x.is_float() && most > 120.0 {
            return None;
        }
        let new = if matches!(op, "Min" | "Max") || !x.is_float() { 0.0 } else { rounding(x.dtype, 1.0, most) };
        // What rounds twice must not be turned into what rounds once by 0 * x and the like: that is not what 0.0 promises.
        let out = x.clone().sized(dims).bounds(low, high, error + new);
        self.one(op, &[a, b], vec![], out)
    }
    pub fn add(&mut self, a: Id, b: Id) -> Option<Id> {
        self.binary("Add", a, b)
    }
    pub fn mul(&mut self, a: Id, b: Id) -> Option<Id> {
        self.binary("Mul", a, b)
    }
    /// x and a number.
    pub fn with(&mut self, op: &'static str, x: Id, k: f64) -> Option<Id> {
        let k = self.number(x, k);
        self.binary(op, x, k)
    }
    /// A whole power, or a half.
    pub fn power(&mut self, x: Id, k: f64) -> Option<Id> {
        let v = self.get(x);
        let whole = k.fract() == 0.0;
        if !whole && v.low < 0.05 {
            return None;
        }
        let most = v.most().powf(k);
        let low = if whole && k % 2.0 == 0.0 {
            0.0
        } else if whole {
            -most
        } else {
            v.low.powf(k)
        };
        let slope = if k >= 1.0 { k * v.most().powf(k - 1.0) } else { k * v.low.powf(k - 1.0) };
        let k = self.number(x, k);
        // The number may have been perturbed.
        if self.val(k).low != self.val(k).low.trunc() && whole {
            return None;
        }
        let out = v.clone().bounds(low, most, slope * v.error + rounding(v.dtype, 8.0, most));
        self.one("Pow", &[x, k], vec![], out)
    }
    /// Numbers limited, by an operator or by two.
    pub fn clip(&mut self, x: Id, low: f64, high: f64) -> Option<Id> {
        let v = self.get(x);
        if self.d.one_in(5) {
            let part = self.with("Max", x, low)?;
            return self.with("Min", part, high);
        }
        let scalar = |g: &mut Self, x: f64| g.constant(crate::properties::reference::tensor(v.dtype, &[], &[x]));
        let (l, h) = (scalar(self, low), scalar(self, high));
        let out = v.clone().bounds(v.low.clamp(low, high), v.high.clamp(low, high), v.error);
        self.one("Clip", &[x, l, h], vec![], out)
    }
    /// Another type; `None` where that would jump or overflow.
    pub fn cast(&mut self, x: Id, to: DType) -> Option<Id> {
        let v = self.get(x);
        let (low, high, error) = match to {
            F32 | F64 | F16 => {
                let same = (v.dtype == to) as usize as f64;
                let wider = matches!((v.dtype, to), (F16, F32 | F64) | (F32, F64));
                // Small integers are exact in all three.
                let new = if wider || same == 1.0 || !v.is_float() && v.most() <= 2048.0 {
                    0.0
                } else {
                    rounding(to, 1.0, v.most())
                };
                (v.low, v.high, v.error + new)
            }
            Bool if v.exact() => (0.0, 1.0, 0.0),
            _ if self.odd && v.is_float() => return None,
            I32 | I64 if v.exact() || !v.is_float() => (v.low.trunc(), v.high.trunc(), v.error),
            U8 if v.exact() && v.low >= 0.0 && v.high <= 255.0 => (v.low.trunc(), v.high.trunc(), 0.0),
            I8 if v.exact() && v.most() <= 127.0 => (v.low.trunc(), v.high.trunc(), 0.0),
            _ => return None,
        };
        // f16's largest.
        if to == F16 && v.most() > 6e4 {
            return None;
        }
        if self.d.one_in(10) && self.depth() == 0 {
            let like = self.constant(ortx::Tensor::zeroed(to, &[]).unwrap());
            return self.one("CastLike", &[x, like], vec![], v.of(to).bounds(low, high, error));
        }
        self.one("Cast", &[x], vec![("to", A::I(to as i64))], v.of(to).bounds(low, high, error))
    }
}

pub fn any_unary(g: &mut Gen) -> Option<Id> {
    let x = g.operand(0, 5, |_| true)?;
    let at = g.d.below(FUNCTIONS.len());
    g.unary(FUNCTIONS[at].0, x)
}

pub fn any_binary(g: &mut Gen) -> Option<Id> {
    let x = g.operand(0, 5, |_| true)?;
    let y = g.partner(x)?;
    let op = g.d.pick(&["Add", "Sub", "Mul", "Div", "Min", "Max"]);
    if op == "Div" && g.val(y).low < 0.1 {
        let (dtype, low) = (g.val(x).dtype, 0.5);
        let y = g.spread(dtype, &[], low, 2.0);
        return g.binary(op, x, y);
    }
    if g.d.flag() { g.binary(op, x, y) } else { g.binary(op, y, x) }
}

/// Whole numbers among themselves.
pub fn integers(g: &mut Gen) -> Option<Id> {
    let dtype = g.d.pick(&[I64, I32, I64]);
    let x = match g.pick(|v| v.dtype == dtype && v.exact() && !v.loose && v.most() <= 100.0) {
        Some(x) => x,
        None => {
            let dims = g.shape(0, 4);
            g.feed(dtype, &dims, -5.0, 9.0)
        }
    };
    let v = g.get(x);
    match g.d.below(5) {
        0 => {
            let op = g.d.pick(&["Neg", "Abs"]);
            g.unary(op, x)
        }
        1 => {
            let by = g.d.within(2, 7);
            let y = g.constant(crate::properties::reference::tensor(dtype, &[], &[by as f64]));
            g.one("Mod", &[x, y], vec![], v.bounds(0.0, by as f64 - 1.0, 0.0))
        }
        2 if v.low >= 0.0 => {
            let by = g.d.within(1, 5) as f64;
            let y = g.constant(crate::properties::reference::tensor(dtype, &[], &[by]));
            g.one("Div", &[x, y], vec![], v.clone().bounds((v.low / by).floor(), (v.high / by).floor(), 0.0))
        }
        _ => {
            let shape: Vec<usize> = if g.d.flag() { vec![] } else { vec![1] };
            let y = g.spread(dtype, &shape, -3.0, 4.0);
            let op = g.d.pick(&["Add", "Sub", "Mul", "Min", "Max"]);
            g.binary(op, x, y)
        }
    }
}

/// Comparisons and what is done with truths.
pub fn logic(g: &mut Gen) -> Option<Id> {
    if g.d.below(3) == 0
        && let Some(a) = g.pick(|v| v.dtype == Bool && !v.loose)
    {
        let v = g.get(a);
        if g.d.below(3) == 0 {
            return g.one("Not", &[a], vec![], v.bounds(0.0, 1.0, 0.0));
        }
        let dims = v.dims.clone();
        let b = g.pick(|w| w.dtype == Bool && !w.loose && broadcast(&w.dims, &dims).is_some())?;
        let dims = broadcast(&dims, &g.val(b).dims.clone())?;
        let op = g.d.pick(&["And", "Or", "Xor", "Equal"]);
        return g.one(op, &[a, b], vec![], v.sized(dims).bounds(0.0, 1.0, 0.0));
    }
    let x = match g.pick(|v| v.exact() && !v.loose && matches!(v.dtype, F32 | F16 | F64 | I32 | I64)) {
        Some(x) => x,
        None => g.operand(0, 4, Val::exact)?,
    };
    let v = g.get(x);
    if v.is_float() && g.d.one_in(6) {
        let op = g.d.pick(&["IsNaN", "IsInf"]);
        // IsInf of f16 came with operator set 20.
        return g.one(op, &[x], vec![], v.of(Bool).bounds(0.0, 1.0, 0.0));
    }
    let y = match g.pick(|w| w.exact() && w.dtype == v.dtype && !w.loose && broadcast(&w.dims, &v.dims).is_some()) {
        Some(y) if g.d.flag() => y,
        _ => g.spread(v.dtype, &[], -1.0, 1.0),
    };
    let dims = broadcast(&v.dims, &g.val(y).dims.clone())?;
    let op = g.d.pick(&["Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"]);
    g.one(op, &[x, y], vec![], v.of(Bool).sized(dims).bounds(0.0, 1.0, 0.0))
}

pub fn choice(g: &mut Gen) -> Option<Id> {
    let by = match g.pick(|v| v.dtype == Bool && !v.loose) {
        Some(v) => v,
        None => logic(g).filter(|&v| g.val(v).dtype == Bool)?,
    };
    let dims = g.val(by).dims.clone();
    let a = g.pick(|v| tame(v) && v.is_float() && broadcast(&v.dims, &dims).is_some())?;
    let b = g.partner(a)?;
    let (x, y) = (g.get(a), g.get(b));
    let dims = broadcast(&broadcast(&x.dims, &y.dims)?, &dims)?;
    let out = x.clone().sized(dims).bounds(x.low.min(y.low), x.high.max(y.high), x.error.max(y.error));
    g.one("Where", &[by, a, b], vec![], out)
}

pub fn any_cast(g: &mut Gen) -> Option<Id> {
    let x = g.pick(|v| (tame(v) || v.exact()) && !v.loose && v.most() < 1e4)?;
    let to = g.d.pick(&[F32, F32, F16, F64, I32, I64, Bool, U8, I8]);
    let y = g.cast(x, to)?;
    // There and back.
    if g.d.flag() {
        let back = g.val(x).dtype;
        return g.cast(y, back);
    }
    Some(y)
}

/// Clip, PRelu, Pow, Sum, Mean: what takes more.
pub fn limits(g: &mut Gen) -> Option<Id> {
    let x = g.operand(0, 5, |_| true)?;
    let v = g.get(x);
    match g.d.below(4) {
        0 => g.clip(x, -1.0, 1.5),
        1 => {
            let k = g.d.pick(&[2.0, 2.0, 3.0, 0.5]);
            g.power(x, k)
        }
        2 => {
            let slope = g.spread(v.dtype, &[], 0.1, 0.9);
            let out = v.clone().bounds(v.low.min(0.0), v.high.max(0.0), v.error + rounding(v.dtype, 1.0, v.most()));
            g.one("PRelu", &[x, slope], vec![], out)
        }
        _ => {
            let y = g.partner(x)?;
            let z = g.partner(x)?;
            let all = [x, y, z];
            let list: Vec<Val> = all.iter().map(|&v| g.get(v)).collect();
            let dims = broadcast(&broadcast(&list[0].dims, &list[1].dims)?, &list[2].dims)?;
            let sum = |f: fn(&Val) -> f64| list.iter().map(f).sum::<f64>();
            let (low, high, most) = (sum(|v| v.low), sum(|v| v.high), sum(Val::most));
            let error = sum(|v| v.error) + rounding(v.dtype, 3.0, most);
            let op = g.d.pick(&["Sum", "Mean"]);
            let by = if op == "Mean" { 3.0 } else { 1.0 };
            g.one(op, &all, vec![], v.sized(dims).bounds(low / by, high / by, error))
        }
    }
}
