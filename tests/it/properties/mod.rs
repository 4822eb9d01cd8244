//! Operators of random types, shapes and attributes against references written from the specification: plain loops over
//! indices in f64 or i128. Each trial runs at every ISA level, and on two threads, which must give the same bits.
//!
//! A trial is drawn from a list of numbers, so that proptest can make a failing one smaller: fewer and lesser numbers are
//! simpler trials. `ORTX_PROPTEST=100000` asks for so many trials a family, `ORTX_PROPTEST_SEED=7` for other ones.
//! Without debug assertions: `cargo test --release --test it properties::` (a build of some minutes, so no part of CI).

mod conv;
pub mod draw;
mod elementwise;
mod fused;
mod gather;
mod matmul;
mod movement;
mod network;
mod norm;
mod pool;
mod quant;
mod reduce;
pub mod reference;
mod resize;

use crate::cases::cpu;
use draw::Draw;
use ortx::backend::cpu::CpuBackend;
use ortx::base::parallel::{Parallel, Serial};
use ortx::base::pool::Pool;
use ortx::ir::Graph;
use ortx::kernels::isa::Isa;
use ortx::ops::case::{Case, CaseInput};
use ortx::plan::{Program, RunCtx, Target};
use ortx::{ErrorKind, Result, Tensor, Value, ops, optimize};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Trials a family in an ordinary run: all families together take some seconds.
const TRIALS: u32 = 100;

/// A setting of the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|s| s.parse().unwrap_or_else(|_| panic!("{name} is no number: {s}")))
}

/// Draws trials of a family and checks them. `None` is a draw that makes no sense.
fn family(name: &str, draw: impl Fn(&mut Draw) -> Option<Case>) {
    trials(name, |d| match draw(d) {
        Some(case) => check(&case).map_err(|e| e.context(format!("\n{}", describe(&case)))),
        None => Ok(()),
    });
}

/// Runs trials, makes a failing one smaller, and tells how it fails.
fn trials(name: &str, trial: impl Fn(&mut Draw) -> Result<()>) {
    let cases = number("ORTX_PROPTEST").map_or(TRIALS, |n| u32::try_from(n).unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 3000, ..Config::default() };
    let mut seed = [0u8; 32];
    seed[..8].copy_from_slice(&number("ORTX_PROPTEST_SEED").unwrap_or(1).to_le_bytes());
    seed[8..8 + name.len().min(24)].copy_from_slice(&name.as_bytes()[..name.len().min(24)]);
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let choices = proptest::collection::vec(proptest::num::u32::ANY, 60..=90);
    let unsupported = RefCell::new(BTreeMap::<String, usize>::new());
    let outcome = runner.run(&choices, |choices| match trial(&mut Draw::new(&choices)) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            *unsupported.borrow_mut().entry(e.message().to_string()).or_default() += 1;
            Ok(())
        }
        Err(e) => Err(TestCaseError::fail(e.to_string())),
        Ok(()) => Ok(()),
    });
    for (what, times) in unsupported.borrow().iter() {
        println!("{name}: not supported, {times} times: {what}");
    }
    if let Err(e) = outcome {
        // Without the list of numbers, which tells nobody anything.
        let text = e.to_string();
        panic!("{name}: {}", text.split("\nminimal failing input").next().unwrap_or(&text));
    }
}

fn describe(case: &Case) -> String {
    let input = |i: &CaseInput| match i {
        CaseInput::Absent => "-".to_string(),
        CaseInput::Given(t) => show(t),
        CaseInput::Constant(t) => format!("constant {}", show(t)),
        CaseInput::Random(d, shape, ..) => format!("{d}{shape:?}"),
    };
    let inputs: Vec<String> = case.inputs.iter().map(input).collect();
    format!("{} {:?} of {}", case.title(), case.attrs, inputs.join(", "))
}

fn show(t: &Tensor) -> String {
    let head = format!("{}{:?}", t.dtype(), t.shape());
    match ortx::ops::case::to_f64s(t) {
        Ok(v) if v.len() <= 24 => format!("{head}{v:?}"),
        _ => head,
    }
}

pub fn two_threads() -> &'static Arc<Pool> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    POOL.get_or_init(|| Arc::new(Pool::new(2, Duration::ZERO).unwrap()))
}

fn run(graph: Graph, target: Target, pool: &dyn Parallel, inputs: &[Value]) -> Result<Vec<Tensor>> {
    let program = Program::new(Arc::new(graph), Arc::new(target))?;
    let mut outputs = vec![None; program.graph().outputs().len()];
    program.run(&RunCtx { pool, stop: Default::default(), profile: None }, inputs, &mut outputs)?;
    outputs.iter().flatten().map(|v: &Value| v.as_tensor().cloned()).collect()
}

fn check(case: &Case) -> Result<()> {
    let registry = ops::registry();
    for isa in Isa::detect().levels() {
        let (graph, inputs) = case.build(&registry)?;
        let at = |e: ortx::Error| e.context(isa.level().name());
        let best = isa.level() == Isa::detect().level();
        let one = run(graph.clone(), cpu(isa), &Serial, &inputs).map_err(at)?;
        compare(case, &one).map_err(at)?;
        if best {
            let two = run(graph.clone(), cpu(isa), &**two_threads(), &inputs).map_err(at)?;
            for (a, b) in one.iter().zip(&two) {
                ortx::ensure!(a.bytes() == b.bytes(), Run, "two threads give other bits than one");
            }
            // What the optimiser makes of it: folded constants, at least.
            let mut after = graph;
            let backend = CpuBackend::new(isa, ops::cpu_bindings());
            optimize::optimize(&mut after, &backend, &Serial, &optimize::Options::default()).map_err(at)?;
            let again = run(after, cpu(isa), &Serial, &inputs).map_err(|e| e.context("optimised"))?;
            compare(case, &again).map_err(|e| e.context("optimised"))?;
        }
    }
    Ok(())
}

fn compare(case: &Case, got: &[Tensor]) -> Result<()> {
    let count = case.expect.len();
    ortx::ensure!(got.len() == count, Run, "{count} outputs were expected, there are {}", got.len());
    for (i, (want, got)) in case.expect.iter().zip(got).enumerate() {
        case.compare(want, got).map_err(|e| e.context(format!("output {i}")))?;
    }
    Ok(())
}
