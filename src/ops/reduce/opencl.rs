//! Reductions on OpenCL devices.

use super::Reduce;
use crate::backend::NodeView;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::element::Type;
use crate::backend::opencl::pointwise::Operand;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::ensure;
use crate::error::Result;
use crate::kernels::nd::{broadcast_strides, dense_strides};
use crate::kernels::pointwise::{ProgramBuilder, UnaryOp};
use crate::kernels::reduce::ReduceKind;
use crate::tensor::DType;

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<Reduce>(|op, node| {
        let x = node.input(0)?;
        ensure!(x.dtype == DType::F32, Unsupported, "{:?} of {} on OpenCL", op.kind, x.dtype);
        // Of nothing each kind gives a number of its own.
        ensure!(!x.is_empty(), Unsupported, "a reduction of nothing on OpenCL");
        let mask = op.mask_of(node)?;
        if op.kind == ReduceKind::LogSumExp {
            return log_sum_exp(node, mask);
        }
        Ok(Recipe::one(Work::Reduce(op.kind, x.shape.to_vec(), mask), [Arg::Input(0), Arg::Output(0)]))
    });
}

/// ln(sum(e^(x - m))) + m, where m is the greatest, so that nothing overflows; 0 in place of an infinite m.
fn log_sum_exp(node: &NodeView<'_>, mask: Vec<bool>) -> Result<Recipe> {
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = x.shape.to_vec();
    let kept: Vec<usize> = dims.iter().zip(&mask).map(|(d, m)| if *m { 1 } else { *d }).collect();
    let of = |strides: &[isize]| Operand { dtype: Type::F32, strides: strides.to_vec() };
    let over = broadcast_strides(&kept, &dims).unwrap_or_default();

    let mut b = ProgramBuilder::new(2);
    let (v, m) = (b.load(0), b.load(1));
    let m = finite(&mut b, m);
    let d = b.sub(v, m);
    let e = b.unary(UnaryOp::Exp, d);
    let powers = b.finish(&[e])?;
    let mut b = ProgramBuilder::new(2);
    let (s, m) = (b.load(0), b.load(1));
    let m = finite(&mut b, m);
    let l = b.unary(UnaryOp::Log, s);
    let l = b.add(l, m);
    let result = b.finish(&[l])?;

    let mut recipe = Recipe::default();
    let most = recipe.temporary(DType::F32.byte_len(y.len())?);
    let sums = recipe.temporary(DType::F32.byte_len(y.len())?);
    let exp = recipe.temporary(DType::F32.byte_len(x.len())?);
    let dense = of(&dense_strides(&dims));
    Ok(recipe
        .then(Work::Reduce(ReduceKind::Max, dims.clone(), mask.clone()), [Arg::Input(0), most.clone()])
        .then(
            Work::Pointwise {
                program: powers,
                dims: dims.clone(),
                inputs: vec![dense.clone(), of(&over)],
                outputs: vec![dense],
            },
            [Arg::Input(0), most.clone(), exp.clone()],
        )
        .then(Work::Reduce(ReduceKind::Sum, dims, mask), [exp, sums.clone()])
        .then(
            Work::Pointwise {
                program: result,
                dims: vec![y.len()],
                inputs: vec![of(&[1]), of(&[1])],
                outputs: vec![of(&[1])],
            },
            [sums, most, Arg::Output(0)],
        ))
}

/// The number, or 0 where it is infinite.
fn finite(b: &mut ProgramBuilder, x: crate::kernels::pointwise::Register) -> crate::kernels::pointwise::Register {
    let (infinite, zero) = (b.unary(UnaryOp::IsInf, x), b.constant(0.0));
    b.select(infinite, zero, x)
}
