//! Attention over tokens without padding: PackedAttention, PackedMultiHeadAttention. The tokens are put where padding would have
//! them, attended to with the lengths that this gives, and taken back.

use super::attention::{hidden_sizes, needed, scale};
use super::pointwise::add;
use super::{rank, size};
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx, ValueId};
use crate::ops::attention::{Attention, Packing};
use crate::ops::linear::MatMul;
use crate::tensor::DType;
use crate::{bail, ensure, err};
use std::sync::Arc;

/// Tokens `[tokens, ..]` as `[batch, rows, ..]`, zero where there are none. Inputs: tokens, their offsets `[batch, rows]` (for the
/// shape), where each item begins `[batch + 1]`. Outputs: the rows, and the length of each item.
#[derive(Clone, Debug, PartialEq)]
pub struct PadTokens;

/// The rows `[batch, rows, ..]` that are tokens: `[tokens, ..]`. Inputs: rows, offsets `[batch, rows]` of which the first are
/// those of tokens, and something with as many rows as there are tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct TakeTokens;

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let plain = cx.op_type == "PackedAttention";
    cx.expect_inputs(if plain { 5 } else { 6 }, if plain { 6 } else { 7 }).or_else(|e| match plain {
        // Keys, values and the bias may be absent.
        false if cx.inputs.len() >= 6 && cx.has_input(0) => Ok(()),
        _ => Err(e),
    })?;
    cx.inputs.resize(7, None);
    let n = needed(cx, "num_heads")?;
    let i = |k: usize| cx.inputs[k];
    let (tokens, bias, offsets, starts, scores) =
        if plain { (i(0), i(2), i(3), i(4), i(5)) } else { (i(0), i(3), i(4), i(5), i(6)) };
    ensure!(offsets.is_some() && starts.is_some(), InvalidModel, "{} without offsets and lengths", cx.op_type);
    let mut lengths = None;
    let mut parts = [None; 3];
    let packing = if plain {
        let hidden = hidden_sizes(cx)?;
        let mut x = cx.emit(Arc::new(MatMul::default()), vec![tokens, cx.inputs[1]])?;
        if bias.is_some() {
            x = add(cx, Some(x), bias)?;
        }
        parts[0] = Some(x);
        Packing::Blocks(hidden)
    } else if cx.has_input(1) && cx.has_input(2) {
        parts = [i(0), i(1), i(2)];
        if bias.is_some() {
            let sizes = match (size(cx, 0, 1), size(cx, 2, 1)) {
                (Some(h), Some(v)) => Some([h, h, v]),
                _ => None,
            };
            let Some(b) = bias else { bail!(Internal, "a bias went away") };
            for (p, b) in parts.iter_mut().zip(super::attention::split(cx, b, 0, sizes)?) {
                *p = Some(add(cx, *p, Some(b))?);
            }
        }
        Packing::Apart
    } else {
        let r = rank(cx, 0)?;
        ensure!(r == 4 && !cx.has_input(1) && !cx.has_input(2), InvalidModel, "packed queries of {r} axes");
        ensure!(bias.is_none(), Unsupported, "PackedMultiHeadAttention with a bias of packed keys");
        parts[0] = tokens;
        Packing::ByHead
    };
    for (k, p) in parts.iter_mut().enumerate().filter(|(_, p)| p.is_some()) {
        let out = cx.emit_outputs(Arc::new(PadTokens), vec![*p, offsets, starts], &[true, k == 0])?;
        let out: Vec<ValueId> = out.into_iter().flatten().collect();
        *p = out.first().copied();
        lengths = lengths.or(out.get(1).copied());
    }
    let attention = Attention {
        heads: Some(n),
        kv_heads: Some(n),
        packing,
        scale: scale(cx)?,
        rows_end: false,
        ..Attention::default()
    };
    let [q, k, v] = parts;
    let y = cx.emit(Arc::new(attention), vec![q, k, v, scores, None, None, lengths])?;
    cx.inputs = vec![Some(y), offsets, tokens];
    Ok(Arc::new(TakeTokens))
}

