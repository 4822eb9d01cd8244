//! Batch normalisation.

use super::FLOATS;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{Layout, NodeLayouts, NodeView, Step, StepArgs};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx};
use crate::kernels::affine::{affine, affine_block};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::real::Real;
use crate::ops::steps::Phases;
use crate::ops::widen::{unmixed, widened};
use crate::tensor::DType;
use crate::{bail, ensure};
use smallvec::smallvec;
use std::sync::Arc;

/// `(x - mean) / sqrt(var + epsilon) * scale + B`, inputs X, scale, B, mean, var. Outputs Y; when training, the running mean
/// and variance, and the batch's own.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormalization {
    /// Keeps the root from zero.
    pub epsilon: f32,
    /// Weight of the old running mean and variance.
    pub momentum: f32,
    /// The batch's own mean and variance are used.
    pub training: bool,
    /// One mean a channel; else one for each place of each channel.
    pub spatial: bool,
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(5, 5)?;
    let training = if cx.version >= 14 {
        cx.flag("training_mode", false)?
    } else {
        // Whoever asks for the statistics trains.
        !cx.flag("is_test", false)? && cx.outputs.iter().skip(1).any(|&o| o)
    };
    let spatial = cx.version >= 9 || cx.flag("spatial", true)?;
    ensure!(spatial || !training, Unsupported, "training a batch normalisation with spatial = 0");
    Ok(Arc::new(BatchNormalization {
        epsilon: cx.float_or("epsilon", 1e-5)?,
        momentum: cx.float_or("momentum", 0.9)?,
        training,
        spatial,
    }))
}

impl Op for BatchNormalization {
    fn name(&self) -> &'static str {
        "BatchNormalization"
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        2 * cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        for i in 0..5 {
            cx.expect_dtype(i, &FLOATS)?;
        }
        let x = cx.tensor(0)?;
        let channels = x.dims.as_ref().map(|d| d.get(1).cloned().unwrap_or(Dim::Known(1)));
        if let (Some(c), true) = (&channels, self.spatial) {
            for i in 1..5 {
                if let Some(d) = &cx.tensor(i)?.dims {
                    ensure!(d.len() == 1, InvalidModel, "input {i} has rank {}, not one number a channel", d.len());
                    if let (Some(a), Some(b)) = (d[0].known(), c.known()) {
                        ensure!(a == b, InvalidModel, "input {i} has {a} numbers for {b} channels");
                    }
                }
            }
        }
        let mut out = vec![cx.like(0, x.dtype)?];
        for i in 1..5 {
            // Running mean and variance, then the batch's own, of the types of the inputs 3 and 4.
            let d = cx.dtype(3 + (i - 1) % 2)?;
            out.push(channels.as_ref().map_or(Fact::any_tensor(d), |c| Fact::tensor(d, vec![c.clone()])));
        }
        Ok(out)
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<BatchNormalization>(bind);
    b.layouts::<BatchNormalization>(layouts);
}

fn layouts(op: &BatchNormalization, node: &NodeView<'_>, _: usize) -> NodeLayouts {
    match node.inputs.first() {
        Some(Some(x)) if x.layout != Layout::Dense && !op.training && op.spatial => {
            NodeLayouts { inputs: smallvec![x.layout], outputs: smallvec![x.layout] }
        }
        _ => NodeLayouts::dense(),
    }
}

fn bind(op: &BatchNormalization, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = unmixed(op, cx, bind)? {
        return Ok(s);
    }
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => step::<f32>(op, cx),
        DType::F64 => step::<f64>(op, cx),
        d => bail!(Unsupported, "batch normalisation of {d}"),
    }
}

/// Images, channels and places a channel.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    channels: usize,
    space: usize,
}

