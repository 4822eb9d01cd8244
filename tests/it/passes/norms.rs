//! Normalisations that are written out.

use super::*;

/// `x - mean(x)` and `1 / sqrt(mean((x - mean(x))^2) + epsilon)` over axes.
fn centred(d: &mut Draft, x: ValueId, axes: &[i64]) -> (ValueId, ValueId) {
    let (two, eps) = (d.number(2.0), d.number(1e-5));
    let m = d.op("mean", "ReduceMean", &[x, axes_of(d, axes)], vec![]);
    let c = d.op("c", "Sub", &[x, m], vec![]);
    let s = d.op("square", "Pow", &[c, two], vec![]);
    let v = d.op("var", "ReduceMean", &[s, axes_of(d, axes)], vec![]);
    let v = d.op("var_eps", "Add", &[v, eps], vec![]);
    (c, d.op("root", "Sqrt", &[v], vec![]))
}

fn axes_of(d: &Draft, axes: &[i64]) -> ValueId {
    let name = format!("axes{axes:?}");
    let all = d.b.graph();
    (0..all.value_count() as u32).map(ValueId).find(|&v| *all.value(v).name == *name).unwrap()
}

#[test]
pub(super) fn layer_norm_in_its_forms() {
    let mut d = Draft::new();
    d.ints("axes[-1]", &[-1]);
    let x = d.input("x", &[2, 3, 8]);
    let (w, b) = (d.constant("w", &[8], 0.5, 1.5), d.constant("b", &[8], -1.0, 1.0));
    let (c, root) = centred(&mut d, x, &[-1]);
    let n = d.op("n", "Div", &[c, root], vec![]);
    let s = d.op("s", "Mul", &[n, w], vec![]);
    let y = d.op("y", "Add", &[s, b], vec![]);
    let (before, after, report) = d.check("norms", vec![y]);
    assert_eq!(before.len(), 9);
    assert_eq!(after, ["y = LayerNormalization(%x, #w, #b)"]);
    assert_eq!(report.fired, 1);

    // Without scale and shift, over two axes.
    let mut d = Draft::new();
    d.ints("axes[1, 2]", &[1, 2]);
    let x = d.input("x", &[2, 3, 8]);
    let (c, root) = centred(&mut d, x, &[1, 2]);
    let y = d.op("y", "Div", &[c, root], vec![]);
    let (_, after, _) = d.check("norms", vec![y]);
    assert_eq!(after, ["y = LayerNormalization(%x, #y.scale)"]);

    // tf2onnx: x * g + (shift - mean * g)
    let mut d = Draft::new();
    d.ints("axes[-1]", &[-1]);
    let x = d.input("x", &[5, 8]);
    let (w, b) = (d.constant("w", &[8], 0.5, 1.5), d.constant("b", &[8], -1.0, 1.0));
    let (_, root) = centred(&mut d, x, &[-1]);
    let r = d.op("r", "Reciprocal", &[root], vec![]);
    let g = d.op("g", "Mul", &[r, w], vec![]);
    let m = d.op("mean", "ReduceMean", &[x, axes_of(&d, &[-1])], vec![]);
    let (xg, mg) = (d.op("xg", "Mul", &[x, g], vec![]), d.op("mg", "Mul", &[m, g], vec![]));
    let rest = d.op("rest", "Sub", &[b, mg], vec![]);
    let y = d.op("y", "Add", &[xg, rest], vec![]);
    let (_, after, _) = d.check("norms", vec![y]);
    assert_eq!(after, ["y = LayerNormalization(%x, #w, #b)"]);
}

