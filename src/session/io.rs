//! A model's inputs, outputs, and what it says of itself.

use crate::ir::{Dim, Fact, Graph, ValueId};
use crate::proto::onnx::ModelProto;
use crate::tensor::Value;
use crate::{bail, error::Result};
use std::sync::Arc;

/// An input or output.
#[derive(Clone, Debug)]
pub struct Io {
    /// Its name.
    pub name: Arc<str>,
    /// Its type and axes; sizes may be symbols (`batch`) or unknown.
    pub fact: Fact,
}

/// What a graph tells of one of its inputs or outputs.
pub(super) fn described(graph: &Graph, v: ValueId) -> Io {
    Io { name: graph.value(v).name.clone(), fact: graph.fact(v).without_contents() }
}

impl Io {
    /// Fails unless a value has the type, rank and known sizes. What the model leaves open fits anything.
    pub fn check(&self, v: &Value) -> Result<()> {
        check(&self.fact, v).map_err(|e| e.context(format!("input '{}'", self.name)))
    }
}

fn check(fact: &Fact, v: &Value) -> Result<()> {
    match (fact, v) {
        (Fact::Unknown, _) => Ok(()),
        (Fact::Tensor(f), Value::Tensor(t)) => {
            if t.dtype() != f.dtype {
                bail!(InvalidArgument, "the model takes {}, the tensor is {}", f.dtype, t.dtype());
            }
            let Some(dims) = &f.dims else { return Ok(()) };
            // A lone number passes for a scalar, as it does in onnxruntime.
            if dims.is_empty() && t.len() == 1 {
                return Ok(());
            }
            if dims.len() != t.shape().len() {
                bail!(
                    InvalidArgument,
                    "the model takes {f} of rank {}, the tensor has shape {:?}",
                    dims.len(),
                    t.shape()
                );
            }
            for (axis, (d, &n)) in dims.iter().zip(t.shape()).enumerate() {
                if d.known().is_some_and(|k| *d != Dim::of(n) && k >= 0) {
                    bail!(
                        InvalidArgument,
                        "the model takes {f}, the tensor has shape {:?}: axis {axis} must be {d}",
                        t.shape()
                    );
                }
            }
            Ok(())
        }
        (Fact::Sequence(e), Value::Sequence(s)) => s.iter().try_for_each(|v| check(&e.without_contents(), v)),
        (Fact::Optional(e), Value::Optional(o)) => o.as_deref().map_or(Ok(()), |v| check(e, v)),
        // An optional input takes a plain value too.
        (Fact::Optional(e), v) => check(e, v),
        (Fact::Map(..), Value::Map(_)) => Ok(()),
        (f, v) => bail!(InvalidArgument, "the model takes {f}, it is given {}", v.kind()),
    }
}

/// What a model says of itself.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// The tool that wrote it, and its version.
    pub producer: (String, String),
    /// The main graph's name.
    pub graph_name: String,
    /// The model's own domain and version.
    pub domain: String,
    /// As above.
    pub version: i64,
    /// Free text.
    pub doc: String,
    /// Version of the file format.
    pub ir_version: i64,
    /// Operator sets and their versions.
    pub opsets: Vec<(String, u32)>,
    /// Key/value pairs.
    pub properties: Vec<(String, String)>,
}

impl Metadata {
    pub(super) fn of(m: &ModelProto, opsets: Vec<(String, u32)>) -> Metadata {
        Metadata {
            producer: (m.producer_name().into(), m.producer_version().into()),
            graph_name: m.graph.as_ref().map_or("", |g| g.name()).into(),
            domain: m.domain().into(),
            version: m.model_version(),
            doc: m.doc_string.as_ref().map(|d| String::from_utf8_lossy(d).into_owned()).unwrap_or_default(),
            ir_version: m.ir_version(),
            opsets,
            properties: m.metadata_props.iter().map(|p| (p.key().into(), p.value().into())).collect(),
        }
    }
}
