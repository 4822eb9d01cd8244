//! Kernels that map, reduce and normalise elements.

use super::moving::SIZES;
use super::{Sample, Work, floats, read, vectors};
use crate::bail;
use crate::base::alloc::Buffer;
use crate::error::Result;
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::nd::dense_strides;
use crate::kernels::normalise::{GroupNorm, LayerNorm, LayerNormKind, LayerNormPointers, Softmax, SoftmaxKind};
use crate::kernels::pointwise::{BinaryOp, Operand, Pointwise, Program, ProgramBuilder, UnaryOp};
use crate::kernels::reduce::{Reduce, ReduceKind};
use half::{bf16, f16};
use std::rc::Rc;

/// As [`floats`], in the array type `elem`.
fn values(elem: Elem, n: usize) -> Result<Buffer> {
    let from = floats(n)?;
    let to = Buffer::zeroed(n * elem.size())?;
    // SAFETY: both buffers hold n elements.
    unsafe {
        for i in 0..n {
            let x = *from.ptr().cast::<f32>().add(i);
            match elem {
                Elem::F32 => *to.ptr().cast::<f32>().add(i) = x,
                Elem::F16 => *to.ptr().cast::<f16>().add(i) = f16::from_f32(x),
                Elem::Bf16 => *to.ptr().cast::<bf16>().add(i) = bf16::from_f32(x),
                Elem::I64 => *to.ptr().cast::<i64>().add(i) = (x * 1000.0) as i64,
                _ => bail!(Internal, "samples of {elem:?}"),
            }
        }
    }
    Ok(to)
}

fn read_as(b: &Buffer, elem: Elem, n: usize) -> Vec<f32> {
    // SAFETY: the buffer has n elements of this type; its maker wrote all of it.
    unsafe {
        match elem {
            Elem::F16 => (0..n).map(|i| (*b.ptr().cast::<f16>().add(i)).to_f32()).collect(),
            Elem::Bf16 => (0..n).map(|i| (*b.ptr().cast::<bf16>().add(i)).to_f32()).collect(),
            Elem::I64 => (0..n).map(|i| *b.ptr().cast::<i64>().add(i) as f32).collect(),
            _ => read(b, n),
        }
    }
}

/// A difference of two roundings of a value of about `size`.
fn rounding(elem: Elem, size: f32) -> f32 {
    size * match elem {
        Elem::F16 => 2.0 * f16::EPSILON.to_f32(),
        Elem::Bf16 => 2.0 * bf16::EPSILON.to_f32(),
        Elem::I64 => 0.0,
        // Functions are good to 2 ulp, either way.
        _ => 8.0 * f32::EPSILON,
    }
}

pub fn pointwise() -> Vec<Sample> {
    let mut all = Vec::new();
    for (place, n) in SIZES {
        let one = vec![1isize];
        let mut add = |label: String, program: Program, shape: &[usize], strides: Vec<Vec<isize>>, elem: Elem| {
            let (count, shape) = (shape.iter().product::<usize>(), shape.to_vec());
            let full = strides.iter().filter(|s| s.iter().all(|s| *s != 0)).count();
            let program = Rc::new(program);
            all.push(Sample {
                label: format!("{place} {label}"),
                flops: 0.0,
                bytes: ((full + 1) * count * elem.size()) as f64,
                bound: rounding(elem, 5.0),
                ready: Box::new(move |isa| program_work(isa, &program, &shape, &strides, elem)),
            });
        };
        use UnaryOp::*;
        for op in [Relu, Exp, Tanh, Erf, Sigmoid, Softplus, Sin] {
            add(format!("{op:?}"), Program::unary(op), &[n], vec![one.clone()], Elem::F32);
        }
        for (elem, what) in [(Elem::F32, ""), (Elem::F16, " f16"), (Elem::Bf16, " bf16")] {
            let two = vec![one.clone(), one.clone()];
            add(format!("Add{what}"), Program::binary(BinaryOp::Add), &[n], two, elem);
        }
        let mut p = ProgramBuilder::new(2);
        let (x, y) = (p.load(0), p.load(1));
        let s = p.add(x, y);
        let g = p.gelu(s);
        if let Ok(gelu) = p.finish(&[g]) {
            let rows = n / 768;
            add("bias + gelu, rows of 768".into(), gelu, &[rows, 768], vec![vec![768, 1], vec![0, 1]], Elem::F32);
        }
        let wide = n / 64;
        let by_channel = vec![vec![wide as isize, 1], vec![1, 0]];
        add("add a channel, NCHW".into(), Program::binary(BinaryOp::Add), &[64, wide], by_channel, Elem::F32);
        let last = vec![vec![24, 1], vec![0, 1]];
        add("add a channel, NHWC 24".into(), Program::binary(BinaryOp::Add), &[n / 24, 24], last, Elem::F32);
    }
    all
}

