//! Activations that are written out.

use super::*;

/// Runs the pass over `y = formula(x)` and tells what came of it.
fn fused(name: &str, formula: impl FnOnce(&mut Draft, ValueId) -> ValueId) -> Vec<String> {
    let mut d = Draft::new();
    let x = d.input("x", &[3, 7]);
    let y = formula(&mut d, x);
    let (before, after, report) = d.check("activations", vec![y]);
    assert!(before.len() > 1, "{name}");
    assert_eq!(report.fired, 1, "{name}: {after:?} {:?}", report.misses);
    assert_eq!(report.misses, Vec::<String>::new(), "{name}");
    after
}

fn erf(d: &mut Draft, x: ValueId) -> ValueId {
    let root = d.number(std::f32::consts::SQRT_2);
    let s = d.op("s", "Div", &[x, root], vec![]);
    let e = d.op("e", "Erf", &[s], vec![]);
    let one = d.number(1.0);
    d.op("a", "Add", &[e, one], vec![])
}

#[test]
pub(super) fn gelu_in_its_orders() {
    let first = |d: &mut Draft, x: ValueId| {
        let (a, half) = (erf(d, x), d.number(0.5));
        let m = d.op("m", "Mul", &[x, a], vec![]);
        d.op("y", "Mul", &[m, half], vec![])
    };
    let second = |d: &mut Draft, x: ValueId| {
        let (a, half) = (erf(d, x), d.number(0.5));
        let m = d.op("m", "Mul", &[half, x], vec![]);
        d.op("y", "Mul", &[a, m], vec![])
    };
    let third = |d: &mut Draft, x: ValueId| {
        let (a, two) = (erf(d, x), d.number(2.0));
        let m = d.op("m", "Div", &[a, two], vec![]);
        d.op("y", "Mul", &[m, x], vec![])
    };
    let fourth = |d: &mut Draft, x: ValueId| {
        let (k, one, half) = (d.number(std::f32::consts::FRAC_1_SQRT_2), d.number(1.0), d.number(0.5));
        let s = d.op("s", "Mul", &[k, x], vec![]);
        let e = d.op("e", "Erf", &[s], vec![]);
        let a = d.op("a", "Add", &[one, e], vec![]);
        let m = d.op("m", "Mul", &[half, a], vec![]);
        d.op("y", "Mul", &[x, m], vec![])
    };
    assert_eq!(fused("x * a * 0.5", first), ["y = Gelu(%x)"]);
    assert_eq!(fused("a * (0.5 * x)", second), ["y = Gelu(%x)"]);
    assert_eq!(fused("a / 2 * x", third), ["y = Gelu(%x)"]);
    assert_eq!(fused("x * (0.5 * a)", fourth), ["y = Gelu(%x)"]);
}

#[test]
fn gelu_by_tanh() {
    let cube = |d: &mut Draft, x: ValueId| {
        let (three, k) = (d.number(3.0), d.number(0.044715));
        let c = d.op("c", "Pow", &[x, three], vec![]);
        let c = d.op("ck", "Mul", &[k, c], vec![]);
        d.op("sum", "Add", &[x, c], vec![])
    };
    let square = |d: &mut Draft, x: ValueId| {
        let (one, k) = (d.number(1.0), d.number(0.044715));
        let c = d.op("c", "Mul", &[x, x], vec![]);
        let c = d.op("ck", "Mul", &[c, k], vec![]);
        let c = d.op("c1", "Add", &[one, c], vec![]);
        d.op("sum", "Mul", &[x, c], vec![])
    };
    for inner in [cube as fn(&mut Draft, ValueId) -> ValueId, square] {
        let after = fused("tanh", |d, x| {
            let i = inner(d, x);
            let (k, one, half) = (d.number(0.797_884_6), d.number(1.0), d.number(0.5));
            let i = d.op("i", "Mul", &[i, k], vec![]);
            let t = d.op("t", "Tanh", &[i], vec![]);
            let t = d.op("t1", "Add", &[t, one], vec![]);
            let h = d.op("h", "Mul", &[x, half], vec![]);
            d.op("y", "Mul", &[h, t], vec![])
        });
        assert_eq!(after, ["y = Gelu(%x)"]);
    }
}

