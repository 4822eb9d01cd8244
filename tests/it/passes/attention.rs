//! Attention that is written out.

use super::*;

/// `[batch, rows, heads * size]` as `[batch, heads, rows, size]`, or with the last two turned.
fn split_heads(d: &mut Draft, name: &str, x: ValueId, heads: i64, turned: bool) -> ValueId {
    let shape = d.ints(&format!("{name}.shape"), &[0, 0, heads, -1]);
    let r = d.op(&format!("{name}.r"), "Reshape", &[x, shape], vec![]);
    d.op(&format!("{name}.t"), "Transpose", &[r], perm(if turned { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] }))
}

fn merge_heads(d: &mut Draft, y: ValueId, width: i64) -> ValueId {
    let t = d.op("t", "Transpose", &[y], perm(&[0, 2, 1, 3]));
    let shape = d.ints("merged", &[0, 0, width]);
    d.op("y", "Reshape", &[t, shape], vec![])
}

#[test]
pub(super) fn bert_with_named_axes() {
    let mut d = Draft::new();
    let axes = ["batch", "seq", ""];
    let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &axes, &[2, 9, 24]));
    let m = d.named_input("m", &["batch", "", "", "seq"], &[2, 1, 1, 9]);
    let (q, k, v) = (split_heads(&mut d, "q", q, 3, false), split_heads(&mut d, "k", k, 3, true), {
        split_heads(&mut d, "v", v, 3, false)
    });
    let k8 = d.number(8f32.sqrt());
    let s = d.op("s", "MatMul", &[q, k], vec![]);
    let s = d.op("scaled", "Div", &[s, k8], vec![]);
    let s = d.op("masked", "Add", &[s, m], vec![]);
    let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
    let y = d.op("o", "MatMul", &[p, v], vec![]);
    let y = merge_heads(&mut d, y, 24);
    let (before, after, report) = d.check("attention", vec![y]);
    assert_eq!(before.len(), 13);
    assert_eq!(
        after,
        [
            "q.axes = Reshape(%q, #q.axes.shape)",
            "k.axes = Reshape(%k, #k.axes.shape)",
            "v.axes = Reshape(%v, #v.axes.shape)",
            "t = Attention(%q.axes, %k.axes, %v.axes, %m)",
            "y = Reshape(%t, #merged)"
        ],
        "{:?}",
        report.misses
    );
}

