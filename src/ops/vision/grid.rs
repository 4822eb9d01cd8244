//! GridSample and AffineGrid.

use crate::backend::cpu::{Arg, CpuBindings, CpuCtx, EagerCtx, Values};
use crate::backend::step::split;
use crate::backend::{FnStep, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::elem::Number;
use crate::kernels::real::Real;
use crate::kernels::sample::{self, Gather32, Interpolation, NOWHERE, Outside, Sample, Sampler, Truth, Unit};
use crate::ops::case::{Case, CaseInput};
use crate::ops::widen::widened;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "AffineGrid", versions: &[20], parse: parse_affine },
    OpDef { domain: "", name: "GridSample", versions: &[16, 20, 22], parse: parse_sample },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<AffineGrid>(bind_affine);
    b.step::<GridSample>(bind_sample);
    b.eager::<GridSample>(strings);
}

/// Samples input 0 `[N, C, spatial...]` at the places in input 1 `[N, output..., axes]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GridSample {
    /// How a value is made from its neighbours.
    pub interpolation: Interpolation,
    /// What lies outside.
    pub outside: Outside,
    /// -1 and 1 are the centres of the outermost elements.
    pub align_corners: bool,
}

fn parse_sample(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let interpolation = match cx.string_or("mode", "linear")?.as_str() {
        "nearest" => Interpolation::Nearest,
        // Version 16 has the longer names.
        "linear" | "bilinear" => Interpolation::Linear,
        "cubic" | "bicubic" => Interpolation::Cubic,
        m => bail!(InvalidModel, "mode is '{m}'"),
    };
    let outside = match cx.string_or("padding_mode", "zeros")?.as_str() {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        m => bail!(InvalidModel, "padding_mode is '{m}'"),
    };
    Ok(Arc::new(GridSample { interpolation, outside, align_corners: cx.flag("align_corners", false)? }))
}

impl Op for GridSample {
    fn name(&self) -> &'static str {
        "GridSample"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(1, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        let (x, grid) = (cx.tensor(0)?, cx.tensor(1)?);
        if let (Some(a), Some(b)) = (x.rank(), grid.rank()) {
            ensure!(a == b && a >= 3, InvalidModel, "a grid {grid} for an input {x}");
        }
        let (n, c) = match x.dims.as_deref() {
            Some([n, c, ..]) => (n.clone(), c.clone()),
            Some(_) => bail!(InvalidModel, "GridSample needs a spatial axis, the input is {x}"),
            None => (Dim::Unknown, Dim::Unknown),
        };
        let Some(g) = &grid.dims else {
            return Ok(vec![match x.rank() {
                Some(r) => Fact::tensor(x.dtype, [n, c].into_iter().chain(vec![Dim::Unknown; r - 2]).collect()),
                None => Fact::any_tensor(x.dtype),
            }]);
        };
        ensure!(g.len() >= 3, InvalidModel, "a grid {grid}");
        let axes = g.len() - 2;
        ensure!(g[axes + 1].known().is_none_or(|a| a == axes as i64), InvalidModel, "a grid {grid} for {axes} axes");
        if let (Some(a), Some(b)) = (n.known(), g[0].known()) {
            ensure!(a == b, InvalidModel, "{b} grids for {a} images");
        }
        Ok(vec![Fact::tensor(x.dtype, [n, c].into_iter().chain(g[1..=axes].iter().cloned()).collect())])
    }
}

/// Sizes of a bound GridSample.
struct Plan {
    sampler: Sampler,
    images: usize,
    channels: usize,
    plane: usize,
    points: usize,
    taps: usize,
    /// Places of one table, a multiple of 16.
    row: usize,
    tables: usize,
    tasks: usize,
    per: usize,
}