fn program_work(isa: Isa, program: &Program, shape: &[usize], strides: &[Vec<isize>], elem: Elem) -> Result<Work> {
    let n: usize = shape.iter().product();
    let dense = dense_strides(shape);
    let inputs: Vec<Operand> = strides.iter().map(|strides| Operand { elem, strides }).collect();
    let p = Pointwise::new(isa, program, shape, &inputs, &[Operand { elem, strides: &dense }])?;
    let buffers: Vec<Buffer> = inputs.iter().map(|_| values(elem, n)).collect::<Result<_>>()?;
    let (to, scratch) = (Rc::new(values(elem, n)?), Buffer::uninit(p.scratch_bytes())?);
    let out = to.clone();
    Ok(Work {
        kernel: vectors("pointwise", isa),
        tasks: p.tasks(),
        run: Box::new(move || {
            let ins: [*const u8; 2] = std::array::from_fn(|i| buffers[i.min(buffers.len() - 1)].ptr().cast_const());
            for t in 0..p.tasks() {
                // SAFETY: all buffers hold the shape.
                unsafe { p.run(t, &ins[..buffers.len()], &[to.ptr()], scratch.ptr()) };
            }
            Ok(())
        }),
        output: Box::new(move || read_as(&out, elem, n)),
    })
}

pub fn reduce() -> Vec<Sample> {
    use ReduceKind::*;
    let mut all = Vec::new();
    for (place, n) in SIZES {
        let mut add = |label: &str, kind: ReduceKind, elem: Elem, shape: &[usize], axes: &[bool]| {
            let (shape, axes) = (shape.to_vec(), axes.to_vec());
            let terms: usize = shape.iter().zip(&axes).filter(|a| *a.1).map(|a| a.0).product();
            let count: usize = shape.iter().product();
            all.push(Sample {
                label: format!("{place} {label}"),
                flops: 0.0,
                bytes: (count * elem.size()) as f64,
                // Sums in pairs: the error grows with the logarithm; the values' sum stays below a thousand.
                bound: rounding(elem, if kind == Sum { terms as f32 / 100.0 } else { 2.0 }),
                ready: Box::new(move |isa| reduced(isa, kind, elem, &shape, &axes)),
            });
        };
        add("sum all", Sum, Elem::F32, &[n], &[true]);
        add("mean of rows of 768", Mean, Elem::F32, &[n / 768, 768], &[false, true]);
        add("mean of 7x7", Mean, Elem::F32, &[n / 49, 49], &[false, true]);
        add("max over rows, 256 wide", Max, Elem::F32, &[n / 256, 256], &[true, false]);
        add("sum over rows, 256 wide", Sum, Elem::F32, &[n / 256, 256], &[true, false]);
        add("sum of f16", Sum, Elem::F16, &[n], &[true]);
        add("sum of i64", Sum, Elem::I64, &[n / 2], &[true]);
    }
    all
}

fn reduced(isa: Isa, kind: ReduceKind, elem: Elem, shape: &[usize], axes: &[bool]) -> Result<Work> {
    let n: usize = shape.iter().product();
    let outputs: usize = shape.iter().zip(axes).filter(|a| !*a.1).map(|a| a.0).product();
    let r = Reduce::new(isa, kind, elem, shape, &dense_strides(shape), axes)?;
    let (a, b) = (values(elem, n)?, Rc::new(values(elem, outputs)?));
    let out = b.clone();
    Ok(Work {
        kernel: vectors("reduce", isa),
        tasks: r.tasks(),
        run: Box::new(move || {
            for t in 0..r.tasks() {
                // SAFETY: the buffers hold the shape and its outputs.
                unsafe { r.run(t, a.ptr(), b.ptr()) };
            }
            Ok(())
        }),
        output: Box::new(move || read_as(&out, elem, outputs)),
    })
}

