//! Making and running sessions.

use super::compiled::{self, Compiled};
use super::devices::{self, Devices};
use super::io::described;
use super::overridable::Overridable;
use super::{Environment, Io, Metadata, ModelSource, SessionOptions};
use crate::backend::PackedCache;
use crate::backend::cpu::CpuBackend;
use crate::base::budget::Budget;
use crate::base::cancel::{CancelToken, Stop};
use crate::base::fpmode::FpMode;
use crate::base::parallel::Parallel;
use crate::error::{Context, Result};
use crate::import::{Imported, import_model, import_overridable, overridable_inputs};
use crate::ir::{Dim, Fact};
use crate::kernels::isa::Isa;
use crate::ops;
use crate::optimize;
use crate::plan::{Check, Given, Program, Receiver, RunCtx, Target, Timing};
use crate::proto::external::External;
use crate::tensor::{Tensor, Value};
use crate::{ensure, err};
use std::borrow::Borrow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A model, ready to run. Immutable: `run` may be called from any number of threads at once.
pub struct Session {
    program: Program,
    overridable: Option<Overridable>,
    inputs: Vec<Io>,
    outputs: Vec<Io>,
    metadata: Metadata,
    pool: Arc<dyn Parallel>,
    isa: Isa,
    flush: bool,
    passes: Vec<optimize::PassReport>,
    warnings: Vec<String>,
    /// What its buffers are charged to.
    budget: Budget,
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
        Self::new_from(env, || Ok(source), options)
    }
    /// The same, with a source that is made under the session's memory limit.
    pub(crate) fn new_from(
        env: &Environment,
        source: impl FnOnce() -> Result<ModelSource>,
        options: &SessionOptions,
    ) -> Result<Session> {
        let budget = Budget::new(options.memory_limit);
        let _scope = budget.enter();
        let source = source()?;
        let (compiled, warnings) = compiled::find(env, &source, options)?;
        let made = match compiled {
            Some(compiled) => Self::of_compiled(env, &compiled, options, budget.clone(), warnings),
            None => {
                let (model, external) = source.open(options.mode)?;
                Self::build(env, model, external, PackedCache::new(), options, budget.clone(), warnings)
            }
        };
        made.context(|| source.describe())
    }

    /// Opens a compiled model.
    pub(super) fn of_compiled(
        env: &Environment,
        compiled: &Compiled,
        options: &SessionOptions,
        budget: Budget,
        warnings: Vec<String>,
    ) -> Result<Session> {
        compiled.check(options.isa())?;
        let (model, external) = compiled.model()?;
        let cache = PackedCache::with_kept(compiled.kept()?);
        Self::build(env, model, external, cache, options, budget, warnings)
    }

    fn build(
        env: &Environment,
        model: crate::proto::onnx::ModelProto,
        external: External,
        cache: PackedCache,
        options: &SessionOptions,
        budget: Budget,
        mut warnings: Vec<String>,
    ) -> Result<Session> {
        let imported = import_model(&model, &env.registry, &external)?;
        let isa = options.isa();
        let cpu = Arc::new(CpuBackend::new(isa, ops::cpu_bindings()));
        let Devices { backends: devices, required, warnings: passed_over } = devices::open(env, &options.devices)?;
        warnings.extend(passed_over);
        let wanted = options.passes();
        let pool = options.threads()?;
        // Where that reading fails (a shape that must be known, say), the defaults are constants and nothing else.
        let open: Option<Imported> = match overridable_inputs(&model) {
            names if names.is_empty() => None,
            names => match import_overridable(&model, &env.registry, &external, &imported) {
                Ok(open) => Some(open),
                Err(e) => {
                    warnings.push(format!("inputs that have a default ({}) are constants: {e:#}", names.join(", ")));
                    None
                }
            },
        };
        let mut graph = imported.graph;
        // Folding rounds as the model's authors saw it, whatever a run does with denormals.
        let threads = Flushing { inner: &*pool, flush: false, budget: &budget };
        let passes = match &wanted {
            Some(o) => optimize::optimize(&mut graph, &cpu, &threads, o)?,
            None => Vec::new(),
        };
        for r in &passes {
            let left_out = |why| format!("the optimiser goes without the pass '{}', which failed: {why}", r.pass);
            warnings.extend(r.failure.as_ref().map(left_out));
        }
        // What overriding can change is not known of the outputs.
        let general = open.as_ref().map_or(&graph, |o| &o.graph);
        let inputs = graph.inputs().iter().map(|&v| described(&graph, v)).collect();
        // Outputs are named and typed by the file, their sizes by inference.
        let mut outputs: Vec<Io> = general.outputs().iter().map(|&v| described(general, v)).collect();
        if let Some(g) = &model.graph {
            for (o, p) in outputs.iter_mut().zip(&g.output) {
                o.name = p.name().into();
                let rank = |f: &Fact| f.as_tensor().and_then(|t| t.dims.as_ref()).is_some();
                if matches!(o.fact, Fact::Unknown) || open.is_some() && !rank(&o.fact) {
                    let declared = crate::import::fact_from_type(p.r#type.as_ref())?;
                    o.fact = if rank(&declared) || matches!(o.fact, Fact::Unknown) { declared } else { o.fact.clone() };
                }
            }
        }
        let metadata = Metadata::of(&model, imported.opsets);
        drop(model);
        let target = Arc::new(Target { cpu, devices, required, cache, plan_bytes: options.plan_bytes });
        let overridable = open.map(|o| Overridable::new(o.graph, o.defaults, wanted, target.clone()));
        let program = Program::new(Arc::new(graph), target)?;
        let flush = options.flush_denormals;
        let session =
            Session { program, overridable, inputs, outputs, metadata, pool, isa, flush, passes, warnings, budget };
        session.prepare();
        Ok(session)
    }

    /// Plans, and packs the weights for, the only sizes that the inputs can have, if there are such. What stands in the way
    /// of a plan is told by [`Session::check`] and by the run.
    fn prepare(&self) {
        let _mode = FpMode::enter(self.flush);
        let _ = self.program.prepare(&self.threads_of_a_run());
    }

    /// Packs weights as plans for inputs of these shapes will want them; without any, for a few sizes of what the model leaves
    /// open.
    pub(super) fn plan_ahead(&self, shapes: &[(String, Vec<usize>)]) -> Result<()> {
        let _mode = FpMode::enter(self.flush);
        if !shapes.is_empty() {
            let mut all = vec![None; self.inputs.len()];
            for (name, shape) in shapes {
                all[index(&self.inputs, name, "input")?] = Some(shape.clone());
            }
            return self.check(&all).map(drop);
        }
        let open = |io: &Io| io.fact.shape().is_none();
        for size in if self.inputs.iter().any(open) { &GUESSES[..] } else { &[] } {
            let sized = |io: &Io| {
                let dims = io.fact.as_tensor()?.dims.as_ref()?;
                let guess = |(axis, d): (usize, &Dim)| d.size().unwrap_or(if axis == 0 { 1 } else { *size });
                Some(dims.iter().enumerate().map(guess).collect())
            };
            // Sizes that do not suit the model pack nothing.
            let _ = self.check(&self.inputs.iter().map(sized).collect::<Vec<_>>());
        }
        Ok(())
    }

    fn threads_of_a_run(&self) -> Flushing<'_> {
        Flushing { inner: &*self.pool, flush: self.flush, budget: &self.budget }
    }

    /// Inputs in the model's order, without those that have a default.
    pub fn inputs(&self) -> &[Io] {
        &self.inputs
    }
    /// Outputs in the model's order.
    pub fn outputs(&self) -> &[Io] {
        &self.outputs
    }
    /// Inputs that have a default, in the model's order: initialisers that a file of IR version 4 or later lists as inputs
    /// too. A run that gives them another value takes the time of a model whose weights are not constant.
    pub fn overridable_inputs(&self) -> &[Io] {
        self.overridable.as_ref().map_or(&[], |o| &o.ios)
    }
    /// The default of each of them.
    pub fn defaults(&self) -> &[Value] {
        self.overridable.as_ref().map_or(&[], |o| &o.values)
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
    /// Bytes of memory that the session's tensors, packed constants and arenas take now, and the most at one time: what
    /// [`SessionOptions::memory_limit`] bounds.
    pub fn memory(&self) -> (usize, usize) {
        (self.budget.used(), self.budget.peak())
    }
    /// Frees the memory of intermediate values that no run uses now.
    pub fn trim(&self) {
        self.program.trim();
        self.overridable.iter().for_each(Overridable::trim);
    }
    /// What each optimiser pass did.
    pub fn passes(&self) -> &[optimize::PassReport] {
        &self.passes
    }
    /// What the caller should hear of, once: devices asked for that are not there, so that the CPU takes their place.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
    /// The place of an input; those that have a default follow the others.
    pub fn input_index(&self, name: &str) -> Result<usize> {
        let open = self.overridable_inputs().iter().position(|io| &*io.name == name);
        open.map_or_else(|| index(&self.inputs, name, "input"), |i| Ok(self.inputs.len() + i))
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
        let mut values: Vec<Option<Value>> = vec![None; self.inputs.len() + self.defaults().len()];
        for (name, t) in inputs {
            let i = self.input_index(name)?;
            ensure!(
                values[i].replace(Value::Tensor(t.clone())).is_none(),
                InvalidArgument,
                "input '{name}' is given twice"
            );
        }
        let open = values.split_off(self.inputs.len());
        let mut values = values
            .into_iter()
            .zip(&self.inputs)
            .map(|(v, io)| v.ok_or_else(|| err!(InvalidArgument, "input '{}' ({}) is missing", io.name, io.fact)))
            .collect::<Result<Vec<_>>>()?;
        if open.iter().any(Option::is_some) {
            values.extend(open.into_iter().zip(self.defaults()).map(|(v, d)| v.unwrap_or_else(|| d.clone())));
        }
        let mut outputs = vec![None; self.outputs.len()];
        self.run_values(&values, &mut outputs, &RunOptions::default())?;
        outputs.into_iter().map(|v| v.ok_or_else(|| err!(Internal, "an output was not made"))).collect()
    }

    /// Runs the model on values in the model's order: the inputs, and after them either nothing or all that have a default,
    /// each with the default or another value. `outputs` has an entry an output: a tensor in it of the right type
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
        self.run_into(inputs, outputs, options, profile)
    }

    /// The same from values and into outputs wherever they are.
    pub(crate) fn run_into(
        &self,
        inputs: &[impl Given + Borrow<Value>],
        outputs: &mut [impl Receiver],
        options: &RunOptions,
        profile: Option<&Mutex<Vec<Timing>>>,
    ) -> Result<()> {
        let open = self.overridable_inputs();
        let overridden = !open.is_empty() && inputs.len() == self.inputs.len() + open.len();
        ensure!(
            overridden || inputs.len() == self.inputs.len(),
            InvalidArgument,
            "the model has {} inputs, {} are given",
            self.inputs.len(),
            inputs.len()
        );
        for (v, io) in inputs.iter().zip(self.inputs.iter().chain(open)) {
            io.check(v.borrow())?;
        }
        let flushing = self.threads_of_a_run();
        let _scope = self.budget.enter();
        let _mode = FpMode::enter(self.flush);
        let stop = Stop::new(options.cancel.as_ref(), options.deadline);
        let cx = RunCtx { pool: &flushing, stop, profile };
        match self.overridable.as_ref().filter(|_| overridden) {
            Some(o) => o.program(&flushing)?.run(&cx, inputs, outputs),
            None => self.program.run(&cx, inputs, outputs),
        }
    }
}

/// Sizes of open axes, but for the first, by which weights are packed ahead.
const GUESSES: [usize; 5] = [1, 16, 96, 224, 640];

/// Sets the floating-point mode and the budget around every task on every thread.
struct Flushing<'a> {
    inner: &'a dyn Parallel,
    flush: bool,
    budget: &'a Budget,
}

impl Parallel for Flushing<'_> {
    fn width(&self) -> usize {
        self.inner.width()
    }
    fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        self.inner.run(n, &|worker, i| {
            let _mode = FpMode::enter(self.flush);
            let _scope = self.budget.enter();
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
