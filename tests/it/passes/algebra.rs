//! Identities, and what is computed more than once.

use super::*;

#[test]
pub(super) fn what_changes_nothing_goes() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 4]);
    let (one, zero) = (d.number(1.0), d.number(0.0));
    let (from, to) = (d.ints("from", &[0, 0]), d.ints("to", &[2, 1 << 40]));
    let shape = d.ints("shape", &[2, 3, 4]);
    let a = d.op("a", "Mul", &[one, x], vec![]);
    let a = d.op("b", "Div", &[a, one], vec![]);
    let a = d.op("c", "Sub", &[a, zero], vec![]);
    let a = d.op("d", "Neg", &[a], vec![]);
    let a = d.op("e", "Neg", &[a], vec![]);
    let a = d.op("f", "Slice", &[a, from, to], vec![]);
    let a = d.op("g", "Expand", &[a, shape], vec![]);
    let a = d.op("h", "Cast", &[a], vec![("to", Attr::Int(1))]);
    let a = d.op("i", "Concat", &[a], vec![("axis", Attr::Int(1))]);
    let y = d.op("y", "Exp", &[a], vec![]);
    let (before, after, report) = d.check("algebra", vec![y]);
    assert_eq!(before.len(), 10);
    assert_eq!(after, ["y = Exp(%x)"], "{:?}", report.misses);
}

#[test]
pub(super) fn what_broadcasts_or_turns_round_stays() {
    let mut d = Draft::new();
    let x = d.input("x", &[4]);
    let one = d.constant("one", &[1, 1], 1.0, 1.0);
    let a = d.op("a", "Mul", &[x, one], vec![]);
    let lists = [("from", -1), ("to", i64::MIN), ("axis", 1), ("step", -1)].map(|(n, v)| d.ints(n, &[v]));
    let y = d.op("y", "Slice", &[a, lists[0], lists[1], lists[2], lists[3]], vec![]);
    let (before, after, _) = d.check("algebra", vec![y]);
    assert_eq!(before, after);
}

#[test]
fn transpositions_cancel_or_become_views() {
    let perm = |p: &[i64]| vec![("perm", ints(p))];
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 4]);
    let a = d.op("a", "Transpose", &[x], perm(&[2, 0, 1]));
    let a = d.op("b", "Transpose", &[a], perm(&[1, 2, 0]));
    let y = d.op("y", "Exp", &[a], vec![]);
    let (_, after, _) = d.check("algebra", vec![y]);
    assert_eq!(after, ["y = Exp(%x)"]);

    let mut d = Draft::new();
    let x = d.input("x", &[1, 3, 4]);
    let a = d.op("a", "Transpose", &[x], perm(&[1, 0, 2]));
    let y = d.op("y", "Exp", &[a], vec![]);
    let (_, after, _) = d.check("algebra", vec![y]);
    assert_eq!(after, ["a = Reshape(%x, #a.shape)", "y = Exp(%a)"]);
}

#[test]
fn integers_become_floats_behind_views() {
    for (from, to) in [(DType::I32, 1), (DType::Bool, 10), (DType::F32, 11), (DType::I32, 7)] {
        for shown in [false, true] {
            let mut d = Draft::new();
            d.inputs.push(Value::Tensor(random(from, &[2, 5], 0.0, 3.0, 5).unwrap()));
            let m = d.b.input("m", Fact::sized(from, &[2, 5]));
            let [axes, start, end] = [("axes", &[1, 2][..]), ("start", &[1]), ("end", &[3])].map(|(n, v)| d.ints(n, v));
            let c = d.op("c", "Cast", &[m], vec![("to", Attr::Int(to))]);
            let v = d.op("v", "Unsqueeze", &[c, axes], vec![]);
            let y = d.op("y", "Slice", &[v, start, end], vec![]);
            let (before, after, _) = d.check("algebra", if shown { vec![y, c] } else { vec![y] });
            if from != DType::F32 && to != 7 && !shown {
                let parts = ["m.view = Unsqueeze(%m, #axes)", "m.view.view = Slice(%m.view, #start, #end)"];
                assert_eq!(after, [&parts[..], &["y = Cast(%m.view.view)"]].concat());
            } else {
                assert_eq!(before, after);
            }
        }
    }
}

#[test]
fn squares_and_casts() {
    let mut d = Draft::new();
    let x = d.input("x", &[3]);
    let two = d.number(2.0);
    let a = d.op("a", "Pow", &[x, two], vec![]);
    let a = d.op("b", "Cast", &[a], vec![("to", Attr::Int(11))]);
    let y = d.op("y", "Cast", &[a], vec![("to", Attr::Int(6))]);
    let (_, after, _) = d.check("algebra", vec![y]);
    assert_eq!(after, ["a = Mul(%x, %x)", "y = Cast(%a)"]);
}

