//! Masks of attention whose sizes are open, that are of bool, or that multiply.

use super::*;

/// `softmax(masked(q k')) v`, by the last two axes.
fn attended(d: &mut Draft, [q, k, v]: [ValueId; 3], masked: impl Fn(&mut Draft, ValueId) -> ValueId) -> ValueId {
    let kt = d.op("kt", "Transpose", &[k], vec![("perm", ints(&[0, 1, 3, 2]))]);
    let s = d.op("s", "MatMul", &[q, kt], vec![]);
    let s = masked(d, s);
    let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
    d.op("y", "MatMul", &[p, v], vec![])
}

fn with_open_axes(shapes: [&[usize]; 3]) -> (Draft, ValueId) {
    let mut d = Draft::new();
    let [q, k, m] = shapes;
    let q = d.named_input("q", &["batch", "", "rows", ""], q);
    let [k, v] = ["k", "v"].map(|n| d.named_input(n, &["others", "", "keys", ""], k));
    let m = d.named_input("m", &["items", "mask_heads", "mask_rows", "mask_keys"], m);
    let y = attended(&mut d, [q, k, v], |d, s| d.op("masked", "Add", &[m, s], vec![]));
    (d, y)
}

/// Which of queries, keys and mask is repeated for the others is only known at run time.
#[test]
fn operands_of_open_sizes_broadcast_as_products_and_sums_do() {
    for shapes in [
        [&[2, 3, 5, 8], &[2, 3, 7, 8], &[2, 1, 1, 7]],
        [&[2, 3, 5, 8], &[2, 3, 7, 8], &[1, 3, 5, 1]],
        [&[1, 3, 5, 8], &[1, 3, 7, 8], &[2, 1, 5, 7]],
        [&[1, 3, 1, 8], &[1, 3, 7, 8], &[4, 3, 40, 7]],
        [&[2, 3, 5, 8], &[1, 3, 7, 8], &[1, 1, 5, 7]],
        [&[1, 3, 5, 8], &[3, 3, 7, 8], &[3, 1, 1, 1]],
        [&[1, 3, 40, 8], &[2, 3, 9, 8], &[1, 1, 40, 9]],
        [&[2, 1, 2, 8], &[2, 1, 9, 8], &[1, 6, 1, 9]],
    ] as [[&[usize]; 3]; 8]
    {
        let (d, y) = with_open_axes(shapes);
        let (_, after, report) = d.check("attention", vec![y]);
        assert_eq!(after, ["y = Attention(%q, %k, %v, %m)"], "{:?}", report.misses);
    }
}

/// What the written-out form refuses, the operator does too, and says which node has what.
#[test]
fn sizes_that_do_not_broadcast_are_refused() {
    for shapes in [
        [&[4, 3, 5, 8], &[4, 3, 7, 8], &[2, 1, 5, 7]],
        [&[2, 3, 5, 8], &[2, 3, 7, 8], &[2, 1, 4, 7]],
        [&[2, 3, 5, 8], &[2, 3, 7, 8], &[2, 2, 5, 7]],
        [&[2, 3, 5, 8], &[2, 3, 7, 8], &[2, 1, 5, 6]],
        [&[2, 3, 5, 8], &[3, 3, 7, 8], &[1, 1, 5, 7]],
        [&[2, 3, 5, 8], &[2, 3, 1, 8], &[2, 1, 5, 7]],
    ] as [[&[usize]; 3]; 6]
    {
        let (d, y) = with_open_axes(shapes);
        let before = d.b.finish(vec![y]).unwrap();
        let mut after = before.clone();
        let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
        optimize(&mut after, &cpu, &Serial, &Options { strict: true, ..Options::default() }).unwrap();
        assert_eq!(lines(&after), ["y = Attention(%q, %k, %v, %m)"]);
        for (graph, node) in [(before, None), (after, Some("'y'"))] {
            let e = run_graph(graph, cpu_at(Isa::detect()), &d.inputs).unwrap_err();
            let text = format!("{e:#}");
            assert!(node.is_none_or(|n| text.contains(n)), "{shapes:?}: {text}");
        }
    }
}

