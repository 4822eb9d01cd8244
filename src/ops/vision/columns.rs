//! Col2Im.

use crate::backend::cpu::{Arg, CpuBindings, CpuCtx, EagerCtx, Values};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::col2im::{Col2Im as Axes, Col2ImNd, Sum, Truth};
use crate::ops::case::{Case, CaseInput};
use crate::ops::widen::widened;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[OpDef { domain: "", name: "Col2Im", versions: &[18], parse }];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Col2Im>(bind);
    b.eager::<Col2Im>(strings);
}

/// Adds columns `[N, C * block, places]` into images `[N, C, image...]`; input 1 has the image's sizes, input 2 the block's.
#[derive(Clone, Debug, PartialEq)]
pub struct Col2Im {
    /// Steps; empty for ones.
    pub strides: Vec<i64>,
    /// Distances between taps; empty for ones.
    pub dilations: Vec<i64>,
    /// All begins, then all ends; empty for none.
    pub pads: Vec<i64>,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    let ints = |name| Ok::<_, crate::Error>(cx.ints_opt(name)?.unwrap_or_default());
    let op = Col2Im { strides: ints("strides")?, dilations: ints("dilations")?, pads: ints("pads")? };
    let limit = i64::from(i32::MAX);
    let fits = op.strides.iter().chain(&op.dilations).all(|x| (1..=limit).contains(x));
    ensure!(fits && op.pads.iter().all(|x| (0..=limit).contains(x)), InvalidModel, "{op:?} is out of range");
    Ok(Arc::new(op))
}

impl Op for Col2Im {
    fn name(&self) -> &'static str {
        "Col2Im"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, image, block) = (cx.tensor(0)?, cx.list(1)?, cx.list(2)?);
        let (n, c) = match &x.dims {
            Some(d) => match d.as_slice() {
                [n, c, _] => (n.clone(), c.clone()),
                _ => bail!(InvalidModel, "Col2Im needs three axes, the input is {x}"),
            },
            None => (Dim::Unknown, Dim::Unknown),
        };
        let rank = image.count().size().or(block.count().size()).filter(|r| *r <= 64);
        let Some(rank) = rank else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let mut out = vec![n, Dim::Unknown];
        if let Some(b) = block.ints() {
            let taps = b.iter().try_fold(1i64, |a, &k| a.checked_mul(k).filter(|_| k > 0));
            let Some(taps) = taps else { bail!(InvalidModel, "the block is {b:?}") };
            ensure!(c.known().is_none_or(|c| c % taps == 0), InvalidModel, "{c} rows are not blocks of {taps}");
            out[1] = c.floor_div(&Dim::Known(taps));
        }
        let sizes = image.int_dims().unwrap_or_else(|| vec![Dim::Unknown; rank]);
        ensure!(sizes.iter().all(|d| d.known().is_none_or(|n| n >= 0)), InvalidModel, "the image is {sizes:?}");
        out.extend(sizes);
        Ok(vec![Fact::tensor(x.dtype, out)])
    }
}

impl Col2Im {
    /// The axes of the image; `pair` adds one of two parts of a number.
    fn axes(&self, image: &[usize], block: &[i64], pair: bool) -> Result<Vec<Axes>> {
        let n = image.len();
        let fits = |len: usize, want: usize| len == 0 || len == want;
        ensure!(
            block.len() == n
                && fits(self.strides.len(), n)
                && fits(self.dilations.len(), n)
                && fits(self.pads.len(), 2 * n),
            InvalidModel,
            "a block of {} axes and {self:?} for an image of {n}",
            block.len()
        );
        let one = |places, image, kernel, stride, dilation, pad| {
            let last = |x| [1, 1, x];
            Axes {
                places: last(places),
                image: last(image),
                kernel: last(kernel),
                stride: last(stride),
                dilation: last(dilation),
                pad: [0, 0, pad],
            }
        };
        let mut axes = Vec::with_capacity(n + 1);
        for d in 0..n {
            let at = |list: &[i64], i: usize, default| list.get(i).copied().unwrap_or(default);
            let (stride, dilation) = (at(&self.strides, d, 1), at(&self.dilations, d, 1));
            let (p0, p1) = (at(&self.pads, d, 0), at(&self.pads, n + d, 0));
            let reach = (block[d] - 1).checked_mul(dilation).and_then(|r| r.checked_add(1));
            let room = reach.and_then(|r| (image[d] as i64).checked_add(p0 + p1)?.checked_sub(r)).filter(|r| *r >= 0);
            let Some(room) = room else { bail!(InvalidModel, "a block of {} in an image of {}", block[d], image[d]) };
            let places = room / stride + 1;
            let size = |x: i64| x as usize;
            axes.push(one(size(places), image[d], size(block[d]), size(stride), size(dilation), size(p0)));
        }
        if pair {
            axes.push(one(2, 2, 1, 1, 1, 0));
        }
        Ok(axes)
    }
}

