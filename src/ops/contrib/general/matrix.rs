//! Inverses, distances between rows, and products with weights of 4-bit floats (bitsandbytes).

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx};
use crate::kernels::real::Real;
use crate::kernels::scalar::{load, store};
use crate::ops::cast::Cast;
use crate::ops::conv::expect_dim;
use crate::ops::linear::MatMul;
use crate::ops::types::need_elem;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

/// The inverses of a stack of square matrices; those of singular ones hold infinities or NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Inverse;

/// The distance of each row of A from each row of B.
#[derive(Clone, Debug, PartialEq)]
pub struct Distances {
    /// Not squared.
    pub root: bool,
}

/// Weights of 4 bits that stand for 16 floats, in blocks with a greatest magnitude each (input 1), as f32 `[n, k]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatCodes {
    /// What the codes stand for.
    pub normal: bool,
    /// Rows.
    pub n: usize,
    /// Columns.
    pub k: usize,
    /// Weights of a block.
    pub block: usize,
}

pub(super) fn parse_inverse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Inverse))
}

pub(super) fn parse_distance(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    match cx.string_or("metric", "sqeuclidean")?.as_str() {
        "sqeuclidean" => Ok(Arc::new(Distances { root: false })),
        "euclidean" => Ok(Arc::new(Distances { root: true })),
        m => bail!(Unsupported, "CDist with metric '{m}'"),
    }
}

pub(super) fn parse_bnb(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    let size = |name: &str| match cx.int(name)? {
        x @ 1..=0x7fff_ffff => Ok(x as usize),
        x => bail!(InvalidModel, "{name} is {x}"),
    };
    let (n, k, block) = (size("N")?, size("K")?, size("block_size")?);
    ensure!(block.is_power_of_two() && block >= 16, InvalidModel, "block_size is {block}");
    let normal = match cx.int("quant_type")? {
        0 => false,
        1 => true,
        t => bail!(InvalidModel, "quant_type is {t}"),
    };
    let trans_b = cx.flag("transB", true)?;
    let d = cx.input_fact(0).dtype();
    let inputs = cx.inputs.clone();
    let mut w = cx.emit(Arc::new(FloatCodes { normal, n, k, block }), vec![inputs[1], inputs[2]])?;
    if let Some(d) = d.filter(|&d| d != DType::F32) {
        w = cx.emit(Arc::new(Cast::new(d)), vec![Some(w)])?;
    }
    cx.inputs = vec![inputs[0], Some(w)];
    Ok(Arc::new(MatMul { trans_b, ..MatMul::default() }))
}

impl Op for Inverse {
    fn name(&self) -> &'static str {
        "Inverse"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        let x = cx.tensor(0)?;
        if let Some(dims) = &x.dims {
            let Some((_, [rows, columns])) = dims.split_last_chunk::<2>() else {
                bail!(InvalidModel, "a matrix has two axes, it has {}", dims.len())
            };
            expect_dim("rows and columns of a matrix to invert", rows, columns)?;
        }
        Ok(vec![cx.like(0, x.dtype)?])
    }
}

impl Op for Distances {
    fn name(&self) -> &'static str {
        "CDist"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64])?;
        cx.expect_same_dtype(0, 1)?;
        let row = |i: usize| -> Result<(Dim, Dim)> {
            match cx.tensor(i)?.dims.as_deref() {
                Some([n, k]) => Ok((n.clone(), k.clone())),
                Some(d) => bail!(InvalidModel, "rows of rank {}", d.len()),
                None => Ok((Dim::Unknown, Dim::Unknown)),
            }
        };
        let ((m, a), (n, b)) = (row(0)?, row(1)?);
        expect_dim("the rows' lengths differ", &a, &b)?;
        Ok(vec![Fact::tensor(cx.dtype(0)?, vec![m, n])])
    }
}

impl Op for FloatCodes {
    fn name(&self) -> &'static str {
        "FloatCodes"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::U8])?;
        cx.expect_dtype(1, &[DType::F32, DType::F16, DType::BF16])?;
        let count = product(&[self.n, self.k])?;
        for (i, want) in [(0, count.div_ceil(2)), (1, count.div_ceil(self.block))] {
            expect_dim("packed weights or their scales", &cx.tensor(i)?.count(), &Dim::of(want))?;
        }
        Ok(vec![Fact::sized(DType::F32, &[self.n, self.k])])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Inverse>(bind_inverse);
    b.step::<Distances>(|op, cx| match cx.input(0)?.dtype {
        DType::F32 => bind_distances::<f32>(op, cx),
        DType::F64 => bind_distances::<f64>(op, cx),
        d => bail!(Unsupported, "CDist of {d}"),
    });
    b.step::<FloatCodes>(bind_codes);
}

/// Turns `a` into its inverse by elimination with the greatest of a column as its pivot; `b` begins as the unit matrix.
fn invert(a: &mut [f64], b: &mut [f64], n: usize) {
    b.fill(0.0);
    (0..n).for_each(|i| b[i * n + i] = 1.0);
    for k in 0..n {
        let best = (k + 1..n).fold(k, |b, i| if a[i * n + k].abs() > a[b * n + k].abs() { i } else { b });
        if best != k {
            (0..n).for_each(|j| {
                a.swap(k * n + j, best * n + j);
                b.swap(k * n + j, best * n + j);
            });
        }
        let by = 1.0 / a[k * n + k];
        for m in [&mut *a, &mut *b] {
            m[k * n..(k + 1) * n].iter_mut().for_each(|x| *x *= by);
        }
        for i in (0..n).filter(|&i| i != k) {
            let by = a[i * n + k];
            if by != 0.0 {
                for m in [&mut *a, &mut *b] {
                    let (row, to) = two_rows(m, n, k, i);
                    to.iter_mut().zip(row).for_each(|(x, r)| *x -= by * *r);
                }
            }
        }
    }
}

