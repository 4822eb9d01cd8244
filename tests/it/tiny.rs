//! Small models for tests, made on the spot.

use ortx::proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};
use prost::Message;

/// A model on its way.
#[derive(Clone, Default)]
pub struct Tiny(pub GraphProto);

fn s(text: &str) -> Option<String> {
    Some(text.to_string())
}

/// A tensor type; sizes are numbers, or names, or `?`.
fn tensor_type(dtype: i32, dims: &[&str]) -> TypeProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |d: &&str| Dimension {
        value: match (d.parse(), *d) {
            (Ok(n), _) => Some(Value::DimValue(n)),
            (_, "?") => None,
            (_, name) => Some(Value::DimParam(name.into())),
        },
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(dtype), shape: Some(shape) };
    TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }
}

fn info(name: &str, ty: Option<TypeProto>) -> ValueInfoProto {
    ValueInfoProto { name: s(name), r#type: ty, ..Default::default() }
}

#[allow(dead_code)]
impl Tiny {
    /// An empty graph.
    pub fn new(name: &str) -> Tiny {
        Tiny(GraphProto { name: s(name), ..Default::default() })
    }
    /// A tensor input; sizes are numbers, or names, or `?`.
    pub fn input(mut self, name: &str, dtype: i32, dims: &[&str]) -> Tiny {
        self.0.input.push(info(name, Some(tensor_type(dtype, dims))));
        self
    }
    /// An input that is a sequence, optional, or map.
    pub fn input_of(mut self, name: &str, value: type_proto::Value) -> Tiny {
        self.0.input.push(info(name, Some(TypeProto { value: Some(value), ..Default::default() })));
        self
    }
    /// An output without a declared type.
    pub fn output(mut self, name: &str) -> Tiny {
        self.0.output.push(info(name, None));
        self
    }
    /// A float constant.
    pub fn constant(mut self, name: &str, dims: &[i64], data: &[f32]) -> Tiny {
        let t = TensorProto {
            name: s(name),
            dims: dims.into(),
            data_type: Some(1),
            float_data: data.into(),
            ..Default::default()
        };
        self.0.initializer.push(t);
        self
    }
    /// A node named after its first output.
    pub fn node(mut self, op: &str, inputs: &[&str], outputs: &[&str]) -> Tiny {
        self.0.node.push(NodeProto {
            op_type: s(op),
            name: s(&format!("make_{}", outputs[0])),
            input: inputs.iter().map(|x| x.to_string()).collect(),
            output: outputs.iter().map(|x| x.to_string()).collect(),
            ..Default::default()
        });
        self
    }
    /// Gives the last node an integer attribute.
    pub fn int(mut self, name: &str, value: i64) -> Tiny {
        let a = AttributeProto {
            name: s(name),
            i: Some(value),
            r#type: Some(AttributeType::Int as i32),
            ..Default::default()
        };
        self.0.node.last_mut().unwrap().attribute.push(a);
        self
    }
    /// The model.
    pub fn model(self) -> ModelProto {
        let pair = |k: &str, v: &str| StringStringEntryProto { key: s(k), value: s(v) };
        ModelProto {
            ir_version: Some(10),
            producer_name: s("tiny"),
            producer_version: s("1.2"),
            domain: s("org.example"),
            model_version: Some(42),
            doc_string: Some("made by a test".into()),
            graph: Some(self.0),
            opset_import: vec![OperatorSetIdProto { domain: s(""), version: Some(21) }],
            metadata_props: vec![pair("classes", "cat,dog"), pair("empty", "")],
            ..Default::default()
        }
    }
    /// The file's bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.model().encode_to_vec()
    }
}

/// `y = x [batch, 3] * w [3, 2]`, with w = 1..6.
pub fn product() -> Vec<u8> {
    Tiny::new("product")
        .input("x", 1, &["batch", "3"])
        .constant("w", &[3, 2], &[1., 2., 3., 4., 5., 6.])
        .node("MatMul", &["x", "w"], &["y"])
        .output("y")
        .bytes()
}
