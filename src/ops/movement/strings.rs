//! Strings moved as their indices: the operator's own step runs on numbers, and the strings follow.

use super::Bind;
use crate::backend::cpu::{Arg, CpuCtx, EagerCtx, Values, run_now};
use crate::backend::{NodeView, Operand, PackedCache};
use crate::base::alloc::{gathered, try_gathered};
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op, TensorFact};
use crate::kernels::isa::Isa;
use crate::tensor::{DType, Tensor, Value};
use crate::{bail, err};

/// Runs an operator that moves strings. An element that comes from none of them (a border) is the empty string.
pub fn run<T: Op>(op: &T, cx: &mut EagerCtx<'_>, args: &[Arg<'_>], bind: Bind<T>) -> Result<Values> {
    // Number 0 is the empty string.
    let mut strings: Vec<&String> = Vec::new();
    let mut inputs: Vec<Option<Tensor>> = Vec::with_capacity(args.len());
    let mut is_string = false;
    for a in args {
        inputs.push(match a {
            Arg::Absent => None,
            a => {
                let t = a.tensor()?;
                Some(match t.as_strings() {
                    Ok(s) => {
                        is_string = true;
                        let first = strings.len() as i64 + 1;
                        strings.extend(gathered(s.iter())?);
                        Tensor::gathered(t.shape(), first..first + s.len() as i64)?
                    }
                    Err(_) => t.to_tensor()?,
                })
            }
        });
    }
    let facts: Vec<Fact> =
        inputs.iter().map(|t| t.clone().map_or(Fact::Absent, |t| Fact::Tensor(TensorFact::constant(t)))).collect();
    let facts: Vec<&Fact> = facts.iter().collect();
    let outs = op.infer(&mut InferCtx { inputs: &facts, outputs: cx.outputs })?;
    let operand = |t: &Tensor| Operand { constant: Some(t.clone()), ..Operand::dense(t.dtype(), t.shape()) };
    let ins: Vec<Option<Operand>> = inputs.iter().map(|t| t.as_ref().map(operand)).collect();
    let mut results = Vec::with_capacity(cx.outputs);
    for f in outs.iter().take(cx.outputs) {
        let (Some(d), Some(shape)) = (f.dtype(), f.shape()) else {
            bail!(Unsupported, "{} of these inputs has an output of unknown shape: {f}", op.name())
        };
        results.push(Tensor::uninit(d, &shape)?);
    }
    let outs: Vec<_> = results.iter().map(|t| Some(Operand::dense(t.dtype(), t.shape()))).collect();
    let node = NodeView { name: op.name(), op, inputs: &ins, outputs: &outs };
    let cache = PackedCache::new();
    let step = super::packed::bind(op, &CpuCtx { node: &node, isa: Isa::detect(), cache: &cache }, bind)?;
    run_now(&*step, &inputs, &mut results, cx.pool)?;
    let empty = String::new();
    results
        .into_iter()
        .map(|t| {
            if !is_string || t.dtype() != DType::I64 {
                return Ok(Value::Tensor(t));
            }
            let moved = t.as_slice::<i64>()?.iter().map(|&id| match id {
                0 => Ok(empty.clone()),
                id => strings
                    .get(id as usize - 1)
                    .map(|s| (*s).clone())
                    .ok_or_else(|| err!(Internal, "a string's number was changed")),
            });
            Ok(Value::Tensor(Tensor::from_strings(t.shape(), try_gathered(moved)?)?))
        })
        .collect()
}
