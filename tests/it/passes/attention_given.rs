//! Attention that the model has as an operator already (ONNX 23), among the movements that exporters put around it.

use super::*;

type Attrs = Vec<(&'static str, Attr)>;

/// Attention of operator set 23, with as many outputs: the result is `o`.
fn attention(d: &mut Draft, inputs: &[Option<ValueId>], outputs: usize, attrs: Attrs) -> Vec<ValueId> {
    let registry = ops::registry();
    let def = registry.find("", "Attention").unwrap();
    let asked = vec![true; outputs];
    let mut cx = ParseCtx::new(&mut d.b, "o", "Attention", 23, inputs.to_vec(), &asked, attrs);
    let parsed = (def.parse)(&mut cx).unwrap();
    let inputs = std::mem::take(&mut cx.inputs);
    let names = &["o", "present.k", "present.v", "scores"].map(Some)[..outputs];
    d.b.node("o", parsed, inputs, names).unwrap().into_iter().flatten().collect()
}

/// `[batch, rows, heads * size]` as `[batch, heads, rows, size]`.
fn split_heads(d: &mut Draft, name: &str, x: ValueId, heads: i64) -> ValueId {
    let shape = d.ints(&format!("{name}.shape"), &[0, 0, heads, -1]);
    let r = d.op(&format!("{name}.r"), "Reshape", &[x, shape], vec![]);
    d.op(&format!("{name}.t"), "Transpose", &[r], perm(&[0, 2, 1, 3]))
}

/// Back, as `y`.
fn merge_heads(d: &mut Draft, y: ValueId, width: i64) -> ValueId {
    let t = d.op("t", "Transpose", &[y], perm(&[0, 2, 1, 3]));
    let shape = d.ints("merged", &[0, 0, width]);
    d.op("y", "Reshape", &[t, shape], vec![])
}

fn has(lines: &[String], op: &str) -> bool {
    lines.iter().any(|l| l.contains(&format!("= {op}(")))
}

/// torch's scaled_dot_product_attention: what the operator says of scores stays as it was.
#[test]
pub(super) fn heads_split_before_and_merged_after() {
    let all: [Attrs; 4] = [
        vec![],
        vec![("is_causal", Attr::Int(1))],
        vec![("scale", Attr::Float(0.3)), ("softcap", Attr::Float(2.0))],
        vec![("softmax_precision", Attr::Int(11))],
    ];
    for (i, attrs) in all.into_iter().enumerate() {
        let mut d = Draft::new();
        let q = d.named_input("q", &["batch", "seq", ""], &[2, 5, 32]);
        let [k, v] = ["k", "v"].map(|n| d.named_input(n, &["batch", "keys", ""], &[2, 7, 16]));
        let m = d.named_input("m", &["batch", "", "seq", "keys"], &[2, 1, 5, 7]);
        // Two heads of keys for four of queries.
        let [q, k, v] = [("q", q, 4), ("k", k, 2), ("v", v, 2)].map(|(n, x, h)| split_heads(&mut d, n, x, h));
        let given = [Some(q), Some(k), Some(v), (i != 1).then_some(m)];
        let o = attention(&mut d, &given, 1, attrs)[0];
        let y = merge_heads(&mut d, o, 32);
        let (before, after, report) = d.check("attention", vec![y]);
        assert_eq!(before.len(), 9);
        assert_eq!(after.len(), 5, "{after:#?} {:?}", report.misses);
        let mask = if i == 1 { ", _" } else { ", %m" };
        assert!(after[3].starts_with("t = Attention(%q.axes, %k.axes, %v.axes"), "{after:#?}");
        assert!(i == 1 || after[3].contains(mask), "{after:#?}");
        assert_eq!(after[4], "y = Reshape(%t, #merged)");
    }
}

/// torch's MultiheadAttention: rows before items, queries, keys and values in one product, batches and heads in one axis.
#[test]
fn packed_rows_before_items() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["", "batch", ""], &[5, 2, 48]);
    let three = d.ints("three", &[0, 0, 3, 16]);
    let x = d.op("x3", "Reshape", &[x, three], vec![]);
    let zero = d.ints("zero", &[0]);
    let x = d.op("u", "Unsqueeze", &[x, zero], vec![]);
    let x = d.op("front", "Transpose", &[x], perm(&[3, 1, 2, 0, 4]));
    let last = d.ints("last", &[3]);
    let x = d.op("s", "Squeeze", &[x, last], vec![]);
    let parts = [0i64, 1, 2].map(|i| {
        let at = d.b.constant(&format!("at{i}"), Tensor::scalar(i).unwrap());
        let g = d.op(&format!("g{i}"), "Gather", &[x, at], vec![("axis", Attr::Int(0))]);
        let cut = d.ints(&format!("cut{i}"), &[0, -1, 8]);
        let r = d.op(&format!("r{i}"), "Reshape", &[g, cut], vec![]);
        let t = d.op(&format!("t{i}"), "Transpose", &[r], perm(&[1, 0, 2]));
        let heads = d.ints(&format!("heads{i}"), &[-1, 2, 5, 8]);
        Some(d.op(&format!("h{i}"), "Reshape", &[t, heads], vec![]))
    });
    let o = attention(&mut d, &parts, 1, vec![])[0];
    let t = d.op("y", "Transpose", &[o], perm(&[2, 0, 1, 3]));
    let (_, after, report) = d.check("attention", vec![t]);
    assert_eq!(report.fired, 1, "{:?}", report.misses);
    assert!(!has(&after, "Transpose") && !has(&after, "Gather"), "{after:#?}");
}

