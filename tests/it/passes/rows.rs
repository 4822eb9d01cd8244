//! Rows that are divided by their sum or their length: softmax and norms that are written out.

use super::*;

fn last(d: &mut Draft) -> ValueId {
    d.ints("last", &[-1])
}

/// What the pass makes of `y = formula(x)`.
fn fused(pass: &str, formula: impl FnOnce(&mut Draft, ValueId) -> ValueId) -> (Vec<String>, PassReport) {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 7]);
    let y = formula(&mut d, x);
    let (before, after, report) = d.check(pass, vec![y]);
    assert!(before.len() > 1);
    (after, report)
}

fn exp(d: &mut Draft, x: ValueId, shift: bool) -> (ValueId, ValueId, ValueId) {
    let axis = last(d);
    let m = d.op("m", "ReduceMax", &[x, axis], vec![]);
    let c = if shift { d.op("c", "Sub", &[x, m], vec![]) } else { x };
    let e = d.op("e", "Exp", &[c], vec![]);
    (m, c, e)
}

#[test]
pub fn softmax_of_its_parts() {
    for shift in [true, false] {
        let (after, report) = fused("softmax", |d, x| {
            let (_, _, e) = exp(d, x, shift);
            let axis = last(d);
            let s = d.op("s", "ReduceSum", &[e, axis], vec![]);
            d.op("y", "Div", &[e, s], vec![])
        });
        assert_eq!(after, ["y = Softmax(%x)"], "{:?}", report.misses);
        let (after, report) = fused("softmax", |d, x| {
            let (_, c, e) = exp(d, x, shift);
            let axis = last(d);
            let s = d.op("s", "ReduceSum", &[e, axis], vec![]);
            let l = d.op("l", "Log", &[s], vec![]);
            d.op("y", "Sub", &[c, l], vec![])
        });
        assert_eq!(after, ["y = LogSoftmax(%x)"], "{:?}", report.misses);
    }
    // The greatest comes back into the sum.
    let (after, report) = fused("softmax", |d, x| {
        let (m, _, e) = exp(d, x, true);
        let axis = last(d);
        let l = d.op("l", "ReduceLogSum", &[e, axis], vec![]);
        let t = d.op("t", "Add", &[l, m], vec![]);
        d.op("y", "Sub", &[x, t], vec![])
    });
    assert_eq!(after, ["y = LogSoftmax(%x)"], "{:?}", report.misses);
    let (after, report) = fused("softmax", |d, x| {
        let axis = last(d);
        let t = d.op("t", "ReduceLogSumExp", &[x, axis], vec![]);
        d.op("y", "Sub", &[x, t], vec![])
    });
    assert_eq!(after, ["y = LogSoftmax(%x)"], "{:?}", report.misses);
    for (from, f, to) in [("Softmax", "Log", "LogSoftmax"), ("LogSoftmax", "Exp", "Softmax")] {
        let (after, report) = fused("softmax", |d, x| {
            let s = d.op("s", from, &[x], vec![("axis", Attr::Int(1))]);
            d.op("y", f, &[s], vec![])
        });
        assert_eq!(after, [format!("y = {to}(%x)")], "{:?}", report.misses);
    }
}

