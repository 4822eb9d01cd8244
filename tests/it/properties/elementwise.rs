//! Unary, binary, variadic and choosing operators, and casts.

use super::draw::{Draw, case, epsilon};
use super::family;
use super::reference::{Array, broadcast, indices, int_tensor, ints, pick, spread_offset, tensor};
use ortx::DType::{self, *};
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::Case;

const FLOATS: [DType; 4] = [F32, F64, F16, BF16];
const INTS: [DType; 8] = [I32, I64, I8, I16, U8, U16, U32, U64];

type Plain = fn(f64) -> f64;

unsafe extern "C" {
    safe fn erf(x: f64) -> f64;
    safe fn erfc(x: f64) -> f64;
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
fn softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}
/// The greater, NaN if either is.
fn most(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}
fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { x } else { x.signum() }
}

/// Name, operator set, range of values, function.
const UNARY: [(&str, u32, f64, f64, Plain); 34] = [
    ("Abs", 13, -9.0, 9.0, f64::abs),
    ("Neg", 13, -9.0, 9.0, |x| -x),
    ("Relu", 14, -9.0, 9.0, |x| most(x, 0.0)),
    ("Sign", 13, -2.0, 2.0, sign),
    ("Floor", 13, -9.0, 9.0, f64::floor),
    ("Ceil", 13, -9.0, 9.0, f64::ceil),
    ("Round", 22, -9.0, 9.0, f64::round_ties_even),
    ("Sqrt", 13, -1.0, 90.0, f64::sqrt),
    ("Reciprocal", 13, -3.0, 3.0, |x| 1.0 / x),
    ("Exp", 13, -9.0, 9.0, f64::exp),
    ("Log", 13, -1.0, 90.0, f64::ln),
    ("Sin", 22, -90.0, 90.0, f64::sin),
    ("Cos", 22, -90.0, 90.0, f64::cos),
    ("Tan", 22, -9.0, 9.0, f64::tan),
    ("Asin", 22, -1.1, 1.1, f64::asin),
    ("Acos", 22, -1.1, 1.1, f64::acos),
    ("Atan", 22, -9.0, 9.0, f64::atan),
    ("Sinh", 22, -9.0, 9.0, f64::sinh),
    ("Cosh", 22, -9.0, 9.0, f64::cosh),
    ("Tanh", 13, -9.0, 9.0, f64::tanh),
    ("Asinh", 22, -9.0, 9.0, f64::asinh),
    // std's loses digits next to one.
    ("Acosh", 22, 0.5, 9.0, |x| (x - 1.0 + ((x - 1.0) * (x + 1.0)).sqrt()).ln_1p()),
    ("Atanh", 22, -1.1, 1.1, |x| (0.5 * (2.0 * x.abs() / (1.0 - x.abs())).ln_1p()).copysign(x)),
    ("Erf", 13, -4.0, 4.0, |x| erf(x)),
    ("Sigmoid", 13, -20.0, 20.0, sigmoid),
    ("Softplus", 22, -20.0, 20.0, softplus),
    ("Softsign", 22, -9.0, 9.0, |x| x / (1.0 + x.abs())),
    ("HardSwish", 22, -5.0, 5.0, |x| {
        let s = (x + 3.0) / 6.0;
        if s.is_nan() { s } else { x * s.clamp(0.0, 1.0) }
    }),
    ("Mish", 22, -20.0, 20.0, |x| x * softplus(x).tanh()),
    ("Gelu", 20, -9.0, 9.0, |x| 0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2)),
    ("Identity", 19, -9.0, 9.0, |x| x),
    ("Abs", 6, -9.0, 9.0, f64::abs),
    ("Neg", 6, -9.0, 9.0, |x| -x),
    ("Exp", 6, -90.0, 90.0, f64::exp),
];

fn unary(d: &mut Draw) -> Option<Case> {
    let (op, version, low, high, f) = d.pick(&UNARY);
    let dtype = d.pick(if version == 6 { &FLOATS[..3] } else { &FLOATS });
    let shape = d.shape(0..=6);
    let x = d.odd_values(dtype, &shape, low, high);
    let want: Vec<f64> = Array::of(&x).data.iter().map(|&x| f(x)).collect();
    let want = tensor(dtype, &shape, &want);
    // std's inverse hyperbolic functions of f64 lose some digits near their zeros.
    let roundings = if dtype == F64 { 60.0 } else { 6.0 };
    Some(case(op, version, vec![d.place(x)], vec![], vec![want], roundings, 1e-4))
}

