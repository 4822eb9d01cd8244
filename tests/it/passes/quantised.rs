//! The passes of 8-bit models: groups between DequantizeLinear and QuantizeLinear, and images whose channels come last.

use super::conv::conv;
use super::{Draft, ints};
use ortx::ir::ValueId;
use ortx::ir::parse::Attr;
use ortx::ops::case::random;
use ortx::ops::quant::IntConvolution;
use ortx::ops::window::Window;
use ortx::{DType, Tensor};
use std::sync::Arc;

/// Scales and zero points, and what is made with them.
impl Draft {
    fn scalar(&mut self, name: &str, x: f32) -> ValueId {
        self.b.constant(name, Tensor::scalar(x).unwrap())
    }
    fn zero(&mut self, name: &str, x: u8) -> ValueId {
        self.b.constant(name, Tensor::scalar(x).unwrap())
    }
    /// `name = QuantizeLinear(x)`.
    pub(super) fn quantise(&mut self, name: &str, x: ValueId, scale: f32, zero: u8) -> ValueId {
        let (s, z) = (self.scalar(&format!("{name}_s"), scale), self.zero(&format!("{name}_z"), zero));
        self.op(name, "QuantizeLinear", &[x, s, z], vec![])
    }
    pub(super) fn dequantise(&mut self, name: &str, q: ValueId, scale: f32, zero: u8) -> ValueId {
        let (s, z) = (self.scalar(&format!("{name}_s"), scale), self.zero(&format!("{name}_z"), zero));
        self.op(name, "DequantizeLinear", &[q, s, z], vec![])
    }
    /// A number of 8 bits on its way from f32 to f32.
    pub(super) fn through(&mut self, name: &str, x: ValueId, scale: f32, zero: u8) -> (ValueId, ValueId) {
        let q = self.quantise(&format!("{name}_q"), x, scale, zero);
        (q, self.dequantise(name, q, scale, zero))
    }
    /// Weights of i8 with a scale for each of the first axis, and the integers of a bias whose scale is `factor` times that of
    /// the weights and of the input's 0.02.
    fn weights(&mut self, shape: &[usize], factor: f32) -> [ValueId; 2] {
        let n = shape[0];
        let scales: Vec<f32> = (0..n).map(|i| 0.01 + i as f32 * 0.001).collect();
        let w = self.b.constant("w", random(DType::I8, shape, -127.0, 127.0, 1).unwrap());
        let c = self.b.constant("c", random(DType::I32, &[n], -9999.0, 9999.0, 2).unwrap());
        let ws = self.b.constant("ws", Tensor::from_slice(&[n], &scales).unwrap());
        let scales: Vec<f32> = scales.iter().map(|s| s * 0.02 * factor).collect();
        let cs = self.b.constant("cs", Tensor::from_slice(&[n], &scales).unwrap());
        let axis = vec![("axis", Attr::Int(0))];
        let w = self.op("w1", "DequantizeLinear", &[w, ws], axis.clone());
        [w, self.op("c1", "DequantizeLinear", &[c, cs], axis)]
    }
}

/// One step of a result of scale 0.05, and a rounding: the sums are exact in one graph, of f32 in the other.
const STEP: f64 = 0.0501;

#[test]
pub(super) fn quantised_convolutions_are_of_integers() {
    for factor in [1.0, 1.5] {
        let mut d = Draft::new();
        let x = d.input("x", &[1, 4, 5, 6]);
        let (_, x) = d.through("x1", x, 0.02, 120);
        let [w, c] = d.weights(&[6, 4, 3, 3], factor);
        let y = d.op("y", "Conv", &[x, w, c], vec![("pads", ints(&[1, 1, 1, 1]))]);
        let y = d.op("r", "Relu", &[y], vec![]);
        let (_, y) = d.through("z", y, 0.05, 0);
        let (_, after, report) = d.check_within(STEP, "quantised", vec![y]);
        if factor == 1.0 {
            assert!(after[1].starts_with("z_q = QLinearConv(%x1_q, #x1_s, #x1_z, #w, #ws"), "{after:?}");
            assert_eq!((after.len(), report.fired), (3, 1));
        } else {
            // A bias that is no whole number of the sums' steps.
            assert_eq!(report.fired, 0, "{after:?}");
        }
    }
}

