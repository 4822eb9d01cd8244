//! Folding, identities, sums with products, chains of elementwise operators.

use super::*;
use ortx::base::parallel::Serial;

#[test]
pub(super) fn fold_computes_constants() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3]);
    let (a, b) = (d.constant("a", &[2, 3], -1.0, 1.0), d.constant("b", &[3], -1.0, 1.0));
    let c = d.op("c", "Add", &[a, b], vec![]);
    let y = d.op("y", "Mul", &[x, c], vec![]);
    let (before, after, report) = d.check("fold", vec![y]);
    assert_eq!(before, ["c = Add(#a, #b)", "y = Mul(%x, %c)"]);
    assert_eq!(after, ["y = Mul(%x, #c)"]);
    assert_eq!(report.fired, 1);
}

/// What the sizes of a node are made from is folded first.
#[test]
fn fold_computes_what_constants_size() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 3]);
    let (steps, axis) = (d.ints("steps", &[1, 2]), d.ints("axis", &[0]));
    let shape = d.op("shape", "CumSum", &[steps, axis], vec![]);
    let zeros = d.op("zeros", "ConstantOfShape", &[shape], vec![]);
    let y = d.op("y", "Add", &[x, zeros], vec![]);
    let (before, after, _) = d.check("fold", vec![y]);
    assert_eq!(before.len(), 3);
    assert_eq!(after, ["y = Add(%x, #zeros)"]);
}

#[test]
pub(super) fn fold_does_not_grow_a_model() {
    let mut d = Draft::new();
    let x = d.input("x", &[1]);
    let one = d.constant("one", &[1], 1.0, 1.0);
    let shape = d.b.constant("shape", Tensor::from_slice(&[2], &[300i64, 300]).unwrap());
    let wide = d.op("wide", "Expand", &[one, shape], vec![]);
    let y = d.op("y", "Add", &[wide, x], vec![]);
    let (before, after, report) = d.check("fold", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("360000 bytes"), "{:?}", report.misses);
}

#[test]
fn fold_has_room_for_so_much_in_all() {
    // Each result is small enough by itself; the sixty-four megabytes that a model of a few bytes may grow by are enough
    // for 1,024 of them, which is less than there are.
    let mut d = Draft::new();
    let shape = d.ints("shape", &[16384]);
    let x = d.input("x", &[1]);
    let mut parts = vec![x];
    for i in 0..1100 {
        let one = d.b.constant(&format!("{i}"), Tensor::scalar(i as f32).unwrap());
        parts.push(d.op(&format!("wide{i}"), "Expand", &[one, shape], vec![]));
    }
    let y = d.op("y", "Concat", &parts, vec![("axis", Attr::Int(0))]);
    let g = d.b.finish(vec![y]).unwrap();
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    let mut after = g.clone();
    let stop = Options { stop_after: Some("fold".into()), strict: true, ..Options::default() };
    let reports = optimize(&mut after, &cpu, &Serial, &stop).unwrap();
    let fold = reports.iter().find(|r| r.pass == "fold").unwrap();
    assert!((1024..1100).contains(&fold.fired), "{}", fold.fired);
    assert!(fold.misses[0].contains("may grow by"), "{:?}", fold.misses);
}

#[test]
fn fold_makes_floats_of_stored_bytes() {
    let mut d = Draft::new();
    let x = d.input("x", &[300]);
    let w = d.b.constant("w", random(DType::I8, &[300, 300], -9.0, 9.0, 3).unwrap());
    let scale = d.constant("scale", &[300], 0.5, 1.0);
    let f = d.op("f", "Cast", &[w], vec![("to", Attr::Int(1))]);
    let s = d.op("s", "Mul", &[f, scale], vec![]);
    let y = d.op("y", "MatMul", &[x, s], vec![]);
    let (_, after, _) = d.check_within(1e-4, "fold", vec![y]);
    assert_eq!(after, ["y = MatMul(%x, #s)"], "four times the bytes, and no more numbers");
}

