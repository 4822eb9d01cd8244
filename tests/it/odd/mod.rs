//! Models with the rarer features of the format, and what writes them: messages by short names.

mod constants;
mod functions;
mod names;
mod subgraphs;

use ortx::proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataLocation, tensor_shape_proto, type_proto,
};
use ortx::{Environment, ErrorKind, ModelSource, Session, SessionOptions, Tensor, Value};
use prost::Message;

fn s(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let list = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    NodeProto { op_type: s(op), input: list(inputs), output: list(outputs), ..Default::default() }
}

/// A node of the model's own functions.
fn own(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { domain: s("own"), ..node(op, inputs, outputs) }
}

trait With {
    fn with(self, a: AttributeProto) -> Self;
}
impl With for NodeProto {
    fn with(mut self, a: AttributeProto) -> Self {
        self.attribute.push(a);
        self
    }
}

fn attr(name: &str, ty: AttributeType) -> AttributeProto {
    AttributeProto { name: s(name), r#type: Some(ty as i32), ..Default::default() }
}
fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..attr(name, AttributeType::Int) }
}
fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f: Some(f), ..attr(name, AttributeType::Float) }
}
fn of_tensor(name: &str, t: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(Box::new(t)), ..attr(name, AttributeType::Tensor) }
}
fn of_graph(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(g)), ..attr(name, AttributeType::Graph) }
}
/// The value of the attribute `outer` of the function around.
fn refers(name: &str, outer: &str, ty: AttributeType) -> AttributeProto {
    AttributeProto { ref_attr_name: s(outer), ..attr(name, ty) }
}

fn floats(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto { name: s(name), dims: dims.into(), data_type: Some(1), float_data: data.into(), ..Default::default() }
}
fn ints(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    TensorProto { name: s(name), dims: dims.into(), data_type: Some(7), int64_data: data.into(), ..Default::default() }
}

/// A value's declaration; sizes below zero are left open. Type 0: undeclared.
fn info(name: &str, dtype: i32, dims: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension};
    let dim = |&n: &i64| Dimension { value: (n >= 0).then_some(dimension::Value::DimValue(n)), ..Default::default() };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(dtype), shape: Some(shape) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: s(name), r#type: (dtype != 0).then_some(ty), ..Default::default() }
}

fn graph(inputs: Vec<ValueInfoProto>, nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    GraphProto {
        input: inputs,
        node: nodes,
        output: outputs.iter().map(|o| info(o, 0, &[])).collect(),
        ..Default::default()
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: s(domain), version: Some(version) }
}

fn model(graph: GraphProto, functions: Vec<FunctionProto>) -> ModelProto {
    let opset_import = vec![opset("", 21), opset("own", 1)];
    ModelProto { ir_version: Some(10), graph: Some(graph), functions, opset_import, ..Default::default() }
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
    let list = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    FunctionProto {
        name: s(name),
        domain: s("own"),
        input: list(inputs),
        output: list(outputs),
        node: nodes,
        opset_import: vec![opset("", 21), opset("own", 1)],
        ..Default::default()
    }
}

fn open(m: &ModelProto, optimize: bool) -> ortx::Result<Session> {
    let options = SessionOptions { threads: 1, optimize, ..Default::default() };
    Session::new(&Environment::new(), ModelSource::Bytes(m.encode_to_vec().into(), None), &options)
}

/// The answer, which must be the same with and without the optimiser, and the same twice.
fn run(m: &ModelProto, inputs: &[(&str, Tensor)]) -> Vec<Value> {
    let answers: Vec<Vec<Value>> = [true, false]
        .into_iter()
        .flat_map(|optimize| {
            let session = open(m, optimize).unwrap_or_else(|e| panic!("{e:#}"));
            [0, 1].map(|_| session.run(inputs).unwrap_or_else(|e| panic!("{e:#}")))
        })
        .collect();
    for other in &answers[1..] {
        for (a, b) in other.iter().zip(&answers[0]) {
            crate::values::compare(a, b, 1e-6, 1e-6).unwrap();
        }
    }
    answers.into_iter().next().unwrap()
}

fn f32s(v: &Value) -> &[f32] {
    v.as_tensor().unwrap().as_slice::<f32>().unwrap()
}
fn i64s(v: &Value) -> &[i64] {
    v.as_tensor().unwrap().as_slice::<i64>().unwrap()
}
fn x(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor::from_slice(shape, data).unwrap()
}
