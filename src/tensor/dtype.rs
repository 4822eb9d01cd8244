//! Every element type of ONNX.

use crate::err;
use crate::error::Result;
use half::{bf16, f16};
use std::fmt;

/// An element type; the numbers are those of `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum DType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    String = 8,
    Bool = 9,
    F16 = 10,
    F64 = 11,
    U32 = 12,
    U64 = 13,
    C64 = 14,
    C128 = 15,
    BF16 = 16,
    F8E4M3FN = 17,
    F8E4M3FNUZ = 18,
    F8E5M2 = 19,
    F8E5M2FNUZ = 20,
    U4 = 21,
    I4 = 22,
    F4E2M1 = 23,
    F8E8M0 = 24,
    U2 = 25,
    I2 = 26,
    F6E2M3 = 27,
    F6E3M2 = 28,
}

use DType::*;

impl DType {
    /// All of them, in the order of their numbers.
    pub const ALL: [DType; 28] = [
        F32, U8, I8, U16, I16, I32, I64, String, Bool, F16, F64, U32, U64, C64, C128, BF16, F8E4M3FN, F8E4M3FNUZ,
        F8E5M2, F8E5M2FNUZ, U4, I4, F4E2M1, F8E8M0, U2, I2, F6E2M3, F6E3M2,
    ];
    /// The type with ONNX's number `n`.
    pub fn from_onnx(n: i32) -> Result<DType> {
        usize::try_from(n)
            .ok()
            .and_then(|i| DType::ALL.get(i.checked_sub(1)?).copied())
            .ok_or_else(|| err!(InvalidModel, "there is no tensor element type {n}"))
    }
    /// ONNX's name, as in `tensor(float16)`.
    pub fn name(self) -> &'static str {
        match self {
            F32 => "float",
            U8 => "uint8",
            I8 => "int8",
            U16 => "uint16",
            I16 => "int16",
            I32 => "int32",
            I64 => "int64",
            String => "string",
            Bool => "bool",
            F16 => "float16",
            F64 => "double",
            U32 => "uint32",
            U64 => "uint64",
            C64 => "complex64",
            C128 => "complex128",
            BF16 => "bfloat16",
            F8E4M3FN => "float8e4m3fn",
            F8E4M3FNUZ => "float8e4m3fnuz",
            F8E5M2 => "float8e5m2",
            F8E5M2FNUZ => "float8e5m2fnuz",
            U4 => "uint4",
            I4 => "int4",
            F4E2M1 => "float4e2m1",
            F8E8M0 => "float8e8m0",
            U2 => "uint2",
            I2 => "int2",
            F6E2M3 => "float6e2m3",
            F6E3M2 => "float6e3m2",
        }
    }
    /// Bits an element takes in a tensor's memory; 0 for strings.
    pub fn bits(self) -> usize {
        match self {
            String => 0,
            U2 | I2 => 2,
            U4 | I4 | F4E2M1 => 4,
            U8 | I8 | Bool | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F6E2M3 | F6E3M2 => 8,
            U16 | I16 | F16 | BF16 => 16,
            F32 | I32 | U32 => 32,
            I64 | U64 | F64 | C64 => 64,
            C128 => 128,
        }
    }
    /// Bytes an element takes, or `None` for strings and packed types.
    pub fn size(self) -> Option<usize> {
        (self.bits() >= 8).then_some(self.bits() / 8)
    }
    /// Bytes that `n` elements take; 0 for strings.
    pub fn byte_len(self, n: usize) -> Result<usize> {
        match self.bits() {
            b @ (2 | 4) => Ok(n.div_ceil(8 / b)),
            b => n.checked_mul(b / 8).ok_or_else(|| err!(OutOfMemory, "{n} elements of {self} pass the address space")),
        }
    }
    /// Alignment of an element in bytes.
    pub fn align(self) -> usize {
        match self {
            C64 => 4,
            C128 => 8,
            d => (d.bits() / 8).max(1),
        }
    }
    /// Whether elements are packed several to a byte.
    pub fn is_packed(self) -> bool {
        matches!(self.bits(), 2 | 4)
    }
    /// Whether it is a real floating-point type of any width.
    pub fn is_float(self) -> bool {
        matches!(self, F32 | F16 | F64 | BF16) || self.is_narrow_float()
    }
    /// Whether it is a floating-point type of 8 bits or fewer.
    pub fn is_narrow_float(self) -> bool {
        matches!(self, F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0 | F6E2M3 | F6E3M2)
    }
    /// Whether it is an integer type (bool is not).
    pub fn is_int(self) -> bool {
        matches!(self, U8 | I8 | U16 | I16 | I32 | I64 | U32 | U64 | U4 | I4 | U2 | I2)
    }
    /// Whether negative values can be said.
    pub fn is_signed(self) -> bool {
        !matches!(self, U8 | U16 | U32 | U64 | U4 | U2 | Bool | String | F8E8M0)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Rust types that are a tensor's elements as they stand in memory.
///
/// # Safety
/// The type must have the size and layout of `DTYPE`, and every bit pattern that a tensor can hold must be valid.
pub unsafe trait Element: Copy + Send + Sync + PartialEq + fmt::Debug + 'static {
    /// The matching dtype.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty => $d:ident),*) => { $(
        // SAFETY: same size, layout and meaning as the dtype; any bits are a value (bool: tensors are normalised to 0
        // and 1 where they enter).
        unsafe impl Element for $t { const DTYPE: DType = DType::$d; }
    )* };
}
elements!(f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
          u8 => U8, u16 => U16, u32 => U32, u64 => U64, bool => Bool);