#[test]
fn swish_and_its_kin() {
    let silu = fused("x * sigmoid(x)", |d, x| {
        let s = d.op("s", "Sigmoid", &[x], vec![]);
        d.op("y", "Mul", &[s, x], vec![])
    });
    assert_eq!(silu, ["y = Swish(%x)"]);
    let by_exp = fused("x / (1 + exp(-x))", |d, x| {
        let one = d.number(1.0);
        let n = d.op("n", "Neg", &[x], vec![]);
        let e = d.op("e", "Exp", &[n], vec![]);
        let a = d.op("a", "Add", &[e, one], vec![]);
        d.op("y", "Div", &[x, a], vec![])
    });
    assert_eq!(by_exp, ["y = Swish(%x)"]);
    let quick = fused("x * sigmoid(1.702 x)", |d, x| {
        let k = d.number(1.702);
        let m = d.op("m", "Mul", &[x, k], vec![]);
        let s = d.op("s", "Sigmoid", &[m], vec![]);
        d.op("y", "Mul", &[x, s], vec![])
    });
    assert_eq!(quick, ["y = Swish(%x)"]);
    let hard = fused("x * hardsigmoid(x)", |d, x| {
        let s = d.op("s", "HardSigmoid", &[x], vec![("alpha", Attr::Float(1.0 / 6.0))]);
        d.op("y", "Mul", &[x, s], vec![])
    });
    assert_eq!(hard, ["y = HardSwish(%x)"]);
    let clipped = fused("x * clip(x + 3) / 6", |d, x| {
        let (three, zero, six) = (d.number(3.0), d.number(0.0), d.number(6.0));
        let a = d.op("a", "Add", &[x, three], vec![]);
        let c = d.op("c", "Clip", &[a, zero, six], vec![]);
        let m = d.op("m", "Mul", &[x, c], vec![]);
        d.op("y", "Div", &[m, six], vec![])
    });
    assert_eq!(clipped, ["y = HardSwish(%x)"]);
    let mish = fused("x * tanh(softplus(x))", |d, x| {
        let s = d.op("s", "Softplus", &[x], vec![]);
        let t = d.op("t", "Tanh", &[s], vec![]);
        d.op("y", "Mul", &[x, t], vec![])
    });
    assert_eq!(mish, ["y = Mish(%x)"]);
}

/// Bounds may be written by Clip, Relu, Min and Max.
#[test]
fn bounded_lines() {
    let relu6 = |d: &mut Draft, x: ValueId| {
        let (three, six) = (d.number(3.0), d.number(6.0));
        let a = d.op("a", "Add", &[x, three], vec![]);
        let r = d.op("r", "Relu", &[a], vec![]);
        d.op("c", "Min", &[r, six], vec![])
    };
    let hard = fused("relu6(x + 3) * x / 6", |d, x| {
        let (c, sixth) = (relu6(d, x), d.number(1.0 / 6.0));
        let m = d.op("m", "Mul", &[c, sixth], vec![]);
        d.op("y", "Mul", &[x, m], vec![])
    });
    assert_eq!(hard, ["y = HardSwish(%x)"]);
    let hard = fused("x * clip(x / 6 + 0.5, 0, 1)", |d, x| {
        let (six, half, zero, one) = (d.number(6.0), d.number(0.5), d.number(0.0), d.number(1.0));
        let m = d.op("m", "Div", &[x, six], vec![]);
        let a = d.op("a", "Add", &[m, half], vec![]);
        let c = d.op("c", "Clip", &[a, zero, one], vec![]);
        d.op("y", "Mul", &[c, x], vec![])
    });
    assert_eq!(hard, ["y = HardSwish(%x)"]);
    let sigmoid = fused("relu6(x + 3) / 6", |d, x| {
        let (c, six) = (relu6(d, x), d.number(6.0));
        d.op("y", "Div", &[c, six], vec![])
    });
    assert_eq!(sigmoid, ["y = HardSigmoid(%x)"]);
    let keras = fused("clip(0.2 x + 0.5, 0, 1)", |d, x| {
        let (k, half, zero, one) = (d.number(0.2), d.number(0.5), d.number(0.0), d.number(1.0));
        let m = d.op("m", "Mul", &[k, x], vec![]);
        let a = d.op("a", "Add", &[m, half], vec![]);
        let c = d.op("c", "Max", &[zero, a], vec![]);
        d.op("y", "Min", &[c, one], vec![])
    });
    assert_eq!(keras, ["y = HardSigmoid(%x)"]);
}

#[test]
fn sigmoid_and_softplus_by_exp() {
    let sigmoid = fused("1 / (1 + exp(-x))", |d, x| {
        let one = d.number(1.0);
        let n = d.op("n", "Neg", &[x], vec![]);
        let e = d.op("e", "Exp", &[n], vec![]);
        let a = d.op("a", "Add", &[one, e], vec![]);
        d.op("y", "Reciprocal", &[a], vec![])
    });
    assert_eq!(sigmoid, ["y = Sigmoid(%x)"]);
    let softplus = fused("ln(1 + exp(x))", |d, x| {
        let one = d.number(1.0);
        let e = d.op("e", "Exp", &[x], vec![]);
        let a = d.op("a", "Add", &[e, one], vec![]);
        d.op("y", "Log", &[a], vec![])
    });
    assert_eq!(softplus, ["y = Softplus(%x)"]);
}