impl Plan {
    fn new(op: &GridSample, cx: &CpuCtx<'_>) -> Result<Plan> {
        let (x, y) = (cx.input(0)?, cx.output(0)?);
        let unit = if op.align_corners { Unit::Centers } else { Unit::Edges };
        let sizes = x.shape[2..].into();
        let sampler = Sampler { sizes, interpolation: op.interpolation, outside: op.outside, unit };
        let Some(taps) = sampler.taps() else { bail!(Unsupported, "{op:?} in planes of {:?}", &x.shape[2..]) };
        let (images, channels, points) = (y.shape[0], y.shape[1], product(&y.shape[2..])?);
        ensure!(
            points == 0 || images == 0 || x.shape[0] == images,
            InvalidModel,
            "{images} grids for {} images",
            x.shape[0]
        );
        ensure!(!x.shape[2..].contains(&0) || y.is_empty(), InvalidModel, "samples of an empty plane {:?}", x.shape);
        let row = (4096 / taps).clamp(16, 512).next_multiple_of(16).min(points.next_multiple_of(16)).max(16);
        let tables = points.div_ceil(row);
        let work = row.saturating_mul(taps).saturating_mul(channels.max(8));
        let n = if y.is_empty() { 0 } else { images * tables };
        let (tasks, per) = split(n, (64 * 1024 / work.max(1)).max(1));
        Ok(Plan { sampler, images, channels, plane: product(&x.shape[2..])?, points, taps, row, tables, tasks, per })
    }
    fn scratch<G>(&self) -> Result<usize> {
        let entries = product(&[self.taps, self.row])?;
        Ok(round_up(entries * 4, ALIGN) + entries * size_of::<G>())
    }
    /// Makes the tables of a task one by one and gives them to `f`, with image, first point and number of points.
    unsafe fn each<G: Real>(
        &self,
        args: &StepArgs<'_>,
        task: usize,
        scratch: *mut u8,
        mut f: impl FnMut(usize, usize, usize, *const i32, *const G),
    ) {
        let entries = self.taps * self.row;
        let index = scratch.cast::<i32>();
        let rank = self.sampler.sizes.len();
        for t in task * self.per..(self.images * self.tables).min((task + 1) * self.per) {
            let (image, first) = (t / self.tables, t % self.tables * self.row);
            let n = self.row.min(self.points - first);
            // SAFETY: the scratch has room for the table; the grid has the points.
            unsafe {
                let weight = scratch.add(round_up(entries * 4, ALIGN)).cast::<G>();
                if n < self.row {
                    for i in 0..entries {
                        *index.add(i) = NOWHERE;
                        *weight.add(i) = G::ZERO;
                    }
                }
                let grid = args.input::<G>(1).add((image * self.points + first) * rank);
                self.sampler.table(grid, n, self.row, index, weight);
                f(image, first, n, index, weight);
            }
        }
    }
}

fn bind_sample(op: &GridSample, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let narrow = |d: DType| matches!(d, DType::F16 | DType::BF16);
    if (narrow(x.dtype) || narrow(grid.dtype))
        && let Some(s) = widened(op, cx, bind_sample)?
    {
        return Ok(s);
    }
    match grid.dtype {
        DType::F32 => bind_by::<f32>(op, cx),
        DType::F64 => bind_by::<f64>(op, cx),
        d => bail!(InvalidModel, "a grid of {d}"),
    }
}

/// Strings, which can be picked but not mixed.
fn strings(op: &GridSample, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    ensure!(op.interpolation == Interpolation::Nearest, Unsupported, "GridSample of strings, but to the nearest");
    crate::ops::movement::strings::run(op, cx, args, bind_sample)
}

