//! Losses over classes: NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss.

use super::Family;
use super::case::{Case, CaseInput};
use super::conv::expect_dim;
use super::steps::Phases;
use super::types::need_elem;
use super::widen::widened;
use crate::backend::Step;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::elem::Number;
use crate::kernels::normalise::{Softmax, SoftmaxKind};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "losses", ops: OPS, cpu, cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "NegativeLogLikelihoodLoss", versions: &[12, 13, 22], parse },
    OpDef { domain: "", name: "SoftmaxCrossEntropyLoss", versions: &[12, 13], parse },
];

/// What becomes of the losses of all places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// They are the result.
    None,
    /// Their sum.
    Sum,
    /// Their sum over the sum of their weights.
    Mean,
}

/// `-weight[t] * x[n, t, d...]` for the class `t = target[n, d...]`, where x is the input or its log-softmax over axis 1.
/// Inputs: scores `[N, C, D...]`, targets `[N, D...]`, optionally weights `[C]`. A second output is the log-softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassLoss {
    /// The log-softmax is taken first.
    pub softmax: bool,
    /// What becomes of the losses.
    pub reduction: Reduction,
    /// Places of this target have neither loss nor weight.
    pub ignore: Option<i64>,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    let reduction = match cx.string_or("reduction", "mean")?.as_str() {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "mean" => Reduction::Mean,
        r => bail!(InvalidModel, "reduction is '{r}'"),
    };
    let softmax = cx.op_type == "SoftmaxCrossEntropyLoss";
    Ok(Arc::new(ClassLoss { softmax, reduction, ignore: cx.int_opt("ignore_index")? }))
}

impl Op for ClassLoss {
    fn name(&self) -> &'static str {
        if self.softmax { "SoftmaxCrossEntropyLoss" } else { "NegativeLogLikelihoodLoss" }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        cx.expect_dtype(1, &[DType::I32, DType::I64])?;
        let (x, target) = (cx.tensor(0)?, cx.tensor(1)?);
        if let Some(d) = &x.dims {
            ensure!(d.len() >= 2, InvalidModel, "scores need an axis of classes, they are {x}");
        }
        if let (Some(x), Some(t)) = (&x.dims, &target.dims) {
            ensure!(t.len() + 1 == x.len(), InvalidModel, "targets {target} for scores of shape {x:?}");
            expect_dim("scores and targets differ", &x[0], &t[0])?;
            for (a, b) in x[2..].iter().zip(&t[1..]) {
                expect_dim("scores and targets differ", a, b)?;
            }
        }
        if let Some(w) = cx.opt_tensor(2)? {
            ensure!(w.dtype == x.dtype, InvalidModel, "weights are {}, scores {}", w.dtype, x.dtype);
            if let Some(d) = &w.dims {
                ensure!(d.len() == 1, InvalidModel, "weights of rank {}", d.len());
                let classes = x.dims.as_ref().map_or(Dim::Unknown, |d| d[1].clone());
                expect_dim("a weight is needed for each class", &d[0], &classes)?;
            }
        }
        let loss = match (self.reduction, &target.dims, &x.dims) {
            (Reduction::None, Some(t), _) => Fact::tensor(x.dtype, t.clone()),
            (Reduction::None, None, Some(x_dims)) => Fact::tensor(x.dtype, [&x_dims[..1], &x_dims[2..]].concat()),
            (Reduction::None, None, None) => Fact::any_tensor(x.dtype),
            _ => Fact::tensor(x.dtype, Vec::new()),
        };
        Ok(vec![loss, cx.like(0, x.dtype)?])
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<ClassLoss>(bind);
}

fn bind(op: &ClassLoss, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => plan::<f32>(op, cx),
        DType::F64 => plan::<f64>(op, cx),
        d => bail!(Unsupported, "{} of {d}", op.name()),
    }
}

/// Places a task.
const GRAIN: usize = 16 * 1024;