/// Queries, keys and values of rows that are split into heads, past keys and past values.
fn rows_and_past(d: &mut Draft) -> [ValueId; 5] {
    let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &["batch", "seq", ""], &[2, 3, 16]));
    let [pk, pv] = ["pk", "pv"].map(|n| d.named_input(n, &["batch", "", "past", ""], &[2, 2, 4, 8]));
    let [q, k, v] = [("q", q), ("k", k), ("v", v)].map(|(n, x)| split_heads(d, n, x, 2));
    [q, k, v, pk, pv]
}

/// Past rows by Concat: the operator joins them, unless what a row sees goes by its place, which the past would shift.
#[test]
fn a_past_before_the_operator() {
    for causal in [false, true] {
        let mut d = Draft::new();
        let [q, k, v, pk, pv] = rows_and_past(&mut d);
        let nk = d.op("nk", "Concat", &[pk, k], vec![("axis", Attr::Int(2))]);
        let nv = d.op("nv", "Concat", &[pv, v], vec![("axis", Attr::Int(2))]);
        let attrs = vec![("is_causal", Attr::Int(i64::from(causal)))];
        let o = attention(&mut d, &[Some(q), Some(nk), Some(nv)], 1, attrs)[0];
        let y = merge_heads(&mut d, o, 16);
        let (_, after, report) = d.check("attention", vec![y, nk, nv]);
        assert_eq!(report.fired, 1, "{:?}", report.misses);
        assert_eq!(has(&after, "Concat"), causal, "{after:#?}");
        assert_eq!(has(&after, "Transpose"), causal, "{after:#?}");
    }
}

/// The operator's own past and present: the new rows come from where they lie, the present is as before.
#[test]
fn its_own_past_and_present() {
    for past in [true, false] {
        let mut d = Draft::new();
        let [q, k, v, pk, pv] = rows_and_past(&mut d);
        let all = [Some(q), Some(k), Some(v), None, Some(pk), Some(pv)];
        let given = if past { &all[..] } else { &all[..3] };
        let made = attention(&mut d, given, 3, vec![("is_causal", Attr::Int(1))]);
        let y = merge_heads(&mut d, made[0], 16);
        let (_, after, report) = d.check("attention", vec![y, made[1], made[2]]);
        assert_eq!(report.fired, 1, "{:?}", report.misses);
        assert!(!has(&after, "Transpose"), "{after:#?}");
    }
}