pub fn softmax() -> Vec<Sample> {
    let mut all = Vec::new();
    for (place, n) in SIZES {
        let mut add = |label: &str, elem: Elem, outer: usize, axis: usize, inner: usize| {
            all.push(Sample {
                label: format!("{place} {label}"),
                flops: 0.0,
                bytes: (2 * outer * axis * inner * elem.size()) as f64,
                bound: rounding(elem, 1.0),
                ready: Box::new(move |isa| softmaxed(isa, elem, outer, axis, inner)),
            });
        };
        add("rows of 128", Elem::F32, n / 128, 128, 1);
        add("rows of 1000", Elem::F32, n / 1000, 1000, 1);
        add("over 64 channels", Elem::F32, 1, 64, n / 64);
        add("rows of 128, f16", Elem::F16, n / 128, 128, 1);
    }
    all
}

fn softmaxed(isa: Isa, elem: Elem, outer: usize, axis: usize, inner: usize) -> Result<Work> {
    let n = outer * axis * inner;
    let s = Softmax::new(isa, SoftmaxKind::Softmax, elem, outer, axis, inner)?;
    let (a, b, scratch) = (values(elem, n)?, Rc::new(values(elem, n)?), Buffer::uninit(s.scratch_bytes())?);
    let out = b.clone();
    Ok(Work {
        kernel: vectors("softmax", isa),
        tasks: s.tasks(),
        run: Box::new(move || {
            for t in 0..s.tasks() {
                // SAFETY: both buffers hold the shape.
                unsafe { s.run(t, a.ptr(), b.ptr(), scratch.ptr()) };
            }
            Ok(())
        }),
        output: Box::new(move || read_as(&out, elem, n)),
    })
}

pub fn norm() -> Vec<Sample> {
    let mut all = Vec::new();
    for (place, n) in SIZES {
        let n = n / 768 * 768;
        let bytes = 8.0 * n as f64;
        for kind in [LayerNormKind::Layer, LayerNormKind::Rms] {
            all.push(Sample {
                label: format!("{place} {kind:?} of rows of 768"),
                flops: 0.0,
                bytes,
                bound: rounding(Elem::F32, 8.0),
                ready: Box::new(move |isa| rows(isa, kind, n / 768)),
            });
        }
        all.push(Sample {
            label: format!("{place} 32 groups of 64 channels"),
            flops: 0.0,
            bytes,
            bound: rounding(Elem::F32, 8.0),
            ready: Box::new(move |isa| groups(isa, n / 64)),
        });
    }
    all
}

fn rows(isa: Isa, kind: LayerNormKind, rows: usize) -> Result<Work> {
    let l = LayerNorm::new(isa, kind, Elem::F32, rows, 768, 1e-5)?;
    let n = rows * 768;
    let (x, y, s) = (floats(n)?, Rc::new(floats(n)?), floats(768)?);
    let (out, null) = (y.clone(), std::ptr::null_mut());
    Ok(Work {
        kernel: vectors("norm", isa),
        tasks: l.tasks(),
        run: Box::new(move || {
            let (from, scale, bias, to) = (x.ptr().cast_const(), s.ptr().cast_const(), s.ptr().cast_const(), y.ptr());
            let p = LayerNormPointers { from, scale, bias, to, mean: null, inverse: null };
            for t in 0..l.tasks() {
                // SAFETY: the buffers hold the shape; f32 needs no scratch memory.
                unsafe { l.run(t, p, null) };
            }
            Ok(())
        }),
        output: Box::new(move || read(&out, n)),
    })
}

fn groups(isa: Isa, space: usize) -> Result<Work> {
    let g = GroupNorm::new(isa, Elem::F32, 1, 64, space, 32, 1e-5)?;
    let n = 64 * space;
    let (x, y, s) = (floats(n)?, Rc::new(floats(n)?), floats(64)?);
    let out = y.clone();
    Ok(Work {
        kernel: vectors("norm", isa),
        tasks: g.tasks(),
        run: Box::new(move || {
            for t in 0..g.tasks() {
                // SAFETY: the buffers hold the shape.
                unsafe { g.run(t, x.ptr(), s.ptr(), s.ptr(), y.ptr()) };
            }
            Ok(())
        }),
        output: Box::new(move || read(&out, n)),
    })
}