#[test]
pub(super) fn a_relu_is_kept_where_a_products_integers_go_below_zero() {
    for (zero, kept) in [(7, true), (0, false)] {
        let mut d = Draft::new();
        let x = d.input("x", &[3, 7]);
        let (_, x) = d.through("x1", x, 0.02, 120);
        let [w, c] = d.weights(&[6, 7], 1.0);
        let y = d.op("y", "Gemm", &[x, w, c], vec![("transB", Attr::Int(1))]);
        let y = d.op("r", "Relu", &[y], vec![]);
        let (_, y) = d.through("z", y, 0.05, zero);
        let (_, after, _) = d.check_within(STEP, "quantised", vec![y]);
        assert_eq!(after.iter().any(|l| l.contains("Relu(%y)")), kept, "{after:?}");
    }
}

#[test]
fn an_integer_convolution_takes_a_relu_whatever_the_zero_point() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 5, 6]);
    let (_, x) = d.through("x1", x, 0.02, 120);
    let [w, c] = d.weights(&[6, 4, 1, 1], 1.0);
    let y = d.op("y", "Conv", &[x, w, c], vec![]);
    let y = d.op("r", "Relu", &[y], vec![]);
    let (_, y) = d.through("z", y, 0.05, 7);
    assert_eq!(d.check_within(STEP, "quantised", vec![y]).2.fired, 1);
}

/// As PyTorch writes what it quantised: a conversion to the same type behind each QuantizeLinear, biases of floats. One of them is
/// too large for sums of 32 bits.
#[test]
fn biases_of_floats_are_rounded_to_steps_of_the_sums() {
    for (most, fired) in [(1.0, 2), (1e6, 0)] {
        let mut d = Draft::new();
        let x = d.input("x", &[1, 4, 5, 6]);
        let q = d.quantise("x_q", x, 0.02, 120);
        let q = d.op("same", "Cast", &[q], vec![("to", Attr::Int(2))]);
        let x = d.dequantise("x1", q, 0.02, 120);
        let [w, _] = d.weights(&[6, 4, 5, 6], 1.0);
        let c = d.constant("floats", &[6], -most, most);
        let y = d.op("y", "Conv", &[x, w, c], vec![]);
        let (q, y) = d.through("z", y, 0.05, 0);
        let y = d.op("f", "Flatten", &[y], vec![]);
        let q2 = d.quantise("f_q", y, 0.05, 0);
        let (_, after, report) = d.check_within(STEP, "quantised", vec![q, q2]);
        let convs =
            after.iter().filter(|l| l.contains("QLinearConv(%x_q, ") && l.ends_with("#floats.integers)")).count();
        assert_eq!((convs, report.fired), (fired / 2, 1 + fired / 2), "{after:#?}");
    }
}

/// Trained for quantisation: weights of their own steps, then a batch normalisation (here its parts, one factor below zero); what is
/// quantised is kept below 127. A normalisation that others look past stays.
#[test]
fn what_scales_channels_scales_the_weights_scales() {
    for shared in [false, true] {
        let mut d = Draft::new();
        let x = d.input("x", &[1, 4, 5, 6]);
        let q = d.quantise("x_q", x, 0.02, 60);
        let most = d.zero("most", 127);
        let none = d.zero("none", 0);
        let q = d.op("low", "Clip", &[q, none, most], vec![]);
        let x = d.dequantise("x1", q, 0.02, 60);
        let [w, _] = d.weights(&[6, 4, 3, 3], 1.0);
        let y = d.op("y", "Conv", &[x, w], vec![("pads", ints(&[1, 1, 1, 1]))]);
        let (f, c) = (d.constant("f", &[1, 6, 1, 1], -1.5, 1.0), d.constant("shift", &[6, 1, 1], -1.0, 1.0));
        let m = d.op("m", "Mul", &[y, f], vec![]);
        let s = d.op("s", "Add", &[m, c], vec![]);
        let (_, z) = d.through("z", s, 0.05, 9);
        let outputs = if shared { vec![z, y] } else { vec![z] };
        let (_, after, report) = d.check_within(STEP, "quantised", outputs);
        assert_eq!(report.fired, if shared { 1 } else { 4 }, "{after:#?}");
        assert_eq!(after.iter().any(|l| l.starts_with("z_q = QLinearConv(%low, ")), !shared, "{after:#?}");
        assert!(after.iter().any(|l| l.starts_with("low = Pointwise(%x_q)")), "{after:#?}");
    }
}