/// Keras over two axes of keys: `exp(x - logsumexp(x))`, whose greatest is taken off where it is finite.
#[test]
fn softmax_over_two_axes() {
    for other in [0.0, 1.0] {
        let mut d = Draft::new();
        let x = d.named_input("x", &["n", "", "", ""], &[2, 3, 4, 5]);
        let (axes, other_number) = (d.ints("axes", &[2, -1]), d.number(other));
        let m = d.op("m", "ReduceMax", &[x, axes], vec![]);
        let [inf, nan] = [("inf", "IsInf"), ("nan", "IsNaN")].map(|(n, op)| d.op(n, op, &[m], vec![]));
        let test = d.op("test", "Or", &[inf, nan], vec![]);
        let m = d.op("safe", "Where", &[test, other_number, m], vec![]);
        let c = d.op("c", "Sub", &[x, m], vec![]);
        let e = d.op("e", "Exp", &[c], vec![]);
        let s = d.op("s", "ReduceSum", &[e, axes], vec![]);
        let l = d.op("l", "Log", &[s], vec![]);
        let l = d.op("lse", "Add", &[l, m], vec![]);
        let t = d.op("t", "Sub", &[x, l], vec![]);
        let y = d.op("y", "Exp", &[t], vec![]);
        let (before, after, report) = d.check("softmax", vec![y]);
        if other == 0.0 {
            let [there, back] = ["x.axes = Reshape(%x, #x.axes.shape)", "y = Reshape(%y.flat, #y.shape)"];
            assert_eq!(after, [there, "y.flat = Softmax(%x.axes)", back], "{:?}", report.misses);
        } else {
            assert_eq!(before, after);
        }
    }
}

#[test]
pub fn what_is_nearly_a_softmax_stays() {
    // Summed over two axes that are not side by side.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 7]);
    let axes = d.ints("axes", &[0, 2]);
    let e = d.op("e", "Exp", &[x], vec![]);
    let s = d.op("s", "ReduceSum", &[e, axes], vec![]);
    let y = d.op("y", "Div", &[e, s], vec![]);
    let (before, after, report) = d.check("softmax", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("CheckFailed: ") && report.misses[0].contains("same, known axes"));

    // The exponentials are asked for.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 7]);
    let (_, _, e) = exp(&mut d, x, true);
    let axis = last(&mut d);
    let s = d.op("s", "ReduceSum", &[e, axis], vec![]);
    let y = d.op("y", "Div", &[e, s], vec![]);
    let (before, after, report) = d.check("softmax", vec![y, e]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("other users"), "{:?}", report.misses);

    // One more in the sum.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 7]);
    let (_, _, e) = exp(&mut d, x, true);
    let (axis, one) = (last(&mut d), d.number(1.0));
    let s = d.op("s", "ReduceSum", &[e, axis], vec![]);
    let s = d.op("s1", "Add", &[s, one], vec![]);
    let y = d.op("y", "Div", &[e, s], vec![]);
    let (before, after, _) = d.check("softmax", vec![y]);
    assert_eq!(before, after);
}

/// torch.nn.functional.normalize: ReduceL2, Clip, Expand, Div.
#[test]
pub fn normalize_of_torch() {
    for axis in [-1, 1] {
        for expand in [true, false] {
            let (after, report) = fused("l2_norm", |d, x| {
                let (axis, eps) = (d.ints("axis", &[axis]), d.number(1e-12));
                let n = d.op("n", "ReduceL2", &[x, axis], vec![]);
                let mut n = d.op("c", "Clip", &[n, eps], vec![]);
                if expand {
                    let shape = d.ints("shape", &[2, 3, 7]);
                    n = d.op("w", "Expand", &[n, shape], vec![]);
                }
                d.op("y", "Div", &[x, n], vec![])
            });
            assert_eq!(after, ["y = LpNormalization(%x)"], "{:?}", report.misses);
        }
    }
    let (after, report) = fused("l2_norm", |d, x| {
        let (axis, eps) = (last(d), d.number(2.0));
        let n = d.op("n", "ReduceL1", &[x, axis], vec![]);
        let n = d.op("c", "Max", &[eps, n], vec![]);
        d.op("y", "Div", &[x, n], vec![])
    });
    assert_eq!(after, ["y = LpNormalization(%x)"], "{:?}", report.misses);
}