impl Op for PadTokens {
    fn name(&self) -> &'static str {
        "PadTokens"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(1, &[DType::I32])?;
        cx.expect_dtype(2, &[DType::I32])?;
        let d = cx.dtype(0)?;
        let (Some(x), Some(o)) = (&cx.tensor(0)?.dims, &cx.tensor(1)?.dims) else {
            return Ok(vec![Fact::any_tensor(d), Fact::any_tensor(DType::I64)]);
        };
        ensure!(!x.is_empty() && o.len() == 2, InvalidModel, "tokens of {x:?} with offsets of {o:?}");
        let dims = o.iter().chain(&x[1..]).cloned().collect();
        Ok(vec![Fact::tensor(d, dims), Fact::tensor(DType::I64, vec![o[0].clone()])])
    }
}

impl Op for TakeTokens {
    fn name(&self) -> &'static str {
        "TakeTokens"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(1, &[DType::I32])?;
        let d = cx.dtype(0)?;
        let (Some(x), Some(t)) = (&cx.tensor(0)?.dims, &cx.tensor(2)?.dims) else {
            return Ok(vec![Fact::any_tensor(d)]);
        };
        ensure!(x.len() >= 2 && !t.is_empty(), InvalidModel, "rows of {x:?} of which {t:?} are taken");
        let dims: Vec<Dim> = t[..1].iter().chain(&x[2..]).cloned().collect();
        Ok(vec![Fact::tensor(d, dims)])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<PadTokens>(bind_pad);
    b.step::<TakeTokens>(bind_take);
}

/// Bytes of the last axes of a tensor.
fn row_bytes(shape: &[usize], d: DType) -> Result<usize> {
    product(&[product(shape)?, d.size().ok_or_else(|| err!(Unsupported, "rows of {d}"))?])
}

fn bind_pad(_: &PadTokens, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, offsets, starts) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (Some((&tokens, rest)), &[batch, rows]) = (x.shape.split_first(), offsets.shape.as_slice()) else {
        bail!(InvalidModel, "tokens of {:?} with offsets of {:?}", x.shape, offsets.shape);
    };
    ensure!(starts.len() == batch + 1, InvalidModel, "{} sums of lengths for {batch} items", starts.len());
    let bytes = row_bytes(rest, x.dtype)?;
    Ok(FnStep::boxed("pad_tokens", batch, 0, move |args, b, _| {
        // SAFETY: an item's two sums, its rows of the output, and of the input those that were checked (Step::run).
        unsafe {
            let at = |i: usize| i64::from(*args.input::<i32>(2).add(i));
            let (from, to) = (at(b), at(b + 1));
            let fits = (0..=to).contains(&from) && to <= tokens as i64 && to - from <= rows as i64;
            ensure!(fits, Run, "item {b} has tokens {from} to {to}; there are {tokens}, and {rows} rows an item");
            let n = (to - from) as usize;
            let out = args.output::<u8>(0);
            if !out.is_null() {
                let out = out.add(b * rows * bytes);
                std::ptr::copy_nonoverlapping(args.input::<u8>(0).add(from as usize * bytes), out, n * bytes);
                std::ptr::write_bytes(out.add(n * bytes), 0, (rows - n) * bytes);
            }
            let length = args.output::<i64>(1);
            if !length.is_null() {
                *length.add(b) = n as i64;
            }
        }
        Ok(())
    }))
}

fn bind_take(_: &TakeTokens, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, offsets) = (cx.input(0)?, cx.input(1)?);
    let (Some(&tokens), true) = (cx.input(2)?.shape.first(), x.shape.len() >= 2) else {
        bail!(InvalidModel, "rows of {:?} of which none are taken", x.shape);
    };
    let (rows, bytes) = (product(&x.shape[..2])?, row_bytes(&x.shape[2..], x.dtype)?);
    ensure!(offsets.len() >= tokens, InvalidModel, "{} offsets for {tokens} tokens", offsets.len());
    let (tasks, per) = split(tokens, (64 * 1024 / bytes.max(1)).max(1));
    Ok(FnStep::boxed("take_tokens", tasks, 0, move |args, task, _| {
        for t in task * per..tokens.min((task + 1) * per) {
            // SAFETY: offset t, the row that it was checked to name, and row t of the output (Step::run).
            unsafe {
                let at = *args.input::<i32>(1).add(t);
                ensure!((0..rows as i64).contains(&i64::from(at)), Run, "token {t} is at {at} of {rows} rows");
                let from = args.input::<u8>(0).add(at as usize * bytes);
                std::ptr::copy_nonoverlapping(from, args.output::<u8>(0).add(t * bytes), bytes);
            }
        }
        Ok(())
    }))
}