/// Batches and heads are one axis of the products (torch's bmm, Keras by tf2onnx): views tell them apart for the mask, or only
/// in the end; the values may be turned.
#[test]
fn batches_and_heads_in_one_axis() {
    for (masked, turned) in [(false, false), (true, false), (true, true)] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &["batch", "", "", ""], &[2, 5, 3, 8]));
        let m = d.named_input("m", &["batch", "", "", ""], &[2, 1, 5, 5]);
        let shape = |d: &mut Draft, name: &str, s: &[i64]| d.ints(name, s);
        let (rows, columns) = (shape(&mut d, "rows", &[-1, 5, 8]), shape(&mut d, "columns", &[-1, 8, 5]));
        let (square, flat) = (shape(&mut d, "square", &[-1, 3, 5, 5]), shape(&mut d, "flat", &[-1, 5, 5]));
        let of = |d: &mut Draft, name: &str, x: ValueId, order: &[i64], to: ValueId| {
            let t = d.op(&format!("{name}.t"), "Transpose", &[x], perm(order));
            d.op(&format!("{name}.flat"), "Reshape", &[t, to], vec![])
        };
        let (q, k) = (of(&mut d, "q", q, &[0, 2, 1, 3], rows), of(&mut d, "k", k, &[0, 2, 3, 1], columns));
        let v = match turned {
            false => of(&mut d, "v", v, &[0, 2, 1, 3], rows),
            true => {
                let v = of(&mut d, "v", v, &[0, 2, 3, 1], columns);
                d.op("v.back", "Transpose", &[v], perm(&[0, 2, 1]))
            }
        };
        let mut s = d.op("s", "MatMul", &[q, k], vec![]);
        if masked {
            s = d.op("cut", "Reshape", &[s, square], vec![]);
            s = d.op("masked", "Add", &[s, m], vec![]);
        }
        let mut p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
        if masked {
            p = d.op("p.flat", "Reshape", &[p, flat], vec![]);
        }
        let y = d.op("o", "MatMul", &[p, v], vec![]);
        let apart = shape(&mut d, "apart", &[-1, 3, 5, 8]);
        let y = d.op("o.heads", "Reshape", &[y, apart], vec![]);
        let y = d.op("y", "Transpose", &[y], perm(&[0, 2, 1, 3]));
        let (_, after, report) = d.check("attention", vec![y]);
        let mask = if masked { ", %m" } else { "" };
        assert_eq!(after, [format!("y = Attention(%q, %k, %v{mask})")], "{:?}", report.misses);
    }
    // The result's views cut otherwise than those of the mask.
    let mut d = Draft::new();
    let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &["batch", "", "", ""], &[2, 6, 5, 8]));
    let (m, rows) = (d.input("m", &[3, 5, 5]), d.ints("rows", &[-1, 5, 8]));
    let [q, k, v] = [q, k, v].map(|x| d.op(&format!("{x:?}"), "Reshape", &[x, rows], vec![]));
    let k = d.op("kt", "Transpose", &[k], perm(&[0, 2, 1]));
    let s = d.op("s", "MatMul", &[q, k], vec![]);
    let (cut, flat, apart) = (d.ints("cut", &[-1, 3, 5, 5]), d.ints("f", &[-1, 5, 5]), d.ints("a", &[-1, 6, 5, 8]));
    let s = d.op("cut4", "Reshape", &[s, cut], vec![]);
    let s = d.op("masked", "Add", &[s, m], vec![]);
    let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
    let p = d.op("p3", "Reshape", &[p, flat], vec![]);
    let y = d.op("o", "MatMul", &[p, v], vec![]);
    let y = d.op("y", "Reshape", &[y, apart], vec![]);
    let (before, after, report) = d.check("attention", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("otherwise than the result's"), "{:?}", report.misses);
}

/// OPT keeps masked scores above the lowest number.
#[test]
fn a_floor_below_masked_scores() {
    for (low, fused) in [(f32::MIN, true), (-10.0, false)] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 3, 5, 8]));
        let (m, low) = (d.input("m", &[2, 1, 5, 5]), d.number(low));
        let k = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
        let s = d.op("s", "MatMul", &[q, k], vec![]);
        let s = d.op("masked", "Add", &[s, m], vec![]);
        let s = d.op("kept", "Clip", &[s, low], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
        let y = d.op("y", "MatMul", &[p, v], vec![]);
        let (before, after, _) = d.check("attention", vec![y]);
        match fused {
            true => assert_eq!(after, ["y = Attention(%q, %k, %v, %m)"]),
            false => assert_eq!(before, after),
        }
    }
}

/// Scaled by the square root on both sides, as torch's own function is exported, and a causal triangle.
#[test]
fn scale_on_both_sides_and_a_triangle() {
    for added in [true, false] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 3, 5, 8]));
        let root = d.number(8f32.powf(-0.25));
        let qs = d.op("qs", "Mul", &[q, root], vec![]);
        let kt = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
        let ks = d.op("ks", "Mul", &[root, kt], vec![]);
        let mut s = d.op("s", "MatMul", &[qs, ks], vec![]);
        let low: Vec<f32> = (0..25).map(|i| if i % 5 <= i / 5 { 0.0 } else { f32::NEG_INFINITY }).collect();
        if added {
            let m = d.b.constant("m", Tensor::from_slice(&[1, 1, 5, 5], &low).unwrap());
            s = d.op("masked", "Add", &[s, m], vec![]);
        } else {
            let on: Vec<bool> = low.iter().map(|&x| x == 0.0).collect();
            let on =
                Tensor::from_bytes(DType::Bool, &[5, 5], on.iter().map(|&b| u8::from(b)).collect::<Vec<_>>().into());
            let (on, out) = (d.b.constant("on", on.unwrap()), d.number(-1e9));
            s = d.op("masked", "Where", &[on, s, out], vec![]);
        }
        let p = d.op("p", "Softmax", &[s], vec![]);
        let y = d.op("y", "MatMul", &[p, v], vec![]);
        let (_, after, report) = d.check("attention", vec![y]);
        assert_eq!(after, ["y = Attention(%q, %k, %v)"], "{:?}", report.misses);
    }
}

