//! Reductions over any axes, the position of the greatest and least, running sums and products, and the k greatest.

mod along;
#[cfg(test)]
mod along_tests;
mod generic;
mod plan;
pub mod rows;
#[cfg(test)]
mod tests;

pub use along::{ArgReduce, Cumulate, TopK};
pub use plan::{Reduce, ReduceKind};
