//! Determinants.

use super::Family;
use super::case::{Case, CaseInput};
use super::types::need_elem;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::scalar::{load, store};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "determinants", ops: OPS, cpu, cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[OpDef { domain: "", name: "Det", versions: &[11, 22], parse }];

/// The determinants of a stack of square matrices (ONNX Det).
#[derive(Clone, Debug, PartialEq)]
pub struct Det;

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Det))
}

impl Op for Det {
    fn name(&self) -> &'static str {
        "Det"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        let x = cx.tensor(0)?;
        let Some(dims) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let Some((outer, [rows, columns])) = dims.split_last_chunk::<2>() else {
            bail!(InvalidModel, "a matrix has two axes, it has {}", dims.len())
        };
        if let (Some(r), Some(c)) = (rows.known(), columns.known()) {
            ensure!(r == c, InvalidModel, "the determinant of a matrix of {r} rows and {c} columns");
        }
        Ok(vec![Fact::tensor(x.dtype, outer.to_vec())])
    }
}

/// By elimination, with the greatest of a column as its pivot.
fn determinant(a: &mut [f64], n: usize) -> f64 {
    let mut det = 1.0;
    for k in 0..n {
        let best = (k + 1..n).fold(k, |b, i| if a[i * n + k].abs() > a[b * n + k].abs() { i } else { b });
        let pivot = a[best * n + k];
        if pivot == 0.0 {
            return 0.0;
        }
        if best != k {
            (k..n).for_each(|j| a.swap(k * n + j, best * n + j));
            det = -det;
        }
        det *= pivot;
        let (upper, lower) = a.split_at_mut((k + 1) * n);
        let row = &upper[k * n + k + 1..];
        for line in lower.chunks_exact_mut(n) {
            let by = line[k] / pivot;
            line[k + 1..].iter_mut().zip(row).for_each(|(x, r)| *x -= by * r);
        }
    }
    det
}

fn bind(op: &Det, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let elem = need_elem(x.dtype, op.name())?;
    let (n, count) = (x.shape[x.shape.len() - 1], cx.output(0)?.len());
    let scratch = product(&[n, n, 8])?;
    let (tasks, per) = split(count, 100_000usize.div_ceil(n.saturating_mul(n).saturating_mul(n).max(1)));
    Ok(FnStep::boxed("det", tasks, scratch, move |args, task, scratch| {
        for m in task * per..count.min((task + 1) * per) {
            // SAFETY: scratch for n * n numbers, all of which are written before they are read; matrix m of the input,
            // element m of the output.
            unsafe {
                let a = scratch.cast::<f64>();
                (0..n * n).for_each(|i| *a.add(i) = load(elem, args.input(0), m * n * n + i));
                let det = determinant(std::slice::from_raw_parts_mut(a, n * n), n);
                store(elem, args.output(0), m, det);
            }
        }
        Ok(())
    }))
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Det>(bind);
}

fn cases() -> Vec<Case> {
    let x = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -2.0, 2.0);
    let case = |name, input| Case::new("Det", 22, name, vec![input]);
    let known = |v: &[f32], n: usize, det: f32| -> Option<(CaseInput, Tensor)> {
        Some((CaseInput::Given(Tensor::from_slice(&[n, n], v).ok()?), Tensor::scalar(det).ok()?))
    };
    let mut all = vec![
        case("stack", x(DType::F32, &[2, 3, 5, 5])),
        case("f64", x(DType::F64, &[7, 7])),
        case("f16", x(DType::F16, &[4, 3, 3])),
        case("none", x(DType::F32, &[0, 3, 3])),
        case("empty_matrix", x(DType::F32, &[2, 0, 0])),
    ];
    let pivot = known(&[0.0, 2.0, 1.0, 1.0, 1.0, 0.0, 3.0, 0.0, 1.0], 3, -5.0);
    let singular = known(&[1.0, 2.0, 2.0, 4.0], 2, 0.0);
    for (name, k) in [("pivot", pivot), ("singular", singular)] {
        all.extend(k.map(|(x, det)| case(name, x).expect(det)));
    }
    all
}
