//! Sessions: a model, ready to run.

mod devices;
mod environment;
mod inspect;
mod io;
mod options;
mod overridable;
mod run;

pub use environment::Environment;
pub use inspect::{Inspection, inspect};
pub use io::{Io, Metadata};
pub use options::{ModelSource, SessionOptions};
pub use run::{RunOptions, Session};
