//! Matrix products and what they take in.

use super::*;
use ortx::base::parallel::Serial;

fn linear(d: &mut Draft, name: &str, x: ValueId) -> ValueId {
    let (w, c) = (d.constant("w", &[4, 6], -1.0, 1.0), d.constant("c", &[6], -1.0, 1.0));
    d.op(name, "Gemm", &[x, w, c], vec![])
}

#[test]
pub(super) fn matmul_takes_a_residual_and_an_activation() {
    let mut d = Draft::new();
    let (x, r) = (d.input("x", &[5, 4]), d.input("r", &[5, 6]));
    let m = linear(&mut d, "m", x);
    let s = d.op("s", "Add", &[r, m], vec![]);
    let y = d.op("y", "Gelu", &[s], vec![]);
    let (before, after, report) = d.check("matmul_epilogue", vec![y]);
    assert_eq!(before, ["m = Gemm(%x, #w, #c)", "s = Add(%r, %m)", "y = Gelu(%s)"]);
    assert_eq!(after, ["y = Gemm(%x, #w, #c, %r)"]);
    assert_eq!(report.fired, 2);
}

#[test]
fn matmul_of_stacks_takes_a_residual() {
    let mut d = Draft::new();
    let (x, z, r) = (d.input("x", &[2, 3, 5, 4]), d.input("z", &[2, 1, 4, 6]), d.input("r", &[2, 3, 5, 6]));
    let m = d.op("m", "MatMul", &[x, z], vec![]);
    let y = d.op("y", "Add", &[m, r], vec![]);
    let (_, after, _) = d.check("matmul_epilogue", vec![y]);
    assert_eq!(after, ["y = MatMul(%x, %z, _, %r)"]);
}

#[test]
fn matmul_reads_turned_operands_and_scales() {
    let mut d = Draft::new();
    let (x, z) = (d.input("x", &[2, 5, 4]), d.input("z", &[2, 6, 4]));
    let t = d.op("t", "Transpose", &[z], vec![("perm", ints(&[0, 2, 1]))]);
    let k = d.number(0.3);
    let m = d.op("m", "MatMul", &[x, t], vec![]);
    let y = d.op("y", "Mul", &[m, k], vec![]);
    let (before, after, report) = d.check("matmul_epilogue", vec![y]);
    assert_eq!(before.len(), 3);
    assert_eq!(after, ["y = MatMul(%x, %z)"]);
    assert_eq!(report.fired, 2);
}

/// The number may stand before the product, on either side.
#[test]
fn matmul_reads_scaled_operands() {
    let mut d = Draft::new();
    let (x, z, k) = (d.input("x", &[2, 5, 4]), d.input("z", &[2, 4, 6]), d.number(0.3));
    let (xs, zs) = (d.op("xs", "Mul", &[k, x], vec![]), d.op("zs", "Div", &[z, k], vec![]));
    let y = d.op("y", "MatMul", &[xs, zs], vec![]);
    let (before, after, _) = d.check("matmul_epilogue", vec![y]);
    assert_eq!(before.len(), 3);
    assert_eq!(after, ["y = MatMul(%x, %z)"]);
}

