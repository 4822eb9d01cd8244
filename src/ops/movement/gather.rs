//! Gather, GatherElements, GatherND.

use super::{Bind, Moves, around, count, index_type};
use crate::backend::cpu::CpuBindings;
use crate::backend::{FnStep, Step, StepArgs};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Contents, Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Region, TensorFact};
use crate::kernels::movement::{Gather as GatherKernel, GatherElements as ElementsKernel, GatherNd as GatherNdKernel};
use crate::ops::infer::broadcast;
use crate::ops::types::need_size;
use crate::tensor::{DType, Dims};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Gather", versions: &[1, 11, 13], parse: parse_gather },
    OpDef { domain: "", name: "GatherElements", versions: &[11, 13], parse: parse_elements },
    OpDef { domain: "", name: "GatherND", versions: &[11, 12, 13], parse: parse_nd },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    Gather::register(b);
    GatherElements::register(b);
    GatherNd::register(b);
}

/// Slices along an axis, as input 1 names them.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

fn parse_gather(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(Gather { axis: cx.int_or("axis", 0)? }))
}

fn expect_indices(cx: &InferCtx<'_>, i: usize) -> Result<()> {
    cx.expect_dtype(i, &[DType::I32, DType::I64])
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, at) = (cx.tensor(0)?, cx.tensor(1)?);
        expect_indices(cx, 1)?;
        let (Some(d), Some(i)) = (&x.dims, &at.dims) else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let axis = resolve_axis(self.axis, d.len())?;
        let dims = d[..axis].iter().chain(i).chain(&d[axis + 1..]).cloned().collect();
        let mut f = TensorFact::new(x.dtype, dims);
        if let (Contents::Dims(list), Some(at), 1) = (&x.contents, at.ints(), d.len()) {
            let n = list.len() as i64;
            let pick = |&i: &i64| list.get(usize::try_from(if i < 0 { i + n } else { i }).ok()?).cloned();
            if let Some(picked) = at.iter().map(pick).collect() {
                f.contents = Contents::Dims(picked);
            }
        }
        Ok(vec![Fact::Tensor(f)])
    }
    fn alias(&self) -> Alias {
        Alias::Parts
    }
    /// One index that is known names a part.
    fn part(&self, _: usize, inputs: &[&Fact], _: &[Fact]) -> Option<Region> {
        let (x, at) = (inputs.first()?, inputs.get(1)?.as_tensor()?);
        let mut size = x.shape()?;
        let axis = resolve_axis(self.axis, size.len()).ok()?;
        let [index] = at.ints()?[..] else { return None };
        let n = size[axis] as i64;
        let index = if index < 0 { index.checked_add(n)? } else { index };
        let mut start = Dims::from_elem(0, size.len());
        start[axis] = usize::try_from(index).ok().filter(|&i| i < size[axis])?;
        size[axis] = 1;
        Some(Region { start, size })
    }
}

impl Moves for Gather {
    const BIND: Bind<Self> = |op, cx| {
        let (x, at) = (cx.input(0)?, cx.input(1)?);
        let size = need_size(x.dtype, "Gather")?;
        let axis = resolve_axis(op.axis, x.shape.len())?;
        let (outer, n, inner) = around(&x.shape, axis);
        let kernel = GatherKernel::new(index_type(at.dtype)?, outer, n, at.len(), inner * size)?;
        Ok(Box::new(GatherStep(kernel)))
    };
}

/// Copies bytes: a table of embeddings is read where it lies in the model's file, row by row.
struct GatherStep(GatherKernel);

impl Step for GatherStep {
    fn tasks(&self, _phase: usize) -> usize {
        self.0.tasks()
    }
    fn needs_alignment(&self, input: usize) -> bool {
        input != 0
    }
    unsafe fn run(&self, args: &StepArgs<'_>, _phase: usize, task: usize, _scratch: *mut u8) -> Result<()> {
        // SAFETY: the kernel was made from the operands' shapes; it checks each index.
        Ok(unsafe { self.0.run(task, args.input(0), args.input(1), args.output(0)) }?)
    }
    fn kernel(&self) -> &str {
        "gather"
    }
}

