//! The C ABI: what `include/ortx.h` declares. Flat functions over opaque handles; [`guard`] turns errors and panics into
//! statuses, [`handle`] checks pointers on their way in.
//!
//! Every exported function's contract stands in its documentation, which cbindgen copies into the header.

#![allow(non_camel_case_types)] // the names are C's
#![allow(clippy::missing_safety_doc)] // the contract is the documented one; a "Safety" section would leak into the header

mod args;
pub mod binding;
pub mod environment;
mod guard;
mod handle;
pub mod info;
pub mod memory;
pub mod metadata;
pub mod optimize;
pub mod options;
pub mod pool;
pub mod run;
pub mod session;
pub mod status;
pub mod tensor;
pub mod types;
pub mod value;
