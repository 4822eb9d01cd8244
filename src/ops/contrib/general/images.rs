//! Crops that are resized, unfolded axes, pools under a mask.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx};
use crate::kernels::movement::StridedCopy;
use crate::kernels::nd::dense_strides;
use crate::kernels::real::Real;
use crate::ops::types::need_size;
use crate::ops::widen::widened;
use crate::ops::window::Window;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

/// Rectangles of images, resized with aligned corners. Inputs: images, rectangles `[y1, x1, y2, x2]` in parts of the image, the
/// image of each, the size `[height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CropAndResize {
    /// The nearest place, not the mean of four.
    pub nearest: bool,
    /// The value outside the image.
    pub outside: f32,
}

/// All slices of `size` along an axis, `step` apart, along a new last axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfold {
    /// The axis.
    pub axis: i64,
    /// Length of a slice.
    pub size: usize,
    /// From one slice to the next.
    pub step: usize,
}

/// A maximum under a window that goes on in a row until the mask is zero: the first plane of input 1, for all planes. The first
/// place of a plane always counts.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedPool {
    /// The window.
    pub window: Window,
}

pub(super) fn parse_crop(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(4, 4)?;
    let nearest = match cx.string_or("mode", "bilinear")?.as_str() {
        "bilinear" => false,
        "nearest" => true,
        m => bail!(InvalidModel, "mode is '{m}'"),
    };
    Ok(Arc::new(CropAndResize { nearest, outside: cx.float_or("extrapolation_value", 0.0)? }))
}

pub(super) fn parse_unfold(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let positive = |x: i64, name: &str| match x {
        1..=0x7fff_ffff => Ok(x as usize),
        _ => bail!(InvalidModel, "{name} is {x}"),
    };
    let (size, step) = (positive(cx.int("size")?, "size")?, positive(cx.int_or("step", 1)?, "step")?);
    Ok(Arc::new(Unfold { axis: cx.int_or("dim", -1)?, size, step }))
}

pub(super) fn parse_masked(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let window = Window::parse(cx)?;
    ensure!(window.kernel.is_some(), Unsupported, "MaxpoolWithMask over whole planes");
    ensure!(cx.int_or("storage_order", 0)? == 0, Unsupported, "MaxpoolWithMask by columns");
    Ok(Arc::new(MaskedPool { window }))
}

impl Op for CropAndResize {
    fn name(&self) -> &'static str {
        "CropAndResize"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        cx.expect_same_dtype(0, 1)?;
        cx.expect_dtype(2, &[DType::I32])?;
        cx.expect_dtype(3, &[DType::I32])?;
        let channels = match cx.tensor(0)?.dims.as_deref() {
            Some([_, c, _, _]) => c.clone(),
            Some(d) => bail!(InvalidModel, "images of rank {}", d.len()),
            None => Dim::Unknown,
        };
        let count = match cx.tensor(1)?.dims.as_deref() {
            Some([n, _]) => n.clone(),
            Some(d) => bail!(InvalidModel, "rectangles of rank {}", d.len()),
            None => Dim::Unknown,
        };
        let (h, w) = match cx.ints(3)?.as_deref() {
            Some(&[h, w]) => {
                ensure!(h > 0 && w > 0, InvalidModel, "crops of {h} by {w}");
                (Dim::Known(h), Dim::Known(w))
            }
            Some(s) => bail!(InvalidModel, "a size of {} numbers", s.len()),
            None => (Dim::Unknown, Dim::Unknown),
        };
        Ok(vec![Fact::tensor(cx.dtype(0)?, vec![count, channels, h, w])])
    }
}

impl Op for Unfold {
    fn name(&self) -> &'static str {
        "UnfoldTensor"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let Some(mut dims) = x.dims.clone() else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let a = resolve_axis(self.axis, dims.len())?;
        let n = (dims[a].clone() - Dim::of(self.size)).floor_div(&Dim::of(self.step)) + Dim::Known(1);
        ensure!(n.known().is_none_or(|n| n > 0), InvalidModel, "slices of {} from an axis of {}", self.size, dims[a]);
        dims[a] = n;
        dims.push(Dim::of(self.size));
        Ok(vec![Fact::tensor(x.dtype, dims)])
    }
}

impl Op for MaskedPool {
    fn name(&self) -> &'static str {
        "MaxpoolWithMask"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32])?;
        cx.expect_dtype(1, &[DType::I32])?;
        let x = cx.tensor(0)?;
        let Some(d) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        ensure!(d.len() >= 3, InvalidModel, "a pool of rank {}", d.len());
        let kernel: Vec<Dim> = self.window.kernel.iter().flatten().map(|&k| Dim::Known(k)).collect();
        let mut out = vec![d[0].clone(), d[1].clone()];
        out.extend(self.window.output_dims(&d[2..], &kernel)?);
        Ok(vec![Fact::tensor(x.dtype, out)])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<CropAndResize>(bind_crop);
    b.step::<Unfold>(bind_unfold);
    b.step::<MaskedPool>(bind_masked);
}

fn bind_crop(op: &CropAndResize, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_crop)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => crop::<f32>(op, cx),
        DType::F64 => crop::<f64>(op, cx),
        d => bail!(Unsupported, "CropAndResize of {d}"),
    }
}

