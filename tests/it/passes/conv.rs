//! Convolutions and what they take in.

use super::*;
use crate::tiny::Tiny;
use ortx::{Environment, ModelSource, RunOptions, Session, SessionOptions};

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
pub(super) fn conv_takes_a_batch_norm() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 4, 6, 5]);
    let c = conv(&mut d, "c", x, 8);
    let y = normalised(&mut d, c, 8);
    let (before, after, _) = d.check("conv_affine", vec![y]);
    assert_eq!(before, ["c = Conv(%x, #w, #b)", "y = BatchNormalization(%c, #scale, #bias, #mean, #var)"]);
    assert_eq!(after, ["y = Conv(%x, #c.weights, #c.bias)"]);
}

#[test]
fn conv_without_bias_takes_a_batch_norm() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let w = d.constant("w", &[4, 1, 3, 3], -0.5, 0.5);
    let c = d.op("c", "Conv", &[x, w], vec![("group", Attr::Int(4))]);
    let y = normalised(&mut d, c, 4);
    let (_, after, _) = d.check("conv_affine", vec![y]);
    assert_eq!(after, ["y = Conv(%x, #c.weights, #c.bias)"]);
}

#[test]
pub(super) fn conv_keeps_away_from_a_batch_norm_that_others_look_past() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let c = conv(&mut d, "c", x, 8);
    let y = normalised(&mut d, c, 8);
    let (before, after, report) = d.check("conv_affine", vec![y, c]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("other users"), "{:?}", report.misses);

    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let c = conv(&mut d, "c", x, 8);
    let mean = d.input("mean", &[8]);
    let (scale, bias) = (d.constant("scale", &[8], 0.5, 1.5), d.constant("bias", &[8], -1.0, 1.0));
    let var = d.constant("var", &[8], 0.5, 2.0);
    let y = d.op("y", "BatchNormalization", &[c, scale, bias, mean, var], vec![]);
    let (before, after, report) = d.check("conv_affine", vec![y]);
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
pub(super) fn conv_takes_a_residual_and_an_activation() {
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
fn conv_takes_a_residual_after_its_activation() {
    // Dense, blocked, and channel by channel; functions that limit, and others.
    for (channels, group) in [(3, 1), (32, 1), (32, 32)] {
        for op in ["Relu", "HardSwish", "Tanh"] {
            for first in [false, true] {
                let mut d = Draft::new();
                let x = d.input("x", &[2, channels, 6, 7]);
                let r = d.input("r", &[2, channels, 6, 7]);
                let w = d.constant("w", &[channels, channels / group, 3, 3], -0.5, 0.5);
                let attrs = vec![("group", Attr::Int(group as i64)), ("pads", ints(&[1, 1, 1, 1]))];
                let c = d.op("c", "Conv", &[x, w], attrs);
                let a = d.op("a", op, &[c], vec![]);
                let y = d.op("y", "Add", &if first { [a, r] } else { [r, a] }, vec![]);
                let (_, after, report) = d.check("conv_epilogue", vec![y]);
                assert_eq!(after, ["y = Conv(%x, #w, _, %r)"], "{op}");
                assert_eq!(report.fired, 2);
            }
        }
    }
}

#[test]
fn conv_leaves_what_follows_a_residual_that_came_last() {
    let mut d = Draft::new();
    let (x, r) = (d.input("x", &[1, 4, 6, 6]), d.input("r", &[1, 8, 6, 6]));
    let c = conv(&mut d, "c", x, 8);
    let a = d.op("a", "Sigmoid", &[c], vec![]);
    let s = d.op("s", "Add", &[a, r], vec![]);
    let t = d.op("t", "Add", &[s, r], vec![]);
    let y = d.op("y", "Relu", &[t], vec![]);
    let (_, after, _) = d.check("conv_epilogue", vec![y]);
    assert_eq!(after, ["s = Conv(%x, #w, #b, %r)", "t = Add(%s, %r)", "y = Relu(%t)"]);
    // The activation's result is read twice.
    let mut d = Draft::new();
    let (x, r) = (d.input("x", &[1, 4, 6, 6]), d.input("r", &[1, 8, 6, 6]));
    let c = conv(&mut d, "c", x, 8);
    let a = d.op("a", "Sigmoid", &[c], vec![]);
    let y = d.op("y", "Add", &[a, r], vec![]);
    let (_, after, _) = d.check("conv_epilogue", vec![y, a]);
    assert_eq!(after.len(), 2, "{after:?}");
}

#[test]
pub(super) fn conv_leaves_a_residual_of_another_shape() {
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
pub(super) fn conv_pads_by_itself() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 4, 6, 5]);
    let p = padded(&mut d, x, &[0, 0, 1, 4, 0, 0, 2, 0], 0.0);
    let y = conv(&mut d, "y", p, 8);
    let (before, after, report) = d.check("window_pad", vec![y]);
    assert_eq!(before.len(), 2);
    assert_eq!(after, ["y = Conv(%x, #w, #b)"]);
    assert_eq!(report.fired, 1);
}

