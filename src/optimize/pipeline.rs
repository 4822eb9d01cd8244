//! The order of the passes.

use super::pass::{Pass, PassCtx, PassReport};
use super::passes;
use crate::backend::cpu::CpuBackend;
use crate::error::{Context, Result};
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
}

/// Rounds of the whole pipeline at most: a pass may open the way for one before it.
const MAX_ROUNDS: usize = 4;

/// Optimises a graph and the graphs inside it. Returns what each pass did.
pub fn optimize(graph: &mut Graph, cpu: &CpuBackend, options: &Options) -> Result<Vec<PassReport>> {
    let mut reports: Vec<PassReport> = Vec::new();
    run(graph, cpu, options, &mut reports)?;
    Ok(reports)
}

fn run(graph: &mut Graph, cpu: &CpuBackend, options: &Options, reports: &mut Vec<PassReport>) -> Result<()> {
    inner_graphs(graph, cpu, options, reports)?;
    let passes = passes::all();
    for _ in 0..MAX_ROUNDS {
        let mut changed = false;
        for pass in &passes {
            if !options.disabled.iter().any(|d| d == pass.name()) {
                changed |= one(&**pass, graph, cpu, reports).context(|| format!("pass '{}'", pass.name()))?;
            }
            if options.stop_after.as_deref() == Some(pass.name()) {
                return Ok(());
            }
        }
        if !changed {
            break;
        }
    }
    Ok(())
}

fn one(pass: &dyn Pass, graph: &mut Graph, cpu: &CpuBackend, reports: &mut Vec<PassReport>) -> Result<bool> {
    let report = PassReport { pass: pass.name(), ..Default::default() };
    let mut cx = PassCtx { edit: Editor::new(graph), cpu, report, missed: Vec::new() };
    pass.run(&mut cx)?;
    let report = cx.finish_report();
    let edit = cx.edit;
    let fired = report.fired > 0;
    edit.finish()?;
    if cfg!(debug_assertions) {
        verify::verify(graph)?;
    }
    match reports.iter_mut().find(|r| r.pass == report.pass) {
        Some(r) => {
            r.fired += report.fired;
            r.misses = report.misses;
        }
        None => reports.push(report),
    }
    Ok(fired)
}

/// Optimises the graphs in the attributes of this one's nodes.
fn inner_graphs(graph: &mut Graph, cpu: &CpuBackend, options: &Options, reports: &mut Vec<PassReport>) -> Result<()> {
    let with: Vec<NodeId> = graph.nodes().filter(|(_, n)| !n.op.subgraphs().is_empty()).map(|(id, _)| id).collect();
    for id in with {
        // A dead one goes when the one before it is replaced.
        if !graph.has_node(id) {
            continue;
        }
        let node = graph.node(id);
        let mut subs: Vec<Graph> = node.op.subgraphs().into_iter().cloned().collect();
        for g in &mut subs {
            run(g, cpu, options, reports)?;
        }
        let node = graph.node(id);
        if let Some(op) = node.op.with_subgraphs(subs.into_iter().map(Arc::new).collect()) {
            let inputs = node.inputs.clone();
            let mut edit = Editor::new(graph);
            edit.replace_op(id, op, inputs);
            edit.finish()?;
        }
    }
    Ok(())
}