/// A bool mask, some of it false, as an input.
fn flags(d: &mut Draft, name: &str, axes: &[&str], shape: &[usize]) -> ValueId {
    let on: Vec<u8> = (0..shape.iter().product()).map(|i: usize| u8::from(i % 3 != 1)).collect();
    d.inputs.push(Value::Tensor(Tensor::from_bytes(DType::Bool, shape, on.into()).unwrap()));
    let dims = axes.iter().zip(shape).map(|(a, &n)| if a.is_empty() { Dim::of(n) } else { Dim::symbol(a) });
    d.b.input(name, Fact::tensor(DType::Bool, dims.collect()))
}

/// What a Where makes of a mask of bool to add it, the operator does itself.
#[test]
fn a_mask_of_bool_is_taken_as_it_is() {
    for (seen, fill, call) in [
        (0.0, f32::NEG_INFINITY, vec!["y = Attention(%q, %k, %v, %on)"]),
        (0.0, -3.0, vec!["y = Attention(%q, %k, %v, %on)"]),
        (1.0, -3.0, vec!["m = Where(%on, #1, #-3)", "y = Attention(%q, %k, %v, %m)"]),
    ] {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 3, 5, 8]));
        let on = flags(&mut d, "on", &["", "", "", ""], &[2, 1, 5, 5]);
        let (seen, fill) = (d.number(seen), d.number(fill));
        let y = attended(&mut d, [q, k, v], |d, s| {
            let m = d.op("m", "Where", &[on, seen, fill], vec![]);
            d.op("masked", "Add", &[s, m], vec![])
        });
        let (_, after, report) = d.check("attention", vec![y]);
        assert_eq!(after, call, "{:?}", report.misses);
    }
}

