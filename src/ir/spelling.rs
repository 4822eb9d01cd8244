//! How ONNX says a node: as it was read, or as the canonical operator says itself.

use super::{Graph, Node};
use crate::proto::onnx::AttributeProto;
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::tensor::Tensor;
use std::sync::Arc;

/// An operator of ONNX with its attributes. Graphs among them are not here: they are the node's own
/// ([`Op::subgraphs`](super::Op::subgraphs)), and may have changed since.
#[derive(Clone, Debug)]
pub struct Spelling {
    /// The operator set's domain; empty for the default one.
    pub domain: String,
    /// ONNX's name.
    pub name: String,
    /// The version of the operator set in which name and attributes mean this.
    pub version: u32,
    /// All but the graphs.
    pub attributes: Vec<AttributeProto>,
    /// The names of the attributes that are graphs, in the order of `Op::subgraphs`.
    pub graphs: Vec<String>,
    /// The inputs, where they are not just those of the node.
    pub inputs: Option<Vec<Said>>,
}

/// One input as ONNX has it.
#[derive(Clone, Debug)]
pub enum Said {
    /// Left out.
    Nothing,
    /// The node's input of this number.
    Input(usize),
    /// A constant that the canonical operator holds in itself.
    Constant(Tensor),
}

impl Spelling {
    /// An operator of the default domain at `version`, if that has it: it came with version `since`.
    pub fn since(since: u32, version: u32, name: &str) -> Option<Spelling> {
        (version >= since).then(|| Spelling {
            domain: String::new(),
            name: name.into(),
            version,
            attributes: Vec::new(),
            graphs: Vec::new(),
            inputs: None,
        })
    }
    fn with(mut self, name: &str, of: AttributeType, value: AttributeProto) -> Self {
        self.attributes.push(AttributeProto { name: Some(name.into()), r#type: Some(of as i32), ..value });
        self
    }
    /// Adds an integer.
    pub fn int(self, name: &str, i: i64) -> Self {
        self.with(name, AttributeType::Int, AttributeProto { i: Some(i), ..Default::default() })
    }
    /// Adds a float.
    pub fn float(self, name: &str, f: f32) -> Self {
        self.with(name, AttributeType::Float, AttributeProto { f: Some(f), ..Default::default() })
    }
    /// Adds integers.
    pub fn ints(self, name: &str, ints: impl IntoIterator<Item = i64>) -> Self {
        let ints = ints.into_iter().collect();
        self.with(name, AttributeType::Ints, AttributeProto { ints, ..Default::default() })
    }
    /// Adds a string.
    pub fn string(self, name: &str, s: &'static str) -> Self {
        let s = Some(bytes::Bytes::from_static(s.as_bytes()));
        self.with(name, AttributeType::String, AttributeProto { s, ..Default::default() })
    }
}

impl Node {
    /// How ONNX says it, with version `version` of the default operator set; none if ONNX has no one operator for it.
    pub fn spelled(&self, version: u32) -> Option<Arc<Spelling>> {
        self.spelling.clone().or_else(|| self.op.to_onnx(version, self.inputs.len()).map(Arc::new))
    }
}

impl Graph {
    /// How many nodes there are, here and in the graphs inside, that ONNX has no one operator for.
    pub fn unsaid(&self, version: u32) -> usize {
        let of = |n: &Node| {
            let inside: usize = n.op.subgraphs().into_iter().map(|g| g.unsaid(version)).sum();
            inside + usize::from(n.spelled(version).is_none())
        };
        self.nodes().map(|(_, n)| of(n)).sum()
    }
}