/// A packed product that is split, with a past: no step of movement is left.
#[test]
fn packed_with_a_past() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["batch", "seq", ""], &[2, 3, 48]);
    let pk = d.named_input("pk", &["batch", "", "past", ""], &[2, 2, 4, 8]);
    let pv = d.named_input("pv", &["batch", "", "past", ""], &[2, 2, 4, 8]);
    let m = d.named_input("m", &["batch", "", "seq", "total"], &[2, 1, 3, 7]);
    let parts = {
        let sizes = d.ints("sizes", &[16, 16, 16]);
        d.split("parts", x, sizes, 2, 3)
    };
    let [q, k, v] = [0, 1, 2].map(|i| split_heads(&mut d, ["q", "k", "v"][i], parts[i], 2, false));
    let nk = d.op("nk", "Concat", &[pk, k], vec![("axis", Attr::Int(2))]);
    let nv = d.op("nv", "Concat", &[pv, v], vec![("axis", Attr::Int(2))]);
    let kt = d.op("kt", "Transpose", &[nk], perm(&[0, 1, 3, 2]));
    let s = d.op("s", "MatMul", &[q, kt], vec![]);
    let s = d.op("masked", "Add", &[m, s], vec![]);
    let p = d.op("p", "Softmax", &[s], vec![]);
    let y = d.op("o", "MatMul", &[p, nv], vec![]);
    let y = merge_heads(&mut d, y, 16);
    let (_, after, report) = d.check("attention", vec![y, nk, nv]);
    assert_eq!(report.fired, 1, "{:?}", report.misses);
    assert!(
        !after.iter().any(|l| l.contains("Transpose") || l.contains("Split") || l.contains("Concat")),
        "{after:#?}"
    );
}

/// A bias made from the length of past and new keys: attention cannot join them, for the bias comes first.
#[test]
fn a_mask_that_needs_the_joined_keys() {
    let mut d = Draft::new();
    let q = d.named_input("q", &["", "", "seq", ""], &[1, 2, 3, 8]);
    let [pk, pv] = ["pk", "pv"].map(|n| d.named_input(n, &["", "", "past", ""], &[1, 2, 4, 8]));
    let [k, v] = ["k", "v"].map(|n| d.named_input(n, &["", "", "seq", ""], &[1, 2, 3, 8]));
    let nk = d.op("nk", "Concat", &[pk, k], vec![("axis", Attr::Int(2))]);
    let nv = d.op("nv", "Concat", &[pv, v], vec![("axis", Attr::Int(2))]);
    let bias = d.op("bias", "ReduceMean", &[nk], vec![]);
    let kt = d.op("kt", "Transpose", &[nk], perm(&[0, 1, 3, 2]));
    let s = d.op("s", "MatMul", &[q, kt], vec![]);
    let s = d.op("masked", "Add", &[s, bias], vec![]);
    let p = d.op("p", "Softmax", &[s], vec![]);
    let y = d.op("o", "MatMul", &[p, nv], vec![]);
    let (_, after, report) = d.check("attention", vec![y, nk, nv]);
    assert_eq!(report.fired, 1, "{:?}", report.misses);
    assert_eq!(after.iter().filter(|l| l.contains("Concat")).count(), 2, "{after:#?}");
}

/// Key heads shared by neighbouring query heads, written as Expand and Reshape.
#[test]
fn grouped_heads() {
    let mut d = Draft::new();
    let q = d.input("q", &[2, 6, 4, 8]);
    let [k, v] = ["k", "v"].map(|n| d.input(n, &[2, 2, 5, 8]));
    let (wide, flat) = (d.ints("wide", &[2, 2, 3, 5, 8]), d.ints("flat", &[2, 6, 5, 8]));
    let two = d.ints("two", &[2]);
    let mut repeat = |n: &str, x: ValueId| {
        let u = d.op(&format!("{n}.u"), "Unsqueeze", &[x, two], vec![]);
        let e = d.op(&format!("{n}.e"), "Expand", &[u, wide], vec![]);
        d.op(&format!("{n}.r"), "Reshape", &[e, flat], vec![])
    };
    let (k, v) = (repeat("k", k), repeat("v", v));
    let kt = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
    let s = d.op("s", "MatMul", &[q, kt], vec![]);
    let p = d.op("p", "Softmax", &[s], vec![]);
    let y = d.op("y", "MatMul", &[p, v], vec![]);
    let (_, after, report) = d.check("attention", vec![y]);
    assert_eq!(after.len(), 1, "{after:#?} {:?}", report.misses);
    assert!(after[0].starts_with("y = Attention(%q, %k, %v)"), "{after:#?}");
}

