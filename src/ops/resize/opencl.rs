//! Resizing on OpenCL devices: two neighbouring axes of f32, or one.

use super::Resize;
use super::bind::axes;
use super::coordinates::{Axis, Coordinates, Method, WeightKernel};
use crate::backend::NodeView;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::backend::opencl::resample::Taps;
use crate::base::checked::product;
use crate::error::Result;
use crate::tensor::DType;
use crate::{ensure, err};

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<Resize>(resize);
}

fn resize(op: &Resize, node: &NodeView<'_>) -> Result<Recipe> {
    let x = node.input(0)?;
    ensure!(x.dtype == DType::F32, Unsupported, "a resize of {} on OpenCL", x.dtype);
    ensure!(op.coordinates != Coordinates::CropAndResize, Unsupported, "a resize of a region on OpenCL");
    let sizes = [node.opt_input(2), node.opt_input(3)].into_iter().flatten();
    ensure!(sizes.into_iter().all(|o| o.is_empty() || o.constant.is_some()), Unsupported, "computed sizes on OpenCL");
    ensure!(!x.is_empty(), Unsupported, "a resize of nothing on OpenCL");
    let mut all = axes(op, node, &[])?;
    if all.len() == 1 {
        all.insert(0, Axis { input: 1, output: 1, scale: 1.0, roi: (0.0, 1.0) });
    }
    let kept = |a: &Axis| a.input == a.output && a.scale == 1.0;
    let mut depth = 1;
    while all.len() > 2
        && let Some(last) = all.pop_if(|a| kept(a))
    {
        depth = product(&[depth, last.input])?;
    }
    let Some(([planes @ .., rows], columns)) = all.split_last().map(|(c, r)| (r, c)) else {
        return Err(err!(Unsupported, "a resize of a number on OpenCL"));
    };
    ensure!(planes.iter().all(kept), Unsupported, "a resize of more than two neighbouring axes on OpenCL");
    let count = product(&planes.iter().map(|a| a.input).collect::<Vec<_>>())?;
    let input = [rows.input, columns.input];
    let [mut rows, mut columns] = [taps(op, rows)?, taps(op, columns)?];
    let most = rows.taps.max(columns.taps);
    rows = widened(rows, most);
    columns = widened(columns, most);
    Ok(Recipe::one(Work::Resize([count, depth], input, rows, columns), [Arg::Input(0), Arg::Output(0)]))
}

/// Where the places of an axis come from.
fn taps(op: &Resize, axis: &Axis) -> Result<Taps> {
    if let Method::Nearest(mode) = op.method {
        let index: Vec<usize> = axis.nearest(op.coordinates, mode)?.into_iter().flatten().collect();
        return Ok(Taps { taps: 1, weight: vec![1.0; index.len()], index });
    }
    let kernel = WeightKernel { method: op.method, antialias: op.antialias };
    let f = axis.filter::<f32>(op.coordinates, &kernel, op.exclude_outside, op.extrapolation)?;
    if f.is_identity() {
        return Ok(Taps { taps: 1, index: (0..axis.output).collect(), weight: vec![1.0; axis.output] });
    }
    Ok(Taps { taps: f.taps, index: f.index.iter().map(|i| *i as usize).collect(), weight: f.weights })
}

/// With more taps, of no weight.
fn widened(t: Taps, taps: usize) -> Taps {
    if t.taps == taps {
        return t;
    }
    let mut to = Taps { taps, index: Vec::new(), weight: Vec::new() };
    for (index, weight) in t.index.chunks_exact(t.taps).zip(t.weight.chunks_exact(t.taps)) {
        to.index.extend(index.iter().copied().chain(std::iter::repeat(index[0])).take(taps));
        to.weight.extend(weight.iter().copied().chain(std::iter::repeat(0.0)).take(taps));
    }
    to
}
