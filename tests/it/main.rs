//! The integration tests, in one binary: linking many takes longer than running them.

mod alone;
mod arena;
mod atomics;
mod cache;
mod capi;
mod cases;
mod conformance;
mod contrib;
mod differential;
mod digits;
mod gradient;
mod header;
mod hosts;
mod keep;
mod layers;
mod limit;
mod loops;
mod models;
mod mutate;
mod odd;
#[cfg(feature = "opencl")]
mod opencl;
#[cfg(feature = "opencl")]
mod operators;
mod opsets;
mod passes;
mod plans;
mod properties;
mod replan;
mod segments;
mod steady;
mod tiny;
mod toy_backend;
mod types;
mod values;
mod views;

use std::path::Path;

/// Calls `f` for each file below `folder`, in order of name.
fn walk(folder: &Path, f: &mut dyn FnMut(&Path)) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { walk(&path, f) } else { f(&path) }
    }
}
