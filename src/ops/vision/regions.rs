//! RoiAlign and MaxRoiPool.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::real::Real;
use crate::kernels::regions::{Bin, BinAxis, Cut, Tap, whole_bin};
use crate::ops::case::{Case, CaseInput};
use crate::ops::conv::expect_dim;
use crate::ops::widen::widened;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "MaxRoiPool", versions: &[1, 22], parse: parse_pool },
    OpDef { domain: "", name: "RoiAlign", versions: &[10, 16, 22], parse: parse_align },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<RoiAlign>(bind_align);
    b.step::<MaxRoiPool>(bind_pool);
}

const FLOATS: &[DType] = &[DType::F32, DType::F64, DType::F16, DType::BF16];

/// A number of bins or samples from a model.
fn bins(x: i64, least: i64) -> Result<usize> {
    ensure!((least..=1 << 16).contains(&x), InvalidModel, "{x} bins or samples");
    Ok(x as usize)
}

/// Samples of regions: inputs X `[N, C, H, W]`, corners `[regions, 4]` (x first), and which image each region is of.
#[derive(Clone, Debug, PartialEq)]
pub struct RoiAlign {
    /// The greatest sample of a bin, not the mean.
    pub greatest: bool,
    /// Elements' centres are at halves.
    pub half_pixel: bool,
    /// Rows and columns of bins.
    pub bins: [usize; 2],
    /// Samples along each axis of a bin; 0 for as many as it has elements.
    pub samples: usize,
    /// From corners to elements.
    pub scale: f32,
}

fn parse_align(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    let greatest = match cx.string_or("mode", "avg")?.to_ascii_lowercase().as_str() {
        "avg" => false,
        "max" => true,
        m => bail!(InvalidModel, "mode is '{m}'"),
    };
    // Before version 16 there was no shift by half an element.
    let default = if cx.version < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = match cx.string_or("coordinate_transformation_mode", default)?.to_ascii_lowercase().as_str() {
        "half_pixel" => true,
        "output_half_pixel" => false,
        m => bail!(InvalidModel, "coordinate_transformation_mode is '{m}'"),
    };
    Ok(Arc::new(RoiAlign {
        greatest,
        half_pixel,
        bins: [bins(cx.int_or("output_height", 1)?, 1)?, bins(cx.int_or("output_width", 1)?, 1)?],
        samples: bins(cx.int_or("sampling_ratio", 0)?.max(0), 0)?,
        scale: cx.float_or("spatial_scale", 1.0)?,
    }))
}

/// The result's fact: a picture of `bins` a region and channel.
fn infer_bins(cx: &InferCtx<'_>, columns: i64, bins: [usize; 2]) -> Result<Vec<Fact>> {
    cx.expect_dtype(0, FLOATS)?;
    cx.expect_same_dtype(0, 1)?;
    let (x, rois) = (cx.tensor(0)?, cx.tensor(1)?);
    let channels = match x.dims.as_deref() {
        Some([_, c, _, _]) => c.clone(),
        Some(_) => bail!(InvalidModel, "regions of {x}"),
        None => Dim::Unknown,
    };
    let n = match rois.dims.as_deref() {
        Some([n, four]) => {
            expect_dim("numbers a region", four, &Dim::Known(columns))?;
            n.clone()
        }
        Some(_) => bail!(InvalidModel, "regions {rois}"),
        None => Dim::Unknown,
    };
    Ok(vec![Fact::tensor(x.dtype, vec![n, channels, Dim::of(bins[0]), Dim::of(bins[1])])])
}

impl Op for RoiAlign {
    fn name(&self) -> &'static str {
        "RoiAlign"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(2, &[DType::I64])?;
        match (cx.tensor(2)?.dims.as_deref(), cx.tensor(1)?.dims.as_deref()) {
            (Some([a]), Some([b, _])) => expect_dim("images and regions", a, b)?,
            (Some([_]), _) | (None, _) => {}
            (Some(_), _) => bail!(InvalidModel, "the regions' images must be a list, they are {}", cx.tensor(2)?),
        }
        infer_bins(cx, 4, self.bins)
    }
}

fn bind_align(op: &RoiAlign, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_align)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => align::<f32>(op, cx),
        DType::F64 => align::<f64>(op, cx),
        d => bail!(Unsupported, "RoiAlign of {d}"),
    }
}

/// Regions times groups of channels: tasks, and channels a task. A task does `work` for each channel.
fn by_channels(regions: usize, channels: usize, work: usize) -> (usize, usize) {
    let (groups, per) = split(channels, (32 * 1024 / work.max(1)).max(1));
    (if channels == 0 { 0 } else { regions * groups }, per)
}

