//! Several matrix products of one left operand as one step: queries, keys and values, or the gate and the way up of a gated
//! layer. Each keeps its own weights, packed as if it stood alone; the step's tasks are those of all.

use super::{MatMul, bind as bind_one};
use crate::backend::cpu::CpuCtx;
use crate::backend::{NodeView, Operand, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op};
use smallvec::SmallVec;

/// Products of input 0. Part i has B, C and a residual in the three inputs from `1 + 3 i` on, and output i.
#[derive(Clone, Debug, PartialEq)]
pub struct Products {
    /// The products.
    pub parts: Vec<MatMul>,
}

/// Inputs of a part beside A.
pub const OWN: usize = 3;

/// Where a part's inputs are among all.
fn inputs_of(part: usize) -> [usize; 1 + OWN] {
    let first = 1 + OWN * part;
    [0, first, first + 1, first + 2]
}

impl Op for Products {
    fn name(&self) -> &'static str {
        "Products"
    }
    fn flops(&self, cx: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        let each = self.parts.iter().zip(outputs).enumerate().map(|(i, (part, out))| {
            let inputs = inputs_of(i).map(|at| cx.fact(at));
            part.flops(&InferCtx { inputs: &inputs, outputs: 1 }, std::slice::from_ref(out))
        });
        each.sum()
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let mut facts = Vec::with_capacity(self.parts.len());
        for (i, part) in self.parts.iter().enumerate() {
            let inputs = inputs_of(i).map(|at| cx.fact(at));
            facts.extend(part.infer(&mut InferCtx { inputs: &inputs, outputs: 1 })?);
        }
        Ok(facts)
    }
}

impl Products {
    /// Calls `f` with each product as a node of its own.
    pub(super) fn each<T>(
        &self,
        node: &NodeView<'_>,
        mut f: impl FnMut(&MatMul, &NodeView<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let part = |(i, op): (usize, &MatMul)| {
            let inputs: SmallVec<[Option<Operand>; 1 + OWN]> =
                inputs_of(i).iter().map(|&at| node.opt_input(at).cloned()).collect();
            let outputs = [node.opt_output(i).cloned()];
            f(op, &NodeView { name: node.name, op, inputs: &inputs, outputs: &outputs })
        };
        self.parts.iter().enumerate().map(part).collect()
    }
}

/// The steps, and where the workspace of each begins.
struct Parts {
    steps: Vec<(Box<dyn Step>, usize)>,
    workspace: usize,
}

pub(super) fn bind(op: &Products, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let steps = op.each(cx.node, |part, node| bind_one(part, &CpuCtx { node, isa: cx.isa, cache: cx.cache }))?;
    let mut parts = Parts { steps: Vec::with_capacity(steps.len()), workspace: 0 };
    for step in steps {
        let at = parts.workspace;
        parts.workspace = round_up(at.saturating_add(step.workspace_bytes()).min(isize::MAX as usize - ALIGN), ALIGN);
        parts.steps.push((step, at));
    }
    Ok(Box::new(parts))
}

impl Step for Parts {
    fn phases(&self) -> usize {
        self.steps.iter().map(|s| s.0.phases()).max().unwrap_or(0)
    }
    fn tasks(&self, phase: usize) -> usize {
        self.steps.iter().filter(|s| phase < s.0.phases()).map(|s| s.0.tasks(phase)).sum()
    }
    fn scratch_bytes(&self) -> usize {
        self.steps.iter().map(|s| s.0.scratch_bytes()).max().unwrap_or(0)
    }
    fn workspace_bytes(&self) -> usize {
        self.workspace
    }
    fn reads(&self, input: usize) -> bool {
        match input.checked_sub(1) {
            None => self.steps.iter().any(|s| s.0.reads(0)),
            Some(i) => self.steps.get(i / OWN).is_none_or(|s| s.0.reads(1 + i % OWN)),
        }
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, mut task: usize, scratch: *mut u8) -> Result<()> {
        for (i, (step, at)) in self.steps.iter().enumerate().filter(|(_, s)| phase < s.0.phases()) {
            let own = step.tasks(phase);
            if task >= own {
                task -= own;
                continue;
            }
            let (inputs, outputs) = (inputs_of(i).map(|at| args.input_slot(at)), [args.output_slot(i)]);
            let workspace = args.workspace::<u8>().wrapping_add(*at);
            let part = args.with_slots(&inputs, &outputs).with_workspace(workspace);
            // SAFETY: the part was bound for these operands; its workspace and results are its own (Step::run).
            return unsafe { step.run(&part, phase, task, scratch) };
        }
        Ok(())
    }
    fn kernel(&self) -> &str {
        self.steps.first().map_or("?", |s| s.0.kernel())
    }
}
