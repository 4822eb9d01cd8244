//! Functions of any number of operands: Max, Min, Sum, Mean; Clip with its bounds as inputs; Where.

use super::binary::{Binary, BinaryFn};
use super::contents;
use super::fused::{Source, bind_program, follow, is_programs};
use super::unary::{Unary, UnaryFn};
use crate::backend::cpu::{Arg, CpuBindings, CpuCtx, EagerCtx, Values};
use crate::backend::{FnStep, Step};
use crate::error::Result;
use crate::ir::{Alias, Fact, InferCtx, Op, OpDef, ParseCtx, Spelling, TensorFact, elements};
use crate::kernels::elem::Elem;
use crate::kernels::nd::{Nest, broadcast_strides, dense_strides};
use crate::kernels::pointwise::{Binary as Kernel, BinaryKind, ProgramBuilder, Register, Select};
use crate::ops::infer::{broadcast, broadcast_all};
use crate::ops::shape::Identity;
use crate::ops::steps::Phases;
use crate::ops::types::{need_elem, need_size};
use crate::tensor::{DType, Dims, Tensor, Value};
use crate::{bail, ensure, err};
use smallvec::smallvec;
use std::sync::Arc;

/// What many operands come down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum VariadicFn {
    Max,
    Min,
    Sum,
    Mean,
}

impl VariadicFn {
    fn pairwise(self) -> BinaryFn {
        match self {
            VariadicFn::Max => BinaryFn::Max,
            VariadicFn::Min => BinaryFn::Min,
            VariadicFn::Sum | VariadicFn::Mean => BinaryFn::Add,
        }
    }
    /// Writes the function into a program.
    pub fn write(self, b: &mut ProgramBuilder, x: &[Register]) -> Option<Register> {
        let (first, rest) = x.split_first()?;
        let mut y = *first;
        for &r in rest {
            y = self.pairwise().write(b, y, r)?;
        }
        if self == VariadicFn::Mean {
            let n = b.constant(x.len() as f32);
            y = b.div(y, n);
        }
        Some(y)
    }
}

/// A function of any number of operands, which broadcast together.
#[derive(Clone, Debug, PartialEq)]
pub struct Variadic {
    /// Which function.
    pub f: VariadicFn,
}

impl Op for Variadic {
    fn name(&self) -> &'static str {
        match self.f {
            VariadicFn::Max => "Max",
            VariadicFn::Min => "Min",
            VariadicFn::Sum => "Sum",
            VariadicFn::Mean => "Mean",
        }
    }
    fn flops(&self, cx: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        elements(outputs) * (cx.inputs.len() as u64 - 1).max(1)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let mut shapes = Vec::with_capacity(cx.inputs.len());
        for i in 0..cx.inputs.len() {
            cx.expect_same_dtype(0, i)?;
            shapes.push(cx.tensor(i)?.dims.as_ref());
        }
        Ok(vec![broadcast_all(shapes)?.map_or(Fact::any_tensor(dtype), |d| Fact::tensor(dtype, d))])
    }
}

fn parse_variadic(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, usize::MAX)?;
    let f = match cx.op_type {
        "Max" => VariadicFn::Max,
        "Min" => VariadicFn::Min,
        "Sum" => VariadicFn::Sum,
        "Mean" => VariadicFn::Mean,
        name => bail!(Internal, "{name} is not variadic"),
    };
    Ok(match (f, cx.inputs.len()) {
        (_, 1) => Arc::new(Identity),
        (VariadicFn::Max | VariadicFn::Min | VariadicFn::Sum, 2) => Arc::new(Binary::new(f.pairwise())),
        _ => Arc::new(Variadic { f }),
    })
}

