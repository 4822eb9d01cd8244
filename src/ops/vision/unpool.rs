//! MaxUnpool.

use crate::backend::Step;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::nd::dense_strides;
use crate::ops::case::{Case, CaseInput};
use crate::ops::steps::Phases;
use crate::ops::window::{Pads, Window};
use crate::tensor::{DType, Dims, Tensor};
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[OpDef { domain: "", name: "MaxUnpool", versions: &[9, 11, 22], parse }];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<MaxUnpool>(bind);
}

/// Puts each element of input 0 where input 1 says it was before a maximum pool, and zeros elsewhere. The places count in a
/// tensor of the size that the pool's window tells; input 2 may ask for a larger one, into whose corner that goes.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxUnpool {
    /// The window of the pool.
    pub window: Window,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    let window = Window::parse(cx)?;
    ensure!(window.kernel.is_some(), InvalidModel, "attribute 'kernel_shape' is missing");
    ensure!(matches!(window.pads, Pads::Explicit(_)), InvalidModel, "MaxUnpool has no auto_pad");
    Ok(Arc::new(MaxUnpool { window }))
}

impl MaxUnpool {
    /// The size before the pool.
    fn before(&self, x: &[Dim]) -> Result<Vec<Dim>> {
        let kernel = self.window.kernel.as_deref().unwrap_or(&[]);
        let n = kernel.len();
        let pads = if let Pads::Explicit(p) = &self.window.pads { p.len() } else { 0 };
        let fits = x.len() == n + 2 && (pads == 0 || pads == 2 * n);
        ensure!(
            fits && (self.window.strides.is_empty() || self.window.strides.len() == n),
            InvalidModel,
            "{self:?} for {x:?}"
        );
        let mut out = x[..2].to_vec();
        for d in 0..n {
            let (p0, p1) = self.window.explicit(d, n);
            let last = (x[d + 2].clone() - Dim::Known(1)) * Dim::Known(self.window.stride(d));
            let size = last + Dim::Known(kernel[d] - p0 - p1);
            ensure!(size.known().is_none_or(|s| s >= 0), InvalidModel, "an axis of size {size}");
            out.push(size);
        }
        Ok(out)
    }
}

impl Op for MaxUnpool {
    fn name(&self) -> &'static str {
        "MaxUnpool"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        cx.expect_dtype(1, &[DType::I64])?;
        let x = cx.tensor(0)?;
        let rank = self.window.kernel.as_ref().map_or(0, Vec::len) + 2;
        let Some(d) = &x.dims else { return Ok(vec![Fact::tensor(x.dtype, vec![Dim::Unknown; rank])]) };
        let before = self.before(d)?;
        if let (Some(a), Some(b)) = (x.shape(), cx.tensor(1)?.shape()) {
            ensure!(a == b, InvalidModel, "places {b:?} of elements {a:?}");
        }
        let Some(shape) = cx.has(2).then(|| cx.list(2)).transpose()? else {
            return Ok(vec![Fact::tensor(x.dtype, before)]);
        };
        let Some(want) = shape.int_dims() else { return Ok(vec![Fact::tensor(x.dtype, vec![Dim::Unknown; rank])]) };
        ensure!(want.len() == rank, InvalidModel, "an output of {} axes", want.len());
        for (w, b) in want.iter().zip(&before) {
            let fits = w.known().zip(b.known()).is_none_or(|(w, b)| w >= b);
            ensure!(fits, InvalidModel, "an output {want:?} is smaller than {before:?}");
        }
        Ok(vec![Fact::tensor(x.dtype, want)])
    }
}

fn bind(op: &MaxUnpool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    match cx.input(0)?.dtype.size() {
        Some(2) => bind_as::<u16>(op, cx),
        Some(4) => bind_as::<u32>(op, cx),
        Some(8) => bind_as::<u64>(op, cx),
        _ => bail!(Unsupported, "MaxUnpool of {}", cx.input(0)?.dtype),
    }
}

fn bind_as<T: Copy + Default + 'static>(op: &MaxUnpool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let dims: Vec<Dim> = x.shape.iter().map(|&n| Dim::of(n)).collect();
    let before: Option<Dims> = op.before(&dims)?.iter().map(Dim::size).collect();
    let before = before.ok_or_else(|| err!(Internal, "a size is not known"))?;
    let (n, total, room) = (x.len(), y.len(), product(&before)?);
    let same = before[1..] == y.shape[1..];
    let strides = dense_strides(&y.shape);
    let (tasks, per) = split(total, 64 * 1024);
    let step = Phases::new("max_unpool", 0).then(if total == 0 { 0 } else { tasks }, 0, move |args, task, _| {
        for i in task * per..total.min((task + 1) * per) {
            // SAFETY: element i of the output.
            unsafe { *args.output::<T>(0).add(i) = T::default() };
        }
        Ok(())
    });
    // Places may repeat, so one task puts them all: the last wins.
    let step = step.then(usize::from(n > 0), 0, move |args, _, _| {
        for i in 0..n {
            // SAFETY: element i of both inputs.
            let (v, place) = unsafe { (*args.input::<T>(0).add(i), *args.input::<i64>(1).add(i)) };
            let Some(place) = usize::try_from(place).ok().filter(|p| *p < room) else {
                bail!(Run, "place {place} of an element is outside {room} elements")
            };
            let at = if same {
                place
            } else {
                let (mut rest, mut at) = (place, 0);
                for d in (0..before.len()).rev() {
                    at += (rest % before[d]) * strides[d] as usize;
                    rest /= before[d];
                }
                at
            };
            // SAFETY: a place in the smaller tensor, which lies in the output.
            unsafe { *args.output::<T>(0).add(at) = v };
        }
        Ok(())
    });
    Ok(step.boxed())
}

pub(super) fn cases() -> Vec<Case> {
    let given = |t: Result<Tensor>| t.map_or(CaseInput::Absent, CaseInput::Given);
    let x = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -10.0, 10.0);
    let at = |shape: &[usize], v: &[i64]| given(Tensor::from_slice(shape, v));
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let unpool = |name, inputs, kernel: &[i64]| {
        Case::new("MaxUnpool", 22, name, inputs)
            .attr("kernel_shape", ints(kernel))
            .attr("strides", ints(kernel))
            .exact()
    };
    let mut cases = vec![
        unpool("line", vec![x(DType::F64, &[1, 2, 3]), at(&[1, 2, 3], &[1, 2, 5, 6, 9, 11])], &[2]),
        unpool("f16", vec![x(DType::F16, &[1, 1, 2, 2]), at(&[1, 1, 2, 2], &[0, 3, 9, 10])], &[2, 2]),
        unpool("empty", vec![x(DType::F32, &[0, 1, 2, 2]), at(&[0, 1, 2, 2], &[])], &[2, 2]),
    ];
    if let (Ok(v), Ok(size), Ok(want)) = (
        Tensor::from_slice(&[1, 1, 2], &[7f32, 8.0]),
        Tensor::from_slice(&[3], &[1i64, 1, 5]),
        Tensor::from_slice(&[1, 1, 5], &[0f32, 7.0, 8.0, 0.0, 0.0]),
    ) {
        let inputs = vec![CaseInput::Given(v), at(&[1, 1, 2], &[1, 2]), CaseInput::Constant(size)];
        cases.push(unpool("larger", inputs, &[2]).expect(want));
    }
    cases
}
