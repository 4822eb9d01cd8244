//! Convolutions and what they take in.

use super::*;

/// A 3x3 convolution from 4 to `out` channels that keeps the size.
pub(super) fn conv(d: &mut Draft, name: &str, x: ValueId, out: usize) -> ValueId {
    let w = d.constant("w", &[out, 4, 3, 3], -0.5, 0.5);
    let b = d.constant("b", &[out], -1.0, 1.0);
    d.op(name, "Conv", &[x, w, b], vec![("pads", ints(&[1, 1, 1, 1]))])
}

fn normalised(d: &mut Draft, x: ValueId, channels: usize) -> ValueId {
    let scale = d.constant("scale", &[channels], 0.5, 1.5);
    let bias = d.constant("bias", &[channels], -1.0, 1.0);
    let mean = d.constant("mean", &[channels], -1.0, 1.0);
    let var = d.constant("var", &[channels], 0.5, 2.0);
    d.op("y", "BatchNormalization", &[x, scale, bias, mean, var], vec![("epsilon", Attr::Float(1e-3))])
}

#[test]
fn conv_takes_a_batch_norm() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 4, 6, 5]);
    let c = conv(&mut d, "c", x, 8);
    let y = normalised(&mut d, c, 8);
    let (before, after, _) = d.check("conv_batch_norm", vec![y]);
    assert_eq!(before, ["c = Conv(%x, #w, #b)", "y = BatchNormalization(%c, #scale, #bias, #mean, #var)"]);
    assert_eq!(after, ["y = Conv(%x, #y.weights, #y.bias)"]);
}

#[test]
fn conv_without_bias_takes_a_batch_norm() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let w = d.constant("w", &[4, 1, 3, 3], -0.5, 0.5);
    let c = d.op("c", "Conv", &[x, w], vec![("group", Attr::Int(4))]);
    let y = normalised(&mut d, c, 4);
    let (_, after, _) = d.check("conv_batch_norm", vec![y]);
    assert_eq!(after, ["y = Conv(%x, #y.weights, #y.bias)"]);
}

#[test]
fn conv_keeps_away_from_a_batch_norm_that_others_look_past() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let c = conv(&mut d, "c", x, 8);
    let y = normalised(&mut d, c, 8);
    let (before, after, report) = d.check("conv_batch_norm", vec![y, c]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("other users"), "{:?}", report.misses);

    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let c = conv(&mut d, "c", x, 8);
    let mean = d.input("mean", &[8]);
    let (scale, bias) = (d.constant("scale", &[8], 0.5, 1.5), d.constant("bias", &[8], -1.0, 1.0));
    let var = d.constant("var", &[8], 0.5, 2.0);
    let y = d.op("y", "BatchNormalization", &[c, scale, bias, mean, var], vec![]);
    let (before, after, report) = d.check("conv_batch_norm", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("not constant"), "{:?}", report.misses);
}

#[test]
fn conv_takes_each_activation() {
    let float = |name, x| vec![(name, Attr::Float(x))];
    let all = [
        ("Relu", vec![]),
        ("LeakyRelu", float("alpha", 0.1)),
        ("HardSigmoid", float("alpha", 0.3)),
        ("HardSwish", vec![]),
        ("Sigmoid", vec![]),
        ("Tanh", vec![]),
        ("Elu", float("alpha", 0.7)),
        ("Gelu", vec![]),
        ("Gelu", vec![("approximate", Attr::String(b"tanh".to_vec()))]),
        ("Mish", vec![]),
    ];
    for (op, attrs) in all {
        let mut d = Draft::new();
        let x = d.input("x", &[1, 4, 6, 7]);
        let c = conv(&mut d, "c", x, 20);
        let y = d.op("y", op, &[c], attrs);
        let (before, after, _) = d.check("conv_epilogue", vec![y]);
        assert_eq!(before.len(), 2, "{op}");
        assert_eq!(after, ["y = Conv(%x, #w, #b)"], "{op}");
    }
}

#[test]
fn conv_takes_a_residual_and_an_activation() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let r = d.input("r", &[1, 8, 6, 6]);
    let c = conv(&mut d, "c", x, 8);
    let s = d.op("s", "Add", &[r, c], vec![]);
    let y = d.op("y", "Relu", &[s], vec![]);
    let (before, after, report) = d.check("conv_epilogue", vec![y]);
    assert_eq!(before, ["c = Conv(%x, #w, #b)", "s = Add(%r, %c)", "y = Relu(%s)"]);
    assert_eq!(after, ["y = Conv(%x, #w, #b, %r)"]);
    assert_eq!(report.fired, 2);
}

#[test]
fn conv_leaves_a_residual_of_another_shape() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let r = d.input("r", &[1, 8, 1, 1]);
    let c = conv(&mut d, "c", x, 8);
    let y = d.op("y", "Add", &[r, c], vec![]);
    let (before, after, report) = d.check("conv_epilogue", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("shape"), "{:?}", report.misses);
}

/// A border of `widths` (all begins, then all ends) around `x`, of `value`.
fn padded(d: &mut Draft, x: ValueId, widths: &[i64], value: f32) -> ValueId {
    let (widths, value) = (d.ints("widths", widths), d.number(value));
    d.op("p", "Pad", &[x, widths, value], vec![])
}

#[test]
fn conv_pads_by_itself() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 4, 6, 5]);
    let p = padded(&mut d, x, &[0, 0, 1, 4, 0, 0, 2, 0], 0.0);
    let y = conv(&mut d, "y", p, 8);
    let (before, after, report) = d.check("conv_pad", vec![y]);
    assert_eq!(before.len(), 2);
    assert_eq!(after, ["y = Conv(%x, #w, #b)"]);
    assert_eq!(report.fired, 1);
}

#[test]
fn conv_leaves_other_borders() {
    for (widths, value, why) in [
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.5, "not of zeros"),
        ([0, 1, 0, 0, 0, 0, 0, 0], 0.0, "along batch or channels"),
        ([0, 0, -1, 1, 0, 0, 1, 1], 0.0, "cuts"),
    ] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, if widths[1] == 1 { 3 } else { 4 }, 6, 5]);
        let p = padded(&mut d, x, &widths, value);
        let y = conv(&mut d, "y", p, 8);
        let (before, after, report) = d.check("conv_pad", vec![y]);
        assert_eq!(before, after);
        assert!(report.misses[0].contains(why), "{:?}", report.misses);
    }
}