/// Zero points and weights that are computed from constants.
#[test]
pub(super) fn what_groups_read_is_computed() {
    let mut d = Draft::new();
    let x = d.input("x", &[3, 7]);
    let (s, z) = (d.scalar("s", 0.02), d.b.constant("z", Tensor::scalar(120i64).unwrap()));
    let z = d.op("zero", "Cast", &[z], vec![("to", Attr::Int(2))]);
    let q = d.op("q", "QuantizeLinear", &[x, s, z], vec![]);
    let x = d.op("x1", "DequantizeLinear", &[q, s, z], vec![]);
    let w = d.constant("w", &[7, 6], -1.0, 1.0);
    let w = d.op("wq", "QuantizeLinear", &[w, s, z], vec![]);
    let w = d.op("w1", "DequantizeLinear", &[w, s, z], vec![]);
    let y = d.op("y", "MatMul", &[x, w], vec![]);
    let (before, after, report) = d.check("fold_scales", vec![y]);
    assert_eq!((before.len(), after.len(), report.fired), (6, 4, 2), "{after:?}");
    assert!(after.iter().any(|l| l.starts_with("w1 = DequantizeLinear(#wq, #s, #zero)")), "{after:?}");
}

#[test]
pub(super) fn constants_of_floats_are_left_to_fold() {
    let mut d = Draft::new();
    let (x, a, b) = (d.input("x", &[3, 7]), d.constant("a", &[7], -1.0, 1.0), d.constant("b", &[7], -1.0, 1.0));
    let c = d.op("c", "Add", &[a, b], vec![]);
    let y = d.op("y", "Add", &[x, c], vec![]);
    assert_eq!(d.check("fold_scales", vec![y]).2.fired, 0);
}

/// An integer convolution of scale 0.3 and zero point 120, 16 channels of 4.
fn layer(d: &mut Draft, name: &str, x: ValueId, (ci, co, groups): (usize, usize, i64)) -> ValueId {
    let (s, z) = (d.scalar(&format!("{name}_s"), 0.02), d.zero(&format!("{name}_z"), 120));
    let w = d.b.constant(&format!("{name}_w"), random(DType::I8, &[co, ci, 3, 3], -127.0, 127.0, 4).unwrap());
    let (ws, ys) = (d.scalar(&format!("{name}_ws"), 0.01), d.scalar(&format!("{name}_ys"), 0.3));
    let wz = d.b.constant(&format!("{name}_wz"), Tensor::scalar(0i8).unwrap());
    let attrs = vec![("pads", ints(&[1, 1, 1, 1])), ("group", Attr::Int(groups))];
    d.op(name, "QLinearConv", &[x, s, z, w, ws, wz, ys, z], attrs)
}

#[test]
fn integer_convolutions_take_a_residual() {
    for (relu, first, zero) in [(false, true, 100), (true, false, 0), (true, true, 31)] {
        let mut d = Draft::new();
        let (x, r) = (d.input("x", &[2, 4, 5, 6]), d.input("r", &[2, 16, 5, 6]));
        let (q, (_, r)) = (d.quantise("q", x, 0.02, 120), d.through("r1", r, 0.017, 99));
        let y = layer(&mut d, "a", q, (4, 16, 1));
        let y = d.dequantise("y", y, 0.3, 120);
        let mut y = d.op("sum", "Add", &if first { [y, r] } else { [r, y] }, vec![]);
        if relu {
            y = d.op("relu", "Relu", &[y], vec![]);
        }
        let (_, y) = d.through("z", y, 0.35, zero);
        // The same arithmetic on both sides: bit for bit.
        let (_, after, report) = d.check_within(0.0, "quantised", vec![y]);
        assert_eq!((after.len(), report.fired), (4, 1), "{after:?}");
        assert!(
            after[2].starts_with("z_q = QLinearConv(%q, ") && after[2].contains("%r1_q, #r1_s, #r1_z"),
            "{after:?}"
        );
    }
}