fn align<T: Real>(op: &RoiAlign, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let (images, channels, regions) = (x.shape[0], x.shape[1], y.shape[0]);
    let axes = [0, 1].map(|a| BinAxis { size: x.shape[2 + a], bins: op.bins[a], samples: op.samples });
    ensure!(y.is_empty() || axes.iter().all(|a| a.size > 0), InvalidModel, "regions of an empty picture");
    // Scratch: bins and taps of both axes, a line of columns.
    let mut at = [0; 5];
    let mut end = 0usize;
    let mut room = |n: usize, size: usize| -> Result<usize> {
        let from = end;
        let bytes = n.checked_mul(size).filter(|b| *b < isize::MAX as usize / 8);
        end = round_up(from + bytes.ok_or_else(|| err!(OutOfMemory, "samples of a region"))?, ALIGN);
        Ok(from)
    };
    for a in 0..2 {
        let taps = axes[a].most_taps().ok_or_else(|| err!(Unsupported, "{op:?} of a picture {:?}", x.shape))?;
        at[a] = room(axes[a].bins, size_of::<Bin>())?;
        at[2 + a] = room(taps, size_of::<Tap<T>>())?;
    }
    at[4] = room(op.bins[1], size_of::<T>())?;
    let (plane, picture) = (product(&x.shape[2..])?, op.bins[0] * op.bins[1]);
    let each = op.samples.max(2);
    let (tasks, per) = by_channels(regions, channels, picture.saturating_mul(each * each));
    let groups = channels.div_ceil(per);
    let op = op.clone();
    Ok(FnStep::boxed("roi_align", tasks, end, move |args, task, scratch| {
        let (region, first) = (task / groups, task % groups * per);
        // SAFETY: region `region` of its list.
        let (corners, image) = unsafe {
            (std::slice::from_raw_parts(args.input::<T>(1).add(region * 4), 4), *args.input::<i64>(2).add(region))
        };
        ensure!((0..images as i64).contains(&image), Run, "region {region} is of image {image}, of {images}");
        let mut bins: [&[Bin]; 2] = [&[]; 2];
        let mut taps: [&[Tap<T>]; 2] = [&[]; 2];
        let mut samples = Some(1.0);
        for a in 0..2 {
            let (scale, shift) = (T::of(f64::from(op.scale)), T::of(if op.half_pixel { 0.5 } else { 0.0 }));
            let (start, end) = (corners[1 - a] * scale - shift, corners[3 - a] * scale - shift);
            let mut length = end - start;
            if !op.half_pixel && length < T::ONE {
                length = T::ONE;
            }
            let axis = axes[a];
            // SAFETY: this part of the scratch has room for the axis' bins and taps, and nobody else writes there.
            unsafe {
                let (b, t) = (scratch.add(at[a]).cast::<Bin>(), scratch.add(at[2 + a]).cast::<Tap<T>>());
                let n = axis.cut(start, length, b, t);
                samples = samples.zip(n).map(|(a, b)| a * b);
                if n.is_some() {
                    bins[a] = std::slice::from_raw_parts(b, axis.bins);
                    let count = bins[a].last().map_or(0, |b| (b.first + b.count) as usize);
                    taps[a] = std::slice::from_raw_parts(t, count);
                }
            }
        }
        for c in first..channels.min(first + per) {
            // SAFETY: plane c of the image, bins of region and channel (Step::run).
            unsafe {
                let x = args.input::<T>(0).add((image as usize * channels + c) * plane);
                let y = args.output::<T>(0).add((region * channels + c) * picture);
                match samples {
                    // A region that is no number has no values that are.
                    None => (0..picture).for_each(|i| *y.add(i) = T::of(f64::NAN)),
                    Some(samples) => {
                        let cut = Cut { bins, taps, samples, width: axes[1].size };
                        if op.greatest { cut.greatest(x, y) } else { cut.mean(x, y, scratch.add(at[4]).cast()) }
                    }
                }
            }
        }
        Ok(())
    }))
}

/// The greatest elements of regions: inputs X `[N, C, H, W]`, and image and corners `[regions, 5]` (x first).
#[derive(Clone, Debug, PartialEq)]
pub struct MaxRoiPool {
    /// Rows and columns of bins.
    pub bins: [usize; 2],
    /// From corners to elements.
    pub scale: f32,
}

fn parse_pool(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let shape = cx.ints("pooled_shape")?;
    let [h, w] = shape.as_slice() else { bail!(InvalidModel, "pooled_shape is {shape:?}") };
    Ok(Arc::new(MaxRoiPool { bins: [bins(*h, 1)?, bins(*w, 1)?], scale: cx.float_or("spatial_scale", 1.0)? }))
}

impl Op for MaxRoiPool {
    fn name(&self) -> &'static str {
        "MaxRoiPool"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        infer_bins(cx, 5, self.bins)
    }
}

