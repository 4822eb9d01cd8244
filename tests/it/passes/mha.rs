//! A block of torch's MultiheadAttention as its exporters write it: rows first within, whatever it is outside.

use super::*;

/// Rows first: projections in one, parts by Gather, heads of all items in one axis, a number of rows that the exporter took for
/// a constant.
fn block(d: &mut Draft, x: ValueId) -> ValueId {
    let (w, b) = (d.constant("w", &[32, 96], -0.3, 0.3), d.constant("b", &[96], -1.0, 1.0));
    let p = d.op("p", "MatMul", &[x, w], vec![]);
    let p = d.op("pb", "Add", &[b, p], vec![]);
    let (cut, front, third) = (d.ints("cut", &[0, 0, 3, 32]), d.ints("front", &[0]), d.ints("third", &[3]));
    let p = d.op("p4", "Reshape", &[p, cut], vec![]);
    let p = d.op("p5", "Unsqueeze", &[p, front], vec![]);
    let p = d.op("pt", "Transpose", &[p], perm(&[3, 1, 2, 0, 4]));
    let p = d.op("ps", "Squeeze", &[p, third], vec![]);
    let (flat, apart) = (d.ints("flat", &[5, 8, 8]), d.ints("apart", &[2, 4, 5, 8]));
    let root = d.number(8f32.powf(-0.25));
    let [q, k, v] = [("q", 0i64), ("k", 1), ("v", 2)].map(|(n, i)| {
        let at = d.b.constant(&format!("{n}.at"), Tensor::scalar(i).unwrap());
        let x = d.op(&format!("{n}.part"), "Gather", &[p, at], vec![("axis", Attr::Int(0))]);
        let x = d.op(&format!("{n}.flat"), "Reshape", &[x, flat], vec![]);
        let x = d.op(&format!("{n}.t"), "Transpose", &[x], perm(&[1, 0, 2]));
        d.op(&format!("{n}.heads"), "Reshape", &[x, apart], vec![])
    });
    let k = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
    let (q, k) = (d.op("qr", "Mul", &[q, root], vec![]), d.op("kr", "Mul", &[k, root], vec![]));
    let s = d.op("s", "MatMul", &[q, k], vec![]);
    let s = d.op("sm", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
    let o = d.op("o", "MatMul", &[s, v], vec![]);
    let o = d.op("ot", "Transpose", &[o], perm(&[2, 0, 1, 3]));
    let (rows, back) = (d.ints("rows", &[-1, 32]), d.ints("back", &[5, 2, 32]));
    let o = d.op("or", "Reshape", &[o, rows], vec![]);
    let (w, b) = (d.constant("w2", &[32, 32], -0.3, 0.3), d.constant("b2", &[32], -1.0, 1.0));
    let o = d.op("og", "Gemm", &[o, w, b], vec![("transB", Attr::Int(1))]);
    d.op("ob", "Reshape", &[o, back], vec![])
}

/// The operators that are left after all passes, but for views. The answers are held against those of the graph as it was.
fn left(d: Draft, y: ValueId) -> Vec<String> {
    let before = d.b.finish(vec![y]).unwrap();
    let mut after = before.clone();
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    optimize(&mut after, &cpu, &Serial, &Options { strict: true, ..Options::default() }).unwrap();
    let [want, got] = [before, after.clone()].map(|g| run_graph(g, cpu_at(Isa::detect()), &d.inputs).unwrap());
    // Sums of some hundred products in another order.
    close(&want[0], &got[0], 2e-5, 2e-5).unwrap();
    after.nodes().map(|(_, n)| n.op.name()).filter(|&n| n != "Reshape").map(String::from).collect()
}

#[test]
fn a_block_is_three_steps() {
    for batch_first in [false, true] {
        let mut d = Draft::new();
        let y = if batch_first {
            let x = d.named_input("x", &["", "rows", ""], &[2, 5, 32]);
            let x = d.op("xt", "Transpose", &[x], perm(&[1, 0, 2]));
            let y = block(&mut d, x);
            d.op("y", "Transpose", &[y], perm(&[1, 0, 2]))
        } else {
            let x = d.named_input("x", &["rows", "", ""], &[5, 2, 32]);
            block(&mut d, x)
        };
        assert_eq!(left(d, y), ["MatMul", "Attention", "MatMul"], "batch first: {batch_first}");
    }
}

/// What follows keeps the rows first: one transposition cannot go.
#[test]
fn a_block_between_two_orders_moves_its_rows_once() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["", "rows", ""], &[2, 5, 32]);
    let x = d.op("xt", "Transpose", &[x], perm(&[1, 0, 2]));
    let y = block(&mut d, x);
    let left = left(d, y);
    assert_eq!(left.iter().filter(|l| *l == "Transpose").count(), 1, "{left:?}");
    assert_eq!(left.len(), 4, "{left:?}");
}

