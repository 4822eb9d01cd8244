//! DeformConv: the taps of a convolution at places of their own. Samples make columns, a matrix product the result.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx, elements};
use crate::kernels::elem::Number;
use crate::kernels::gemm::{Batch, Bias, Epilogue, Gemm, GemmPtrs, GemmSpec, Strides};
use crate::kernels::gemm_plain::Product;
use crate::kernels::isa::Isa;
use crate::kernels::real::Real;
use crate::kernels::sample::{Gather32, Interpolation, NOWHERE, Outside, Sample, Sampler, Unit, gather};
use crate::ops::case::{Case, CaseInput};
use crate::ops::conv::{expect_dim, parse_groups};
use crate::ops::widen::widened;
use crate::ops::window::{Geometry, Window};
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[OpDef { domain: "", name: "DeformConv", versions: &[19, 22], parse }];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<DeformConv>(bind);
}

/// A convolution whose taps are moved. Inputs X `[N, C, spatial...]`, W `[M, C / groups, kernel...]`, how far each tap is moved
/// along each axis `[N, offset_groups * taps * axes, output...]`, optionally a bias `[M]` and weights of the taps
/// `[N, offset_groups * taps, output...]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeformConv {
    /// How the kernel slides.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
    /// Groups of channels whose taps move together.
    pub offset_groups: usize,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 5)?;
    let offset_groups = cx.int_or("offset_group", 1)?;
    ensure!((1..=1 << 31).contains(&offset_groups), InvalidModel, "offset_group is {offset_groups}");
    let op =
        DeformConv { window: Window::parse(cx)?, groups: parse_groups(cx)?, offset_groups: offset_groups as usize };
    Ok(Arc::new(op))
}

impl Op for DeformConv {
    fn name(&self) -> &'static str {
        "DeformConv"
    }
    fn flops(&self, cx: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        2 * elements(outputs) * (cx.elements(1) / cx.size(1, 0).max(1))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        for i in 1..5 {
            if cx.has(i) {
                cx.expect_same_dtype(0, i)?;
            }
        }
        let (x, w, offset) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let Some(dx) = &x.dims else {
            return Ok(vec![
                offset
                    .dims
                    .as_ref()
                    .map_or(Fact::any_tensor(x.dtype), |d| Fact::tensor(x.dtype, vec![Dim::Unknown; d.len()])),
            ]);
        };
        ensure!(dx.len() >= 3, InvalidModel, "a convolution needs a spatial axis, the rank is {}", dx.len());
        let n = dx.len() - 2;
        let kernel: Vec<Dim> = match (&w.dims, &self.window.kernel) {
            (Some(dw), k) => {
                ensure!(dw.len() == n + 2, InvalidModel, "weights {w} for an input {x}");
                ensure!(k.as_ref().is_none_or(|k| k.len() == n), InvalidModel, "kernel_shape {k:?} for an input {x}");
                for (a, b) in k.iter().flatten().zip(&dw[2..]) {
                    expect_dim("kernel_shape and weights differ", &Dim::Known(*a), b)?;
                }
                expect_dim("input channels and weights differ", &dx[1], &(dw[1].clone() * Dim::of(self.groups)))?;
                if let Some(m) = dw[0].known() {
                    ensure!(m % self.groups as i64 == 0, InvalidModel, "{} groups of {m} channels", self.groups);
                }
                dw[2..].to_vec()
            }
            (None, Some(k)) => k.iter().map(|&k| Dim::Known(k)).collect(),
            (None, None) => vec![Dim::Unknown; n],
        };
        if let Some(c) = dx[1].known() {
            ensure!(c % self.offset_groups as i64 == 0, InvalidModel, "{} groups of {c} channels", self.offset_groups);
        }
        let channels = w.dims.as_ref().map_or(Dim::Unknown, |d| d[0].clone());
        let mut out = vec![dx[0].clone(), channels.clone()];
        out.extend(self.window.output_dims(&dx[2..], &kernel)?);
        let rows = Dim::product(&kernel) * Dim::of(self.offset_groups);
        let check = |what: &str, d: &Option<Vec<Dim>>, rows: Dim| -> Result<()> {
            let Some(d) = d else { return Ok(()) };
            ensure!(d.len() == out.len(), InvalidModel, "{what}: {} axes for an input {x}", d.len());
            expect_dim(what, &d[1], &rows)?;
            d.iter().zip(&out).enumerate().filter(|(i, _)| *i != 1).try_for_each(|(_, (a, b))| expect_dim(what, a, b))
        };
        check("offsets do not fit", &offset.dims, rows.clone() * Dim::of(n))?;
        if let Some(m) = cx.opt_tensor(4)? {
            check("the mask does not fit", &m.dims, rows)?;
        }
        if let Some(d) = cx.opt_tensor(3)?.and_then(|b| b.dims.as_ref()) {
            ensure!(d.len() == 1, InvalidModel, "a bias of rank {}", d.len());
            expect_dim("bias and weights differ", &d[0], &channels)?;
        }
        Ok(vec![Fact::tensor(x.dtype, out)])
    }
}

