//! If, Loop, Scan and SequenceMap: programs run inside a program.

use super::program::Program;
use super::run::RunCtx;
use crate::backend::cpu::Arg;
use crate::error::{Context, Result};
use crate::ir::NodeId;
use crate::ops::control::{If, Loop, Scan, SequenceMap};
use crate::tensor::{DType, Tensor, Value, join};
use crate::{bail, ensure, err};
use std::sync::Arc;

/// Runs the node's subgraphs as its operator says.
pub fn run(program: &Program, cx: &RunCtx<'_>, id: NodeId, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let node = program.graph.node(id);
    let inner = program.inner.get(&id).map_or(&[][..], Vec::as_slice);
    if let Some(op) = node.op.downcast::<If>() {
        let cond = truth(&args[0])?;
        let (which, captures) = if cond { (0, &op.then_captures) } else { (1, &op.else_captures) };
        let inputs = captures.iter().map(|&i| args[i].to_value()).collect::<Result<Vec<_>>>()?;
        return call(&inner[which], cx, &inputs)
            .context(|| if cond { "then_branch".into() } else { "else_branch".into() });
    }
    if let Some(op) = node.op.downcast::<Loop>() {
        return run_loop(op, &inner[0], cx, args);
    }
    if let Some(op) = node.op.downcast::<Scan>() {
        return if op.batched { run_batch(op, &inner[0], cx, args) } else { run_scan(op, &inner[0], cx, args) };
    }
    if let Some(op) = node.op.downcast::<SequenceMap>() {
        return run_map(op, &inner[0], cx, args);
    }
    bail!(Unsupported, "the control operator {} is not implemented", node.op.name())
}

