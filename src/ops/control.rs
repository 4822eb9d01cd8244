//! Control flow: If, Loop, Scan, SequenceMap. They only infer; `plan::control` runs them.

use super::Family;
use crate::bail;
use crate::error::Result;
use crate::ir::{Dim, Fact, Graph, InferCtx, Op, OpDef, ParseCtx, ValueId};
use std::fmt;
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "control", ops: OPS, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "If", versions: &[1, 11, 13, 16, 19, 21, 23, 24, 25], parse: parse_if },
    OpDef { domain: "", name: "Loop", versions: &[1, 11, 13, 16, 19, 21, 23, 24, 25], parse: parse_loop },
    OpDef { domain: "", name: "Scan", versions: &[8, 9, 11, 16, 19, 21, 23, 24, 25], parse: parse_scan },
    OpDef { domain: "", name: "SequenceMap", versions: &[17], parse: parse_map },
];

/// ONNX If (1 to 25): runs one of two graphs. Input 0 is the condition; the branches read the captures.
#[derive(Clone)]
pub struct If {
    /// Run where the condition holds.
    pub then_branch: Arc<Graph>,
    /// Run where it does not.
    pub else_branch: Arc<Graph>,
    /// For each input of the branch the node's input that feeds it.
    pub then_captures: Vec<usize>,
    /// As above.
    pub else_captures: Vec<usize>,
}

/// ONNX Loop (1 to 25). Inputs: trip count or none, condition or none, state, captures.
#[derive(Clone)]
pub struct Loop {
    /// Takes iteration number, condition, state, captures; gives condition, state, scan outputs.
    pub body: Arc<Graph>,
    /// Number of state values.
    pub state: usize,
    /// Number of scan outputs.
    pub scans: usize,
    /// What one iteration's scan outputs are, for loops that never run.
    pub scan_facts: Vec<Fact>,
    /// The node's inputs that feed the body's captures.
    pub captures: Vec<usize>,
}

/// ONNX Scan (8 to 25). Inputs: state, scan inputs, in version 8 the sequences' lengths or none, captures.
#[allow(missing_docs)]
#[derive(Clone)]
pub struct Scan {
    pub body: Arc<Graph>,
    pub state: usize,
    pub scan_inputs: usize,
    pub scan_outputs: usize,
    pub input_axes: Vec<i64>,
    pub output_axes: Vec<i64>,
    pub input_reversed: Vec<bool>,
    pub output_reversed: Vec<bool>,
    pub scan_facts: Vec<Fact>,
    pub captures: Vec<usize>,
    /// Version 8: axis 0 of all inputs and outputs is a batch, of which each item is scanned for itself; the scanned axes
    /// are the first ones of an item.
    pub batched: bool,
}

/// ONNX SequenceMap (17). Inputs: sequences and tensors, captures. The body runs for each place in the sequences; a tensor
/// is the same each time.
#[derive(Clone)]
pub struct SequenceMap {
    /// Takes one element of each sequence, and the tensors.
    pub body: Arc<Graph>,
    /// How many inputs the body takes that are not captured.
    pub inputs: usize,
    /// The node's inputs that feed the body's captures.
    pub captures: Vec<usize>,
}

macro_rules! debug_name {
    ($($t:ident),*) => { $(
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(stringify!($t)) }
        }
    )* };
}
debug_name!(If, Loop, Scan, SequenceMap);

impl Op for If {
    fn name(&self) -> &'static str {
        "If"
    }
    fn subgraphs(&self) -> Vec<&Graph> {
        vec![&self.then_branch, &self.else_branch]
    }
    fn with_subgraphs(&self, graphs: Vec<Arc<Graph>>) -> Option<Arc<dyn Op>> {
        let [then_branch, else_branch] = graphs.try_into().ok()?;
        Some(Arc::new(If { then_branch, else_branch, ..self.clone() }))
    }
    fn captures(&self, k: usize) -> &[usize] {
        if k == 0 { &self.then_captures } else { &self.else_captures }
    }
    fn is_deterministic(&self) -> bool {
        false
    }
    fn infer(&self, _cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let of = |g: &Graph| g.outputs().iter().map(|&v| g.fact(v).without_contents()).collect::<Vec<_>>();
        let (a, b) = (of(&self.then_branch), of(&self.else_branch));
        if a.len() != b.len() {
            bail!(InvalidModel, "the branches have {} and {} outputs", a.len(), b.len());
        }
        // The graphs' own facts are symbolic and may name sizes that are not the outer graph's: only numbers count.
        Ok(a.iter()
            .zip(&b)
            .map(|(x, y)| join(&x.substitute(&|_| Dim::Unknown), &y.substitute(&|_| Dim::Unknown)))
            .collect())
    }
}

