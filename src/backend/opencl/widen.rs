//! Operators over f16 and bf16 by kernels of f32: the recipe of the node in f32, with conversions around it. Each operator
//! rounds its result once, to its type.

use super::element::Type;
use super::pointwise::Operand as Strided;
use super::recipe::{Arg, Recipe, Work};
use crate::backend::{NodeView, Operand};
use crate::error::Result;
use crate::kernels::pointwise::ProgramBuilder;
use crate::tensor::{DType, Tensor};
use crate::{bail, err};
use half::{bf16, f16};

fn narrow(o: &Operand) -> bool {
    matches!(o.dtype, DType::F16 | DType::BF16)
}

/// Whether a float operand is narrower than f32.
pub(super) fn is_narrow(node: &NodeView<'_>) -> bool {
    node.inputs.iter().chain(node.outputs).flatten().any(narrow)
}

/// The node with f32 for every narrower float.
fn wide(list: &[Option<Operand>]) -> Vec<Option<Operand>> {
    let each = |o: &Operand| if narrow(o) { Operand::dense(DType::F32, &o.shape) } else { o.clone() };
    list.iter().map(|o| o.as_ref().map(each)).collect()
}

/// The recipe that `write` writes of the widened node, around it the conversions.
pub(super) fn recipe(node: &NodeView<'_>, write: impl FnOnce(&NodeView<'_>) -> Result<Recipe>) -> Result<Recipe> {
    let (inputs, outputs) = (wide(node.inputs), wide(node.outputs));
    let inner = write(&NodeView { name: node.name, op: node.op, inputs: &inputs, outputs: &outputs })?;
    let mut all = Recipe { stages: Vec::new(), temporaries: inner.temporaries };
    let mut room = |o: &Operand| -> Result<Arg> {
        all.temporaries.push(DType::F32.byte_len(o.len())?);
        Ok(Arg::Temporary(all.temporaries.len() - 1))
    };
    // Where each operand is found in f32, and what has to be converted before and after.
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    for (i, o) in node.inputs.iter().enumerate() {
        found.push(match o {
            Some(o) if narrow(o) && o.constant.is_some() => Arg::Wide(i),
            Some(o) if narrow(o) => {
                let to = room(o)?;
                before.push((convert(o.len(), o.dtype, DType::F32)?, Arg::Input(i), to.clone()));
                to
            }
            _ => Arg::Input(i),
        });
    }
    let mut made = Vec::new();
    for (i, o) in node.outputs.iter().enumerate() {
        made.push(match o {
            Some(o) if narrow(o) => {
                let from = room(o)?;
                after.push((convert(o.len(), DType::F32, o.dtype)?, from.clone(), Arg::Output(i)));
                from
            }
            _ => Arg::Output(i),
        });
    }
    let used = |arg: &Arg| inner.stages.iter().any(|s| s.args.contains(arg));
    for (work, from, to) in before {
        if used(&from) {
            all = all.then(work, [from, to]);
        }
    }
    for stage in &inner.stages {
        let place = |arg: &Arg| -> Result<Arg> {
            let missing = || err!(Internal, "an operand that the node lacks");
            Ok(match arg {
                Arg::Input(i) => found.get(*i).ok_or_else(missing)?.clone(),
                Arg::Output(i) => made.get(*i).ok_or_else(missing)?.clone(),
                Arg::Turned(i, ..) if found.get(*i) != Some(&Arg::Input(*i)) => {
                    bail!(Internal, "a turned constant of a narrow type")
                }
                other => other.clone(),
            })
        };
        let args = stage.args.iter().map(place).collect::<Result<Vec<_>>>()?;
        all = all.then(stage.work.clone(), args);
    }
    for (work, from, to) in after {
        all = all.then(work, [from, to]);
    }
    Ok(all)
}

/// The program that copies elements from one type to another.
pub(super) fn convert(n: usize, from: DType, to: DType) -> Result<Work> {
    let of = |d| match Type::of(d) {
        Some(dtype) => Ok(Strided { dtype, strides: vec![1] }),
        None => bail!(Unsupported, "elements of {d} on OpenCL"),
    };
    let mut b = ProgramBuilder::new(1);
    let x = b.load(0);
    let program = b.finish(&[x])?;
    Ok(Work::Pointwise { program, dims: vec![n], inputs: vec![of(from)?], outputs: vec![of(to)?] })
}

/// A tensor of narrow floats in f32.
pub(super) fn to_f32(t: &Tensor) -> Result<Tensor> {
    let mut out = Tensor::uninit(DType::F32, t.shape())?;
    let to = out.data_mut_ptr().ok_or_else(|| err!(Internal, "a new tensor is shared"))?.cast::<f32>();
    let put = |i: usize, x: f32| {
        // SAFETY: element i of a new tensor of as many.
        unsafe { *to.add(i) = x };
    };
    match t.dtype() {
        DType::F16 => t.as_slice::<f16>()?.iter().enumerate().for_each(|(i, x)| put(i, x.to_f32())),
        DType::BF16 => t.as_slice::<bf16>()?.iter().enumerate().for_each(|(i, x)| put(i, x.to_f32())),
        d => bail!(Internal, "{d} is no narrow float"),
    }
    Ok(out)
}
