//! Weights of 2, 4 and 8 bits in blocks: MatMulNBits, GatherBlockQuantized.

use super::linear::ScaleMap;
use crate::backend::cpu::CpuCtx;
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx, elements};
use crate::kernels::quant::blocks::{Blocks, ROWS, multiply, place};
use crate::ops::conv::expect_dim;
use crate::ops::steps::Phases;
use crate::ops::widen::widened;
use crate::tensor::{DType, decode_narrow};
use crate::{bail, ensure};
use std::sync::Arc;

/// `A * dequantised(B)^T + bias`: inputs A `[..., K]`, B `[N, blocks, bytes]`, scales `[N, blocks]`, optionally zero points
/// (packed, or of A's type), a block for each index of K, and a bias `[N]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMulNBits {
    /// Columns of A.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
    /// Bits of a weight.
    pub bits: usize,
    /// Weights of a block.
    pub block: usize,
}

fn parse_bits(cx: &ParseCtx<'_>) -> Result<usize> {
    match cx.int_or("bits", 4)? {
        b @ (2 | 4 | 8) => Ok(b as usize),
        b => bail!(Unsupported, "weights of {b} bits"),
    }
}

pub(super) fn parse_matmul(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 6)?;
    ensure!(cx.int_or("weight_prepacked", 0)? == 0, Unsupported, "weights packed for another runtime");
    let size = |name: &str| match cx.int(name)? {
        x @ 1..=0x7fff_ffff => Ok(x as usize),
        x => bail!(InvalidModel, "{name} is {x}"),
    };
    let (k, n, block) = (size("K")?, size("N")?, size("block_size")?);
    ensure!(block.is_power_of_two() && (16..=1 << 16).contains(&block), InvalidModel, "block_size is {block}");
    Ok(Arc::new(MatMulNBits { k, n, bits: parse_bits(cx)?, block }))
}

impl Op for MatMulNBits {
    fn name(&self) -> &'static str {
        "MatMulNBits"
    }
    fn flops(&self, _: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        2 * elements(outputs) * self.k as u64
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F16, DType::BF16])?;
        cx.expect_dtype(1, &[DType::U8])?;
        cx.expect_same_dtype(0, 2)?;
        let a = cx.tensor(0)?;
        if cx.has(3) && cx.dtype(3)? != DType::U8 {
            cx.expect_same_dtype(0, 3)?;
        }
        if cx.has(4) {
            cx.expect_dtype(4, &[DType::I32])?;
        }
        if cx.has(5) {
            cx.expect_same_dtype(0, 5)?;
        }
        let Some(d) = &a.dims else { return Ok(vec![Fact::any_tensor(a.dtype)]) };
        let Some((last, lead)) = d.split_last() else { bail!(InvalidModel, "a scalar is no matrix") };
        expect_dim("columns of A and K differ", last, &Dim::of(self.k))?;
        let mut out = lead.to_vec();
        out.push(Dim::of(self.n));
        Ok(vec![Fact::tensor(a.dtype, out)])
    }
}

/// One code of `bits` bits out of packed ones.
unsafe fn code(p: *const u8, i: usize, bits: usize) -> u8 {
    let (per, mask) = (8 / bits, ((1u16 << bits) - 1) as u8);
    // SAFETY: the caller's: there is a code `i`.
    unsafe { *p.add(i / per) >> (i % per * bits) & mask }
}