/// What two facts have in common.
pub fn join(a: &Fact, b: &Fact) -> Fact {
    match (a, b) {
        (Fact::Tensor(x), Fact::Tensor(y)) if x.dtype == y.dtype => {
            let dims = match (&x.dims, &y.dims) {
                (Some(p), Some(q)) if p.len() == q.len() => {
                    Some(p.iter().zip(q).map(|(p, q)| if p.same(q) { p.clone() } else { Dim::Unknown }).collect())
                }
                _ => None,
            };
            Fact::Tensor(crate::ir::TensorFact { dtype: x.dtype, dims, contents: Default::default() })
        }
        (Fact::Sequence(x), Fact::Sequence(y)) => Fact::Sequence(Box::new(join(x, y))),
        (Fact::Optional(x), Fact::Optional(y)) => Fact::Optional(Box::new(join(x, y))),
        _ => Fact::Unknown,
    }
}

fn parse_if(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let (then_branch, then_captures) = cx.subgraph("then_branch")?;
    let (else_branch, else_captures) = cx.subgraph("else_branch")?;
    Ok(Arc::new(If { then_branch, else_branch, then_captures, else_captures }))
}

impl Op for Loop {
    fn name(&self) -> &'static str {
        "Loop"
    }
    fn subgraphs(&self) -> Vec<&Graph> {
        vec![&self.body]
    }
    fn with_subgraphs(&self, graphs: Vec<Arc<Graph>>) -> Option<Arc<dyn Op>> {
        let [body] = graphs.try_into().ok()?;
        Some(Arc::new(Loop { body, ..self.clone() }))
    }
    fn captures(&self, _k: usize) -> &[usize] {
        &self.captures
    }
    fn is_deterministic(&self) -> bool {
        false
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        // A state value may change its shape from one iteration to the next; its type stays.
        let state = (0..self.state).map(|i| cx.fact(2 + i).without_sizes());
        let scans = self.scan_facts.iter().map(|f| match f {
            Fact::Tensor(t) => Fact::any_tensor(t.dtype),
            _ => Fact::Unknown,
        });
        Ok(state.chain(scans).collect())
    }
}

fn parse_loop(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    while cx.inputs.len() < 2 {
        cx.inputs.push(None);
    }
    let state = cx.inputs.len() - 2;
    let (body, captures) = cx.subgraph("body")?;
    let Some(scans) = body.outputs().len().checked_sub(1 + state) else {
        bail!(InvalidModel, "the body has {} outputs for {state} state values and a condition", body.outputs().len());
    };
    if body.inputs().len() != 2 + state + captures.len() {
        bail!(InvalidModel, "the body takes {} values for {state} state values", body.inputs().len() - captures.len());
    }
    let scan_facts = scan_facts(cx, &body, 1 + state);
    Ok(Arc::new(Loop { body, state, scans, scan_facts, captures }))
}

/// What is known of the body's outputs from this one on, or, where that is no rank, what the file says of them: it counts
/// only where no iteration makes one.
fn scan_facts(cx: &ParseCtx<'_>, body: &Graph, from: usize) -> Vec<Fact> {
    let is_ranked = |f: &Fact| f.as_tensor().is_some_and(|t| t.dims.is_some());
    let told = |(k, &v): (usize, &ValueId)| {
        let own = body.fact(v).without_contents();
        let declared = cx.declared("body", k).filter(|d| !is_ranked(&own) && is_ranked(d));
        declared.filter(|d| own.dtype().is_none_or(|t| d.dtype() == Some(t))).cloned().unwrap_or(own)
    };
    body.outputs().iter().enumerate().skip(from).map(told).collect()
}

