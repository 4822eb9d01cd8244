//! Gradient: reverse-mode differentiation of a part of the graph, done when the model is read. What comes out are ordinary
//! operators, so a gradient may be differentiated again.
//!
//! Differentiated are: Add, Sub, Mul, Div, Pow, Neg, Abs, Exp, Log, Sqrt, Reciprocal, Tanh, Sigmoid, Relu, Sin, Cos, Sum,
//! Mean, Where, MatMul and Gemm, Transpose, ReduceSum and ReduceMean (over axes that are constants), Identity, Reshape,
//! Flatten, Squeeze, Unsqueeze, Dropout as inference has it, and Gradient itself.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{FnStep, Step};
use crate::error::{Context, Result};
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Fact, InferCtx, Node, NodeId, Op, ParseCtx, ValueId};
use crate::kernels::nd::dense_strides;
use crate::kernels::pointwise::UnaryOp;
use crate::kernels::reduce::{Reduce as ReduceKernel, ReduceKind};
use crate::kernels::scalar::store;
use crate::ops::linear::MatMul;
use crate::ops::movement::Transpose;
use crate::ops::pointwise::{Binary, BinaryFn, Unary, UnaryFn, Variadic, VariadicFn, Where};
use crate::ops::reduce::Reduce;
use crate::ops::shape::Unsqueeze;
use crate::ops::types::need_elem;
use crate::tensor::Tensor;
use crate::{bail, ensure, err};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Nodes of a graph in which a gradient is taken.
const MAX_NODES: usize = 200_000;

/// A tensor like input 0, filled with one number.
#[derive(Clone, Debug, PartialEq)]
struct Like(Filling);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Filling {
    Number(f64),
    /// How many elements of input 0 there are for each of input 1: one over it.
    Share,
}

/// Input 0 summed over the axes along which input 1 was broadcast.
#[derive(Clone, Debug, PartialEq)]
struct SumTo;

/// Input 0 in the shape of input 1.
#[derive(Clone, Debug, PartialEq)]
struct ShapedLike;

/// The gradients by each variable: the inputs as they are (ai.onnx.preview.training Gradient).
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient;

impl Op for Like {
    fn name(&self) -> &'static str {
        "Like"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

impl Op for SumTo {
    fn name(&self) -> &'static str {
        "SumTo"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(1, cx.dtype(0)?)?])
    }
}

impl Op for ShapedLike {
    fn name(&self) -> &'static str {
        "ShapedLike"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(1, cx.dtype(0)?)?])
    }
}

impl Op for Gradient {
    fn name(&self) -> &'static str {
        "Gradient"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        (0..cx.inputs.len()).map(|i| cx.like(i, cx.dtype(i)?)).collect()
    }
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let xs = cx.strings_opt("xs")?.ok_or_else(|| err!(InvalidModel, "attribute 'xs' is missing"))?;
    let zs = cx.strings_opt("zs")?.unwrap_or_default();
    let y = cx.string_opt("y")?.ok_or_else(|| err!(InvalidModel, "attribute 'y' is missing"))?;
    let given = std::mem::take(&mut cx.inputs);
    ensure!(
        given.len() == xs.len() + zs.len() && !xs.is_empty(),
        InvalidModel,
        "{} inputs for {} variables and {} others",
        given.len(),
        xs.len(),
        zs.len()
    );
    let g = cx.graph();
    // Gradients of gradients grow; a file must not make them grow without bound.
    ensure!(g.order().len() <= MAX_NODES, Unsupported, "a gradient in a graph of {} nodes", g.order().len());
    // A name may come again in a function's body: the last one counts.
    let values = (0..g.value_count() as u32).map(ValueId);
    let by_name: HashMap<Arc<str>, ValueId> = values.map(|v| (g.value(v).name.clone(), v)).collect();
    let find =
        |name: &str| by_name.get(name).copied().ok_or_else(|| err!(InvalidModel, "nothing before it makes '{name}'"));
    let mut at = HashMap::new();
    let mut variables = Vec::new();
    for (name, v) in xs.iter().chain(&zs).zip(&given) {
        let v = v.ok_or_else(|| err!(InvalidModel, "no value is given for '{name}'"))?;
        at.insert(find(name)?, v);
        variables.push(v);
    }
    variables.truncate(xs.len());
    let y = find(&y)?;
    let nodes = between(cx, &at, y);
    let y = replayed(cx, &nodes, &mut at, y)?;
    let mut tape = Tape { cx, grads: HashMap::new() };
    // A variable ends the walk back, also where another one is computed from it.
    let ends: HashSet<ValueId> = at.values().copied().collect();
    let nodes = between_values(tape.cx, &ends, y);
    tape.run(&nodes, &variables, y)?;
    let mut inputs = Vec::with_capacity(variables.len());
    for v in variables {
        inputs.push(Some(match tape.grads.get(&v) {
            Some(&g) => g,
            None => tape.number(0.0, v)?,
        }));
    }
    tape.cx.inputs = inputs;
    Ok(Arc::new(Gradient))
}

