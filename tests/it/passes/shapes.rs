//! Shapes that are computed from axes, and Einsum.

use super::*;

/// One size of a value, as a list.
fn size(d: &mut Draft, name: &str, x: ValueId, axis: i64) -> ValueId {
    let (at, zero) = (d.b.constant(name, Tensor::scalar(axis).unwrap()), d.ints("zero", &[0]));
    let s = d.op(&format!("{name}.shape"), "Shape", &[x], vec![]);
    let n = d.op(&format!("{name}.size"), "Gather", &[s, at], vec![]);
    d.op(&format!("{name}.list"), "Unsqueeze", &[n, zero], vec![])
}

/// `x.view(x.shape[0], -1, 32)` of torch, where another value has been asked for the size.
#[test]
pub(super) fn shapes_that_copy_axes_are_constants() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["batch", "rows", "", ""], &[2, 5, 4, 8]);
    let e = d.op("e", "Exp", &[x], vec![]);
    let (n, rest, width) = (size(&mut d, "n", e, 0), d.ints("rest", &[-1]), d.ints("width", &[32]));
    let shape = d.op("shape", "Concat", &[n, rest, width], vec![("axis", Attr::Int(0))]);
    let y = d.op("y", "Reshape", &[e, shape], vec![]);
    let (before, after, report) = d.check("shapes", vec![y]);
    assert_eq!(before.len(), 6);
    assert_eq!(after, ["e = Exp(%x)", "y = Reshape(%e, #shape.copied)"], "{:?}", report.misses);

    // The product of all sizes but the last, as tf2onnx has it.
    let mut d = Draft::new();
    let x = d.named_input("x", &["batch", "", ""], &[2, 4, 8]);
    let s = d.op("s", "Shape", &[x], vec![]);
    let (front, eight) = (d.ints("front", &[0, 1]), d.ints("eight", &[8]));
    let front = d.op("g", "Gather", &[s, front], vec![]);
    let n = d.op("n", "ReduceProd", &[front], vec![("keepdims", Attr::Int(1))]);
    let shape = d.op("shape", "Concat", &[n, eight], vec![("axis", Attr::Int(0))]);
    let y = d.op("y", "Reshape", &[x, shape], vec![]);
    let (_, after, _) = d.check("shapes", vec![y]);
    assert_eq!(after, ["y = Reshape(%x, #shape.copied)"]);
}

/// Two sizes that stand elsewhere: which is asked of the input, and nothing more.
#[test]
pub(super) fn shapes_that_move_axes_stay() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["batch", "rows", ""], &[2, 5, 8]);
    let e = d.op("e", "Transpose", &[x], vec![("perm", ints(&[1, 0, 2]))]);
    let (n, rows, width) = (size(&mut d, "n", e, 1), size(&mut d, "rows", e, 0), d.ints("width", &[8]));
    let shape = d.op("shape", "Concat", &[n, rows, width], vec![("axis", Attr::Int(0))]);
    let y = d.op("y", "Reshape", &[e, shape], vec![]);
    let (before, after, report) = d.check("shapes", vec![y]);
    assert_eq!(report.fired, 2);
    assert_eq!(before.len(), after.len());
    assert!(after.iter().any(|l| l == "y = Reshape(%e, %shape)"), "{after:#?}");
    assert!(!after.iter().any(|l| l.contains("Shape(%e)")), "{after:#?}");
}

/// `x[:, -n:]` is all of x where it has n rows.
#[test]
fn a_start_counted_from_the_end() {
    for later in [0, 1] {
        let mut d = Draft::new();
        let x = d.named_input("x", &["batch", "rows", ""], &[2, 5, 8]);
        let n = size(&mut d, "n", x, 1);
        let mut start = d.op("start", "Neg", &[n], vec![]);
        if later > 0 {
            let one = d.ints("one", &[later]);
            start = d.op("later", "Add", &[start, one], vec![]);
        }
        let (end, axis) = (d.ints("end", &[i64::MAX]), d.ints("axis", &[1]));
        let s = d.op("s", "Slice", &[x, start, end, axis], vec![]);
        let y = d.op("y", "Exp", &[s], vec![]);
        let (before, after, _) = d.check("algebra", vec![y]);
        match later {
            0 => assert_eq!(after, ["y = Exp(%x)"]),
            _ => assert_eq!(before, after),
        }
    }
}

/// Sizes cut from a shape, in their order or backwards, are those sizes.
#[test]
fn sizes_that_are_sliced() {
    for [from, to, step] in [[-3, i64::MAX, 1], [-1, -4, -1]] {
        let mut d = Draft::new();
        let x = d.named_input("x", &["batch", "rows", ""], &[2, 5, 8]);
        let sizes = d.op("sizes", "Shape", &[x], vec![]);
        let [from, to, axis, by] =
            [("from", from), ("to", to), ("axis", 0), ("by", step)].map(|(n, i)| d.ints(n, &[i]));
        let shape = d.op("shape", "Slice", &[sizes, from, to, axis, by], vec![]);
        let order = if step > 0 { [0, 1, 2] } else { [2, 1, 0] };
        let t = d.op("t", "Transpose", &[x], vec![("perm", ints(&order))]);
        let y = d.op("y", "Reshape", &[t, shape], vec![]);
        let (_, after, _) = d.check("shapes", vec![y]);
        assert_eq!(after, ["t = Transpose(%x)", "y = Reshape(%t, #shape.copied)"]);
    }
}