/// Row `k` to be read and row `i` to be written, which are two.
fn two_rows(m: &mut [f64], n: usize, k: usize, i: usize) -> (&[f64], &mut [f64]) {
    let (low, high) = m.split_at_mut(k.max(i) * n);
    let (low, high) = (&mut low[k.min(i) * n..][..n], &mut high[..n]);
    if k < i { (low, high) } else { (high, low) }
}

fn bind_inverse(op: &Inverse, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let elem = need_elem(x.dtype, op.name())?;
    let [.., n, _] = x.shape[..] else { bail!(InvalidModel, "a matrix is needed") };
    let size = product(&[n, n])?;
    let count = x.len().checked_div(size).unwrap_or(0);
    let scratch = product(&[size, 2, 8])?;
    let (tasks, per) = split(count, 100_000usize.div_ceil(size.saturating_mul(n).max(1)));
    Ok(FnStep::boxed("inverse", tasks, scratch, move |args, task, scratch| {
        for m in task * per..count.min((task + 1) * per) {
            // SAFETY: scratch for twice n * n numbers, written before they are read; matrix m of both operands.
            unsafe {
                let (a, b) = (scratch.cast::<f64>(), scratch.cast::<f64>().add(size));
                for i in 0..size {
                    a.add(i).write(load(elem, args.input(0), m * size + i));
                    b.add(i).write(0.0);
                }
                let b = std::slice::from_raw_parts_mut(b, size);
                invert(std::slice::from_raw_parts_mut(a, size), b, n);
                b.iter().enumerate().for_each(|(i, &x)| store(elem, args.output(0), m * size + i, x));
            }
        }
        Ok(())
    }))
}

fn bind_distances<T: Real>(op: &Distances, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (a, b, root) = (cx.input(0)?, cx.input(1)?, op.root);
    let (&[m, k], &[n, _]) = (a.shape.as_slice(), b.shape.as_slice()) else { bail!(InvalidModel, "rows are needed") };
    let (tasks, per) = split(m, 65536usize.div_ceil(n.saturating_mul(k).max(1)));
    Ok(FnStep::boxed("cdist", tasks, 0, move |args, task, _| {
        for i in task * per..m.min((task + 1) * per) {
            for j in 0..n {
                // SAFETY: row i of A, row j of B, element (i, j) of the result.
                unsafe {
                    let row = |i: usize, at: usize| std::slice::from_raw_parts(args.input::<T>(i).add(at * k), k);
                    let (x, y) = (row(0, i), row(1, j));
                    // In lanes: fast, and the sum loses less.
                    let mut lanes = [T::ZERO; 8];
                    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
                    let rest = xs.remainder().iter().zip(ys.remainder());
                    let rest: T = rest.map(|(&x, &y)| (x - y) * (x - y)).sum();
                    for (x, y) in xs.zip(ys) {
                        lanes.iter_mut().zip(x.iter().zip(y)).for_each(|(s, (&x, &y))| *s += (x - y) * (x - y));
                    }
                    let sum = lanes.into_iter().sum::<T>() + rest;
                    *args.output::<T>(0).add(i * n + j) = if root { T::of(sum.to_f64().sqrt()) } else { sum };
                }
            }
        }
        Ok(())
    }))
}

/// Floats of 4 bits as bitsandbytes has them, scaled so that the greatest is 1.
const FP4: [f32; 16] = [
    0.0,
    0.005_208_333_5,
    0.666_666_7,
    1.0,
    0.333_333_34,
    0.5,
    0.166_666_67,
    0.25,
    0.0,
    -0.005_208_333_5,
    -0.666_666_7,
    -1.0,
    -0.333_333_34,
    -0.5,
    -0.166_666_67,
    -0.25,
];
/// The quantiles of a normal distribution (QLoRA, Dettmers et al. 2023, appendix E).
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

fn bind_codes(op: &FloatCodes, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let scale = need_elem(cx.input(1)?.dtype, "MatMulBnb4")?;
    let (table, block, count) = (if op.normal { NF4 } else { FP4 }, op.block, product(&[op.n, op.k])?);
    let blocks = count.div_ceil(block);
    let (tasks, per) = split(blocks, (32 * 1024 / block).max(1));
    Ok(FnStep::boxed("float_codes", tasks, 0, move |args, task, _| {
        for b in task * per..blocks.min((task + 1) * per) {
            // SAFETY: block b of both inputs (a block is a whole number of bytes), and its weights of the output.
            unsafe {
                let by = load(scale, args.input(1), b) as f32;
                let values = table.map(|x| x * by);
                for i in b * block..count.min((b + 1) * block) {
                    let byte = *args.input::<u8>(0).add(i / 2);
                    // The first of two has the upper bits.
                    let code = if i % 2 == 0 { byte >> 4 } else { byte & 15 };
                    *args.output::<f32>(0).add(i) = values[usize::from(code)];
                }
            }
        }
        Ok(())
    }))
}
