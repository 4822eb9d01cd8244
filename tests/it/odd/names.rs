//! Absent values, names of any kind, graphs without work.

use super::*;

/// An empty name stands for an input or output that is not there, at the end and in the middle.
#[test]
fn empty_names_are_absent_values() {
    let nodes = vec![
        node("Clip", &["x", "", "two"], &["clipped"]),
        node("Clip", &["x", "", ""], &["same"]),
        node("Dropout", &["x", "", ""], &["kept", ""]),
        node("Resize", &["picture", "", "", "sizes"], &["resized"]),
        node("TopK", &["x", "one"], &["", "place"]),
        node("Split", &["x"], &["left", "", "right"]).with(int("num_outputs", 3)),
        node("Slice", &["x", "one", "end", "", "steps"], &["slice"]),
    ];
    let outputs = ["clipped", "same", "kept", "resized", "place", "left", "right", "slice"];
    let mut g = graph(vec![info("x", 1, &[3]), info("picture", 1, &[1, 1, 1, 2])], nodes, &outputs);
    g.initializer = vec![
        floats("two", &[], &[2.0]),
        ints("sizes", &[4], &[1, 1, 2, 4]),
        ints("one", &[1], &[1]),
        ints("end", &[1], &[3]),
        ints("steps", &[1], &[1]),
    ];
    let got = run(&model(g, vec![]), &[("x", x(&[3], &[1.0, 3.0, 2.5])), ("picture", x(&[1, 1, 1, 2], &[1.0, 2.0]))]);
    assert_eq!(f32s(&got[0]), [1.0, 2.0, 2.0]);
    assert_eq!(f32s(&got[1]), [1.0, 3.0, 2.5]);
    assert_eq!(f32s(&got[2]), [1.0, 3.0, 2.5]);
    assert_eq!(f32s(&got[3]), [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
    assert_eq!(i64s(&got[4]), [1]);
    assert_eq!((f32s(&got[5]), f32s(&got[6]), f32s(&got[7])), (&[1.0][..], &[2.5][..], &[3.0, 2.5][..]));
}

/// Names are any text: of values, nodes, graphs, sizes and keys.
#[test]
fn names_of_any_kind() {
    let long = "ü".repeat(5000);
    let names = [
        "/model/layers.0/attn/MatMul_output_0",
        "scope/x:0",
        "{\"name\": [\"x\", 1]}",
        "图像 ☃ ñ",
        " ",
        "a b\tc\nd",
        "0",
        "-1",
        "Relu",
        "'quoted' \"twice\" \\n",
        "%s%n%p",
        "<!-- x -->",
        "x\u{0}y",
        "x\u{feff}",
        &long,
    ];
    let mut nodes = Vec::new();
    for pair in names.windows(2) {
        // All nodes have the same name, which is allowed to nodes.
        nodes.push(NodeProto { name: s("{\"node\": 1}"), ..node("Neg", &[pair[0]], &[pair[1]]) });
    }
    // Out of order: files that are not sorted load too.
    nodes.reverse();
    let mut g = graph(vec![info(names[0], 1, &[2])], nodes, &[names[names.len() - 1], names[5], names[0]]);
    g.name = s("graph: {\"a\": \"☃\"}");
    let mut m = model(g, vec![]);
    m.metadata_props.push(StringStringEntryProto { key: s("{\"k\":\"é\"}"), value: s("[1, {\"☃\": null}]") });
    let input = [(names[0], x(&[2], &[1.0, -2.0]))];
    let got = run(&m, &input);
    assert_eq!((f32s(&got[0]), f32s(&got[1]), f32s(&got[2])), (&[1.0, -2.0][..], &[-1.0, 2.0][..], &[1.0, -2.0][..]));
    let session = open(&m, true).unwrap();
    assert_eq!(&*session.inputs()[0].name, names[0]);
    assert_eq!(&*session.outputs()[0].name, long);
    let e = session.run(&[("nobody", x(&[2], &[1.0, 2.0]))]).unwrap_err();
    assert!(e.to_string().contains(names[0]), "{e}");
    // In errors too.
    let mut broken = m.clone();
    broken.graph.as_mut().unwrap().node[3].op_type = s("{\"op\": \"☃\"}");
    let e = open(&broken, true).err().unwrap();
    assert!(e.kind() == ErrorKind::Unsupported && format!("{e:#}").contains("{\"op\": \"☃\"}"), "{e:#}");
}

/// What exporters write for sizes that depend on the run; a name stands for one size within a run.
#[test]
fn names_of_sizes() {
    use tensor_shape_proto::{Dimension, dimension::Value::DimParam};
    let params =
        ["batch size", "floor(N/2 - 1/2) + 1", "2*N", "-1", "?", "None", "{\"n\": 1}", "☃", "unk__1:0", "N+", ")("];
    for param in params {
        let dim = Dimension { value: Some(DimParam(param.into())), ..Default::default() };
        let mut declared = info("x", 1, &[0, 3]);
        let Some(type_proto::Value::TensorType(t)) = declared.r#type.as_mut().unwrap().value.as_mut() else {
            unreachable!()
        };
        t.shape.as_mut().unwrap().dim[0] = dim;
        let mut g = graph(vec![declared], vec![node("Add", &["x", "x"], &["y"])], &["y"]);
        g.output[0].r#type = g.input[0].r#type.clone();
        let session = open(&model(g, vec![]), true).unwrap_or_else(|e| panic!("{param}: {e:#}"));
        for rows in [2, 5, 0] {
            let got =
                session.run(&[("x", x(&[rows, 3], &vec![1.5; rows * 3]))]).unwrap_or_else(|e| panic!("{param}: {e:#}"));
            assert_eq!(f32s(&got[0]), vec![3.0; rows * 3], "{param}");
        }
    }
}

/// Inputs and constants given out as they are, twice, or not used at all; nodes that lead nowhere.
#[test]
fn graphs_without_work() {
    let nodes = vec![node("Neg", &["x"], &["nowhere"]), node("Identity", &["c"], &["same"])];
    let mut g = graph(vec![info("x", 1, &[1]), info("unused", 1, &[-1])], nodes, &["x", "c", "c", "same", "x"]);
    g.initializer = vec![floats("c", &[1], &[7.0]), floats("spare", &[1], &[1.0])];
    let got = run(&model(g, vec![]), &[("x", x(&[1], &[2.0])), ("unused", x(&[4], &[0.0; 4]))]);
    let all: Vec<f32> = got.iter().map(|v| f32s(v)[0]).collect();
    assert_eq!(all, [2.0, 7.0, 7.0, 7.0, 2.0]);
    // No input, no node.
    let mut g = graph(vec![], vec![], &["c"]);
    g.initializer = vec![floats("c", &[], &[7.0])];
    assert_eq!(f32s(&run(&model(g, vec![]), &[])[0]), [7.0]);
}
