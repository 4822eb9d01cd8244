//! Inputs that have a default: initialisers which the file also lists as inputs.
//!
//! Runs that leave them alone use the program in which they are constants, folded and packed as any other. The first run
//! that overrides one makes a second program, in which all of them are inputs.

use super::{Io, io::described};
use crate::base::parallel::Parallel;
use crate::error::{Context, Error, Result};
use crate::ir::Graph;
use crate::optimize;
use crate::plan::{Program, Target};
use crate::tensor::{Tensor, Value};
use std::sync::{Arc, OnceLock};

pub(super) struct Overridable {
    /// The inputs, in the model's order.
    pub ios: Vec<Io>,
    /// Their defaults.
    pub values: Vec<Value>,
    /// As imported.
    graph: Graph,
    /// `None`: not to be optimised.
    passes: Option<optimize::Options>,
    target: Arc<Target>,
    program: OnceLock<Result<Program>>,
}

impl Overridable {
    /// Of a graph whose last inputs have these defaults.
    pub fn new(
        graph: Graph,
        defaults: Vec<Tensor>,
        passes: Option<optimize::Options>,
        target: Arc<Target>,
    ) -> Overridable {
        let first = graph.inputs().len() - defaults.len();
        let ios = graph.inputs()[first..].iter().map(|&v| described(&graph, v)).collect();
        let values = defaults.into_iter().map(Value::Tensor).collect();
        Overridable { ios, values, graph, passes, target, program: OnceLock::new() }
    }
    /// The program that takes them as inputs, after the others.
    pub fn program(&self, threads: &dyn Parallel) -> Result<&Program> {
        let made = self.program.get_or_init(|| {
            let mut graph = self.graph.clone();
            if let Some(passes) = &self.passes {
                optimize::optimize(&mut graph, &self.target.cpu, threads, passes)?;
            }
            Program::new(Arc::new(graph), self.target.clone())
        });
        // The error is kept for later calls too.
        let again = |e: &Error| Error::new(e.kind(), e.to_string());
        made.as_ref().map_err(again).context(|| "overriding an input that has a default".into())
    }
    /// Frees the memory of idle frames.
    pub fn trim(&self) {
        if let Some(Ok(p)) = self.program.get() {
            p.trim();
        }
    }
}