fn bind(op: &DeformConv, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => bind_as::<f32>(op, cx),
        DType::F64 => bind_as::<f64>(op, cx),
        d => bail!(Unsupported, "DeformConv of {d}"),
    }
}

/// A float whose columns can be sampled and multiplied.
trait Column: Real + Sample {
    /// Samples `planes` planes with one table.
    /// # Safety
    /// As [`Gather32::run`].
    unsafe fn sample(isa: Isa, g: &Row<Self>);
}

/// What [`Gather32`] has, of either type.
struct Row<T> {
    x: *const T,
    y: *mut T,
    planes: usize,
    x_plane: usize,
    y_plane: usize,
    points: usize,
    taps: usize,
    row: usize,
    index: *const i32,
    weight: *const T,
}

impl Column for f32 {
    unsafe fn sample(isa: Isa, g: &Row<f32>) {
        let Row { x, y, planes, x_plane, y_plane, points, taps, row, index, weight } = *g;
        // SAFETY: the caller's.
        unsafe { Gather32 { x, y, planes, x_plane, y_plane, points, taps, row, index, weight }.run(isa) }
    }
}

impl Column for f64 {
    unsafe fn sample(_: Isa, g: &Row<f64>) {
        for c in 0..g.planes {
            // SAFETY: the caller's.
            unsafe {
                let (x, y) = (g.x.add(c * g.x_plane), g.y.add(c * g.y_plane));
                gather(x, y, g.points, g.taps, g.row, g.index, g.weight);
            }
        }
    }
}

enum Multiply {
    Gemm(Gemm),
    Plain(Product, (usize, usize)),
}

/// An image at a time: phases that make its columns `[C, taps, places]`, then those of the product.
struct DeformStep<T> {
    isa: Isa,
    sampler: Sampler,
    window: Geometry,
    axes: usize,
    images: usize,
    channels: usize,
    out_channels: usize,
    groups: usize,
    offset_groups: usize,
    /// Of the kernel, and of a sample.
    taps: usize,
    corners: usize,
    places: usize,
    plane: usize,
    row: usize,
    tables: usize,
    column_bytes: usize,
    product: Multiply,
    _type: std::marker::PhantomData<T>,
}

fn bind_as<T: Column>(op: &DeformConv, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, w, y) = (cx.input(0)?, cx.input(1)?, cx.output(0)?);
    let window = op.window.geometry(&x.shape[2..], &w.shape[2..], &y.shape[2..])?;
    let axes = x.shape.len() - 2;
    let sampler = Sampler {
        sizes: x.shape[2..].into(),
        interpolation: Interpolation::Linear,
        outside: Outside::Zeros,
        unit: Unit::Elements,
    };
    let Some(corners) = sampler.taps() else { bail!(Unsupported, "DeformConv of planes {:?}", &x.shape[2..]) };
    let (channels, out_channels, groups) = (x.shape[1], y.shape[1], op.groups);
    let (taps, places, plane) = (product(&w.shape[2..])?, product(&y.shape[2..])?, product(&x.shape[2..])?);
    ensure!(
        channels.is_multiple_of(op.offset_groups)
            && channels.is_multiple_of(groups)
            && out_channels.is_multiple_of(groups),
        InvalidModel,
        "{groups} and {} groups of {channels} channels",
        op.offset_groups
    );
    ensure!(plane > 0 || y.is_empty(), InvalidModel, "samples of an empty plane {:?}", x.shape);
    let (m, k) = (out_channels / groups, product(&[channels / groups, taps])?);
    let column_bytes = product(&[channels, taps, places, size_of::<T>()])?;
    let product = if T::ELEM == f32::ELEM {
        let batch = Batch {
            dims: [1, 1, 1, groups],
            a: [0, 0, 0, m * k],
            b: [0, 0, 0, k * places],
            c: [0, 0, 0, m * places],
            bias: [0, 0, 0, m],
            ..Batch::default()
        };
        let bias = if cx.opt_input(3).is_some() { Bias::Row } else { Bias::None };
        let epilogue = Epilogue { bias, ..Epilogue::default() };
        Multiply::Gemm(Gemm::new(cx.isa, GemmSpec { batch, epilogue, ..GemmSpec::dense(m, places, k) })?)
    } else {
        let p = Product { n: places, k, a: Strides::rows_of(k), b: Strides::rows_of(places) };
        Multiply::Plain(p, split(out_channels, (32 * 1024 / places.saturating_mul(k).max(1)).max(1)))
    };
    let row = (4096 / corners).clamp(16, 512).min(places.next_multiple_of(16)).next_multiple_of(16).max(16);
    Ok(Box::new(DeformStep::<T> {
        isa: cx.isa,
        sampler,
        window,
        axes,
        images: if y.is_empty() { 0 } else { y.shape[0] },
        channels,
        out_channels,
        groups,
        offset_groups: op.offset_groups,
        taps,
        corners,
        places,
        plane,
        row,
        tables: places.div_ceil(row),
        column_bytes,
        product,
        _type: std::marker::PhantomData,
    }))
}

