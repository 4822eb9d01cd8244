//! How a session is made.

use super::compiled::Compiled;
use crate::bail;
use crate::base::cores::available_cores;
use crate::base::parallel::{Parallel, Serial};
use crate::base::pool::Pool;
use crate::error::{Context, Result};
use crate::kernels::isa::{Isa, Level};
use crate::optimize;
use crate::plan::Target;
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
        if let Some(compiled) = Compiled::of(self, mode).context(|| self.describe())? {
            return compiled.model();
        }
        match self {
            ModelSource::Path(p) => {
                let (model, file) = read::open_path(p, mode)?;
                Ok((model, External::beside(p, mode)?.with_model(file)))
            }
            ModelSource::Bytes(b, folder) => {
                let external = match folder {
                    Some(f) => External::in_folder(f, mode)?,
                    None => External::none(),
                };
                Ok((read::open_bytes(b.clone()).context(|| self.describe())?, external))
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
    /// Names of devices in order of preference (`opencl:0`), before the CPU, which takes what they cannot. One that is not
    /// there is passed over, and `Session::warnings` tells. A name ending in `!` is required: that it is not there, or that
    /// no device takes a node, is an error then.
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
    /// A pass that fails is an error; else the graph is optimised without it, and `Session::warnings` tells. Off by
    /// default, but for builds with debug assertions.
    pub strict_passes: bool,
    /// The most bytes that the session's tensors may take at once: weights that are not read where they lie (mapped or
    /// borrowed), packed constants, intermediate values, outputs as long as they live. None by default.
    pub memory_limit: Option<usize>,
    /// A file in which the model is kept compiled: loaded if it is there and current, else made, and replaced if it is stale,
    /// damaged or another library's; `Session::warnings` tells why. None by default.
    pub cache: Option<PathBuf>,
    /// Make that file anew in any case.
    pub rebuild: bool,
    /// About how many bytes the plans take that are kept for shapes seen before (64 MiB by default): those of the model,
    /// and as many of each loop's body and branch. The ones that were not used for the longest time go first.
    pub plan_bytes: usize,
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
            strict_passes: cfg!(debug_assertions),
            memory_limit: None,
            cache: None,
            rebuild: false,
            plan_bytes: Target::PLAN_BYTES,
        }
    }
}

impl SessionOptions {
    /// The keys that [`set`](Self::set) knows.
    pub const KEYS: [&str; 13] = [
        "threads",
        "isa",
        "spin_us",
        "devices",
        "load",
        "denormals",
        "optimize",
        "disabled_passes",
        "stop_after",
        "memory_limit",
        "cache",
        "rebuild",
        "plan_bytes",
    ];

    /// The instructions to use.
    pub(super) fn isa(&self) -> Isa {
        self.isa.map_or(Isa::detect(), |l| Isa::detect().cap(l))
    }
    /// The threads to use.
    pub(super) fn threads(&self) -> Result<Arc<dyn Parallel>> {
        Ok(match (&self.pool, self.threads) {
            (Some(p), _) => p.clone(),
            (None, n) => match if n == 0 { available_cores() } else { n } {
                1 => Arc::new(Serial),
                n => Arc::new(Pool::new(n, self.spin)?),
            },
        })
    }
    /// What the optimiser is to do, if anything.
    pub(super) fn passes(&self) -> Option<optimize::Options> {
        self.optimize.then(|| optimize::Options {
            disabled: self.disabled_passes.clone(),
            stop_after: self.stop_after.clone(),
            strict: self.strict_passes,
            onnx: None,
        })
    }
    /// Sets an option by name, from text: for hosts that pass options through.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown key (the message lists those there are) or a value that does not fit.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let number = || match value.parse::<usize>() {
            Ok(n) => Ok(n),
            Err(_) => bail!(InvalidArgument, "option '{key}' takes a number, not '{value}'"),
        };
        // One of two words: false for the first, true for the second.
        let choice = |no: &str, yes: &str| match value {
            v if v == no => Ok(false),
            v if v == yes => Ok(true),
            _ => bail!(InvalidArgument, "option '{key}' is '{no}' or '{yes}', not '{value}'"),
        };
        let list = || value.split(',').map(str::trim).filter(|s| !s.is_empty()).map(String::from).collect();
        match key {
            "threads" => self.threads = number()?,
            "isa" => match Level::from_name(value) {
                Some(l) => self.isa = Some(l),
                None => bail!(InvalidArgument, "option 'isa' is scalar, avx2 or avx512, not '{value}'"),
            },
            "spin_us" => self.spin = Duration::from_micros(number()? as u64),
            "devices" => self.devices = list(),
            "load" => self.mode = if choice("map", "read")? { Mode::Read } else { Mode::Map },
            "denormals" => self.flush_denormals = choice("keep", "flush")?,
            "optimize" => self.optimize = choice("0", "1")?,
            "disabled_passes" => self.disabled_passes = list(),
            "stop_after" => self.stop_after = Some(value.into()).filter(|s: &String| !s.is_empty()),
            "memory_limit" => self.memory_limit = Some(number()?).filter(|&n| n > 0),
            "cache" => self.cache = Some(PathBuf::from(value)).filter(|p| !p.as_os_str().is_empty()),
            "rebuild" => self.rebuild = choice("0", "1")?,
            "plan_bytes" => self.plan_bytes = number()?,
            _ => bail!(InvalidArgument, "there is no option '{key}'; there are {}", Self::KEYS.join(", ")),
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set_by_name() {
        let mut o = SessionOptions::default();
        let given = [
            ("threads", "3"),
            ("isa", "avx2"),
            ("spin_us", "50"),
            ("devices", "opencl:0!, opencl:1"),
            ("load", "read"),
            ("denormals", "keep"),
            ("optimize", "0"),
            ("disabled_passes", "a,b"),
            ("stop_after", "fold"),
            ("memory_limit", "1000000"),
            ("cache", "model.ortx"),
            ("rebuild", "1"),
            ("plan_bytes", "5000"),
        ];
        assert_eq!(given.map(|g| g.0), SessionOptions::KEYS);
        given.iter().for_each(|(k, v)| o.set(k, v).unwrap());
        assert_eq!((o.threads, o.isa, o.spin), (3, Some(Level::Avx2), Duration::from_micros(50)));
        assert_eq!(
            (o.devices, o.mode, o.flush_denormals),
            (vec!["opencl:0!".into(), "opencl:1".into()], Mode::Read, false)
        );
        assert_eq!((o.optimize, o.disabled_passes.len(), o.memory_limit), (false, 2, Some(1_000_000)));
        assert_eq!((o.cache, o.rebuild, o.plan_bytes), (Some("model.ortx".into()), true, 5000));
        let mut o = SessionOptions::default();
        for (key, value) in [("threads", "-1"), ("isa", "mmx"), ("load", "maybe"), ("colour", "red")] {
            let e = o.set(key, value).unwrap_err().to_string();
            assert!(e.contains(key), "{e}");
        }
    }
}
