//! Pools on OpenCL devices.

use super::{GlobalPool, Pool, PoolKind, f32_spec};
use crate::backend::NodeView;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::pool;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::error::Result;
use crate::kernels::reduce::ReduceKind;
use crate::tensor::DType;
use crate::{bail, ensure};

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<Pool>(windows);
    b.recipe::<GlobalPool>(planes);
}

fn windows(op: &Pool, node: &NodeView<'_>) -> Result<Recipe> {
    let x = node.input(0)?;
    ensure!(x.dtype == DType::F32, Unsupported, "a pool of {} on OpenCL", x.dtype);
    ensure!(!node.has_output(1), Unsupported, "a pool with indices on OpenCL");
    ensure!(!matches!(op.kind, PoolKind::Lp(_)), Unsupported, "a pool of norms on OpenCL");
    let spec = f32_spec(op, node)?;
    ensure!(pool::is_planar(&spec), Unsupported, "three spatial axes on OpenCL");
    Ok(Recipe::one(Work::Pool(spec), [Arg::Input(0), Arg::Output(0)]))
}

fn planes(op: &GlobalPool, node: &NodeView<'_>) -> Result<Recipe> {
    let x = node.input(0)?;
    ensure!(x.dtype == DType::F32, Unsupported, "a pool of {} on OpenCL", x.dtype);
    ensure!(!x.is_empty(), Unsupported, "a pool of nothing on OpenCL");
    let kind = match op.kind {
        PoolKind::Max => ReduceKind::Max,
        PoolKind::Average => ReduceKind::Mean,
        PoolKind::Lp(1) => ReduceKind::L1,
        PoolKind::Lp(2) => ReduceKind::L2,
        PoolKind::Lp(p) => bail!(Unsupported, "a pool of {p}-norms on OpenCL"),
    };
    let axes = (0..x.shape.len()).map(|i| i >= 2).collect();
    Ok(Recipe::one(Work::Reduce(kind, x.shape.to_vec(), axes), [Arg::Input(0), Arg::Output(0)]))
}