/// Keras, by tf2onnx: x * g + (shift - mean * g) with a negated mean; before operator set 18 the means are pools.
#[test]
fn layer_norm_of_keras() {
    for (mean, shifted) in [("ReduceMean", true), ("GlobalAveragePool", true), ("ReduceMean", false)] {
        let mut d = Draft::new();
        let x = d.named_input("x", &["n", "", ""], &[2, 5, 8]);
        let (w, b, eps) = (d.constant("w", &[8], 0.5, 1.5), d.constant("b", &[8], -1.0, 1.0), d.number(1e-3));
        let axes = d.ints("axes", &[-1]);
        let of = |d: &mut Draft, name: &str, x: ValueId| match mean {
            "ReduceMean" => d.op(name, mean, &[x, axes], vec![]),
            _ => d.op(name, mean, &[x], vec![]),
        };
        let m = of(&mut d, "mean", x);
        let c = d.op("c", "Sub", &[x, m], vec![]);
        let s = d.op("s", "Mul", &[c, c], vec![]);
        let v = of(&mut d, "var", s);
        let v = d.op("v", "Add", &[v, eps], vec![]);
        let r = d.op("r", "Sqrt", &[v], vec![]);
        let r = d.op("i", "Reciprocal", &[r], vec![]);
        let g = d.op("g", "Mul", &[r, w], vec![]);
        let (xg, neg) = (d.op("xg", "Mul", &[x, g], vec![]), d.op("neg", "Neg", &[m], vec![]));
        let mut rest = d.op("mg", "Mul", &[neg, g], vec![]);
        if shifted {
            rest = d.op("rest", "Add", &[rest, b], vec![]);
        }
        let y = d.op("y", "Add", &[xg, rest], vec![]);
        let (_, after, report) = d.check("norms", vec![y]);
        let inputs = if shifted { "%x, #w, #b" } else { "%x, #w" };
        assert_eq!(after, [format!("y = LayerNormalization({inputs})")], "{mean} {:?}", report.misses);
    }
}

/// Normalised over channels that come first (ConvNeXt), over places with channels last, over groups of those (Keras).
#[test]
fn norms_over_other_axes() {
    for (shape, axes, scale, operator) in [
        (&[2, 6, 4, 5][..], &[1][..], &[6, 1, 1][..], "LayerNormalization"),
        (&[2, 4, 5, 6], &[1, 2], &[6], "InstanceNormalization"),
        (&[2, 4, 5, 3, 2], &[1, 2, 4], &[1, 1, 1, 3, 2], "GroupNormalization"),
    ] {
        let mut d = Draft::new();
        d.ints(&format!("axes{axes:?}"), axes);
        let x = d.input("x", shape);
        let (w, b) = (d.constant("w", scale, 0.5, 1.5), d.constant("b", scale, -1.0, 1.0));
        let (c, root) = centred(&mut d, x, axes);
        let n = d.op("n", "Div", &[c, root], vec![]);
        let s = d.op("s", "Mul", &[w, n], vec![]);
        let y = d.op("y", "Add", &[s, b], vec![]);
        let (_, after, report) = d.check("norms", vec![y]);
        let left = |op: &str| after.iter().filter(|l| l.contains(&format!("= {op}("))).count();
        assert_eq!((left(operator), left("Transpose")), (1, 2), "{after:#?} {:?}", report.misses);
        assert_eq!(left("Reshape"), if shape.len() == 5 { 2 } else { 0 }, "{after:#?}");
    }
}

/// Groups without scale and shift, to which torch adds ones and zeros.
#[test]
fn group_norm_with_a_shift_of_zeros() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 6, 4, 5]);
    let (one, zero) = (d.constant("one", &[3], 1.0, 1.0), d.constant("zero", &[3], 0.0, 0.0));
    let (cut, back) = (d.ints("cut", &[0, 3, -1]), d.ints("back", &[2, 6, 4, 5]));
    let zeros = d.constant("zeros", &[1, 1, 1], 0.0, 0.0);
    let r = d.op("r", "Reshape", &[x, cut], vec![]);
    let n = d.op("n", "InstanceNormalization", &[r, one, zero], vec![]);
    let r = d.op("r2", "Reshape", &[n, back], vec![]);
    let y = d.op("y", "Add", &[r, zeros], vec![]);
    let (_, after, report) = d.check("norms", vec![y]);
    assert_eq!(after, ["y = GroupNormalization(%x, #y.scale, #y.shift)"], "{:?}", report.misses);
}

#[test]
fn rms_norm() {
    let mut d = Draft::new();
    d.ints("axes[-1]", &[-1]);
    let x = d.input("x", &[2, 3, 8]);
    let (w, eps, one) = (d.constant("w", &[8], 0.5, 1.5), d.number(1e-6), d.number(1.0));
    let s = d.op("square", "Mul", &[x, x], vec![]);
    let v = d.op("v", "ReduceMean", &[s, axes_of(&d, &[-1])], vec![]);
    let v = d.op("ve", "Add", &[eps, v], vec![]);
    let r = d.op("root", "Sqrt", &[v], vec![]);
    let r = d.op("r", "Div", &[one, r], vec![]);
    let n = d.op("n", "Mul", &[x, r], vec![]);
    let y = d.op("y", "Mul", &[w, n], vec![]);
    let (before, after, _) = d.check("norms", vec![y]);
    assert_eq!(before.len(), 7);
    assert_eq!(after, ["y = RMSNormalization(%x, #w)"]);
}