impl<T: Column> DeformStep<T> {
    fn per_image(&self) -> usize {
        1 + match &self.product {
            Multiply::Gemm(g) => g.phases(),
            Multiply::Plain(..) => 1,
        }
    }
    fn entries(&self) -> usize {
        self.corners * self.row
    }
    /// The columns of one tap and one run of places, for the channels of one offset group.
    unsafe fn columns(&self, args: &StepArgs<'_>, image: usize, task: usize, scratch: *mut u8) {
        let (table, rest) = (task % self.tables, task / self.tables);
        let (tap, group) = (rest % self.taps, rest / self.taps);
        let first = table * self.row;
        let n = self.row.min(self.places - first);
        let (g, entries) = (&self.window, self.entries());
        let [_, kh, kw] = g.kernel;
        let tap_at = [tap / (kh * kw), tap / kw % kh, tap % kw];
        let moved = ((image * self.offset_groups + group) * self.taps + tap) * self.axes;
        let each = self.channels / self.offset_groups;
        // SAFETY: the scratch has room for the table and the places; the operands have the shapes of the step.
        unsafe {
            let index = scratch.cast::<i32>();
            let weight = scratch.add(round_up(entries * 4, ALIGN)).cast::<T>();
            let grid = weight.add(entries);
            if n < self.row {
                for i in 0..entries {
                    *index.add(i) = NOWHERE;
                    *weight.add(i) = T::ZERO;
                }
            }
            for p in 0..n {
                let at = first + p;
                let [_, oh, ow] = g.output;
                let out = [at / (oh * ow), at / ow % oh, at % ow];
                for a in 0..self.axes {
                    let d = 3 - self.axes + a;
                    let base = (out[d] * g.stride[d] + tap_at[d] * g.dilation[d]) as f64 - g.pad[d] as f64;
                    let offset = *args.input::<T>(2).add((moved + a) * self.places + at);
                    *grid.add(p * self.axes + self.axes - 1 - a) = <T as Real>::of(base) + offset;
                }
            }
            self.sampler.table(grid.cast_const(), n, self.row, index, weight);
            let mask = args.input::<T>(4);
            if !mask.is_null() {
                let mask = mask.add(((image * self.offset_groups + group) * self.taps + tap) * self.places + first);
                for c in 0..self.corners {
                    for p in 0..n {
                        *weight.add(c * self.row + p) = *weight.add(c * self.row + p) * *mask.add(p);
                    }
                }
            }
            let channel = group * each;
            T::sample(
                self.isa,
                &Row {
                    x: args.input::<T>(0).add((image * self.channels + channel) * self.plane),
                    y: args.workspace::<T>().add((channel * self.taps + tap) * self.places + first),
                    planes: each,
                    x_plane: self.plane,
                    y_plane: self.taps * self.places,
                    points: n,
                    taps: self.corners,
                    row: self.row,
                    index,
                    weight,
                },
            );
        }
    }
}