fn bind_by<G: Real>(op: &GridSample, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let plan = Plan::new(op, cx)?;
    let d = cx.input(0)?.dtype;
    if op.interpolation == Interpolation::Nearest {
        return match d.size() {
            Some(1) => picked::<u8, G>(plan),
            Some(2) => picked::<u16, G>(plan),
            Some(4) => picked::<u32, G>(plan),
            Some(8) => picked::<u64, G>(plan),
            Some(16) => picked::<u128, G>(plan),
            _ => bail!(Unsupported, "GridSample of {d}"),
        };
    }
    match d {
        DType::F32 if G::ELEM == f32::ELEM => vectors(plan, cx),
        DType::F32 => gathered::<f32, G>(plan),
        DType::F64 => gathered::<f64, G>(plan),
        DType::I8 => gathered::<i8, G>(plan),
        DType::I16 => gathered::<i16, G>(plan),
        DType::I32 => gathered::<i32, G>(plan),
        DType::I64 => gathered::<i64, G>(plan),
        DType::U8 => gathered::<u8, G>(plan),
        DType::U16 => gathered::<u16, G>(plan),
        DType::U32 => gathered::<u32, G>(plan),
        DType::U64 => gathered::<u64, G>(plan),
        DType::Bool => gathered::<Truth, G>(plan),
        DType::C64 => gathered::<[f32; 2], G>(plan),
        DType::C128 => gathered::<[f64; 2], G>(plan),
        d => bail!(Unsupported, "GridSample of {d}"),
    }
}

/// f32 by an f32 grid.
fn vectors(p: Plan, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let isa = cx.isa;
    Ok(FnStep::boxed("grid_sample", p.tasks, p.scratch::<f32>()?, move |args, task, scratch| {
        // SAFETY: the plan was made for these operands (Step::run); channels of one image, points of one table.
        unsafe {
            p.each::<f32>(args, task, scratch, |image, first, points, index, weight| {
                let g = Gather32 {
                    x: args.input::<f32>(0).add(image * p.channels * p.plane),
                    y: args.output::<f32>(0).add(image * p.channels * p.points + first),
                    planes: p.channels,
                    x_plane: p.plane,
                    y_plane: p.points,
                    points,
                    taps: p.taps,
                    row: p.row,
                    index,
                    weight,
                };
                g.run(isa);
            });
        }
        Ok(())
    }))
}

fn gathered<T: Sample, G: Real>(p: Plan) -> Result<Box<dyn Step>> {
    Ok(FnStep::boxed("grid_sample__scalar", p.tasks, p.scratch::<G>()?, move |args, task, scratch| {
        // SAFETY: as above.
        unsafe {
            p.each::<G>(args, task, scratch, |image, first, points, index, weight| {
                for c in image * p.channels..(image + 1) * p.channels {
                    let (x, y) = (args.input::<T>(0).add(c * p.plane), args.output::<T>(0).add(c * p.points + first));
                    sample::gather(x, y, points, p.taps, p.row, index, weight);
                }
            });
        }
        Ok(())
    }))
}

fn picked<T: Copy + Default + 'static, G: Real>(p: Plan) -> Result<Box<dyn Step>> {
    Ok(FnStep::boxed("grid_sample_nearest", p.tasks, p.scratch::<G>()?, move |args, task, scratch| {
        // SAFETY: as above.
        unsafe {
            p.each::<G>(args, task, scratch, |image, first, points, index, _| {
                for c in image * p.channels..(image + 1) * p.channels {
                    let (x, y) = (args.input::<T>(0).add(c * p.plane), args.output::<T>(0).add(c * p.points + first));
                    sample::pick(x, y, points, index);
                }
            });
        }
        Ok(())
    }))
}

/// The places of an affine map: input 0 has its matrices `[N, 2, 3]` (or `[N, 3, 4]`), input 1 the size `[N, C, H, W]` (or
/// `[N, C, D, H, W]`) of the picture that is made.
#[derive(Clone, Debug, PartialEq)]
pub struct AffineGrid {
    /// -1 and 1 are the centres of the outermost elements.
    pub align_corners: bool,
}

fn parse_affine(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(AffineGrid { align_corners: cx.flag("align_corners", false)? }))
}