#[test]
pub(super) fn what_is_nearly_an_activation_stays() {
    // Another number.
    let mut d = Draft::new();
    let x = d.input("x", &[3, 7]);
    let (a, k) = (erf(&mut d, x), d.number(0.75));
    let m = d.op("m", "Mul", &[x, a], vec![]);
    let y = d.op("y", "Mul", &[m, k], vec![]);
    let (before, after, report) = d.check("activations", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("a factor is 0.75, not 0.5"), "{:?}", report.misses);

    // Numbers that the operator keeps in f32.
    let mut d = Draft::new();
    let x = d.input_of(DType::F64, "x", &[3, 7]);
    let [k, half, zero, one] = [0.2, 0.5, 0.0, 1.0].map(|x| d.b.constant("k", Tensor::scalar(x).unwrap()));
    let m = d.op("m", "Mul", &[k, x], vec![]);
    let a = d.op("a", "Add", &[m, half], vec![]);
    let y = d.op("y", "Clip", &[a, zero, one], vec![]);
    let (before, after, report) = d.check("activations", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("rounded to float32"), "{:?}", report.misses);

    // Another user.
    let mut d = Draft::new();
    let x = d.input("x", &[3, 7]);
    let s = d.op("s", "Sigmoid", &[x], vec![]);
    let y = d.op("y", "Mul", &[x, s], vec![]);
    let (before, after, report) = d.check("activations", vec![y, s]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("other users"), "{:?}", report.misses);

    // Another operand.
    let mut d = Draft::new();
    let (x, z) = (d.input("x", &[3, 7]), d.input("z", &[3, 7]));
    let s = d.op("s", "Sigmoid", &[z], vec![]);
    let y = d.op("y", "Mul", &[x, s], vec![]);
    let (before, after, _) = d.check("activations", vec![y]);
    assert_eq!(before, after);
}

#[test]
fn a_factor_of_f64_stays_one() {
    for (k, fused) in [(1.702, false), (f64::from(1.702f32), true)] {
        let mut d = Draft::new();
        d.inputs.push(Value::Tensor(random(DType::F64, &[3, 7], -2.0, 2.0, 1).unwrap()));
        let x = d.b.input("x", Fact::sized(DType::F64, &[3, 7]));
        let k = d.b.constant("k", Tensor::scalar(k).unwrap());
        let m = d.op("m", "Mul", &[x, k], vec![]);
        let s = d.op("s", "Sigmoid", &[m], vec![]);
        let y = d.op("y", "Mul", &[x, s], vec![]);
        // Some roundings of f64.
        let (_, after, report) = d.check_within(1e-14, "activations", vec![y]);
        assert_eq!(report.fired, usize::from(fused), "{after:?}");
    }
}

/// Keras: what is bounded is a sum itself, which is no part of the formula.
#[test]
fn hard_sigmoid_of_a_sum() {
    let mut d = Draft::new();
    let (x, bias) = (d.input("x", &[3, 7]), d.constant("bias", &[7], -1.0, 1.0));
    let (three, sixth, low, high) = (d.number(3.0), d.number(1.0 / 6.0), d.number(0.0), d.number(6.0));
    let x = d.op("biased", "Add", &[x, bias], vec![]);
    let a = d.op("a", "Add", &[x, three], vec![]);
    let c = d.op("c", "Clip", &[a, low, high], vec![]);
    let y = d.op("y", "Mul", &[c, sixth], vec![]);
    let (_, after, report) = d.check("activations", vec![y]);
    assert_eq!(after, ["biased = Add(%x, #bias)", "y = HardSigmoid(%biased)"], "{:?}", report.misses);
}

/// Paddle adds 0 to whatever it scales.
#[test]
fn hard_swish_of_paddle() {
    let mut d = Draft::new();
    let x = d.input("x", &[3, 7]);
    let [zero, three, six, sixth] = [0.0, 3.0, 6.0, 1.0 / 6.0].map(|k| d.number(k));
    let a = d.op("a", "Add", &[x, three], vec![]);
    let c = d.op("c", "Clip", &[a, zero, six], vec![]);
    let m = d.op("m", "Mul", &[x, c], vec![]);
    let s = d.op("s", "Mul", &[m, sixth], vec![]);
    let y = d.op("y", "Add", &[s, zero], vec![]);
    let (_, after, report) = d.check("activations", vec![y]);
    assert_eq!(after, ["y = HardSwish(%x)"], "{:?}", report.misses);
}