/// Rows before items, three axes, a bounded score, a test for NaN.
#[test]
fn rows_first_with_a_cap_and_a_guard() {
    let mut d = Draft::new();
    let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[5, 3, 8]));
    let mut heads = |n: &str, x: ValueId| d.op(&format!("{n}.t"), "Transpose", &[x], perm(&[1, 0, 2]));
    let (q, k, v) = (heads("q", q), heads("k", k), heads("v", v));
    let kt = d.op("kt", "Transpose", &[k], perm(&[0, 2, 1]));
    let (cap, zero) = (d.number(5.0), d.number(0.0));
    let s = d.op("s", "MatMul", &[q, kt], vec![]);
    let s = d.op("s1", "Div", &[s, cap], vec![]);
    let s = d.op("s2", "Tanh", &[s], vec![]);
    let s = d.op("s3", "Mul", &[s, cap], vec![]);
    let p = d.op("p", "Softmax", &[s], vec![]);
    let nan = d.op("nan", "IsNaN", &[p], vec![]);
    let p = d.op("safe", "Where", &[nan, zero, p], vec![]);
    let y = d.op("o", "MatMul", &[p, v], vec![]);
    let y = d.op("y", "Transpose", &[y], perm(&[1, 0, 2]));
    let (_, after, report) = d.check("attention", vec![y]);
    assert_eq!(after, ["y = Attention(%q, %k, %v)"], "{:?}", report.misses);
}

#[test]
pub(super) fn what_is_nearly_attention_stays() {
    type Change = fn(&mut Draft, ValueId, ValueId) -> (ValueId, Option<ValueId>);
    let cases: [(&str, Change); 4] = [
        ("before the scale", |d, s, m| {
            let k = d.number(0.5);
            let s = d.op("early", "Add", &[s, m], vec![]);
            let s = d.op("scaled", "Mul", &[s, k], vec![]);
            let s = d.op("masked", "Add", &[s, m], vec![]);
            (d.op("p", "Softmax", &[s], vec![]), None)
        }),
        ("more than one number", |d, s, m| {
            let [zero, a, b] = [0.0, -1e9, -1e6].map(|x| d.number(x));
            let on = d.op("on", "Greater", &[m, zero], vec![]);
            let off = d.op("off", "Less", &[m, zero], vec![]);
            let s = d.op("m1", "Where", &[on, s, a], vec![]);
            let s = d.op("m2", "Where", &[off, s, b], vec![]);
            (d.op("p", "Softmax", &[s], vec![]), None)
        }),
        ("other users", |d, s, _| {
            let p = d.op("p", "Softmax", &[s], vec![]);
            (p, Some(s))
        }),
        ("before the scale", |d, s, m| {
            let k = d.number(0.5);
            let s = d.op("masked", "Add", &[s, m], vec![]);
            let s = d.op("scaled", "Mul", &[s, k], vec![]);
            (d.op("p", "Softmax", &[s], vec![]), None)
        }),
    ];
    for (why, change) in cases {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 3, 5, 8]));
        let m = d.input("m", &[2, 1, 5, 5]);
        let kt = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
        let s = d.op("s", "MatMul", &[q, kt], vec![]);
        let (p, also) = change(&mut d, s, m);
        let y = d.op("y", "MatMul", &[p, v], vec![]);
        let (before, after, report) = d.check("attention", [Some(y), also].into_iter().flatten().collect());
        assert_eq!(before, after, "{why}");
        assert!(report.misses[0].contains(why), "{:?}", report.misses);
    }
}

