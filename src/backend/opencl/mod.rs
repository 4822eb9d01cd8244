//! The OpenCL backend: any device with OpenCL 1.2, found at run time.
//!
//! `driver` is the only file that speaks to the `ocl` crate; `shim.c` stands in for libOpenCL at link time and looks the
//! real one up at the first call, so that ortx loads where there is none.

mod backend;
mod cache;
pub mod call;
pub mod conv;
pub mod device;
pub mod driver;
pub mod element;
pub mod gemm;
pub mod norm;
pub mod pointwise;
pub mod pool;
pub mod recipe;
pub mod reduce;
pub mod resample;
pub mod shape;
mod status;
mod widen;

pub use backend::{OpenClBackend, OpenClBindings, OpenClProvider};

#[cfg(test)]
mod tests;
