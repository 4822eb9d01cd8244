//! Sums of integer products that are made floats.

use super::*;

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