fn bind_pool(op: &MaxRoiPool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_pool)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => pool::<f32>(op, cx),
        DType::F64 => pool::<f64>(op, cx),
        d => bail!(Unsupported, "MaxRoiPool of {d}"),
    }
}

fn pool<T: Real>(op: &MaxRoiPool, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let (images, channels, h, w) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    let (plane, [rows, columns]) = (product(&[h, w])?, op.bins);
    let (tasks, per) = by_channels(y.shape[0], channels, plane.saturating_add(rows * columns));
    let (groups, scale) = (channels.div_ceil(per), op.scale);
    Ok(FnStep::boxed("max_roi_pool", tasks, 0, move |args, task, _| {
        let (region, first) = (task / groups, task % groups * per);
        // SAFETY: region `region` of the list.
        let roi = unsafe { std::slice::from_raw_parts(args.input::<T>(1).add(region * 5), 5) };
        let image = roi[0].to_f64();
        ensure!(image >= 0.0 && image < images as f64, Run, "region {region} is of image {image}, of {images}");
        let round = |v: T| (v.to_f64() * f64::from(scale)).round().clamp(-1e9, 1e9) as i64;
        let [left, top, right, bottom] = [1, 2, 3, 4].map(|i| round(roi[i]));
        let (height, width) = ((bottom - top + 1).max(1), (right - left + 1).max(1));
        for c in first..channels.min(first + per) {
            // SAFETY: plane c of the image, bins of region and channel (Step::run).
            unsafe {
                let x = args.input::<T>(0).add((image as usize * channels + c) * plane);
                let y = args.output::<T>(0).add((region * channels + c) * rows * columns);
                for r in 0..rows {
                    let ys = whole_bin(top, height, r, rows, h);
                    for q in 0..columns {
                        let xs = whole_bin(left, width, q, columns, w);
                        let all = ys.clone().flat_map(|i| xs.clone().map(move |j| i * w + j));
                        // A bin without elements is zero.
                        let most = all.map(|at| *x.add(at)).reduce(T::most);
                        *y.add(r * columns + q) = most.unwrap_or(T::ZERO);
                    }
                }
            }
        }
        Ok(())
    }))
}

pub(super) fn cases() -> Vec<Case> {
    let given = |t: Result<Tensor>| t.map_or(CaseInput::Absent, CaseInput::Given);
    let x = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -10.0, 10.0);
    let rois = |d, n| CaseInput::Random(d, vec![n, 4], 0.0, 16.0);
    let images = |v: &[i64]| given(Tensor::from_slice(&[v.len()], v));
    let align = |name, d, shape: &[usize], of: &[i64]| {
        Case::new("RoiAlign", 22, name, vec![x(d, shape), rois(d, of.len()), images(of)])
            .attr("output_height", Attr::Int(4))
            .attr("output_width", Attr::Int(3))
            .attr("spatial_scale", Attr::Float(0.75))
    };
    let f = DType::F32;
    let pools = given(Tensor::from_slice(&[2, 5], &[1f32, 0.0, 1.0, 6.0, 5.0, 0.0, 3.0, 2.0, 90.0, 3.0]));
    vec![
        align("adaptive", f, &[2, 20, 11, 13], &[0, 1, 1, 0, 0]),
        align("fixed", f, &[1, 3, 7, 9], &[0; 6]).attr("sampling_ratio", Attr::Int(2)),
        align("greatest", f, &[1, 3, 7, 9], &[0; 6]).attr("mode", Attr::String("max".into())),
        align("output_half_pixel", DType::F64, &[1, 3, 7, 9], &[0; 6])
            .attr("coordinate_transformation_mode", Attr::String("output_half_pixel".into())),
        Case { atol: 0.1, rtol: 1e-2, ..align("f16", DType::F16, &[1, 3, 7, 9], &[0; 3]) },
        align("no_regions", f, &[1, 3, 7, 9], &[]),
        Case::new("MaxRoiPool", 22, "f32", vec![x(f, &[2, 5, 8, 9]), pools])
            .attr("pooled_shape", Attr::Ints(vec![3, 2]))
            .attr("spatial_scale", Attr::Float(0.5))
            .exact(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_has_an_image() {
        let op = RoiAlign { greatest: false, half_pixel: true, bins: [2, 2], samples: 0, scale: 1.0 };
        let infer = |images: &[usize]| {
            let facts = [
                Fact::sized(DType::F32, &[1, 3, 7, 9]),
                Fact::sized(DType::F32, &[5, 4]),
                Fact::sized(DType::I64, images),
            ];
            op.infer(&mut InferCtx { inputs: &facts.iter().collect::<Vec<_>>(), outputs: 1 })
        };
        assert!(infer(&[5]).is_ok());
        for wrong in [&[][..], &[4], &[1, 5]] {
            assert!(infer(wrong).is_err(), "{wrong:?}");
        }
    }
}
