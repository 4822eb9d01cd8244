//! Elementwise operators on OpenCL devices: floats (computed in f32) and bool, printed as programs.

use super::fused::Source;
use super::{Binary, BinaryFn, Clip, Pointwise, Unary, UnaryFn, Variadic, Where, right_shape};
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::element::Type;
use crate::backend::opencl::pointwise::Operand;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::backend::{self, NodeView};
use crate::error::Result;
use crate::kernels::nd::{broadcast_strides, dense_strides};
use crate::kernels::pointwise::{Program, ProgramBuilder, Register};
use crate::{bail, ensure, err};

pub(super) fn add(b: &mut OpenClBindings) {
    b.native_recipe::<Unary>(|op, node| {
        ensure!(op.f != UnaryFn::BitwiseNot, Unsupported, "BitwiseNot on OpenCL");
        program(node, vec![Source::new(node, 0)?], false, |b, x| Some(op.f.write(b, x[0])))
    });
    b.native_recipe::<Binary>(|op, node| {
        let right = node.input(1)?;
        let shape = right_shape(op, node)?;
        let right = Source { index: 1, operand: right, shape: shape.as_slice().into() };
        // A constant exponent is worth a program of its own.
        let fold = op.f == BinaryFn::Pow;
        program(node, vec![Source::new(node, 0)?, right], fold, |b, x| op.f.write(b, x[0], x[1]))
    });
    b.native_recipe::<Variadic>(|op, node| {
        let sources = (0..node.inputs.len()).map(|i| Source::new(node, i)).collect::<Result<_>>()?;
        program(node, sources, false, |b, x| op.f.write(b, x))
    });
    b.native_recipe::<Clip>(|_, node| {
        let mut sources = vec![Source::new(node, 0)?];
        let (low, high) = (node.opt_input(1).is_some(), node.opt_input(2).is_some());
        for i in [1, 2].into_iter().filter(|i| node.opt_input(*i).is_some()) {
            sources.push(Source { shape: Default::default(), ..Source::new(node, i)? });
        }
        program(node, sources, false, |b, x| {
            let y = if low { b.max(x[0], x[1]) } else { x[0] };
            Some(if high { b.min(y, x[1 + usize::from(low)]) } else { y })
        })
    });
    b.native_recipe::<Where>(|_, node| {
        let sources = (0..3).map(|i| Source::new(node, i)).collect::<Result<_>>()?;
        program(node, sources, false, |b, x| Some(b.select(x[0], x[1], x[2])))
    });
    b.native_recipe::<Pointwise>(|op, node| {
        let sources = (0..op.program.inputs()).map(|i| Source::new(node, i)).collect::<Result<_>>()?;
        write(node, sources, false, |b, x| b.inline(&op.program, x))
    });
}

fn type_of(o: &backend::Operand) -> Result<Type> {
    // Integers are computed exactly elsewhere.
    match Type::of(o.dtype) {
        Some(t) if t.is_float() || t == Type::Bool => Ok(t),
        _ => bail!(Unsupported, "elementwise operators of {} on OpenCL", o.dtype),
    }
}

fn program(
    node: &NodeView<'_>,
    sources: Vec<Source<'_>>,
    fold: bool,
    f: impl FnOnce(&mut ProgramBuilder, &[Register]) -> Option<Register>,
) -> Result<Recipe> {
    for s in &sources {
        type_of(s.operand)?;
    }
    write(node, sources, fold, |b, x| {
        Ok(vec![f(b, x).ok_or_else(|| err!(Unsupported, "{} on OpenCL", node.op.name()))?])
    })
}

/// The recipe of what `f` writes over registers that hold the sources. Constant numbers become part of the program if `fold`;
/// else programs that differ in numbers only are one.
fn write(
    node: &NodeView<'_>,
    sources: Vec<Source<'_>>,
    fold: bool,
    f: impl FnOnce(&mut ProgramBuilder, &[Register]) -> Result<Vec<Register>>,
) -> Result<Recipe> {
    let number = |s: &Source<'_>| s.number().filter(|_| fold);
    let read: Vec<&Source<'_>> = sources.iter().filter(|s| number(s).is_none()).collect();
    let mut b = ProgramBuilder::new(read.len());
    let mut next = 0;
    let mut registers = Vec::with_capacity(sources.len());
    for s in &sources {
        registers.push(match number(s) {
            Some(x) => b.constant(x),
            None => {
                next += 1;
                b.load(next - 1)
            }
        });
    }
    let results = f(&mut b, &registers)?;
    let program = b.finish(&results)?;
    let inputs: Vec<_> = read.iter().map(|s| (Arg::Input(s.index), s.operand, &s.shape[..])).collect();
    let outs = (0..node.outputs.len()).map(|i| Ok((Arg::Output(i), node.output(i)?))).collect::<Result<Vec<_>>>()?;
    add_program(Recipe::default(), program, &inputs, &outs)
}

/// Adds a program over operands of the shapes told, which broadcast to that of the outputs.
pub fn add_program(
    recipe: Recipe,
    program: Program,
    sources: &[(Arg, &backend::Operand, &[usize])],
    outs: &[(Arg, &backend::Operand)],
) -> Result<Recipe> {
    let Some((_, out)) = outs.first() else { bail!(Internal, "a program without outputs") };
    let (mut args, mut inputs, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    for (arg, o, shape) in sources {
        let Some(strides) = broadcast_strides(shape, &out.shape) else {
            bail!(Internal, "{shape:?} does not broadcast to {:?}", out.shape)
        };
        let dtype = Type::of(o.dtype).ok_or_else(|| err!(Unsupported, "programs over {} on OpenCL", o.dtype))?;
        inputs.push(Operand { dtype, strides: strides.to_vec() });
        args.push(arg.clone());
    }
    for (arg, o) in outs {
        ensure!(o.shape == out.shape, Internal, "outputs of different shapes");
        outputs.push(Operand { dtype: type_of(o)?, strides: dense_strides(&o.shape).to_vec() });
        args.push(arg.clone());
    }
    Ok(recipe.then(Work::Pointwise { program, dims: out.shape.to_vec(), inputs, outputs }, args))
}
