//! Moving elements on OpenCL devices. Floats and truth values only: other types are mostly sizes and indices, which the host
//! needs.

use super::{Concat, Expand, Gather, Pad, Slice, Split, Tile, Transpose, around, known_ints};
use super::{arrange, pad as padding, slice as slicing};
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::backend::opencl::shape::{self, Part};
use crate::backend::{NodeView, Operand};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::kernels::movement::PadMode;
use crate::kernels::nd::{broadcast_strides, dense_strides};
use crate::tensor::DType;
use crate::{bail, ensure, err};

pub(super) fn arrange(b: &mut OpenClBindings) {
    b.native_recipe::<Transpose>(|op, node| {
        let x = node.input(0)?;
        let strides = dense_strides(&x.shape);
        let from = op.order(x.shape.len())?.into_iter().map(|i| strides[i]).collect();
        one_copy(node, &node.output(0)?.shape, from, 0)
    });
    b.native_recipe::<Expand>(|_, node| {
        let (x, out) = (node.input(0)?, node.output(0)?);
        let from = broadcast_strides(&x.shape, &out.shape)
            .ok_or_else(|| err!(Internal, "{:?} does not broadcast to {:?}", x.shape, out.shape))?;
        one_copy(node, &out.shape, from.to_vec(), 0)
    });
    b.native_recipe::<Tile>(|_, node| {
        let (dims, from) = arrange::repeats(&node.input(0)?.shape, &node.output(0)?.shape);
        one_copy(node, &dims, from.to_vec(), 0)
    });
}

pub(super) fn slice(b: &mut OpenClBindings) {
    b.native_recipe::<Slice>(|_, node| {
        let (from, start) = slicing::start_and_strides(node)?;
        one_copy(node, &node.output(0)?.shape, from.to_vec(), start)
    });
}

pub(super) fn join(b: &mut OpenClBindings) {
    b.native_recipe::<Concat>(concat);
    b.native_recipe::<Split>(split);
}

pub(super) fn pad(b: &mut OpenClBindings) {
    b.native_recipe::<Pad>(padded);
}

pub(super) fn gather(b: &mut OpenClBindings) {
    b.native_recipe::<Gather>(gathered);
}

/// Bytes of an element of a type that is moved.
fn size_of(o: &Operand) -> Result<usize> {
    match o.dtype {
        DType::F32 => Ok(4),
        DType::F16 | DType::BF16 => Ok(2),
        DType::Bool => Ok(1),
        d => bail!(Unsupported, "moving {d} on OpenCL"),
    }
}

fn dense(shape: &[usize]) -> Part {
    Part { start: 0, strides: dense_strides(shape).to_vec() }
}

/// Input 0, read from element `start` on with these strides, as output 0 seen as `dims`.
fn one_copy(node: &NodeView<'_>, dims: &[usize], from: Vec<isize>, start: usize) -> Result<Recipe> {
    let size = size_of(node.input(0)?)?;
    let work = Work::Copy(size, dims.to_vec(), Part { start, strides: from }, dense(dims));
    Ok(Recipe::one(work, [Arg::Input(0), Arg::Output(0)]))
}

/// The part of a whole that begins at `start` along an axis.
fn part_of(whole: &[usize], axis: usize, start: usize) -> Part {
    Part { start: start * around(whole, axis).2, strides: dense_strides(whole).to_vec() }
}

fn concat(op: &Concat, node: &NodeView<'_>) -> Result<Recipe> {
    let y = node.output(0)?;
    let size = size_of(y)?;
    let axis = resolve_axis(op.axis, y.shape.len())?;
    let (mut recipe, mut start) = (Recipe::default(), 0);
    for i in 0..node.inputs.len() {
        let x = node.input(i)?;
        let work = Work::Copy(size, x.shape.to_vec(), dense(&x.shape), part_of(&y.shape, axis, start));
        recipe = recipe.then(work, [Arg::Input(i), Arg::Output(0)]);
        start += x.shape[axis];
    }
    Ok(recipe)
}

fn split(op: &Split, node: &NodeView<'_>) -> Result<Recipe> {
    let x = node.input(0)?;
    let size = size_of(x)?;
    let axis = resolve_axis(op.axis, x.shape.len())?;
    let given = if node.opt_input(1).is_some() { Some(known_ints(node, 1)?) } else { None };
    let lengths = op.lengths(x.shape[axis], given.as_deref(), node.outputs.len())?;
    let (mut recipe, mut start) = (Recipe::default(), 0);
    for (i, length) in lengths.into_iter().enumerate() {
        if let Some(y) = node.opt_output(i) {
            let work = Work::Copy(size, y.shape.to_vec(), part_of(&x.shape, axis, start), dense(&y.shape));
            recipe = recipe.then(work, [Arg::Input(0), Arg::Output(i)]);
        }
        start += length;
    }
    Ok(recipe)
}

fn padded(op: &Pad, node: &NodeView<'_>) -> Result<Recipe> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let size = size_of(x)?;
    let before = padding::widths(node)?.0.into_iter().map(|n| n as isize).collect();
    let mode = match op.mode {
        PadMode::Constant => {
            let value = match (node.opt_input(2), node.constant(2)) {
                (None, _) => padding::element(x.dtype, size, op.value),
                (_, Some(t)) => t.bytes().to_vec(),
                _ => bail!(Unsupported, "a pad with a computed value on OpenCL"),
            };
            ensure!(value.len() == size, Internal, "a pad with {} bytes", value.len());
            let mut bits = [0; 8];
            bits[..size].copy_from_slice(&value);
            shape::PadMode::Constant(u64::from_le_bytes(bits))
        }
        PadMode::Edge => shape::PadMode::Edge,
        PadMode::Reflect => shape::PadMode::Reflect,
        PadMode::Wrap => shape::PadMode::Wrap,
    };
    let work = Work::Pad { size, input: x.shape.to_vec(), output: y.shape.to_vec(), before, mode };
    Ok(Recipe::one(work, [Arg::Input(0), Arg::Output(0)]))
}

fn gathered(op: &Gather, node: &NodeView<'_>) -> Result<Recipe> {
    let x = node.input(0)?;
    let size = size_of(x)?;
    let (outer, n, inner) = around(&x.shape, resolve_axis(op.axis, x.shape.len())?);
    let at = node.input(1)?;
    if at.constant.is_none() {
        let index_size = match at.dtype {
            DType::I64 => 8,
            DType::I32 => 4,
            d => bail!(Unsupported, "indices of {d} on OpenCL"),
        };
        let work = Work::GatherChecked { size, dims: [outer, n, inner], count: at.len(), index_size };
        return Ok(Recipe::one(work, [Arg::Input(0), Arg::Input(1), Arg::Output(0), Arg::Fault]));
    }
    let place = |i: i64| usize::try_from(if i < 0 { i + n as i64 } else { i }).ok().filter(|i| *i < n);
    let indices = known_ints(node, 1)?.into_iter().map(place).collect::<Option<Vec<_>>>();
    let Some(indices) = indices else { bail!(Unsupported, "an index outside its axis: the CPU tells which") };
    Ok(Recipe::one(Work::Gather(size, [outer, n, inner], indices), [Arg::Input(0), Arg::Output(0)]))
}
