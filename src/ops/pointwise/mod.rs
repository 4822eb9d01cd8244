//! Elementwise operators: functions of one, two or more operands, Clip and Where, and the fused programs they become.

mod binary;
mod contents;
mod fused;
mod unary;
mod variadic;

pub use binary::{Binary, BinaryFn};
pub use fused::{Pointwise, is_programs};
pub use unary::{Unary, UnaryFn};
pub use variadic::{Clip, Variadic, VariadicFn, Where};

use super::Family;

pub(super) const FAMILY: Family = Family {
    name: "pointwise",
    ops: &[unary::OPS, binary::OPS, variadic::OPS],
    cpu: |b| {
        binary::cpu(b);
        fused::cpu(b);
        unary::cpu(b);
        variadic::cpu(b);
    },
};
