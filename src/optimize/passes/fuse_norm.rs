//! Lets a softmax or a normalisation of rows do what is done to each number before and after it, while a row is in the cache:
//! scales, masks and residuals, activations and gates, changes from and to 8 bits.

use super::fuse_pointwise::as_program;
use crate::error::Result;
use crate::ir::{Dim, Fact, NodeId, ValueId};
use crate::kernels::pointwise::{Program, ProgramBuilder, Register};
use crate::ops::norm::{FusedNorm, LpNormalization, Norm};
use crate::ops::pointwise::{MAX_INPUTS, is_programs, program_of};
use crate::ops::softmax::Softmax;
use crate::optimize::pass::same_shape;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::sync::Arc;

/// Elementwise operators around a normalisation become its programs. What others read too before it is normalised, a residual
/// say, is written as well. It waits: there is room for one program on each side.
pub struct FuseNorm;

impl Pass for FuseNorm {
    fn name(&self) -> &'static str {
        "fuse_norm"
    }
    fn waits(&self) -> bool {
        true
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            let Some(id) = before(cx, id)? else { continue };
            after(cx, id)?;
        }
        Ok(())
    }
}

/// A normalisation as it stands, and its rows' value.
struct Found {
    op: FusedNorm,
    inputs: Vec<Option<ValueId>>,
    out: ValueId,
}