fn between(cx: &ParseCtx<'_>, at: &HashMap<ValueId, ValueId>, y: ValueId) -> Vec<NodeId> {
    between_values(cx, &at.keys().copied().collect(), y)
}

/// The nodes that `y` is computed by from the values in `ends`, in order.
fn between_values(cx: &ParseCtx<'_>, ends: &HashSet<ValueId>, y: ValueId) -> Vec<NodeId> {
    let g = cx.graph();
    let (mut seen, mut stack) = (HashSet::new(), vec![y]);
    while let Some(v) = stack.pop() {
        if ends.contains(&v) {
            continue;
        }
        if let Some((id, _)) = g.value(v).producer
            && seen.insert(id)
        {
            stack.extend(g.node(id).inputs.iter().flatten());
        }
    }
    g.order().iter().copied().filter(|id| seen.contains(id)).collect()
}

/// Computes the nodes again for other values of the variables, as far as they hang on them; what `y` is then.
fn replayed(
    cx: &mut ParseCtx<'_>,
    nodes: &[NodeId],
    at: &mut HashMap<ValueId, ValueId>,
    y: ValueId,
) -> Result<ValueId> {
    let mut now: HashMap<ValueId, ValueId> = at.iter().filter(|(a, b)| a != b).map(|(a, b)| (*a, *b)).collect();
    for &id in nodes {
        let node: Node = cx.graph().node(id).clone();
        let inputs: Vec<_> = node.inputs.iter().map(|v| v.map(|v| *now.get(&v).unwrap_or(&v))).collect();
        if inputs == node.inputs {
            continue;
        }
        let made: Vec<bool> = node.outputs.iter().map(Option::is_some).collect();
        let outputs = cx.emit_outputs(node.op.clone(), inputs, &made)?;
        for (old, new) in node.outputs.iter().zip(outputs) {
            if let (Some(old), Some(new)) = (old, new) {
                now.insert(*old, new);
            }
        }
    }
    Ok(*now.get(&y).unwrap_or(&y))
}

struct Tape<'c, 'a> {
    cx: &'c mut ParseCtx<'a>,
    grads: HashMap<ValueId, ValueId>,
}

