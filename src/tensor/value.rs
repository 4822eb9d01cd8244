//! What a model takes and gives: tensors, sequences, optionals, maps.

use super::Tensor;
use crate::bail;
use crate::error::Result;
use std::sync::Arc;

/// A value at a model's or an operator's edge. Cloning shares storage.
#[derive(Clone, Debug)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// A sequence of values of one type.
    Sequence(SequenceValue),
    /// A value that may be missing.
    Optional(Option<Box<Value>>),
    /// Keys with values.
    Map(MapValue),
}

/// A sequence of values.
pub type SequenceValue = Arc<Vec<Value>>;

/// A map: a one-dimensional tensor of integer or string keys, and a value (a tensor or sequence) with an entry a key.
#[derive(Clone, Debug)]
pub struct MapValue {
    /// Integers or strings, without repeats.
    pub keys: Tensor,
    /// As many entries as there are keys.
    pub values: Box<Value>,
}

impl Value {
    /// The tensor, or an error that names what there is instead.
    pub fn as_tensor(&self) -> Result<&Tensor> {
        match self {
            Value::Tensor(t) => Ok(t),
            v => bail!(InvalidArgument, "a tensor is needed here, not {}", v.kind()),
        }
    }
    /// The sequence's values, or an error that names what there is instead.
    pub fn as_sequence(&self) -> Result<&SequenceValue> {
        match self {
            Value::Sequence(s) => Ok(s),
            v => bail!(InvalidArgument, "a sequence is needed here, not {}", v.kind()),
        }
    }
    /// "a tensor", "a sequence", ...
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Tensor(_) => "a tensor",
            Value::Sequence(_) => "a sequence",
            Value::Optional(_) => "an optional",
            Value::Map(_) => "a map",
        }
    }
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Self {
        Value::Tensor(t)
    }
}