fn unary_of_integers(d: &mut Draw) -> Option<Case> {
    let (op, f): (&'static str, fn(i128) -> i128) = d.pick(&[
        ("Abs", i128::abs as fn(i128) -> i128),
        ("Neg", |x| -x),
        ("Sign", i128::signum),
        ("Relu", |x| x.max(0)),
    ]);
    let dtype = match op {
        "Neg" | "Relu" => d.pick(&INTS[..4]),
        _ => d.pick(&INTS),
    };
    let shape = d.shape(0..=5);
    let x = extremes(d, dtype, &shape);
    let want: Vec<i128> = ints(&x).into_iter().map(f).collect();
    let version = if op == "Relu" { 14 } else { 13 };
    Some(case(op, version, vec![d.place(x)], vec![], vec![int_tensor(dtype, &shape, &want)], 0.0, 0.0))
}

/// Integers of all magnitudes, the ends of the range among them.
fn extremes(d: &mut Draw, dtype: DType, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let shift = d.below(60);
    let seeds = d.values(I64, &[count], -9e18, 9e18);
    let mut v: Vec<i128> = ints(&seeds).into_iter().map(|x| (x as i64 >> shift) as i128).collect();
    for x in v.iter_mut().step_by(5) {
        if d.one_in(4) {
            *x = d.pick(&[
                0,
                1,
                -1,
                127,
                -128,
                255,
                32767,
                -32768,
                i32::MAX as i128,
                i32::MIN as i128,
                i64::MAX as i128,
                i64::MIN as i128,
            ]);
        }
    }
    int_tensor(dtype, shape, &v)
}

/// Activations with attributes.
fn activation(d: &mut Draw) -> Option<Case> {
    let dtype = d.pick(&FLOATS);
    let a = d.pick(&[0.01f32, 1.0, 0.5, 2.5, 0.0, -0.3]);
    let g = d.pick(&[1.0f32, 0.2, 1.5, 0.0]);
    let (alpha, gamma) = (f64::from(a), f64::from(g));
    type With = Box<dyn Fn(f64) -> f64>;
    let (op, version, attrs, f): (&'static str, u32, Vec<(&'static str, Attr)>, With) = match d.below(10) {
        0 => ("LeakyRelu", 16, vec![("alpha", Attr::Float(a))], Box::new(move |x| if x < 0.0 { alpha * x } else { x })),
        1 => (
            "Elu",
            22,
            vec![("alpha", Attr::Float(a))],
            Box::new(move |x| if x > 0.0 { x } else { alpha * x.exp_m1() }),
        ),
        2 => {
            let f = move |x: f64| gamma * if x > 0.0 { x } else { alpha * x.exp_m1() };
            ("Selu", 22, vec![("alpha", Attr::Float(a)), ("gamma", Attr::Float(g))], Box::new(f))
        }
        3 => {
            let alpha = if a == 0.0 { 1.0 } else { a.abs() };
            let t = f64::from(alpha);
            let f = move |x: f64| if x > 0.0 { x } else { t * (x / t).exp_m1() };
            ("Celu", 12, vec![("alpha", Attr::Float(alpha))], Box::new(f))
        }
        4 => {
            let f = move |x: f64| least(most(alpha * x + gamma, 0.0), 1.0);
            ("HardSigmoid", 22, vec![("alpha", Attr::Float(a)), ("beta", Attr::Float(g))], Box::new(f))
        }
        5 => {
            let f = move |x: f64| if x > alpha { x } else { 0.0 };
            ("ThresholdedRelu", 22, vec![("alpha", Attr::Float(a))], Box::new(f))
        }
        6 => {
            let l = gamma.abs();
            let f = move |x: f64| {
                if x < -l {
                    x + alpha
                } else if x > l {
                    x - alpha
                } else {
                    0.0
                }
            };
            ("Shrink", 9, vec![("lambd", Attr::Float(g.abs())), ("bias", Attr::Float(a))], Box::new(f))
        }
        7 => ("Swish", 24, vec![("alpha", Attr::Float(a))], Box::new(move |x| x * sigmoid(alpha * x))),
        8 => {
            let f = |x: f64| x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x));
            ("Gelu", 20, vec![("approximate", Attr::String(b"tanh".to_vec()))], Box::new(f))
        }
        _ => {
            let (low, high) = (-f64::from(a.abs()), f64::from(g));
            let f = move |x: f64| least(most(x, low), high);
            ("Clip", 6, vec![("min", Attr::Float(-a.abs())), ("max", Attr::Float(g))], Box::new(f))
        }
    };
    let dtype = if dtype == BF16 && matches!(op, "ThresholdedRelu" | "Shrink" | "Clip" | "Celu") { F32 } else { dtype };
    let dtype = if op == "Celu" { F32 } else { dtype };
    let shape = d.shape(0..=4);
    let x = d.odd_values(dtype, &shape, -6.0, 6.0);
    // A NaN compares false with everything, so that some of these turn it into a number: the formula decides.
    let want: Vec<f64> = Array::of(&x).data.iter().map(|&x| f(x)).collect();
    let want = tensor(dtype, &shape, &want);
    Some(case(op, version, vec![d.place(x)], attrs, vec![want], 6.0, 1.0))
}

