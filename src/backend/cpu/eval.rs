//! One operator on tensors, at once: constant folding at load, shape arithmetic when a plan is made.

use super::{Arg, CpuBackend, EagerCtx, Memory};
use crate::backend::step::{Place, StepArgs, run_phases};
use crate::backend::{Backend, NodeView, Operand, PackedCache, Step};
use crate::base::alloc::{ALIGN, Buffer};
use crate::base::cancel::Stop;
use crate::base::checked;
use crate::base::parallel::Parallel;
use crate::error::Result;
use crate::ir::{Fact, Op};
use crate::tensor::{Tensor, Value};
use crate::{bail, err};

/// The outputs of `op` on constants; `facts` are what `infer` says of the outputs. `Ok(None)` where the CPU has no
/// way to compute it from tensors alone (a subgraph inside, a value that is no tensor).
pub fn evaluate(
    cpu: &CpuBackend,
    threads: &dyn Parallel,
    name: &str,
    op: &dyn Op,
    inputs: &[Option<Tensor>],
    facts: &[Fact],
) -> Result<Option<Vec<Tensor>>> {
    if let (crate::ir::Alias::View, Some(Some(t)), Some(shape)) = (op.alias(), inputs.first(), facts[0].shape()) {
        return Ok(Some(vec![t.reshaped(&shape)?]));
    }
    let plain = inputs.iter().flatten().all(|t| t.dtype() != crate::tensor::DType::String)
        && facts.iter().all(Fact::is_concrete);
    if plain && cpu.bindings().has_step(op) {
        step(cpu, threads, name, op, inputs, facts).map(Some)
    } else {
        eager(cpu, threads, op, inputs, facts.len())
    }
}

fn step(
    cpu: &CpuBackend,
    threads: &dyn Parallel,
    name: &str,
    op: &dyn Op,
    inputs: &[Option<Tensor>],
    facts: &[Fact],
) -> Result<Vec<Tensor>> {
    let operand = |t: &Tensor| Operand { constant: Some(t.clone()), ..Operand::dense(t.dtype(), t.shape()) };
    let ins: Vec<_> = inputs.iter().map(|t| t.as_ref().map(operand)).collect();
    let mut results = Vec::with_capacity(facts.len());
    for f in facts {
        let (Some(dtype), Some(shape)) = (f.dtype(), f.shape()) else { bail!(Internal, "folding needs a known shape") };
        results.push(Tensor::uninit(dtype, &shape)?);
    }
    let outs: Vec<_> = results.iter().map(|t| Some(Operand::dense(t.dtype(), t.shape()))).collect();
    let step = cpu.bind(&NodeView { name, op, inputs: &ins, outputs: &outs }, &PackedCache::new())?;
    run_now(&*step, inputs, &mut results, threads)?;
    Ok(results)
}

/// Runs all of a step on dense host tensors; `results` must be new.
pub fn run_now(
    step: &dyn Step,
    inputs: &[Option<Tensor>],
    results: &mut [Tensor],
    threads: &dyn Parallel,
) -> Result<()> {
    let each = step.scratch_bytes().next_multiple_of(ALIGN);
    let scratch = Buffer::uninit(checked::product(&[each, threads.width()])?)?;
    let workspace = Buffer::uninit(step.workspace_bytes())?;
    let place = |addr: *const u8| Place { addr: addr.cast_mut(), space: 0 };
    inputs.iter().flatten().try_for_each(Tensor::settle)?;
    let mut places: Vec<_> = inputs.iter().map(|t| t.as_ref().map_or(Place::NONE, |t| place(t.data_ptr()))).collect();
    for t in results {
        let p = t.data_mut_ptr().ok_or_else(|| err!(Internal, "a new tensor is shared"))?;
        places.push(place(p));
    }
    let index: Vec<u32> = (0..places.len() as u32).collect();
    let (i, o) = index.split_at(inputs.len());
    let args = StepArgs::new(&places, &[], i, o, workspace.ptr());
    // SAFETY: operands as bound; scratch for each thread and workspace, of the sizes asked for.
    unsafe { run_phases(step, &args, scratch.ptr(), each, threads, &Stop::default()) }
}

fn eager(
    cpu: &CpuBackend,
    threads: &dyn Parallel,
    op: &dyn Op,
    inputs: &[Option<Tensor>],
    outputs: usize,
) -> Result<Option<Vec<Tensor>>> {
    let Some(run) = cpu.bindings().find_eager(op) else { return Ok(None) };
    let args: Vec<_> = inputs.iter().map(|t| t.as_ref().map_or(Arg::Absent, |t| Arg::Tensor(t.as_view()))).collect();
    let values = run(op, &mut EagerCtx::new(threads, outputs, Memory::default()), &args)?;
    let tensors = values.into_iter().map(|v| if let Value::Tensor(t) = v { Some(t) } else { None });
    Ok(tensors.collect())
}