impl<T: Column> Step for DeformStep<T> {
    fn phases(&self) -> usize {
        (self.images * self.per_image()).max(1)
    }
    fn tasks(&self, phase: usize) -> usize {
        match (phase % self.per_image(), &self.product) {
            _ if self.images == 0 => 0,
            (0, _) if self.channels == 0 => 0,
            (0, _) => self.offset_groups * self.taps * self.tables,
            (p, Multiply::Gemm(g)) => g.tasks(p - 1),
            (_, Multiply::Plain(_, split)) => split.0,
        }
    }
    fn scratch_bytes(&self) -> usize {
        let gemm = match &self.product {
            Multiply::Gemm(g) => g.scratch_bytes(),
            Multiply::Plain(..) => 0,
        };
        let table = round_up(self.entries() * 4, ALIGN) + (self.entries() + self.row * self.axes) * size_of::<T>();
        gemm.max(table)
    }
    fn workspace_bytes(&self) -> usize {
        let gemm = match &self.product {
            Multiply::Gemm(g) => g.workspace_bytes(),
            Multiply::Plain(..) => 0,
        };
        round_up(self.column_bytes, ALIGN).saturating_add(gemm)
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let (image, p) = (phase / self.per_image(), phase % self.per_image());
        if p == 0 {
            // SAFETY: the executor's contract (Step::run).
            unsafe { self.columns(args, image, task, scratch) };
            return Ok(());
        }
        let y = args.output::<T>(0).wrapping_add(image * self.out_channels * self.places);
        match &self.product {
            Multiply::Gemm(g) => {
                let ptrs = GemmPtrs {
                    a: args.input(1),
                    b: args.workspace::<f32>(),
                    c: y.cast(),
                    bias: args.input(3),
                    residual: std::ptr::null(),
                };
                let rest = args.workspace::<u8>().wrapping_add(round_up(self.column_bytes, ALIGN));
                // SAFETY: the product was made from these operands' shapes; the workspace holds the columns and what it needs.
                unsafe { g.run(p - 1, task, &ptrs, rest, scratch) };
            }
            Multiply::Plain(product, (_, per)) => {
                let m = self.out_channels / self.groups;
                for c in task * per..self.out_channels.min((task + 1) * per) {
                    // SAFETY: row c of the weights and of the result, the columns of its group.
                    unsafe {
                        let to = y.add(c * self.places);
                        let columns = args.workspace::<T>().add(c / m * product.k * self.places);
                        product.run(1, args.input::<T>(1).add(c * product.k), columns, to);
                        let bias = args.input::<T>(3);
                        if !bias.is_null() {
                            (0..self.places).for_each(|i| *to.add(i) += *bias.add(c));
                        }
                    }
                }
            }
        }
        Ok(())
    }
    fn kernel(&self) -> &str {
        "deform_conv"
    }
}

pub(super) fn cases() -> Vec<Case> {
    let r = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -2.0, 2.0);
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let case = |name, d, shapes: &[&[usize]]| {
        let c = Case::new("DeformConv", 22, name, shapes.iter().map(|s| r(d, s)).collect());
        // Sums of some hundred products with numbers up to 2.
        Case { atol: 1e-3, ..c }
    };
    let f = DType::F32;
    vec![
        case("plain", f, &[&[2, 8, 9, 11], &[6, 8, 3, 3], &[2, 18, 7, 9], &[6]]),
        case("masked", f, &[&[1, 4, 9, 9], &[6, 2, 3, 3], &[1, 36, 5, 5], &[6], &[1, 18, 5, 5]])
            .attr("group", Attr::Int(2))
            .attr("offset_group", Attr::Int(2))
            .attr("strides", ints(&[2, 2]))
            .attr("pads", ints(&[1; 4])),
        case("f64", DType::F64, &[&[2, 4, 6, 6], &[2, 2, 2, 2], &[2, 8, 4, 4], &[2]])
            .attr("group", Attr::Int(2))
            .attr("dilations", ints(&[2, 2])),
        case("volume", f, &[&[1, 2, 4, 5, 6], &[3, 2, 2, 2, 2], &[1, 24, 3, 4, 5]]),
        case("line", f, &[&[1, 2, 30], &[3, 2, 3], &[1, 3, 28]]),
        Case { rtol: 1e-2, atol: 1e-1, ..case("f16", DType::F16, &[&[1, 4, 6, 6], &[2, 4, 2, 2], &[1, 8, 5, 5]]) },
        case("no_images", f, &[&[0, 4, 6, 6], &[2, 4, 2, 2], &[0, 8, 5, 5]]),
    ]
}
