//! Making and running sessions.

use super::devices::{self, Devices};
use super::{Environment, Io, Metadata, ModelSource, SessionOptions};
use crate::backend::PackedCache;
use crate::backend::cpu::CpuBackend;
use crate::base::cancel::{CancelToken, Stop};
use crate::base::cores::available_cores;
use crate::base::fpmode::FpMode;
use crate::base::parallel::{Parallel, Serial};
use crate::base::pool::Pool;
use crate::error::{Context, Result};
use crate::import::import_model;
use crate::ir::Fact;
use crate::kernels::isa::Isa;
use crate::ops;
use crate::optimize;
use crate::plan::{Check, Program, RunCtx, Target, Timing};
use crate::proto::external::External;
use crate::tensor::{Tensor, Value};
use crate::{ensure, err};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A model, ready to run. Immutable: `run` may be called from any number of threads at once.
pub struct Session {
    program: Program,
    inputs: Vec<Io>,
    outputs: Vec<Io>,
    metadata: Metadata,
    pool: Arc<dyn Parallel>,
    isa: Isa,
    flush: bool,
    passes: Vec<optimize::PassReport>,
    warnings: Vec<String>,
}

/// Options of one run.
#[derive(Clone, Default, Debug)]
pub struct RunOptions {
    /// Stops the run when cancelled.
    pub cancel: Option<CancelToken>,
    /// Stops the run when this moment is past.
    pub deadline: Option<Instant>,
}

