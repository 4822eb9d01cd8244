//! Elementwise work with broadcasting: [`Program`]s over f32 registers run tile by tile, and one loop an operator and type
//! for every other element type.

mod activation;
mod cast;
mod generic;
mod instructions;
mod program;
mod select;
#[cfg(test)]
mod tests;
mod tiles;

pub use cast::Cast;
pub use generic::{Binary, BinaryKind, Unary, UnaryKind, binary_result};
pub use program::{BinaryOp, Instruction, Program, ProgramBuilder, Register, TernaryOp, UnaryOp};
pub use select::Select;
pub use tiles::{Operand, Pointwise};

/// Elements a task has, about: some microseconds of work.
const GRAIN: usize = 32 * 1024;
