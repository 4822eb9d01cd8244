//! Pools of 8-bit integers of NHWC.

use super::linear::load;
use crate::backend::cpu::CpuCtx;
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op};
use crate::kernels::quant::pool::{Mean, Place};
use crate::ops::window::{Geometry, Window};
use crate::tensor::DType;
use crate::{bail, ensure};

/// A pool over `[N, spatial..., C]`. A mean has more inputs: scale and zero point of the input, those of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct IntPool {
    /// The window, with its kernel; none for all spatial axes, which stay with size 1.
    pub window: Option<Window>,
    /// The mean, not the greatest; and whether padding counts in it.
    pub mean: Option<bool>,
}

const INT8: [DType; 2] = [DType::U8, DType::I8];

impl Op for IntPool {
    fn name(&self) -> &'static str {
        if self.mean.is_some() { "IntAveragePool" } else { "IntMaxPool" }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &INT8)?;
        let mut to = cx.dtype(0)?;
        if self.mean.is_some() {
            cx.expect_dtype(1, &[DType::F32])?;
            cx.expect_dtype(3, &[DType::F32])?;
            if cx.has(2) {
                cx.expect_same_dtype(0, 2)?;
            }
            if cx.has(4) {
                cx.expect_dtype(4, &INT8)?;
                to = cx.dtype(4)?;
            }
        }
        let Some(d) = &cx.tensor(0)?.dims else { return Ok(vec![Fact::any_tensor(to)]) };
        ensure!(d.len() >= 3, InvalidModel, "a pool needs a spatial axis, the rank is {}", d.len());
        let spatial = &d[1..d.len() - 1];
        let out = match &self.window {
            Some(w) => {
                let kernel: Vec<Dim> = w.kernel.iter().flatten().map(|&k| Dim::Known(k)).collect();
                w.output_dims(spatial, &kernel)?
            }
            None => vec![Dim::Known(1); spatial.len()],
        };
        let all = d[..1].iter().chain(&out).chain(&d[d.len() - 1..]);
        Ok(vec![Fact::tensor(to, all.cloned().collect())])
    }
}

/// Channels of a task at most.
const MOST_CHANNELS: usize = 256;

/// Writes the taps of output place `o` that lie within the input, as places; returns how many they are.
/// # Safety
/// `list` has room for all taps of the kernel that an input can have.
unsafe fn taps(g: &Geometry, o: usize, list: *mut usize) -> usize {
    let at = [o / (g.output[1] * g.output[2]), o / g.output[2] % g.output[1], o % g.output[2]];
    let along = |d: usize| {
        let start = at[d] * g.stride[d];
        let places = (0..g.kernel[d]).filter_map(move |k| (start + k * g.dilation[d]).checked_sub(g.pad[d]));
        places.filter(move |&i| i < g.input[d])
    };
    let mut n = 0;
    for a in along(0) {
        for b in along(1) {
            for c in along(2) {
                // SAFETY: the caller's: each tap is another place.
                unsafe { list.add(n).write((a * g.input[1] + b) * g.input[2] + c) };
                n += 1;
            }
        }
    }
    n
}

pub(super) fn bind(op: &IntPool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let (Some((&channels, outer)), Some((_, to))) = (x.shape.split_last(), y.shape.split_last()) else {
        bail!(InvalidModel, "a pool of a scalar")
    };
    let (Some((&images, from)), Some((_, to))) = (outer.split_first(), to.split_first()) else {
        bail!(InvalidModel, "a pool of a list")
    };
    let flat = [product(from)?];
    let g = match &op.window {
        Some(w) => {
            let kernel: Vec<usize> = w.kernel.iter().flatten().map(|&k| k as usize).collect();
            w.geometry(from, &kernel, to)?
        }
        // As one axis.
        None => Window::over(&flat).geometry(&flat, &flat, &[1])?,
    };
    let count = product(&g.kernel)?;
    ensure!(count < 1 << 23, Unsupported, "a mean of {count} numbers in 32 bits");
    for i in if op.mean.is_some() { 1..5 } else { 0..0 } {
        ensure!(cx.opt_input(i).is_none_or(|o| o.len() == 1), InvalidModel, "input {i} of a pool must be one number");
    }
    let (isa, signed, out_signed, mean) = (cx.isa, x.dtype == DType::I8, y.dtype == DType::I8, op.mean);
    let zeros = [cx.opt_input(2).is_some(), cx.opt_input(4).is_some()];
    let (size, out_size) = (g.in_size(), g.out_size());
    let parts = channels.div_ceil(MOST_CHANNELS);
    let scratch = product(&[count.min(size).max(1), size_of::<usize>()])?;
    let places = product(&[images, out_size, parts])?;
    let work = channels.min(MOST_CHANNELS).saturating_mul(count.min(size.max(1)));
    let (tasks, per) = split(places, (128 * 1024 / work.max(1)).max(1));
    Ok(FnStep::boxed(
        if mean.is_some() { "int8_average_pool" } else { "int8_max_pool" },
        tasks,
        scratch,
        move |args, task, scratch| {
            let list = scratch.cast::<usize>();
            for i in task * per..places.min((task + 1) * per) {
                let (place, c0) = (i / parts, i % parts * MOST_CHANNELS);
                // SAFETY: the scratch has room for the taps.
                let list = unsafe { std::slice::from_raw_parts_mut(list, taps(&g, place % out_size, list)) };
                let base = place / out_size * size;
                list.iter_mut().for_each(|t| *t = (base + *t) * channels + c0);
                // SAFETY: scales and zero points are one number each; taps lie within the image, the channels within a place.
                unsafe {
                    let scale = |i: usize| *args.input::<f32>(i);
                    let zero = |i: usize, given: bool, d: DType| {
                        let mut z = 0.0;
                        if given {
                            load(isa, d, args.input(i), 0, 1, &mut z);
                        }
                        z
                    };
                    let mean = mean.map(|padded| Mean {
                        zero: zero(2, zeros[0], if signed { DType::I8 } else { DType::U8 }) as i32,
                        scale: scale(1) / (scale(3) * if padded { count } else { list.len().max(1) } as f32),
                        out_zero: zero(4, zeros[1], if out_signed { DType::I8 } else { DType::U8 }),
                        out_signed,
                    });
                    Place {
                        taps: list,
                        x: args.input(0),
                        signed,
                        channels: MOST_CHANNELS.min(channels - c0),
                        mean,
                        y: args.output::<u8>(0).add(place * channels + c0),
                    }
                    .run(isa);
                }
            }
            Ok(())
        },
    ))
}