#[test]
fn a_residual_stays_apart_that_does_not_fit() {
    // The convolution's integers are read elsewhere; the addend is repeated; another scale than the one it was made with.
    for case in 0..3 {
        let mut d = Draft::new();
        let (x, r) = (d.input("x", &[2, 4, 5, 6]), d.input("r", if case == 1 { &[16, 1, 1] } else { &[2, 16, 5, 6] }));
        let (q, (_, r)) = (d.quantise("q", x, 0.02, 120), d.through("r1", r, 0.017, 99));
        let a = layer(&mut d, "a", q, (4, 16, 1));
        let y = d.dequantise("y", a, if case == 2 { 0.31 } else { 0.3 }, 120);
        let y = d.op("sum", "Add", &[y, r], vec![]);
        let (_, y) = d.through("z", y, 0.35, 90);
        let outputs = if case == 0 { vec![y, a] } else { vec![y] };
        let (_, after, _) = d.check_within(0.0, "quantised", outputs);
        assert!(after.iter().any(|l| l.starts_with("z_q = Pointwise(")), "{after:?}");
    }
}

#[test]
fn quantised_products_are_of_integers() {
    let mut d = Draft::new();
    let x = d.input("x", &[3, 7]);
    let (_, x) = d.through("x1", x, 0.02, 120);
    let [w, c] = d.weights(&[6, 7], 1.0);
    let y = d.op("y", "Gemm", &[x, w, c], vec![("transB", Attr::Int(1))]);
    let (_, y) = d.through("z", y, 0.05, 9);
    let (_, after, _) = d.check_within(STEP, "quantised", vec![y]);
    assert!(after[1].starts_with("z_q = QGemm(%x1_q, #x1_s"), "{after:?}");
}

/// Attention's products: neither side is a constant, and there is one for each head.
#[test]
fn products_of_many_matrices_are_of_integers() {
    let mut d = Draft::new();
    let (a, b) = (
        d.named_input("a", &["", "", "seq", ""], &[2, 3, 5, 7]),
        d.named_input("b", &["", "", "", "seq"], &[2, 3, 7, 5]),
    );
    let ((_, a), (_, b)) = (d.through("a1", a, 0.02, 120), d.through("b1", b, 0.03, 99));
    let y = d.op("y", "MatMul", &[a, b], vec![]);
    let (_, y) = d.through("z", y, 0.05, 9);
    let (_, after, _) = d.check_within(STEP, "quantised", vec![y]);
    assert!(after[2].starts_with("z_q = QGemm(%a1_q, #a1_s, #a1_z, %b1_q, #b1_s, #b1_z"), "{after:?}");
}

/// What is not quantised again stays in f32: sums of some hundred products, which are exact in one graph.
#[test]
fn products_that_are_not_quantised_give_floats() {
    for (bias, factor, fired) in [(None, 1.0, 1), (Some(true), 1.0, 1), (Some(true), 1.5, 0), (Some(false), 1.0, 1)] {
        let mut d = Draft::new();
        let x = d.input("x", &[3, 7]);
        let (_, x) = d.through("x1", x, 0.02, 120);
        let [w, c] = d.weights(&[6, 7], factor);
        let c = match bias {
            Some(true) => vec![c],
            Some(false) => vec![d.constant("floats", &[6], -1.0, 1.0)],
            None => vec![],
        };
        let y = d.op("y", "Gemm", &[&[x, w], &c[..]].concat(), vec![("transB", Attr::Int(1))]);
        let y = d.op("p", "Softmax", &[y], vec![]);
        let (_, after, report) = d.check_within(1e-4, "quantised", vec![y]);
        assert_eq!(report.fired, fired, "{bias:?}: {after:?}");
        let want = match bias {
            None => "y = MatMulIntegerToFloat(%x1_q, #w, #x1_s, #ws, #x1_z, _, _)",
            Some(true) => "y = QGemm(%x1_q, #x1_s, #x1_z, #w, #ws, _, #c)",
            Some(false) => "y = MatMulIntegerToFloat(%x1_q, #w, #x1_s, #ws, #x1_z, _, #floats)",
        };
        assert!(fired == 0 || after[1].starts_with(want), "{after:?}");
    }
}

