//! Sums of integer products that are made floats.

use super::*;
use ortx::ops::quant::DynamicQuantize;
use std::sync::Arc;

/// `float(A * B) * (scale of A * scales of B)`, whose scales have these shapes.
fn product(d: &mut Draft, a: &[usize], b: &[usize]) -> ValueId {
    let x = d.input_of(DType::I8, "x", &[2, 5, 8]);
    let w = d.b.constant("w", random(DType::I8, &[8, 6], -100.0, 100.0, 3).unwrap());
    let [za, zb] = [("za", 3i8), ("zb", -2)].map(|(n, z)| d.b.constant(n, Tensor::scalar(z).unwrap()));
    let (sa, sb) = (d.input("sa", a), d.constant("sb", b, 0.01, 0.02));
    let p = d.op("p", "MatMulInteger", &[x, w, za, zb], vec![]);
    let f = d.op("f", "Cast", &[p], vec![("to", Attr::Int(1))]);
    let s = d.op("s", "Mul", &[sa, sb], vec![]);
    d.op("m", "Mul", &[f, s], vec![])
}

#[test]
pub fn sums_are_scaled_by_the_product() {
    for columns in [&[][..], &[6]] {
        let mut d = Draft::new();
        let m = product(&mut d, &[], columns);
        let c = d.constant("c", &[6], -1.0, 1.0);
        let y = d.op("y", "Add", &[c, m], vec![]);
        let (before, after, report) = d.check("integer_products", vec![y]);
        assert_eq!(before.len(), 5);
        assert_eq!(after, ["y = MatMulIntegerToFloat(%x, #w, %sa, #sb, #za, #zb, #c)"], "{:?}", report.misses);
        assert_eq!(report.fired, 2);
    }
}

#[test]
pub fn what_scales_rows_stays() {
    let mut d = Draft::new();
    let y = product(&mut d, &[5, 1], &[6]);
    let (before, after, report) = d.check("integer_products", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("CheckFailed: ") && report.misses[0].contains("one a column"));

    // An addend for each row.
    let mut d = Draft::new();
    let (m, r) = (product(&mut d, &[], &[6]), d.input("r", &[5, 1]));
    let y = d.op("y", "Add", &[m, r], vec![]);
    let (_, after, report) = d.check("integer_products", vec![y]);
    assert_eq!(after.len(), 2);
    assert!(report.misses[0].contains("one constant a column"), "{:?}", report.misses);
}

/// Floats that are quantised for one product alone; or for another, too.
#[test]
fn a_product_quantises_what_it_multiplies() {
    for shared in [false, true] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 5, 8]);
        let w = d.b.constant("w", random(DType::I8, &[8, 6], -100.0, 100.0, 3).unwrap());
        let (zb, sb) = (d.b.constant("zb", Tensor::scalar(-2i8).unwrap()), d.constant("sb", &[6], 0.01, 0.02));
        let made = d.b.node("q", Arc::new(DynamicQuantize), vec![Some(x)], &["q", "s", "z"].map(Some)).unwrap();
        let [q, s, z] = [0, 1, 2].map(|i| made[i].unwrap());
        let p = d.op("p", "MatMulInteger", &[q, w, z, zb], vec![]);
        let f = d.op("f", "Cast", &[p], vec![("to", Attr::Int(1))]);
        let s = d.op("ss", "Mul", &[s, sb], vec![]);
        let y = d.op("m", "Mul", &[f, s], vec![]);
        let outputs = if shared { vec![y, q] } else { vec![y] };
        let (_, after, report) = d.check("integer_products", outputs);
        let want = if shared { "m = MatMulIntegerToFloat(%q" } else { "m = DynamicQuantizeMatMul(%x, #w, #sb, #zb" };
        assert!(after.last().unwrap().starts_with(want), "{after:?} {:?}", report.misses);
        assert_eq!(after.len(), if shared { 2 } else { 1 }, "{after:?}");
    }
}
