//! The order of the passes.

use super::pass::{Pass, PassCtx, PassReport};
use super::passes;
use crate::backend::cpu::CpuBackend;
use crate::base::parallel::Parallel;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::ir::edit::Editor;
use crate::ir::{Graph, NodeId, verify};
use std::sync::Arc;

/// Which passes run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names of passes to leave out.
    pub disabled: Vec<String>,
    /// The name of the last pass to run: bisects a miscompile.
    pub stop_after: Option<String>,
    /// The error of a pass is the caller's; else the graph is optimised without that pass, and its report tells why.
    pub strict: bool,
    /// Keep to what this version of ONNX's operators can say: a pass that makes anything else is undone.
    pub onnx: Option<u32>,
}

/// Rounds of the whole pipeline at most: a pass may open the way for one before it.
const MAX_ROUNDS: usize = 8;

/// Optimises a graph and the graphs inside it; constants are computed on the threads. Returns what each pass did.
pub fn optimize(
    graph: &mut Graph,
    cpu: &CpuBackend,
    threads: &dyn Parallel,
    options: &Options,
) -> Result<Vec<PassReport>> {
    optimize_with(graph, &passes::all(), cpu, threads, options)
}

/// The same with other passes.
pub fn optimize_with(
    graph: &mut Graph,
    passes: &[Box<dyn Pass>],
    cpu: &CpuBackend,
    threads: &dyn Parallel,
    options: &Options,
) -> Result<Vec<PassReport>> {
    // A copy shares operators and constants.
    let original = (!options.strict).then(|| graph.clone());
    let mut failed: Vec<PassReport> = Vec::new();
    loop {
        let is_on = |p: &&dyn Pass| {
            !options.disabled.iter().any(|d| d == p.name()) && !failed.iter().any(|f| f.pass == p.name())
        };
        let on = passes.iter().map(|p| &**p).filter(is_on).collect();
        let room = passes::room(graph);
        let mut run = Run { all: passes, on, cpu, threads, options, room, reports: Vec::new() };
        match (run.whole(graph), &original) {
            (Ok(()), _) => {
                run.reports.append(&mut failed);
                return Ok(run.reports);
            }
            // Memory that is short now is short for what follows too.
            (Err((Some(pass), e)), Some(original)) if e.kind() != ErrorKind::OutOfMemory => {
                *graph = original.clone();
                let report = PassReport { pass, failure: Some(format!("{e:#}")), ..Default::default() };
                failed.push(report);
            }
            (Err((_, e)), _) => return Err(e),
        }
    }
}

struct Run<'a> {
    all: &'a [Box<dyn Pass>],
    on: Vec<&'a dyn Pass>,
    cpu: &'a CpuBackend,
    threads: &'a dyn Parallel,
    options: &'a Options,
    /// Bytes that folding may still add.
    room: usize,
    reports: Vec<PassReport>,
}

/// An error, and the pass whose it is.
type Failure = (Option<&'static str>, Error);

impl Run<'_> {
    /// Until a round changes nothing.
    fn whole(&mut self, graph: &mut Graph) -> std::result::Result<(), Failure> {
        let edit = &mut Editor::new(graph);
        self.inner_graphs(edit)?;
        // The graph in which a pass last found nothing.
        let mut idle_at = vec![None; self.all.len()];
        for round in 1..=MAX_ROUNDS {
            // There is nothing to wait for.
            let last = self.options.stop_after.is_some() || round == MAX_ROUNDS;
            let mut changed = false;
            for (pass, idle_at) in self.all.iter().zip(&mut idle_at) {
                let name = pass.name();
                let before = edit.revision();
                if changed && !last && pass.waits() {
                    continue;
                }
                if *idle_at != Some(before) && self.on.iter().any(|p| p.name() == name) {
                    let fired = self.one(&**pass, edit).context(|| format!("pass '{name}'"));
                    changed |= fired.map_err(|e| (Some(name), e))?;
                    *idle_at = (edit.revision() == before).then_some(before);
                }
                if self.options.stop_after.as_deref() == Some(name) {
                    return Ok(());
                }
            }
            if !changed {
                break;
            }
        }
        Ok(())
    }

    fn one(&mut self, pass: &dyn Pass, edit: &mut Editor<'_>) -> Result<bool> {
        let report = PassReport { pass: pass.name(), ..Default::default() };
        let before = self.options.onnx.map(|version| (version, edit.graph().unsaid(version), edit.graph().clone()));
        let (cpu, threads, room, keep_groups) = (self.cpu, self.threads, &mut self.room, before.is_some());
        let mut cx = PassCtx { edit: &mut *edit, cpu, threads, room, keep_groups, report, missed: Vec::new() };
        pass.run(&mut cx)?;
        let mut report = cx.finish_report();
        edit.settle()?;
        if let Some((version, unsaid, before)) = before
            && edit.graph().unsaid(version) > unsaid
        {
            report.misses = vec![format!("CheckFailed: ONNX {version} has no one operator for what it makes")];
            report.fired = 0;
            edit.restore(before);
        }
        let fired = report.fired > 0;
        if cfg!(debug_assertions) {
            verify::verify(edit.graph())?;
        }
        match self.reports.iter_mut().find(|r| r.pass == report.pass) {
            Some(r) => {
                r.fired += report.fired;
                r.misses = report.misses;
            }
            None => self.reports.push(report),
        }
        Ok(fired)
    }

    /// Optimises the graphs in the attributes of this one's nodes.
    fn inner_graphs(&mut self, edit: &mut Editor<'_>) -> std::result::Result<(), Failure> {
        let with = edit.graph().nodes().filter(|(_, n)| !n.op.subgraphs().is_empty());
        let with: Vec<NodeId> = with.map(|(id, _)| id).collect();
        for id in with {
            let mut subs: Vec<Graph> = edit.graph().node(id).op.subgraphs().into_iter().cloned().collect();
            for g in &mut subs {
                self.whole(g)?;
            }
            edit.replace_subgraphs(id, subs.into_iter().map(Arc::new).collect());
        }
        edit.settle().map_err(|e| (None, e))
    }
}