/// Only the view of what others read tells batches and heads apart: the result is turned with both in one axis.
#[test]
fn heads_told_by_the_weights() {
    let mut d = Draft::new();
    let shape = |last: [usize; 2]| [8, last[0], last[1]];
    let [q, k, v] = [("q", [5, 8]), ("k", [6, 8]), ("v", [6, 7])].map(|(n, s)| d.input(n, &shape(s)));
    let k = d.op("kt", "Transpose", &[k], perm(&[0, 2, 1]));
    let s = d.op("s", "MatMul", &[q, k], vec![]);
    let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
    let o = d.op("o", "MatMul", &[p, v], vec![]);
    let o = d.op("ot", "Transpose", &[o], perm(&[1, 0, 2]));
    let rows = d.ints("rows", &[10, 28]);
    let y = d.op("y", "Reshape", &[o, rows], vec![]);
    let apart = d.ints("apart", &[2, 4, 5, 6]);
    let w = d.op("w", "Reshape", &[p, apart], vec![]);
    let (_, after, report) = d.check("attention", vec![y, w]);
    let steps: Vec<&String> = after.iter().filter(|l| !l.contains("= Reshape(")).collect();
    assert!(
        steps.len() == 1 && steps[0].contains("= Attention(%q.axes, %k.axes, %v.axes)"),
        "{after:#?} {:?}",
        report.misses
    );
}

/// The weights of heads, which others read too, are given out by the operator; of values that are made from them it has none.
#[test]
fn weights_that_are_read() {
    for (rank, case) in [(3, ""), (4, ""), (3, "whole"), (4, "values")] {
        let mut d = Draft::new();
        let shape = |last: [usize; 2]| match rank {
            3 => vec![8, last[0], last[1]],
            _ => vec![2, 4, last[0], last[1]],
        };
        let [q, v] = [("q", [5, 8]), ("v", [5, 5])].map(|(n, s)| d.input(n, &shape(s)));
        let k = d.input("k", &shape([5, 8]));
        let k = d.op("kt", "Transpose", &[k], perm(if rank == 3 { &[0, 2, 1] } else { &[0, 1, 3, 2] }));
        let (apart, heads) = (d.ints("apart", &[2, 4, 5, 5]), d.ints("heads", &[1]));
        let s = d.op("s", "MatMul", &[q, k], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
        let v = if case == "values" { d.op("v2", "Add", &[v, p], vec![]) } else { v };
        let o = d.op("o", "MatMul", &[p, v], vec![]);
        let (mut y, mut w) = (o, p);
        if rank == 3 {
            y = d.op("y", "Reshape", &[o, apart], vec![]);
            w = if case == "whole" { p } else { d.op("w", "Reshape", &[p, apart], vec![]) };
        }
        let axis = if case == "whole" { d.ints("last", &[-1]) } else { heads };
        let m = d.op("m", "ReduceMean", &[w, axis], vec![]);
        let (before, after, report) = d.check("attention", vec![y, m]);
        if case.is_empty() {
            let read = if rank == 3 { "w" } else { "p" };
            let mean = format!("m = ReduceMean(%{read}, #heads)");
            assert!(after.len() <= 5 && after.last() == Some(&mean), "{after:#?} {:?}", report.misses);
            assert!(!after.iter().any(|l| l.contains("Softmax") || l.contains("MatMul")), "{after:#?}");
        } else {
            assert_eq!(before, after);
            let why = if case == "whole" { "other users" } else { "made from the scores" };
            assert!(report.misses[0].contains(why), "{:?}", report.misses);
        }
    }
}

/// Views between the result and the transposition that it is wanted in, as Keras' einsum over an inner axis has them.
#[test]
fn a_result_is_turned_behind_views() {
    let orders = [
        (&[0, 1, 4, 2, 3, 5][..], true),
        // Elements come last; rows stand together.
        (&[0, 1, 5, 2, 3, 4], false),
        (&[0, 1, 2, 4, 3, 5], true),
    ];
    for (order, fits) in orders {
        for others in [false, true] {
            let mut d = Draft::new();
            let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[6, 4, 5, 8]));
            let k = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
            let s = d.op("s", "MatMul", &[q, k], vec![]);
            let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
            let o = d.op("o", "MatMul", &[p, v], vec![]);
            let apart = d.ints("apart", &[2, 3, 1, 4, 5, 8]);
            let o = d.op("apart.o", "Reshape", &[o, apart], vec![]);
            let y = d.op("y", "Transpose", &[o], perm(order));
            let (_, after, report) = d.check("attention", if others { vec![y, o] } else { vec![y] });
            assert_eq!(report.fired, 1, "{:?}", report.misses);
            let left = after.iter().any(|l| l.contains("Transpose"));
            assert_eq!(left, others || !fits, "{order:?} {after:#?}");
        }
    }
}