fn plan<T: Number>(op: &ClassLoss, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, target) = (cx.input(0)?, cx.input(1)?);
    ensure!(x.shape.len() >= 2, InvalidModel, "scores need an axis of classes");
    let (items, classes) = (x.shape[0], x.shape[1]);
    let places = product(&x.shape[2..])?;
    let count = product(&[items, places])?;
    let (tasks, per) = split(count, GRAIN);
    // The workspace: the log-softmax unless it is an output, then the sums of each task.
    let given = cx.has_output(1);
    let logs = match op.softmax && !given {
        true => round_up(product(&[count, classes, size_of::<T>()])?, ALIGN),
        false => 0,
    };
    let Some(workspace) = logs.checked_add(tasks * 16) else { bail!(OutOfMemory, "{count} losses") };
    let mut step = Phases::new("class_loss", workspace);
    if op.softmax {
        let elem = need_elem(x.dtype, op.name())?;
        let kernel = Softmax::new(cx.isa, SoftmaxKind::Log, elem, items, classes, places)?;
        step = step.then(kernel.tasks(), kernel.scratch_bytes(), move |args, task, scratch| {
            let to = if given { args.output::<u8>(1) } else { args.workspace::<u8>() };
            // SAFETY: the kernel was made for the shape of input and target (Step::run).
            unsafe { kernel.run(task, args.input(0), to, scratch) };
            Ok(())
        });
    }
    let (softmax, reduction, ignore) = (op.softmax, op.reduction, op.ignore);
    let (wide, weighted, alone) = (target.dtype == DType::I64, cx.opt_input(2).is_some(), cx.has_output(0));
    let step = step.then(if alone { tasks } else { 0 }, 0, move |args, task, _| {
        let x = match (softmax, given) {
            (false, _) => args.input::<T>(0),
            (true, true) => args.output::<T>(1).cast_const(),
            (true, false) => args.workspace::<T>().cast_const(),
        };
        let (mut sum, mut weights) = (0.0, 0.0);
        for i in (task * per).min(count)..count.min((task + 1) * per) {
            // SAFETY: `i` is below the number of targets, of this type.
            let t =
                unsafe { if wide { *args.input::<i64>(1).add(i) } else { i64::from(*args.input::<i32>(1).add(i)) } };
            let (loss, weight) = if Some(t) == ignore {
                (T::ZERO, 0.0)
            } else {
                let class = usize::try_from(t).unwrap_or(usize::MAX);
                ensure!(class < classes, Run, "target {t} at place {i}: there are {classes} classes");
                // SAFETY: item, class and place lie within the scores; there is a weight for each class.
                unsafe {
                    let loss = (*x.add((i / places * classes + class) * places + i % places)).neg();
                    if weighted {
                        let w = *args.input::<T>(2).add(class);
                        (loss.mul(w), w.to_f64())
                    } else {
                        (loss, 1.0)
                    }
                }
            };
            match reduction {
                // SAFETY: there are as many losses as targets.
                Reduction::None => unsafe { *args.output::<T>(0).add(i) = loss },
                _ => (sum, weights) = (sum + loss.to_f64(), weights + weight),
            }
        }
        if reduction != Reduction::None {
            // SAFETY: the workspace has two sums for each task after the logarithms.
            unsafe { args.workspace::<u8>().add(logs).cast::<[f64; 2]>().add(task).write([sum, weights]) };
        }
        Ok(())
    });
    if reduction == Reduction::None || !alone {
        return Ok(step.boxed());
    }
    let total = move |args: &crate::backend::StepArgs<'_>, _: usize, _: *mut u8| {
        // SAFETY: the phase before wrote the sums of each task; the output is a scalar.
        unsafe {
            let sums = std::slice::from_raw_parts(args.workspace::<u8>().add(logs).cast::<[f64; 2]>(), tasks);
            let [sum, weights] = sums.iter().fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
            *args.output::<T>(0) = T::from_f64(if reduction == Reduction::Mean { sum / weights } else { sum });
        }
        Ok(())
    };
    Ok(step.then(1, 0, total).boxed())
}

fn cases() -> Vec<Case> {
    let scores = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -3.0, 3.0);
    let targets = |shape: &[usize], classes: f64| CaseInput::Random(DType::I64, shape.to_vec(), 0.0, classes - 1.0);
    let (nll, sce) = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss");
    let mut v = Vec::new();
    for op in [nll, sce] {
        for reduction in ["none", "sum", "mean"] {
            let x = |d| vec![scores(d, &[3, 5, 7]), targets(&[3, 7], 5.0), CaseInput::Random(d, vec![5], 0.5, 2.0)];
            for d in [DType::F32, DType::F64, DType::F16, DType::BF16] {
                // A sum is rounded once to the narrow type, which a step of its own may round to the other side.
                let rtol = if matches!(d, DType::F32 | DType::F64) { 1e-5 } else { 1e-2 };
                let case = Case::new(op, 13, "weighted", x(d)).attr("reduction", Attr::String(reduction.into()));
                v.push(Case { rtol, ..case });
            }
            let plain = vec![scores(DType::F32, &[4, 3]), targets(&[4], 3.0)];
            v.push(Case::new(op, 13, "plain", plain).attr("reduction", Attr::String(reduction.into())));
        }
        let empty = vec![scores(DType::F32, &[0, 4, 2]), targets(&[0, 2], 4.0)];
        v.push(Case::new(op, 13, "nothing", empty).attr("reduction", Attr::String("sum".into())));
    }
    let mut both = Case::new(sce, 13, "log_prob", vec![scores(DType::F32, &[2, 6, 3, 2]), targets(&[2, 3, 2], 6.0)]);
    both.outputs = vec![true, true];
    v.push(both);
    let given = |t: Result<Tensor>| t.map_or(CaseInput::Absent, CaseInput::Given);
    let x = given(Tensor::from_slice(&[3, 2], &[-1.0f32, -2.0, -3.0, -4.0, -5.0, -6.0]));
    let t = given(Tensor::from_slice(&[3], &[1i32, -7, 0]));
    if let Ok(want) = Tensor::scalar(3.5f32) {
        v.push(Case::new(nll, 22, "ignored", vec![x, t]).attr("ignore_index", Attr::Int(-7)).expect(want));
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::{CpuBackend, evaluate};
    use crate::base::parallel::Serial;
    use crate::kernels::isa::Isa;

    #[test]
    fn a_target_without_a_class_is_an_error() {
        let cpu = CpuBackend::new(Isa::SCALAR, crate::ops::cpu_bindings());
        let op = ClassLoss { softmax: false, reduction: Reduction::Sum, ignore: None };
        for bad in [2i64, -1, i64::MAX] {
            let x = Tensor::from_slice(&[1, 2], &[0.0f32, 0.0]).unwrap();
            let t = Tensor::from_slice(&[1], &[bad]).unwrap();
            let got = evaluate(&cpu, &Serial, "x", &op, &[Some(x), Some(t)], &[Fact::sized(DType::F32, &[])]);
            assert!(got.unwrap_err().to_string().contains("classes"));
        }
    }
}
