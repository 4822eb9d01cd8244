//! Convolution on OpenCL devices.

use super::{Conv, ConvTranspose, spec_of};
use crate::backend::NodeView;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::call;
use crate::backend::opencl::conv::is_planar;
use crate::backend::opencl::element::Type;
use crate::backend::opencl::pointwise::Operand;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::ensure;
use crate::error::Result;
use crate::kernels::conv::ConvSpec;
use crate::kernels::pointwise::{BinaryOp, Program};
use crate::tensor::DType;

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<Conv>(bind);
    b.recipe::<ConvTranspose>(transposed);
}

fn bind(op: &Conv, node: &NodeView<'_>) -> Result<Recipe> {
    let x = node.input(0)?;
    ensure!(x.dtype == DType::F32, Unsupported, "a convolution of {} on OpenCL", x.dtype);
    let spec = spec_of(op, node)?;
    ensure!(is_planar(&spec), Unsupported, "three spatial axes on OpenCL");
    call::activation(op.activation)?;
    let mut args = vec![Arg::Input(0), Arg::Input(1), Arg::Output(0), Arg::Output(0), Arg::Output(0)];
    if spec.bias {
        args[2] = Arg::Input(2);
    }
    if spec.residual_last {
        // Its kernels add before the activation.
        let mut recipe = Recipe::default();
        let y = node.output(0)?;
        let result = recipe.temporary(DType::F32.byte_len(y.len())?);
        args[4] = result.clone();
        let dense = Operand { dtype: Type::F32, strides: vec![1] };
        let (program, inputs) = (Program::binary(BinaryOp::Add), vec![dense.clone(), dense.clone()]);
        let sum = Work::Pointwise { program, dims: vec![y.len()], inputs, outputs: vec![dense] };
        let plain = ConvSpec { residual: false, residual_last: false, ..spec };
        return Ok(recipe.then(Work::Conv(plain), args).then(sum, [result, Arg::Input(3), Arg::Output(0)]));
    }
    if spec.residual {
        args[3] = Arg::Input(3);
    }
    Ok(Recipe::one(Work::Conv(spec), args))
}

fn transposed(op: &ConvTranspose, node: &NodeView<'_>) -> Result<Recipe> {
    let (x, w, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    ensure!(x.dtype == DType::F32, Unsupported, "a transposed convolution of {} on OpenCL", x.dtype);
    call::activation(op.activation)?;
    let c = op.columns(&x.shape[2..], &w.shape[2..], &y.shape[2..])?;
    let spec = ConvSpec {
        n: x.shape[0],
        c_in: x.shape[1],
        c_out: y.shape[1],
        groups: op.groups,
        input: c.places,
        output: c.image,
        kernel: c.kernel,
        stride: c.stride,
        dilation: c.dilation,
        pad: c.pad,
        bias: node.opt_input(2).is_some(),
        residual: false,
        residual_last: false,
        activation: op.activation,
    };
    ensure!(is_planar(&spec), Unsupported, "three spatial axes on OpenCL");
    let bias = if spec.bias { Arg::Input(2) } else { Arg::Output(0) };
    Ok(Recipe::one(Work::ConvTranspose(spec), [Arg::Input(0), Arg::Input(1), bias, Arg::Output(0)]))
}
