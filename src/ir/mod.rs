//! The intermediate representation: what is known of each value, graphs of canonical operators, and the operators' registry.

pub mod build;
pub mod dim;
pub mod dump;
pub mod edit;
pub mod fact;
pub mod graph;
mod named;
pub mod op;
pub mod parse;
pub mod spelling;
pub mod verify;

pub use dim::Dim;
pub use fact::{Contents, Fact, TensorFact};
pub use graph::{Graph, Node, NodeId, ValueId, ValueInfo};
pub use op::{Alias, InferCtx, Op, OpDef, Region, Registry, elements};
pub use parse::{ParseCtx, Subgraph};
pub use spelling::{Said, Spelling};
