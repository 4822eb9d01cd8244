//! NonMaxSuppression.

use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Values};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::boxes::{Boxes, Chooser};
use crate::kernels::isa::Isa;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::{DType, Tensor, Value};
use crate::{bail, ensure, err};
use smallvec::smallvec;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) const OPS: &[OpDef] = &[OpDef { domain: "", name: "NonMaxSuppression", versions: &[10, 11], parse }];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.eager::<NonMaxSuppression>(run);
}

/// The best boxes of each class that overlap no better one too much. Inputs: boxes `[N, boxes, 4]`, scores
/// `[N, classes, boxes]`, the most boxes a class, the overlap that is too much, the score that is too low.
#[derive(Clone, Debug, PartialEq)]
pub struct NonMaxSuppression {
    /// Boxes are centre, width and height (x first), not two corners (y first).
    pub center: bool,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 5)?;
    Ok(Arc::new(NonMaxSuppression { center: cx.flag("center_point_box", false)? }))
}

impl Op for NonMaxSuppression {
    fn name(&self) -> &'static str {
        "NonMaxSuppression"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        for i in [0, 1] {
            cx.expect_dtype(i, &[DType::F32])?;
            if let Some(r) = cx.tensor(i)?.rank() {
                ensure!(r == 3, InvalidModel, "input {i} must have three axes, it is {}", cx.tensor(i)?);
            }
        }
        Ok(vec![Fact::tensor(DType::I64, vec![Dim::Unknown, Dim::Known(3)])])
    }
}

/// The number in an optional input of one element.
fn number<T: crate::tensor::Element>(args: &[Arg<'_>], i: usize) -> Result<Option<T>> {
    match args.get(i) {
        Some(a) if a.is_given() => Ok(a.tensor()?.as_slice::<T>()?.first().copied()),
        _ => Ok(None),
    }
}

/// What it works with: sides of the boxes by item of the batch, lists by thread, what was chosen by item and class.
#[derive(Default)]
struct Lists {
    sides: Vec<Boxes>,
    workers: Vec<Mutex<Chooser>>,
    chosen: Vec<Mutex<Vec<u32>>>,
}

fn at_least<T: Default>(list: &mut Vec<T>, n: usize) -> Result<()> {
    list.try_reserve(n.saturating_sub(list.len())).map_err(|_| err!(OutOfMemory, "{n} choices of boxes"))?;
    list.resize_with(list.len().max(n), T::default);
    Ok(())
}

/// Nobody else's, as each task has its own.
fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(op: &NonMaxSuppression, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let [boxes, scores, ..] = args else { bail!(InvalidModel, "boxes and scores are needed") };
    let (boxes, scores) = (boxes.tensor()?, scores.tensor()?);
    let (&[n, count, 4], &[batches, classes, scored]) = (boxes.shape(), scores.shape()) else {
        bail!(InvalidModel, "boxes of shape {:?}, scores of shape {:?}", boxes.shape(), scores.shape())
    };
    ensure!(
        n == batches && count == scored && u32::try_from(count).is_ok(),
        InvalidModel,
        "boxes of shape {:?}, scores of shape {:?}",
        boxes.shape(),
        scores.shape()
    );
    let most = usize::try_from(number::<i64>(args, 2)?.unwrap_or(0)).unwrap_or(0).min(count);
    let overlap = number::<f32>(args, 3)?.unwrap_or(0.0);
    let lowest = number::<f32>(args, 4)?;
    let choices = if most > 0 { product(&[n, classes])? } else { 0 };
    let mut lists = cx.lists::<Lists>();
    let Lists { sides, workers, chosen } = &mut *lists;
    at_least(sides, n)?;
    at_least(workers, cx.pool.width())?;
    at_least(chosen, choices)?;
    if choices > 0 {
        let (boxes, scores) = (boxes.as_slice::<f32>()?, scores.as_slice::<f32>()?);
        let isa = Isa::detect();
        for (b, sides) in sides.iter_mut().take(n).enumerate() {
            sides.fill(&boxes[b * count * 4..][..count * 4], op.center)?;
        }
        let failed = Mutex::new(None);
        cx.pool.run(choices, &|worker, i| {
            let (mut with, mut chosen) = (locked(&workers[worker]), locked(&chosen[i]));
            let done = with.order.fill(&scores[i * count..][..count], lowest);
            if let Err(e) = done.and_then(|()| with.choose(isa, &sides[i / classes], most, overlap, &mut chosen)) {
                locked(&failed).get_or_insert(e);
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)?;
    }
    let rows = chosen[..choices].iter().map(|c| locked(c).len()).sum();
    let mut out = cx.tensor(DType::I64, &[rows, 3])?;
    let mut to = out.as_mut_slice::<i64>()?.chunks_exact_mut(3);
    for (i, c) in chosen[..choices].iter().enumerate() {
        for (&k, row) in locked(c).iter().zip(&mut to) {
            row.copy_from_slice(&[(i / classes) as i64, (i % classes) as i64, i64::from(k)]);
        }
    }
    cx.keep(lists);
    if cx.outputs == 0 { Err(err!(Internal, "no output is asked for")) } else { Ok(smallvec![Value::Tensor(out)]) }
}

pub(super) fn cases() -> Vec<Case> {
    let given = |t: Result<Tensor>| t.map_or(CaseInput::Absent, CaseInput::Given);
    let x = |shape: &[usize]| CaseInput::Random(DType::F32, shape.to_vec(), 0.0, 1.0);
    let limits = |most: i64, overlap: f32, lowest: f32| {
        [
            given(Tensor::from_slice(&[1], &[most])),
            given(Tensor::from_slice(&[1], &[overlap])),
            given(Tensor::scalar(lowest)),
        ]
    };
    let case = |name, inputs: [CaseInput; 2], limits: [CaseInput; 3]| {
        Case::new("NonMaxSuppression", 11, name, inputs.into_iter().chain(limits).collect()).exact()
    };
    let center = ("center_point_box", Attr::Int(1));
    vec![
        case("corners", [x(&[2, 150, 4]), x(&[2, 3, 150])], limits(40, 0.3, 0.2)),
        case("centres", [x(&[1, 70, 4]), x(&[1, 2, 70])], limits(1000, 0.1, 0.0)).attr(center.0, center.1),
        case("none_asked_for", [x(&[1, 7, 4]), x(&[1, 2, 7])], limits(0, 0.1, 0.0)),
        case("no_boxes", [x(&[1, 0, 4]), x(&[1, 2, 0])], limits(3, 0.1, 0.0)),
    ]
}
