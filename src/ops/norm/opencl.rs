//! Normalisations on OpenCL devices.

use super::BatchNormalization;
use crate::backend::NodeView;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::pointwise::{Operand, Type};
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::ensure;
use crate::error::Result;
use crate::kernels::nd::dense_strides;
use crate::kernels::pointwise::{ProgramBuilder, UnaryOp};
use crate::tensor::DType;

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<BatchNormalization>(batch);
}

/// A pointwise program over broadcast channels.
fn batch(op: &BatchNormalization, node: &NodeView<'_>) -> Result<Recipe> {
    let x = node.input(0)?;
    let known = node.inputs.iter().flatten().all(|o| o.dtype == DType::F32) && !op.training && op.spatial;
    ensure!(known && x.shape.len() >= 2, Unsupported, "this batch normalisation on OpenCL");
    let mut b = ProgramBuilder::new(5);
    let [v, scale, shift, mean, variance] = [0, 1, 2, 3, 4].map(|i| b.load(i));
    let epsilon = b.constant(op.epsilon);
    let sum = b.add(variance, epsilon);
    let root = b.unary(UnaryOp::Sqrt, sum);
    let factor = b.div(scale, root);
    // As the CPU does it: a factor and a shift a channel.
    let gone = b.mul(mean, factor);
    let rest = b.sub(shift, gone);
    let y = b.multiply_add(v, factor, rest);
    let program = b.finish(&[y])?;
    let dense = Operand { dtype: Type::F32, strides: dense_strides(&x.shape).to_vec() };
    let mut channel = Operand { dtype: Type::F32, strides: vec![0; x.shape.len()] };
    channel.strides[1] = 1;
    let inputs = vec![dense.clone(), channel.clone(), channel.clone(), channel.clone(), channel];
    let work = Work::Pointwise { program, dims: x.shape.to_vec(), inputs, outputs: vec![dense] };
    let args: Vec<Arg> = (0..5).map(Arg::Input).chain([Arg::Output(0)]).collect();
    Ok(Recipe::one(work, args))
}