fn binary_of_floats(d: &mut Draw) -> Option<Case> {
    let to = d.shape(0..=6);
    let (sa, sb) = (d.broadcast(&to), d.broadcast(&to));
    let shape = broadcast(&sa, &sb);
    let dtype = d.pick(&FLOATS);
    let (op, version, f): (&'static str, u32, fn(f64, f64) -> f64) = d.pick(&[
        ("Add", 14, (|a, b| a + b) as fn(f64, f64) -> f64),
        ("Sub", 14, |a, b| a - b),
        ("Mul", 14, |a, b| a * b),
        ("Div", 14, |a, b| a / b),
        ("Pow", 15, f64::powf),
        ("Mod", 13, |a, b| a % b),
        ("PRelu", 16, |a, b| if a < 0.0 { a * b } else { a }),
    ]);
    let sb = if op == "PRelu" { d.broadcast(&sa) } else { sb };
    let shape = if op == "PRelu" { sa.clone() } else { shape };
    let a = d.odd_values(dtype, &sa, if op == "Pow" { 0.0 } else { -3.0 }, 3.0);
    let b = d.odd_values(dtype, &sb, -3.0, 3.0);
    let (x, y) = (Array::of(&a), Array::of(&b));
    let want = Array::from_fn(&shape, |i| f(x.spread(i), y.spread(i))).tensor(dtype);
    let attrs = if op == "Mod" { vec![("fmod", Attr::Int(1))] } else { vec![] };
    let inputs = vec![d.place(a), d.place(b)];
    Some(case(op, version, inputs, attrs, vec![want], 6.0, 1e-5))
}

fn binary_of_integers(d: &mut Draw) -> Option<Case> {
    let to = d.shape(0..=5);
    let (sa, sb) = (d.broadcast(&to), d.broadcast(&to));
    let shape = broadcast(&sa, &sb);
    let dtype = d.pick(&INTS);
    let (op, version, f): (&'static str, u32, fn(i128, i128) -> i128) = d.pick(&[
        ("Add", 14, (|a, b| a + b) as fn(i128, i128) -> i128),
        ("Sub", 14, |a, b| a - b),
        ("Mul", 14, |a, b| a.wrapping_mul(b)),
        ("Div", 14, |a, b| if b == 0 { 0 } else { a / b }),
        ("Mod", 13, |a, b| if b == 0 { 0 } else { (a % b + b) % b }),
        ("BitwiseAnd", 18, |a, b| a & b),
        ("BitwiseOr", 18, |a, b| a | b),
        ("BitwiseXor", 18, |a, b| a ^ b),
        ("Max", 13, i128::max),
        ("Min", 13, i128::min),
    ]);
    let (a, b) = (extremes(d, dtype, &sa), extremes(d, dtype, &sb));
    let (x, y) = (ints(&a), ints(&b));
    let at = indices(&shape);
    let want: Vec<i128> = at.iter().map(|i| f(x[spread_offset(&sa, i)], y[spread_offset(&sb, i)])).collect();
    let want = int_tensor(dtype, &shape, &want);
    Some(case(op, version, vec![d.place(a), d.place(b)], vec![], vec![want], 0.0, 0.0))
}