impl Tape<'_, '_> {
    fn emit(&mut self, op: impl Op, inputs: &[ValueId]) -> Result<ValueId> {
        self.cx.emit(Arc::new(op), inputs.iter().map(|&v| Some(v)).collect())
    }
    fn two(&mut self, f: BinaryFn, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.emit(Binary::new(f), &[a, b])
    }
    fn one(&mut self, f: UnaryOp, a: ValueId) -> Result<ValueId> {
        self.emit(Unary { f: UnaryFn::Op(f) }, &[a])
    }
    /// A number in the shape of a value.
    fn number(&mut self, x: f64, like: ValueId) -> Result<ValueId> {
        self.emit(Like(Filling::Number(x)), &[like])
    }
    fn is_float(&self, v: ValueId) -> bool {
        self.cx.graph().fact(v).dtype().is_some_and(|d| d.is_float())
    }
    /// Adds to the gradient by `v`, which may have been broadcast.
    fn add(&mut self, v: ValueId, g: ValueId) -> Result<()> {
        let shape = |v: ValueId| self.cx.graph().fact(v).shape();
        let same = shape(v).is_some() && shape(v) == shape(g);
        let g = if same { g } else { self.emit(SumTo, &[g, v])? };
        let g = match self.grads.get(&v) {
            Some(&old) => self.two(BinaryFn::Add, old, g)?,
            None => g,
        };
        self.grads.insert(v, g);
        Ok(())
    }
    fn run(&mut self, nodes: &[NodeId], variables: &[ValueId], y: ValueId) -> Result<()> {
        ensure!(self.is_float(y), InvalidModel, "y is no float");
        let seed = self.number(1.0, y)?;
        self.grads.insert(y, seed);
        let nodes: Vec<Node> = nodes.iter().map(|&id| self.cx.graph().node(id).clone()).collect();
        // What hangs on a variable, smoothly.
        let mut active: HashSet<ValueId> = variables.iter().copied().collect();
        for n in &nodes {
            if !n.op.is::<Like>() && n.inputs.iter().flatten().any(|v| active.contains(v)) {
                active.extend(n.outputs.iter().flatten().filter(|v| self.is_float(**v)));
            }
        }
        for n in nodes.iter().rev() {
            let wanted: Vec<bool> = n.inputs.iter().map(|v| v.is_some_and(|v| active.contains(&v))).collect();
            for (i, out) in n.outputs.iter().enumerate() {
                let Some(&g) = out.as_ref().and_then(|o| self.grads.get(o)) else { continue };
                if wanted.contains(&true) && out.is_some_and(|o| active.contains(&o)) {
                    self.node(n, i, g, &wanted).context(|| format!("the gradient of {}", n.describe()))?;
                }
            }
        }
        Ok(())
    }
    /// Hands the gradient by output `i` of a node on to its inputs.
    fn node(&mut self, n: &Node, i: usize, g: ValueId, wanted: &[bool]) -> Result<()> {
        let input =
            |k: usize| n.inputs.get(k).copied().flatten().ok_or_else(|| err!(InvalidModel, "input {k} is missing"));
        let is = |k: usize| wanted.get(k).copied().unwrap_or(false);
        let out = n.outputs.get(i).copied().flatten().ok_or_else(|| err!(Internal, "a gradient of nothing"))?;
        if n.op.is::<Gradient>() {
            return if is(i) { self.add(input(i)?, g) } else { Ok(()) };
        }
        if let Some(op) = n.op.downcast::<Binary>().filter(|b| b.axis.is_none()) {
            return self.binary(op.f, [input(0)?, input(1)?], [is(0), is(1)], out, g);
        }
        if let Some(Unary { f: UnaryFn::Op(f) }) = n.op.downcast::<Unary>() {
            let x = input(0)?;
            let d = self.unary(*f, x, out, g)?;
            return self.add(x, d);
        }
        if let Some(op) = n.op.downcast::<Variadic>() {
            let g = match op.f {
                VariadicFn::Sum => g,
                VariadicFn::Mean => {
                    let share = self.number(1.0 / n.inputs.len() as f64, g)?;
                    self.two(BinaryFn::Mul, g, share)?
                }
                _ => bail!(Unsupported, "{} is not differentiated", n.op.name()),
            };
            for k in (0..n.inputs.len()).filter(|&k| is(k)) {
                self.add(input(k)?, g)?;
            }
            return Ok(());
        }
        if let Some(op) = n.op.downcast::<MatMul>() {
            return self.matmul(op, n, wanted, g);
        }
        if n.op.is::<Where>() {
            let zero = self.number(0.0, g)?;
            for (k, pair) in [(1, [g, zero]), (2, [zero, g])] {
                if is(k) {
                    let d = self.emit(Where, &[input(0)?, pair[0], pair[1]])?;
                    self.add(input(k)?, d)?;
                }
            }
            return Ok(());
        }
        if let Some(op) = n.op.downcast::<Transpose>() {
            let back =
                op.perm.as_ref().map(|p| (0..p.len()).map(|i| p.iter().position(|&a| a == i).unwrap_or(i)).collect());
            let d = self.emit(Transpose { perm: back }, &[g])?;
            return self.add(input(0)?, d);
        }
        if let Some(op) = n.op.downcast::<Reduce>() {
            return self.reduce(op, n, g, out);
        }
        if n.op.is::<SumTo>() {
            let ones = self.number(1.0, input(0)?)?;
            let d = self.two(BinaryFn::Mul, ones, g)?;
            return self.add(input(0)?, d);
        }
        let view = n.op.alias() == Alias::View || n.op.is::<ShapedLike>();
        let dropout = n.op.is::<crate::ops::dropout::Dropout>() && n.inputs.len() == 1 && i == 0;
        if (view || dropout) && !wanted.iter().skip(1).any(|&w| w) {
            let d = self.emit(ShapedLike, &[g, input(0)?])?;
            return self.add(input(0)?, d);
        }
        if n.op.is::<ShapedLike>() {
            bail!(Unsupported, "a gradient by a shape");
        }
        bail!(Unsupported, "{} is not differentiated", n.op.name())
    }
    fn binary(&mut self, f: BinaryFn, [a, b]: [ValueId; 2], is: [bool; 2], y: ValueId, g: ValueId) -> Result<()> {
        use BinaryFn::{Add, Div, Mul, Pow, Sub};
        if !matches!(f, Add | Sub | Mul | Div | Pow) {
            bail!(Unsupported, "{} is not differentiated", Binary::new(f).name());
        }
        if is[0] {
            let d = match f {
                Mul => self.two(Mul, g, b)?,
                Div => self.two(Div, g, b)?,
                Pow => {
                    // b * a^(b - 1)
                    let one = self.number(1.0, b)?;
                    let less = self.two(Sub, b, one)?;
                    let power = self.two(Pow, a, less)?;
                    let slope = self.two(Mul, power, b)?;
                    self.two(Mul, g, slope)?
                }
                _ => g,
            };
            self.add(a, d)?;
        }
        if is[1] {
            let d = match f {
                Sub => self.one(UnaryOp::Neg, g)?,
                Mul => self.two(Mul, g, a)?,
                Div => {
                    let by = self.two(Div, y, b)?;
                    let d = self.two(Mul, g, by)?;
                    self.one(UnaryOp::Neg, d)?
                }
                Pow => {
                    let log = self.one(UnaryOp::Log, a)?;
                    let slope = self.two(Mul, y, log)?;
                    self.two(Mul, g, slope)?
                }
                _ => g,
            };
            self.add(b, d)?;
        }
        Ok(())
    }
    fn unary(&mut self, f: UnaryOp, x: ValueId, y: ValueId, g: ValueId) -> Result<ValueId> {
        use BinaryFn::{Div, Greater, Mul, Sub};
        let one_less = |t: &mut Self, v: ValueId| -> Result<ValueId> {
            let one = t.number(1.0, v)?;
            t.two(Sub, one, v)
        };
        Ok(match f {
            UnaryOp::Neg => self.one(UnaryOp::Neg, g)?,
            UnaryOp::Abs => {
                let sign = self.one(UnaryOp::Sign, x)?;
                self.two(Mul, g, sign)?
            }
            UnaryOp::Exp => self.two(Mul, g, y)?,
            UnaryOp::Log => self.two(Div, g, x)?,
            UnaryOp::Sqrt => {
                let half = self.number(0.5, g)?;
                let d = self.two(Mul, g, half)?;
                self.two(Div, d, y)?
            }
            UnaryOp::Reciprocal => {
                let square = self.two(Mul, y, y)?;
                let d = self.two(Mul, g, square)?;
                self.one(UnaryOp::Neg, d)?
            }
            UnaryOp::Sin => {
                let c = self.one(UnaryOp::Cos, x)?;
                self.two(Mul, g, c)?
            }
            UnaryOp::Cos => {
                let s = self.one(UnaryOp::Sin, x)?;
                let d = self.two(Mul, g, s)?;
                self.one(UnaryOp::Neg, d)?
            }
            UnaryOp::Tanh => {
                let square = self.two(Mul, y, y)?;
                let slope = one_less(self, square)?;
                self.two(Mul, g, slope)?
            }
            UnaryOp::Sigmoid => {
                let rest = one_less(self, y)?;
                let slope = self.two(Mul, y, rest)?;
                self.two(Mul, g, slope)?
            }
            UnaryOp::Relu => {
                let zero = self.number(0.0, x)?;
                let on = self.two(Greater, x, zero)?;
                self.emit(Where, &[on, g, zero])?
            }
            f => bail!(Unsupported, "{} is not differentiated", Unary { f: UnaryFn::Op(f) }.name()),
        })
    }
    fn matmul(&mut self, op: &MatMul, n: &Node, wanted: &[bool], g: ValueId) -> Result<()> {
        let [Some(a), Some(b)] = n.inputs[..2] else { bail!(InvalidModel, "an operand is missing") };
        let plain = MatMul { alpha: op.alpha, ..MatMul::default() };
        ensure!(op.activation == plain.activation, Unsupported, "a product with an activation is not differentiated");
        let rank = |t: &Self, v: ValueId| t.cx.graph().fact(v).as_tensor().and_then(|f| f.rank());
        let matrices = [a, b].iter().all(|&v| op.gemm || rank(self, v).is_some_and(|r| r >= 2));
        ensure!(matrices, Unsupported, "a product of vectors, or of operands of unknown rank, is not differentiated");
        let product = |trans_a, trans_b| MatMul { trans_a, trans_b, ..plain.clone() };
        if wanted[0] {
            let d = if op.trans_a {
                self.emit(product(op.trans_b, true), &[b, g])?
            } else {
                self.emit(product(false, !op.trans_b), &[g, b])?
            };
            self.add(a, d)?;
        }
        if wanted[1] {
            let d = if op.trans_b {
                self.emit(product(true, op.trans_a), &[g, a])?
            } else {
                self.emit(product(!op.trans_a, false), &[a, g])?
            };
            self.add(b, d)?;
        }
        if let (Some(true), Some(Some(c))) = (wanted.get(2), n.inputs.get(2)) {
            let beta = self.number(f64::from(op.beta), g)?;
            let d = self.two(BinaryFn::Mul, g, beta)?;
            self.add(*c, d)?;
        }
        Ok(())
    }
    fn reduce(&mut self, op: &Reduce, n: &Node, g: ValueId, y: ValueId) -> Result<()> {
        let mean = match op.kind {
            ReduceKind::Sum => false,
            ReduceKind::Mean => true,
            _ => bail!(Unsupported, "{} is not differentiated", op.name()),
        };
        let Some(Some(x)) = n.inputs.first().copied() else { bail!(InvalidModel, "input 0 is missing") };
        let mut g = g;
        if let (false, Some(Some(axes))) = (op.keep_dims, n.inputs.get(1).copied()) {
            let fact = self.cx.graph().fact(axes);
            let Some(list) = fact.constant().map(Tensor::to_i64s).transpose()? else {
                bail!(Unsupported, "a reduction over axes that are not constants is not differentiated")
            };
            let Some(rank) = self.cx.graph().fact(x).as_tensor().and_then(|f| f.rank()) else {
                bail!(Unsupported, "a reduction of a tensor of unknown rank is not differentiated")
            };
            let list = list.iter().map(|&a| Ok(resolve_axis(a, rank)? as i64)).collect::<Result<Vec<_>>>()?;
            let axes = self.cx.constant(Tensor::from_slice(&[list.len()], &list)?);
            if !list.is_empty() {
                g = self.emit(Unsqueeze, &[g, axes])?;
            }
        }
        let ones = if mean { self.emit(Like(Filling::Share), &[x, y])? } else { self.number(1.0, x)? };
        let d = self.two(BinaryFn::Mul, ones, g)?;
        self.add(x, d)
    }
}