/// Triangles of whatever size the run has: Trilu, comparisons of ranges, a part of a constant.
#[test]
fn triangles_computed_at_run_time() {
    type Mask = fn(&mut Draft, ValueId, ValueId) -> ValueId;
    let masks: [(&str, Mask); 4] = [
        ("where not tril(ones): -inf", |d, s, n| {
            let two = d.op("nn", "Concat", &[n, n], vec![("axis", Attr::Int(0))]);
            let ones = d.op("ones", "ConstantOfShape", &[two], vec![("value", one_of(1.0))]);
            let tri = d.op("tri", "Trilu", &[ones], vec![("upper", Attr::Int(0))]);
            let (zero, low) = (d.number(0.0), d.number(f32::NEG_INFINITY));
            let out = d.op("out", "Equal", &[tri, zero], vec![]);
            let m = d.op("m", "Where", &[out, low, zero], vec![]);
            d.op("masked", "Add", &[s, m], vec![])
        }),
        ("triu(full(min), 1)", |d, s, n| {
            let two = d.op("nn", "Concat", &[n, n], vec![("axis", Attr::Int(0))]);
            let low = d.op("low", "ConstantOfShape", &[two], vec![("value", one_of(f32::MIN))]);
            let k = d.b.constant("k", Tensor::scalar(1i64).unwrap());
            let tri = d.op("tri", "Trilu", &[low, k], vec![]);
            let axes = d.ints("lead", &[0, 1]);
            let m = d.op("m", "Unsqueeze", &[tri, axes], vec![]);
            d.op("masked", "Add", &[m, s], vec![])
        }),
        ("key <= row", |d, s, n| {
            let r = range_of(d, n);
            let (keys, rows) = (d.ints("keys", &[0, 1, 2]), d.ints("rows", &[0, 1, 3]));
            let keys = d.op("j", "Unsqueeze", &[r, keys], vec![]);
            let rows = d.op("i", "Unsqueeze", &[r, rows], vec![]);
            let on = d.op("on", "LessOrEqual", &[keys, rows], vec![]);
            let low = d.number(-1e9);
            d.op("masked", "Where", &[on, s, low], vec![])
        }),
        ("a part of a constant, which is taken away where false", |d, s, n| {
            let all: Vec<u8> = (0..64).map(|i| u8::from(i % 8 <= i / 8)).collect();
            let all = Tensor::from_bytes(DType::Bool, &[1, 1, 8, 8], all.into()).unwrap();
            let all = d.b.constant("all", all);
            let (zero, one) = (d.ints("zero", &[0]), d.ints("one", &[1]));
            let start = d.op("start", "Sub", &[n, n], vec![]);
            let two = d.ints("two", &[2]);
            let rows = d.op("part", "Slice", &[all, start, n, two, one], vec![]);
            let three = d.ints("three", &[3]);
            let on = d.op("on", "Slice", &[rows, zero, n, three, one], vec![]);
            let low = d.number(f32::MIN);
            d.op("masked", "Where", &[on, s, low], vec![])
        }),
    ];
    for (name, mask) in masks {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &["", "", "seq", ""], &[2, 3, 5, 8]));
        let shape = d.op("shape", "Shape", &[q], vec![("start", Attr::Int(2)), ("end", Attr::Int(3))]);
        let kt = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
        let s = d.op("s", "MatMul", &[q, kt], vec![]);
        let s = mask(&mut d, s, shape);
        let p = d.op("p", "Softmax", &[s], vec![]);
        let y = d.op("y", "MatMul", &[p, v], vec![]);
        let (_, after, report) = d.check("attention", vec![y]);
        assert_eq!(after, ["y = Attention(%q, %k, %v)"], "{name}: {:?}", report.misses);
    }
}

/// A tensor of one element.
fn one_of(x: f32) -> Attr {
    Attr::Tensor(Tensor::from_slice(&[1], &[x]).unwrap())
}

/// 0, 1 and so on, as many as a list of one says.
fn range_of(d: &mut Draft, n: ValueId) -> ValueId {
    let [zero, one] = [0i64, 1].map(|x| d.b.constant(&format!("from{x}"), Tensor::scalar(x).unwrap()));
    let axis = d.ints("first", &[0]);
    let n = d.op("n", "Squeeze", &[n, axis], vec![]);
    d.op("r", "Range", &[zero, n, one], vec![])
}