#[test]
fn pointwise_chains_of_bytes_round_as_if_they_were_stored() {
    let mut d = Draft::new();
    let bytes = random(DType::U8, &[3, 50], 0.0, 255.0, 5).unwrap();
    d.inputs.push(Value::Tensor(bytes));
    let q = d.b.input("q", Fact::sized(DType::U8, &[3, 50]));
    let number = |d: &mut Draft, n: &str, x: f32| d.b.constant(n, Tensor::scalar(x).unwrap());
    let zero = |d: &mut Draft, n: &str, x: u8| d.b.constant(n, Tensor::scalar(x).unwrap());
    let mut x = q;
    for (i, (op, scale, z)) in
        [("HardSigmoid", 0.004, 0u8), ("Exp", 0.02, 7), ("Neg", 0.01, 250)].into_iter().enumerate()
    {
        let (from, at) = (number(&mut d, &format!("s{i}"), 0.03), zero(&mut d, &format!("z{i}"), 100));
        let (to, end) = (number(&mut d, &format!("t{i}"), scale), zero(&mut d, &format!("e{i}"), z));
        let f = d.op(&format!("f{i}"), "DequantizeLinear", &[x, from, at], vec![]);
        let y = d.op(&format!("y{i}"), op, &[f], vec![]);
        x = d.op(&format!("q{i}"), "QuantizeLinear", &[y, to, end], vec![]);
    }
    let g = d.b.finish(vec![x]).unwrap();
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    let mut after = g.clone();
    let only = Options { stop_after: Some("fuse_pointwise".into()), strict: true, ..Options::default() };
    optimize(&mut after, &cpu, &Serial, &only).unwrap();
    assert_eq!(lines(&after), ["q2 = Pointwise(%q)"]);
    for isa in Isa::detect().levels() {
        let want = run_graph(g.clone(), cpu_at(isa), &d.inputs).unwrap();
        let got = run_graph(after.clone(), cpu_at(isa), &d.inputs).unwrap();
        assert_eq!(want[0].bytes(), got[0].bytes(), "bit for bit");
    }
}

#[test]
pub(super) fn identity_goes() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3]);
    let same = d.b.constant("same", Tensor::from_slice(&[2], &[2i64, 3]).unwrap());
    let other = d.b.constant("other", Tensor::from_slice(&[2], &[3i64, 2]).unwrap());
    let i = d.op("i", "Identity", &[x], vec![]);
    let r = d.op("r", "Reshape", &[i, same], vec![]);
    let z = d.op("z", "Reshape", &[r, other], vec![]);
    let y = d.op("y", "Relu", &[z], vec![]);
    let (before, after, report) = d.check("identity", vec![y]);
    assert_eq!(before.len(), 4);
    assert_eq!(after, ["z = Reshape(%x, #other)", "y = Relu(%z)"], "a view that changes the shape stays");
    assert_eq!(report.fired, 2);
}

#[test]
pub(super) fn what_is_no_identity_stays() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["n", ""], &[2, 3]);
    let open = d.ints("open", &[3, -1]);
    let r = d.op("r", "Reshape", &[x, open], vec![]);
    let y = d.op("y", "Relu", &[r], vec![]);
    let (before, after, _) = d.check("identity", vec![y]);
    assert_eq!(before, after, "a view of as many axes is not the same");
}

#[test]
pub(super) fn matmul_takes_a_row() {
    let mut d = Draft::new();
    let x = d.input("x", &[5, 4]);
    let (w, c) = (d.constant("w", &[4, 3], -1.0, 1.0), d.constant("c", &[3], -1.0, 1.0));
    let m = d.op("m", "MatMul", &[x, w], vec![]);
    let y = d.op("y", "Add", &[c, m], vec![]);
    let (before, after, _) = d.check("matmul_bias", vec![y]);
    assert_eq!(before, ["m = MatMul(%x, #w)", "y = Add(#c, %m)"]);
    assert_eq!(after, ["y = MatMul(%x, #w, #c)"]);
}

#[test]
pub(super) fn matmul_leaves_what_is_no_row_or_is_used_twice() {
    let mut d = Draft::new();
    let x = d.input("x", &[3, 4]);
    let (w, c) = (d.constant("w", &[4, 3], -1.0, 1.0), d.constant("c", &[3, 1], -1.0, 1.0));
    let m = d.op("m", "MatMul", &[x, w], vec![]);
    let y = d.op("y", "Add", &[m, c], vec![]);
    let (before, after, report) = d.check("matmul_bias", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("not one value a column"), "{:?}", report.misses);

    let mut d = Draft::new();
    let x = d.input("x", &[3, 4]);
    let (w, c) = (d.constant("w", &[4, 3], -1.0, 1.0), d.constant("c", &[3], -1.0, 1.0));
    let m = d.op("m", "MatMul", &[x, w], vec![]);
    let y = d.op("y", "Add", &[m, c], vec![]);
    let (before, after, report) = d.check("matmul_bias", vec![y, m]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("other users"), "{:?}", report.misses);
}

