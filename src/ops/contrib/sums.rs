//! Sums of rows that are normalised at once: SkipLayerNormalization and its kin, EmbedLayerNormalization.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Operand, Step};
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx, elements};
use crate::kernels::isa::Isa;
use crate::kernels::normalise::{LayerNorm, LayerNormKind, LayerNormPointers};
use crate::kernels::simd::{F32, Kernel, dispatch};
use crate::ops::norm::{FLOATS, LayerNormalization};
use crate::ops::types::need_elem;
use crate::ops::widen::widened;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::ptr::null;
use std::sync::Arc;

/// `normalise(X + skip + bias)`. Inputs: X, skip, scale, shift, bias. Outputs: result, mean, 1 / deviation, the sum.
#[derive(Clone, Debug, PartialEq)]
pub struct SkipNorm {
    /// By the root mean square alone.
    pub rms: bool,
    /// Keeps the root from zero.
    pub epsilon: f32,
}

/// Rows of embeddings, summed and normalised. Inputs: word ids, segment ids, words, positions, segments, scale, shift, mask,
/// position ids. Outputs: result, how many of each item's mask are 1, the sum.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedNorm {
    /// Keeps the root from zero.
    pub epsilon: f32,
}

pub(super) fn parse_skip(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let rms = cx.op_type == "SkipSimplifiedLayerNormalization";
    cx.expect_inputs(3, if rms { 4 } else { 5 })?;
    cx.inputs.resize(5, None);
    if rms {
        cx.inputs[4] = cx.inputs[3].take();
    }
    Ok(Arc::new(SkipNorm { rms, epsilon: cx.float_or("epsilon", 1e-12)? }))
}

pub(super) fn parse_simplified(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let stash = DType::from_onnx(i32::try_from(cx.int_or("stash_type", 1)?).unwrap_or(0))?;
    ensure!(FLOATS.contains(&stash), InvalidModel, "stash_type is {stash}");
    Ok(Arc::new(LayerNormalization {
        rms: true,
        axis: cx.int_or("axis", -1)?,
        epsilon: cx.float_or("epsilon", 1e-5)?,
        stash,
    }))
}

pub(super) fn parse_embed(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 9)?;
    ensure!([2, 3, 5, 6].iter().all(|&i| cx.has_input(i)), InvalidModel, "EmbedLayerNormalization lacks an input");
    ensure!(cx.has_input(1) == cx.has_input(4), InvalidModel, "segment ids and embeddings must be given together");
    Ok(Arc::new(EmbedNorm { epsilon: cx.float_or("epsilon", 1e-12)? }))
}

/// The type of means.
fn stash(d: DType) -> DType {
    if d == DType::F64 { DType::F64 } else { DType::F32 }
}

impl Op for SkipNorm {
    fn name(&self) -> &'static str {
        if self.rms { "SkipSimplifiedLayerNormalization" } else { "SkipLayerNormalization" }
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        // Sums of values and squares, difference, two products, sum with the bias.
        8 * cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &FLOATS)?;
        for i in 1..5 {
            if i < 3 || cx.has(i) {
                cx.expect_same_dtype(0, i)?;
            }
        }
        let d = cx.dtype(0)?;
        let y = cx.like(0, d)?;
        let means = match &cx.tensor(0)?.dims {
            Some(dims) => {
                ensure!(!dims.is_empty(), InvalidModel, "normalisation of a scalar");
                let mut m = dims.clone();
                m[dims.len() - 1] = Dim::Known(1);
                Fact::tensor(stash(d), m)
            }
            None => Fact::any_tensor(stash(d)),
        };
        Ok(vec![y.clone(), means.clone(), means, y])
    }
}

impl Op for EmbedNorm {
    fn name(&self) -> &'static str {
        "EmbedLayerNormalization"
    }
    fn flops(&self, _: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        // Sums of values and squares, difference, two products, sum with the bias.
        9 * elements(&outputs[..1])
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        for i in [0, 1, 7, 8] {
            if i == 0 || cx.has(i) {
                cx.expect_dtype(i, &[DType::I32, DType::I64])?;
            }
        }
        cx.expect_dtype(2, &FLOATS)?;
        for i in [3, 4, 5, 6] {
            if i != 4 || cx.has(i) {
                cx.expect_same_dtype(2, i)?;
            }
        }
        let (d, index) = (cx.dtype(2)?, if cx.has(7) { cx.dtype(7)? } else { DType::I32 });
        let (Some(ids), Some(words)) = (&cx.tensor(0)?.dims, &cx.tensor(2)?.dims) else {
            return Ok(vec![Fact::any_tensor(d), Fact::any_tensor(index), Fact::any_tensor(d)]);
        };
        ensure!(ids.len() == 2 && words.len() == 2, InvalidModel, "ids of {ids:?} and embeddings of {words:?}");
        let y = Fact::tensor(d, vec![ids[0].clone(), ids[1].clone(), words[1].clone()]);
        Ok(vec![y.clone(), Fact::tensor(index, vec![ids[0].clone()]), y])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<SkipNorm>(bind_skip);
    b.step::<EmbedNorm>(bind_embed);
}