/// Rows after a past: the triangle begins where the past ends. One that does not is a mask like others.
#[test]
fn triangles_after_a_past() {
    for right in [true, false] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &["", "", "seq", ""], &[2, 2, 3, 8]));
        let [pk, pv] = ["pk", "pv"].map(|n| d.named_input(n, &["", "", "past", ""], &[2, 2, 4, 8]));
        let length = |d: &mut Draft, name: &str, x: ValueId| {
            d.op(name, "Shape", &[x], vec![("start", Attr::Int(2)), ("end", Attr::Int(3))])
        };
        let (seq, past) = (length(&mut d, "seq", q), length(&mut d, "past", pk));
        let (zero, one, first) = (d.ints("zero", &[0]), d.ints("one", &[1]), d.ints("first", &[0]));
        let total = d.op("total", "Add", &[past, seq], vec![]);
        let flat = |d: &mut Draft, name: &str, x: ValueId| d.op(name, "Squeeze", &[x, first], vec![]);
        let from = if right { past } else { seq };
        let upto = d.op("upto", "Add", &[from, seq], vec![]);
        let [zero, one, from, upto, total] =
            [("z", zero), ("o", one), ("f", from), ("u", upto), ("t", total)].map(|(n, x)| flat(&mut d, n, x));
        let rows = d.op("rows", "Range", &[from, upto, one], vec![]);
        let column = d.ints("column", &[-1, 1]);
        let rows = d.op("i", "Reshape", &[rows, column], vec![]);
        let keys = d.op("j", "Range", &[zero, total, one], vec![]);
        let out = d.op("out", "Greater", &[keys, rows], vec![]);
        let nk = d.op("nk", "Concat", &[pk, k], vec![("axis", Attr::Int(2))]);
        let nv = d.op("nv", "Concat", &[pv, v], vec![("axis", Attr::Int(2))]);
        let kt = d.op("kt", "Transpose", &[nk], perm(&[0, 1, 3, 2]));
        let s = d.op("s", "MatMul", &[q, kt], vec![]);
        let low = d.number(-1e9);
        let s = d.op("masked", "Where", &[out, low, s], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![]);
        let y = d.op("y", "MatMul", &[p, nv], vec![]);
        let (_, after, report) = d.check("attention", vec![y, nk, nv]);
        assert_eq!(report.fired, 1, "{:?}", report.misses);
        assert_eq!(after.len() == 1, right, "{after:#?}");
    }
}

/// Swin: a bias of heads, then a mask of windows, for which the scores get an axis of images in front, one or more.
#[test]
fn windows_with_a_bias_and_a_mask() {
    for images in [1, 3] {
        let mut d = Draft::new();
        let name = if images == 1 { "" } else { "windows" };
        let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &[name, "", "", ""], &[4 * images, 3, 5, 8]));
        let (bias, mask) =
            (d.constant("bias", &[1, 3, 5, 5], -1.0, 1.0), d.constant("mask", &[1, 4, 1, 5, 5], -9.0, 0.0));
        let (five, four) = (d.ints("five", &[-1, 4, 3, 5, 5]), d.ints("four", &[-1, 3, 5, 5]));
        let kt = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
        let s = d.op("s", "MatMul", &[q, kt], vec![]);
        let s = d.op("biased", "Add", &[bias, s], vec![]);
        let s = d.op("wide", "Reshape", &[s, five], vec![]);
        let s = d.op("masked", "Add", &[s, mask], vec![]);
        let s = d.op("back", "Reshape", &[s, four], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![]);
        let y = d.op("y", "MatMul", &[p, v], vec![]);
        let (_, after, report) = d.check("attention", vec![y]);
        assert_eq!(report.fired, 1, "{:?}", report.misses);
        assert_eq!(after.len(), 2, "{after:#?}");
        assert!(after[0].starts_with("mask.axes = Reshape(#mask, "), "{after:#?}");
        assert!(after[1].starts_with("y = Attention(%q, %k, %v, #bias, "), "{after:#?}");
    }
}

