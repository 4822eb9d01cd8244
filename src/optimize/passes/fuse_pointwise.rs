//! Fuses chains of elementwise operators into one pointwise program.

use crate::error::Result;
use crate::ir::{Dim, Fact, NodeId, ValueId};
use crate::kernels::convert::loads;
use crate::kernels::pointwise::{Program, ProgramBuilder, Register, TernaryOp};
use crate::ops::cast::Cast;
use crate::ops::pointwise::{MAX_INPUTS, Pointwise, program_of};
use crate::ops::types::elem;
use crate::optimize::pass::same_shape;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::sync::Arc;

/// A producer of elementwise kind whose only user is another one becomes part of it.
pub struct FusePointwise;

/// Instructions of one program at most: registers live in L1.
const MAX_INSTRUCTIONS: usize = 48;

impl Pass for FusePointwise {
    fn name(&self) -> &'static str {
        "fuse_pointwise"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            while fuse(cx, id)? {}
        }
        Ok(())
    }
}

/// The node as a program over its inputs, if it is elementwise and computed in f32, and the type in which it ends. Integers that
/// become f32 are converted where they are read.
pub(super) fn as_program(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(Program, DType)> {
    let node = cx.node(id)?;
    if let Some(Pointwise { program, dtypes }) = cx.op::<Pointwise>(id) {
        // What tests ends in bool: 0 and 1 stay what they are.
        return (dtypes.len() == 1).then(|| (program.clone(), dtypes[0]));
    }
    let facts: Vec<&Fact> = cx.graph().input_facts(node).collect();
    let to = cx.dtype(node.outputs.first().copied()??)?;
    if cx.op::<Cast>(id).is_some_and(|c| c.to.is_some()) {
        let from = facts.first().and_then(|f| f.dtype());
        let read = from.filter(|d| !d.is_float()).and_then(elem).is_some_and(loads);
        let mut b = ProgramBuilder::new(1);
        let x = b.load(0);
        return (read && to == DType::F32).then(|| Some((b.finish(&[x]).ok()?, to)))?;
    }
    Some((program_of(&*node.op, &facts, DType::F32)?, to))
}

/// A program whose result another one reads, instead of memory: 8-bit integers are rounded and kept within their bounds as
/// if they were stored; narrow floats are rounded once, at the end.
fn as_producer(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<Program> {
    let (program, to) = as_program(cx, id)?;
    let bounds = match to {
        DType::F32 | DType::F16 | DType::BF16 => return Some(program),
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        _ => return None,
    };
    let mut b = ProgramBuilder::new(program.inputs());
    let x: Vec<Register> = (0..program.inputs()).map(|i| b.load(i)).collect();
    let y = b.inline(&program, &x).ok()?[0];
    let (low, high) = (b.constant(bounds.0), b.constant(bounds.1));
    let y = b.ternary(TernaryOp::Limit, y, low, high);
    b.finish(&[y]).ok()
}

/// Pulls one producer into node `id`.
fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<bool> {
    let Some((user, dtype)) = as_program(cx, id) else { return Ok(false) };
    let node = cx.graph().node(id).clone();
    let [Some(out)] = node.outputs[..] else { return Ok(false) };
    for (place, v) in node.inputs.iter().enumerate() {
        let Some(v) = *v else { continue };
        let Some((maker, 0)) = cx.graph().value(v).producer else { continue };
        let Some(producer) = as_producer(cx, maker) else { continue };
        if !cx.used_once(v) {
            let name = cx.graph().value(v).name.clone();
            cx.miss(id, || format!("its operand '{name}' has other users, which need it in memory"));
            continue;
        }
        let made = cx.graph().node(maker).clone();
        if made.outputs.len() != 1 {
            continue;
        }
        // Beside single numbers the operand's shape is the result's, known or not.
        let rank = cx.dims(v).map_or(0, <[Dim]>::len);
        let number = |x: ValueId| {
            cx.graph().fact(x).as_tensor().is_some_and(|t| t.count().known() == Some(1) && t.rank() <= Some(rank))
        };
        let alone = node.inputs.iter().flatten().all(|&x| x == v || number(x));
        if !alone && !same_shape(cx.dims(v), cx.dims(out)) {
            cx.miss(id, || format!("its operand '{}' is broadcast: it would be computed more than once", made.name));
            continue;
        }
        let Some((program, inputs)) = compose(&user, &node.inputs, place, &producer, &made.inputs)? else {
            cx.miss(id, || format!("the program with '{}' would have too many inputs or instructions", made.name));
            continue;
        };
        cx.edit.replace_op(id, Arc::new(Pointwise { program, dtypes: vec![dtype] }), inputs);
        cx.edit.remove(maker);
        cx.fired();
        return Ok(true);
    }
    Ok(false)
}

type Inputs = Vec<Option<ValueId>>;

/// `user` with its input `place` computed by `producer`. `None` where the result passes the limits.
fn compose(
    user: &Program,
    user_inputs: &Inputs,
    place: usize,
    producer: &Program,
    made_inputs: &Inputs,
) -> Result<Option<(Program, Inputs)>> {
    let mut inputs: Inputs = Vec::new();
    let mut slot = |v: Option<ValueId>| match inputs.iter().position(|&x| x == v) {
        Some(i) => i,
        None => {
            inputs.push(v);
            inputs.len() - 1
        }
    };
    let made: Vec<usize> = made_inputs.iter().map(|&v| slot(v)).collect();
    let own: Vec<usize> =
        user_inputs.iter().enumerate().map(|(i, &v)| if i == place { usize::MAX } else { slot(v) }).collect();
    if inputs.len() > MAX_INPUTS || inputs.iter().any(Option::is_none) {
        return Ok(None);
    }
    let mut b = ProgramBuilder::new(inputs.len());
    let loads: Vec<Register> = (0..inputs.len()).map(|i| b.load(i)).collect();
    let made: Vec<Register> = made.iter().map(|&i| loads[i]).collect();
    let mid = b.inline(producer, &made)?[0];
    let own: Vec<Register> = own.iter().map(|&i| if i == usize::MAX { mid } else { loads[i] }).collect();
    let results = b.inline(user, &own)?;
    let program = b.finish(&results)?;
    Ok((program.instructions().len() <= MAX_INSTRUCTIONS).then_some((program, inputs)))
}
