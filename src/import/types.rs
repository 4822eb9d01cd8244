//! Types as the file says them.

use crate::bail;
use crate::base::checked;
use crate::error::Result;
use crate::ir::{Dim, Fact};
use crate::proto::onnx::tensor_shape_proto::dimension::Value as DimValue;
use crate::proto::onnx::{TensorShapeProto, TypeProto, type_proto::Value};
use crate::tensor::DType;

/// The fact that a type promises; `Unknown` where it says nothing.
pub fn fact_from_type(t: Option<&TypeProto>) -> Result<Fact> {
    let Some(value) = t.and_then(|t| t.value.as_ref()) else { return Ok(Fact::Unknown) };
    Ok(match value {
        Value::TensorType(t) => tensor(t.elem_type(), t.shape.as_ref())?,
        Value::SequenceType(s) => Fact::Sequence(Box::new(fact_from_type(s.elem_type.as_deref())?)),
        Value::OptionalType(o) => Fact::Optional(Box::new(fact_from_type(o.elem_type.as_deref())?)),
        Value::MapType(m) => {
            Fact::Map(DType::from_onnx(m.key_type())?, Box::new(fact_from_type(m.value_type.as_deref())?))
        }
        Value::SparseTensorType(t) => tensor(t.elem_type(), t.shape.as_ref())?,
        Value::OpaqueType(o) => bail!(Unsupported, "opaque type '{}::{}'", o.domain(), o.name()),
    })
}

fn tensor(elem: i32, shape: Option<&TensorShapeProto>) -> Result<Fact> {
    if elem == 0 {
        return Ok(Fact::Unknown);
    }
    let dtype = DType::from_onnx(elem)?;
    let fact = match shape {
        None => Fact::any_tensor(dtype),
        Some(s) => Fact::tensor(
            dtype,
            s.dim
                .iter()
                .map(|d| match &d.value {
                    // Some exporters write -1 for "any".
                    Some(DimValue::DimValue(n)) if *n >= 0 => Dim::Known(*n),
                    Some(DimValue::DimParam(p)) if !p.is_empty() => Dim::named(p),
                    _ => Dim::Unknown,
                })
                .collect(),
        ),
    };
    if let Some(shape) = fact.shape() {
        checked::product(&shape)?;
    }
    Ok(fact)
}
