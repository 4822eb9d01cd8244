//! Softmax that is written out: `exp(x) / sum(exp(x))`, with the greatest taken off or not, and its logarithm.

use super::norms::{found, reduced};
use crate::error::Result;
use crate::ir::{NodeId, Op, ValueId};
use crate::kernels::normalise::SoftmaxKind;
use crate::kernels::pointwise::UnaryOp;
use crate::kernels::reduce::ReduceKind;
use crate::ops::pointwise::BinaryFn;
use crate::ops::softmax::Softmax;
use crate::optimize::pattern::{Factor, Number, P, any, binary, is_op, keeps, maybe_expand, minus, node, sum};
use crate::optimize::{Pass, PassCtx};
use std::sync::{Arc, LazyLock};

/// The parts of a softmax become the operator, which never overflows.
pub struct WrittenSoftmax;

fn exp(o: &dyn Op) -> bool {
    is_op(o, UnaryOp::Exp)
}
fn log(o: &dyn Op) -> bool {
    is_op(o, UnaryOp::Log)
}
fn greatest(o: &dyn Op) -> bool {
    keeps(o, ReduceKind::Max)
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
    let below = || minus(x(), maybe_expand(node(greatest, x())));
    let mut all = Vec::new();
    for shifted in [below(), x()] {
        let e = || node(exp, shifted.clone());
        let quotient = vec![Factor::Of(e()), Factor::Inverse(maybe_expand(node(total, e())))];
        all.push((P::Product(quotient, Number::Is(1.0)), SoftmaxKind::Softmax));
        let of =
            P::Either(vec![node(log, node(total, e())), node(log_total, e()), node(log_total_exp, shifted.clone())]);
        all.push((minus(shifted.clone(), of.clone()), SoftmaxKind::Log));
        // x - (greatest + ln(sum(exp(x - greatest))))
        all.push((minus(x(), sum([node(greatest, x()), of], 0.0)), SoftmaxKind::Log));
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
            if log(&*n.op) {
                logarithm(cx, id, out)?;
            } else if matches!(binary(&*n.op), Some(BinaryFn::Div | BinaryFn::Mul | BinaryFn::Sub)) {
                for (p, kind) in &*FORMULAS {
                    if written_out(cx, id, p, *kind, out)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

fn written_out(cx: &mut PassCtx<'_, '_>, id: NodeId, p: &P, kind: SoftmaxKind, out: ValueId) -> Result<bool> {
    let Some(m) = found(cx, id, p, out) else { return Ok(false) };
    let Some((x, rank)) = m.value(0).and_then(|x| Some((x, cx.dims(x)?.len()))) else { return Ok(false) };
    let axes = reduced(cx, &m, rank);
    let axis = match axes.as_deref() {
        Some(&[axis]) => axis as i64,
        _ => {
            cx.miss(id, || "the sum and the greatest are not along the same, known axis".into());
            return Ok(false);
        }
    };
    cx.substitute(out, Arc::new(Softmax { kind, axis, flatten: false }), vec![Some(x)])
}

/// The logarithm of a softmax.
fn logarithm(cx: &mut PassCtx<'_, '_>, id: NodeId, out: ValueId) -> Result<bool> {
    let is_softmax = |o: &dyn Op| o.downcast::<Softmax>().is_some_and(|s| s.kind == SoftmaxKind::Softmax);
    let Some(m) = found(cx, id, &node(log, node(is_softmax, any(0))), out) else { return Ok(false) };
    let inner = m.nodes.iter().find_map(|&n| cx.op::<Softmax>(n)).cloned();
    let (Some(x), Some(inner)) = (m.value(0), inner) else { return Ok(false) };
    cx.substitute(out, Arc::new(Softmax { kind: SoftmaxKind::Log, ..inner }), vec![Some(x)])
}