#[test]
fn instance_and_group_norm() {
    let mut d = Draft::new();
    d.ints("axes[2, 3]", &[2, 3]);
    let x = d.input("x", &[2, 6, 4, 5]);
    let (w, b) = (d.constant("w", &[6, 1, 1], 0.5, 1.5), d.constant("b", &[1, 6, 1, 1], -1.0, 1.0));
    let (c, root) = centred(&mut d, x, &[2, 3]);
    let n = d.op("n", "Div", &[c, root], vec![]);
    let s = d.op("s", "Mul", &[n, w], vec![]);
    let y = d.op("y", "Add", &[s, b], vec![]);
    let (_, after, _) = d.check("norms", vec![y]);
    assert_eq!(after, ["y = InstanceNormalization(%x, #w, #b)"]);

    let mut d = Draft::new();
    let x = d.input("x", &[2, 6, 4, 5]);
    let (w, b) = (d.constant("w", &[6, 1, 1], 0.5, 1.5), d.constant("b", &[6, 1, 1], -1.0, 1.0));
    let (one, zero) = (d.constant("one", &[3], 1.0, 1.0), d.constant("zero", &[3], 0.0, 0.0));
    let (cut, back) = (d.ints("cut", &[0, 3, -1]), d.ints("back", &[2, 6, 4, 5]));
    let r = d.op("r", "Reshape", &[x, cut], vec![]);
    let n = d.op("n", "InstanceNormalization", &[r, one, zero], vec![]);
    let r = d.op("r2", "Reshape", &[n, back], vec![]);
    let s = d.op("s", "Mul", &[r, w], vec![]);
    let y = d.op("y", "Add", &[s, b], vec![]);
    let (before, after, _) = d.check("norms", vec![y]);
    assert_eq!(before.len(), 5);
    assert_eq!(after, ["y = GroupNormalization(%x, #w, #b)"]);
}

/// Groups whose inner normalisation is by layer or by instance, with and without scale and shift, as exporters cut them.
#[test]
fn groups_in_their_forms() {
    for by_layer in [false, true] {
        for affine in 0..3 {
            let mut d = Draft::new();
            let x = d.named_input("x", &["n", "", "", ""], &[2, 6, 4, 5]);
            let (w, b) = (d.constant("w", &[6, 1, 1], 0.5, 1.5), d.constant("b", &[1, 6, 1, 1], -1.0, 1.0));
            let (cut, shape) = (d.ints("cut", &[0, 3, -1]), d.op("shape", "Shape", &[x], vec![]));
            let r = d.op("r", "Reshape", &[x, cut], vec![]);
            let n = if by_layer {
                let one = d.constant("one", &[40], 1.0, 1.0);
                d.op("n", "LayerNormalization", &[r, one], vec![])
            } else {
                let (one, zero) = (d.constant("one", &[3], 1.0, 1.0), d.constant("zero", &[3], 0.0, 0.0));
                d.op("n", "InstanceNormalization", &[r, one, zero], vec![])
            };
            let mut y = d.op("y0", "Reshape", &[n, shape], vec![]);
            if affine > 0 {
                y = d.op("y1", "Mul", &[y, w], vec![]);
            }
            if affine > 1 {
                y = d.op("y2", "Add", &[y, b], vec![]);
            }
            let (_, after, report) = d.check("norms", vec![y]);
            assert_eq!(after.len(), 1, "{after:#?} {:?}", report.misses);
            assert!(after[0].contains("= GroupNormalization(%x, "), "{after:#?}");
        }
    }
    // Cut across the images.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 6, 4, 5]);
    let (cut, back) = (d.ints("cut", &[4, 3, -1]), d.ints("back", &[2, 6, 4, 5]));
    let (one, zero) = (d.constant("one", &[3], 1.0, 1.0), d.constant("zero", &[3], 0.0, 0.0));
    let r = d.op("r", "Reshape", &[x, cut], vec![]);
    let n = d.op("n", "InstanceNormalization", &[r, one, zero], vec![]);
    let y = d.op("y", "Reshape", &[n, back], vec![]);
    let (before, after, report) = d.check("norms", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("not cut along the channels"), "{:?}", report.misses);
}

