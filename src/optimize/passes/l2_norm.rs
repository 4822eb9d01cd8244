//! Rows divided by their own length: torch's normalize, TensorFlow's l2_normalize, embeddings of unit length.

use super::norms::{filled, found, reduced};
use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::kernels::reduce::ReduceKind;
use crate::ops::norm::{LayerNormalization, LpNormalization};
use crate::ops::pointwise::BinaryFn;
use crate::optimize::pattern::{Factor, Match, Number, P, any, binary, is_op, keeps, maybe_expand, node, product};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::sync::{Arc, LazyLock};

/// `x / max(norm(x), floor)` and `x / sqrt(sum(x^2) + epsilon)` become one operator.
pub struct L2Norm;

/// The length of x under a pattern, and what becomes of it.
struct Formula {
    pattern: P,
    made: Made,
}

#[derive(Clone, Copy)]
enum Made {
    /// Divided by the norm, or the number kept where that is greater: p.
    Floor(u32),
    /// The same with the squares: the number's root counts.
    FloorOfSquares,
    /// Divided by the root of the squares and the number kept.
    Root,
}

static FORMULAS: LazyLock<Vec<Formula>> = LazyLock::new(formulas);

fn formulas() -> Vec<Formula> {
    let x = || any(0);
    let at_least = |p: P| P::AtLeast(0, Box::new(p));
    let squares = || {
        let squared = product(1.0, [x(), x()]);
        P::Either(vec![node(|o| keeps(o, ReduceKind::SumSquare), x()), node(|o| keeps(o, ReduceKind::Sum), squared)])
    };
    let l1 = || node(|o| keeps(o, ReduceKind::L1), x());
    let l2 = || {
        let root = node(|o| is_op(o, UnaryOp::Sqrt), squares());
        P::Either(vec![node(|o| keeps(o, ReduceKind::L2), x()), root])
    };
    let by = |f: Factor| P::Product(vec![Factor::Of(x()), f], Number::Is(1.0));
    vec![
        Formula { pattern: by(Factor::Inverse(maybe_expand(at_least(l2())))), made: Made::Floor(2) },
        Formula { pattern: by(Factor::Inverse(maybe_expand(at_least(l1())))), made: Made::Floor(1) },
        Formula { pattern: by(Factor::InverseRoot(at_least(squares()))), made: Made::FloorOfSquares },
        Formula {
            pattern: by(Factor::InverseRoot(P::Sum(vec![Factor::Of(squares())], Number::Keep(0)))),
            made: Made::Root,
        },
        Formula { pattern: by(Factor::Inverse(maybe_expand(l2()))), made: Made::Root },
    ]
}

impl Pass for L2Norm {
    fn name(&self) -> &'static str {
        "l2_norm"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order().into_iter().rev() {
            let Some(n) = cx.node(id).filter(|n| matches!(binary(&*n.op), Some(BinaryFn::Div | BinaryFn::Mul))) else {
                continue;
            };
            let &[Some(out)] = &n.outputs[..] else { continue };
            for f in &*FORMULAS {
                if let Some(m) = found(cx, id, &f.pattern, out)
                    && make(cx, id, &m, f.made, out)?
                {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn make(cx: &mut PassCtx<'_, '_>, id: NodeId, m: &Match, made: Made, out: ValueId) -> Result<bool> {
    let Some((x, dims)) = m.value(0).and_then(|x| Some((x, cx.dims(x)?.to_vec()))) else { return Ok(false) };
    let axis = match reduced(cx, m, dims.len()).as_deref() {
        Some(&[axis]) => axis,
        _ => {
            cx.miss(id, || "the norm is not along one known axis".into());
            return Ok(false);
        }
    };
    let number = m.number(0).unwrap_or(0.0);
    if number < 0.0 {
        cx.miss(id, || format!("the norm is bounded by {number}"));
        return Ok(false);
    }
    let floor = match made {
        Made::Floor(_) => number,
        Made::FloorOfSquares => number.sqrt(),
        // A mean of squares that is scaled.
        Made::Root => {
            let size = dims.get(axis).and_then(Dim::size).filter(|&n| n > 0 && axis + 1 == dims.len());
            let Some((n, dtype)) = size.zip(cx.dtype(x)) else {
                cx.miss(id, || "the axis is not the last, or its size is not known".into());
                return Ok(false);
            };
            let name = format!("{}.scale", cx.graph().node(id).name);
            let Some(scale) = filled(cx, &name, dtype, &[n], 1.0 / (n as f64).sqrt())? else {
                return Ok(false);
            };
            let (epsilon, exact) = ((number / n as f64) as f32, number / n as f64);
            if dtype == DType::F64 && f64::from(epsilon) != exact {
                cx.miss(id, || format!("the operator keeps {exact} as a float32"));
                return Ok(false);
            }
            let op = LayerNormalization { rms: true, axis: -1, epsilon, stash: DType::F32 };
            return cx.substitute(out, Arc::new(op), vec![Some(x), Some(scale)]);
        }
    };
    if floor == 0.0 {
        cx.miss(id, || "a norm of 0 gives NaN".into());
        return Ok(false);
    }
    let p = if let Made::Floor(p) = made { p } else { 2 };
    cx.substitute(out, Arc::new(LpNormalization { axis: axis as i64, p, floor }), vec![Some(x)])
}