#[test]
pub(super) fn conv_leaves_other_borders() {
    for (widths, value, why) in [
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.5, "not what the operator takes it for"),
        ([0, 1, 0, 0, 0, 0, 0, 0], 0.0, "along batch or channels"),
        ([0, 0, -1, 1, 0, 0, 1, 1], 0.0, "cuts"),
    ] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, if widths[1] == 1 { 3 } else { 4 }, 6, 5]);
        let p = padded(&mut d, x, &widths, value);
        let y = conv(&mut d, "y", p, 8);
        let (before, after, report) = d.check("window_pad", vec![y]);
        assert_eq!(before, after);
        assert!(report.misses[0].contains(why), "{:?}", report.misses);
    }
}

#[test]
fn conv_takes_what_scales_and_shifts_its_channels() {
    for op in ["Mul", "Add", "Div", "Sub"] {
        for shape in [&[8, 1, 1][..], &[], &[1, 8, 1, 1]] {
            for left in [false, true] {
                let mut d = Draft::new();
                let x = d.input("x", &[1, 4, 6, 6]);
                let c = conv(&mut d, "c", x, 8);
                let k = d.constant("k", shape, 0.5, 2.0);
                let y = d.op("y", op, &if left { [k, c] } else { [c, k] }, vec![]);
                let (_, after, _) = d.check("conv_affine", vec![y]);
                let takes = !(left && op == "Div");
                assert_eq!(after.len(), if takes { 1 } else { 2 }, "{op} {shape:?} {left}: {after:?}");
            }
        }
    }
    // A row, and something that broadcasts the result.
    for shape in [&[6][..], &[2, 8, 1, 1], &[1, 1, 8, 1, 1]] {
        let mut d = Draft::new();
        let x = d.input("x", &[1, 4, 6, 6]);
        let c = conv(&mut d, "c", x, 8);
        let k = d.constant("k", shape, 0.5, 2.0);
        let y = d.op("y", "Mul", &[c, k], vec![]);
        let (before, after, _) = d.check("conv_affine", vec![y]);
        assert_eq!(before, after, "{shape:?}");
    }
}

#[test]
fn conv_transpose_takes_a_batch_norm_and_an_activation() {
    for groups in [1, 2] {
        let draft = || {
            let mut d = Draft::new();
            let x = d.input("x", &[2, 4, 5, 6]);
            let w = d.constant("w", &[4, 8 / groups, 3, 3], -0.5, 0.5);
            let attrs = vec![("group", Attr::Int(groups as i64)), ("strides", ints(&[2, 2]))];
            let c = d.op("c", "ConvTranspose", &[x, w], attrs);
            (d, c)
        };
        let (mut d, c) = draft();
        let y = normalised(&mut d, c, 8);
        let (_, after, _) = d.check("conv_affine", vec![y]);
        assert_eq!(after, ["y = ConvTranspose(%x, #c.weights, #c.bias)"]);
        for op in ["Relu", "Tanh", "Gelu"] {
            let (mut d, c) = draft();
            let y = d.op("y", op, &[c], vec![]);
            let (_, after, _) = d.check("conv_epilogue", vec![y]);
            assert_eq!(after, ["y = ConvTranspose(%x, #w)"]);
        }
    }
}

