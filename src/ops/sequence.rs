//! Sequences and optionals.

use super::Family;
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Values};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Fact, InferCtx, Op, OpDef, ParseCtx, TensorFact};
use crate::tensor::{DType, SequenceValue, Tensor, Value, join};
use crate::{bail, ensure, err};
use smallvec::smallvec;
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "sequences and optionals", ops: OPS, cpu, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "ConcatFromSequence", versions: &[11], parse: parse_concat },
    OpDef { domain: "", name: "Optional", versions: &[15], parse: parse_optional },
    OpDef { domain: "", name: "OptionalGetElement", versions: &[15, 18], parse: |cx| one(cx, Optional::Get) },
    OpDef { domain: "", name: "OptionalHasElement", versions: &[15, 18], parse: |cx| one(cx, Optional::Has) },
    OpDef { domain: "", name: "SequenceAt", versions: &[11], parse: |cx| seq(cx, 2, 2, Sequence::At) },
    OpDef {
        domain: "",
        name: "SequenceConstruct",
        versions: &[11],
        parse: |cx| seq(cx, 1, 1 << 20, Sequence::Construct),
    },
    OpDef { domain: "", name: "SequenceEmpty", versions: &[11], parse: parse_empty },
    OpDef { domain: "", name: "SequenceErase", versions: &[11], parse: |cx| seq(cx, 1, 2, Sequence::Erase) },
    OpDef { domain: "", name: "SequenceInsert", versions: &[11], parse: |cx| seq(cx, 2, 3, Sequence::Insert) },
    OpDef { domain: "", name: "SequenceLength", versions: &[11], parse: |cx| seq(cx, 1, 1, Sequence::Length) },
    OpDef { domain: "", name: "SplitToSequence", versions: &[11, 24], parse: parse_split },
];

/// ONNX's sequence operators (11).
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Sequence {
    At,
    Construct,
    /// The dtype of the elements to come.
    Empty(DType),
    Erase,
    Insert,
    Length,
    /// Along an axis; `new_axis` stacks instead of joining.
    Concat {
        axis: i64,
        new_axis: bool,
    },
    Split {
        axis: i64,
        keep_dims: bool,
    },
}

fn seq(cx: &mut ParseCtx<'_>, min: usize, max: usize, op: Sequence) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(min, max)?;
    if op == Sequence::Construct {
        // Each of them is an element.
        cx.expect_inputs(cx.inputs.len(), max)?;
    }
    Ok(Arc::new(op))
}

fn parse_empty(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let dtype = cx.int_or("dtype", DType::F32 as i64)?;
    Ok(Arc::new(Sequence::Empty(DType::from_onnx(i32::try_from(dtype).unwrap_or(0))?)))
}

fn parse_concat(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let op = Sequence::Concat { axis: cx.int("axis")?, new_axis: cx.flag("new_axis", false)? };
    seq(cx, 1, 1, op)
}

fn parse_split(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let op = Sequence::Split { axis: cx.int_or("axis", 0)?, keep_dims: cx.flag("keepdims", true)? };
    seq(cx, 1, 2, op)
}

/// The element type of a sequence's tensors, where known.
fn element(f: &Fact) -> Fact {
    match f {
        Fact::Sequence(e) => e.without_sizes(),
        _ => Fact::Unknown,
    }
}

impl Op for Sequence {
    fn name(&self) -> &'static str {
        match self {
            Sequence::At => "SequenceAt",
            Sequence::Construct => "SequenceConstruct",
            Sequence::Empty(_) => "SequenceEmpty",
            Sequence::Erase => "SequenceErase",
            Sequence::Insert => "SequenceInsert",
            Sequence::Length => "SequenceLength",
            Sequence::Concat { .. } => "ConcatFromSequence",
            Sequence::Split { .. } => "SplitToSequence",
        }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![match self {
            Sequence::At => element(cx.fact(0)),
            Sequence::Construct | Sequence::Split { .. } => Fact::Sequence(Box::new(cx.fact(0).without_sizes())),
            Sequence::Empty(d) => Fact::Sequence(Box::new(Fact::any_tensor(*d))),
            Sequence::Erase | Sequence::Insert => Fact::Sequence(Box::new(element(cx.fact(0)))),
            Sequence::Length => Fact::sized(DType::I64, &[]),
            Sequence::Concat { .. } => element(cx.fact(0)),
        }])
    }
}

/// The sequence among the arguments.
fn items<'a>(a: &'a Arg<'_>) -> Result<&'a SequenceValue> {
    match a {
        Arg::Value(v) => v.as_sequence(),
        Arg::Tensor(_) => bail!(InvalidModel, "a sequence is needed here, not a tensor"),
        Arg::Absent => bail!(InvalidModel, "the sequence is missing"),
    }
}

/// A position in a sequence of `n`: negative ones count from the end.
fn position(a: &Arg<'_>, n: usize, max: usize) -> Result<usize> {
    let v = a.tensor()?.to_i64s()?;
    ensure!(v.len() == 1, InvalidModel, "a position must be one number");
    let p = if v[0] < 0 { v[0].saturating_add(n as i64) } else { v[0] };
    usize::try_from(p)
        .ok()
        .filter(|&p| p <= max)
        .ok_or_else(|| err!(Run, "position {} is outside a sequence of {n}", v[0]))
}

