//! How a session is made.

use crate::base::parallel::Parallel;
use crate::error::Result;
use crate::kernels::isa::Level;
use crate::proto::external::External;
use crate::proto::onnx::ModelProto;
use crate::proto::read;
use crate::proto::source::Mode;
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where a model comes from.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A file; external data is looked for in its folder.
    Path(PathBuf),
    /// Bytes in memory; external data is looked for in the folder, if one is given.
    Bytes(Bytes, Option<PathBuf>),
}

impl ModelSource {
    pub(super) fn open(&self, mode: Mode) -> Result<(ModelProto, External)> {
        match self {
            ModelSource::Path(p) => Ok((read::open_path(p, mode)?, External::beside(p, mode)?)),
            ModelSource::Bytes(b, folder) => {
                let external = match folder {
                    Some(f) => External::in_folder(f, mode)?,
                    None => External::none(),
                };
                Ok((read::open_bytes(b.clone())?, external))
            }
        }
    }
    /// For errors.
    pub(super) fn describe(&self) -> String {
        match self {
            ModelSource::Path(p) => format!("model '{}'", p.display()),
            ModelSource::Bytes(..) => "model from memory".into(),
        }
    }
}

/// Options of a session; the default suits most.
#[derive(Clone)]
pub struct SessionOptions {
    /// Threads that work on one run, the caller's included. 0: as many as the process may use cores. Not used with `pool`.
    pub threads: usize,
    /// A host's own threads, instead of a pool of ours.
    pub pool: Option<Arc<dyn Parallel>>,
    /// How long idle threads spin before they sleep: 50 us by default, so that the steps of one run, which follow each other
    /// within microseconds, do not each pay a wake-up. Zero for hosts that count every cycle.
    pub spin: Duration,
    /// The highest instruction set level to use; the processor's own by default.
    pub isa: Option<Level>,
    /// Names of devices in order of preference (`opencl:0`), before the CPU. A name ending in `!` is required: a node it
    /// cannot take is an error instead of a fallback.
    pub devices: Vec<String>,
    /// Map the model file (default) or read it. A mapped file must not shrink while the session lives.
    pub mode: Mode,
    /// Flush denormal numbers to zero while running (default); the caller's mode is restored.
    pub flush_denormals: bool,
    /// Optimise the graph (default).
    pub optimize: bool,
    /// Names of passes to leave out.
    pub disabled_passes: Vec<String>,
    /// The last pass to run, to find the one that breaks a model.
    pub stop_after: Option<String>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            threads: 0,
            pool: None,
            spin: Duration::from_micros(50),
            isa: None,
            devices: Vec::new(),
            mode: Mode::default(),
            flush_denormals: true,
            optimize: true,
            disabled_passes: Vec::new(),
            stop_after: None,
        }
    }
}

impl std::fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionOptions")
            .field("threads", &self.threads)
            .field("isa", &self.isa)
            .field("devices", &self.devices)
            .field("optimize", &self.optimize)
            .finish_non_exhaustive()
    }
}