#[test]
fn conv_takes_what_comes_before_it_where_it_has_no_border() {
    for (pads, groups, taken) in [([0; 4], 1, true), ([0; 4], 2, true), ([1; 4], 1, false)] {
        let mut d = Draft::new();
        let x = d.input("x", &[1, 4, 6, 6]);
        let scale = d.constant("scale", &[4], 0.5, 1.5);
        let bias = d.constant("bias", &[4], -1.0, 1.0);
        let mean = d.constant("mean", &[4], -1.0, 1.0);
        let var = d.constant("var", &[4], 0.5, 2.0);
        let n = d.op("n", "BatchNormalization", &[x, scale, bias, mean, var], vec![]);
        let w = d.constant("w", &[6, 4 / groups, 3, 3], -0.5, 0.5);
        let attrs = vec![("pads", ints(&pads)), ("group", Attr::Int(groups as i64))];
        let y = d.op("y", "Conv", &[n, w], attrs);
        let (before, after, report) = d.check("conv_affine", vec![y]);
        if taken {
            assert_eq!(after, ["y = Conv(%x, #y.weights, #y.bias)"]);
        } else {
            assert_eq!(before, after);
            assert!(report.misses[0].contains("whose border is zeros"), "{:?}", report.misses);
        }
    }
}

#[test]
fn pools_pad_by_themselves() {
    let kernel = || vec![("kernel_shape", ints(&[3, 3])), ("strides", ints(&[2, 2]))];
    let widths = [0, 0, 1, 0, 0, 0, 1, 2];
    let all: [(&str, f32, bool, bool); 5] = [
        ("AveragePool", 0.0, false, true),
        ("AveragePool", 0.5, false, false),
        ("MaxPool", f32::NEG_INFINITY, false, true),
        ("MaxPool", 0.0, false, false),
        ("MaxPool", 0.0, true, true),
    ];
    for (pool, value, relu, taken) in all {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 4, 7, 6]);
        let r = if relu { d.op("r", "Relu", &[x], vec![]) } else { x };
        let p = padded(&mut d, r, &widths, value);
        let y = d.op("y", pool, &[p], kernel());
        let (before, after, _) = d.check("window_pad", vec![y]);
        assert_eq!(before.len() - after.len(), usize::from(taken), "{pool} of {value}, relu {relu}: {after:?}");
    }
    // A border that repeats the edge.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 4, 7, 6]);
    let w = d.ints("widths", &widths);
    let p = d.op("p", "Pad", &[x, w], vec![("mode", Attr::String(b"edge".to_vec()))]);
    let y = d.op("y", "MaxPool", &[p], kernel());
    let (_, after, _) = d.check("window_pad", vec![y]);
    assert_eq!(after, ["y = MaxPool(%x)"]);
    // A pool that does not count its own border.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 4, 7, 6]);
    let p = padded(&mut d, x, &widths, 0.0);
    let y = d.op("y", "AveragePool", &[p], kernel().into_iter().chain([("pads", ints(&[1; 4]))]).collect());
    let (before, after, report) = d.check("window_pad", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("counts its own border"), "{:?}", report.misses);
}

/// Weights that are computed late belong to the model, as folded ones do, whatever a run does with denormals.
#[test]
fn weights_are_scaled_the_same_where_denormals_are_flushed() {
    // Of the weights each is denormal, their products are not.
    let tiny = |factors: &[i64]| {
        let x = Tiny::new("g").input("x", 1, &["1", "1", "4", "4"]).output("y");
        x.constant("w", &[3, 1, 1, 1], &[1e-40, 2e-40, -3e-40]).constant("f", factors, &[1e30; 3])
    };
    let late = tiny(&[3, 1, 1]).node("Conv", &["x", "w"], &["c"]).node("Mul", &["c", "f"], &["y"]);
    let folded = tiny(&[3, 1, 1, 1]).node("Mul", &["w", "f"], &["v"]).node("Conv", &["x", "v"], &["y"]);
    let x = random(DType::F32, &[1, 1, 4, 4], 1.0, 2.0, 3).unwrap();
    let run = |model: &Tiny, flush_denormals: bool| {
        let options = SessionOptions { flush_denormals, ..SessionOptions::default() };
        let s = Session::new(&Environment::new(), ModelSource::Bytes(model.clone().bytes().into(), None), &options)
            .unwrap();
        let mut out = [None];
        s.run_values(&[Value::Tensor(x.clone())], &mut out, &RunOptions::default()).unwrap();
        out[0].take().unwrap().as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec()
    };
    let want = run(&folded, false);
    assert!(want.iter().all(|y| y.abs() > 1e-11), "{want:?}");
    for (model, flush) in [(&folded, true), (&late, false), (&late, true)] {
        assert_eq!(run(model, flush), want, "flush {flush}");
    }
}
