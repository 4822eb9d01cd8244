//! From tensors' element types to those of kernels.

use crate::err;
use crate::error::Result;
use crate::kernels::elem::Elem;
use crate::tensor::DType;

/// The kernels' name of a type; `None` for strings, complex numbers, and types of 8 bits or fewer that are no integers.
pub fn elem(d: DType) -> Option<Elem> {
    Some(match d {
        DType::F32 => Elem::F32,
        DType::F64 => Elem::F64,
        DType::F16 => Elem::F16,
        DType::BF16 => Elem::Bf16,
        DType::I8 => Elem::I8,
        DType::I16 => Elem::I16,
        DType::I32 => Elem::I32,
        DType::I64 => Elem::I64,
        DType::U8 => Elem::U8,
        DType::U16 => Elem::U16,
        DType::U32 => Elem::U32,
        DType::U64 => Elem::U64,
        DType::Bool => Elem::Bool,
        _ => return None,
    })
}

/// The kernels' name of a type, or `Unsupported` naming what lacks it.
pub fn need_elem(d: DType, what: &str) -> Result<Elem> {
    elem(d).ok_or_else(|| err!(Unsupported, "{what} of {d}"))
}

/// Bytes of an element that is moved as a whole, or `Unsupported` for strings and packed types.
pub fn need_size(d: DType, what: &str) -> Result<usize> {
    d.size().ok_or_else(|| err!(Unsupported, "{what} of {d}"))
}