#[test]
pub(super) fn common_subexpressions_are_computed_once() {
    let mut d = Draft::new();
    let x = d.input("x", &[3]);
    let (a, b) = (d.op("a", "Exp", &[x], vec![]), d.op("b", "Exp", &[x], vec![]));
    let (c, e) = (d.op("c", "Elu", &[a], vec![]), d.op("e", "Elu", &[b], vec![("alpha", Attr::Float(0.5))]));
    let f = d.op("f", "Elu", &[b], vec![]);
    let y = d.op("y", "Sum", &[c, e, f], vec![]);
    let (before, after, report) = d.check("common", vec![y]);
    assert_eq!(before.len(), 6);
    assert_eq!(after, ["a = Exp(%x)", "c = Elu(%a)", "e = Elu(%a)", "y = Sum(%c, %e, %c)"]);
    assert_eq!(report.fired, 2);
}

#[test]
pub(super) fn what_is_not_the_same_is_computed_each_time() {
    let mut d = Draft::new();
    let x = d.input("x", &[3]);
    let (a, b) = (d.op("a", "RandomUniformLike", &[x], vec![]), d.op("b", "RandomUniformLike", &[x], vec![]));
    let zero = d.number(0.0);
    let s = d.op("s", "Sub", &[a, b], vec![]);
    let y = d.op("y", "Mul", &[s, zero], vec![]);
    let (before, after, _) = d.check("common", vec![y]);
    assert_eq!(before, after, "what draws numbers draws them each time");

    let mut d = Draft::new();
    let x = d.input("x", &[3]);
    let sizes = d.op("sizes", "Shape", &[x], vec![]);
    let fill = |v: f32| vec![("value", Attr::Tensor(Tensor::from_slice(&[1], &[v]).unwrap()))];
    let (a, b) = (d.op("a", "ConstantOfShape", &[sizes], fill(1.0)), d.op("b", "ConstantOfShape", &[sizes], fill(2.0)));
    let y = d.op("y", "Sub", &[a, b], vec![]);
    let (before, after, _) = d.check("common", vec![y]);
    assert_eq!(before, after, "attributes that are tensors are compared by their elements");
}

#[test]
fn views_limits_and_quotients() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 12]);
    let (s, t) = (d.ints("s", &[2, 3, 4]), d.ints("t", &[6, 4]));
    let a = d.op("a", "Reshape", &[x, s], vec![]);
    let a = d.op("b", "Reshape", &[a, t], vec![]);
    let (low, four, three) = (d.number(0.25), d.number(4.0), d.number(3.0));
    let a = d.op("c", "Max", &[a, low], vec![]);
    let a = d.op("e", "Div", &[a, four], vec![]);
    let y = d.op("y", "Div", &[a, three], vec![]);
    let (_, after, _) = d.check("algebra", vec![y]);
    let want = ["b = Reshape(%x, #b.shape)", "c = Clip(%b)", "e = Mul(%c, #4.inverse)", "y = Div(%e, #3)"];
    assert_eq!(after, want, "a third is not exact");
}

#[test]
fn parts_joined_again_and_what_is_expanded_to_be_broadcast() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 6]);
    let r = d.input("r", &[6]);
    let lengths = d.ints("lengths", &[2, 4]);
    let parts = d.split("s", x, lengths, 1, 2);
    let c = d.op("c", "Concat", &parts, vec![("axis", Attr::Int(-1))]);
    let shape = d.ints("shape", &[2, 6]);
    let e = d.op("e", "Expand", &[r, shape], vec![]);
    let y = d.op("y", "Add", &[c, e], vec![]);
    let (_, after, _) = d.check("algebra", vec![y]);
    assert_eq!(after, ["y = Add(%x, %r)"]);

    let mut d = Draft::new();
    let x = d.input("x", &[2, 6]);
    let lengths = d.ints("lengths", &[2, 4]);
    let parts = d.split("s", x, lengths, 1, 2);
    let y = d.op("y", "Concat", &[parts[1], parts[0]], vec![("axis", Attr::Int(1))]);
    let (before, after, _) = d.check("algebra", vec![y]);
    assert_eq!(before, after, "another order");
}

#[test]
fn the_sign_of_zero_stays() {
    let mut d = Draft::new();
    let x = d.input("x", &[4]);
    let zero = d.number(0.0);
    let y = d.op("y", "Add", &[x, zero], vec![]);
    let (before, after, _) = d.check("algebra", vec![y]);
    assert_eq!(before, after, "-0 + 0 is 0");
}