/// Up to three rows of f32 added up.
struct Sum {
    from: [*const f32; 3],
    to: *mut f32,
    len: usize,
}

impl Kernel for Sum {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        for j in (0..self.len).step_by(V::LANES) {
            let n = V::LANES.min(self.len - j);
            // SAFETY: rows of `len`, those that are there.
            unsafe {
                let mut x = V::load_n(self.from[0].add(j), n);
                for p in &self.from[1..] {
                    if !p.is_null() {
                        x = x + V::load_n(p.add(j), n);
                    }
                }
                x.store_n(self.to.add(j), n);
            }
        }
    }
}

/// Adds rows up. `wide`: of f64.
unsafe fn sum(isa: Isa, wide: bool, from: [*const u8; 3], to: *mut u8, len: usize) {
    if !wide {
        return dispatch(isa, Sum { from: from.map(|p| p.cast()), to: to.cast(), len });
    }
    for j in 0..len {
        // SAFETY: the caller's: rows of `len`, those that are there.
        unsafe {
            let x: f64 = from.iter().filter(|p| !p.is_null()).map(|p| *p.cast::<f64>().add(j)).sum();
            *to.cast::<f64>().add(j) = x;
        }
    }
}

/// Fails unless an operand is one row.
fn one_row(o: Option<&Operand>, len: usize, what: &str) -> Result<()> {
    match o {
        Some(o) if o.len() != len => bail!(InvalidModel, "a {what} of shape {:?} for rows of {len}", o.shape),
        _ => Ok(()),
    }
}

fn bind_skip(op: &SkipNorm, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_skip)? {
        return Ok(s);
    }
    let (x, skip) = (cx.input(0)?, cx.input(1)?);
    let Some(&len) = x.shape.last() else { bail!(InvalidModel, "normalisation of a scalar") };
    for (i, what) in [(2, "scale"), (3, "shift"), (4, "bias")] {
        one_row(cx.opt_input(i), len, what)?;
    }
    let rows = x.len() / len.max(1);
    let skip_rows = skip.len() / len.max(1);
    let fits = skip.shape.last() == Some(&len)
        && (skip.len() == x.len() || x.shape.ends_with(&skip.shape) || x.shape[1..] == skip.shape[1..]);
    ensure!(fits && (skip_rows > 0 || rows == 0), InvalidModel, "{:?} added to {:?}", skip.shape, x.shape);
    let elem = need_elem(x.dtype, op.name())?;
    let kind = if op.rms { LayerNormKind::Rms } else { LayerNormKind::Layer };
    let norm = LayerNorm::new(cx.isa, kind, elem, 1, len, f64::from(op.epsilon))?;
    let (tasks, per) = split(rows, (16 * 1024 / len.max(1)).max(1));
    let (isa, wide) = (cx.isa, x.dtype == DType::F64);
    let (bytes, mean_bytes) = (len * elem.size(), if wide { 8 } else { 4 });
    Ok(FnStep::boxed("skip_norm", tasks, norm.scratch_bytes(), move |args, task, scratch| {
        for r in task * per..rows.min((task + 1) * per) {
            let at = |i: usize, row: usize| {
                let p = args.input::<u8>(i);
                if p.is_null() { null() } else { p.wrapping_add(row * bytes) }
            };
            let to = |i: usize, by: usize| {
                let p = args.output::<u8>(i);
                if p.is_null() { p } else { p.wrapping_add(r * by) }
            };
            // SAFETY: row r of each operand that is there (Step::run).
            unsafe {
                let y = to(0, bytes);
                let total = to(3, bytes);
                let total = if total.is_null() { y } else { total };
                sum(isa, wide, [at(0, r), at(1, r % skip_rows), at(4, 0)], total, len);
                let p = LayerNormPointers {
                    from: total,
                    scale: at(2, 0),
                    bias: at(3, 0),
                    to: y,
                    mean: to(1, mean_bytes),
                    inverse: to(2, mean_bytes),
                };
                norm.run(0, p, scratch);
            }
        }
        Ok(())
    }))
}