pub(super) fn bind_matmul(op: &MatMulNBits, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_matmul)? {
        return Ok(s);
    }
    let (k, n, bits, block, isa) = (op.k, op.n, op.bits, op.block, cx.isa);
    let blocks = k.div_ceil(block);
    let bytes = block * bits / 8;
    let a = cx.input(0)?;
    let rows = a.len() / k;
    ensure!(rows * k == a.len(), InvalidModel, "A of shape {:?} for K of {k}", a.shape);
    let expect = |i: usize, want: usize| match cx.opt_input(i) {
        Some(x) => {
            ensure!(x.len() == want, InvalidModel, "input {i} of MatMulNBits has {} elements, not {want}", x.len());
            Ok(true)
        }
        None => Ok(false),
    };
    expect(1, product(&[n, blocks, bytes])?)?;
    expect(2, n * blocks)?;
    let packed = cx.opt_input(3).is_some_and(|z| z.dtype == DType::U8);
    let zero_row = if packed { (blocks * bits).div_ceil(8) } else { blocks };
    let (zeros, groups, bias) = (expect(3, n * zero_row)?, expect(4, k)?, expect(5, n)?);
    let padded = product(&[blocks, block])?;
    let x_bytes = round_up(product(&[rows, padded, 4])?, ALIGN);
    let workspace = x_bytes + product(&[rows, blocks, 4])?;
    let (tasks, per) = split(n, (1 << 20) / (padded * rows.max(1)).max(1));
    let default = (1u32 << (bits - 1)) as f32;
    let scratch = round_up(blocks * 4, ALIGN) + if groups { padded * 4 } else { 0 };
    let order: Vec<usize> = (0..block).map(|i| if groups { i } else { place(i, bytes, bits) }).collect();
    Ok(Phases::new("matmul_nbits", workspace)
        .then(rows, 0, move |args, row, _| {
            // SAFETY: row `row` of A; the workspace has room for it, padded to whole blocks, and for its sums.
            unsafe {
                let from = args.input::<f32>(0).add(row * k);
                let to = args.workspace::<f32>().add(row * padded);
                let sums = args.workspace::<u8>().add(x_bytes).cast::<f32>().add(row * blocks);
                for b in 0..blocks {
                    let mut sum = 0.0;
                    for (i, &at) in order.iter().enumerate() {
                        let x = if b * block + i < k { *from.add(b * block + i) } else { 0.0 };
                        *to.add(b * block + at) = x;
                        sum += x;
                    }
                    *sums.add(b) = sum;
                }
            }
            Ok(())
        })
        .then(if rows == 0 { 0 } else { tasks }, scratch, move |args, task, scratch| {
            let (x, sums) = (args.workspace::<f32>(), args.workspace::<u8>().wrapping_add(x_bytes).cast::<f32>());
            let zero = scratch.cast::<f32>();
            for column in task * per..n.min((task + 1) * per) {
                // SAFETY: operands of the sizes checked above; the scratch has room for a column's zero points, and for its
                // weights where they have groups.
                unsafe {
                    for b in 0..blocks {
                        *zero.add(b) = match (zeros, packed) {
                            (false, _) => default,
                            (true, true) => f32::from(code(args.input::<u8>(3).add(column * zero_row), b, bits)),
                            (true, false) => *args.input::<f32>(3).add(column * blocks + b),
                        };
                    }
                    let q = args.input::<u8>(1).add(column * blocks * bytes);
                    let scales = args.input::<f32>(2).add(column * blocks);
                    let add = if bias { *args.input::<f32>(5).add(column) } else { 0.0 };
                    if groups {
                        let w = scratch.add(round_up(blocks * 4, ALIGN)).cast::<f32>();
                        for i in 0..k {
                            let g = usize::try_from(*args.input::<i32>(4).add(i)).unwrap_or(usize::MAX);
                            ensure!(g < blocks, Run, "group {g} of index {i}: there are {blocks}");
                            *w.add(i) = (f32::from(code(q, i, bits)) - *zero.add(g)) * *scales.add(g);
                        }
                        let w = std::slice::from_raw_parts(w, k);
                        for row in 0..rows {
                            let x = std::slice::from_raw_parts(x.add(row * padded), k);
                            let y = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>();
                            *args.output::<f32>(0).add(row * n + column) = y as f32 + add;
                        }
                        continue;
                    }
                    for row in (0..rows).step_by(ROWS) {
                        let some = ROWS.min(rows - row);
                        let b = Blocks {
                            x: x.add(row * padded),
                            row: padded,
                            sums: sums.add(row * blocks),
                            rows: some,
                            q,
                            blocks,
                            bytes,
                            bits,
                            scales,
                            zeros: zero,
                        };
                        let y = multiply(isa, b);
                        for (i, y) in y.iter().enumerate().take(some) {
                            *args.output::<f32>(0).add((row + i) * n + column) = y + add;
                        }
                    }
                }
            }
            Ok(())
        })
        .boxed())
}

/// Slices of quantised data along an axis, dequantised: inputs data, indices, scales, optionally zero points.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherBlockQuantized {
    /// The axis of the indices.
    pub gather: i64,
    /// The axis along which blocks lie.
    pub quantised: i64,
    /// Length of a block; 0 for the whole axis.
    pub block: usize,
    /// Bits of a number in data of type u8.
    pub bits: usize,
}

pub(super) fn parse_gather(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 4)?;
    let block = cx.int_or("block_size", 128)?;
    ensure!((0..=i64::from(i32::MAX)).contains(&block), InvalidModel, "block_size is {block}");
    Ok(Arc::new(GatherBlockQuantized {
        gather: cx.int_or("gather_axis", 0)?,
        quantised: cx.int_or("quantize_axis", 1)?,
        block: block as usize,
        bits: parse_bits(cx)?,
    }))
}

impl GatherBlockQuantized {
    /// Numbers that an element of the last axis holds.
    fn per(&self, d: DType) -> usize {
        if d == DType::U8 { 8 / self.bits } else { 1 }
    }
}

