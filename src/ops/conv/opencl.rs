//! Convolution on OpenCL devices.

use super::Conv;
use crate::backend::NodeView;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::backend::opencl::{call, conv};
use crate::ensure;
use crate::error::Result;
use crate::ops::window::flat;
use crate::tensor::DType;

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<Conv>(bind);
}

fn bind(op: &Conv, node: &NodeView<'_>) -> Result<Recipe> {
    let (x, w, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    ensure!(x.dtype == DType::F32, Unsupported, "a convolution of {} on OpenCL", x.dtype);
    let g = op.window.geometry(&x.shape[2..], &w.shape[2..], &y.shape[2..])?;
    let mut args = vec![Arg::Input(0), Arg::Input(1), Arg::Output(0), Arg::Output(0), Arg::Output(0)];
    let bias = node.opt_input(2).is_some();
    if bias {
        args[2] = Arg::Input(2);
    }
    if op.residual {
        args[3] = Arg::Input(3);
    }
    call::activation(op.activation)?;
    let work = conv::Conv {
        batch: x.shape[0],
        groups: op.groups,
        in_channels: x.shape[1],
        out_channels: y.shape[1],
        input: flat(g.input, 1)?,
        output: flat(g.output, 1)?,
        kernel: flat(g.kernel, 1)?,
        strides: [g.stride[1], g.stride[2]],
        dilations: [g.dilation[1], g.dilation[2]],
        pads: flat(g.pad, 0)?,
        bias,
        residual: op.residual,
        act: op.activation,
    };
    Ok(Recipe::one(Work::Conv(work), args))
}