fn cast(d: &mut Draft, name: &str, x: ValueId, to: DType) -> ValueId {
    d.op(name, "Cast", &[x], vec![("to", Attr::Int(to as i64))])
}

/// Rows of a narrow type, normalised in f32 with a scale, between casts.
fn between_casts(dtype: DType, scale: &[f32]) -> (Vec<String>, Vec<String>, PassReport) {
    let mut d = Draft::new();
    let x = d.input_of(dtype, "x", &[3, 8]);
    let wide = cast(&mut d, "wide", x, DType::F32);
    let w = d.b.constant("w", Tensor::from_slice(&[8], scale).unwrap());
    let n = d.op("n", "LayerNormalization", &[wide, w], vec![]);
    let y = cast(&mut d, "y", n, dtype);
    d.check_within(0.0, "narrow", vec![y])
}

/// The kernel widens and rounds by itself, to the same bits.
#[test]
pub fn narrow_rows_need_no_casts() {
    for dtype in [DType::F16, DType::BF16] {
        let (_, after, report) = between_casts(dtype, &[1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75]);
        assert_eq!(after, ["y = LayerNormalization(%x, #w)"], "{:?}", report.misses);
        let mut d = Draft::new();
        let x = d.input_of(dtype, "x", &[3, 8]);
        let wide = cast(&mut d, "wide", x, DType::F32);
        let n = d.op("n", "Softmax", &[wide], vec![]);
        let y = cast(&mut d, "y", n, dtype);
        let (_, after, report) = d.check_within(0.0, "narrow", vec![y]);
        assert_eq!(after, ["y = Softmax(%x)"], "{:?}", report.misses);
    }
}

/// A scale that would be rounded.
#[test]
pub fn rows_that_do_not_fit_keep_their_casts() {
    for dtype in [DType::F16, DType::BF16] {
        let (before, after, report) = between_casts(dtype, &[0.1; 8]);
        assert_eq!(before, after);
        assert!(report.misses[0].contains("CheckFailed: ") && report.misses[0].contains("without rounding"));
    }
}

#[test]
pub(super) fn what_is_nearly_a_norm_stays() {
    // Neither the last axes nor one, nor the places of pictures.
    let mut d = Draft::new();
    d.ints("axes[0, 1]", &[0, 1]);
    let x = d.input("x", &[2, 3, 8]);
    let (c, root) = centred(&mut d, x, &[0, 1]);
    let y = d.op("y", "Div", &[c, root], vec![]);
    let (before, after, report) = d.check("norms", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("are not the last"), "{:?}", report.misses);

    // A deviation that is asked for.
    let mut d = Draft::new();
    d.ints("axes[-1]", &[-1]);
    let x = d.input("x", &[2, 3, 8]);
    let (c, root) = centred(&mut d, x, &[-1]);
    let y = d.op("y", "Div", &[c, root], vec![]);
    let (before, after, report) = d.check("norms", vec![y, root]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("other users"), "{:?}", report.misses);
}

#[test]
fn an_epsilon_of_f64_stays_one() {
    for (epsilon, fused) in [(1e-3, false), (f64::from(1e-3f32), true)] {
        let mut d = Draft::new();
        let axes = d.ints("axes", &[-1]);
        d.inputs.push(Value::Tensor(random(DType::F64, &[3, 8], -0.1, 0.1, 1).unwrap()));
        let x = d.b.input("x", Fact::sized(DType::F64, &[3, 8]));
        let eps = d.b.constant("epsilon", Tensor::scalar(epsilon).unwrap());
        let s = d.op("s", "Mul", &[x, x], vec![]);
        let m = d.op("m", "ReduceMean", &[s, axes], vec![]);
        let v = d.op("v", "Add", &[m, eps], vec![]);
        let r = d.op("r", "Sqrt", &[v], vec![]);
        let y = d.op("y", "Div", &[x, r], vec![]);
        // Sums of eight, a root, a quotient: some tens of f64's roundings.
        let (_, after, report) = d.check_within(1e-14, "norms", vec![y]);
        assert_eq!(report.fired, usize::from(fused), "{after:?}");
        assert_eq!(report.misses.is_empty(), fused);
    }
}
