//! Normalisations on OpenCL devices.

use super::{BatchNormalization, ChannelLayerNorm, ChannelNorm, FusedNorm, LayerNormalization, Norm};
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::element::Type;
use crate::backend::opencl::norm::Normalise;
use crate::backend::opencl::pointwise::Operand;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::backend::opencl::shape::Part;
use crate::backend::{self, NodeView};
use crate::error::Result;
use crate::ir::Op;
use crate::ir::op::resolve_axis;
use crate::kernels::nd::dense_strides;
use crate::kernels::pointwise::{BinaryOp, Program, ProgramBuilder, UnaryOp};
use crate::ops::contrib::SkipNorm;
use crate::ops::pointwise::add_program;
use crate::ops::softmax::SoftmaxKind;
use crate::tensor::DType;
use crate::{bail, ensure};

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<BatchNormalization>(batch);
    b.recipe::<LayerNormalization>(layer);
    b.recipe::<ChannelNorm>(channels);
    b.recipe::<FusedNorm>(fused);
    b.recipe::<ChannelLayerNorm>(across);
    b.recipe::<SkipNorm>(skip);
}

/// A sum, kept where it is asked for, and its rows normalised.
fn skip(op: &SkipNorm, node: &NodeView<'_>) -> Result<Recipe> {
    all_f32(node)?;
    let (x, second, scale) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let n = x.shape.last().copied().unwrap_or(0);
    let shift = node.opt_input(3);
    let plain = x.shape == second.shape && node.opt_input(4).is_none() && !node.has_output(1) && !node.has_output(2);
    let rows = scale.len() == n && shift.is_none_or(|s| s.len() == n);
    ensure!(plain && rows && !x.is_empty(), Unsupported, "this normalisation of a sum on OpenCL");
    let dense = Operand { dtype: Type::F32, strides: dense_strides(&x.shape).to_vec() };
    let (program, inputs) = (Program::binary(BinaryOp::Add), vec![dense.clone(), dense.clone()]);
    let sum = Work::Pointwise { program, dims: x.shape.to_vec(), inputs, outputs: vec![dense] };
    let total = if node.has_output(3) { Arg::Output(3) } else { Arg::Output(0) };
    let third = if shift.is_some() { Arg::Input(3) } else { Arg::Output(0) };
    let norm = Normalise {
        lines: x.len() / n,
        n,
        rms: op.rms,
        period: 1,
        per_line: 0,
        step: 1,
        shift: shift.is_some(),
        epsilon: op.epsilon,
    };
    Ok(Recipe::one(sum, [Arg::Input(0), Arg::Input(1), total.clone()])
        .then(Work::Normalise(norm), [total, Arg::Input(2), third, Arg::Output(0)]))
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

fn all_f32(node: &NodeView<'_>) -> Result<()> {
    let known = node.inputs.iter().chain(node.outputs).flatten().all(|o| o.dtype == DType::F32);
    ensure!(known, Unsupported, "{} of other types than f32 on OpenCL", node.op.name());
    Ok(())
}

fn layer(op: &LayerNormalization, node: &NodeView<'_>) -> Result<Recipe> {
    all_f32(node)?;
    ensure!(!node.has_output(1) && !node.has_output(2), Unsupported, "means of a layer normalisation on OpenCL");
    let work = by_layer(op, node.input(0)?, node.input(1)?, node.opt_input(2))?;
    let third = if work.shift { Arg::Input(2) } else { Arg::Output(0) };
    Ok(Recipe::one(Work::Normalise(work), [Arg::Input(0), Arg::Input(1), third, Arg::Output(0)]))
}

fn by_layer(
    op: &LayerNormalization,
    x: &backend::Operand,
    scale: &backend::Operand,
    shift: Option<&backend::Operand>,
) -> Result<Normalise> {
    let axis = resolve_axis(op.axis, x.shape.len())?;
    let (lines, n): (usize, usize) = (x.shape[..axis].iter().product(), x.shape[axis..].iter().product());
    let scales = scale.len();
    let fits = (scales == n || scales == 1) && shift.is_none_or(|s| s.len() == scales);
    ensure!(fits && n > 0, Unsupported, "a scale of {:?} for {n} elements on OpenCL", scale.shape);
    // One scale for all is one for as many neighbours as there are.
    let step = if scales == n { 1 } else { n };
    let (rms, epsilon, shift) = (op.rms, op.epsilon, shift.is_some());
    Ok(Normalise { lines, n, rms, period: 1, per_line: 0, step, shift, epsilon })
}

/// The programs and the normalisation one after the other, in the memory of the result.
fn fused(op: &FusedNorm, node: &NodeView<'_>) -> Result<Recipe> {
    let out = node.output(0)?;
    let floats = op.dtype == DType::F32 && op.to == DType::F32;
    ensure!(floats && !out.is_empty(), Unsupported, "{} of {} on OpenCL", op.name(), op.to);
    let [rows, lists, rest] = op.parts(node.inputs.len())?;
    let operands = |r: std::ops::Range<usize>| {
        r.map(|i| node.input(i).map(|o| (Arg::Input(i), o, &o.shape[..]))).collect::<Result<Vec<_>>>()
    };
    let (mut recipe, mut from, y) = (Recipe::default(), Arg::Input(0), Arg::Output(0));
    if let Some(p) = &op.before {
        from = Arg::Output(usize::from(node.has_output(1)));
        recipe = add_program(recipe, p.clone(), &operands(rows)?, &[(from.clone(), out)])?;
    }
    let (work, lists) = match &op.norm {
        Norm::Softmax(s) => {
            ensure!(s.kind != SoftmaxKind::Hard, Unsupported, "Hardmax on OpenCL");
            (Work::Softmax(s.lines(&out.shape)?, s.kind == SoftmaxKind::Log), vec![])
        }
        Norm::Length(_) => bail!(Unsupported, "{} on OpenCL", op.name()),
        norm => {
            let list = |i: usize| lists.clone().nth(i).map(|i| node.input(i).map(|o| (Arg::Input(i), o))).transpose();
            let (Some(scale), shift) = (list(0)?, list(1)?) else { bail!(Internal, "{} without a scale", op.name()) };
            let work = match norm {
                Norm::Layer(l) => by_layer(l, out, scale.1, shift.as_ref().map(|s| s.1))?,
                Norm::Channels(c) => by_channels(c, out)?,
                Norm::Softmax(_) | Norm::Length(_) => bail!(Internal, "{} has no scale", op.name()),
            };
            (Work::Normalise(work), vec![scale.0, shift.map_or(y.clone(), |s| s.0)])
        }
    };
    recipe = recipe.then(work, [&[from], &lists[..], std::slice::from_ref(&y)].concat());
    match &op.after {
        Some(p) => {
            let all = [vec![(y.clone(), out, &out.shape[..])], operands(rest)?].concat();
            add_program(recipe, p.clone(), &all, &[(y, out)])
        }
        None => Ok(recipe),
    }
}

/// Lines of channels in a temporary, normalised there and turned back.
fn across(op: &ChannelLayerNorm, node: &NodeView<'_>) -> Result<Recipe> {
    all_f32(node)?;
    let x = node.input(0)?;
    let (images, n, space) = (x.shape[0], x.shape[1], x.shape[2..].iter().product::<usize>());
    ensure!(!x.is_empty(), Unsupported, "a normalisation of nothing on OpenCL");
    let dims = vec![images, space, n];
    let part = |strides: [usize; 3]| Part { start: 0, strides: strides.map(|s| s as isize).to_vec() };
    let (image, line) = (part([n * space, 1, space]), part([n * space, n, 1]));
    let shift = node.opt_input(2).is_some();
    let (lines, rms, epsilon) = (images * space, op.rms, op.epsilon);
    let work = Normalise { lines, n, rms, period: 1, per_line: 0, step: 1, shift, epsilon };
    let mut recipe = Recipe::default();
    let turned = recipe.temporary(x.len() * size_of::<f32>());
    let third = if shift { Arg::Input(2) } else { turned.clone() };
    let args = [turned.clone(), Arg::Input(1), third, turned.clone()];
    Ok(recipe
        .then(Work::Copy(4, dims.clone(), image.clone(), line.clone()), [Arg::Input(0), turned.clone()])
        .then(Work::Normalise(work), args)
        .then(Work::Copy(4, dims, line, image), [turned, Arg::Output(0)]))
}

fn channels(op: &ChannelNorm, node: &NodeView<'_>) -> Result<Recipe> {
    all_f32(node)?;
    let x = node.input(0)?;
    ensure!(!x.is_empty(), Unsupported, "a normalisation of nothing on OpenCL");
    let args: Vec<Arg> = (0..3).map(Arg::Input).chain([Arg::Output(0)]).collect();
    Ok(Recipe::one(Work::Normalise(by_channels(op, x)?), args))
}

fn by_channels(op: &ChannelNorm, x: &backend::Operand) -> Result<Normalise> {
    let (images, channels, space) = (x.shape[0], x.shape[1], x.shape[2..].iter().product::<usize>());
    let period = op.groups.unwrap_or(channels);
    ensure!(period > 0 && channels.is_multiple_of(period), InvalidModel, "{period} groups of {channels} channels");
    let each = channels / period;
    let n = each * space;
    let (per_line, step) = if op.by_group { (1, n) } else { (each, space) };
    let (lines, epsilon) = (images * period, op.epsilon);
    Ok(Normalise { lines, n, rms: false, period, per_line, step, shift: true, epsilon })
}