/// `s * b - 1e4 * (1 - b)`, and as tf2onnx writes a choice by a mask that Keras repeats for all scores.
#[test]
fn masks_that_multiply() {
    type Mask = fn(&mut Draft, ValueId, ValueId) -> ValueId;
    let cases: [(&str, Mask, &[&str]); 7] = [
        (
            "gpt2",
            |d, s, on| {
                let b = d.op("b", "Cast", &[on], vec![("to", Attr::Int(1))]);
                let (one, big) = (d.number(1.0), d.number(1e4));
                let off = d.op("off", "Sub", &[one, b], vec![]);
                let low = d.op("low", "Mul", &[big, off], vec![]);
                let kept = d.op("kept", "Mul", &[s, b], vec![]);
                d.op("masked", "Sub", &[kept, low], vec![])
            },
            &["y = Attention(%q, %k, %v, %on)"],
        ),
        (
            "keras",
            |d, s, on| {
                let half = d.number(0.5);
                let s = d.op("half", "Mul", &[s, half], vec![]);
                let shape = d.op("shape", "Shape", &[s], vec![]);
                let yes = d.b.constant("yes", Tensor::from_bytes(DType::Bool, &[], vec![1].into()).unwrap());
                let all = d.op("all", "Expand", &[yes, shape], vec![]);
                let on = d.op("both", "And", &[all, on], vec![]);
                let b = d.op("b", "Cast", &[on], vec![("to", Attr::Int(1))]);
                let off = d.op("off", "Not", &[on], vec![]);
                let c = d.op("c", "Cast", &[off], vec![("to", Attr::Int(1))]);
                let fill = d.number(-1e9);
                let low = d.op("low", "Mul", &[fill, c], vec![]);
                let kept = d.op("kept", "Mul", &[b, s], vec![]);
                d.op("masked", "Add", &[kept, low], vec![])
            },
            &["y = Attention(%q, %k, %v, %on)"],
        ),
        (
            "a triangle of floats",
            |d, s, _| {
                let low = |i: usize| f32::from(u8::from(i % 5 <= i / 5));
                let b: Vec<f32> = (0..25).map(low).collect();
                let rest: Vec<f32> = b.iter().map(|b| -1e4 * (1.0 - b)).collect();
                let b = d.b.constant("b", Tensor::from_slice(&[5, 5], &b).unwrap());
                let rest = d.b.constant("rest", Tensor::from_slice(&[5, 5], &rest).unwrap());
                let kept = d.op("kept", "Mul", &[s, b], vec![]);
                d.op("masked", "Add", &[kept, rest], vec![])
            },
            &["y = Attention(%q, %k, %v)"],
        ),
        (
            "keras, a number more or less",
            |d, s, on| {
                let b = d.op("b", "Cast", &[on], vec![("to", Attr::Int(1))]);
                let (one, big) = (d.number(1.0), d.number(1e9));
                let off = d.op("off", "Sub", &[one, b], vec![]);
                let less = d.op("less", "Sub", &[s, big], vec![]);
                let low = d.op("low", "Mul", &[off, less], vec![]);
                let kept = d.op("kept", "Mul", &[s, b], vec![]);
                d.op("masked", "Add", &[low, kept], vec![])
            },
            &["y = Attention(%q, %k, %v, %on)"],
        ),
        (
            "where, a number more or less",
            |d, s, on| {
                let more = d.number(-3.0);
                let less = d.op("less", "Add", &[more, s], vec![]);
                d.op("masked", "Where", &[on, s, less], vec![])
            },
            &["y = Attention(%q, %k, %v, %on)"],
        ),
        (
            "a number more than something else",
            |d, s, on| {
                let (more, two) = (d.number(-3.0), d.number(2.0));
                let other = d.op("other", "Mul", &[s, two], vec![]);
                let less = d.op("less", "Add", &[more, other], vec![]);
                d.op("masked", "Where", &[on, s, less], vec![])
            },
            &[],
        ),
        (
            "flags of another mask",
            |d, s, on| {
                let b = d.op("b", "Cast", &[on], vec![("to", Attr::Int(1))]);
                let fill = d.number(-1e4);
                let low = d.op("low", "Mul", &[fill, b], vec![]);
                let kept = d.op("kept", "Mul", &[s, b], vec![]);
                d.op("masked", "Add", &[kept, low], vec![])
            },
            &[],
        ),
    ];
    for (what, mask, call) in cases {
        let mut d = Draft::new();
        let [q, k, v] = ["q", "k", "v"].map(|n| d.named_input(n, &["batch", "", "", ""], &[2, 3, 5, 8]));
        let on = flags(&mut d, "on", &["batch", "", "", ""], &[2, 1, 5, 5]);
        let y = attended(&mut d, [q, k, v], |d, s| mask(d, s, on));
        let (before, after, report) = d.check("attention", vec![y]);
        let wanted = if call.is_empty() { before } else { call.iter().map(|l| l.to_string()).collect() };
        assert_eq!(after, wanted, "{what}: {:?}", report.misses);
    }
    // Numbers that are not all 0 or 1.
    let mut d = Draft::new();
    let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 3, 5, 8]));
    let b = d.input("b", &[5, 5]);
    let y = attended(&mut d, [q, k, v], |d, s| {
        let (one, big) = (d.number(1.0), d.number(4.0));
        let off = d.op("off", "Sub", &[one, b], vec![]);
        let low = d.op("low", "Mul", &[big, off], vec![]);
        let kept = d.op("kept", "Mul", &[s, b], vec![]);
        d.op("masked", "Sub", &[kept, low], vec![])
    });
    let (before, after, _) = d.check("attention", vec![y]);
    assert_eq!(before, after);
}

