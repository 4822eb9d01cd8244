//! Subgraphs that read values of the graphs around them.

use super::*;

/// Loops in branches in loops that read values of all graphs around them, and give them out directly.
#[test]
fn nested_subgraphs_read_outer_values() {
    let boolean = |name: &str, v: i32| TensorProto {
        name: s(name),
        data_type: Some(9),
        int32_data: vec![v],
        ..Default::default()
    };
    // innermost: total + x + step (x of the model, step of the outer loop)
    let innermost = graph(
        vec![info("j", 7, &[]), info("go2", 9, &[]), info("total2", 1, &[2])],
        vec![
            node("Identity", &["go2"], &["go2_out"]),
            node("Add", &["total2", "x"], &["with_x"]),
            node("Add", &["with_x", "step"], &["total2_out"]),
        ],
        &["go2_out", "total2_out"],
    );
    let mut then = graph(
        vec![],
        vec![node("Loop", &["two", "", "total"], &["more"]).with(of_graph("body", innermost))],
        &["more"],
    );
    then.initializer.push(ints("two", &[], &[2]));
    // No node at all: a value of the graph around.
    let otherwise = graph(vec![], vec![], &["total"]);
    let body = graph(
        vec![info("i", 7, &[]), info("go", 9, &[]), info("total", 1, &[2])],
        vec![
            node("Identity", &["go"], &["go_out"]),
            node("Cast", &["i"], &["step"]).with(int("to", 1)),
            node("Mod", &["i", "two_outside"], &["odd"]),
            node("Cast", &["odd"], &["is_odd"]).with(int("to", 9)),
            node("If", &["is_odd"], &["total_out"])
                .with(of_graph("then_branch", then))
                .with(of_graph("else_branch", otherwise)),
            // Seen by nobody but the scan output.
            node("ReduceSum", &["total_out"], &["sum"]).with(int("keepdims", 0)),
        ],
        &["go_out", "total_out", "sum"],
    );
    let mut g = graph(
        vec![info("x", 1, &[2]), info("n", 7, &[])],
        vec![node("Loop", &["n", "yes", "x"], &["y", "sums"]).with(of_graph("body", body))],
        &["y", "sums", "x"],
    );
    g.initializer = vec![boolean("yes", 1), ints("two_outside", &[], &[2])];
    let n = |k: i64| Tensor::from_slice(&[], &[k]).unwrap();
    let m = model(g, vec![]);
    // Steps 1 and 3 are odd: each adds 2 (x + step).
    let got = run(&m, &[("x", x(&[2], &[1.0, 10.0])), ("n", n(4))]);
    assert_eq!(f32s(&got[0]), [1.0 + 2.0 * 2.0 + 2.0 * 4.0, 10.0 + 2.0 * 11.0 + 2.0 * 13.0]);
    assert_eq!(f32s(&got[1]), [11.0, 11.0 + 26.0, 37.0, 37.0 + 34.0]);
    assert_eq!(f32s(&got[2]), [1.0, 10.0]);
    // No round at all.
    let got = run(&m, &[("x", x(&[2], &[1.0, 10.0])), ("n", n(0))]);
    assert_eq!(f32s(&got[0]), [1.0, 10.0]);
    assert_eq!(got[1].as_tensor().unwrap().shape(), [0]);
}

/// A branch's own constant hides the outer value of that name.
#[test]
fn inner_names_hide_outer_ones() {
    let branch = |k: f32, out: &str| {
        let mut g = graph(vec![], vec![node("Add", &["c", "x"], &[out])], &[out]);
        g.initializer.push(floats("c", &[], &[k]));
        g
    };
    let mut g = graph(
        vec![info("x", 1, &[1]), info("yes", 9, &[])],
        vec![
            node("Add", &["x", "c"], &["z"]),
            node("If", &["yes"], &["y"])
                .with(of_graph("then_branch", branch(10.0, "p")))
                .with(of_graph("else_branch", branch(20.0, "q"))),
        ],
        &["y", "z"],
    );
    g.initializer.push(floats("c", &[], &[1.0]));
    for (yes, want) in [(true, 10.5), (false, 20.5)] {
        let inputs = [("x", x(&[1], &[0.5])), ("yes", Tensor::from_slice(&[], &[yes]).unwrap())];
        let got = run(&model(g.clone(), vec![]), &inputs);
        assert_eq!((f32s(&got[0]), f32s(&got[1])), (&[want][..], &[1.5][..]));
    }
}