fn shifts_and_powers(d: &mut Draw) -> Option<Case> {
    let to = d.shape(0..=4);
    let (sa, sb) = (d.broadcast(&to), d.broadcast(&to));
    let shape = broadcast(&sa, &sb);
    let at = indices(&shape);
    if d.flag() {
        let dtype = d.pick(&[U8, U16, U32, U64]);
        let bits = dtype.bits() as i128;
        let left = d.flag();
        let a = extremes(d, dtype, &sa);
        let b = d.values(dtype, &sb, 0.0, bits as f64 + 3.0);
        let (x, y) = (ints(&a), ints(&b));
        let f = |a: i128, b: i128| match (b >= bits, left) {
            (true, _) => 0,
            (_, true) => ((a as u128) << b) as i128,
            (_, false) => a >> b,
        };
        let want: Vec<i128> = at.iter().map(|i| f(x[spread_offset(&sa, i)], y[spread_offset(&sb, i)])).collect();
        let attrs = vec![("direction", Attr::String(if left { b"LEFT".to_vec() } else { b"RIGHT".to_vec() }))];
        let want = int_tensor(dtype, &shape, &want);
        return Some(case("BitShift", 11, vec![d.place(a), d.place(b)], attrs, vec![want], 0.0, 0.0));
    }
    let (base, exponent) = (d.pick(&[I32, I64]), d.pick(&[I32, I64, U8, F32]));
    let a = d.values(base, &sa, -9.0, 9.0);
    let b = d.values(exponent, &sb, 0.0, 5.0);
    let b = if exponent == F32 {
        tensor(F32, &sb, &Array::of(&b).data.iter().map(|x| x.round()).collect::<Vec<_>>())
    } else {
        b
    };
    let (x, y) = (Array::of(&a), Array::of(&b));
    let want = Array::from_fn(&shape, |i| x.spread(i).powf(y.spread(i)).round()).tensor(base);
    Some(case("Pow", 15, vec![d.place(a), d.place(b)], vec![], vec![want], 0.0, 0.0))
}

fn comparisons(d: &mut Draw) -> Option<Case> {
    let to = d.shape(0..=6);
    let (sa, sb) = (d.broadcast(&to), d.broadcast(&to));
    let shape = broadcast(&sa, &sb);
    let logical = d.one_in(3);
    let (op, version, f): (&'static str, u32, fn(f64, f64) -> bool) = if logical {
        d.pick(&[
            ("And", 7, (|a, b| a != 0.0 && b != 0.0) as fn(f64, f64) -> bool),
            ("Or", 7, |a, b| a != 0.0 || b != 0.0),
            ("Xor", 7, |a, b| (a != 0.0) != (b != 0.0)),
        ])
    } else {
        d.pick(&[
            ("Equal", 19, (|a, b| a == b) as fn(f64, f64) -> bool),
            ("Less", 13, |a, b| a < b),
            ("LessOrEqual", 16, |a, b| a <= b),
            ("Greater", 13, |a, b| a > b),
            ("GreaterOrEqual", 16, |a, b| a >= b),
        ])
    };
    let dtype = match (logical, op) {
        (true, _) => Bool,
        (_, "Equal") => d.pick(&[F32, F64, F16, BF16, I32, I64, I8, I16, U8, U16, U32, U64, Bool]),
        _ => d.pick(&[F32, F64, F16, BF16, I32, I64, I8, I16, U8, U16, U32, U64]),
    };
    let (low, high) = if dtype == Bool || !dtype.is_float() && !dtype.is_signed() { (0.0, 3.0) } else { (-2.0, 2.0) };
    let make = |d: &mut Draw, s: &[usize]| {
        let t = d.odd_values(dtype, s, low, high);
        // Whole numbers, so that some are equal.
        let whole: Vec<f64> = Array::of(&t).data.iter().map(|x| if dtype == Bool { *x } else { x.round() }).collect();
        tensor(dtype, s, &whole)
    };
    let (a, b) = (make(d, &sa), make(d, &sb));
    let (x, y) = (Array::of(&a), Array::of(&b));
    let want = Array::from_fn(&shape, |i| f64::from(u8::from(f(x.spread(i), y.spread(i))))).tensor(Bool);
    Some(case(op, version, vec![d.place(a), d.place(b)], vec![], vec![want], 0.0, 0.0))
}