/// Several sizes at once, and one that is computed: inputs have them.
#[test]
fn sizes_that_inputs_have_are_asked_of_them() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["batch", "rows", ""], &[2, 5, 8]);
    let e = d.op("e", "Transpose", &[x], vec![("perm", ints(&[1, 2, 0]))]);
    let s = d.op("s", "Shape", &[e], vec![]);
    let (rest, front, axis) = (d.ints("rest", &[-1]), d.ints("front", &[0, 1]), vec![("axis", Attr::Int(0))]);
    let front = d.op("g", "Gather", &[s, front], vec![]);
    let shape = d.op("shape", "Concat", &[front, rest], axis);
    let y = d.op("y", "Reshape", &[x, shape], vec![]);
    let (_, after, report) = d.check("shapes", vec![e, y]);
    assert_eq!(report.fired, 1, "{after:#?}");
    assert!(after.iter().any(|l| l == "g = Concat(%x.size, #size)"), "{after:#?}");
    assert!(!after.iter().any(|l| l.contains("Shape(%e)")), "{after:#?}");

    let mut d = Draft::new();
    let x = d.named_input("x", &["batch", "", ""], &[2, 4, 8]);
    let (flat, four) = (d.ints("flat", &[-1, 8]), d.ints("four", &[4]));
    let e = d.op("e", "Reshape", &[x, flat], vec![]);
    let n = size(&mut d, "n", e, 0);
    let n = d.op("quarter", "Div", &[n, four], vec![]);
    let rest = d.ints("rest", &[8, -1]);
    let shape = d.op("shape", "Concat", &[rest, n], vec![("axis", Attr::Int(0))]);
    let y = d.op("y", "Reshape", &[x, shape], vec![]);
    let (_, after, _) = d.check("shapes", vec![y]);
    assert!(after.iter().any(|l| l == "quarter = Gather(%x.shape, #x.axis)"), "{after:#?}");
}

fn einsum(d: &mut Draft, name: &str, equation: &str, a: ValueId, b: ValueId) -> ValueId {
    d.op(name, "Einsum", &[a, b], vec![("equation", Attr::String(equation.into()))])
}

#[test]
pub(super) fn einsum_of_two_is_a_product() {
    for (equation, a, b, after) in [
        ("bhid,bhjd->bhij", &[2, 3, 5, 4][..], &[2, 3, 6, 4][..], &["Transpose(%b)", "MatMul(%a, %b.ordered)"][..]),
        (
            "bhij,bjhd->bihd",
            &[2, 3, 5, 4],
            &[2, 4, 3, 6],
            &["Transpose(%b)", "MatMul(%a, %b.ordered)", "Transpose(%y.product)"],
        ),
        (
            "aecd,abcd->acbe",
            &[2, 5, 3, 4],
            &[2, 6, 3, 4],
            &["Transpose(%b)", "Transpose(%a)", "MatMul(%b.ordered, %a.ordered)"],
        ),
        ("abc,cde->abde", &[2, 3, 4], &[4, 3, 2], &["Reshape", "MatMul", "Reshape"]),
        ("abde,dec->abc", &[2, 3, 4, 5], &[4, 5, 6], &["Reshape", "Reshape", "MatMul"]),
        ("ij,jk", &[2, 3], &[3, 4], &["MatMul(%a, %b)"]),
    ] {
        let mut d = Draft::new();
        let (a, b) = (d.input("a", a), d.input("b", b));
        let y = einsum(&mut d, "y", equation, a, b);
        let (_, lines, report) = d.check("einsum", vec![y]);
        assert_eq!(lines.len(), after.len(), "{equation}: {lines:#?} {:?}", report.misses);
        for (line, part) in lines.iter().zip(after) {
            assert!(line.contains(part), "{equation}: {lines:#?}");
        }
    }
}

/// A diagonal, a sum of one operand alone, batches with several axes, an axis that is repeated.
#[test]
pub(super) fn einsum_that_is_no_product_stays() {
    for (equation, a, b) in [
        ("ii,ij->j", &[3, 3][..], &[3, 4][..]),
        ("ijk,jl->il", &[2, 3, 4], &[3, 5]),
        ("bij,bj->bi", &[2, 3, 4], &[2, 4]),
        ("bij,bjk->bik", &[1, 3, 4], &[2, 4, 5]),
    ] {
        let mut d = Draft::new();
        let (a, b) = (d.input("a", a), d.input("b", b));
        let y = einsum(&mut d, "y", equation, a, b);
        let (before, after, _) = d.check("einsum", vec![y]);
        assert_eq!(before, after, "{equation}");
    }
}