/// One product has batches and heads in one axis, the other apart; a bias of the former's scores, zeros, a mask of the latter's.
#[test]
fn products_of_three_axes_and_of_four() {
    fn shaped(d: &mut Draft, name: &str, x: ValueId, to: &[i64]) -> ValueId {
        let shape = d.ints(&format!("{name}.to"), to);
        d.op(name, "Reshape", &[x, shape], vec![])
    }
    for (first, second) in [(3, 3), (3, 4), (4, 3)] {
        let mut d = Draft::new();
        let mut a = d.named_input("q", &["batch", "", "", ""], &[2, 3, 5, 8]);
        let [k, mut c] = ["k", "v"].map(|n| d.named_input(n, &["others", "", "", ""], &[2, 3, 7, 8]));
        let mut b = d.op("kt", "Transpose", &[k], vec![("perm", ints(&[0, 1, 3, 2]))]);
        if first == 3 {
            (a, b) = (shaped(&mut d, "a", a, &[-1, 5, 8]), shaped(&mut d, "b", b, &[-1, 8, 7]));
        }
        if second == 3 {
            c = shaped(&mut d, "c", c, &[-1, 7, 8]);
        }
        let (half, zero) = (d.number(0.5), d.number(0.0));
        let s = d.op("s", "MatMul", &[a, b], vec![]);
        let mut s = d.op("half", "Mul", &[s, half], vec![]);
        if first == 3 {
            let bias = d.named_input("bias", &["batch", "", "", ""], &[2, 3, 1, 7]);
            let bias = shaped(&mut d, "flat", bias, &[-1, 1, 7]);
            s = d.op("biased", "Add", &[s, bias], vec![]);
            s = d.op("nothing", "Add", &[s, zero], vec![]);
            s = shaped(&mut d, "apart", s, &[-1, 3, 5, 7]);
        }
        let m = d.named_input("m", &["items", "", "", ""], &[2, 1, 5, 7]);
        s = d.op("masked", "Add", &[s, m], vec![]);
        let mut p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
        if second == 3 {
            p = shaped(&mut d, "together", p, &[-1, 5, 7]);
        }
        let mut y = d.op("y", "MatMul", &[p, c], vec![]);
        if second == 3 {
            y = shaped(&mut d, "z", y, &[-1, 3, 5, 8]);
        }
        let (_, after, report) = d.check("attention", vec![y]);
        // Four axes may broadcast, so that others' batches are others'.
        let fired = usize::from((first, second) != (4, 3));
        assert_eq!(report.fired, fired, "{first} and {second}: {:?}", report.misses);
        if fired == 1 {
            let calls: Vec<_> = after.iter().filter(|l| l.contains("MatMul") || l.contains("Attention")).collect();
            assert!(calls.len() == 1 && calls[0].contains("Attention(%q, %k, %v, %"), "{calls:?}");
        }
    }
}