#[test]
pub(super) fn pointwise_chains_become_one() {
    let mut d = Draft::new();
    let (a, b) = (d.input("a", &[2, 5]), d.input("b", &[5]));
    let s = d.op("s", "Sigmoid", &[a], vec![]);
    let m = d.op("m", "Mul", &[a, s], vec![]);
    let y = d.op("y", "Add", &[m, b], vec![]);
    let (before, after, report) = d.check("fuse_pointwise", vec![y]);
    assert_eq!(before.len(), 3);
    assert_eq!(after, ["y = Pointwise(%a, %b)"]);
    assert_eq!(report.fired, 2);
}

/// A mask of integers, as BERT has it.
#[test]
fn pointwise_converts_integers_where_it_reads_them() {
    for from in [DType::Bool, DType::U8, DType::I8, DType::I32, DType::I64] {
        for (to, fits) in [(1, true), (10, false), (11, false)] {
            let mut d = Draft::new();
            d.inputs.push(Value::Tensor(random(from, &[3, 40], 0.0, 100.0, 5).unwrap()));
            let m = d.b.input("m", Fact::sized(from, &[3, 40]));
            let c = d.op("c", "Cast", &[m], vec![("to", Attr::Int(to))]);
            let e = d.op("e", "Neg", &[c], vec![]);
            let y = d.op("y", "Abs", &[e], vec![]);
            let (_, after, _) = d.check("fuse_pointwise", vec![y]);
            assert_eq!(after == ["y = Pointwise(%m)"], fits, "{from} {to}: {after:#?}");
        }
    }
    // The type of another operand, which is no number for the program.
    let mut d = Draft::new();
    d.inputs.push(Value::Tensor(random(DType::I32, &[3, 40], 0.0, 100.0, 5).unwrap()));
    let m = d.b.input("m", Fact::sized(DType::I32, &[3, 40]));
    let like = d.number(0.0);
    let c = d.op("c", "CastLike", &[m, like], vec![]);
    let y = d.op("y", "Neg", &[c], vec![]);
    let (before, after, _) = d.check("fuse_pointwise", vec![y]);
    assert_eq!(before, after);
    // Others read the number, too.
    let mut d = Draft::new();
    d.inputs.push(Value::Tensor(random(DType::I32, &[3, 40], 0.0, 100.0, 5).unwrap()));
    let m = d.b.input("m", Fact::sized(DType::I32, &[3, 40]));
    let c = d.op("c", "Cast", &[m], vec![("to", Attr::Int(1))]);
    let y = d.op("y", "Neg", &[c], vec![]);
    let (before, after, _) = d.check("fuse_pointwise", vec![y, c]);
    assert_eq!(before, after);
}

#[test]
pub(super) fn pointwise_leaves_what_would_be_computed_twice() {
    let mut d = Draft::new();
    let (a, b) = (d.input("a", &[2, 5]), d.input("b", &[5]));
    let e = d.op("e", "Exp", &[b], vec![]);
    let y = d.op("y", "Add", &[a, e], vec![]);
    let (before, after, report) = d.check("fuse_pointwise", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("broadcast"), "{:?}", report.misses);

    let mut d = Draft::new();
    let a = d.input("a", &[2, 5]);
    let e = d.op("e", "Exp", &[a], vec![]);
    let y = d.op("y", "Neg", &[e], vec![]);
    let (before, after, _) = d.check("fuse_pointwise", vec![y, e]);
    assert_eq!(before, after, "an output of the graph stays");
}

/// A row that a view of the product cuts into heads, as Keras adds it.
#[test]
fn matmul_takes_a_row_cut_into_heads() {
    for (bias, taken) in [(&[4, 2][..], true), (&[3, 4, 2], false), (&[2], false)] {
        let mut d = Draft::new();
        let x = d.named_input("x", &["n", "", ""], &[2, 3, 5]);
        let (w, b) = (d.constant("w", &[5, 8], -1.0, 1.0), d.constant("bias", bias, -1.0, 1.0));
        let heads = d.ints("heads", &[-1, 3, 4, 2]);
        let p = d.op("p", "MatMul", &[x, w], vec![]);
        let r = d.op("r", "Reshape", &[p, heads], vec![]);
        let y = d.op("y", "Add", &[r, b], vec![]);
        let (before, after, _) = d.check("matmul_bias", vec![y]);
        match taken {
            true => assert_eq!(after, ["p = MatMul(%x, #w, #bias)", "y = Reshape(%p, #heads)"]),
            false => assert_eq!(before, after),
        }
    }
}
