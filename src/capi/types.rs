//! The header's numbers: codes, element types, kinds, instruction sets.

use crate::error::Result;
use crate::kernels::isa::Level;
use crate::tensor::DType;
use crate::{bail, err};

/// What went wrong; ORTX_OK where nothing did. Numbers are never changed, but may be added: treat one that you do not know
/// as ORTX_ERROR_INTERNAL.
pub type ortx_code = i32;
/// Success.
pub const ORTX_OK: ortx_code = 0;
/// An argument is wrong: NULL, a wrong element type, rank, name or count.
pub const ORTX_ERROR_INVALID_ARGUMENT: ortx_code = 1;
/// The model file is damaged or breaks the ONNX specification.
pub const ORTX_ERROR_INVALID_MODEL: ortx_code = 2;
/// The model is fine, but something in it is not supported here.
pub const ORTX_ERROR_UNSUPPORTED: ortx_code = 3;
/// A file, name or device does not exist.
pub const ORTX_ERROR_NOT_FOUND: ortx_code = 4;
/// The operating system refused a read, a write or a mapping.
pub const ORTX_ERROR_IO: ortx_code = 5;
/// Memory ran out, or a memory limit was reached.
pub const ORTX_ERROR_OUT_OF_MEMORY: ortx_code = 6;
/// The values met while running make the operation impossible (an index out of range, a division by zero).
pub const ORTX_ERROR_RUN: ortx_code = 7;
/// The run was cancelled, or its time was over.
pub const ORTX_ERROR_CANCELLED: ortx_code = 8;
/// A device or its driver failed.
pub const ORTX_ERROR_DEVICE: ortx_code = 9;
/// A fault of ortx itself: please report it.
pub const ORTX_ERROR_INTERNAL: ortx_code = 10;

/// An element type. The numbers are those of ONNX's TensorProto.DataType. Elements of fewer than 8 bits are packed, the
/// first in the low bits of each byte; of the other types each element takes whole bytes, in the machine's byte order.
pub type ortx_dtype = i32;
/// No tensor, or a type that is not known.
pub const ORTX_DTYPE_UNDEFINED: ortx_dtype = 0;
pub const ORTX_DTYPE_FLOAT32: ortx_dtype = 1;
pub const ORTX_DTYPE_UINT8: ortx_dtype = 2;
pub const ORTX_DTYPE_INT8: ortx_dtype = 3;
pub const ORTX_DTYPE_UINT16: ortx_dtype = 4;
pub const ORTX_DTYPE_INT16: ortx_dtype = 5;
pub const ORTX_DTYPE_INT32: ortx_dtype = 6;
pub const ORTX_DTYPE_INT64: ortx_dtype = 7;
/// UTF-8 text of any length; reached with ortx_tensor_string, not through a data pointer.
pub const ORTX_DTYPE_STRING: ortx_dtype = 8;
/// One byte, 0 or 1.
pub const ORTX_DTYPE_BOOL: ortx_dtype = 9;
/// IEEE 754 binary16.
pub const ORTX_DTYPE_FLOAT16: ortx_dtype = 10;
pub const ORTX_DTYPE_FLOAT64: ortx_dtype = 11;
pub const ORTX_DTYPE_UINT32: ortx_dtype = 12;
pub const ORTX_DTYPE_UINT64: ortx_dtype = 13;
/// Two float32: real, imaginary.
pub const ORTX_DTYPE_COMPLEX64: ortx_dtype = 14;
/// Two float64: real, imaginary.
pub const ORTX_DTYPE_COMPLEX128: ortx_dtype = 15;
/// The upper half of a float32.
pub const ORTX_DTYPE_BFLOAT16: ortx_dtype = 16;
pub const ORTX_DTYPE_FLOAT8E4M3FN: ortx_dtype = 17;
pub const ORTX_DTYPE_FLOAT8E4M3FNUZ: ortx_dtype = 18;
pub const ORTX_DTYPE_FLOAT8E5M2: ortx_dtype = 19;
pub const ORTX_DTYPE_FLOAT8E5M2FNUZ: ortx_dtype = 20;
/// Two to a byte.
pub const ORTX_DTYPE_UINT4: ortx_dtype = 21;
/// Two to a byte.
pub const ORTX_DTYPE_INT4: ortx_dtype = 22;
/// Two to a byte.
pub const ORTX_DTYPE_FLOAT4E2M1: ortx_dtype = 23;
/// A power of two.
pub const ORTX_DTYPE_FLOAT8E8M0: ortx_dtype = 24;
/// Four to a byte.
pub const ORTX_DTYPE_UINT2: ortx_dtype = 25;
/// Four to a byte.
pub const ORTX_DTYPE_INT2: ortx_dtype = 26;
/// One to a byte.
pub const ORTX_DTYPE_FLOAT6E2M3: ortx_dtype = 27;
/// One to a byte.
pub const ORTX_DTYPE_FLOAT6E3M2: ortx_dtype = 28;

