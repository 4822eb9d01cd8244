//! ONNX to IR: names become values, versioned operators become canonical ones, functions are inlined, subgraphs closed.

mod graph;
mod order;
mod tensor;
mod types;

pub use graph::{Imported, Missing, import_model};
pub use tensor::{tensor_from_proto, value_from_map, value_from_optional, value_from_sequence};
pub use types::fact_from_type;
