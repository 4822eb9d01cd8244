//! Graph passes: from the graph as imported to the one that is planned.

pub mod pass;
pub mod passes;
pub mod pattern;
pub mod pipeline;

pub use pass::{Pass, PassCtx, PassReport};
pub use pipeline::{Options, optimize, optimize_with};