fn bind_like(op: &Like, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let y = cx.output(0)?;
    let (n, elem) = (y.len(), need_elem(y.dtype, "Gradient")?);
    let x = match op.0 {
        Filling::Number(x) => x,
        Filling::Share => cx.input(1)?.len() as f64 / n.max(1) as f64,
    };
    Ok(FnStep::boxed("like", 1, 0, move |args, _, _| {
        // SAFETY: the output has n elements.
        (0..n).for_each(|i| unsafe { store(elem, args.output(0), i, x) });
        Ok(())
    }))
}

fn bind_sum(_: &SumTo, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (g, y) = (cx.input(0)?, cx.output(0)?);
    let Some(lead) = g.shape.len().checked_sub(y.shape.len()) else {
        bail!(InvalidModel, "a gradient of shape {:?} for {:?}", g.shape, y.shape)
    };
    let summed: Vec<bool> = (0..g.shape.len()).map(|i| i < lead || y.shape[i - lead] == 1 && g.shape[i] != 1).collect();
    let fits = (lead..g.shape.len()).all(|i| summed[i] || g.shape[i] == y.shape[i - lead]);
    ensure!(fits, InvalidModel, "a gradient of shape {:?} for {:?}", g.shape, y.shape);
    let elem = need_elem(g.dtype, "Gradient")?;
    let kernel = ReduceKernel::new(cx.isa, ReduceKind::Sum, elem, &g.shape, &dense_strides(&g.shape), &summed)?;
    Ok(FnStep::boxed("sum_to", kernel.tasks(), 0, move |args, task, _| {
        // SAFETY: operands of the shapes the kernel was made from.
        unsafe { kernel.run(task, args.input(0), args.output(0)) };
        Ok(())
    }))
}