/// Single elements: each index in input 1 replaces its own coordinate on the axis.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherElements {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

fn parse_elements(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(GatherElements { axis: cx.int_or("axis", 0)? }))
}

impl Op for GatherElements {
    fn name(&self) -> &'static str {
        "GatherElements"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, at) = (cx.tensor(0)?, cx.tensor(1)?);
        expect_indices(cx, 1)?;
        if let (Some(a), Some(b)) = (x.rank(), at.rank()) {
            ensure!(a == b, InvalidModel, "indices of rank {b} for data of rank {a}");
            resolve_axis(self.axis, a)?;
        }
        Ok(vec![cx.like(1, x.dtype)?])
    }
}

impl Moves for GatherElements {
    const BIND: Bind<Self> = |op, cx| {
        let (x, at) = (cx.input(0)?, cx.input(1)?);
        let size = need_size(x.dtype, "GatherElements")?;
        let axis = resolve_axis(op.axis, x.shape.len())?;
        let kernel = ElementsKernel::new(index_type(at.dtype)?, size, &x.shape, &at.shape, axis)?;
        Ok(FnStep::boxed("gather_elements", kernel.tasks(), 0, move |args, task, _| {
            // SAFETY: the kernel was made from the operands' shapes; it checks each index.
            Ok(unsafe { kernel.run(task, args.input(0), args.input(1), args.output(0)) }?)
        }))
    };
}

/// Slices named by tuples of indices, the last axis of input 1; the first `batch` axes are walked together.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherNd {
    /// How many axes are shared.
    pub batch: usize,
}

fn parse_nd(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let b = cx.int_or("batch_dims", 0)?;
    let Ok(batch) = usize::try_from(b) else { bail!(InvalidModel, "batch_dims is {b}") };
    Ok(Arc::new(GatherNd { batch }))
}

impl Op for GatherNd {
    fn name(&self) -> &'static str {
        "GatherND"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, at) = (cx.tensor(0)?, cx.tensor(1)?);
        expect_indices(cx, 1)?;
        let (Some(d), Some(i)) = (&x.dims, &at.dims) else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let (Some((tuple, lead)), b) = (i.split_last(), self.batch) else {
            bail!(InvalidModel, "indices that are one number name no slice")
        };
        ensure!(b <= lead.len() && b <= d.len(), InvalidModel, "{b} batch axes for ranks {} and {}", d.len(), i.len());
        let shared = broadcast(&d[..b], &lead[..b])?;
        let Some(n) = tuple.size() else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        ensure!(
            n >= 1 && n <= d.len() - b,
            InvalidModel,
            "tuples of {n} indices for data of rank {} with {b} batch axes",
            d.len()
        );
        let dims: Vec<Dim> = shared.iter().chain(&lead[b..]).chain(&d[b + n..]).cloned().collect();
        Ok(vec![Fact::tensor(x.dtype, dims)])
    }
}

impl Moves for GatherNd {
    const BIND: Bind<Self> = |op, cx| {
        let (x, at, b) = (cx.input(0)?, cx.input(1)?, op.batch);
        let size = need_size(x.dtype, "GatherND")?;
        let Some((&n, lead)) = at.shape.split_last() else { bail!(InvalidModel, "indices that are one number") };
        ensure!(
            b <= lead.len() && b + n <= x.shape.len() && x.shape[..b] == lead[..b],
            InvalidModel,
            "GatherND of {:?} at {:?} with {b} batch axes",
            x.shape,
            at.shape
        );
        let batch: usize = lead[..b].iter().product();
        let slice = count(&x.shape[b + n..].into()) * size;
        let kernel =
            GatherNdKernel::new(index_type(at.dtype)?, batch, &x.shape[b..b + n], lead[b..].iter().product(), slice)?;
        Ok(FnStep::boxed("gather_nd", kernel.tasks(), 0, move |args, task, _| {
            // SAFETY: the kernel was made from the operands' shapes; it checks each index.
            Ok(unsafe { kernel.run(task, args.input(0), args.input(1), args.output(0)) }?)
        }))
    };
}
