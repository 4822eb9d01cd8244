//! Small models for tests, made on the spot.

use bytes::Bytes;
use ortx::Tensor;
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

/// A tensor's message.
pub fn message(name: &str, t: &Tensor) -> TensorProto {
    let dims = t.shape().iter().map(|&n| n as i64).collect();
    let mut found = TensorProto { name: s(name), dims, data_type: Some(t.dtype() as i32), ..Default::default() };
    match t.as_strings() {
        Ok(strings) => found.string_data = strings.iter().map(|s| s.clone().into_bytes().into()).collect(),
        Err(_) => found.raw_data = Some(Bytes::copy_from_slice(t.bytes())),
    }
    found
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
    /// A tensor output; sizes are numbers, or names, or `?`.
    pub fn output_of(mut self, name: &str, dtype: i32, dims: &[&str]) -> Tiny {
        self.0.output.push(info(name, Some(tensor_type(dtype, dims))));
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
    /// An integer constant.
    pub fn numbers(mut self, name: &str, dims: &[i64], data: &[i64]) -> Tiny {
        let t = TensorProto {
            name: s(name),
            dims: dims.into(),
            data_type: Some(7),
            int64_data: data.into(),
            ..Default::default()
        };
        self.0.initializer.push(t);
        self
    }
    /// A float constant of small values that differ.
    pub fn weights(self, name: &str, dims: &[i64]) -> Tiny {
        let n = dims.iter().product::<i64>();
        let data: Vec<f32> = (0..n).map(|i| ((i * 37 + 11) % 101) as f32 / 200.0 - 0.25).collect();
        self.constant(name, dims, &data)
    }
    /// A constant made elsewhere.
    pub fn initializer(mut self, t: TensorProto) -> Tiny {
        self.0.initializer.push(t);
        self
    }
    /// Gives the last node an attribute that is a list of integers.
    pub fn ints(self, name: &str, value: &[i64]) -> Tiny {
        let ty = AttributeType::Ints as i32;
        self.attribute(AttributeProto { name: s(name), ints: value.into(), r#type: Some(ty), ..Default::default() })
    }
    /// Gives the last node an attribute that is a list of numbers.
    pub fn floats(self, name: &str, value: &[f32]) -> Tiny {
        let ty = AttributeType::Floats as i32;
        self.attribute(AttributeProto { name: s(name), floats: value.into(), r#type: Some(ty), ..Default::default() })
    }
    /// Makes the last node one of `ai.onnx.ml`.
    pub fn ml(mut self) -> Tiny {
        self.0.node.last_mut().unwrap().domain = s("ai.onnx.ml");
        self
    }
    /// Gives the last node an attribute that is text.
    pub fn text(self, name: &str, value: &'static str) -> Tiny {
        let ty = AttributeType::String as i32;
        self.attribute(AttributeProto {
            name: s(name),
            s: Some(value.as_bytes().into()),
            r#type: Some(ty),
            ..Default::default()
        })
    }
    /// Gives the last node an attribute that is a graph.
    pub fn graph(self, name: &str, body: Tiny) -> Tiny {
        let ty = AttributeType::Graph as i32;
        self.attribute(AttributeProto {
            name: s(name),
            g: Some(Box::new(body.0)),
            r#type: Some(ty),
            ..Default::default()
        })
    }
    /// Gives the last node an attribute that is a number.
    pub fn float(self, name: &str, value: f32) -> Tiny {
        let ty = AttributeType::Float as i32;
        self.attribute(AttributeProto { name: s(name), f: Some(value), r#type: Some(ty), ..Default::default() })
    }
    /// Gives the last node an attribute that is a tensor.
    pub fn value(self, name: &str, value: &Tensor) -> Tiny {
        let ty = AttributeType::Tensor as i32;
        let t = Some(Box::new(message("", value)));
        self.attribute(AttributeProto { name: s(name), t, r#type: Some(ty), ..Default::default() })
    }
    fn attribute(mut self, a: AttributeProto) -> Tiny {
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

/// One block of a small transformer over `ids [batch, seq]`: embeddings, attention of two heads, feed-forward.
pub fn transformer() -> Tiny {
    let (width, heads, vocabulary) = (16, 2, 40);
    let project = |t: Tiny, name: &str| {
        let (w, b) = (format!("{name}.w"), format!("{name}.b"));
        t.weights(&w, &[width, width])
            .weights(&b, &[width])
            .node("MatMul", &["h", &w], &[&format!("{name}0")])
            .node("Add", &[&format!("{name}0"), &b], &[&format!("{name}1")])
            .node("Reshape", &[&format!("{name}1"), "split"], &[&format!("{name}2")])
            .int("allowzero", 0)
    };
    let t = Tiny::new("transformer")
        .input("ids", 7, &["batch", "seq"])
        .weights("table", &[vocabulary, width])
        .numbers("split", &[4], &[0, 0, heads, width / heads])
        .numbers("join", &[3], &[0, 0, width])
        .constant("scale", &[], &[0.35])
        .weights("gain", &[width])
        .weights("shift", &[width])
        .node("Gather", &["table", "ids"], &["h"]);
    let t = project(project(project(t, "q"), "k"), "v")
        .node("Transpose", &["q2"], &["q"])
        .ints("perm", &[0, 2, 1, 3])
        .node("Transpose", &["k2"], &["k"])
        .ints("perm", &[0, 2, 3, 1])
        .node("Transpose", &["v2"], &["v"])
        .ints("perm", &[0, 2, 1, 3])
        .node("MatMul", &["q", "k"], &["scores0"])
        .node("Mul", &["scores0", "scale"], &["scores"])
        .node("Softmax", &["scores"], &["p"])
        .int("axis", -1)
        .node("MatMul", &["p", "v"], &["mixed"])
        .node("Transpose", &["mixed"], &["mixed1"])
        .ints("perm", &[0, 2, 1, 3])
        .node("Reshape", &["mixed1", "join"], &["mixed2"])
        .node("Add", &["mixed2", "h"], &["sum"])
        .node("LayerNormalization", &["sum", "gain", "shift"], &["normed"])
        .int("axis", -1);
    t.weights("up", &[width, 4 * width])
        .weights("down", &[4 * width, width])
        .node("MatMul", &["normed", "up"], &["wide"])
        .node("Gelu", &["wide"], &["wide1"])
        .node("MatMul", &["wide1", "down"], &["narrow"])
        .node("Add", &["narrow", "normed"], &["y"])
        .output("y")
}

/// One block of a small decoder: `ids [batch, seq]` attend to themselves and to a past, which grows. A bias by position is
/// made by arithmetic on sizes.
pub fn decoder() -> Tiny {
    let (width, heads, vocabulary) = (16, 2, 40);
    let project = |t: Tiny, name: &str| {
        let w = format!("{name}.w");
        t.weights(&w, &[width, width])
            .node("MatMul", &["h", &w], &[&format!("{name}0")])
            .node("Reshape", &[&format!("{name}0"), "split"], &[&format!("{name}1")])
            .node("Transpose", &[&format!("{name}1")], &[&format!("{name}2")])
            .ints("perm", &[0, 2, 1, 3])
    };
    let t = Tiny::new("decoder")
        .input("ids", 7, &["batch", "seq"])
        .input("past_k", 1, &["batch", "2", "past", "8"])
        .input("past_v", 1, &["batch", "2", "past", "8"])
        .weights("table", &[vocabulary, width])
        .numbers("split", &[4], &[0, 0, heads, width / heads])
        .numbers("join", &[3], &[0, 0, width])
        .numbers("zero", &[], &[0])
        .numbers("one", &[], &[1])
        .numbers("two", &[], &[2])
        .constant("slope", &[], &[-0.03])
        .weights("gain", &[width])
        .node("Gather", &["table", "ids"], &["h"]);
    let t = project(project(project(t, "q"), "k"), "v")
        .node("Concat", &["past_k", "k2"], &["present_k"])
        .int("axis", 2)
        .node("Concat", &["past_v", "v2"], &["present_v"])
        .int("axis", 2)
        .node("Transpose", &["present_k"], &["kt"])
        .ints("perm", &[0, 1, 3, 2])
        .node("MatMul", &["q2", "kt"], &["scores0"])
        .node("Shape", &["present_k"], &["sizes"])
        .node("Gather", &["sizes", "two"], &["total"])
        .node("Range", &["zero", "total", "one"], &["positions"])
        .node("Cast", &["positions"], &["places"])
        .int("to", 1)
        .node("Mul", &["places", "slope"], &["bias"])
        .node("Add", &["scores0", "bias"], &["scores"])
        .node("Softmax", &["scores"], &["p"])
        .int("axis", -1)
        .node("MatMul", &["p", "present_v"], &["mixed"])
        .node("Transpose", &["mixed"], &["mixed1"])
        .ints("perm", &[0, 2, 1, 3])
        .node("Reshape", &["mixed1", "join"], &["mixed2"])
        .node("Add", &["mixed2", "h"], &["sum"])
        .node("Mul", &["sum", "gain"], &["normed"]);
    (0..4)
        .fold(t, |t, i| {
            let (w, from, to) = (format!("w{i}"), format!("layer{i}"), format!("layer{}", i + 1));
            let from = if i == 0 { "normed" } else { &*from };
            let (a, b) = (format!("{to}.a"), format!("{to}.b"));
            t.weights(&w, &[width, width])
                .node("MatMul", &[from, &w], &[&a])
                .node("Gelu", &[&a], &[&b])
                .node("LayerNormalization", &[&b, "gain"], &[&to])
                .int("axis", -1)
        })
        .output("layer4")
        .output("present_k")
        .output("present_v")
}
