//! What the pipeline does with a pass that fails, one that is switched off, one that is the last, and one that waits.

use super::*;
use ortx::base::parallel::Serial;
use ortx::optimize::{Pass, PassCtx, optimize_with};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Renames nothing, removes a node that is still used, then fails.
struct Broken;

impl Pass for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> ortx::Result<()> {
        let id = cx.order()[0];
        let node = cx.node(id).unwrap().describe();
        cx.edit.remove(id);
        cx.fired();
        Err(ortx::Error::new(ortx::ErrorKind::Internal, format!("{node}: a toy failure")))
    }
}

fn graph() -> (Graph, Vec<Value>) {
    let mut d = Draft::new();
    let x = d.input("x", &[3]);
    let a = d.op("a", "Identity", &[x], vec![]);
    let y = d.op("y", "Exp", &[a], vec![]);
    (d.b.finish(vec![y]).unwrap(), d.inputs)
}

fn passes_with_broken() -> Vec<Box<dyn Pass>> {
    let mut all = passes::all();
    all.insert(1, Box::new(Broken));
    all
}

#[test]
fn a_pass_that_fails_is_left_out() {
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    let (mut g, inputs) = graph();
    let reports = optimize_with(&mut g, &passes_with_broken(), &cpu, &Serial, &Options::default()).unwrap();
    let broken = reports.iter().find(|r| r.pass == "broken").unwrap();
    let why = broken.failure.as_ref().unwrap();
    assert!(why.contains("pass 'broken'") && why.contains("'a' (Identity)") && why.contains("toy"), "{why}");
    assert_eq!(lines(&g), ["y = Exp(%x)"], "the other passes ran");
    run_graph(g, cpu_at(Isa::detect()), &inputs).unwrap();
}

#[test]
fn a_pass_that_fails_is_an_error_where_that_is_asked() {
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    let (mut g, _) = graph();
    let strict = Options { strict: true, ..Options::default() };
    let e = optimize_with(&mut g, &passes_with_broken(), &cpu, &Serial, &strict).unwrap_err();
    assert!(format!("{e:#}").contains("pass 'broken'"), "{e:#}");
}

#[test]
fn passes_are_switched_off_or_stopped_after() {
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    let (mut g, _) = graph();
    let off = Options { disabled: vec!["identity".into()], strict: true, ..Options::default() };
    optimize(&mut g, &cpu, &Serial, &off).unwrap();
    assert_eq!(lines(&g).len(), 2);
    let stop = Options { stop_after: Some("fold".into()), strict: true, ..Options::default() };
    let reports = optimize(&mut g, &cpu, &Serial, &stop).unwrap();
    assert_eq!(reports.last().unwrap().pass, "fold");
    assert_eq!(lines(&g).len(), 2);
}

/// Changes something in so many rounds; or waits for such a pass, and tells after how many changes it ran.
struct Counts(usize, Arc<AtomicUsize>, bool);

impl Pass for Counts {
    fn name(&self) -> &'static str {
        if self.2 { "waits" } else { "changes" }
    }
    fn waits(&self) -> bool {
        self.2
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> ortx::Result<()> {
        let (round, id) = (self.1.load(Ordering::Relaxed), cx.order()[0]);
        if self.2 {
            cx.miss(id, || format!("after {round}"));
        } else if round < self.0 {
            let node = cx.node(id).unwrap().clone();
            cx.edit.replace_op(id, node.op, node.inputs);
            self.1.fetch_add(1, Ordering::Relaxed);
            cx.fired();
        }
        Ok(())
    }
}

/// Until the others have done, but not for ever; and where it is the last, it has nothing to wait for.
#[test]
fn a_pass_may_wait_for_the_others() {
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    for (changes, stop_after, after) in [(3, None, 3), (1000, None, 8), (3, Some("waits"), 1)] {
        let (mut g, _) = graph();
        let count = Arc::new(AtomicUsize::new(0));
        let both = [false, true].map(|w| Box::new(Counts(changes, count.clone(), w)) as Box<dyn Pass>);
        let options = Options { strict: true, stop_after: stop_after.map(Into::into), ..Options::default() };
        let reports = optimize_with(&mut g, &both, &cpu, &Serial, &options).unwrap();
        let [miss] = &reports[1].misses[..] else { panic!("{:?}", reports[1].misses) };
        assert!(miss.ends_with(&format!(": after {after}")), "{changes} {stop_after:?}: {miss}");
    }
}
