//! `ai.onnx.preview.training`: steps of optimisers (Adagrad, Adam, Momentum), and Gradient.

mod gradient;

use super::Family;
use super::case::{Case, CaseInput};
use super::types::need_elem;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::scalar::{load, store};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "training", ops: OPS, cpu, cases, ..Family::EMPTY };

const TRAINING: &str = "ai.onnx.preview.training";

const OPS: &[OpDef] = &[
    OpDef { domain: TRAINING, name: "Adagrad", versions: &[1], parse: parse_adagrad },
    OpDef { domain: TRAINING, name: "Adam", versions: &[1], parse: parse_adam },
    OpDef { domain: TRAINING, name: "Gradient", versions: &[1], parse: gradient::parse },
    OpDef { domain: TRAINING, name: "Momentum", versions: &[1], parse: parse_momentum },
];

/// One step of an optimiser on any number of tensors. Inputs: learning rate, number of steps done, then all tensors, all
/// gradients, and all states of each kind. Outputs: all tensors, all states of each kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimiser {
    /// What it does.
    pub rule: Rule,
    /// How many tensors.
    pub tensors: usize,
    /// The weight of the tensor's own square in what is made small.
    pub norm: f64,
}

/// How an element moves.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Rule {
    Adagrad { decay: f64, epsilon: f64 },
    Adam { alpha: f64, beta: f64, epsilon: f64, norm_after: f64 },
    Momentum { alpha: f64, beta: f64, nesterov: bool },
}

impl Rule {
    /// Kinds of state.
    fn states(self) -> usize {
        if matches!(self, Rule::Adam { .. }) { 2 } else { 1 }
    }
}

fn optimiser(cx: &mut ParseCtx<'_>, rule: Rule) -> Result<Arc<dyn Op>> {
    let (n, each) = (cx.inputs.len(), 2 + rule.states());
    ensure!(n > 2 && (n - 2).is_multiple_of(each), InvalidModel, "{n} inputs are not two and {each} for each tensor");
    let norm = f64::from(cx.float_or("norm_coefficient", 0.0)?);
    Ok(Arc::new(Optimiser { rule, tensors: (n - 2) / each, norm }))
}

fn parse_adagrad(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let (decay, epsilon) = (cx.float_or("decay_factor", 0.0)?.into(), cx.float_or("epsilon", 1e-6)?.into());
    optimiser(cx, Rule::Adagrad { decay, epsilon })
}

fn parse_adam(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let (alpha, beta) = (cx.float_or("alpha", 0.9)?.into(), cx.float_or("beta", 0.999)?.into());
    let (epsilon, norm_after) = (cx.float_or("epsilon", 1e-6)?, cx.float_or("norm_coefficient_post", 0.0)?);
    optimiser(cx, Rule::Adam { alpha, beta, epsilon: epsilon.into(), norm_after: norm_after.into() })
}

fn parse_momentum(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let nesterov = match cx.string_or("mode", "")?.as_str() {
        "standard" => false,
        "nesterov" => true,
        x => bail!(InvalidModel, "mode '{x}'"),
    };
    let (alpha, beta) = (cx.float("alpha")?.into(), cx.float("beta")?.into());
    optimiser(cx, Rule::Momentum { alpha, beta, nesterov })
}

impl Op for Optimiser {
    fn name(&self) -> &'static str {
        match self.rule {
            Rule::Adagrad { .. } => "Adagrad",
            Rule::Adam { .. } => "Adam",
            Rule::Momentum { .. } => "Momentum",
        }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let n = self.tensors;
        cx.expect_dtype(1, &[DType::I64])?;
        for i in 0..n {
            for state in 1..2 + self.rule.states() {
                let (a, b) = (2 + i, 2 + state * n + i);
                cx.expect_same_dtype(a, b)?;
                if let (Some(x), Some(y)) = (cx.fact(a).shape(), cx.fact(b).shape()) {
                    ensure!(x == y, InvalidModel, "inputs {a} and {b} have shapes {x:?} and {y:?}");
                }
            }
        }
        let tensors = (0..n).map(|i| cx.like(2 + i, cx.dtype(2 + i)?));
        let states = (0..n * self.rule.states()).map(|i| cx.like(2 + 2 * n + i, cx.dtype(2 + 2 * n + i)?));
        tensors.chain(states).collect()
    }
}

