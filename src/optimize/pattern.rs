//! Patterns of operators that read like the formula they match: `x * sigmoid(x)`, whatever the order of the operands, with
//! numbers compared by value. They match types, never names.
//!
//! Products and sums are flattened before they are matched, so that `0.5 * (x * (1 + e))`, `(x / 2) * (e + 1)` and their like
//! are one pattern. What a match swallows must have no other users: [`closed`].

use super::PassCtx;
use crate::ir::{Node, NodeId, Op, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::kernels::reduce::ReduceKind;
use crate::ops::cast::Cast;
use crate::ops::movement::Expand;
use crate::ops::pointwise::{Binary, BinaryFn, Clip, Unary, UnaryFn, Variadic, VariadicFn};
use crate::ops::reduce::Reduce;
use crate::tensor::DType;

/// A pattern of one value.
#[derive(Clone)]
pub enum P {
    /// Anything; the same value wherever the letter stands.
    Any(usize),
    /// The result of an operator whose first operands match.
    Node(fn(&dyn Op) -> bool, Vec<P>),
    /// The same, or its operand without it.
    Maybe(fn(&dyn Op) -> bool, Box<P>),
    /// Factors in any order, times a number.
    Product(Vec<Factor>, Number),
    /// Terms in any order, plus a number.
    Sum(Vec<Factor>, Number),
    /// The operand between two numbers.
    Clip(f64, f64, Box<P>),
    /// The operand, or a number where that is greater, which is kept.
    AtLeast(usize, Box<P>),
    /// The first of them that matches.
    Either(Vec<P>),
}

/// One factor of a product.
#[derive(Clone)]
pub enum Factor {
    /// x
    Of(P),
    /// 1 / x
    Inverse(P),
    /// 1 / sqrt(x)
    InverseRoot(P),
    /// A letter for what remains of the factors, if one does.
    Rest(usize),
}

/// A number in a pattern.
#[derive(Clone, Copy)]
pub enum Number {
    /// This one, up to the rounding of the exporters.
    Is(f64),
    /// Any; kept under an index.
    Keep(usize),
}

/// `a`, a letter.
pub const fn any(letter: usize) -> P {
    P::Any(letter)
}
/// A function of one operand.
pub fn node(is: fn(&dyn Op) -> bool, x: P) -> P {
    P::Node(is, vec![x])
}
/// `k * a * b ...`
pub fn product<const N: usize>(k: f64, factors: [P; N]) -> P {
    P::Product(factors.into_iter().map(Factor::Of).collect(), Number::Is(k))
}
/// `a + b + ... + k`
pub fn sum<const N: usize>(terms: [P; N], k: f64) -> P {
    P::Sum(terms.into_iter().map(Factor::Of).collect(), Number::Is(k))
}
/// `a - b`
pub fn minus(a: P, b: P) -> P {
    P::Node(|o| binary(o) == Some(BinaryFn::Sub), vec![a, b])
}
/// The operand, or a conversion of it to another float type.
pub fn maybe_cast(x: P) -> P {
    P::Maybe(|o| o.downcast::<Cast>().is_some_and(|c| c.to.is_some_and(is_float)), Box::new(x))
}

/// The operand, or what it is repeated to.
pub fn maybe_expand(x: P) -> P {
    P::Maybe(|o| o.is::<Expand>(), Box::new(x))
}

fn is_float(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

/// The function of two operands that an operator is.
pub fn binary(op: &dyn Op) -> Option<BinaryFn> {
    op.downcast::<Binary>().filter(|b| b.axis.is_none()).map(|b| b.f)
}
/// The operands of such a node, in both orders, and its result.
pub fn commuted(cx: &PassCtx<'_, '_>, id: NodeId, f: BinaryFn) -> Option<([(ValueId, ValueId); 2], ValueId)> {
    let node = cx.node(id).filter(|n| binary(&*n.op) == Some(f))?;
    let (&[Some(x), Some(y)], &[Some(out)]) = (&node.inputs[..], &node.outputs[..]) else { return None };
    Some(([(x, y), (y, x)], out))
}
/// Whether an operator reduces so and keeps the axes.
pub fn keeps(op: &dyn Op, kind: ReduceKind) -> bool {
    op.downcast::<Reduce>().is_some_and(|r| r.kind == kind && r.keep_dims)
}
/// The function of one operand that an operator is.
pub fn unary(op: &dyn Op) -> Option<UnaryFn> {
    op.downcast::<Unary>().map(|u| u.f)
}
/// Whether an operator is an instruction of one operand.
pub fn is_op(op: &dyn Op, f: UnaryOp) -> bool {
    unary(op) == Some(UnaryFn::Op(f))
}

/// Letters and numbers of a pattern at most.
const LETTERS: usize = 6;
/// Factors or terms of one product or sum at most.
const MOST: usize = 8;

/// What a pattern's letters stand for.
#[derive(Clone, Default, Debug)]
pub struct Match {
    letters: [Option<ValueId>; LETTERS],
    numbers: [Option<f64>; LETTERS],
    /// The nodes it swallows, the root included.
    pub nodes: Vec<NodeId>,
}

impl Match {
    /// The value a letter stands for.
    pub fn value(&self, letter: usize) -> Option<ValueId> {
        self.letters.get(letter).copied().flatten()
    }
    /// A number that was kept.
    pub fn number(&self, index: usize) -> Option<f64> {
        self.numbers.get(index).copied().flatten()
    }
}

/// Tries a pattern at a value. `Err` says by what number it was missed, if by nothing else so far.
pub fn find(cx: &PassCtx<'_, '_>, p: &P, v: ValueId) -> Result<Match, Option<String>> {
    let mut finder = Finder { cx, near: None };
    match finder.value(p, v, Match::default()) {
        Some(m) => Ok(m),
        None => Err(finder.near),
    }
}

/// Whether nobody outside a match uses what it swallows, its root aside; else why not.
pub fn closed(cx: &PassCtx<'_, '_>, m: &Match, root: ValueId) -> Result<(), String> {
    for &id in &m.nodes {
        let Some(n) = cx.node(id) else { continue };
        for &v in n.outputs.iter().flatten().filter(|&&v| v != root) {
            if cx.edit.is_output(v) || cx.edit.users(v).iter().any(|u| !m.nodes.contains(u)) {
                return Err(format!("'{}' inside the pattern has other users", cx.graph().value(v).name));
            }
        }
    }
    Ok(())
}

struct Finder<'c, 'a, 'g> {
    cx: &'c PassCtx<'a, 'g>,
    near: Option<String>,
}

/// A flattened product or sum.
#[derive(Default)]
struct Flat {
    /// The value and the power it stands in: 1, -1, or -0.5.
    parts: Vec<(ValueId, f64)>,
    number: f64,
    nodes: Vec<NodeId>,
    /// The pattern has several operands: a sum of sums is one sum. Else only numbers are told from the operand.
    deep: bool,
}

/// A value between two bounds.
struct Bounded {
    of: ValueId,
    low: f64,
    high: f64,
    nodes: Vec<NodeId>,
}

impl Finder<'_, '_, '_> {
    fn value(&mut self, p: &P, v: ValueId, mut m: Match) -> Option<Match> {
        match p {
            P::Any(letter) => match m.letters.get_mut(*letter)? {
                Some(have) => (*have == v).then_some(m),
                free => {
                    *free = Some(v);
                    Some(m)
                }
            },
            P::Node(is, operands) => {
                let (id, node) = self.cx.made_by(v)?;
                is(&*node.op).then_some(())?;
                let inputs = node.inputs.clone();
                push(&mut m.nodes, id);
                for (i, p) in operands.iter().enumerate() {
                    m = self.value(p, inputs.get(i).copied().flatten()?, m)?;
                }
                Some(m)
            }
            P::Maybe(is, inner) => {
                if let Some(found) = self.value(inner, v, m.clone()) {
                    return Some(found);
                }
                let (id, node) = self.cx.made_by(v)?;
                is(&*node.op).then_some(())?;
                let x = node.inputs.first().copied().flatten()?;
                push(&mut m.nodes, id);
                self.value(inner, x, m)
            }
            P::Clip(low, high, x) => {
                let b = self.bounded(v)?;
                ((b.low, b.high) == (*low, *high)).then_some(())?;
                b.nodes.iter().for_each(|&n| push(&mut m.nodes, n));
                self.value(x, b.of, m)
            }
            P::AtLeast(index, x) => {
                let b = self.bounded(v).filter(|b| b.low.is_finite() && b.high == f64::INFINITY)?;
                *m.numbers.get_mut(*index)? = Some(b.low);
                b.nodes.iter().for_each(|&n| push(&mut m.nodes, n));
                self.value(x, b.of, m)
            }
            P::Either(all) => all.iter().find_map(|p| self.value(p, v, m.clone())),
            P::Product(factors, k) => {
                let mut flat = Flat { number: 1.0, deep: factors.len() > 1, ..Flat::default() };
                self.factors(v, 1.0, true, &mut flat)?;
                flat.nodes.iter().for_each(|&n| push(&mut m.nodes, n));
                let m = self.assign(factors, &flat.parts, m)?;
                self.number(*k, flat.number, m, "factor", v)
            }
            P::Sum(terms, k) => {
                let mut flat = Flat { deep: terms.len() > 1, ..Flat::default() };
                self.terms(v, true, &mut flat)?;
                flat.nodes.iter().for_each(|&n| push(&mut m.nodes, n));
                let m = self.assign(terms, &flat.parts, m)?;
                self.number(*k, flat.number, m, "addend", v)
            }
        }
    }

    /// The value as one between bounds, however many operators set them.
    fn bounded(&self, v: ValueId) -> Option<Bounded> {
        let mut b = Bounded { of: v, low: f64::NEG_INFINITY, high: f64::INFINITY, nodes: Vec::new() };
        while let Some((id, node)) = self.cx.made_by(b.of).filter(|_| b.of == v || self.cx.used_once(b.of)) {
            let at = |i: usize| node.inputs.get(i).copied().flatten();
            let (x, y) = (at(0)?, at(1));
            // A bound that is not given is none; one that is no constant cannot be told.
            let bound = |v: Option<ValueId>, none: f64| v.map_or(Some(none), |v| self.cx.scalar(v));
            let extreme = match (binary(&*node.op), node.op.downcast::<Variadic>().map(|o| o.f)) {
                (Some(BinaryFn::Max), _) | (_, Some(VariadicFn::Max)) => Some(BinaryFn::Max),
                (Some(BinaryFn::Min), _) | (_, Some(VariadicFn::Min)) => Some(BinaryFn::Min),
                _ => None,
            };
            let (x, low, high) = match (unary(&*node.op), extreme) {
                (Some(UnaryFn::Op(UnaryOp::Relu)), _) => (x, 0.0, f64::INFINITY),
                (Some(UnaryFn::Clip { low, high }), _) => {
                    (x, low.map_or(f64::NEG_INFINITY, f64::from), high.map_or(f64::INFINITY, f64::from))
                }
                (_, Some(f)) if node.inputs.len() == 2 => {
                    let (x, k) = match (self.cx.scalar(x), self.cx.scalar(y?)) {
                        (_, Some(k)) => (x, k),
                        (Some(k), _) => (y?, k),
                        _ => break,
                    };
                    if f == BinaryFn::Max { (x, k, f64::INFINITY) } else { (x, f64::NEG_INFINITY, k) }
                }
                _ if node.op.is::<Clip>() => match (bound(y, f64::NEG_INFINITY), bound(at(2), f64::INFINITY)) {
                    (Some(low), Some(high)) => (x, low, high),
                    _ => break,
                },
                _ => break,
            };
            // Bounds that leave nothing between them depend on their order.
            if low.max(b.low) > high.min(b.high) {
                break;
            }
            b.nodes.push(id);
            b = Bounded { of: x, low: low.max(b.low), high: high.min(b.high), nodes: b.nodes };
        }
        (!b.nodes.is_empty()).then_some(b)
    }

    fn number(&mut self, want: Number, have: f64, mut m: Match, what: &str, v: ValueId) -> Option<Match> {
        // Exporters write sqrt(2) with five digits; narrow types have three.
        let digits = match self.cx.dtype(v) {
            Some(DType::F16) => 1e-3,
            Some(DType::BF16) => 8e-3,
            _ => 2e-5,
        };
        match want {
            Number::Keep(i) => *m.numbers.get_mut(i)? = Some(have),
            // What every type can write is meant as it stands.
            Number::Is(k) if have == k || (k * 16.0).fract() != 0.0 && (have - k).abs() <= digits * k.abs() => {}
            Number::Is(k) => {
                self.near = Some(format!("a {what} is {have}, not {k}"));
                return None;
            }
        }
        Some(m)
    }

    /// Matches patterns with parts in any order.
    fn assign(&mut self, patterns: &[Factor], parts: &[(ValueId, f64)], m: Match) -> Option<Match> {
        let Some((first, others)) = patterns.split_first() else { return parts.is_empty().then_some(m) };
        let (p, power) = match first {
            Factor::Of(p) => (p, 1.0),
            Factor::Inverse(p) => (p, -1.0),
            Factor::InverseRoot(p) => (p, -0.5),
            Factor::Rest(letter) => {
                return match parts {
                    [] => Some(m),
                    [(v, 1.0)] => self.value(&P::Any(*letter), *v, m),
                    _ => None,
                };
            }
        };
        for (i, &(v, have)) in parts.iter().enumerate() {
            let mut m = m.clone();
            let mut v = v;
            if power == -0.5 && have == -1.0 {
                let Some((id, node)) = self.cx.made_by(v).filter(|(_, n)| is_op(&*n.op, UnaryOp::Sqrt)) else {
                    continue;
                };
                push(&mut m.nodes, id);
                let Some(x) = node.inputs.first().copied().flatten() else { continue };
                v = x;
            } else if power != have {
                continue;
            }
            let Some(m) = self.value(p, v, m) else { continue };
            let left: Vec<_> = parts.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, &x)| x).collect();
            if let Some(m) = self.assign(others, &left, m) {
                return Some(m);
            }
        }
        None
    }

    /// Collects the factors of `v` to a power of 1 or -1. `None` where it is no product, at the root, or too large.
    fn factors(&self, v: ValueId, power: f64, root: bool, flat: &mut Flat) -> Option<()> {
        if let Some(k) = self.cx.scalar(v) {
            flat.number *= k.powf(power);
            return Some(());
        }
        (flat.parts.len() < MOST).then_some(())?;
        let made = self.cx.made_by(v).filter(|_| root || self.cx.used_once(v));
        let Some((id, node)) = made else {
            flat.parts.push((v, power));
            return Some(());
        };
        let at = |i: usize| node.inputs.get(i).copied().flatten();
        let op = &*node.op;
        if !root && !flat.deep && !self.has_number(node) {
            flat.parts.push((v, power));
            return Some(());
        }
        let exponent = || at(1).and_then(|e| self.cx.scalar(e).or_else(|| self.cx.integer(e).map(|n| n as f64)));
        match (binary(op), unary(op)) {
            (Some(BinaryFn::Mul), _) => {
                flat.nodes.push(id);
                self.factors(at(0)?, power, false, flat)?;
                self.factors(at(1)?, power, false, flat)
            }
            (Some(BinaryFn::Div), _) => {
                flat.nodes.push(id);
                self.factors(at(0)?, power, false, flat)?;
                self.factors(at(1)?, -power, false, flat)
            }
            // Paddle adds 0 to whatever it scales.
            (Some(BinaryFn::Add), _) if at(1).and_then(|k| self.cx.scalar(k)) == Some(0.0) => {
                flat.nodes.push(id);
                self.factors(at(0)?, power, root, flat)
            }
            (Some(BinaryFn::Pow), _) => match exponent() {
                Some(n) if n == 2.0 || n == 3.0 => {
                    flat.nodes.push(id);
                    (0..n as usize).for_each(|_| flat.parts.extend(at(0).map(|x| (x, power))));
                    Some(())
                }
                Some(-0.5) if power == 1.0 => {
                    flat.nodes.push(id);
                    flat.parts.push((at(0)?, -0.5));
                    Some(())
                }
                _ if root => None,
                _ => {
                    flat.parts.push((v, power));
                    Some(())
                }
            },
            (_, Some(UnaryFn::Op(UnaryOp::Neg))) => {
                flat.nodes.push(id);
                flat.number = -flat.number;
                self.factors(at(0)?, power, false, flat)
            }
            (_, Some(UnaryFn::Op(UnaryOp::Reciprocal))) => {
                flat.nodes.push(id);
                self.factors(at(0)?, -power, false, flat)
            }
            _ if root => None,
            _ => {
                flat.parts.push((v, power));
                Some(())
            }
        }
    }

    /// Whether one of two operands is a number, or there is only one.
    fn has_number(&self, node: &Node) -> bool {
        node.inputs.len() < 2 || node.inputs.iter().flatten().any(|&x| self.cx.scalar(x).is_some())
    }

    fn terms(&self, v: ValueId, root: bool, flat: &mut Flat) -> Option<()> {
        if let Some(k) = self.cx.scalar(v) {
            flat.number += k;
            return Some(());
        }
        (flat.parts.len() < MOST).then_some(())?;
        let apart = |n: &Node| root || self.cx.used_once(v) && (flat.deep || self.has_number(n));
        if let Some((id, node)) = self.cx.made_by(v).filter(|(_, n)| apart(n)) {
            let is_sum = node.op.downcast::<Variadic>().is_some_and(|s| s.f == VariadicFn::Sum);
            let less = node.inputs.get(1).copied().flatten().and_then(|b| self.cx.scalar(b));
            if binary(&*node.op) == Some(BinaryFn::Add) || is_sum {
                flat.nodes.push(id);
                return node.inputs.iter().flatten().try_for_each(|&x| self.terms(x, false, flat));
            }
            if let (Some(BinaryFn::Sub), Some(k)) = (binary(&*node.op), less) {
                flat.nodes.push(id);
                flat.number -= k;
                return self.terms(node.inputs.first().copied().flatten()?, false, flat);
            }
        }
        if root {
            return None;
        }
        flat.parts.push((v, 1.0));
        Some(())
    }
}

fn push(nodes: &mut Vec<NodeId>, id: NodeId) {
    if !nodes.contains(&id) {
        nodes.push(id);
    }
}
