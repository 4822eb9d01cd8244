//! IR to ONNX: the way back from `import`. Every node keeps the spelling it was read with, or says itself.

mod graph;
mod types;
mod write;

pub use graph::{Exported, default_version, export};
pub use write::{externalise, write};