/// Runs a program on values, returns all its outputs.
fn call(p: &Program, cx: &RunCtx<'_>, inputs: &[Value]) -> Result<Vec<Value>> {
    let mut out = vec![None; p.graph().outputs().len()];
    p.run(cx, inputs, &mut out)?;
    out.into_iter().map(|v| v.ok_or_else(|| err!(Internal, "a subgraph gave no value"))).collect()
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

fn run_loop(op: &Loop, body: &Program, cx: &RunCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let trips = match &args[0] {
        Arg::Absent => i64::MAX,
        a => *a.tensor()?.to_i64s()?.first().ok_or_else(|| err!(InvalidModel, "the trip count is empty"))?,
    };
    let mut cond = match &args[1] {
        Arg::Absent => true,
        a => truth(a)?,
    };
    let mut state = args[2..2 + op.state].iter().map(Arg::to_value).collect::<Result<Vec<_>>>()?;
    let captures = op.captures.iter().map(|&i| args[i].to_value()).collect::<Result<Vec<_>>>()?;
    let mut collected: Vec<Vec<Tensor>> = vec![Vec::new(); op.scans];
    let mut i = 0i64;
    while cond && i < trips {
        cx.stop.check()?;
        let mut inputs = Vec::with_capacity(2 + state.len() + captures.len());
        inputs.push(Value::Tensor(Tensor::scalar(i)?));
        inputs.push(Value::Tensor(Tensor::scalar(true)?));
        inputs.extend(state.iter().cloned());
        inputs.extend(captures.iter().cloned());
        let mut out = call(body, cx, &inputs).context(|| format!("loop body, iteration {i}"))?;
        let scans = out.split_off(1 + op.state);
        cond = truth(&Arg::of(&out[0]))?;
        state = out.split_off(1);
        for (c, v) in collected.iter_mut().zip(scans) {
            c.push(v.as_tensor()?.clone());
        }
        i += 1;
    }
    for (k, c) in collected.into_iter().enumerate() {
        let empty = op.scan_facts.get(k).cloned().unwrap_or_default();
        state.push(Value::Tensor(stack(&c, 0, &empty)?));
    }
    Ok(state)
}

/// The values of a scan's state, its scan inputs, and what its body captures.
struct Scanned {
    state: Vec<Value>,
    sequences: Vec<(Tensor, usize)>,
    captures: Vec<Value>,
}

fn run_scan(op: &Scan, body: &Program, cx: &RunCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let state = args[..op.state].iter().map(Arg::to_value).collect::<Result<Vec<_>>>()?;
    let captures = op.captures.iter().map(|&i| args[i].to_value()).collect::<Result<Vec<_>>>()?;
    let mut sequences = Vec::new();
    for (k, a) in args[op.state..op.state + op.scan_inputs].iter().enumerate() {
        let t = a.tensor()?.to_tensor()?;
        let axis = crate::ir::op::resolve_axis(op.input_axes.get(k).copied().unwrap_or(0), t.shape().len())?;
        sequences.push((t, axis));
    }
    scan(op, body, cx, Scanned { state, sequences, captures }, None)
}

/// Each item of the batch for itself; the scan outputs of short sequences are filled up with zeros.
fn run_batch(op: &Scan, body: &Program, cx: &RunCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let captures = op.captures.iter().map(|&i| args[i].to_value()).collect::<Result<Vec<_>>>()?;
    let given = op.state + op.scan_inputs;
    let tensors = args[..given].iter().map(|a| a.tensor()?.to_tensor()).collect::<Result<Vec<_>>>()?;
    let Some(&batch) = tensors.last().and_then(|t| t.shape().first()) else {
        bail!(InvalidModel, "a Scan of version 8 without a batch")
    };
    for t in &tensors {
        ensure!(t.shape().first() == Some(&batch), InvalidModel, "a batch of {batch} with {t:?}");
    }
    let lengths = match args.get(given) {
        None | Some(Arg::Absent) => None,
        Some(a) => Some(a.tensor()?.to_i64s()?),
    };
    let mut results: Vec<Vec<Tensor>> = vec![Vec::new(); op.state + op.scan_outputs];
    for item in 0..batch {
        let mut parts = tensors.iter().map(|t| join::index(t, 0, item)).collect::<Result<Vec<_>>>()?;
        let sequences: Vec<_> = parts.split_off(op.state).into_iter().map(|t| (t, 0)).collect();
        let state = parts.into_iter().map(Value::Tensor).collect();
        let length = match &lengths {
            None => None,
            Some(l) => match l.get(item).and_then(|&n| usize::try_from(n).ok()) {
                Some(n) => Some(n),
                None => bail!(InvalidModel, "sequence_lens {l:?} for a batch of {batch}"),
            },
        };
        let scanned = Scanned { state, sequences, captures: captures.clone() };
        let out = scan(op, body, cx, scanned, length).context(|| format!("item {item} of the batch"))?;
        for (r, v) in results.iter_mut().zip(out) {
            r.push(v.as_tensor()?.clone());
        }
    }
    let nothing = crate::ir::Fact::Unknown;
    results.iter().map(|r| stack(r, 0, &nothing).map(Value::Tensor)).collect()
}

/// Scans the first `length` elements, or all.
fn scan(op: &Scan, body: &Program, cx: &RunCtx<'_>, values: Scanned, length: Option<usize>) -> Result<Vec<Value>> {
    let Scanned { mut state, sequences, captures } = values;
    let size = |(t, axis): &(Tensor, usize)| t.shape().get(*axis).copied();
    let Some(all) = sequences.first().and_then(size) else { bail!(InvalidModel, "a Scan without scan inputs") };
    for s in &sequences {
        ensure!(size(s) == Some(all), InvalidModel, "scan inputs have {all} and {:?} elements", size(s));
    }
    let n = length.unwrap_or(all);
    ensure!(n <= all, InvalidModel, "a sequence of length {n} in {all} elements");
    let mut collected: Vec<Vec<Tensor>> = vec![Vec::new(); op.scan_outputs];
    for i in 0..n {
        cx.stop.check()?;
        let mut inputs = state.clone();
        for (k, (t, axis)) in sequences.iter().enumerate() {
            let at = if op.input_reversed.get(k).copied().unwrap_or(false) { n - 1 - i } else { i };
            inputs.push(Value::Tensor(join::index(t, *axis, at)?));
        }
        inputs.extend(captures.iter().cloned());
        let mut out = call(body, cx, &inputs).context(|| format!("scan body, iteration {i}"))?;
        let scans = out.split_off(op.state);
        state = out;
        for (c, v) in collected.iter_mut().zip(scans) {
            c.push(v.as_tensor()?.clone());
        }
    }
    for (k, mut c) in collected.into_iter().enumerate() {
        if op.output_reversed.get(k).copied().unwrap_or(false) {
            c.reverse();
        }
        if let Some(last) = c.last() {
            let filler = Tensor::zeroed(last.dtype(), last.shape())?;
            c.resize(if length.is_some() { all } else { n }, filler);
        }
        let empty = op.scan_facts.get(k).cloned().unwrap_or_default();
        state.push(Value::Tensor(stack(&c, op.output_axes.get(k).copied().unwrap_or(0), &empty)?));
    }
    Ok(state)
}

fn run_map(op: &SequenceMap, body: &Program, cx: &RunCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let given = args[..op.inputs].iter().map(Arg::to_value).collect::<Result<Vec<_>>>()?;
    let captures = op.captures.iter().map(|&i| args[i].to_value()).collect::<Result<Vec<_>>>()?;
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
        let mut inputs = given.iter().map(at).collect::<Result<Vec<_>>>()?;
        inputs.extend(captures.iter().cloned());
        let out = call(body, cx, &inputs).context(|| format!("map body, element {i}"))?;
        results.iter_mut().zip(out).for_each(|(r, v)| r.push(v));
    }
    Ok(results.into_iter().map(|r| Value::Sequence(Arc::new(r))).collect())
}

/// Tensors of one shape along a new axis; for none of them, `empty` tells the type and the shape of an element.
fn stack(parts: &[Tensor], axis: i64, empty: &crate::ir::Fact) -> Result<Tensor> {
    let Some(first) = parts.first() else {
        let dtype = empty.dtype().unwrap_or(DType::F32);
        let dims = empty.as_tensor().and_then(|t| t.dims.clone()).unwrap_or_default();
        let mut shape: Vec<usize> = dims.iter().map(|d| d.size().unwrap_or(0)).collect();
        let axis = crate::ir::op::resolve_axis(axis, shape.len() + 1)?;
        shape.insert(axis, 0);
        return Tensor::zeroed(dtype, &shape);
    };
    let axis = crate::ir::op::resolve_axis(axis, first.shape().len() + 1)?;
    join::stack(parts, axis).context(|| "scan outputs".into())
}