/// Rows that are cut up or laid together between the product and what is done to its result.
#[test]
fn matmul_sees_through_reshapes() {
    let mut d = Draft::new();
    let (x, r) = (d.input("x", &[6, 4]), d.input("r", &[1, 6, 6]));
    let m = linear(&mut d, "m", x);
    let (a, b) = (d.ints("a", &[6, 1, 6]), d.ints("b", &[1, 6, 6]));
    let m = d.op("ma", "Reshape", &[m, a], vec![]);
    let m = d.op("mb", "Reshape", &[m, b], vec![]);
    let s = d.op("s", "Add", &[m, r], vec![]);
    let y = d.op("y", "Relu", &[s], vec![]);
    let (before, after, report) = d.check("matmul_epilogue", vec![y, r]);
    assert_eq!(before.len(), 5);
    let wanted = ["r.axes = Reshape(%r, #r.axes.shape)", "m = Gemm(%x, #w, #c, %r.axes)", "ma = Reshape(%m, #a)"];
    assert_eq!(after[..3], wanted, "{:?}", report.misses);
    assert_eq!(after[3..], ["y = Reshape(%ma, #b)"]);

    // Rows that a view puts into one axis, and another takes apart.
    let flattened = |own: &[i64]| {
        let mut d = Draft::new();
        let (x, flat) = (d.input("x", &[2, 3, 4]), d.ints("flat", &[-1, 4]));
        let f = d.op("f", "Reshape", &[x, flat], vec![]);
        let m = linear(&mut d, "m", f);
        let own = d.ints("own", own);
        let y = d.op("y", "Reshape", &[m, own], vec![]);
        (d, m, y)
    };
    // Rows that are laid together for the product alone.
    for (own, after) in [
        (&[2, 3, 6], &["y = MatMul(%x, #w, #c)"][..]),
        (&[6, 1, 6], &["x.axes = Reshape(%x, #x.axes.shape)", "y = MatMul(%x.axes, #w, #c)"]),
    ] {
        let (d, _, y) = flattened(own);
        let (before, left, _) = d.check("matmul_epilogue", vec![y]);
        assert_eq!(before.len(), 3);
        assert_eq!(left, after);
    }
    // The view cuts the columns up; others read the rows as one axis.
    for (own, read) in [(&[2, 9, 2], false), (&[2, 3, 6], true)] {
        let (d, m, y) = flattened(own);
        let (before, after, _) = d.check("matmul_epilogue", if read { vec![y, m] } else { vec![y] });
        assert_eq!(before, after);
    }

    // A row of constants.
    let mut d = Draft::new();
    let (x, w) = (d.input("x", &[6, 4]), d.constant("w", &[4, 6], -1.0, 1.0));
    let (c, a) = (d.constant("c", &[1, 1, 6], -1.0, 1.0), d.ints("a", &[2, 3, 6]));
    let m = d.op("m", "MatMul", &[x, w], vec![]);
    let m = d.op("ma", "Reshape", &[m, a], vec![]);
    let y = d.op("y", "Add", &[c, m], vec![]);
    let (_, after, report) = d.check("matmul_bias", vec![y]);
    assert_eq!(after, ["m = MatMul(%x, #w, #c)", "y = Reshape(%m, #a)"], "{:?}", report.misses);
}

/// The rows have names: one of them may be open.
#[test]
fn matmul_takes_residuals_of_named_rows() {
    for laid_together in [false, true] {
        let mut d = Draft::new();
        let r = d.named_input("r", &["batch", "seq", ""], &[2, 3, 6]);
        let x = if laid_together {
            let (x, flat) = (d.named_input("x", &["batch", "seq", ""], &[2, 3, 4]), d.ints("flat", &[-1, 4]));
            d.op("xf", "Reshape", &[x, flat], vec![])
        } else {
            d.named_input("x", &["tokens", ""], &[6, 4])
        };
        let m = linear(&mut d, "m", x);
        let shape = d.op("shape", "Shape", &[r], vec![]);
        let m = d.op("ma", "Reshape", &[m, shape], vec![]);
        let y = d.op("y", "Add", &[m, r], vec![]);
        let (_, after, report) = d.check("matmul_epilogue", vec![y]);
        let wanted = if laid_together { "y = MatMul(%x, #w, #c, %r)" } else { "m = Gemm(%x, #w, #c, %r.axes)" };
        assert!(after.contains(&wanted.to_string()), "{after:#?} {:?}", report.misses);
        assert!(!after.iter().any(|l| l.contains("Add")), "{after:#?}");
    }
}

/// What an activation was applied to takes no bias any more.
#[test]
fn matmul_adds_no_bias_behind_an_activation() {
    let mut d = Draft::new();
    let (x, w) = (d.input("x", &[6, 4]), d.constant("w", &[4, 6], -1.0, 1.0));
    let c = d.constant("c", &[6], -1.0, 1.0);
    let m = d.op("m", "MatMul", &[x, w], vec![]);
    let m = d.op("a", "Relu", &[m], vec![]);
    let y = d.op("y", "Add", &[c, m], vec![]);
    let before = d.b.finish(vec![y]).unwrap();
    let mut after = before.clone();
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    let reports = optimize(&mut after, &cpu, &Serial, &Options::default()).unwrap();
    let bias = reports.iter().find(|r| r.pass == "matmul_bias").unwrap();
    assert!(bias.misses.iter().any(|m| m.contains("an activation")), "{:?}", bias.misses);
    let run = |g: &Graph| run_graph(g.clone(), cpu_at(Isa::detect()), &d.inputs).unwrap();
    close(&run(&before)[0], &run(&after)[0], 1e-5, 1e-5).unwrap();
}

