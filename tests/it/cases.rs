//! Every operator case at every ISA level: against what is expected, and against the scalar path.

use ortx::backend::cpu::CpuBackend;
use ortx::base::parallel::Serial;
use ortx::kernels::isa::Isa;
use ortx::ops::case::Case;
use ortx::plan::{Program, RunCtx, Target};
use ortx::{Result, Tensor, Value, ops};
use std::sync::Arc;

fn run(case: &Case, isa: Isa) -> Result<Vec<Tensor>> {
    let (graph, inputs) = case.build(&ops::registry())?;
    let target = Arc::new(Target::cpu(Arc::new(CpuBackend::new(isa, ops::cpu_bindings()))));
    let program = Program::new(Arc::new(graph), target)?;
    let mut outputs = vec![None; program.graph().outputs().len()];
    let cx = RunCtx { pool: &Serial, cancel: None, profile: None };
    program.run(&cx, &inputs, &mut outputs)?;
    outputs.iter().flatten().map(|v: &Value| v.as_tensor().cloned()).collect()
}

fn check(case: &Case) -> Result<()> {
    let scalar = run(case, Isa::SCALAR)?;
    for (want, got) in case.expect.iter().zip(&scalar) {
        case.compare(want, got).map_err(|e| e.context("scalar"))?;
    }
    for isa in Isa::detect().levels() {
        let got = run(case, isa).map_err(|e| e.context(isa.level().name()))?;
        for (want, got) in scalar.iter().zip(&got) {
            case.compare(want, got).map_err(|e| e.context(isa.level().name()))?;
        }
    }
    Ok(())
}

#[test]
fn every_case_at_every_isa_level() {
    let cases = ops::cases();
    let failed: Vec<String> =
        cases.iter().filter_map(|c| check(c).err().map(|e| format!("{}: {e}", c.title()))).collect();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