/// Copies of as many inputs as there are outputs.
fn bind_copies<T: Op>(_: &T, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let mut bytes = Vec::with_capacity(cx.outputs.len());
    for i in 0..cx.outputs.len() {
        let n = cx.input(i)?.byte_len()?;
        ensure!(cx.opt_output(i).is_none_or(|o| o.byte_len().ok() == Some(n)), InvalidModel, "gradient {i}");
        bytes.push(cx.has_output(i).then_some(n));
    }
    Ok(FnStep::boxed("copies", bytes.len(), 0, move |args, i, _| {
        if let Some(n) = bytes[i] {
            // SAFETY: input and output i have n bytes.
            unsafe { std::ptr::copy_nonoverlapping(args.input::<u8>(i), args.output::<u8>(i), n) };
        }
        Ok(())
    }))
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Like>(bind_like);
    b.step::<SumTo>(bind_sum);
    b.step::<ShapedLike>(bind_copies);
    b.step::<Gradient>(bind_copies);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::build::GraphBuilder;
    use crate::ir::parse::Attr;

    /// Whether the derivative by a value of what `make` builds can be built.
    fn differentiates(make: fn(&mut GraphBuilder, ValueId) -> ValueId) -> Result<usize> {
        let mut b = GraphBuilder::new("test");
        let x = b.input("x", Fact::sized(crate::tensor::DType::F32, &[2, 3]));
        let y = make(&mut b, x);
        let name = b.graph().value(y).name.to_string();
        let attrs = vec![("xs", Attr::Strings(vec![b"x".to_vec()])), ("y", Attr::String(name.into_bytes()))];
        let mut cx = ParseCtx::new(&mut b, "g", "Gradient", 1, vec![Some(x)], &[true], attrs);
        let op = parse(&mut cx)?;
        let inputs = std::mem::take(&mut cx.inputs);
        let out = b.node("g", op, inputs, &[Some("dx")])?;
        let shape = b.graph().fact(out[0].unwrap()).shape().unwrap();
        assert_eq!(shape.as_slice(), [2, 3]);
        Ok(b.graph().order().len())
    }

    fn node(b: &mut GraphBuilder, op: impl Op, inputs: &[ValueId]) -> ValueId {
        let name = format!("v{}", b.graph().value_count());
        let inputs = inputs.iter().map(|&v| Some(v)).collect();
        b.node(&name, Arc::new(op), inputs, &[Some(&name)]).unwrap()[0].unwrap()
    }

    #[test]
    fn operators_in_the_list_are_differentiated_and_others_named() {
        let made = differentiates(|b, x| {
            let e = node(b, Unary { f: UnaryFn::Op(UnaryOp::Exp) }, &[x]);
            let t = node(b, Transpose { perm: None }, &[e]);
            node(b, MatMul::default(), &[x, t])
        });
        assert!(made.unwrap() > 3);
        let refused = differentiates(|b, x| node(b, Unary { f: UnaryFn::Op(UnaryOp::Floor) }, &[x])).unwrap_err();
        assert!(refused.to_string().contains("Floor") || format!("{refused:#}").contains("Floor"), "{refused:#}");
    }
}