#[test]
pub(super) fn matmul_leaves_what_is_broadcast_or_used_twice() {
    let mut d = Draft::new();
    let (x, r) = (d.input("x", &[5, 4]), d.input("r", &[5, 1]));
    let m = linear(&mut d, "m", x);
    let y = d.op("y", "Add", &[r, m], vec![]);
    let (before, after, report) = d.check("matmul_epilogue", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("shape"), "{:?}", report.misses);

    let mut d = Draft::new();
    let x = d.input("x", &[5, 4]);
    let m = linear(&mut d, "m", x);
    let y = d.op("y", "Relu", &[m], vec![]);
    let (before, after, _) = d.check("matmul_epilogue", vec![y, m]);
    assert_eq!(before, after);
}

/// Queries, keys and values; and one that reads what another made, which cannot be of the same step.
#[test]
pub fn products_of_one_operand_are_one_step() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["batch", "rows", ""], &[2, 5, 4]);
    let [a, b, c] = [("a", 6), ("b", 6), ("c", 3)].map(|(n, width)| {
        let w = d.constant(&format!("w{n}"), &[4, width], -1.0, 1.0);
        d.op(n, "MatMul", &[x, w], vec![])
    });
    let y = d.op("y", "Add", &[a, b], vec![]);
    let (_, after, report) = d.check("products", vec![y, c]);
    assert_eq!(after, ["a = Products(%x, #wa, _, _, #wb, _, _, #wc)", "y = Add(%a, %b)"], "{:?}", report.misses);
    assert_eq!(report.fired, 1);
}

#[test]
pub fn products_of_other_kinds_stay_apart() {
    // The right operand is no constant.
    let mut d = Draft::new();
    let (x, z) = (d.input("x", &[5, 4]), d.input("z", &[4, 6]));
    let a = linear(&mut d, "a", x);
    let b = d.op("b", "MatMul", &[x, z], vec![]);
    let (before, after, report) = d.check("products", vec![a, b]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("CheckFailed: ") && report.misses[0].contains("not constant"));

    // What one adds is made from the other.
    let mut d = Draft::new();
    let (x, v) = (d.input("x", &[5, 4]), d.constant("v", &[4, 6], -1.0, 1.0));
    let a = linear(&mut d, "a", x);
    let r = d.op("r", "Relu", &[a], vec![]);
    let b = d.op("b", "Gemm", &[x, v, r], vec![]);
    let (before, after, report) = d.check("products", vec![b]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("another product"), "{:?}", report.misses);
}

/// With everything that a product takes in, and after a product whose weights are shared.
#[test]
fn joined_products_keep_what_they_took_in() {
    let mut d = Draft::new();
    let (x, r) = (d.input("x", &[1, 4]), d.input("r", &[1, 6]));
    let g = linear(&mut d, "g", x);
    let g = d.op("gr", "Add", &[g, r], vec![]);
    let g = d.op("ga", "Relu", &[g], vec![]);
    let w = d.constant("v", &[6, 4], -1.0, 1.0);
    let u = d.op("u", "Gemm", &[x, w], vec![("transB", Attr::Int(1))]);
    let y = d.op("y", "Mul", &[g, u], vec![]);
    let before = d.b.finish(vec![y]).unwrap();
    let mut after = before.clone();
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    optimize(&mut after, &cpu, &Serial, &Options::default()).unwrap();
    assert_eq!(lines(&after)[0], "ga = Products(%x, #w, #c, %r, #v)");
    for isa in Isa::detect().levels() {
        let run = |g: &Graph| run_graph(g.clone(), cpu_at(isa), &d.inputs).unwrap();
        close(&run(&before)[0], &run(&after)[0], 1e-5, 1e-5).unwrap();
    }
}
