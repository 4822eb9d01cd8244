//! Reductions on OpenCL devices.

use super::Reduce;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::ensure;
use crate::kernels::reduce::ReduceKind;
use crate::tensor::DType;

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<Reduce>(|op, node| {
        let x = node.input(0)?;
        let known = x.dtype == DType::F32 && op.kind != ReduceKind::LogSumExp;
        ensure!(known, Unsupported, "{:?} of {} on OpenCL", op.kind, x.dtype);
        let mask = op.mask_of(node)?;
        // Of nothing each kind gives a number of its own.
        ensure!(!x.is_empty(), Unsupported, "a reduction of nothing on OpenCL");
        Ok(Recipe::one(Work::Reduce(op.kind, x.shape.to_vec(), mask), [Arg::Input(0), Arg::Output(0)]))
    });
}
