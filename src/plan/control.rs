//! If, Loop, Scan and SequenceMap: programs run inside a program.
//!
//! One plan serves all iterations of a body, and so does the memory: what one iteration gives, the next one reads while it
//! writes into what the one before gave. Captures are read where they lie. Scan outputs go straight to their places in one
//! tensor, which is made at once where the number of iterations is known.

use super::output::Receiver;
use super::program::Program;
use super::run::RunCtx;
use super::stack::{Stack, element};
use crate::backend::cpu::{Arg, Memory};
use crate::error::{Context, Result};
use crate::ir::op::resolve_axis;
use crate::ir::{Fact, NodeId};
use crate::ops::control::{If, Loop, Scan, SequenceMap};
use crate::tensor::{DType, TensorView, Value};
use crate::{bail, ensure, err};
use smallvec::SmallVec;
use std::mem::{swap, take};
use std::sync::Arc;

/// What a node that works on values keeps from run to run, so that known sizes allocate nothing.
#[derive(Default)]
pub struct Kept {
    /// For the node's arguments; empty between runs.
    pub list: Vec<Arg<'static>>,
    /// An eager operator's.
    pub memory: Memory,
    /// The results of a node with subgraphs.
    pub results: Vec<Option<Value>>,
    /// Those of one item of a batch.
    item: Vec<Option<Value>>,
    /// For a subgraph's arguments; empty between runs.
    args: Vec<Arg<'static>>,
    /// What the body gave in the last iteration.
    last: Vec<Option<Value>>,
    /// Where it puts what it gives in the next one.
    next: Vec<Option<Value>>,
    /// Elements of sequences that do not lie together.
    elements: Vec<Option<Value>>,
    /// Items of a batch of such.
    parts: Vec<Option<Value>>,
}

impl Kept {
    /// Lets go of what others hold too, and of what is no memory of ours.
    pub fn end_run(&mut self) {
        self.memory.end_run();
        let lists =
            [&mut self.results, &mut self.item, &mut self.last, &mut self.next, &mut self.elements, &mut self.parts];
        for v in lists.into_iter().flatten() {
            let is_own = match v {
                Some(Value::Tensor(t)) => t.lent_ptr().is_none() && t.data_mut_ptr().is_some(),
                _ => false,
            };
            if !is_own {
                *v = None;
            }
        }
    }
}

/// The same vector, empty, for arguments of other lifetimes.
pub fn recycled<'a>(mut list: Vec<Arg<'_>>) -> Vec<Arg<'a>> {
    list.clear();
    // Collected in place: the allocation stays.
    list.into_iter().map(|_| Arg::Absent).collect()
}

/// Runs the node's subgraphs as its operator says; the results are in `kept`.
pub fn run(program: &Program, cx: &RunCtx<'_>, id: NodeId, args: &[Arg<'_>], kept: &mut Kept) -> Result<()> {
    let node = program.graph.node(id);
    let inner = program.inner.get(&id).map_or(&[][..], Vec::as_slice);
    if let Some(op) = node.op.downcast::<If>() {
        let cond = truth(&args[0])?;
        let (which, captures) = if cond { (0, &op.then_captures) } else { (1, &op.else_captures) };
        let mut list = recycled(take(&mut kept.args));
        list.extend(captures.iter().map(|&i| args[i].clone()));
        kept.results.resize(inner[which].graph().outputs().len(), None);
        inner[which]
            .run(cx, &list, &mut kept.results)
            .context(|| if cond { "then_branch".into() } else { "else_branch".into() })?;
        kept.args = recycled(list);
        return Ok(());
    }
    if let Some(op) = node.op.downcast::<Loop>() {
        return run_loop(op, &inner[0], cx, args, kept);
    }
    if let Some(op) = node.op.downcast::<Scan>() {
        return if op.batched {
            run_batch(op, &inner[0], cx, args, kept)
        } else {
            let (state, rest) = args.split_at(op.state);
            let scanned = Scanned { state, sequences: &rest[..op.scan_inputs], args, batched: false };
            let mut results = take(&mut kept.results);
            let done = scan(op, &inner[0], cx, &scanned, None, &mut results, kept);
            kept.results = results;
            done
        };
    }
    if let Some(op) = node.op.downcast::<SequenceMap>() {
        return run_map(op, &inner[0], cx, args, kept);
    }
    bail!(Unsupported, "the control operator {} is not implemented", node.op.name())
}

