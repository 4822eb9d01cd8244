//! ortx runs ONNX models on the CPU and on any OpenCL device.
//!
//! A [`Session`] is a model, ready to run; [`Tensor`]s go in by name, [`Value`]s (mostly tensors) come out in the model's
//! order. Arrays of `ndarray` become tensors with [`Tensor::from_array`], and tensors are looked at as arrays, without
//! copying, with [`Tensor::view`].
//!
//! ```
//! use ndarray::Array4;
//! use ortx::{Session, Tensor};
//!
//! # fn main() -> ortx::Result<()> {
//! // The model in this repository: handwritten digits, 8x8 pixels, to ten probabilities.
//! let session = Session::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits.onnx"))?;
//!
//! // A vertical stroke.
//! let picture = Array4::from_shape_fn((1, 1, 8, 8), |(_, _, _, x)| if x == 3 || x == 4 { 1f32 } else { 0.0 });
//! let outputs = session.run(&[("image", Tensor::from_array(picture.view())?)])?;
//!
//! let probabilities = outputs[0].as_tensor()?.view::<f32>()?;
//! assert_eq!(probabilities.shape(), [1, 10]);
//! assert!((probabilities.sum() - 1.0).abs() < 1e-5);
//! let digit = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|best| best.0);
//! assert_eq!(digit, Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! # Running again and again
//! `run` makes new output tensors. [`Session::run_values`] writes into the tensors that are there, where type and shape
//! are right: with the same outputs handed in again, a run of a shape seen before allocates nothing.
//!
//! ```
//! # use ortx::{RunOptions, Session, Tensor, Value, DType};
//! # fn main() -> ortx::Result<()> {
//! # let session = Session::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits.onnx"))?;
//! let inputs = [Value::Tensor(Tensor::zeroed(DType::F32, &[16, 1, 8, 8])?)];
//! let mut outputs = [None];
//! for _ in 0..3 {
//!     session.run_values(&inputs, &mut outputs, &RunOptions::default())?;
//!     let probabilities = outputs[0].as_ref().map(Value::as_tensor).transpose()?;
//!     assert_eq!(probabilities.map(Tensor::shape), Some(&[16, 10][..]));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A session is immutable: any number of threads may run it at once. Each run works on a [`RunOptions`] of its own, whose
//! [cancellation token](base::cancel::CancelToken) stops it from another thread.
//!
//! # Choosing threads, devices, instructions
//! ```
//! # use ortx::{Environment, ModelSource, Session, SessionOptions};
//! # fn main() -> ortx::Result<()> {
//! let environment = Environment::new();
//! for device in environment.devices()? {
//!     println!("{}: {}", device.name, device.description);
//! }
//! let options = SessionOptions {
//!     threads: 2,
//!     // devices: vec!["opencl:0".into()],
//!     ..SessionOptions::default()
//! };
//! let model = ModelSource::Path(concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits.onnx").into());
//! let session = Session::new(&environment, model, &options)?;
//! for input in session.inputs() {
//!     println!("{} {}", input.name, input.fact); // image float[N,1,8,8]
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # When something is wrong
//! Every failure is an [`Error`]: a [kind](ErrorKind), a message, and the places it passed. A model file is never trusted, and
//! a wrong input is told before anything runs:
//!
//! ```
//! # use ortx::{DType, ErrorKind, Session, Tensor};
//! # fn main() -> ortx::Result<()> {
//! # let session = Session::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits.onnx"))?;
//! let wrong = Tensor::zeroed(DType::F32, &[1, 8, 8])?;
//! let error = session.run(&[("image", wrong)]).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::InvalidArgument);
//! assert!(error.to_string().starts_with("input 'image': "));
//! # Ok(())
//! # }
//! ```
//! What of a model is not supported, [`session::inspect`] tells all at once, with every operator, input and weight.
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
pub mod export;
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