/// Keys and values that were cut for the queries' batches and heads: nothing tells how many keys there are.
#[test]
fn keys_that_are_cut_for_the_queries() {
    for told in [true, false] {
        let mut d = Draft::new();
        let q = d.named_input("q", &["batch", "", "", ""], &[2, 3, 5, 8]);
        let [k, v] = ["k", "v"].map(|n| match told {
            true => d.named_input(n, &["others", "", "keys", ""], &[2, 3, 7, 8]),
            false => d.named_input(n, &["others", "keys", ""], &[6, 7, 8]),
        });
        let [zero, three, rest, eight] = [("0", 0), ("3", 3), ("-1", -1), ("8", 8)].map(|(n, x)| d.ints(n, &[x]));
        let (flat, apart) = (d.ints("flat", &[-1, 5, 8]), d.ints("apart", &[-1, 3, 5, 8]));
        let shape = d.op("shape", "Shape", &[q], vec![]);
        let n = d.op("n", "Gather", &[shape, zero], vec![]);
        let n = d.op("n3", "Mul", &[n, three], vec![]);
        let to = d.op("to", "Concat", &[n, rest, eight], vec![("axis", Attr::Int(0))]);
        let q = d.op("q.flat", "Reshape", &[q, flat], vec![]);
        let [k, v] = [(k, "k.flat"), (v, "v.flat")].map(|(x, name)| match told {
            true => d.op(name, "Reshape", &[x, to], vec![]),
            false => x,
        });
        let kt = d.op("kt", "Transpose", &[k], vec![("perm", ints(&[0, 2, 1]))]);
        let s = d.op("s", "MatMul", &[q, kt], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
        let y = d.op("y", "MatMul", &[p, v], vec![]);
        let y = d.op("z", "Reshape", &[y, apart], vec![]);
        let (before, after, report) = d.check("attention", vec![y]);
        if told {
            let call = "z = Attention(%q, %k.flat.front.axes, %v.flat.front.axes)";
            assert_eq!(after.last().map(String::as_str), Some(call), "{after:#?} {report:?}");
        } else {
            // One may serve all queries.
            assert_eq!(before, after);
            assert!(report.misses[0].contains("not known to be the same"), "{report:?}");
        }
    }
}

/// The scores stand with keys before rows, are normalised over the keys, and turned round for the values (tf2onnx's einsum).
#[test]
fn scores_of_keys_by_rows() {
    for axis in [-2, -1] {
        let mut d = Draft::new();
        let q = d.named_input("q", &["batch", "rows", "", ""], &[2, 5, 3, 8]);
        let [k, v] = ["k", "v"].map(|n| d.named_input(n, &["batch", "keys", "", ""], &[2, 7, 3, 8]));
        let k = d.op("kt", "Transpose", &[k], vec![("perm", ints(&[0, 2, 1, 3]))]);
        let q = d.op("qt", "Transpose", &[q], vec![("perm", ints(&[0, 2, 3, 1]))]);
        let v = d.op("vt", "Transpose", &[v], vec![("perm", ints(&[0, 2, 1, 3]))]);
        let s = d.op("s", "MatMul", &[k, q], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(axis))]);
        let two = d.ints("two", &[2]);
        let p = d.op("one", "Unsqueeze", &[p, two], vec![]);
        let p = d.op("pt", "Transpose", &[p], vec![("perm", ints(&[0, 1, 4, 2, 3]))]);
        let three = d.ints("three", &[3]);
        let p = d.op("none", "Squeeze", &[p, three], vec![]);
        let y = d.op("o", "MatMul", &[p, v], vec![]);
        let y = d.op("y", "Transpose", &[y], vec![("perm", ints(&[0, 2, 1, 3]))]);
        let (before, after, report) = d.check("attention", vec![y]);
        match axis {
            -2 => assert_eq!(after, ["y = Attention(%q, %k, %v)"], "{report:?}"),
            _ => assert_eq!(before, after),
        }
    }
}