/// A condition: one element of type bool.
fn truth(a: &Arg<'_>) -> Result<bool> {
    let t = a.tensor()?;
    ensure!(
        t.dtype() == DType::Bool && t.len() == 1,
        InvalidModel,
        "a condition must be one bool, it is {}{:?}",
        t.dtype(),
        t.shape()
    );
    Ok(t.bytes()[0] != 0)
}

/// A trip count.
fn trips(a: &Arg<'_>) -> Result<i64> {
    let t = a.tensor()?;
    let first = match t.dtype() {
        DType::I64 => t.as_slice::<i64>()?.first().copied(),
        _ => t.to_i64s()?.first().copied(),
    };
    first.ok_or_else(|| err!(InvalidModel, "the trip count is empty"))
}

fn run_loop(op: &Loop, body: &Program, cx: &RunCtx<'_>, args: &[Arg<'_>], kept: &mut Kept) -> Result<()> {
    let trips = if args[0].is_given() { trips(&args[0])? } else { i64::MAX };
    let mut cond = if args[1].is_given() { truth(&args[1])? } else { true };
    let Kept { results, args: spare, last, next, .. } = kept;
    last.resize(1 + op.state + op.scans, None);
    next.resize(1 + op.state + op.scans, None);
    results.resize(op.state + op.scans, None);
    // The trip count is the length where the body passes its condition on, or always goes on.
    let (graph, cond_out) = (body.graph(), body.graph().outputs()[0]);
    let goes_on = graph.fact(cond_out).constant().is_some_and(|t| t.bytes() == [1]);
    let is_counted = args[0].is_given() && (goes_on || cond_out == graph.inputs()[1]);
    let room = usize::try_from(trips).unwrap_or(0);
    let room = if is_counted { room } else { room.min(Stack::FIRST) };
    let (finals, scans) = results.split_at_mut(op.state);
    let mut stacks: SmallVec<[Stack<'_>; 8]> = scans.iter_mut().map(|s| Stack::new(s, 0, room)).collect();
    let mut i = 0i64;
    while cond && i < trips {
        cx.stop.check()?;
        let mut list = recycled(take(spare));
        // SAFETY: one aligned element each, alive and unchanged for the iteration.
        let (number, truth_now) = unsafe {
            let (number, always) = ((&raw const i).cast(), (&raw const TRUE).cast());
            (TensorView::from_raw(DType::I64, &[], number), TensorView::from_raw(DType::Bool, &[], always))
        };
        list.extend([Arg::Tensor(number), Arg::Tensor(truth_now)]);
        match i {
            0 => list.extend_from_slice(&args[2..2 + op.state]),
            _ => list.extend(last[1..1 + op.state].iter().map(arg)),
        }
        list.extend(op.captures.iter().map(|&k| args[k].clone()));
        body.run(cx, &list, next).context(|| format!("loop body, iteration {i}"))?;
        *spare = recycled(list);
        swap(last, next);
        cond = truth(&arg(&last[0]))?;
        for (stack, v) in stacks.iter_mut().zip(&last[1 + op.state..]) {
            stack.put(arg(v).tensor()?, i as usize).context(|| "scan outputs".into())?;
        }
        i += 1;
    }
    for (k, stack) in stacks.into_iter().enumerate() {
        let empty = op.scan_facts.get(k).unwrap_or(&Fact::Unknown);
        stack.finish(i as usize, i as usize, empty).context(|| "scan outputs".into())?;
    }
    ended(finals, &args[2..], &mut last[1..], i > 0)
}

/// A condition that always holds.
static TRUE: bool = true;

/// A look at what a body gave.
fn arg(v: &Option<Value>) -> Arg<'_> {
    v.as_ref().map_or(Arg::Absent, Arg::of)
}