/// Keras over two axes of rows and keys: einsums with both in one axis, and a softmax over the keys', which come first in the product.
#[test]
fn rows_and_keys_of_two_axes() {
    for case in ["", "mask", "order"] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 3, 4, 4, 8]));
        let (flat, apart) = (d.ints("flat", &[8, 12, 8]), d.ints("apart", &[2, 4, 3, 4, 3, 4]));
        let (keys, one) = (d.ints("keys", &[2, 4, 3, 4, 12]), d.ints("one", &[8, 12, 12]));
        // The values' rows are those of the keys, in whichever order both stand.
        let values = if case == "order" { [0, 3, 2, 1, 4] } else { [0, 3, 1, 2, 4] };
        let [q, k, v] =
            [("q", q, [0, 3, 1, 2, 4]), ("k", k, [0, 3, 1, 2, 4]), ("v", v, values)].map(|(n, x, order)| {
                let x = d.op(&format!("{n}.t"), "Transpose", &[x], perm(&order));
                d.op(&format!("{n}.flat"), "Reshape", &[x, flat], vec![])
            });
        let q = d.op("qt", "Transpose", &[q], perm(&[0, 2, 1]));
        let s = d.op("s", "MatMul", &[k, q], vec![]);
        let s = d.op("s6", "Reshape", &[s, apart], vec![]);
        let last = if case == "order" { [0, 1, 4, 5, 3, 2] } else { [0, 1, 4, 5, 2, 3] };
        let mut s = d.op("st", "Transpose", &[s], perm(&last));
        if case == "mask" {
            let m = d.input("m", &[3, 4, 3, 4]);
            s = d.op("sm", "Add", &[s, m], vec![]);
        }
        let s = d.op("s5", "Reshape", &[s, keys], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
        let p = d.op("p3", "Reshape", &[p, one], vec![]);
        let o = d.op("o", "MatMul", &[p, v], vec![]);
        let back = d.ints("back", &[2, 4, 3, 4, 8]);
        let o = d.op("o5", "Reshape", &[o, back], vec![]);
        let y = d.op("y", "Transpose", &[o], perm(&[0, 2, 3, 1, 4]));
        let (before, after, report) = d.check("attention", vec![y]);
        if case.is_empty() {
            let steps: Vec<&String> = after.iter().filter(|l| !l.contains("= Reshape(")).collect();
            assert!(steps.len() == 1 && steps[0].contains("= Attention("), "{after:#?} {:?}", report.misses);
        } else {
            assert_eq!(before, after, "{case}");
        }
    }
}