impl Op for GatherBlockQuantized {
    fn name(&self) -> &'static str {
        "GatherBlockQuantized"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (data, at, scales) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let d = data.dtype;
        ensure!(
            matches!(d, DType::U8 | DType::U4 | DType::I4) || d.is_narrow_float() && d != DType::F8E8M0,
            InvalidModel,
            "data of type {d}"
        );
        cx.expect_dtype(1, &[DType::I32, DType::I64])?;
        cx.expect_dtype(2, &[DType::F32, DType::F16, DType::BF16])?;
        if cx.has(3) {
            cx.expect_same_dtype(0, 3)?;
        }
        let (Some(x), Some(i)) = (&data.dims, &at.dims) else { return Ok(vec![Fact::any_tensor(scales.dtype)]) };
        let mut x = x.clone();
        let (axis, _) = (resolve_axis(self.gather, x.len())?, resolve_axis(self.quantised, x.len())?);
        if let Some(last) = x.last_mut() {
            *last = last.clone() * Dim::of(self.per(d));
        }
        let dims = x[..axis].iter().chain(i).chain(&x[axis + 1..]).cloned().collect();
        Ok(vec![Fact::tensor(scales.dtype, dims)])
    }
}

pub(super) fn bind_gather(op: &GatherBlockQuantized, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_gather)? {
        return Ok(s);
    }
    let (data, at, scales) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (d, bits) = (data.dtype, if data.dtype == DType::U8 { op.bits } else { data.dtype.bits() });
    let mut shape = data.shape.clone();
    let (axis, blocked) = (resolve_axis(op.gather, shape.len())?, resolve_axis(op.quantised, shape.len())?);
    if let Some(last) = shape.last_mut() {
        *last *= op.per(d);
    }
    let block = if op.block == 0 { shape[blocked].max(1) } else { op.block };
    let mut want = shape.clone();
    want[blocked] = want[blocked].div_ceil(block);
    ensure!(scales.shape == want, InvalidModel, "scales of shape {:?}, not {want:?}", scales.shape);
    // Zero points of packed bytes fill up their last byte in each row of the last axis.
    let row = want.last().copied().unwrap_or(1);
    let row_codes = if d == DType::U8 { row.next_multiple_of(8 / bits) } else { row };
    if let Some(z) = cx.opt_input(3) {
        let codes = z.len() * op.per(d);
        let all = product(&want)? / row.max(1) * row_codes;
        ensure!(codes == all, InvalidModel, "zero points of shape {:?} for scales of {want:?}", z.shape);
    }
    let map = ScaleMap { axis: shape[blocked], inner: product(&shape[blocked + 1..])?, block, scales: scales.len() };
    let (count, size, inner) = (at.len(), shape[axis], product(&shape[axis + 1..])?);
    let slices = product(&[product(&shape[..axis])?, count])?;
    let table: Vec<f32> =
        (0..256u16).map(|c| if d == DType::U8 { f32::from(c) } else { decode_narrow(d, c as u8) }).collect();
    let default = if d == DType::U8 { (1u32 << (bits - 1)) as f32 } else { 0.0 };
    let (zeros, wide) = (cx.opt_input(3).is_some(), at.dtype == DType::I64);
    let (tasks, per) = split(slices, (8 * 1024 / inner.max(1)).max(1));
    Ok(FnStep::boxed("gather_block_quantized", tasks, 0, move |args, task, _| {
        for slice in task * per..slices.min((task + 1) * per) {
            let (outer, j) = (slice / count, slice % count);
            // SAFETY: there are `count` indices of this type.
            let i =
                unsafe { if wide { *args.input::<i64>(1).add(j) } else { i64::from(*args.input::<i32>(1).add(j)) } };
            let i = usize::try_from(if i < 0 { i.saturating_add(size as i64) } else { i }).unwrap_or(usize::MAX);
            ensure!(i < size, Run, "index {j} is outside an axis of {size}");
            let first = (outer * size + i) * inner;
            let mut t = 0;
            while t < inner {
                let (len, scale, each) = map.run(first + t);
                let len = len.min(inner - t);
                for e in 0..len {
                    let s = scale + if each { e } else { 0 };
                    // SAFETY: number `first + t + e` of the data, and its scale and zero point; the output has `inner` numbers
                    // for each slice.
                    unsafe {
                        let mut zero = default;
                        if zeros {
                            let at = s / row * row_codes + s % row;
                            zero = table[code(args.input::<u8>(3), at, bits) as usize];
                        }
                        let x = table[code(args.input::<u8>(0), first + t + e, bits) as usize];
                        *args.output::<f32>(0).add(slice * inner + t + e) = (x - zero) * *args.input::<f32>(2).add(s);
                    }
                }
                t += len;
            }
        }
        Ok(())
    }))
}