impl Optimiser {
    /// The new element and its states, from the old ones and the gradient.
    fn element(&self, rate: f64, steps: f64, x: f64, g: f64, states: [f64; 2]) -> (f64, [f64; 2]) {
        let g = self.norm * x + g;
        match self.rule {
            Rule::Adagrad { decay, epsilon } => {
                let h = states[0] + g * g;
                (x - rate / (1.0 + steps * decay) * g / (h.sqrt() + epsilon), [h, 0.0])
            }
            Rule::Adam { alpha, beta, epsilon, norm_after } => {
                let v = alpha * states[0] + (1.0 - alpha) * g;
                let h = beta * states[1] + (1.0 - beta) * g * g;
                let rate =
                    if steps > 0.0 { rate * (1.0 - beta.powf(steps)).sqrt() / (1.0 - alpha.powf(steps)) } else { rate };
                ((1.0 - norm_after) * (x - rate * v / (h.sqrt() + epsilon)), [v, h])
            }
            Rule::Momentum { alpha, beta, nesterov } => {
                let v = alpha * states[0] + if steps > 0.0 { beta } else { 1.0 } * g;
                (x - rate * if nesterov { g + alpha * v } else { v }, [v, 0.0])
            }
        }
    }
}

fn bind(op: &Optimiser, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (op, kinds) = (op.clone(), op.rule.states());
    let n = op.tensors;
    ensure!(cx.input(0)?.len() == 1 && cx.input(1)?.len() == 1, InvalidModel, "rate and count must be numbers");
    let rate_elem = need_elem(cx.input(0)?.dtype, op.name())?;
    let mut parts = Vec::with_capacity(n);
    let mut tasks = 0;
    for i in 0..n {
        let x = cx.input(2 + i)?;
        let (count, per) = split(product(&x.shape)?, 8192);
        parts.push((x.len(), per, tasks, need_elem(x.dtype, op.name())?));
        tasks += count;
    }
    let given: Vec<bool> = (0..n * (1 + kinds)).map(|i| cx.has_output(i)).collect();
    Ok(FnStep::boxed("optimiser", tasks, 0, move |args, task, _| {
        let i = parts.partition_point(|p| p.2 <= task) - 1;
        let (len, per, first, elem) = parts[i];
        // SAFETY: the rate and the count are one number each; tensor i, its gradient, its states and their results have len
        // elements of one type, by inference.
        unsafe {
            let (rate, steps) = (load(rate_elem, args.input(0), 0), *args.input::<i64>(1) as f64);
            let from = (task - first) * per;
            for at in from..len.min(from + per) {
                let read = |kind: usize| load(elem, args.input(2 + kind * n + i), at);
                let states = [read(2), if kinds == 2 { read(3) } else { 0.0 }];
                let (x, states) = op.element(rate, steps, read(0), read(1), states);
                for (kind, v) in [x, states[0], states[1]].into_iter().enumerate().take(1 + kinds) {
                    if given[kind * n + i] {
                        store(elem, args.output(kind * n + i), at, v);
                    }
                }
            }
        }
        Ok(())
    }))
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Optimiser>(bind);
    gradient::cpu(b);
}

fn cases() -> Vec<Case> {
    let x = || CaseInput::Random(DType::F32, vec![3, 5], 0.1, 1.0);
    let number = |t: Result<Tensor>| t.map_or(CaseInput::Absent, CaseInput::Given);
    let case = |name, op, n: usize, outputs: usize| {
        let mut inputs = vec![number(Tensor::scalar(0.1f32)), number(Tensor::scalar(2i64))];
        inputs.extend((0..n).map(|_| x()));
        Case { domain: TRAINING, outputs: vec![true; outputs], ..Case::new(op, 1, name, inputs) }
    };
    let momentum = |c: Case, mode: &str| {
        c.attr("mode", Attr::String(mode.as_bytes().to_vec()))
            .attr("alpha", Attr::Float(0.9))
            .attr("beta", Attr::Float(0.8))
    };
    vec![
        case("two", "Adagrad", 6, 4).attr("decay_factor", Attr::Float(0.1)),
        case("one", "Adam", 4, 3).attr("norm_coefficient_post", Attr::Float(0.1)),
        momentum(case("standard", "Momentum", 3, 2), "standard"),
        momentum(case("nesterov", "Momentum", 3, 2), "nesterov"),
    ]
}
