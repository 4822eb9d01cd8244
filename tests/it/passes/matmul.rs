//! Matrix products and what they take in.

use super::*;

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
