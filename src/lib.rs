//! ortx runs ONNX models on the CPU and on any OpenCL device.
//!
//! # The layers
//! Each module imports only from modules above it in this list (`tests/layers.rs` checks).
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | [`Error`]: kind, message, chain of contexts |
//! | [`base`] | aligned fallible memory, checked arithmetic, the fork-join pool, cancellation |
//! | [`tensor`] | element types, shapes, tensors and views |
//! | [`proto`] | the bounded ONNX reader |
//! | `ir` | facts, graphs, the operator trait and its registry |
//! | [`kernels`] | CPU SIMD over raw strided views; knows no graph |
//! | `backend` | the backend and step traits; `cpu`, `opencl` |
//! | `ops` | one file or folder an operator family |
//! | `import` | ONNX to IR |
//! | `optimize` | graph passes |
//! | `plan` | a program for concrete shapes: kernels, layouts, memory |
//! | `session` | options, sessions, runs |
//! | `capi` | the C ABI |

#[cfg(panic = "abort")]
compile_error!("ortx turns panics into errors at its ABI: build it with panic = \"unwind\"");

pub mod backend;
pub mod base;
#[cfg(feature = "capi")]
pub mod capi;
pub mod error;
pub mod import;
pub mod ir;
pub mod kernels;
pub mod ops;
pub mod optimize;
pub mod plan;
pub mod proto;
pub mod session;
pub mod tensor;

pub use error::{Error, ErrorKind, Result};
pub use session::{Environment, ModelSource, RunOptions, Session, SessionOptions};
pub use tensor::{DType, Tensor, Value};