fn step<T: Real>(op: &BatchNormalization, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let n = x.shape.first().copied().unwrap_or(1);
    let channels =
        if op.spatial { x.shape.get(1).copied().unwrap_or(1) } else { product(x.shape.get(1..).unwrap_or(&[]))? };
    let space = if op.spatial { product(x.shape.get(2..).unwrap_or(&[]))? } else { 1 };
    for i in 1..5 {
        ensure!(cx.input(i)?.len() == channels, InvalidModel, "input {i} has not one number for {channels} channels");
    }
    let s = Sizes { n, channels, space };
    // Factor and shift of each channel, to whole blocks.
    let padded = channels.next_multiple_of(16);
    let workspace = product(&[2, padded, size_of::<T>()])?;
    let block = match x.layout {
        Layout::Blocked(c) => Some(c),
        Layout::Dense => None,
    };
    let (epsilon, momentum, training, isa) = (T::of(f64::from(op.epsilon)), op.momentum, op.training, cx.isa);
    let asked: Vec<bool> = (0..5).map(|i| cx.has_output(i)).collect();
    let one = if training { (64 * 1024 / s.n.saturating_mul(s.space).max(1)).max(1) } else { 4096 };
    let (tasks, per) = split(channels, one);
    let phases = Phases::new("batch_normalization", workspace).then(tasks, 0, move |args, task, _| {
        for c in task * per..channels.min((task + 1) * per) {
            // SAFETY: channel c of each list; factor and shift lie in the workspace.
            unsafe {
                let of = |i| *args.input::<T>(i).add(c);
                let (mut mean, mut var) = (of(3), of(4));
                if training {
                    (mean, var) = statistics(s, c, args.input(0));
                    let (keep, take) = (T::of(f64::from(momentum)), T::of(1.0 - f64::from(momentum)));
                    let results = [keep * of(3) + take * mean, keep * of(4) + take * var, mean, var];
                    for (i, v) in results.into_iter().enumerate().filter(|(i, _)| asked[i + 1]) {
                        *args.output::<T>(i + 1).add(c) = v;
                    }
                }
                let factor = of(1) / (var + epsilon).sqrt();
                *args.workspace::<T>().add(c) = factor;
                *args.workspace::<T>().add(padded + c) = of(2) - mean * factor;
                if c + 1 == channels {
                    for lane in channels..padded {
                        *args.workspace::<T>().add(lane) = T::ZERO;
                        *args.workspace::<T>().add(padded + lane) = T::ZERO;
                    }
                }
            }
        }
        Ok(())
    });
    let parts = channels.div_ceil(block.unwrap_or(1));
    let (tasks, per) = split(n * parts, (16 * 1024 / (space * block.unwrap_or(1)).max(1)).max(1));
    Ok(phases
        .then(tasks, 0, move |args, task, _| {
            for i in task * per..(n * parts).min((task + 1) * per) {
                // SAFETY: plane or block i of both operands.
                unsafe { apply::<T>(isa, args, i, parts, space, block, padded) };
            }
            Ok(())
        })
        .boxed())
}

/// One plane, or one block of channels.
unsafe fn apply<T: Real>(
    isa: Isa,
    args: &StepArgs<'_>,
    i: usize,
    parts: usize,
    space: usize,
    block: Option<usize>,
    padded: usize,
) {
    // SAFETY: the caller's; the workspace holds factors and shifts of whole blocks.
    unsafe {
        let width = block.unwrap_or(1);
        let at = i * space * width;
        let (x, y) = (args.input::<T>(0).add(at), args.output::<T>(0).add(at));
        let factor = args.workspace::<T>().add(i % parts * width).cast_const();
        let shift = factor.add(padded);
        match (block, T::ELEM) {
            (Some(_), Elem::F32) => affine_block(isa, x.cast(), y.cast(), space, factor.cast(), shift.cast()),
            (None, Elem::F32) => {
                affine(isa, x.cast(), y.cast(), space, *factor.cast::<f32>(), *shift.cast::<f32>());
            }
            _ => {
                for j in 0..space * width {
                    *y.add(j) = *x.add(j) * *factor.add(j % width) + *shift.add(j % width);
                }
            }
        }
    }
}

/// Mean and variance of a channel over all images.
unsafe fn statistics<T: Real>(s: Sizes, c: usize, x: *const T) -> (T, T) {
    let count = (s.n * s.space) as f64;
    let sum = |f: &dyn Fn(f64) -> f64| {
        let mut total = 0.0f64;
        for i in 0..s.n {
            for j in 0..s.space {
                // SAFETY: the caller's tensor has these elements.
                total += f(unsafe { *x.add((i * s.channels + c) * s.space + j) }.to_f64());
            }
        }
        total
    };
    let mean = sum(&|x| x) / count;
    (T::of(mean), T::of(sum(&|x| (x - mean) * (x - mean)) / count))
}