#[test]
fn quantised_elementwise_operators_are_programs() {
    let mut d = Draft::new();
    let (a, b) = (d.input("a", &[2, 3, 17]), d.input("b", &[3, 1]));
    let ((_, a), (_, b)) = (d.through("a1", a, 0.02, 120), d.through("b1", b, 0.03, 99));
    let y = d.op("y", "Add", &[a, b], vec![]);
    let (_, y) = d.through("z", y, 0.05, 100);
    let y = d.op("s", "HardSigmoid", &[y], vec![]);
    let (_, y) = d.through("t", y, 0.004, 0);
    // The same arithmetic on both sides.
    let (_, after, report) = d.check("quantised", vec![y]);
    assert_eq!(report.fired, 2);
    assert_eq!(after[2..4], ["z_q = Pointwise(%a1_q, %b1_q)", "t_q = Pointwise(%z_q)"]);
}

#[test]
fn integers_of_one_scale_are_moved_as_they_are() {
    for (scale, fires) in [(0.02, true), (0.03, false)] {
        let mut d = Draft::new();
        let x = d.input("x", &[1, 4, 6, 6]);
        let (_, x) = d.through("x1", x, 0.02, 120);
        let y = d.op("y", "MaxPool", &[x], vec![("kernel_shape", ints(&[2, 2]))]);
        let (_, y) = d.through("z", y, scale, 120);
        let (_, after, report) = d.check("quantised", vec![y]);
        assert_eq!(report.fired, usize::from(fires), "{after:?}");
        if fires {
            assert_eq!(after[1], "z_q = MaxPool(%x1_q)");
        } else {
            assert!(report.misses[0].contains("another scale"), "{:?}", report.misses);
        }
    }
}

#[test]
fn rearranged_integers_stay_integers() {
    type Make = fn(&mut Draft, ValueId) -> ValueId;
    let makes: [(&str, Make); 5] = [
        ("DepthToSpace", |d, x| d.op("y", "DepthToSpace", &[x], vec![("blocksize", Attr::Int(2))])),
        ("Resize", |d, x| {
            let scales = d.b.constant("scales", Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 2.0]).unwrap());
            let none = d.b.constant("none", Tensor::from_slice::<f32>(&[0], &[]).unwrap());
            let nearest = ("mode", Attr::String(b"nearest".to_vec()));
            d.op(
                "y",
                "Resize",
                &[x, none, scales],
                vec![nearest, ("coordinate_transformation_mode", Attr::String(b"asymmetric".to_vec()))],
            )
        }),
        ("Gather", |d, x| {
            let at = d.ints("at", &[2, 0, 0]);
            d.op("y", "Gather", &[x, at], vec![("axis", Attr::Int(2))])
        }),
        ("Expand", |d, x| {
            let shape = d.ints("shape", &[3, 4, 6, 6]);
            d.op("y", "Expand", &[x, shape], vec![])
        }),
        ("Pad", |d, x| {
            let pads = d.ints("pads", &[0, 0, 1, 2, 0, 0, 2, 1]);
            d.op("y", "Pad", &[x, pads], vec![("mode", Attr::String(b"reflect".to_vec()))])
        }),
    ];
    for (what, make) in makes {
        for (scale, fires) in [(0.02, true), (0.03, false)] {
            let mut d = Draft::new();
            let x = d.input("x", &[1, 4, 6, 6]);
            let (_, x) = d.through("x1", x, 0.02, 120);
            let y = make(&mut d, x);
            let (_, y) = d.through("z", y, scale, 120);
            let (_, after, report) = d.check_within(0.0, "quantised", vec![y]);
            assert_eq!(report.fired, usize::from(fires), "{what}: {after:?}");
            assert_eq!(after[1].starts_with(&format!("z_q = {what}(%x1_q")), fires, "{after:?}");
        }
    }
}

