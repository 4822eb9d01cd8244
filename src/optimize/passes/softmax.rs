//! Softmax that is written out: `exp(x) / sum(exp(x))`, with the greatest taken off or not, its logarithm, and of that the exponential;
//! over several neighbouring axes as over one.

use super::norms::{found, reduced};
use crate::error::Result;
use crate::ir::{Dim, NodeId, Op, ValueId};
use crate::kernels::normalise::SoftmaxKind;
use crate::kernels::pointwise::UnaryOp;
use crate::kernels::reduce::ReduceKind;
use crate::ops::pointwise::{BinaryFn, UnaryFn, Where};
use crate::ops::shape::Reshape;
use crate::ops::softmax::Softmax;
use crate::optimize::pass::shape_of;
use crate::optimize::pattern::{Factor, Number, P, any, binary, is_op, keeps, maybe_expand, minus, node, sum, unary};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::Tensor;
use std::sync::{Arc, LazyLock};

/// The parts of a softmax become the operator, which never overflows.
pub struct WrittenSoftmax;

fn exp(o: &dyn Op) -> bool {
    is_op(o, UnaryOp::Exp)
}
fn log(o: &dyn Op) -> bool {
    is_op(o, UnaryOp::Log)
}
fn is_greatest(o: &dyn Op) -> bool {
    keeps(o, ReduceKind::Max)
}
/// The greatest, or 0 where that is no finite number: such rows come to NaN either way, of a plus infinity not in its place alone.
fn greatest(x: P) -> P {
    let most = || node(is_greatest, x.clone());
    let is_infinite = || node(|o| matches!(unary(o), Some(UnaryFn::IsInf { .. })), most());
    let is_nan = || node(|o| is_op(o, UnaryOp::IsNan), most());
    let either = |a: P, b: P| P::Node(|o| binary(o) == Some(BinaryFn::Or), vec![a, b]);
    let test = P::Either(vec![either(is_infinite(), is_nan()), either(is_nan(), is_infinite())]);
    let zero = P::Sum(Vec::new(), Number::Is(0.0));
    P::Either(vec![most(), P::Node(|o| o.is::<Where>(), vec![test, zero, most()])])
}
fn total(o: &dyn Op) -> bool {
    keeps(o, ReduceKind::Sum)
}
fn log_total(o: &dyn Op) -> bool {
    keeps(o, ReduceKind::LogSum)
}
fn log_total_exp(o: &dyn Op) -> bool {
    keeps(o, ReduceKind::LogSumExp)
}

static FORMULAS: LazyLock<Vec<(P, SoftmaxKind)>> = LazyLock::new(formulas);

/// The formulas over x, each with what it is.
fn formulas() -> Vec<(P, SoftmaxKind)> {
    let x = || any(0);
    let below = || minus(x(), maybe_expand(greatest(x())));
    let mut all = Vec::new();
    for shifted in [below(), x()] {
        let e = || node(exp, shifted.clone());
        let quotient = vec![Factor::Of(e()), Factor::Inverse(maybe_expand(node(total, e())))];
        all.push((P::Product(quotient, Number::Is(1.0)), SoftmaxKind::Softmax));
        let of =
            P::Either(vec![node(log, node(total, e())), node(log_total, e()), node(log_total_exp, shifted.clone())]);
        // x - (greatest + ln(sum(exp(x - greatest))))
        for log in [minus(shifted, of.clone()), minus(x(), sum([greatest(x()), of], 0.0))] {
            all.push((node(exp, log.clone()), SoftmaxKind::Softmax));
            all.push((log, SoftmaxKind::Log));
        }
    }
    all
}

impl Pass for WrittenSoftmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order().into_iter().rev() {
            let Some(n) = cx.node(id) else { continue };
            let &[Some(out)] = &n.outputs[..] else { continue };
            if exp(&*n.op) || matches!(binary(&*n.op), Some(BinaryFn::Div | BinaryFn::Mul | BinaryFn::Sub)) {
                for (p, kind) in &*FORMULAS {
                    if written_out(cx, id, p, *kind, out)? {
                        break;
                    }
                }
            }
            of_softmax(cx, id, out)?;
        }
        Ok(())
    }
}

fn written_out(cx: &mut PassCtx<'_, '_>, id: NodeId, p: &P, kind: SoftmaxKind, out: ValueId) -> Result<bool> {
    let Some(m) = found(cx, id, p, out) else { return Ok(false) };
    let Some((x, rank)) = m.value(0).and_then(|x| Some((x, cx.dims(x)?.len()))) else { return Ok(false) };
    let axes = reduced(cx, &m, rank).filter(|a| !a.is_empty() && a.windows(2).all(|w| w[0] + 1 == w[1]));
    let Some((first, last)) = axes.and_then(|a| Some((*a.first()?, *a.last()?))) else {
        cx.miss(id, || "the sum and the greatest are not along the same, known axes, side by side".into());
        return Ok(false);
    };
    let softmax = Arc::new(Softmax { kind, axis: first as i64, flatten: false });
    if first == last {
        return cx.substitute(out, softmax, vec![Some(x)]);
    }
    let Some(own) = cx.dims(x).map(<[Dim]>::to_vec) else { return Ok(false) };
    let one = [&own[..first], &[Dim::product(&own[first..=last])], &own[last + 1..]].concat();
    let (Some(there), Some(back)) = (shape_of(one.iter(), &own), shape_of(own.iter(), &one)) else {
        cx.miss(id, || "more than one size is open where several axes are one".into());
        return Ok(false);
    };
    let name = cx.graph().value(out).name.clone();
    let flat = cx.reshape(x, &there)?;
    let made = cx.edit.node(&format!("{name}.flat"), softmax, vec![Some(flat)], 1)?[0];
    let shape = cx.edit.constant(&format!("{name}.shape"), Tensor::from_slice(&[back.len()], &back)?);
    let done = cx.substitute(out, Arc::new(Reshape { allow_zero: false }), vec![Some(made), Some(shape)])?;
    cx.prune(vec![Some(made)]);
    Ok(done)
}

/// The logarithm of a softmax, or the exponential of that.
fn of_softmax(cx: &mut PassCtx<'_, '_>, id: NodeId, out: ValueId) -> Result<()> {
    let Some((x, f)) = cx.node(id).and_then(|n| Some((n.inputs.first().copied()??, unary(&*n.op)?))) else {
        return Ok(());
    };
    let (from, kind) = match f {
        UnaryFn::Op(UnaryOp::Log) => (SoftmaxKind::Softmax, SoftmaxKind::Log),
        UnaryFn::Op(UnaryOp::Exp) => (SoftmaxKind::Log, SoftmaxKind::Softmax),
        _ => return Ok(()),
    };
    let Some((inner, s)) = cx.maker::<Softmax>(x).filter(|(_, s)| s.kind == from) else { return Ok(()) };
    if !cx.used_once(x) {
        cx.miss(id, || "the softmax has other users".into());
        return Ok(());
    }
    let (op, x) = (Arc::new(Softmax { kind, ..s.clone() }), cx.graph().node(inner).inputs.clone());
    cx.substitute(out, op, x).map(|_| ())
}