fn found(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<Found> {
    let node = cx.node(id)?;
    let out = node.outputs.first().copied().flatten()?;
    let op = match cx.op::<FusedNorm>(id) {
        Some(op) => op.clone(),
        None => {
            let dtype = cx.dtype(out)?;
            FusedNorm { before: None, norm: Norm::of(&*node.op)?, after: None, dtype, to: dtype }
        }
    };
    Some(Found { op, inputs: node.inputs.clone(), out })
}

/// Whether it is a normalisation with room for a program before it, or behind it.
pub(super) fn has_room(cx: &PassCtx<'_, '_>, id: NodeId, before: bool) -> bool {
    found(cx, id).is_some_and(|f| if before { f.op.before } else { f.op.after }.is_none())
}

/// Why rows of this normalisation cannot be had one after the other.
fn refused(cx: &PassCtx<'_, '_>, id: NodeId, f: &Found) -> Option<String> {
    let Some(dims) = cx.dims(f.out) else { return Some("its rank is not known".into()) };
    if !is_programs(f.op.dtype) {
        return Some(format!("programs do not compute {}", f.op.dtype));
    }
    let rank = dims.len() as i64;
    let lists: Vec<ValueId> = f.inputs.iter().skip(1).flatten().copied().collect();
    let typed = lists.iter().chain(&f.inputs[0]).all(|&v| cx.dtype(v) == Some(f.op.dtype));
    let each = |own: &[Dim]| {
        let long = |&v: &ValueId| cx.dims(v).is_some_and(|d| Dim::product(d).same(&Dim::product(own)));
        typed && lists.iter().all(long) && lists.len() + 1 == f.inputs.len()
    };
    if let Some(n) = row(&f.op.norm, dims).filter(|&n| n > LONGEST) {
        return Some(format!("a row of {n} numbers does not stay in the cache"));
    }
    match &f.op.norm {
        Norm::Softmax(s) if s.flatten => None,
        Norm::Softmax(Softmax { axis, .. }) | Norm::Length(LpNormalization { axis, .. }) => {
            let apart = *axis != -1 && *axis != rank - 1;
            apart.then(|| format!("its rows lie apart, along axis {axis} of {rank}"))
        }
        Norm::Layer(_) if cx.node(id)?.outputs.len() > 1 => Some("its means are asked for".into()),
        Norm::Layer(l) => {
            let axis = usize::try_from(if l.axis < 0 { l.axis + rank } else { l.axis }).ok();
            let own = axis.and_then(|a| dims.get(a..));
            (!own.is_some_and(each)).then(|| "its scale or shift is not known to be a row of its type".into())
        }
        Norm::Channels(c) => {
            let own = dims.get(1..2).filter(|_| !c.by_group && lists.len() == 2);
            (!own.is_some_and(each)).then(|| "its scale or shift has not a number a channel".into())
        }
    }
}

/// Numbers of a row at most: a mebibyte. Longer ones come from memory each time, which more tasks share without the row.
const LONGEST: i64 = 256 * 1024;

/// Numbers of a row, where they are known.
fn row(norm: &Norm, dims: &[Dim]) -> Option<i64> {
    let (axis, groups) = match norm {
        Norm::Softmax(s) => (s.axis, 1),
        Norm::Layer(l) => (l.axis, 1),
        Norm::Length(l) => (l.axis, 1),
        Norm::Channels(c) => (1, c.groups.map_or_else(|| dims.get(1)?.size(), Some)?),
    };
    let first = usize::try_from(if axis < 0 { axis + dims.len() as i64 } else { axis }).ok()?;
    Some(Dim::product(dims.get(first..)?).known()? / i64::try_from(groups.max(1)).ok()?)
}

/// The node as a program beside rows of a type, and the type in which it ends: theirs, or one of 8 bits behind rows of f32.
/// A narrow type is rounded between operators, as it would be: one operator then.
fn program(cx: &PassCtx<'_, '_>, id: NodeId, dtype: DType) -> Option<(Program, DType)> {
    if let Some((p, to)) = as_program(cx, id) {
        let ends = to == dtype || dtype == DType::F32 && matches!(to, DType::U8 | DType::I8);
        return (ends && p.outputs().len() == 1).then_some((p, to));
    }
    let node = cx.node(id)?;
    let facts: Vec<&Fact> = cx.graph().input_facts(node).collect();
    let program = program_of(&*node.op, &facts, dtype).filter(|_| node.outputs.len() == 1)?;
    Some((program, dtype))
}

fn is_given(inputs: &[Option<ValueId>]) -> bool {
    inputs.iter().all(Option::is_some) && inputs.len() <= MAX_INPUTS
}

/// Takes in what makes the rows. The node that the normalisation is then.
fn before(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<Option<NodeId>> {
    let Some(f) = found(cx, id) else { return Ok(None) };
    let rows = f.inputs.first().copied().flatten().filter(|_| f.op.before.is_none());
    let Some((v, maker)) = rows.and_then(|v| Some((v, cx.made_by(v)?.0))) else { return Ok(Some(id)) };
    let found = program(cx, maker, f.op.dtype).filter(|(_, to)| *to == f.op.dtype);
    let Some((p, _)) = found else { return Ok(Some(id)) };
    let made = cx.graph().node(maker).inputs.clone();
    if !is_given(&made) {
        return Ok(Some(id));
    }
    if cx.op::<FusedNorm>(id).is_none()
        && let Some(why) = refused(cx, id, &f)
    {
        cx.miss(id, || why);
        return Ok(Some(id));
    }
    let alone = cx.used_once(v);
    let others: Vec<ValueId> = f.inputs.iter().skip(1).flatten().copied().collect();
    if !alone && cx.depends_on(others.into_iter(), &[v]) {
        cx.miss(id, || "an operand beside its rows is made from them".into());
        return Ok(Some(id));
    }
    let whole = |v: &Option<ValueId>| v.is_some_and(|v| same_shape(cx.dims(v), cx.dims(f.out)));
    if matches!(f.op.norm, Norm::Channels(_)) && made.iter().filter(|v| whole(v)).count() > 1 {
        // Images mostly come in blocks of channels: one is reordered, not each operand.
        cx.miss(id, || "its images are made from more than one".into());
        return Ok(Some(id));
    }
    let op = Arc::new(FusedNorm { before: Some(p), ..f.op });
    let inputs = [&made[..], &f.inputs[1..]].concat();
    let name = cx.graph().value(f.out).name.clone();
    let values = cx.edit.node(&name, op, inputs, if alone { 1 } else { 2 })?;
    let Some((fused, _)) = values.first().and_then(|&v| cx.graph().value(v).producer) else { return Ok(None) };
    cx.edit.move_output(fused, 0, f.out);
    cx.edit.remove(id);
    if !alone {
        cx.edit.move_output(fused, 1, v);
    }
    cx.edit.remove(maker);
    cx.fired();
    Ok(Some(fused))
}

/// Takes in what becomes of the result.
fn after(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let Some(f) = found(cx, id).filter(|f| f.op.after.is_none()) else { return Ok(()) };
    let &[user, ..] = cx.edit.users(f.out) else { return Ok(()) };
    let Some((p, to)) = program(cx, user, f.op.dtype) else { return Ok(()) };
    let node = cx.graph().node(user).clone();
    let (Some(&Some(y)), true) = (node.outputs.first(), is_given(&node.inputs)) else { return Ok(()) };
    if cx.op::<FusedNorm>(id).is_none()
        && let Some(why) = refused(cx, id, &f)
    {
        cx.miss(id, || why);
        return Ok(());
    }
    if !cx.used_once(f.out) {
        cx.miss(id, || "what it makes has other users, which need it in memory".into());
        return Ok(());
    }
    if !same_shape(cx.dims(y), cx.dims(f.out)) {
        cx.miss(id, || "what it makes is broadcast: it would be normalised more than once".into());
        return Ok(());
    }
    let others: Vec<Option<ValueId>> = node.inputs.iter().filter(|v| **v != Some(f.out)).copied().collect();
    if let Some(kept) = cx.graph().node(id).outputs.get(1).copied().flatten()
        && cx.depends_on(others.iter().flatten().copied(), &[kept])
    {
        cx.miss(id, || "what is done to its result needs its rows as well".into());
        return Ok(());
    }
    // The normalised number comes first.
    let mut b = ProgramBuilder::new(node.inputs.len());
    let mut next = 0;
    let order: Vec<usize> = node
        .inputs
        .iter()
        .map(|v| {
            next += usize::from(*v != Some(f.out));
            if *v == Some(f.out) { 0 } else { next }
        })
        .collect();
    let loads: Vec<Register> = order.iter().map(|&i| b.load(i)).collect();
    let results = b.inline(&p, &loads)?;
    let op = FusedNorm { after: Some(b.finish(&results)?), to, ..f.op };
    let inputs = [&f.inputs[..], &others[..]].concat();
    cx.absorb(id, Arc::new(op), inputs, user, y);
    Ok(())
}