/// Strings, which have no sum: no two may come to lie on one place.
fn strings(op: &Col2Im, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let [_, _, block] = args else { bail!(InvalidModel, "Col2Im takes three inputs") };
    let at = |list: &[i64], i: usize| list.get(i).copied().unwrap_or(1);
    for (i, &b) in block.tensor()?.to_i64s()?.iter().enumerate() {
        let reach = (b - 1).saturating_mul(at(&op.dilations, i));
        ensure!(reach < at(&op.strides, i), Unsupported, "Col2Im of strings in blocks that overlap");
    }
    crate::ops::movement::strings::run(op, cx, args, bind)
}

fn bind(op: &Col2Im, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => bind_as::<f32>(op, cx, false),
        DType::F64 => bind_as::<f64>(op, cx, false),
        DType::C64 => bind_as::<f32>(op, cx, true),
        DType::C128 => bind_as::<f64>(op, cx, true),
        DType::I8 | DType::U8 => bind_as::<u8>(op, cx, false),
        DType::I16 | DType::U16 => bind_as::<u16>(op, cx, false),
        DType::I32 | DType::U32 => bind_as::<u32>(op, cx, false),
        DType::I64 | DType::U64 => bind_as::<u64>(op, cx, false),
        DType::Bool => bind_as::<Truth>(op, cx, false),
        d => bail!(Unsupported, "Col2Im of {d}"),
    }
}

fn bind_as<T: Sum>(op: &Col2Im, cx: &CpuCtx<'_>, pair: bool) -> Result<Box<dyn Step>> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let Some(block) = cx.constant(2) else { bail!(Unsupported, "the block must be known when the plan is made") };
    let mut axes = op.axes(&y.shape[2..], &block.to_i64s()?, pair)?;
    let all = |f: fn(&Axes) -> usize| product(&axes.iter().map(f).collect::<Vec<_>>());
    let (taps, places, image) = (all(|a| a.kernel[2])?, all(|a| a.places[2])?, all(|a| a.image[2])?);
    let parts = if pair { 2 } else { 1 };
    ensure!(
        product(&[places])? == product(&[x.shape[2], parts])?,
        InvalidModel,
        "{} places where the image has {}",
        x.shape[2],
        places / parts
    );
    let column = product(&[taps, places])?;
    // The last three axes in one, the others around it.
    let inner = axes.split_off(axes.len().saturating_sub(3));
    let pick = |f: fn(&Axes) -> usize, none: usize| {
        let mut v = [none; 3];
        inner.iter().enumerate().for_each(|(i, a)| v[3 - inner.len() + i] = f(a));
        v
    };
    let inner = Axes {
        places: pick(|a| a.places[2], 1),
        image: pick(|a| a.image[2], 1),
        kernel: pick(|a| a.kernel[2], 1),
        stride: pick(|a| a.stride[2], 1),
        dilation: pick(|a| a.dilation[2], 1),
        pad: pick(|a| a.pad[2], 0),
    };
    let kernel = Col2ImNd { inner, outer: axes };
    if !kernel.fits() {
        return Err(err!(InvalidModel, "{op:?} is out of range"));
    }
    let planes = product(&[y.shape[0], y.shape[1]])?;
    let (tasks, per) = split(planes, (32 * 1024 / column.max(image).max(1)).max(1));
    Ok(FnStep::boxed("col2im", tasks, 0, move |args, task, _| {
        for i in task * per..planes.min((task + 1) * per) {
            // SAFETY: plane i of the columns and of the images (Step::run).
            unsafe {
                let to = args.output::<T>(0).add(i * image);
                (0..image).for_each(|k| *to.add(k) = T::NOTHING);
                if image > 0 {
                    kernel.add(args.input::<T>(0).add(i * column), to);
                }
            }
        }
        Ok(())
    }))
}

pub(super) fn cases() -> Vec<Case> {
    let list = |v: &[i64]| Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant);
    let case = |name, d, shape: &[usize], image: &[i64], block: &[i64]| {
        let x = CaseInput::Random(d, shape.to_vec(), -50.0, 50.0);
        Case::new("Col2Im", 18, name, vec![x, list(image), list(block)])
    };
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    vec![
        case("overlapping", DType::F32, &[2, 18, 12], &[5, 6], &[3, 3]),
        case("strided", DType::F64, &[1, 12, 6], &[5, 7], &[2, 3])
            .attr("strides", ints(&[2, 2]))
            .attr("pads", ints(&[0, 1, 0, 0])),
        case("dilated_f16", DType::F16, &[1, 4, 4], &[4, 4], &[2, 2]).attr("dilations", ints(&[2, 2])),
        case("line", DType::I32, &[1, 6, 4], &[6], &[3]).exact(),
        case("four_axes", DType::U8, &[1, 16, 16], &[3, 3, 3, 3], &[2, 2, 2, 2]).exact(),
        case("empty", DType::F32, &[0, 4, 4], &[3, 3], &[2, 2]),
        case("truth", DType::Bool, &[1, 4, 4], &[3, 3], &[2, 2]).exact(),
    ]
}
