//! Models with functions of their own.

use super::*;

/// Functions that call functions; attributes by reference, through two calls, with defaults, and absent.
#[test]
fn local_functions_with_attribute_references() {
    let leak = |outer: &str| node("LeakyRelu", &["v"], &["w"]).with(refers("alpha", outer, AttributeType::Float));
    // Without its attribute LeakyRelu takes its own default, 0.01.
    let mut inner = function("Inner", &["v"], &["w"], vec![leak("slope")]);
    inner.attribute = vec!["slope".into()];
    let call = own("Inner", &["v"], &["t"]).with(refers("slope", "steep", AttributeType::Float));
    let mut outer = function("Outer", &["v"], &["u"], vec![call, node("Neg", &["t"], &["u"])]);
    outer.attribute_proto = vec![float("steep", 0.5)];
    let nodes = vec![
        own("Inner", &["x"], &["plain"]),
        own("Inner", &["x"], &["given"]).with(float("slope", 0.25)),
        own("Outer", &["x"], &["default"]),
        own("Outer", &["x"], &["both"]).with(float("steep", 2.0)),
    ];
    let g = graph(vec![info("x", 1, &[2])], nodes, &["plain", "given", "default", "both"]);
    // The order of functions does not matter.
    for functions in [vec![outer.clone(), inner.clone()], vec![inner, outer]] {
        let got = run(&model(g.clone(), functions), &[("x", x(&[2], &[-8.0, 1.0]))]);
        let want: [&[f32]; 4] = [&[-0.08, 1.0], &[-2.0, 1.0], &[4.0, -1.0], &[16.0, -1.0]];
        for (got, want) in got.iter().zip(want) {
            assert_eq!(f32s(got), want);
        }
    }
}

/// An input that a call leaves out is absent inside, also in subgraphs and in calls further in; so is an output.
#[test]
fn local_functions_with_absent_inputs_and_outputs() {
    let clip = |inputs: &[&str], out: &str| node("Clip", inputs, &[out]);
    let branch = |out: &str| graph(vec![], vec![clip(&["v", "low", "high"], out)], &[out]);
    let inner = function("Inner", &["v", "low", "high"], &["w"], vec![clip(&["v", "low", "high"], "w")]);
    let outer = function(
        "Outer",
        &["v", "low", "high"],
        &["first", "second", "third"],
        vec![
            own("Inner", &["v", "low", "high"], &["first"]),
            node("ReduceMax", &["v"], &["most"]).with(int("keepdims", 0)),
            node("Cast", &["most"], &["yes"]).with(int("to", 9)),
            node("If", &["yes"], &["second"])
                .with(of_graph("then_branch", branch("p")))
                .with(of_graph("else_branch", branch("q"))),
            node("Identity", &["v"], &["third"]),
        ],
    );
    let nodes = vec![
        own("Outer", &["x", "", "one"], &["a", "b"]),
        own("Outer", &["x", "one"], &["", "c", "d"]),
        own("Outer", &["x"], &["e"]),
    ];
    let mut g = graph(vec![info("x", 1, &[3])], nodes, &["a", "b", "c", "d", "e"]);
    g.initializer.push(floats("one", &[], &[1.0]));
    let got = run(&model(g, vec![inner, outer]), &[("x", x(&[3], &[-3.0, 0.5, 3.0]))]);
    let want: [&[f32]; 5] =
        [&[-3.0, 0.5, 1.0], &[-3.0, 0.5, 1.0], &[1.0, 1.0, 3.0], &[-3.0, 0.5, 3.0], &[-3.0, 0.5, 3.0]];
    for (got, want) in got.iter().zip(want) {
        assert_eq!(f32s(got), want);
    }
}

/// A function reads operators by the version that it imports itself; overloads are different functions; a function may have
/// the name of an operator, in its own domain or over the standard's.
#[test]
fn local_functions_have_versions_overloads_and_any_name() {
    // Before version 13 Softmax took all axes from `axis` on together.
    let mut old = function("Softmax", &["v"], &["w"], vec![node("Softmax", &["v"], &["w"]).with(int("axis", 0))]);
    old.opset_import = vec![opset("", 11)];
    let mut twice = function("Times", &["v"], &["w"], vec![node("Add", &["v", "v"], &["w"])]);
    twice.overload = s("two");
    let mut square = function("Times", &["v"], &["w"], vec![node("Mul", &["v", "v"], &["w"])]);
    square.overload = s("itself");
    let odd = function("{\"a/b\": \"c:d\"} é", &["v"], &["w"], vec![node("Neg", &["v"], &["w"])]);
    let overload = |n: NodeProto, name: &str| NodeProto { overload: s(name), ..n };
    let nodes = vec![
        own("Softmax", &["x"], &["old"]),
        node("Softmax", &["x"], &["new"]).with(int("axis", 0)),
        overload(own("Times", &["x"], &["doubled"]), "two"),
        overload(own("Times", &["x"], &["squared"]), "itself"),
        own("{\"a/b\": \"c:d\"} é", &["x"], &["negative"]),
    ];
    let g = graph(vec![info("x", 1, &[2, 2])], nodes, &["old", "new", "doubled", "squared", "negative"]);
    let got = run(&model(g, vec![old, twice, square, odd]), &[("x", x(&[2, 2], &[3.0; 4]))]);
    let want = [0.25f32, 0.5, 6.0, 9.0, -3.0];
    for (got, want) in got.iter().zip(want) {
        assert!(f32s(got).iter().all(|g| (g - want).abs() < 1e-6), "{:?} is not {want}", f32s(got));
    }
}

/// Functions of the standard domain, written either way, and attributes that are graphs.
#[test]
fn local_functions_of_the_standard_domain() {
    let mut f = function("Halve", &["v"], &["w"], vec![node("Mul", &["v", "half"], &["w"])]);
    f.node.insert(0, node("Constant", &[], &["half"]).with(float("value_float", 0.5)));
    for (defined, called) in [("", ""), ("ai.onnx", ""), ("", "ai.onnx")] {
        f.domain = s(defined);
        let call = NodeProto { domain: s(called), ..node("Halve", &["x"], &["y"]) };
        let got = run(
            &model(graph(vec![info("x", 1, &[1])], vec![call], &["y"]), vec![f.clone()]),
            &[("x", x(&[1], &[3.0]))],
        );
        assert_eq!(f32s(&got[0]), [1.5]);
    }
}