/// All parts at once, or none.
#[test]
fn parts_of_integers_are_integers() {
    for (scale, fires) in [(0.02, true), (0.03, false)] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 9]);
        let (_, x) = d.through("x1", x, 0.02, 120);
        let lengths = d.ints("lengths", &[4, 3, 2]);
        let parts = d.split("y", x, lengths, 1, 3);
        let parts: Vec<ValueId> = [0.02, scale, 0.02]
            .iter()
            .zip(parts)
            .enumerate()
            .map(|(i, (&s, v))| d.through(&format!("z{i}"), v, s, 120).1)
            .collect();
        let (_, after, report) = d.check_within(0.0, "quantised", parts);
        assert_eq!(report.fired, usize::from(fires), "{after:?}");
        assert_eq!(after.len(), if fires { 5 } else { 9 }, "{after:?}");
    }
}

/// As PyTorch and Keras write it; over places and channels it is no pool.
#[test]
fn the_mean_of_all_places_is_a_pool() {
    for (axes, keep, fired) in [(&[2, 3][..], 1, 1), (&[-1, -2], 0, 1), (&[1, 2, 3], 1, 0)] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 4, 6, 5]);
        let (_, x) = d.through("x1", x, 0.02, 120);
        let axes = d.ints("axes", axes);
        let y = d.op("y", "ReduceMean", &[x, axes], vec![("keepdims", Attr::Int(keep))]);
        let (_, y) = d.through("z", y, 0.01, 120);
        let (_, after, report) = d.check_within(0.0101, "quantised", vec![y]);
        assert_eq!(report.fired, fired, "{after:?}");
        assert_eq!(after.iter().any(|l| l.contains("GlobalAveragePool(%x1)")), fired == 1, "{after:?}");
        assert_eq!(after.iter().any(|l| l.starts_with("z_q = Squeeze(")), keep == 0, "{after:?}");
    }
}

#[test]
fn joined_integers_are_brought_to_one_scale() {
    let mut d = Draft::new();
    let (a, b) = (d.input("a", &[2, 3, 5]), d.input("b", &[2, 4, 5]));
    let ((_, a), (_, b)) = (d.through("a1", a, 0.02, 120), d.through("b1", b, 0.03, 99));
    let y = d.op("y", "Concat", &[a, b], vec![("axis", Attr::Int(1))]);
    let (_, y) = d.through("z", y, 0.02, 120);
    let (_, after, report) = d.check("quantised", vec![y]);
    assert_eq!(report.fired, 1);
    assert_eq!(after[2..4], ["y/1 = Pointwise(%b1_q)", "z_q = Concat(%a1_q, %y/1)"]);
}

#[test]
pub(super) fn channels_of_integer_images_stay_together() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 4, 9, 8]);
    let q = d.quantise("q", x, 0.02, 120);
    let a = layer(&mut d, "a", q, (4, 16, 1));
    let p = d.op("p", "MaxPool", &[a], vec![("kernel_shape", ints(&[3, 3])), ("pads", ints(&[1, 1, 1, 1]))]);
    let b = layer(&mut d, "b", p, (1, 16, 16));
    let (_, after, report) = d.check_within(0.0, "channels_last", vec![b]);
    assert_eq!(report.fired, 3);
    let ops: Vec<&str> = after.iter().map(|l| l.split(" = ").nth(1).unwrap().split('(').next().unwrap()).collect();
    let want = ["QuantizeLinear", "QLinearConv", "IntMaxPool", "QLinearConv", "Transpose"];
    assert_eq!(ops, want, "{after:?}");
}

/// An image that came with its channels last, as from Keras, need not be turned; one that was turned otherwise is.
#[test]
fn images_come_with_their_channels_last() {
    for (perm, left) in [([0, 3, 1, 2], 1), ([0, 3, 2, 1], 2)] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 9, 9, 4]);
        let q = d.quantise("q", x, 0.02, 120);
        let q = d.op("t", "Transpose", &[q], vec![("perm", ints(&perm))]);
        let y = layer(&mut d, "a", q, (4, 16, 1));
        let (_, after, _) = d.check_within(0.0, "channels_last", vec![y]);
        assert_eq!(after.iter().filter(|l| l.contains("Transpose(")).count(), left, "{after:?}");
    }
}

