//! Types and tensors as messages.

use crate::ir::Fact;
use crate::proto::onnx::type_proto::{Map, Optional, Sequence, Tensor as TensorType, Value};
use crate::proto::onnx::{TensorProto, TypeProto};
use crate::tensor::{DType, Tensor};
use bytes::Bytes;

/// The type that a fact promises, without sizes; none where nothing is known.
pub(super) fn type_of(fact: &Fact) -> Option<TypeProto> {
    let inner = |f: &Fact| type_of(f).map(Box::new);
    let value = match fact {
        Fact::Tensor(t) => Value::TensorType(TensorType { elem_type: Some(t.dtype as i32), shape: None }),
        Fact::Sequence(f) => Value::SequenceType(Box::new(Sequence { elem_type: inner(f) })),
        Fact::Optional(f) => Value::OptionalType(Box::new(Optional { elem_type: inner(f) })),
        Fact::Map(k, v) => Value::MapType(Box::new(Map { key_type: Some(*k as i32), value_type: inner(v) })),
        Fact::Absent | Fact::Unknown => return None,
    };
    Some(TypeProto { value: Some(value), ..TypeProto::default() })
}

/// A tensor as a message, but for the raw bytes that belong into it.
pub(super) fn tensor(name: &str, t: &Tensor) -> TensorProto {
    let mut p = TensorProto {
        name: Some(name.into()),
        data_type: Some(t.dtype() as i32),
        dims: t.shape().iter().map(|&d| d as i64).collect(),
        ..TensorProto::default()
    };
    match t.dtype() {
        DType::String => {
            let strings = t.as_strings().unwrap_or_default();
            p.string_data = strings.iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect();
        }
        d if !is_raw(d) => p.int32_data = t.bytes().iter().map(|&b| i32::from(b)).collect(),
        _ => {}
    }
    p
}

/// Whether a file has the elements as memory has them: not strings, nor the floats of 6 bits, a byte each in memory.
pub(super) fn is_raw(dtype: DType) -> bool {
    !matches!(dtype, DType::String | DType::F6E2M3 | DType::F6E3M2)
}