/// Rows cut in three that stand in another order afterwards are no rows of one axis.
#[test]
fn pieces_of_rows_in_another_order() {
    for order in [[0, 1, 2, 3, 4, 5], [0, 1, 2, 4, 3, 5]] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 3, 12, 8]));
        let (cut, whole) = (d.ints("cut", &[2, 3, 2, 3, 2, 8]), d.ints("whole", &[2, 3, 12, 8]));
        let x = d.op("cut.q", "Reshape", &[q, cut], vec![]);
        let x = d.op("qt", "Transpose", &[x], perm(&order));
        let q = d.op("whole.q", "Reshape", &[x, whole], vec![]);
        let k = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
        let s = d.op("s", "MatMul", &[q, k], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
        let y = d.op("y", "MatMul", &[p, v], vec![]);
        let (_, after, _) = d.check("attention", vec![y]);
        let moved = after.iter().any(|l| l.contains("= Transpose("));
        assert_eq!(moved, order[3] == 4, "{after:#?}");
    }
}

/// TensorFlow's GPT-2: the past is turned to stand before new rows with rows first. Who reads both gets them turned back; a triangle
/// made from the length of both is not needed.
#[test]
fn a_past_before_rows_that_come_first() {
    for (turned, shown) in [(true, false), (true, true), (false, true)] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &["n", "rows", "", ""], &[2, 5, 4, 8]));
        let [k, v] = [("pk", k), ("pv", v)].map(|(n, new)| {
            let past = if turned {
                let past = d.named_input(n, &["n", "", "past", ""], &[2, 4, 3, 8]);
                d.op(&format!("{n}.t"), "Transpose", &[past], perm(&[0, 2, 1, 3]))
            } else {
                d.named_input(n, &["n", "past", "", ""], &[2, 3, 4, 8])
            };
            d.op(&format!("{n}.both"), "Concat", &[past, new], vec![("axis", Attr::Int(1))])
        });
        let qt = d.op("qt", "Transpose", &[q], perm(&[0, 2, 1, 3]));
        let kt = d.op("kt", "Transpose", &[k], perm(&[0, 2, 3, 1]));
        let vt = d.op("vt", "Transpose", &[v], perm(&[0, 2, 1, 3]));
        let [first, second] = [("first", 0), ("second", 1)].map(|(n, i)| d.ints(n, &[i]));
        let [zero, one] = [0i64, 1].map(|n| d.b.constant(&format!("n{n}"), Tensor::scalar(n).unwrap()));
        let [rows, all] = [("rows", q), ("all", k)].map(|(n, x)| {
            let shape = vec![("start", Attr::Int(1)), ("end", Attr::Int(2))];
            let length = d.op(&format!("{n}.list"), "Shape", &[x], shape);
            d.op(n, "Squeeze", &[length, first], vec![])
        });
        let [i, j] = [("i", rows), ("j", all)].map(|(n, length)| d.op(n, "Range", &[zero, length, one], vec![]));
        let i = d.op("column", "Unsqueeze", &[i, second], vec![]);
        let j = d.op("before", "Sub", &[j, all], vec![]);
        let j = d.op("own", "Add", &[j, rows], vec![]);
        let sees = d.op("sees", "GreaterOrEqual", &[i, j], vec![]);
        let low = d.number(-1e9);
        let s = d.op("s", "MatMul", &[qt, kt], vec![]);
        let s = if turned { d.op("masked", "Where", &[sees, s, low], vec![]) } else { s };
        let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
        let o = d.op("o", "MatMul", &[p, vt], vec![]);
        let y = d.op("y", "Transpose", &[o], perm(&[0, 2, 1, 3]));
        let (_, after, report) = d.check("attention", if shown { vec![y, k, v] } else { vec![y] });
        let count = |op: &str| after.iter().filter(|l| l.contains(&format!("= {op}("))).count();
        let left = ["Attention", "Concat", "Transpose"].map(count);
        let want = if !turned { [1, 2, 0] } else { [1, 0, if shown { 2 } else { 0 }] };
        assert_eq!(left, want, "{after:#?} {:?}", report.misses);
        assert_eq!(after.len(), want.iter().sum::<usize>(), "{after:#?}");
    }
}