/// What kind of thing a value is.
pub type ortx_kind = i32;
/// Not known before the model runs.
pub const ORTX_KIND_UNKNOWN: ortx_kind = 0;
pub const ORTX_KIND_TENSOR: ortx_kind = 1;
/// A list of values of one type.
pub const ORTX_KIND_SEQUENCE: ortx_kind = 2;
/// A value that may be missing.
pub const ORTX_KIND_OPTIONAL: ortx_kind = 3;
/// Integer or string keys, each with a value.
pub const ORTX_KIND_MAP: ortx_kind = 4;

/// A level of processor instructions, each including those before it.
pub type ortx_isa = i32;
/// In options: the processor's highest level.
pub const ORTX_ISA_DEFAULT: ortx_isa = 0;
/// Nothing beyond what every processor of the family has.
pub const ORTX_ISA_SCALAR: ortx_isa = 1;
/// x86-64 with AVX2, FMA and F16C.
pub const ORTX_ISA_AVX2: ortx_isa = 2;
/// x86-64 with AVX-512 F, BW, DQ and VL.
pub const ORTX_ISA_AVX512: ortx_isa = 3;

/// What kind of processor a device is.
pub type ortx_device_type = i32;
/// The host's processor, or one like it.
pub const ORTX_DEVICE_CPU: ortx_device_type = 1;
pub const ORTX_DEVICE_GPU: ortx_device_type = 2;
/// An FPGA or another dedicated processor.
pub const ORTX_DEVICE_ACCELERATOR: ortx_device_type = 3;

/// The element type of a number from C.
pub(super) fn dtype(n: ortx_dtype) -> Result<DType> {
    DType::from_onnx(n).map_err(|_| err!(InvalidArgument, "there is no element type {n}"))
}

pub(super) fn isa(level: Level) -> ortx_isa {
    match level {
        Level::Scalar => ORTX_ISA_SCALAR,
        Level::Avx2 => ORTX_ISA_AVX2,
        Level::Avx512 => ORTX_ISA_AVX512,
    }
}

pub(super) fn level(isa: ortx_isa) -> Result<Option<Level>> {
    Ok(Some(match isa {
        ORTX_ISA_DEFAULT => return Ok(None),
        ORTX_ISA_SCALAR => Level::Scalar,
        ORTX_ISA_AVX2 => Level::Avx2,
        ORTX_ISA_AVX512 => Level::Avx512,
        n => bail!(InvalidArgument, "there is no instruction set level {n}"),
    }))
}

/// A bool from C: zero or one.
pub(super) fn truth(n: i32, field: &str) -> Result<bool> {
    match n {
        0 => Ok(false),
        1 => Ok(true),
        n => bail!(InvalidArgument, "'{field}' must be 0 or 1, it is {n}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind::*;

    #[test]
    fn the_numbers_are_those_of_the_library() {
        let codes = [
            (ORTX_ERROR_INVALID_ARGUMENT, InvalidArgument),
            (ORTX_ERROR_INVALID_MODEL, InvalidModel),
            (ORTX_ERROR_UNSUPPORTED, Unsupported),
            (ORTX_ERROR_NOT_FOUND, NotFound),
            (ORTX_ERROR_IO, Io),
            (ORTX_ERROR_OUT_OF_MEMORY, OutOfMemory),
            (ORTX_ERROR_RUN, Run),
            (ORTX_ERROR_CANCELLED, Cancelled),
            (ORTX_ERROR_DEVICE, Device),
            (ORTX_ERROR_INTERNAL, Internal),
        ];
        for (n, (code, kind)) in codes.into_iter().enumerate() {
            assert_eq!((code, kind as i32), (n as i32 + 1, n as i32 + 1));
        }
        let dtypes = [
            (ORTX_DTYPE_FLOAT32, DType::F32),
            (ORTX_DTYPE_STRING, DType::String),
            (ORTX_DTYPE_BOOL, DType::Bool),
            (ORTX_DTYPE_COMPLEX128, DType::C128),
            (ORTX_DTYPE_BFLOAT16, DType::BF16),
            (ORTX_DTYPE_UINT4, DType::U4),
            (ORTX_DTYPE_FLOAT8E8M0, DType::F8E8M0),
            (ORTX_DTYPE_INT2, DType::I2),
            (ORTX_DTYPE_FLOAT6E3M2, DType::F6E3M2),
        ];
        for (n, d) in dtypes {
            assert_eq!((dtype(n).unwrap(), d as i32), (d, n));
        }
        for n in [i32::MIN, -1, 0, 29] {
            assert_eq!(dtype(n).unwrap_err().kind(), InvalidArgument);
        }
        for l in [Level::Scalar, Level::Avx2, Level::Avx512] {
            assert_eq!(level(isa(l)).unwrap(), Some(l));
        }
        assert!(truth(2, "x").is_err() && level(4).is_err());
    }
}