fn bind_variadic(op: &Variadic, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (out, n) = (cx.output(0)?, cx.inputs.len());
    if is_programs(out.dtype) {
        let sources = (0..n).map(|i| Source::new(cx, i)).collect::<Result<Vec<_>>>()?;
        return bind_program(cx, "variadic", &sources, |b, x| {
            Ok(vec![op.f.write(b, x).ok_or_else(|| err!(Internal, "{} of nothing", op.name()))?])
        });
    }
    let elem = need_elem(out.dtype, op.name())?;
    let Some(kind) = op.f.pairwise().kind() else { bail!(Internal, "{} has no kernel", op.name()) };
    ensure!(n >= 2, Internal, "{} of {n} operands", op.name());
    let strides = |i: usize| {
        let s = &cx.input(i)?.shape;
        broadcast_strides(s, &out.shape).ok_or_else(|| err!(Internal, "{s:?} does not broadcast to {:?}", out.shape))
    };
    let dense = dense_strides(&out.shape);
    let first = Kernel::new(kind, elem, &out.shape, &strides(0)?, &strides(1)?, &dense)?;
    let mut step = Phases::new("variadic", 0).then(first.tasks(), 0, move |args, task, _| {
        // SAFETY: operands of the types and shapes the kernel was made from.
        unsafe { first.run(task, args.input(0), args.input(1), args.output(0)) };
        Ok(())
    });
    for i in 2..n {
        let next = Kernel::new(kind, elem, &out.shape, &dense, &strides(i)?, &dense)?;
        step = step.then(next.tasks(), 0, move |args, task, _| {
            // SAFETY: as above; the result so far is read where it is written.
            unsafe { next.run(task, args.output::<u8>(0).cast_const(), args.input(i), args.output(0)) };
            Ok(())
        });
    }
    if op.f == VariadicFn::Mean {
        ensure!(elem == Elem::F64, Unsupported, "Mean of {}", out.dtype);
        let len = out.len();
        step = step.then(1, 0, move |args, _, _| {
            for i in 0..len {
                // SAFETY: the output has `len` elements.
                unsafe { *args.output::<f64>(0).add(i) /= n as f64 };
            }
            Ok(())
        });
    }
    Ok(step.boxed())
}

/// The operand within the bounds in inputs 1 and 2, where given; the upper one wins where they cross.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip;

impl Op for Clip {
    fn name(&self) -> &'static str {
        "Clip"
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0])
    }
    fn flops(&self, _: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        elements(outputs)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        for i in [1, 2] {
            if let Some(t) = cx.opt_tensor(i)? {
                ensure!(t.dtype == dtype, InvalidModel, "a bound is {}, the operand {dtype}", t.dtype);
                let one = t.count().known().is_none_or(|n| n == 1);
                ensure!(one, InvalidModel, "a bound must be one number, it is {t}");
            }
        }
        Ok(vec![cx.like(0, dtype)?])
    }
}

fn parse_clip(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    if cx.version < 11 {
        cx.expect_inputs(1, 1)?;
        let f = UnaryFn::Clip { low: cx.float_opt("min")?, high: cx.float_opt("max")? };
        return Ok(Arc::new(Unary { f }));
    }
    cx.expect_inputs(1, 3)?;
    Ok(if cx.has_input(1) || cx.has_input(2) { Arc::new(Clip) } else { Arc::new(Identity) })
}

fn bind_clip(_: &Clip, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let bounds: Vec<(usize, BinaryKind)> =
        [(1, BinaryKind::Max), (2, BinaryKind::Min)].into_iter().filter(|b| cx.opt_input(b.0).is_some()).collect();
    if is_programs(x.dtype) {
        let mut sources = vec![Source::new(cx, 0)?];
        for (i, _) in &bounds {
            // A bound may have axes of its own (all of size 1): they must not count.
            sources.push(Source { shape: Default::default(), ..Source::new(cx, *i)? });
        }
        return bind_program(cx, "clip", &sources, |b, r| {
            let mut y = r[0];
            for ((_, kind), &bound) in bounds.iter().zip(&r[1..]) {
                y = if *kind == BinaryKind::Max { b.max(y, bound) } else { b.min(y, bound) };
            }
            Ok(vec![y])
        });
    }
    let elem = need_elem(x.dtype, "Clip")?;
    let dense = dense_strides(&x.shape);
    let still: Vec<isize> = vec![0; x.shape.len()];
    let mut step = Phases::new("clip", 0);
    for (k, (i, kind)) in bounds.into_iter().enumerate() {
        let kernel = Kernel::new(kind, elem, &x.shape, &dense, &still, &dense)?;
        step = step.then(kernel.tasks(), 0, move |args, task, _| {
            let from = if k == 0 { args.input::<u8>(0) } else { args.output::<u8>(0).cast_const() };
            // SAFETY: operands of the types and shapes the kernel was made from; the bound is one number.
            unsafe { kernel.run(task, from, args.input(i), args.output(0)) };
            Ok(())
        });
    }
    Ok(step.boxed())
}

