//! Where steps run.

#[cfg(feature = "opencl")]
pub mod opencl;