/// One head of keys for all, by Tile, by Expand, or by the product's own broadcasting; with ALiBi, and (1 - mask) * -1e4 of keys.
#[test]
fn one_head_of_keys_with_a_slope() {
    for way in ["Tile", "Expand", "broadcast"] {
        let mut d = Draft::new();
        let q = d.named_input("q", &["batch", "", "seq", ""], &[2, 4, 5, 8]);
        let [k, v] = ["k", "v"].map(|n| d.named_input(n, &["batch", "", "keys", ""], &[2, 1, 6, 8]));
        let on = d.named_input("on", &["batch", "keys"], &[2, 6]);
        let (four, one, low) = (d.ints("four", &[1, 4, 1, 1]), d.number(1.0), d.number(-1e4));
        let [k, v] =
            [("ks", k), ("vs", v)].map(|(n, x)| if way == "broadcast" { x } else { d.op(n, way, &[x, four], vec![]) });
        // The slopes of heads, times the places of keys.
        let slopes = d.b.constant("slopes", Tensor::from_slice(&[4, 1, 1], &[0.5f32, 0.25, 0.125, 0.0625]).unwrap());
        let places = d.named_input("places", &["keys"], &[6]);
        let alibi = d.op("alibi", "Mul", &[slopes, places], vec![]);
        let axes = d.ints("axes", &[1, 2]);
        let m = d.op("m", "Unsqueeze", &[on, axes], vec![]);
        let m = d.op("off", "Sub", &[one, m], vec![]);
        let m = d.op("low", "Mul", &[m, low], vec![]);
        let kt = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
        let s = d.op("s", "MatMul", &[q, kt], vec![]);
        let s = d.op("sloped", "Add", &[s, alibi], vec![]);
        let s = d.op("masked", "Add", &[s, m], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![]);
        let y = d.op("y", "MatMul", &[p, v], vec![]);
        let (_, after, report) = d.check("attention", vec![y]);
        assert_eq!(report.fired, 1, "{way}: {:?}", report.misses);
        let last = after.last().unwrap();
        assert!(last.starts_with("y = Attention(%q, %k") && last.contains(", %alibi, "), "{way}: {after:#?}");
        assert!(
            !after.iter().any(|l| l.contains("= Tile") || l.contains("= Expand") || l.contains("= Add")),
            "{after:#?}"
        );
    }
}

/// GPT-2 with a past: the mask is rows after the past of a table, which may be too short for all that an axis could be. Lengths
/// are told by a mask whose axis is a sum of others, as files write it, or a name of its own.
#[test]
fn a_part_of_a_table_after_a_past() {
    for all in ["past + seq", "seq + past", "all"] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &["", "", "seq", ""], &[2, 2, 3, 8]));
        let [pk, pv] = ["pk", "pv"].map(|n| d.named_input(n, &["", "", "past", ""], &[2, 2, 4, 8]));
        let padding = d.named_input("padding", &["", "", "", all], &[2, 1, 1, 7]);
        let table: Vec<u8> = (0..256).map(|i| u8::from(i % 16 <= i / 16)).collect();
        let table = d.b.constant("table", Tensor::from_bytes(DType::Bool, &[1, 1, 16, 16], table.into()).unwrap());
        let length = |d: &mut Draft, name: &str, x: ValueId, axis: i64| {
            d.op(name, "Shape", &[x], vec![("start", Attr::Int(axis)), ("end", Attr::Int(axis + 1))])
        };
        let (past, total) = (length(&mut d, "past", pk, 2), length(&mut d, "total", padding, 3));
        let (zero, two, three) = (d.ints("zero", &[0]), d.ints("two", &[2]), d.ints("three", &[3]));
        let rows = d.op("rows", "Slice", &[table, past, total, two], vec![]);
        let on = d.op("on", "Slice", &[rows, zero, total, three], vec![]);
        let nk = d.op("nk", "Concat", &[pk, k], vec![("axis", Attr::Int(2))]);
        let nv = d.op("nv", "Concat", &[pv, v], vec![("axis", Attr::Int(2))]);
        let kt = d.op("kt", "Transpose", &[nk], perm(&[0, 1, 3, 2]));
        let s = d.op("s", "MatMul", &[q, kt], vec![]);
        let low = d.number(f32::MIN);
        let s = d.op("masked", "Where", &[on, s, low], vec![]);
        let s = d.op("padded", "Add", &[s, padding], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![]);
        let y = d.op("y", "MatMul", &[p, nv], vec![]);
        let (_, after, report) = d.check("attention", vec![y, nk, nv]);
        assert_eq!(report.fired, 1, "{all}: {:?} {after:#?}", report.misses);
    }
}