/// The places between which an output place lies, and how far; `None` outside.
fn between<T: Real>(from: T, to: T, i: usize, n: usize, size: usize) -> Option<(usize, usize, f64)> {
    let last = T::of(size as f64 - 1.0);
    let at = match n {
        1 => T::of(0.5) * (from + to) * last,
        _ => from * last + T::of(i as f64) * ((to - from) * last / T::of(n as f64 - 1.0)),
    };
    let at = (at >= T::ZERO && at <= last).then(|| at.to_f64())?;
    Some((at.floor() as usize, at.ceil() as usize, at - at.floor()))
}

fn crop<T: Real>(op: &CropAndResize, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, rois, y) = (cx.input(0)?, cx.input(1)?, cx.output(0)?);
    let (&[images, channels, h, w], &[count, _, ch, cw]) = (x.shape.as_slice(), y.shape.as_slice()) else {
        bail!(InvalidModel, "images are needed")
    };
    let fits = rois.shape.as_slice() == [count, 4] && cx.input(2)?.len() == count;
    ensure!(fits, InvalidModel, "{:?} rectangles for {count} crops", rois.shape);
    let (op, plane) = (op.clone(), product(&[ch, cw])?);
    let (tasks, per) = split(count * ch, (8192 / (channels * cw).max(1)).max(1));
    Ok(FnStep::boxed("crop_and_resize", tasks, 0, move |args, task, _| {
        for row in task * per..(count * ch).min((task + 1) * per) {
            let (r, i) = (row / ch, row % ch);
            // SAFETY: rectangle r and its image's number; places within an image that was checked to be there, and within the
            // output.
            unsafe {
                let image = usize::try_from(*args.input::<i32>(2).add(r)).unwrap_or(usize::MAX);
                ensure!(image < images, Run, "image {image} of {images}");
                let roi = |k: usize| *args.input::<T>(1).add(r * 4 + k);
                let ys = between(roi(0), roi(2), i, ch, h);
                for j in 0..cw {
                    let xs = between(roi(1), roi(3), j, cw, w);
                    for c in 0..channels {
                        let at = |y: usize, x: usize| {
                            let from = args.input::<T>(0).add((image * channels + c) * h * w);
                            (*from.add(y * w + x)).to_f64()
                        };
                        let v = match (ys, xs) {
                            (Some((y0, y1, fy)), Some((x0, x1, fx))) if op.nearest => {
                                at(if fy < 0.5 { y0 } else { y1 }, if fx < 0.5 { x0 } else { x1 })
                            }
                            (Some((y0, y1, fy)), Some((x0, x1, fx))) => {
                                let top = at(y0, x0) + (at(y0, x1) - at(y0, x0)) * fx;
                                let bottom = at(y1, x0) + (at(y1, x1) - at(y1, x0)) * fx;
                                top + (bottom - top) * fy
                            }
                            _ => f64::from(op.outside),
                        };
                        *args.output::<T>(0).add((r * channels + c) * plane + i * cw + j) = T::of(v);
                    }
                }
            }
        }
        Ok(())
    }))
}

fn bind_unfold(op: &Unfold, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let size = need_size(x.dtype, op.name())?;
    let a = resolve_axis(op.axis, x.shape.len())?;
    let mut from = dense_strides(&x.shape);
    let along = from[a];
    from[a] = along.saturating_mul(op.step as isize);
    from.push(along);
    let copy = StridedCopy::new(cx.isa, size, &y.shape, &from, &dense_strides(&y.shape))?;
    Ok(FnStep::boxed("unfold", copy.tasks(), 0, move |args, task, _| {
        // SAFETY: the copy was made from the operands' shapes; the last slice ends within the axis, as `infer` has it.
        unsafe { copy.run(task, args.input(0), args.output(0)) };
        Ok(())
    }))
}

fn bind_masked(op: &MaskedPool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, mask, y) = (cx.input(0)?, cx.input(1)?, cx.output(0)?);
    let kernel: Vec<usize> = op.window.kernel.iter().flatten().map(|&k| k as usize).collect();
    let g = op.window.geometry(&x.shape[2..], &kernel, &y.shape[2..])?;
    let (size, planes) = (g.in_size(), x.shape[0] * x.shape[1]);
    ensure!(planes == 0 || mask.len() >= size, InvalidModel, "a mask of {:?} for {:?}", mask.shape, x.shape);
    let (tasks, per) = split(planes, (16 * 1024 / g.out_size().max(1)).max(1));
    Ok(FnStep::boxed("max_pool_masked", tasks, 0, move |args, task, _| {
        for p in task * per..planes.min((task + 1) * per) {
            // SAFETY: plane p of both operands; the window is kept within the plane.
            unsafe {
                let from = std::slice::from_raw_parts(args.input::<f32>(0).add(p * size), size);
                let mask = std::slice::from_raw_parts(args.input::<i32>(1), size);
                let to = args.output::<f32>(0).add(p * g.out_size());
                for o in 0..g.out_size() {
                    let at = [o / (g.output[1] * g.output[2]), o / g.output[2] % g.output[1], o % g.output[2]];
                    let range = |d: usize| {
                        let start = (at[d] * g.stride[d]) as isize - g.pad[d] as isize;
                        let end = (start + g.kernel[d] as isize).clamp(0, g.input[d] as isize) as usize;
                        (start.max(0) as usize).min(end)..end
                    };
                    let mut best = f32::MIN;
                    for (a, b) in range(0).flat_map(|a| range(1).map(move |b| (a, b))) {
                        for c in range(2) {
                            let i = (a * g.input[1] + b) * g.input[2] + c;
                            if i > 0 && mask[i] == 0 {
                                break;
                            }
                            best = best.max(from[i]);
                        }
                    }
                    *to.add(o) = best;
                }
            }
        }
        Ok(())
    }))
}
