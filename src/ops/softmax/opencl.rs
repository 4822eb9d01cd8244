//! Softmax on OpenCL devices.

use super::{Softmax, SoftmaxKind};
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::ensure;
use crate::tensor::DType;

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<Softmax>(|op, node| {
        let x = node.input(0)?;
        let known = x.dtype == DType::F32 && op.kind != SoftmaxKind::Hard;
        ensure!(known, Unsupported, "{:?} of {} on OpenCL", op.kind, x.dtype);
        let shape = op.lines(&x.shape)?;
        Ok(Recipe::one(Work::Softmax(shape, op.kind == SoftmaxKind::Log), [Arg::Input(0), Arg::Output(0)]))
    });
}
