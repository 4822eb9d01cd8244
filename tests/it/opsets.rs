//! Operators at each version at which their meaning changed: models of one node, with what must come out computed by formula
//! (`scripts/make_opsets.py` writes `tests/opsets.txt` and says what a line is; it asks onnxruntime too).

use crate::values::compare;
use ortx::proto::onnx::attribute_proto::AttributeType;
use ortx::proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_shape_proto, type_proto,
};
use ortx::session::{Environment, ModelSource, RunOptions, Session, SessionOptions};
use ortx::tensor::{DType, Tensor, Value};
use prost::Message;

/// One model, its inputs, and what must come out.
#[derive(Default)]
struct Case {
    name: String,
    version: i64,
    graph: GraphProto,
    node: NodeProto,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

fn s(text: &str) -> Option<String> {
    Some(text.to_string())
}

/// `DTYPE SHAPE VALUES...`
fn tensor(words: &[&str]) -> Tensor {
    let shape: Vec<usize> = match words[1] {
        "-" => vec![],
        sizes => sizes.split(',').map(|n| n.parse().unwrap()).collect(),
    };
    macro_rules! of {
        ($t:ty) => {
            Tensor::from_slice(&shape, &words[2..].iter().map(|w| w.parse::<$t>().unwrap()).collect::<Vec<_>>())
        };
    }
    match words[0] {
        "float" => of!(f32),
        "double" => of!(f64),
        "int64" => of!(i64),
        "int32" => of!(i32),
        "int8" => of!(i8),
        "bool" => Tensor::from_slice(&shape, &words[2..].iter().map(|w| *w == "1").collect::<Vec<_>>()),
        "string" => Tensor::from_strings(&shape, words[2..].iter().map(|w| w.to_string()).collect()),
        other => panic!("tests/opsets.txt: type {other}"),
    }
    .unwrap()
}

/// ONNX's number of a type.
fn number(d: DType) -> i32 {
    match d {
        DType::F32 => 1,
        DType::I8 => 3,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F64 => 11,
        d => panic!("tests/opsets.txt: an input of {d}"),
    }
}

fn attribute(words: &[&str]) -> AttributeProto {
    let mut a = AttributeProto { name: s(words[0]), ..Default::default() };
    let rest = &words[2..];
    let kind = match words[1] {
        "i" => {
            a.i = Some(rest[0].parse().unwrap());
            AttributeType::Int
        }
        "f" => {
            a.f = Some(rest[0].parse().unwrap());
            AttributeType::Float
        }
        "s" => {
            a.s = Some(rest[0].as_bytes().to_vec().into());
            AttributeType::String
        }
        "ints" => {
            a.ints = rest.iter().map(|w| w.parse().unwrap()).collect();
            AttributeType::Ints
        }
        "floats" => {
            a.floats = rest.iter().map(|w| w.parse().unwrap()).collect();
            AttributeType::Floats
        }
        other => panic!("tests/opsets.txt: an attribute of kind {other}"),
    };
    a.r#type = Some(kind as i32);
    a
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string("tests/opsets.txt").unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] == "case" {
            let node = NodeProto { op_type: s(words[2]), name: s("node"), ..Default::default() };
            let name = format!("{}-{}/{}", words[2], words[3], words[1]);
            cases.push(Case { name, version: words[3].parse().unwrap(), node, ..Case::default() });
            continue;
        }
        let c = cases.last_mut().expect("a case");
        let name = format!("x{}", c.node.input.len());
        match words[0] {
            "attr" => c.node.attribute.push(attribute(&words[1..])),
            "absent" => c.node.input.push(String::new()),
            "const" | "in" => {
                let t = tensor(&words[1..]);
                let dims: Vec<i64> = t.shape().iter().map(|&n| n as i64).collect();
                if words[0] == "const" {
                    let data = bytes::Bytes::copy_from_slice(t.bytes());
                    c.graph.initializer.push(TensorProto {
                        name: s(&name),
                        dims,
                        data_type: Some(number(t.dtype())),
                        raw_data: Some(data),
                        ..Default::default()
                    });
                } else {
                    use tensor_shape_proto::{Dimension, dimension};
                    let dim = |n| Dimension { value: Some(dimension::Value::DimValue(n)), ..Default::default() };
                    let shape = TensorShapeProto { dim: dims.into_iter().map(dim).collect() };
                    let ty = type_proto::Tensor { elem_type: Some(number(t.dtype())), shape: Some(shape) };
                    let ty = TypeProto { value: Some(type_proto::Value::TensorType(ty)), ..Default::default() };
                    c.graph.input.push(ValueInfoProto { name: s(&name), r#type: Some(ty), ..Default::default() });
                    c.inputs.push(Value::Tensor(t));
                }
                c.node.input.push(name);
            }
            "unused" => c.node.output.push(String::new()),
            "out" => {
                let name = format!("y{}", c.node.output.len());
                c.graph.output.push(ValueInfoProto { name: s(&name), ..Default::default() });
                c.node.output.push(name);
                c.outputs.push(Value::Tensor(tensor(&words[1..])));
            }
            other => panic!("tests/opsets.txt: a line that begins with {other}"),
        }
    }
    cases
}

fn run(case: &Case, environment: &Environment) -> Result<(), String> {
    let say = |e: ortx::Error| format!("{e:#}");
    let mut graph = case.graph.clone();
    graph.name = s("opsets");
    graph.node.push(case.node.clone());
    let model = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: s(""), version: Some(case.version) }],
        ..Default::default()
    };
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let source = ModelSource::Bytes(model.encode_to_vec().into(), None);
    let session = Session::new(environment, source, &options).map_err(say)?;
    let mut outputs = vec![None; case.outputs.len()];
    session.run_values(&case.inputs, &mut outputs, &RunOptions::default()).map_err(say)?;
    for (i, (got, want)) in outputs.iter().zip(&case.outputs).enumerate() {
        let got = got.as_ref().ok_or_else(|| format!("output {i} was not made"))?;
        // Some ten roundings of f32 in either computation.
        compare(got, want, 2e-6, 2e-6).map_err(|e| format!("output {i}: {e}"))?;
    }
    Ok(())
}

#[test]
fn every_version_means_what_it_meant() {
    let (environment, cases) = (Environment::new(), cases());
    let failed: Vec<String> =
        cases.iter().filter_map(|c| run(c, &environment).err().map(|e| format!("{}: {e}", c.name))).collect();
    assert!(
        cases.len() > 340 && failed.is_empty(),
        "{} of {} failed:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}