fn variadic(d: &mut Draw) -> Option<Case> {
    let to = d.shape(0..=5);
    let shapes: Vec<Vec<usize>> = (0..1 + d.below(5)).map(|_| d.broadcast(&to)).collect();
    let shape = shapes.iter().fold(vec![], |a, b| broadcast(&a, b));
    let op = d.pick(&["Max", "Min", "Sum", "Mean"]);
    let dtype = d.pick(&FLOATS);
    let xs: Vec<Tensor> = shapes.iter().map(|s| d.odd_values(dtype, s, -3.0, 3.0)).collect();
    let arrays: Vec<Array> = xs.iter().map(Array::of).collect();
    let want = Array::from_fn(&shape, |i| {
        let all = arrays.iter().map(|a| a.spread(i));
        match op {
            "Max" => all.reduce(most).unwrap(),
            "Min" => all.reduce(least).unwrap(),
            "Sum" => all.sum(),
            _ => all.sum::<f64>() / arrays.len() as f64,
        }
    });
    let roundings = if matches!(op, "Max" | "Min") { 0.0 } else { 2.0 + xs.len() as f64 };
    let inputs = xs.into_iter().map(|x| d.place(x)).collect();
    Some(case(op, 13, inputs, vec![], vec![want.tensor(dtype)], roundings, 9.0))
}

fn choices(d: &mut Draw) -> Option<Case> {
    let to = d.shape(0..=6);
    if d.flag() {
        let (sc, sa, sb) = (d.broadcast(&to), d.broadcast(&to), d.broadcast(&to));
        let shape = broadcast(&broadcast(&sc, &sa), &sb);
        let dtype = d.pick(&[F32, I64, F16, U8, F64, Bool, I32, BF16, I8, U16]);
        let c = d.values(Bool, &sc, 0.0, 1.0);
        let (a, b) = (d.values(dtype, &sa, 0.0, 99.0), d.values(dtype, &sb, 0.0, 99.0));
        let (k, x, y) = (Array::of(&c), Array::of(&a), Array::of(&b));
        let want = Array::from_fn(&shape, |i| if k.spread(i) != 0.0 { x.spread(i) } else { y.spread(i) });
        let inputs = vec![d.place(c), d.place(a), d.place(b)];
        return Some(case("Where", 16, inputs, vec![], vec![want.tensor(dtype)], 0.0, 0.0));
    }
    let dtype = d.pick(&[F32, F64, F16, BF16, I32, I64, I8, I16, U8, U16, U32, U64]);
    let signed = dtype.is_float() || dtype.is_signed();
    let x = d.odd_values(dtype, &to, if signed { -9.0 } else { 0.0 }, 9.0);
    let bound = |d: &mut Draw| {
        let present = !d.one_in(4);
        let t = d.values(dtype, &[], if signed { -5.0 } else { 0.0 }, 7.0);
        present.then_some(t)
    };
    let (low, high) = (bound(d), bound(d));
    let number = |t: &Option<Tensor>| t.as_ref().map(|t| Array::of(t).data[0]);
    let (l, h) = (number(&low), number(&high));
    let want = Array::of(&x);
    let want: Vec<f64> = want
        .data
        .iter()
        .map(|&x| {
            let y = l.map_or(x, |l| most(x, l));
            h.map_or(y, |h| least(y, h))
        })
        .collect();
    let want = tensor(dtype, &to, &want);
    let mut inputs = vec![d.place(x)];
    for b in [low, high] {
        inputs.push(b.map_or(ortx::ops::case::CaseInput::Absent, |t| d.place(t)));
    }
    Some(case("Clip", 13, inputs, vec![], vec![want], 0.0, 0.0))
}