/// paddle.nn.functional.normalize: `x / max((sum |x|^2)^0.5, epsilon)`.
#[test]
fn normalize_of_paddle() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 7]);
    let (axis, two, half) = (last(&mut d), d.number(2.0), d.number(0.5));
    let floor = d.b.constant("floor", Tensor::from_slice(&[1], &[3.0f32]).unwrap());
    let a = d.op("a", "Abs", &[x], vec![]);
    let n = d.op("p", "Pow", &[a, two], vec![]);
    let n = d.op("s", "ReduceSum", &[n, axis], vec![]);
    let n = d.op("r", "Pow", &[n, half], vec![]);
    let n = d.op("m", "Max", &[n, floor], vec![]);
    let y = d.op("y", "Div", &[x, n], vec![]);
    let before = d.b.finish(vec![y]).unwrap();
    let mut after = before.clone();
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    optimize(&mut after, &cpu, &Serial, &Options { strict: true, ..Options::default() }).unwrap();
    assert_eq!(lines(&after), ["y = LpNormalization(%x)"]);
    let [want, got] = [before, after].map(|g| run_graph(g, cpu_at(Isa::detect()), &d.inputs).unwrap());
    // Seven squares in another order.
    close(&want[0], &got[0], 1e-6, 1e-6).unwrap();
}

/// tf.math.l2_normalize: x * rsqrt(max(sum(x^2), epsilon)). The bound is one that some rows meet.
#[test]
fn normalize_of_tensorflow() {
    let (after, report) = fused("l2_norm", |d, x| {
        let (axis, eps, one) = (last(d), d.number(9.0), d.number(1.0));
        let s = d.op("s", "Mul", &[x, x], vec![]);
        let n = d.op("n", "ReduceSum", &[s, axis], vec![]);
        let n = d.op("c", "Max", &[n, eps], vec![]);
        let n = d.op("r", "Sqrt", &[n], vec![]);
        let n = d.op("i", "Div", &[one, n], vec![]);
        d.op("y", "Mul", &[x, n], vec![])
    });
    assert_eq!(after, ["y = LpNormalization(%x)"], "{:?}", report.misses);
}

/// A length with a number beside it, or none, is a scaled root mean square.
#[test]
fn unit_rows() {
    let (after, report) = fused("l2_norm", |d, x| {
        let (axis, eps) = (last(d), d.number(0.5));
        let n = d.op("n", "ReduceSumSquare", &[x, axis], vec![]);
        let n = d.op("c", "Add", &[n, eps], vec![]);
        let n = d.op("r", "Sqrt", &[n], vec![]);
        d.op("y", "Div", &[x, n], vec![])
    });
    assert_eq!(after, ["y = RMSNormalization(%x, #y.scale)"], "{:?}", report.misses);
    let (after, report) = fused("l2_norm", |d, x| {
        let axis = last(d);
        let n = d.op("n", "ReduceL2", &[x, axis], vec![]);
        d.op("y", "Div", &[x, n], vec![])
    });
    assert_eq!(after, ["y = RMSNormalization(%x, #y.scale)"], "{:?}", report.misses);
}

#[test]
pub fn what_is_nearly_a_norm_of_rows_stays() {
    // Over two axes.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 7]);
    let (axes, eps) = (d.ints("axes", &[1, 2]), d.number(1e-12));
    let n = d.op("n", "ReduceL2", &[x, axes], vec![]);
    let n = d.op("c", "Clip", &[n, eps], vec![]);
    let y = d.op("y", "Div", &[x, n], vec![]);
    let (before, after, report) = d.check("l2_norm", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("CheckFailed: ") && report.misses[0].contains("one known axis"));

    // Bounded by nothing, where NaN is what comes of a norm of 0.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 7]);
    let (axis, zero) = (last(&mut d), d.number(0.0));
    let n = d.op("n", "ReduceL2", &[x, axis], vec![]);
    let n = d.op("c", "Clip", &[n, zero], vec![]);
    let y = d.op("y", "Div", &[x, n], vec![]);
    let (before, after, report) = d.check("l2_norm", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("gives NaN"), "{:?}", report.misses);
}
