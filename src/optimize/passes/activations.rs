//! Activations that exporters write out: GELU, SiLU, HardSwish, Mish.

use crate::error::Result;
use crate::ir::Op;
use crate::kernels::pointwise::UnaryOp;
use crate::ops::pointwise::{BinaryFn, Clip, Unary, UnaryFn};
use crate::optimize::pattern::{Factor, Match, Number, P, any, binary, closed, find, is_op, node, product, sum, unary};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};
use std::sync::{Arc, LazyLock};

/// Each pattern becomes one operator, which kernels can then apply to their results.
pub struct Activations;

type Made = fn(&Match) -> Option<UnaryFn>;

fn erf(o: &dyn Op) -> bool {
    is_op(o, UnaryOp::Erf)
}
fn tanh(o: &dyn Op) -> bool {
    is_op(o, UnaryOp::Tanh)
}
fn sigmoid(o: &dyn Op) -> bool {
    is_op(o, UnaryOp::Sigmoid)
}
fn exp(o: &dyn Op) -> bool {
    is_op(o, UnaryOp::Exp)
}
fn hard_sigmoid(o: &dyn Op) -> bool {
    matches!(unary(o), Some(UnaryFn::HardSigmoid { alpha, beta }) if (alpha - 1.0 / 6.0).abs() < 1e-5 && beta == 0.5)
}

static FORMULAS: LazyLock<Vec<(P, Made)>> = LazyLock::new(formulas);

/// The formulas over `x`, each with what it makes.
fn formulas() -> Vec<(P, Made)> {
    let x = || any(0);
    let steep = FRAC_2_PI.sqrt();
    let cubic = P::Either(vec![
        product(steep, [sum([x(), product(0.044715, [x(), x(), x()])], 0.0)]),
        product(steep, [x(), sum([product(0.044715, [x(), x()])], 1.0)]),
    ]);
    let scaled = P::Product(vec![Factor::Of(x())], Number::Keep(0));
    let softplus = P::Either(vec![
        node(|o| is_op(o, UnaryOp::Softplus), x()),
        node(|o| is_op(o, UnaryOp::Log), sum([node(exp, x())], 1.0)),
        node(|o| is_op(o, UnaryOp::Log1p), node(exp, x())),
    ]);
    let gated = Factor::Inverse(sum([node(exp, product(-1.0, [x()]))], 1.0));
    vec![
        // x / 2 * (1 + erf(x / sqrt(2)))
        (product(0.5, [x(), sum([node(erf, product(FRAC_1_SQRT_2, [x()]))], 1.0)]), |_| {
            Some(UnaryFn::Gelu { tanh: false })
        }),
        // x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
        (product(0.5, [x(), sum([node(tanh, cubic)], 1.0)]), |_| Some(UnaryFn::Gelu { tanh: true })),
        // x * sigmoid(x), x / (1 + e^-x)
        (product(1.0, [x(), node(sigmoid, x())]), |_| Some(UnaryFn::Swish { alpha: 1.0 })),
        (P::Product(vec![Factor::Of(x()), gated.clone()], Number::Is(1.0)), |_| Some(UnaryFn::Swish { alpha: 1.0 })),
        // x * sigmoid(alpha * x)
        (product(1.0, [x(), node(sigmoid, scaled.clone())]), |m| Some(UnaryFn::Swish { alpha: m.number(0)? as f32 })),
        // x * clip(x / 6 + 1 / 2, 0, 1)
        (product(1.0, [x(), node(hard_sigmoid, x())]), |_| Some(UnaryFn::HardSwish)),
        (product(1.0 / 6.0, [x(), P::Clip(0.0, 6.0, Box::new(sum([x()], 3.0)))]), |_| Some(UnaryFn::HardSwish)),
        (product(1.0, [x(), P::Clip(0.0, 1.0, Box::new(sum([product(1.0 / 6.0, [x()])], 0.5)))]), |_| {
            Some(UnaryFn::HardSwish)
        }),
        // x * tanh(ln(1 + e^x))
        (product(1.0, [x(), node(tanh, softplus.clone())]), |_| Some(UnaryFn::Mish)),
        // clip(alpha * x + beta, 0, 1), clip(x + 3, 0, 6) / 6
        (P::Clip(0.0, 1.0, Box::new(P::Sum(vec![Factor::Of(scaled)], Number::Keep(1)))), |m| {
            Some(UnaryFn::HardSigmoid { alpha: m.number(0)? as f32, beta: m.number(1)? as f32 })
        }),
        (product(1.0 / 6.0, [P::Clip(0.0, 6.0, Box::new(sum([x()], 3.0)))]), |_| {
            Some(UnaryFn::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 })
        }),
        // 1 / (1 + e^-x)
        (P::Product(vec![gated], Number::Is(1.0)), |_| Some(UnaryFn::Op(UnaryOp::Sigmoid))),
        // ln(1 + e^x)
        (softplus, |_| Some(UnaryFn::Op(UnaryOp::Softplus))),
    ]
}

/// Whether an operator keeps the formula's numbers as they are, beside numbers of f64.
fn exact(f: UnaryFn, m: &Match) -> bool {
    match f {
        UnaryFn::HardSigmoid { .. } => false,
        UnaryFn::Swish { .. } => m.number(0).is_none_or(|k| f64::from(k as f32) == k),
        _ => true,
    }
}

/// What the outermost operator of a formula may be.
fn is_root(o: &dyn Op) -> bool {
    let f = [UnaryOp::Log, UnaryOp::Log1p, UnaryOp::Reciprocal];
    matches!(binary(o), Some(BinaryFn::Mul | BinaryFn::Div | BinaryFn::Add | BinaryFn::Min | BinaryFn::Max))
        || matches!(unary(o), Some(UnaryFn::Clip { .. }))
        || f.into_iter().any(|f| is_op(o, f))
        || o.is::<Clip>()
}

impl Pass for Activations {
    fn name(&self) -> &'static str {
        "activations"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order().into_iter().rev() {
            let root = cx.node(id).filter(|n| is_root(&*n.op));
            let Some(&[Some(out)]) = root.map(|n| &n.outputs[..]) else { continue };
            for (p, make) in &*FORMULAS {
                let found = match find(cx, p, out) {
                    Ok(m) => closed(cx, &m, out).map(|()| m).map_err(Some),
                    Err(near) => Err(near),
                };
                match found {
                    Ok(m) => {
                        let (Some(x), Some(f)) = (m.value(0), make(&m)) else { continue };
                        if cx.dtype(x) == Some(DType::F64) && !exact(f, &m) {
                            cx.miss(id, || "its numbers are rounded to float32 in the operator".into());
                            continue;
                        }
                        if cx.substitute(out, Arc::new(Unary { f }), vec![Some(x)])? {
                            break;
                        }
                    }
                    Err(Some(why)) => cx.miss(id, || why),
                    Err(None) => {}
                }
            }
        }
        Ok(())
    }
}