fn casts(d: &mut Draw) -> Option<Case> {
    let types = [F32, F64, F16, BF16, I32, I64, I8, I16, U8, U16, U32, U64, Bool];
    let (from, to) = (d.pick(&types), d.pick(&types));
    let shape = d.shape(0..=5);
    let x = if from.is_float() {
        // What lies outside an integer's range has no meaning that the standard fixes.
        let signed = to.is_float() || to.is_signed();
        let x = d.values(from, &shape, if signed { -99.0 } else { 0.0 }, 99.0);
        if to.is_float() || to == Bool { d.odd_values(from, &shape, -99.0, 99.0) } else { x }
    } else if from == Bool {
        d.values(Bool, &shape, 0.0, 1.0)
    } else {
        extremes(d, from, &shape)
    };
    let want = if from.is_float() {
        let v = Array::of(&x).data;
        // Rounded once.
        tensor(to, &shape, &v)
    } else if to.is_float() {
        let v = ints(&x);
        match to {
            F32 => Tensor::from_slice(&shape, &v.iter().map(|&x| x as f32).collect::<Vec<_>>()).unwrap(),
            _ => tensor(to, &shape, &v.iter().map(|&x| x as f64).collect::<Vec<_>>()),
        }
    } else {
        int_tensor(to, &shape, &ints(&x))
    };
    let attrs = vec![("to", Attr::Int(to as i64))];
    let mut c = case("Cast", 13, vec![d.place(x)], attrs, vec![want], 0.0, 0.0);
    // A large integer on its way to a narrow float may be rounded to f32 first.
    if !from.is_float() && matches!(to, F16 | BF16) {
        c.rtol = epsilon(to, 2.0);
    }
    Some(c)
}

fn not_and_tests(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(0..=5);
    match d.below(4) {
        0 => {
            let x = d.values(Bool, &shape, 0.0, 1.0);
            let want: Vec<f64> = Array::of(&x).data.iter().map(|x| 1.0 - x).collect();
            Some(case("Not", 1, vec![d.place(x)], vec![], vec![tensor(Bool, &shape, &want)], 0.0, 0.0))
        }
        1 => {
            let dtype = d.pick(&INTS);
            let x = extremes(d, dtype, &shape);
            let want: Vec<i128> = ints(&x).into_iter().map(|x| !x).collect();
            let want = int_tensor(dtype, &shape, &want);
            Some(case("BitwiseNot", 18, vec![d.place(x)], vec![], vec![want], 0.0, 0.0))
        }
        2 => {
            let dtype = d.pick(&FLOATS);
            let x = d.odd_values(dtype, &shape, -1.0, 1.0);
            let want: Vec<f64> = Array::of(&x).data.iter().map(|x| f64::from(u8::from(x.is_nan()))).collect();
            Some(case("IsNaN", 20, vec![d.place(x)], vec![], vec![tensor(Bool, &shape, &want)], 0.0, 0.0))
        }
        _ => {
            let dtype = d.pick(&FLOATS);
            let x = d.odd_values(dtype, &shape, -1.0, 1.0);
            let (p, n) = (d.flag(), d.flag());
            let is = |x: f64| (p && x == f64::INFINITY) || (n && x == f64::NEG_INFINITY);
            let want: Vec<f64> = Array::of(&x).data.iter().map(|&x| f64::from(u8::from(is(x)))).collect();
            let attrs = vec![("detect_positive", Attr::Int(p.into())), ("detect_negative", Attr::Int(n.into()))];
            Some(case("IsInf", 20, vec![d.place(x)], attrs, vec![tensor(Bool, &shape, &want)], 0.0, 0.0))
        }
    }
}

fn expand(d: &mut Draw) -> Option<Case> {
    let to = d.shape(0..=6);
    let (from, asked) = (d.broadcast(&to), d.broadcast(&to));
    let shape = broadcast(&from, &asked);
    let dtype = d.pick(&[F32, I64, F16, U8, F64, Bool]);
    let x = d.values(dtype, &from, 0.0, 9.0);
    let places: Vec<_> = indices(&shape).iter().map(|i| Some(spread_offset(&from, i))).collect();
    let want = pick(&x, &shape, &places, None);
    let asked: Vec<i64> = asked.iter().map(|&n| n as i64).collect();
    Some(case("Expand", 13, vec![d.place(x), d.list(&asked)], vec![], vec![want], 0.0, 0.0))
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { unary unary_of_integers activation binary_of_floats binary_of_integers shifts_and_powers comparisons variadic choices casts not_and_tests expand }