fn run(op: &Sequence, _cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let second = args.get(1).filter(|a| a.is_given());
    Ok(smallvec![match op {
        Sequence::At => {
            let s = items(&args[0])?;
            ensure!(!s.is_empty(), Run, "the sequence is empty");
            s[position(&args[1], s.len(), s.len() - 1)?].clone()
        }
        Sequence::Construct => Value::Sequence(Arc::new(args.iter().map(Arg::to_value).collect::<Result<_>>()?)),
        Sequence::Empty(_) => Value::Sequence(Arc::new(Vec::new())),
        Sequence::Erase => {
            let mut s = items(&args[0])?.to_vec();
            ensure!(!s.is_empty(), Run, "the sequence is empty");
            let at = second.map_or(Ok(s.len() - 1), |a| position(a, s.len(), s.len() - 1))?;
            s.remove(at);
            Value::Sequence(Arc::new(s))
        }
        Sequence::Insert => {
            let mut s = items(&args[0])?.to_vec();
            let at = args.get(2).filter(|a| a.is_given()).map_or(Ok(s.len()), |a| position(a, s.len(), s.len()))?;
            s.insert(at, args[1].to_value()?);
            Value::Sequence(Arc::new(s))
        }
        Sequence::Length => Value::Tensor(Tensor::scalar(items(&args[0])?.len() as i64)?),
        Sequence::Concat { axis, new_axis } => {
            let tensors = items(&args[0])?.iter().map(Value::as_tensor).collect::<Result<Vec<_>>>()?;
            let Some(first) = tensors.first() else { bail!(Run, "nothing to join") };
            let axis = resolve_axis(*axis, first.shape().len() + usize::from(*new_axis))?;
            Value::Tensor(if *new_axis { join::stack(&tensors, axis)? } else { join::concat(&tensors, axis)? })
        }
        Sequence::Split { axis, keep_dims } => split(&args[0].tensor()?.to_tensor()?, second, *axis, *keep_dims)?,
    }])
}

fn split(t: &Tensor, sizes: Option<&Arg<'_>>, axis: i64, keep_dims: bool) -> Result<Value> {
    let axis = resolve_axis(axis, t.shape().len())?;
    let n = t.shape()[axis];
    let (sizes, squeeze) = match sizes {
        None => (vec![1; n], !keep_dims),
        Some(a) => {
            let view = a.tensor()?;
            let v = view.to_i64s()?;
            let positive = |x: i64| usize::try_from(x).map_err(|_| err!(Run, "a part of size {x}"));
            let v = v.into_iter().map(positive).collect::<Result<Vec<_>>>()?;
            if view.shape().is_empty() {
                let each = v[0].max(1);
                ((0..n.div_ceil(each)).map(|i| each.min(n - i * each)).collect(), false)
            } else {
                (v, false)
            }
        }
    };
    let total = sizes.iter().try_fold(0usize, |a, &s| a.checked_add(s));
    ensure!(total == Some(n), Run, "parts of {sizes:?} do not make up an axis of {n}");
    let mut at = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for s in sizes {
        let mut part = join::slice(t, axis, at, at + s)?;
        at += s;
        if squeeze {
            let mut shape = part.shape().to_vec();
            shape.remove(axis);
            part = part.reshaped(&shape)?;
        }
        parts.push(Value::Tensor(part));
    }
    Ok(Value::Sequence(Arc::new(parts)))
}

/// ONNX's optional operators (15, 18).
#[derive(Clone, Debug)]
pub enum Optional {
    /// Wraps a value, or makes an empty optional of a type.
    Make(Fact),
    /// The value inside; an error where there is none.
    Get,
    /// Whether there is a value.
    Has,
}

fn one(cx: &mut ParseCtx<'_>, op: Optional) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(0, 1)?;
    Ok(Arc::new(op))
}

fn parse_optional(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let ty = cx.type_opt("type")?.unwrap_or_default();
    one(cx, Optional::Make(ty))
}

impl Op for Optional {
    fn name(&self) -> &'static str {
        match self {
            Optional::Make(_) => "Optional",
            Optional::Get => "OptionalGetElement",
            Optional::Has => "OptionalHasElement",
        }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![match (self, cx.fact(0)) {
            (Optional::Make(t), Fact::Absent) => Fact::Optional(Box::new(t.clone())),
            (Optional::Make(_), f) => Fact::Optional(Box::new(f.without_sizes())),
            (Optional::Get, Fact::Optional(f)) => f.without_sizes(),
            // The type may be wrong about the size: what was declared is a hint.
            (Optional::Get, f) => f.clone(),
            (Optional::Has, _) => Fact::Tensor(TensorFact::sized(DType::Bool, &[])),
        }])
    }
}

fn run_optional(op: &Optional, _cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let given = args.first().filter(|a| a.is_given());
    let inside = match given {
        Some(Arg::Value(Value::Optional(o))) => o.as_deref().cloned(),
        Some(a) => Some(a.to_value()?),
        None => None,
    };
    Ok(smallvec![match op {
        Optional::Make(_) => Value::Optional(given.map(Arg::to_value).transpose()?.map(Box::new)),
        Optional::Get => inside.ok_or_else(|| err!(Run, "the optional is empty"))?,
        Optional::Has => Value::Tensor(Tensor::scalar(inside.is_some())?),
    }])
}

fn cpu(b: &mut CpuBindings) {
    b.eager::<Sequence>(run);
    b.eager::<Optional>(run_optional);
}
