//! All gaps are found in one reading: also those after others, in subgraphs, and in functions.

use super::Reason;
use crate::import::{import_model, import_with_gaps, survey, weights};
use crate::ops;
use crate::proto::external::External;
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::proto::onnx::*;

fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
    NodeProto {
        op_type: Some(op.into()),
        name: Some(name.into()),
        input: own(inputs),
        output: own(outputs),
        ..Default::default()
    }
}

fn value(name: &str, elem: i32) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: Some(elem), shape: None };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(ty), ..Default::default() }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

fn branch(nodes: Vec<NodeProto>, output: &str) -> GraphProto {
    GraphProto { name: Some("branch".into()), node: nodes, output: vec![value(output, 1)], ..Default::default() }
}

fn graph_attribute(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(g)),
        ..Default::default()
    }
}

/// x -> Nowhere -> MatMul -> If { Lost | the function Twice, which calls Gone } -> Nowhere
fn model() -> ModelProto {
    let mut choose = node("If", "choose", &["c"], &["d"]);
    choose.attribute = vec![
        graph_attribute("then_branch", branch(vec![node("Lost", "lost", &["b"], &["t"])], "t")),
        graph_attribute(
            "else_branch",
            branch(vec![NodeProto { domain: Some("own".into()), ..node("Twice", "call", &["b"], &["e"]) }], "e"),
        ),
    ];
    let twice = FunctionProto {
        name: Some("Twice".into()),
        domain: Some("own".into()),
        input: vec!["p".into()],
        output: vec!["q".into()],
        node: vec![node("MatMul", "square", &["p", "p"], &["m"]), node("Gone", "gone", &["m"], &["q"])],
        opset_import: vec![opset("", 17)],
        ..Default::default()
    };
    let weight = TensorProto {
        name: Some("w".into()),
        data_type: Some(1),
        dims: vec![2, 2],
        float_data: vec![1.0; 4],
        ..Default::default()
    };
    let graph = GraphProto {
        name: Some("main".into()),
        node: vec![
            node("Nowhere", "first", &["x"], &["a"]),
            node("MatMul", "product", &["a", "w"], &["b"]),
            choose,
            node("Nowhere", "last", &["d"], &["y"]),
        ],
        initializer: vec![weight],
        input: vec![value("x", 1), value("c", 9)],
        output: vec![value("y", 1)],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("own", 1)],
        graph: Some(graph),
        functions: vec![twice],
        ..Default::default()
    }
}

#[test]
fn all_gaps_are_told_at_once() {
    let (model, registry) = (model(), ops::registry());
    let (imported, gaps) = import_with_gaps(&model, &registry, &External::none()).unwrap();
    let found: Vec<(&str, &str)> = gaps.iter().map(|g| (&*g.op, &*g.node)).collect();
    assert_eq!(found, [("Nowhere", "first"), ("Lost", "lost"), ("Gone", "call/gone"), ("Nowhere", "last")]);
    let unknown = Reason::Unknown { domain: "ai.onnx".into(), version: Some(17) };
    assert!(gaps.iter().all(|g| g.reason == unknown));
    assert_eq!(imported.graph.outputs().len(), 1);

    let e = import_model(&model, &registry, &External::none()).unwrap_err();
    assert_eq!(e.kind(), crate::ErrorKind::Unsupported);
    assert_eq!(
        e.to_string(),
        "operators not supported: ai.onnx::Gone (opset 17; node 'call/gone'), ai.onnx::Lost (opset 17; node 'lost'), \
         ai.onnx::Nowhere (opset 17; node 'first' and 1 more)"
    );
}

#[test]
fn the_survey_counts_operators_wherever_they_are() {
    let uses = survey(&model(), &ops::registry());
    let uses: Vec<_> = uses.iter().map(|u| (&*u.domain, &*u.op, u.nodes, u.known, u.function)).collect();
    assert_eq!(
        uses,
        [
            ("ai.onnx", "Gone", 1, false, false),
            ("ai.onnx", "If", 1, true, false),
            ("ai.onnx", "Lost", 1, false, false),
            ("ai.onnx", "MatMul", 2, true, false),
            ("ai.onnx", "Nowhere", 2, false, false),
            ("own", "Twice", 1, true, true),
        ]
    );
    let w = weights(&model());
    assert_eq!((w.len(), w[0].tensors, w[0].elements, w[0].bytes), (1, 1, 4, 16));
}

#[test]
fn functions_that_call_themselves_end() {
    let mut m = model();
    m.functions[0].node.push(NodeProto { domain: Some("own".into()), ..node("Twice", "again", &["q"], &["r"]) });
    assert_eq!(survey(&m, &ops::registry()).len(), 6);
    let e = import_with_gaps(&m, &ops::registry(), &External::none()).unwrap_err();
    assert!(e.to_string().contains("call each other"), "{e}");
}

#[test]
fn what_is_damaged_stays_an_error() {
    let mut m = model();
    let g = m.graph.as_mut().unwrap();
    g.node[1].input[1] = "nobody".into();
    // The product hangs on a gap too, but no node makes its other input: that is worse.
    let e = import_model(&m, &ops::registry(), &External::none()).unwrap_err();
    assert_eq!(e.kind(), crate::ErrorKind::InvalidModel, "{e}");
    assert!(e.to_string().contains("'nobody'"), "{e}");
}

#[test]
fn a_version_that_is_too_old_is_told_with_the_oldest_understood() {
    let mut m = model();
    m.graph.as_mut().unwrap().node = vec![node("MatMul", "product", &["x", "w"], &["y"])];
    m.opset_import = vec![opset("", 0)];
    let (_, gaps) = import_with_gaps(&m, &ops::registry(), &External::none()).unwrap();
    assert_eq!(gaps[0].reason, Reason::TooOld { domain: "ai.onnx".into(), version: 0, oldest: 1 });
}
