//! The ONNX file format: generated messages, and their bounded, zero-copy reader.

pub mod external;
pub mod read;
pub mod scan;
mod sniff;
pub mod source;

/// The messages of `proto/onnx.proto`, as generated.
#[allow(missing_docs, clippy::all)]
pub mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}