impl Op for Scan {
    fn name(&self) -> &'static str {
        "Scan"
    }
    fn subgraphs(&self) -> Vec<&Graph> {
        vec![&self.body]
    }
    fn with_subgraphs(&self, graphs: Vec<Arc<Graph>>) -> Option<Arc<dyn Op>> {
        let [body] = graphs.try_into().ok()?;
        Some(Arc::new(Scan { body, ..self.clone() }))
    }
    fn captures(&self, _k: usize) -> &[usize] {
        &self.captures
    }
    fn is_deterministic(&self) -> bool {
        false
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let state = (0..self.state).map(|i| cx.fact(i).without_sizes());
        let scans = self.scan_facts.iter().map(|f| f.dtype().map_or(Fact::Unknown, Fact::any_tensor));
        Ok(state.chain(scans).collect())
    }
}

fn parse_scan(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let batched = cx.version < 9;
    let lengths = if batched && !cx.inputs.is_empty() { cx.inputs.remove(0) } else { None };
    let scan_inputs = usize::try_from(cx.int("num_scan_inputs")?).unwrap_or(0);
    let Some(state) = cx.inputs.len().checked_sub(scan_inputs) else {
        bail!(InvalidModel, "num_scan_inputs is {scan_inputs}, the node has {} inputs", cx.inputs.len());
    };
    let flags = |v: Option<Vec<i64>>| v.unwrap_or_default().into_iter().map(|x| x != 0).collect();
    let input_axes = cx.ints_opt("scan_input_axes")?.unwrap_or_default();
    let output_axes = cx.ints_opt("scan_output_axes")?.unwrap_or_default();
    let directions = if batched { "directions" } else { "scan_input_directions" };
    let input_reversed = flags(cx.ints_opt(directions)?);
    let output_reversed = flags(cx.ints_opt("scan_output_directions")?);
    if batched {
        cx.inputs.push(lengths);
    }
    let (body, captures) = cx.subgraph("body")?;
    let Some(scan_outputs) = body.outputs().len().checked_sub(state) else {
        bail!(InvalidModel, "the body has {} outputs for {state} state values", body.outputs().len());
    };
    if body.inputs().len() != state + scan_inputs + captures.len() {
        bail!(
            InvalidModel,
            "the body takes {} values, the node gives {}",
            body.inputs().len() - captures.len(),
            state + scan_inputs
        );
    }
    let scan_facts = scan_facts(cx, &body, state);
    Ok(Arc::new(Scan {
        body,
        state,
        scan_inputs,
        scan_outputs,
        input_axes,
        output_axes,
        input_reversed,
        output_reversed,
        scan_facts,
        captures,
        batched,
    }))
}

impl Op for SequenceMap {
    fn name(&self) -> &'static str {
        "SequenceMap"
    }
    fn subgraphs(&self) -> Vec<&Graph> {
        vec![&self.body]
    }
    fn with_subgraphs(&self, graphs: Vec<Arc<Graph>>) -> Option<Arc<dyn Op>> {
        let [body] = graphs.try_into().ok()?;
        Some(Arc::new(SequenceMap { body, ..self.clone() }))
    }
    fn captures(&self, _k: usize) -> &[usize] {
        &self.captures
    }
    fn is_deterministic(&self) -> bool {
        false
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        if let f @ (Fact::Tensor(_) | Fact::Map(..) | Fact::Absent) = cx.fact(0) {
            bail!(InvalidModel, "input 0 must be a sequence, it is {f}");
        }
        let element = |f: &Fact| f.without_sizes();
        let outputs = self.body.outputs().iter().map(|&v| Fact::Sequence(Box::new(element(self.body.fact(v)))));
        Ok(outputs.collect())
    }
}

fn parse_map(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let inputs = cx.inputs.len();
    let (body, captures) = cx.subgraph("body")?;
    let takes = body.inputs().len() - captures.len();
    if inputs == 0 || takes != inputs {
        bail!(InvalidModel, "the body takes {takes} values, the node gives {inputs}");
    }
    Ok(Arc::new(SequenceMap { body, inputs, captures }))
}