impl Op for AffineGrid {
    fn name(&self) -> &'static str {
        "AffineGrid"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        let (theta, size) = (cx.tensor(0)?, cx.list(1)?);
        let n = match theta.dims.as_deref() {
            Some([n, r, c]) => {
                if let (Some(r), Some(c)) = (r.known(), c.known()) {
                    ensure!((r, c) == (2, 3) || (r, c) == (3, 4), InvalidModel, "matrices {theta}");
                }
                n.clone()
            }
            Some(_) => bail!(InvalidModel, "matrices {theta}"),
            None => Dim::Unknown,
        };
        let rank = match size.int_dims() {
            Some(s) => {
                ensure!(matches!(s.len(), 4 | 5), InvalidModel, "a size of {} numbers", s.len());
                ensure!(s.iter().all(|d| d.known().is_none_or(|n| n >= 0)), InvalidModel, "the size is {s:?}");
                if let (Some(a), Some(b)) = (n.known(), s[0].known()) {
                    ensure!(a == b, InvalidModel, "{a} matrices for {b} pictures");
                }
                let axes = s.len() - 2;
                let dims = std::iter::once(n).chain(s[2..].iter().cloned()).chain([Dim::of(axes)]);
                return Ok(vec![Fact::tensor(theta.dtype, dims.collect())]);
            }
            None => size.count().size().filter(|r| matches!(r, 4 | 5)),
        };
        Ok(vec![match rank {
            Some(r) => {
                let mut dims = vec![Dim::Unknown; r];
                (dims[0], dims[r - 1]) = (n, Dim::of(r - 2));
                Fact::tensor(theta.dtype, dims)
            }
            None => Fact::any_tensor(theta.dtype),
        }])
    }
}

fn bind_affine(op: &AffineGrid, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_affine)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => affine::<f32>(op, cx),
        DType::F64 => affine::<f64>(op, cx),
        d => bail!(Unsupported, "AffineGrid of {d}"),
    }
}

/// Computed in f64, rounded once.
fn affine<T: Real>(op: &AffineGrid, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (theta, y) = (cx.input(0)?, cx.output(0)?);
    let axes = y.shape.len() - 2;
    ensure!(
        theta.shape.len() == 3 && theta.shape[0] == y.shape[0] && theta.shape[1] == axes && theta.shape[2] == axes + 1,
        InvalidModel,
        "matrices of shape {:?} for {axes} axes",
        theta.shape
    );
    let align = op.align_corners;
    // The first axis is 1 where there are two.
    let mut sizes = [1; 3];
    sizes[3 - axes..].copy_from_slice(&y.shape[1..=axes]);
    let [depth, height, width] = sizes;
    let lines = product(&[y.shape[0], depth, height])?;
    let place = move |i: usize, n: usize| match (align, n) {
        // The middle of one.
        (true, 1) => 0.0,
        (true, n) => -1.0 + i as f64 * (2.0 / (n - 1) as f64),
        (false, n) => -1.0 + (2 * i + 1) as f64 / n as f64,
    };
    let (tasks, per) = split(if y.is_empty() { 0 } else { lines }, (8 * 1024 / width.max(1)).max(1));
    Ok(FnStep::boxed("affine_grid", tasks, 0, move |args, task, _| {
        for line in task * per..lines.min((task + 1) * per) {
            let (n, z, r) = (line / (depth * height), line / height % depth, line % height);
            // SAFETY: matrix n and line `line` of the grid.
            unsafe {
                let m = std::slice::from_raw_parts(args.input::<T>(0).add(n * axes * (axes + 1)), axes * (axes + 1));
                let to = args.output::<T>(0).add(line * width * axes);
                for c in 0..width {
                    // The last axis first, then 1 for the shift.
                    let at = [place(c, width), place(r, height), if axes == 3 { place(z, depth) } else { 1.0 }, 1.0];
                    for (a, row) in m.chunks_exact(axes + 1).enumerate() {
                        let sum = row.iter().zip(at).map(|(w, x)| w.to_f64() * x).sum::<f64>();
                        *to.add(c * axes + a) = T::from_f64(sum);
                    }
                }
            }
        }
        Ok(())
    }))
}

