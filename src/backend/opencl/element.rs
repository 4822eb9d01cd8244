//! The element types of pointwise programs in memory, and how OpenCL C reads and writes them as floats.

use crate::tensor::DType;

/// An element type in memory; programs compute in f32. Wide integers lose what a float has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A float.
    F32,
    /// Half precision. Any device reads and writes it; computing in it is not needed.
    F16,
    /// The upper half of a float.
    BF16,
    /// A byte, 0 or 1.
    Bool,
    /// An unsigned byte.
    U8,
    /// A signed byte.
    I8,
    /// 32 bits with a sign.
    I32,
    /// 64 bits with a sign.
    I64,
}

impl Type {
    /// The type of a tensor's elements, if programs take it.
    pub fn of(d: DType) -> Option<Type> {
        Some(match d {
            DType::F32 => Type::F32,
            DType::F16 => Type::F16,
            DType::BF16 => Type::BF16,
            DType::Bool => Type::Bool,
            DType::U8 => Type::U8,
            DType::I8 => Type::I8,
            DType::I32 => Type::I32,
            DType::I64 => Type::I64,
            _ => return None,
        })
    }
    /// Whether it is a number with a fraction.
    pub fn is_float(self) -> bool {
        matches!(self, Type::F32 | Type::F16 | Type::BF16)
    }
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Type::I64 => 8,
            Type::F32 | Type::I32 => 4,
            Type::F16 | Type::BF16 => 2,
            Type::Bool | Type::U8 | Type::I8 => 1,
        }
    }
    /// What its memory is declared as.
    pub fn c_type(self) -> &'static str {
        match self {
            Type::F32 => "float",
            Type::F16 | Type::BF16 => "ushort",
            Type::Bool | Type::U8 => "uchar",
            Type::I8 => "char",
            Type::I32 => "int",
            Type::I64 => "long",
        }
    }
    /// The element at a place, as a float.
    pub fn load(self, place: &str) -> String {
        match self {
            Type::F32 => format!("*({place})"),
            Type::F16 => format!("vload_half(0, (__global const half *)({place}))"),
            Type::BF16 => format!("as_float((uint)*({place}) << 16)"),
            _ => format!("(float)*({place})"),
        }
    }
    /// Neighbouring elements, as a vector of floats.
    pub fn load_vector(self, place: &str, lanes: usize) -> String {
        match self {
            Type::F32 => format!("vload{lanes}(0, {place})"),
            Type::F16 => format!("vload_half{lanes}(0, (__global const half *)({place}))"),
            Type::BF16 => format!("as_float{lanes}(convert_uint{lanes}(vload{lanes}(0, {place})) << 16)"),
            _ => format!("convert_float{lanes}(vload{lanes}(0, {place}))"),
        }
    }
    /// The statement that writes a float to a place.
    pub fn store(self, place: &str, value: &str) -> String {
        match self {
            Type::F32 => format!("*({place}) = {value};\n"),
            Type::F16 => format!("vstore_half_rte({value}, 0, (__global half *)({place}));\n"),
            Type::BF16 => format!("*({place}) = to_bf16({value});\n"),
            Type::Bool => format!("*({place}) = (uchar)({value} != 0.0f);\n"),
            t => format!("*({place}) = convert_{}_sat_rtz({value});\n", t.c_type()),
        }
    }
    /// The statement that writes a vector of floats to neighbouring places.
    pub fn store_vector(self, place: &str, value: &str, lanes: usize) -> String {
        match self {
            Type::F32 => format!("vstore{lanes}({value}, 0, {place});\n"),
            Type::F16 => format!("vstore_half{lanes}_rte({value}, 0, (__global half *)({place}));\n"),
            Type::BF16 => {
                (0..lanes).map(|l| self.store(&format!("{place} + {l}"), &format!("{value}.s{l:x}"))).collect()
            }
            // A true lane is -1.
            Type::Bool => {
                format!("vstore{lanes}(convert_uchar{lanes}(-({value} != (float{lanes})(0.0f))), 0, {place});\n")
            }
            t => format!("vstore{lanes}(convert_{}{lanes}_sat_rtz({value}), 0, {place});\n", t.c_type()),
        }
    }
}
