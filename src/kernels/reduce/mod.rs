//! Reductions over any axes, the position of the greatest and least, running sums, and the k greatest.

mod generic;
mod plan;
pub mod rows;
#[cfg(test)]
mod tests;

pub use plan::{Reduce, ReduceKind};
