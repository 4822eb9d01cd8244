//! Conversions on OpenCL devices: those that a float is a part of.

use super::Cast;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::element::Type;
use crate::backend::opencl::pointwise::Operand;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::bail;
use crate::kernels::pointwise::ProgramBuilder;

pub(super) fn add(b: &mut OpenClBindings) {
    b.native_recipe::<Cast>(|_, node| {
        let (x, out) = (node.input(0)?, node.output(0)?);
        // The way leads through f32, which must be exact at one end: wide integers round once, to f32.
        let exact = |a: Type, b: Type| match a {
            Type::I32 | Type::I64 => b == Type::F32,
            a => a.is_float() || b.is_float(),
        };
        let (from, to) = match (Type::of(x.dtype), Type::of(out.dtype)) {
            (Some(a), Some(b)) if exact(a, b) => (a, b),
            _ => bail!(Unsupported, "a cast of {} to {} on OpenCL", x.dtype, out.dtype),
        };
        let operand = |dtype| Operand { dtype, strides: vec![1] };
        let mut b = ProgramBuilder::new(1);
        let register = b.load(0);
        let program = b.finish(&[register])?;
        let work =
            Work::Pointwise { program, dims: vec![x.len()], inputs: vec![operand(from)], outputs: vec![operand(to)] };
        Ok(Recipe::one(work, [Arg::Input(0), Arg::Output(0)]))
    });
}