fn bind_embed(op: &EmbedNorm, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_embed)? {
        return Ok(s);
    }
    let (ids, words, positions) = (cx.input(0)?, cx.input(2)?, cx.input(3)?);
    let (&[batch, tokens], &[_, len]) = (ids.shape.as_slice(), words.shape.as_slice()) else {
        bail!(InvalidModel, "ids of {:?} and embeddings of {:?}", ids.shape, words.shape);
    };
    let table = |o: Option<&Operand>| -> Result<usize> {
        match o.map(|o| o.shape.as_slice()) {
            None => Ok(0),
            Some(&[n, l]) if l == len => Ok(n),
            Some(s) => bail!(InvalidModel, "embeddings of shape {s:?} beside rows of {len}"),
        }
    };
    let tables = [table(Some(words))?, table(Some(positions))?, table(cx.opt_input(4))?];
    for (i, what) in [(5, "scale"), (6, "shift")] {
        one_row(cx.opt_input(i), len, what)?;
    }
    for i in [1, 7] {
        if let Some(o) = cx.opt_input(i) {
            ensure!(
                o.shape == ids.shape,
                InvalidModel,
                "input {i} of shape {:?} beside ids of {:?}",
                o.shape,
                ids.shape
            );
        }
    }
    let places = cx.opt_input(8).map_or(0, Operand::len);
    let fits = cx.opt_input(8).is_none() || places == tokens || places == batch * tokens;
    ensure!(fits, InvalidModel, "{places} positions for {batch} items of {tokens}");
    let elem = need_elem(words.dtype, op.name())?;
    let norm = LayerNorm::new(cx.isa, LayerNormKind::Layer, elem, 1, len, f64::from(op.epsilon))?;
    let rows = batch * tokens;
    let (tasks, per) = split(rows, (16 * 1024 / len.max(1)).max(1));
    let (isa, f64s, bytes) = (cx.isa, words.dtype == DType::F64, len * elem.size());
    let wide: [bool; 9] = std::array::from_fn(|i| cx.opt_input(i).is_some_and(|o| o.dtype == DType::I64));
    let given: [bool; 9] = std::array::from_fn(|i| cx.opt_input(i).is_some());
    Ok(FnStep::boxed("embed_norm", tasks, norm.scratch_bytes(), move |args, task, scratch| {
        // SAFETY: as many ids as were checked (Step::run).
        let id = |i: usize, at: usize| unsafe {
            if wide[i] { *args.input::<i64>(i).add(at) } else { i64::from(*args.input::<i32>(i).add(at)) }
        };
        let pick = |i: usize, which: i64, of: usize| -> Result<*const u8> {
            ensure!((0..of as i64).contains(&which), Run, "id {which} is outside {of} embeddings");
            Ok(args.input::<u8>(i).wrapping_add(which as usize * bytes))
        };
        for r in task * per..rows.min((task + 1) * per) {
            let place = if given[8] { id(8, r % places.max(1)) } else { (r % tokens) as i64 };
            let from = [
                pick(2, id(0, r), tables[0])?,
                pick(3, place, tables[1])?,
                if given[1] { pick(4, id(1, r), tables[2])? } else { null() },
            ];
            let (y, total) = (args.output::<u8>(0), args.output::<u8>(2));
            let y = y.wrapping_add(r * bytes);
            let total = if total.is_null() { y } else { total.wrapping_add(r * bytes) };
            let none = std::ptr::null_mut();
            // SAFETY: rows of the tables, checked above, and row r of the outputs.
            unsafe {
                sum(isa, f64s, from, total, len);
                let (scale, bias) = (args.input(5), args.input(6));
                norm.run(0, LayerNormPointers { from: total, scale, bias, to: y, mean: none, inverse: none }, scratch);
            }
            let counts = args.output::<u8>(1);
            if r % tokens == 0 && !counts.is_null() {
                let b = r / tokens;
                let n = if given[7] { (0..tokens).filter(|t| id(7, b * tokens + t) == 1).count() } else { 0 };
                // SAFETY: a count an item.
                unsafe {
                    if wide[7] {
                        *counts.cast::<i64>().add(b) = n as i64;
                    } else {
                        *counts.cast::<i32>().add(b) = n as i32;
                    }
                }
            }
        }
        Ok(())
    }))
}