/// A convolution of integers reads an image whose channels come last as it is: what is done before may be done to that.
#[test]
fn what_comes_before_an_integer_convolution_keeps_channels_last() {
    for (perm, quantised) in [([0, 3, 1, 2], true), ([0, 3, 2, 1], true), ([0, 3, 1, 2], false)] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 6, 5, 4]);
        let t = d.op("t", "Transpose", &[x], vec![("perm", ints(&perm))]);
        let empty = d.constant("empty", &[0], 0.0, 1.0);
        let scales = d.b.constant("scales", Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 1.5]).unwrap());
        let t = d.op("u", "Resize", &[t, empty, scales], vec![("mode", Attr::String(b"linear".to_vec()))]);
        let y = match quantised {
            true => {
                let q = d.quantise("q", t, 0.02, 120);
                layer(&mut d, "a", q, (4, 16, 1))
            }
            false => conv(&mut d, "y", t, 3),
        };
        // Another order of the sums in the resized numbers may cost a step of the integers.
        let (before, after, _) = d.check_within(1.0, "transposes", vec![y]);
        match (perm, quantised) {
            ([0, 3, 1, 2], true) => {
                let ops: Vec<&str> = after.iter().map(|l| l.split([' ', '(']).nth(2).unwrap()).collect();
                assert_eq!(ops, ["Resize", "QuantizeLinear", "QLinearConv"], "{after:?}");
            }
            // Another order; a convolution of floats, and more numbers to be moved behind the Resize than before it.
            _ => assert_eq!(before, after),
        }
    }
}

/// One whose input has its channels last already turns its result only.
#[test]
fn a_convolution_that_reads_channels_last_writes_them_so() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 5, 6, 4]);
    let q = d.quantise("q", x, 0.02, 120);
    let (s, z) = (d.scalar("s", 0.3), d.zero("z", 120));
    let w = d.b.constant("w", random(DType::I8, &[16, 4, 1, 1], -127.0, 127.0, 4).unwrap());
    let (window, last) = (Window::over(&[1, 1]), [true, false]);
    let op = IntConvolution { window, groups: 1, quantised: true, last, residual: false, relu: false };
    let inputs = [Some(q), Some(s), Some(z), Some(w), Some(s), None, Some(s), Some(z)].into();
    let y = d.b.node("y", Arc::new(op), inputs, &[Some("y")]).unwrap()[0].unwrap();
    let (_, after, report) = d.check_within(0.0, "channels_last", vec![y]);
    assert_eq!((after.len(), report.fired), (3, 1), "{after:?}");
    assert!(after[1].starts_with("y/nhwc = QLinearConv(%q,") && after[2] == "y = Transpose(%y/nhwc)", "{after:?}");
}

#[test]
fn a_residual_is_turned_with_the_image() {
    for turned in [true, false] {
        let mut d = Draft::new();
        let (x, r) = (d.input("x", &[2, 4, 5, 6]), d.input("r", &[2, 16, 5, 6]));
        let (q, r) = (d.quantise("q", x, 0.02, 120), d.quantise("rq", r, 0.02, 120));
        let a = if turned { layer(&mut d, "a", q, (4, 16, 1)) } else { r };
        let (s, z) = (d.scalar("s", 0.3), d.zero("z", 120));
        let w = d.b.constant("w", random(DType::I8, &[16, 4, 1, 1], -127.0, 127.0, 4).unwrap());
        let window = Window::over(&[1, 1]);
        let op = IntConvolution { window, groups: 1, quantised: true, last: [false; 2], residual: true, relu: true };
        let inputs = [Some(q), Some(s), Some(z), Some(w), Some(s), None, Some(s), Some(z), None];
        let inputs = inputs.into_iter().chain([a, s, z, s, z].map(Some)).collect();
        let y = d.b.node("y", Arc::new(op), inputs, &[Some("y")]).unwrap()[0].unwrap();
        let (_, after, report) = d.check_within(0.0, "channels_last", vec![y]);
        assert_eq!(report.fired, if turned { 2 } else { 0 }, "{after:?}");
    }
}

#[test]
pub(super) fn images_of_floats_keep_their_layout() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 5, 6]);
    let y = conv(&mut d, "y", x, 3);
    assert_eq!(d.check("channels_last", vec![y]).2.fired, 0);
}