impl Session {
    /// Opens a model file with default options.
    ///
    /// # Errors
    /// `NotFound` or `Io` for the file, `InvalidModel` for what is in it, `Unsupported` with all missing operators.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Session> {
        let source = ModelSource::Path(path.as_ref().to_path_buf());
        Session::new(&Environment::new(), source, &SessionOptions::default())
    }
    /// Opens a model in memory with default options.
    pub fn from_bytes(bytes: impl Into<bytes::Bytes>) -> Result<Session> {
        Session::new(&Environment::new(), ModelSource::Bytes(bytes.into(), None), &SessionOptions::default())
    }
    /// Opens a model.
    pub fn new(env: &Environment, source: ModelSource, options: &SessionOptions) -> Result<Session> {
        ensure!(options.memory_limit.is_none(), Unsupported, "a memory limit is not implemented yet");
        let (model, external) = source.open(options.mode)?;
        Self::build(env, model, external, options).context(|| source.describe())
    }

    fn build(
        env: &Environment,
        model: crate::proto::onnx::ModelProto,
        external: External,
        options: &SessionOptions,
    ) -> Result<Session> {
        let imported = import_model(&model, &env.registry, &external)?;
        let mut graph = imported.graph;
        let isa = options.isa.map_or(Isa::detect(), |l| Isa::detect().cap(l));
        let cpu = Arc::new(CpuBackend::new(isa, ops::cpu_bindings()));
        let Devices { backends: devices, required, warnings } = devices::open(env, &options.devices)?;
        let passes = if options.optimize {
            let stop_after = options.stop_after.clone();
            let o = optimize::Options { disabled: options.disabled_passes.clone(), stop_after };
            optimize::optimize(&mut graph, &cpu, &o)?
        } else {
            Vec::new()
        };
        let io =
            |v: &crate::ir::ValueId| Io { name: graph.value(*v).name.clone(), fact: graph.fact(*v).without_contents() };
        let inputs = graph.inputs().iter().map(io).collect();
        // Outputs are named and typed by the file, their sizes by inference.
        let mut outputs: Vec<Io> = graph.outputs().iter().map(io).collect();
        if let Some(g) = &model.graph {
            for (o, p) in outputs.iter_mut().zip(&g.output) {
                o.name = p.name().into();
                if matches!(o.fact, Fact::Unknown) {
                    o.fact = crate::import::fact_from_type(p.r#type.as_ref())?;
                }
            }
        }
        let metadata = Metadata::of(&model, imported.opsets);
        drop(model);
        let pool: Arc<dyn Parallel> = match (&options.pool, options.threads) {
            (Some(p), _) => p.clone(),
            (None, n) => match if n == 0 { available_cores() } else { n } {
                1 => Arc::new(Serial),
                n => Arc::new(Pool::new(n, options.spin)?),
            },
        };
        let target = Arc::new(Target { cpu, devices, required, cache: PackedCache::new() });
        let program = Program::new(Arc::new(graph), target)?;
        Ok(Session { program, inputs, outputs, metadata, pool, isa, flush: options.flush_denormals, passes, warnings })
    }

    /// Inputs in the model's order.
    pub fn inputs(&self) -> &[Io] {
        &self.inputs
    }
    /// Outputs in the model's order.
    pub fn outputs(&self) -> &[Io] {
        &self.outputs
    }
    /// What the model says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    /// How many threads work on a run, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.width()
    }
    /// The instructions it uses.
    pub fn isa(&self) -> Isa {
        self.isa
    }
    /// The program behind the session, for inspection.
    pub fn program(&self) -> &Program {
        &self.program
    }
    /// What each optimiser pass did.
    pub fn passes(&self) -> &[optimize::PassReport] {
        &self.passes
    }
    /// What the caller should hear of, once: devices asked for that are not there, so that the CPU takes their place.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
    /// The place of an input.
    pub fn input_index(&self, name: &str) -> Result<usize> {
        index(&self.inputs, name, "input")
    }
    /// The place of an output.
    pub fn output_index(&self, name: &str) -> Result<usize> {
        index(&self.outputs, name, "output")
    }

    /// Tries every node for inputs of these shapes (`None`: as the model says), without running anything: tells all
    /// nodes that no kernel takes.
    pub fn check(&self, shapes: &[Option<Vec<usize>>]) -> Result<Check> {
        let facts = self.inputs.iter().enumerate().map(|(i, io)| match (shapes.get(i), io.fact.dtype()) {
            (Some(Some(shape)), Some(dtype)) => Fact::sized(dtype, shape),
            _ => io.fact.clone(),
        });
        self.program.check(&facts.collect::<Vec<_>>())
    }

    /// Runs the model on tensors by name; returns all outputs in the model's order.
    ///
    /// # Errors
    /// `InvalidArgument` for a missing, unknown or wrong input; whatever the operators meet.
    pub fn run(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Value>> {
        let mut values: Vec<Option<Value>> = vec![None; self.inputs.len()];
        for (name, t) in inputs {
            let i = self.input_index(name)?;
            ensure!(
                values[i].replace(Value::Tensor(t.clone())).is_none(),
                InvalidArgument,
                "input '{name}' is given twice"
            );
        }
        let values = values
            .into_iter()
            .zip(&self.inputs)
            .map(|(v, io)| v.ok_or_else(|| err!(InvalidArgument, "input '{}' ({}) is missing", io.name, io.fact)))
            .collect::<Result<Vec<_>>>()?;
        let mut outputs = vec![None; self.outputs.len()];
        self.run_values(&values, &mut outputs, &RunOptions::default())?;
        outputs.into_iter().map(|v| v.ok_or_else(|| err!(Internal, "an output was not made"))).collect()
    }

    /// Runs the model on values in the model's order. `outputs` has an entry an output: a tensor in it of the right type
    /// and shape is written in place, anything else is replaced.
    pub fn run_values(&self, inputs: &[Value], outputs: &mut [Option<Value>], options: &RunOptions) -> Result<()> {
        self.run_profiled(inputs, outputs, options, None)
    }

    /// The same, and adds the time of each item of the plan to `profile`.
    pub fn run_profiled(
        &self,
        inputs: &[Value],
        outputs: &mut [Option<Value>],
        options: &RunOptions,
        profile: Option<&Mutex<Vec<Timing>>>,
    ) -> Result<()> {
        ensure!(
            inputs.len() == self.inputs.len(),
            InvalidArgument,
            "the model has {} inputs, {} are given",
            self.inputs.len(),
            inputs.len()
        );
        for (v, io) in inputs.iter().zip(&self.inputs) {
            io.check(v)?;
        }
        let flushing = Flushing { inner: &*self.pool, flush: self.flush };
        let _mode = FpMode::enter(self.flush);
        let stop = Stop::new(options.cancel.as_ref(), options.deadline);
        let cx = RunCtx { pool: &flushing, stop, profile };
        self.program.run(&cx, inputs, outputs)
    }
}

/// Sets the floating-point mode around every task on every thread.
struct Flushing<'a> {
    inner: &'a dyn Parallel,
    flush: bool,
}

impl Parallel for Flushing<'_> {
    fn width(&self) -> usize {
        self.inner.width()
    }
    fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        self.inner.run(n, &|worker, i| {
            let _mode = FpMode::enter(self.flush);
            task(worker, i);
        });
    }
}

fn index(list: &[Io], name: &str, what: &str) -> Result<usize> {
    list.iter().position(|i| &*i.name == name).ok_or_else(|| {
        let names: Vec<&str> = list.iter().map(|i| &*i.name).collect();
        err!(InvalidArgument, "the model has no {what} '{name}'; it has {}", names.join(", "))
    })
}
