//! ONNX to IR: names become values, versioned operators become canonical ones, functions are inlined, subgraphs closed.

mod gap;
mod graph;
mod order;
mod survey;
mod tensor;
mod types;

pub use gap::{Gap, Reason};
pub use graph::{
    Imported, import_model, import_overridable, import_to_keep, import_with_gaps, initialised_inputs, opset_list,
    overridable_inputs,
};
pub use survey::{OperatorUse, Weights, survey, weights};
pub use tensor::{tensor_from_proto, value_from_map, value_from_optional, value_from_sequence};
pub use types::fact_from_type;