/// Numbers that multiply queries and keys go into the scale, the usual one too.
#[test]
fn scaled_operands() {
    for own in [None, Some(0.2)] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 3, 5, 8]));
        let (two, third) = (d.number(2.0), d.number(3.0));
        let q = d.op("q2", "Mul", &[q, two], vec![]);
        let k = d.op("k3", "Div", &[k, third], vec![]);
        let attrs = own.map(|s| ("scale", Attr::Float(s))).into_iter().collect();
        let o = attention(&mut d, &[Some(q), Some(k), Some(v)], 1, attrs)[0];
        let (_, after, report) = d.check("attention", vec![o]);
        assert_eq!(after, ["o = Attention(%q, %k, %v)"], "{:?}", report.misses);
    }
}

/// Key heads repeated for groups of query heads, unless the operator gives them out.
#[test]
fn repeated_heads() {
    for kept in [false, true] {
        let mut d = Draft::new();
        let q = d.input("q", &[2, 6, 4, 8]);
        let [k, v] = ["k", "v"].map(|n| d.input(n, &[2, 2, 5, 8]));
        let (wide, flat) = (d.ints("wide", &[2, 2, 3, 5, 8]), d.ints("flat", &[2, 6, 5, 8]));
        let two = d.ints("two", &[2]);
        let [k, v] = [("k", k), ("v", v)].map(|(n, x)| {
            let u = d.op(&format!("{n}.u"), "Unsqueeze", &[x, two], vec![]);
            let e = d.op(&format!("{n}.e"), "Expand", &[u, wide], vec![]);
            d.op(&format!("{n}.r"), "Reshape", &[e, flat], vec![])
        });
        let made = attention(&mut d, &[Some(q), Some(k), Some(v)], if kept { 3 } else { 1 }, vec![]);
        let (before, after, report) = d.check("attention", made);
        match kept {
            false => assert_eq!(after, ["o = Attention(%q, %k, %v)"], "{:?}", report.misses),
            true => {
                assert_eq!(before, after);
                assert!(report.misses[0].contains("repeated heads"), "{:?}", report.misses);
            }
        }
    }
}

/// Scores at any stage, keys and values are given out as before.
#[test]
fn scores_that_are_an_output() {
    for mode in 0..4 {
        let mut d = Draft::new();
        let qkv = ["q", "k", "v"].map(|n| d.input(n, &[2, 5, 3, 8]));
        let turned = qkv.map(|x| Some(d.op(&format!("t{x:?}"), "Transpose", &[x], perm(&[0, 2, 1, 3]))));
        let attrs = vec![("qk_matmul_output_mode", Attr::Int(mode)), ("softcap", Attr::Float(2.0))];
        let made = attention(&mut d, &turned, 4, attrs);
        let (_, after, report) = d.check("attention", made);
        assert_eq!(after, ["o = Attention(%q, %k, %v)"], "{:?}", report.misses);
    }
}

/// What the operator cannot take in, or need not: the graph stays as it is.
#[test]
pub(super) fn what_cannot_be_laid_stays() {
    for (case, why) in [
        ("values", "the values are scaled"),
        ("present", "the keys that it gives out are scaled"),
        ("views", ""),
        ("size", ""),
    ] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 5, 3, 8]));
        let two = d.number(2.0);
        let (given, outputs) = match case {
            "values" => ([q, k, d.op("v2", "Mul", &[v, two], vec![])], 1),
            "present" => ([q, d.op("k2", "Mul", &[k, two], vec![]), v], 3),
            "views" => {
                let shape = d.ints("shape", &[5, 2, 3, 8]);
                (["qr", "kr", "vr"].map(|n| d.op(n, "Reshape", &[[q, k, v][n.len() % 2], shape], vec![])), 1)
            }
            // Elements of a row must lie together.
            _ => (["qs", "ks", "vs"].map(|n| d.op(n, "Transpose", &[q], perm(&[0, 1, 3, 2]))), 1),
        };
        let mut made = attention(&mut d, &given.map(Some), outputs, vec![]);
        if case == "size" {
            made = vec![d.op("y", "Transpose", &[made[0]], perm(&[0, 1, 3, 2]))];
        }
        let (before, after, report) = d.check("attention", made);
        assert_eq!(before, after, "{case}");
        match why {
            "" => assert!(report.misses.is_empty(), "{case}: {:?}", report.misses),
            why => assert!(report.misses[0].contains(why), "{case}: {:?}", report.misses),
        }
    }
}