/// The state behind the last iteration, if there was one, as results.
fn ended(results: &mut [Option<Value>], first: &[Arg<'_>], last: &mut [Option<Value>], ran: bool) -> Result<()> {
    for ((result, first), last) in results.iter_mut().zip(first).zip(last) {
        match ran {
            true => swap(result, last),
            false => result.give(first)?,
        }
    }
    Ok(())
}

/// The values of a scan's state, its scan inputs, and the node's arguments, some of which its body captures.
struct Scanned<'a, 'b> {
    state: &'b [Arg<'a>],
    sequences: &'b [Arg<'a>],
    args: &'b [Arg<'a>],
    batched: bool,
}

/// Each item of the batch for itself; the scan outputs of short sequences are filled up with zeros.
fn run_batch(op: &Scan, body: &Program, cx: &RunCtx<'_>, args: &[Arg<'_>], kept: &mut Kept) -> Result<()> {
    let given = op.state + op.scan_inputs;
    let batch_of = |a: &Arg<'_>| -> Result<Option<usize>> { Ok(a.tensor()?.shape().first().copied()) };
    let Some(batch) = args[..given].last().map(batch_of).transpose()?.flatten() else {
        bail!(InvalidModel, "a Scan of version 8 without a batch")
    };
    for a in &args[..given] {
        ensure!(batch_of(a)? == Some(batch), InvalidModel, "a batch of {batch} with {:?}", a.tensor()?.shape());
    }
    let lengths = match args.get(given) {
        None | Some(Arg::Absent) => None,
        Some(a) => Some(a.tensor()?.as_slice::<i64>()?),
    };
    let (mut results, mut one, mut own) = (take(&mut kept.results), take(&mut kept.item), take(&mut kept.parts));
    results.resize(op.state + op.scan_outputs, None);
    own.resize(given, None);
    let mut stacks: SmallVec<[Stack<'_>; 8]> = results.iter_mut().map(|r| Stack::new(r, 0, batch)).collect();
    for item in 0..batch {
        let mut parts: SmallVec<[Arg<'_>; 8]> = SmallVec::new();
        for (a, own) in args.iter().zip(&mut own) {
            parts.push(Arg::Tensor(element(a.tensor()?, 0, item, own)?));
        }
        let (state, sequences) = parts.split_at(op.state);
        let length = match lengths {
            None => None,
            Some(l) => match l.get(item).and_then(|&n| usize::try_from(n).ok()) {
                Some(n) => Some(n),
                None => bail!(InvalidModel, "sequence_lens {l:?} for a batch of {batch}"),
            },
        };
        let scanned = Scanned { state, sequences, args, batched: true };
        scan(op, body, cx, &scanned, length, &mut one, kept).context(|| format!("item {item} of the batch"))?;
        for (stack, v) in stacks.iter_mut().zip(&one) {
            stack.put(arg(v).tensor()?, item)?;
        }
    }
    let empty = Fact::Unknown;
    stacks.into_iter().try_for_each(|s| s.finish(batch, batch, &empty))?;
    (kept.results, kept.item, kept.parts) = (results, one, own);
    Ok(())
}

/// Scans the first `length` elements, or all.
fn scan(
    op: &Scan,
    body: &Program,
    cx: &RunCtx<'_>,
    values: &Scanned<'_, '_>,
    length: Option<usize>,
    results: &mut Vec<Option<Value>>,
    kept: &mut Kept,
) -> Result<()> {
    let axis = |k: usize, t: &TensorView<'_>| match values.batched {
        true => Ok(0),
        false => resolve_axis(op.input_axes.get(k).copied().unwrap_or(0), t.shape().len()),
    };
    let mut all = None;
    for (k, s) in values.sequences.iter().enumerate() {
        let t = s.tensor()?;
        let size = t.shape().get(axis(k, t)?).copied();
        ensure!(
            size.is_some() && all.is_none_or(|a| size == a),
            InvalidModel,
            "scan inputs have {all:?} and {size:?} elements"
        );
        all = Some(size);
    }
    let Some(all) = all.flatten() else { bail!(InvalidModel, "a Scan without scan inputs") };
    let n = length.unwrap_or(all);
    ensure!(n <= all, InvalidModel, "a sequence of length {n} in {all} elements");
    let Kept { args: spare, last, next, elements, .. } = kept;
    last.resize(op.state + op.scan_outputs, None);
    next.resize(op.state + op.scan_outputs, None);
    results.resize(op.state + op.scan_outputs, None);
    elements.resize(op.scan_inputs, None);
    let (finals, scans) = results.split_at_mut(op.state);
    let room = if length.is_some() { all } else { n };
    let axes = |k: usize| op.output_axes.get(k).copied().unwrap_or(0);
    let mut stacks: SmallVec<[Stack<'_>; 8]> =
        scans.iter_mut().enumerate().map(|(k, s)| Stack::new(s, axes(k), room)).collect();
    for i in 0..n {
        cx.stop.check()?;
        let mut list = recycled(take(spare));
        match i {
            0 => list.extend_from_slice(values.state),
            _ => list.extend(last[..op.state].iter().map(arg)),
        }
        for (k, (s, own)) in values.sequences.iter().zip(elements.iter_mut()).enumerate() {
            let at = if is(&op.input_reversed, k) { n - 1 - i } else { i };
            list.push(Arg::Tensor(element(s.tensor()?, axis(k, s.tensor()?)?, at, own)?));
        }
        list.extend(op.captures.iter().map(|&k| values.args[k].clone()));
        body.run(cx, &list, next).context(|| format!("scan body, iteration {i}"))?;
        *spare = recycled(list);
        swap(last, next);
        for (k, (stack, v)) in stacks.iter_mut().zip(&last[op.state..]).enumerate() {
            let at = if is(&op.output_reversed, k) { n - 1 - i } else { i };
            stack.put(arg(v).tensor()?, at).context(|| "scan outputs".into())?;
        }
    }
    for (k, stack) in stacks.into_iter().enumerate() {
        let empty = op.scan_facts.get(k).unwrap_or(&Fact::Unknown);
        stack.finish(n, room, empty).context(|| "scan outputs".into())?;
    }
    ended(finals, values.state, last, n > 0)
}

fn is(flags: &[bool], k: usize) -> bool {
    flags.get(k).copied().unwrap_or(false)
}

fn run_map(op: &SequenceMap, body: &Program, cx: &RunCtx<'_>, args: &[Arg<'_>], kept: &mut Kept) -> Result<()> {
    let given = args[..op.inputs].iter().map(Arg::to_value).collect::<Result<Vec<_>>>()?;
    let n = given[0].as_sequence()?.len();
    let mut results: Vec<Vec<Value>> = vec![Vec::new(); body.graph().outputs().len()];
    for i in 0..n {
        cx.stop.check()?;
        let at = |v: &Value| match v {
            Value::Sequence(s) => match s.get(i) {
                Some(x) if s.len() == n => Ok(x.clone()),
                _ => bail!(InvalidModel, "sequences of {n} and of {} values", s.len()),
            },
            v => Ok(v.clone()),
        };
        let own = given.iter().map(at).collect::<Result<Vec<_>>>()?;
        let mut list = recycled(std::mem::take(&mut kept.args));
        list.extend(own.iter().map(Arg::of).chain(op.captures.iter().map(|&i| args[i].clone())));
        let mut out = vec![None; results.len()];
        body.run(cx, &list, &mut out).context(|| format!("map body, element {i}"))?;
        kept.args = recycled(list);
        results.iter_mut().zip(out).for_each(|(r, v)| r.extend(v));
    }
    kept.results.clear();
    kept.results.extend(results.into_iter().map(|r| Some(Value::Sequence(Arc::new(r)))));
    Ok(())
}