/// Groups of query heads that share a key head are an axis of their own; masks are of all heads, of none, or (not) of a group's.
#[test]
fn groups_of_heads_in_five_axes() {
    for (mask, fired) in [(None, 1), (Some([2, 1, 1, 5, 7]), 1), (Some([1, 2, 3, 1, 7]), 1), (Some([1, 1, 3, 5, 7]), 0)]
    {
        let mut d = Draft::new();
        let q = d.named_input("q", &["batch", "rows", "", "", ""], &[2, 5, 2, 3, 8]);
        let [k, v] = ["k", "v"].map(|n| d.named_input(n, &["batch", "keys", "", "", ""], &[2, 7, 2, 1, 8]));
        let turn = |d: &mut Draft, name: &str, x, p: &[i64]| d.op(name, "Transpose", &[x], vec![("perm", ints(p))]);
        let (q, k) = (turn(&mut d, "qt", q, &[0, 2, 3, 1, 4]), turn(&mut d, "kt", k, &[0, 2, 3, 4, 1]));
        let v = turn(&mut d, "vt", v, &[0, 2, 3, 1, 4]);
        let mut s = d.op("s", "MatMul", &[q, k], vec![]);
        if let Some(shape) = mask {
            let named = |i: usize| if shape[i] == 1 { "" } else { ["batch", "", "", "rows", "keys"][i] };
            let m = d.named_input("m", &[0, 1, 2, 3, 4].map(named), &shape);
            s = d.op("masked", "Add", &[s, m], vec![]);
        }
        let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
        let y = d.op("o", "MatMul", &[p, v], vec![]);
        let y = turn(&mut d, "y", y, &[0, 3, 1, 2, 4]);
        let (_, after, report) = d.check("attention", vec![y]);
        assert_eq!(report.fired, fired, "{mask:?}: {report:?}");
        assert_eq!(after.iter().any(|l| l.contains("Transpose")), fired == 0, "{after:#?}");
    }
    // Heads of a group that lie before the groups are not neighbours.
    let mut d = Draft::new();
    let q = d.input("q", &[2, 5, 3, 2, 8]);
    let [k, v] = ["k", "v"].map(|n| d.input(n, &[2, 2, 1, 7, 8]));
    let q = d.op("qt", "Transpose", &[q], vec![("perm", ints(&[0, 3, 2, 1, 4]))]);
    let kt = d.op("kt", "Transpose", &[k], vec![("perm", ints(&[0, 1, 2, 4, 3]))]);
    let s = d.op("s", "MatMul", &[q, kt], vec![]);
    let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
    let y = d.op("y", "MatMul", &[p, v], vec![]);
    let (_, after, _) = d.check("attention", vec![y]);
    assert!(after.iter().any(|l| l.starts_with("qt = Transpose(%q)")), "{after:#?}");
}

/// Speech models mask twice: scores by a low number, and what the softmax made of them by 0, also in rows that see nothing.
#[test]
fn probabilities_that_are_masked_again() {
    // Where a mask fills, what it fills with, and whether the second mask is the same.
    for (fill, same, fused) in
        [(f32::NEG_INFINITY, true, true), (f32::MIN, true, true), (-1e4, true, false), (f32::MIN, false, false)]
    {
        for turned in [false, true] {
            let mut d = Draft::new();
            let [q, k, v] = ["q", "k", "v"].map(|n| d.input(n, &[2, 3, 5, 8]));
            let on: Vec<u8> = (0..50).map(|i| u8::from(i / 5 != 3 && i % 3 != 1)).collect();
            d.inputs.push(Value::Tensor(Tensor::from_bytes(DType::Bool, &[2, 1, 5, 5], on.into()).unwrap()));
            let on = d.b.input("on", Fact::sized(DType::Bool, &[2, 1, 5, 5]));
            let other = flags(&mut d, "other", &["", "", "", ""], &[2, 1, 5, 5]);
            let off = d.op("off", "Not", &[on], vec![]);
            let (low, zero) = (d.number(fill), d.number(0.0));
            let kt = d.op("kt", "Transpose", &[k], vec![("perm", ints(&[0, 1, 3, 2]))]);
            let s = d.op("s", "MatMul", &[q, kt], vec![]);
            let s = d.op("masked", "Where", &[off, low, s], vec![]);
            // NaN in rows that see nothing, which the second mask replaces.
            let p = d.op("p", "Softmax", &[s], vec![("axis", Attr::Int(-1))]);
            let p = match (same, turned) {
                (true, true) => d.op("zeroed", "Where", &[on, p, zero], vec![]),
                (true, false) => d.op("zeroed", "Where", &[off, zero, p], vec![]),
                (false, _) => d.op("zeroed", "Where", &[other, zero, p], vec![]),
            };
            let y = d.op("y", "MatMul", &[p, v], vec![]);
            let (before, after, report) = d.check("attention", vec![y]);
            match fused {
                true => assert_eq!(after, ["y = Attention(%q, %k, %v, %on)"], "{report:?}"),
                false => assert_eq!(before, after),
            }
        }
    }
}