pub(super) fn cases() -> Vec<Case> {
    let text = |s: &str| Attr::String(s.into());
    let case = |name, d, shape: &[usize], g, grid: &[usize]| {
        let x = CaseInput::Random(d, shape.to_vec(), -100.0, 100.0);
        Case::new("GridSample", 22, name, vec![x, CaseInput::Random(g, grid.to_vec(), -1.4, 1.4)])
    };
    let f = DType::F32;
    // Sums of 4 to 64 products with numbers up to 100.
    let loose = |c: Case| Case { atol: 1e-3, ..c };
    let mut cases = vec![
        loose(case("line", f, &[2, 3, 9], f, &[2, 40, 1])).attr("mode", text("cubic")),
        loose(case("volume_cubic", f, &[1, 2, 4, 5, 3], f, &[1, 3, 2, 7, 3])).attr("mode", text("cubic")),
        loose(case("f64_by_f32", DType::F64, &[1, 2, 5, 6], f, &[1, 4, 4, 2])),
        loose(case("f32_by_f64", f, &[1, 2, 5, 6], DType::F64, &[1, 4, 4, 2])),
        Case { atol: 0.1, rtol: 1e-2, ..case("f16", DType::F16, &[1, 2, 5, 6], DType::F16, &[1, 4, 4, 2]) },
        case("whole", DType::I32, &[1, 2, 5, 6], f, &[1, 4, 4, 2]).exact(),
        case("truth", DType::Bool, &[1, 2, 5, 6], f, &[1, 4, 4, 2]).exact(),
        case("nearest_u8", DType::U8, &[1, 2, 5, 6], f, &[1, 4, 40, 2]).attr("mode", text("nearest")).exact(),
        case("no_points", f, &[1, 2, 5, 6], f, &[1, 0, 4, 2]),
        case("no_images", f, &[0, 2, 5, 6], f, &[0, 3, 4, 2]),
    ];
    for (i, outside) in ["zeros", "border", "reflection"].into_iter().enumerate() {
        for (mode, name) in [("linear", "linear"), ("cubic", "cubic"), ("nearest", "nearest")] {
            cases.push(
                loose(case(name, f, &[2, 5, 7, 6], f, &[2, 30, 21, 2]))
                    .attr("mode", text(mode))
                    .attr("padding_mode", text(outside))
                    .attr("align_corners", Attr::Int(i as i64 % 2)),
            );
        }
    }
    let size = |v: &[i64]| Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant);
    let theta = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -1.0, 1.0);
    let affine =
        |name, d, shape: &[usize], s: &[i64]| Case::new("AffineGrid", 20, name, vec![theta(d, shape), size(s)]);
    cases.push(affine("flat", f, &[2, 2, 3], &[2, 3, 5, 6]));
    cases.push(affine("one_line", f, &[1, 2, 3], &[1, 3, 1, 6]).attr("align_corners", Attr::Int(1)));
    cases.push(affine("volume", DType::F64, &[2, 3, 4], &[2, 3, 2, 5, 6]).attr("align_corners", Attr::Int(1)));
    cases.push(affine("empty", f, &[2, 2, 3], &[2, 3, 0, 6]));
    cases.push(Case { rtol: 1e-2, atol: 1e-2, ..affine("bf16", DType::BF16, &[2, 2, 3], &[2, 3, 4, 6]) });
    // A quarter turn: (x, y) of the picture's corners.
    if let (Ok(turn), Ok(want)) = (
        Tensor::from_slice(&[1, 2, 3], &[0f32, -1.0, 0.0, 1.0, 0.0, 0.0]),
        Tensor::from_slice(&[1, 2, 2, 2], &[1f32, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0]),
    ) {
        let case = Case::new("AffineGrid", 20, "quarter_turn", vec![CaseInput::Given(turn), size(&[1, 1, 2, 2])]);
        cases.push(case.attr("align_corners", Attr::Int(1)).expect(want));
    }
    cases
}