/// Input 1 where input 0 is true, else input 2; all broadcast together.
#[derive(Clone, Debug, PartialEq)]
pub struct Where;

impl Op for Where {
    fn name(&self) -> &'static str {
        "Where"
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[1, 2])
    }
    fn flops(&self, _: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        elements(outputs)
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        Spelling::since(9, version, "Where")
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::Bool])?;
        cx.expect_same_dtype(1, 2)?;
        let (c, a, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let Some(dims) = broadcast_all([c.dims.as_ref(), a.dims.as_ref(), b.dims.as_ref()])? else {
            return Ok(vec![Fact::any_tensor(a.dtype)]);
        };
        let mut f = TensorFact::new(a.dtype, dims);
        f.contents = contents::select(c, a, b, &f);
        Ok(vec![Fact::Tensor(f)])
    }
}

fn parse_where(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    Ok(Arc::new(Where))
}

fn bind_where(_: &Where, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let out = cx.output(0)?;
    if is_programs(out.dtype) {
        let sources = [0, 1, 2].map(|i| Source::new(cx, i)).into_iter().collect::<Result<Vec<_>>>()?;
        return bind_program(cx, "where", &sources, |b, x| Ok(vec![b.select(x[0], x[1], x[2])]));
    }
    let strides = |i: usize| {
        let s = &cx.input(i)?.shape;
        broadcast_strides(s, &out.shape).ok_or_else(|| err!(Internal, "{s:?} does not broadcast to {:?}", out.shape))
    };
    let size = need_size(out.dtype, "Where")?;
    let kernel = Select::new(size, &out.shape, &strides(0)?, &strides(1)?, &strides(2)?, &dense_strides(&out.shape))?;
    Ok(FnStep::boxed("where", kernel.tasks(), 0, move |args, task, _| {
        // SAFETY: operands of the types and shapes the kernel was made from.
        unsafe { kernel.run(task, args.input(0), args.input(1), args.input(2), args.output(0)) };
        Ok(())
    }))
}

fn eager_where(_: &Where, _cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let [c, a, b] = args else { bail!(InvalidModel, "Where takes three operands") };
    let (c, a, b) = (c.tensor()?, a.tensor()?, b.tensor()?);
    let (x, y, yes) = (a.as_strings()?, b.as_strings()?, c.as_slice::<bool>()?);
    let dims = |s: &[usize]| s.iter().map(|&n| crate::ir::Dim::of(n)).collect::<Vec<_>>();
    let shape = broadcast(&broadcast(&dims(c.shape()), &dims(a.shape()))?, &dims(b.shape()))?;
    let shape: Dims = shape.iter().filter_map(crate::ir::Dim::size).collect();
    let strides = |s: &[usize]| broadcast_strides(s, &shape).ok_or_else(|| err!(Internal, "{s:?} against {shape:?}"));
    let nest = Nest::new(&shape, &[&strides(c.shape())?, &strides(a.shape())?, &strides(b.shape())?])?;
    let mut chosen = Vec::with_capacity(nest.len());
    nest.for_rows(0, nest.rows(), |o| {
        for i in 0..nest.inner() as isize {
            let at = |k: usize| (o[k] + i * nest.inner_stride(k)) as usize;
            chosen.push(if yes[at(0)] { x[at(1)].clone() } else { y[at(2)].clone() });
        }
    });
    Ok(smallvec![Value::Tensor(Tensor::from_strings(&shape, chosen)?)])
}

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Max", versions: &[1, 6, 8, 12, 13], parse: parse_variadic },
    OpDef { domain: "", name: "Mean", versions: &[1, 6, 8, 13], parse: parse_variadic },
    OpDef { domain: "", name: "Min", versions: &[1, 6, 8, 12, 13], parse: parse_variadic },
    OpDef { domain: "", name: "Sum", versions: &[1, 6, 8, 13], parse: parse_variadic },
    OpDef { domain: "", name: "Clip", versions: &[1, 6, 11, 12, 13], parse: parse_clip },
    OpDef { domain: "", name: "Where", versions: &[9, 16], parse: parse_where },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Variadic>(bind_variadic);
    b.layouts::<Variadic>(|_, node, _| follow(node));
    b.step::<Clip>(bind_clip);
    b.layouts::<Clip>(|_, node, _| follow(node));
    b.step::<Where>(bind_where);
    b.eager::<Where>(eager_where);
}
