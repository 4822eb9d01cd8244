//! Sessions: a model, ready to run.

mod compiled;
mod devices;
mod environment;
mod inspect;
mod io;
mod keep;
mod options;
mod overridable;
mod run;

pub use compiled::compile;
pub use environment::Environment;
pub use inspect::{Inspection, inspect};
pub use io::{Io, Metadata};
pub use keep::write_optimized;
pub use options::{ModelSource, SessionOptions};
pub use run::{RunOptions, Session};
