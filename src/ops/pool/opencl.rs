//! Pools on OpenCL devices.

use super::{GlobalPool, Pool, PoolKind};
use crate::backend::NodeView;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::backend::opencl::{pool, reduce};
use crate::error::Result;
use crate::ops::window::flat;
use crate::tensor::DType;
use crate::{bail, ensure};

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<Pool>(windows);
    b.recipe::<GlobalPool>(planes);
}

fn windows(op: &Pool, node: &NodeView<'_>) -> Result<Recipe> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    ensure!(x.dtype == DType::F32, Unsupported, "a pool of {} on OpenCL", x.dtype);
    ensure!(!node.has_output(1), Unsupported, "a pool with indices on OpenCL");
    let kernel: Vec<usize> = op.window.kernel.iter().flatten().map(|k| *k as usize).collect();
    let g = op.window.geometry(&x.shape[2..], &kernel, &y.shape[2..])?;
    let work = pool::Pool {
        kind: match op.kind {
            PoolKind::Max => pool::Kind::Max,
            PoolKind::Average if op.include_pad => pool::Kind::MeanPadded,
            PoolKind::Average => pool::Kind::Mean,
            PoolKind::Lp(_) => bail!(Unsupported, "a pool of norms on OpenCL"),
        },
        planes: x.shape[0] * x.shape[1],
        input: flat(g.input, 1)?,
        output: flat(g.output, 1)?,
        kernel: flat(g.kernel, 1)?,
        strides: [g.stride[1], g.stride[2]],
        dilations: [g.dilation[1], g.dilation[2]],
        pads: flat(g.pad, 0)?,
        pads_end: flat(g.pad_end, 0)?,
    };
    Ok(Recipe::one(Work::Pool(work), [Arg::Input(0), Arg::Output(0)]))
}

fn planes(op: &GlobalPool, node: &NodeView<'_>) -> Result<Recipe> {
    let x = node.input(0)?;
    ensure!(x.dtype == DType::F32, Unsupported, "a pool of {} on OpenCL", x.dtype);
    ensure!(!x.is_empty(), Unsupported, "a pool of nothing on OpenCL");
    let kind = match op.kind {
        PoolKind::Max => reduce::Kind::Max,
        PoolKind::Average => reduce::Kind::Mean,
        PoolKind::Lp(1) => reduce::Kind::L1,
        PoolKind::Lp(2) => reduce::Kind::L2,
        PoolKind::Lp(p) => bail!(Unsupported, "a pool of {p}-norms on OpenCL"),
    };
    let axes = (0..x.shape.len()).map(|i| i >= 2).collect();
    Ok(Recipe::one(Work::Reduce(kind, x.shape.to_vec(), axes), [Arg::Input(0), Arg::Output(0)]))
}