/// Paddle's p-norm; of what may be below zero, 0.5 is a power like others.
#[test]
fn squares_of_sizes_and_their_roots() {
    for signed in [false, true] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 3]);
        let (two, half, axis) = (d.number(2.0), d.number(0.5), d.ints("axis", &[-1]));
        let a = d.op("a", "Abs", &[x], vec![]);
        let a = d.op("b", "Pow", &[a, two], vec![]);
        let s = d.op("s", "ReduceSum", &[if signed { x } else { a }, axis], vec![]);
        let y = d.op("y", "Pow", &[s, half], vec![]);
        let (_, after, _) = d.check("algebra", if signed { vec![y, a] } else { vec![y] });
        match signed {
            false => assert_eq!(after, ["b = Mul(%x, %x)", "s = ReduceSum(%b, #axis)", "y = Sqrt(%s)"]),
            true => assert!(after.contains(&"y = Pow(%s, #0.5)".to_string()), "{after:?}"),
        }
    }
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3]);
    let a = d.op("a", "Abs", &[x], vec![]);
    let y = d.op("y", "Mul", &[a, a], vec![]);
    let (_, after, _) = d.check("algebra", vec![y]);
    assert_eq!(after, ["y = Mul(%x, %x)"]);
}

/// torch keeps what is beyond a threshold as it is, where softplus is that number already, to the rounding of f32.
#[test]
fn softplus_up_to_a_threshold() {
    // Where the test looks, what it is compared with, the factor and the divisor of softplus.
    for (threshold, beta, back, goes) in [
        (20.0, 1.0, 1.0, true),
        (14.5, 1.0, 1.0, true),
        (8.0, 1.0, 1.0, false),
        (20.0, 2.0, 2.0, true),
        (20.0, 2.0, 3.0, false),
    ] {
        let mut d = Draft::new();
        let x = d.b.input("x", Fact::sized(DType::F32, &[6]));
        let list = [-3.0f32, 0.5, 7.0, 12.0, 25.0, f32::INFINITY];
        d.inputs.push(Value::Tensor(Tensor::from_slice(&[6], &list).unwrap()));
        let [threshold, beta_, back] = [threshold, beta, back].map(|k| d.number(k));
        let scaled = if beta == 1.0 { x } else { d.op("scaled", "Mul", &[x, beta_], vec![]) };
        let s = d.op("s", "Softplus", &[scaled], vec![]);
        let s = if beta == 1.0 { s } else { d.op("back", "Div", &[s, back], vec![]) };
        let test = d.op("test", "Greater", &[scaled, threshold], vec![]);
        let c = d.op("c", "Where", &[test, x, s], vec![]);
        let y = d.op("y", "Tanh", &[c], vec![]);
        let (_, after, _) = d.check("algebra", vec![y]);
        assert_eq!(!after.iter().any(|l| l.contains("Where")), goes, "{after:?}");
    }
}

/// A choice of tf2onnx: each side times 0 or 1.
#[test]
fn a_choice_of_products() {
    for other in [false, true] {
        let mut d = Draft::new();
        let (x, y) = (d.input("x", &[2, 3, 4]), d.input("y", &[2, 3, 4]));
        let test = d.op("test", "Greater", &[x, y], vec![]);
        let second = if other { d.op("second", "Less", &[x, y], vec![]) } else { test };
        let not = d.op("not", "Not", &[second], vec![]);
        let [a, b] = [("a", test), ("b", not)].map(|(n, v)| d.op(n, "Cast", &[v], vec![("to", Attr::Int(1))]));
        let (p, q) = (d.op("p", "Mul", &[a, x], vec![]), d.op("q", "Mul", &[y, b], vec![]));
        let z = d.op("z", "Add", &[p, q], vec![]);
        let (before, after, _) = d.check("algebra", vec![z]);
        match other {
            false => assert_eq!(after, ["test = Greater(%x, %y)", "z = Where(%test, %x, %y)"]),
            true => assert_eq!(before, after),
        }
    }
}

/// A choice broadcasts its operands itself.
#[test]
fn what_is_expanded_for_a_choice() {
    let mut d = Draft::new();
    let (x, m) = (d.named_input("x", &["n", "", ""], &[2, 3, 4]), d.named_input("m", &["n", "", ""], &[2, 1, 4]));
    let (zero, low) = (d.number(0.0), d.number(-1e9));
    let test = d.op("test", "Greater", &[m, zero], vec![]);
    let shape = d.op("shape", "Shape", &[x], vec![]);
    let wide = d.op("wide", "Expand", &[test, shape], vec![]);
    let y = d.op("c", "Where", &[wide, low, x], vec![]);
    let (_, after, _) = d.check("algebra", vec![y]);
    assert_eq!(after, ["test = Greater(%m, #0)", "c = Where(%test, #-1000000000, %x)"]);
}
