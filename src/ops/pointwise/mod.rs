//! Elementwise operators: functions of one, two or more operands, Clip and Where, and the fused programs they become.

mod binary;
mod cases;
mod contents;
mod fused;
#[cfg(feature = "opencl")]
mod opencl;
mod unary;
mod variadic;

pub use binary::{Binary, BinaryFn};
pub use fused::{Bound, MAX_INPUTS, Pointwise, Source, bind_kernel, is_programs, program_of};
pub use unary::{Unary, UnaryFn};
pub use variadic::{Clip, Variadic, VariadicFn, Where};

#[cfg(feature = "opencl")]
use binary::right_shape;
#[cfg(feature = "opencl")]
pub(super) use opencl::add_program;

use super::Family;

pub(super) const UNARY: Family =
    Family { name: "functions of one operand", ops: unary::OPS, cpu: unary::cpu, cases: cases::unary, ..Family::EMPTY };
pub(super) const BINARY: Family = Family {
    name: "functions of two operands",
    ops: binary::OPS,
    cpu: binary::cpu,
    cases: cases::binary,
    ..Family::EMPTY
};
pub(super) const VARIADIC: Family = Family {
    name: "functions of several operands",
    ops: variadic::OPS,
    cpu: variadic::cpu,
    cases: cases::variadic,
    ..Family::EMPTY
};
pub(super) const FUSED: Family = Family {
    name: "pointwise programs",
    cpu: fused::cpu,
    // Of all elementwise operators.
    #[cfg(feature = "opencl")]
    opencl: opencl::add,
    ..Family::EMPTY
};
