//! Attention of one new token: DecoderMaskedMultiHeadAttention and DecoderMaskedSelfAttention; and QAttention, whose weights are
//! quantised.

use super::attention::{hidden_sizes, key_mask, needed, scale, split};
use super::pointwise::add;
use super::{only, rank, size};
use crate::ensure;
use crate::error::Result;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::kernels::attention::Scores;
use crate::ops::attention::{Attention, Cache, Packing};
use crate::ops::linear::MatMul;
use crate::ops::quant::{Inputs, IntMatMul};
use crate::tensor::DType;
use std::sync::Arc;

/// The cache of a decoder whose past is a buffer as long as the present, or is followed by the new token.
pub(super) fn cache(cx: &ParseCtx<'_>, past_length: usize) -> Result<Cache> {
    if !cx.flag("past_present_share_buffer", false)? {
        return Ok(Cache::Join);
    }
    ensure!(cx.has_input(past_length), InvalidModel, "{} shares a buffer without past_sequence_length", cx.op_type);
    Ok(Cache::Buffer)
}

pub(super) fn parse_multi_head(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 11)?;
    cx.inputs.resize(11, None);
    let n = needed(cx, "num_heads")?;
    let cross = cx.has_input(1) && rank(cx, 1)? == 4;
    let packing = if cx.has_input(1) { Packing::Apart } else { Packing::Blocks(None) };
    let cache = if cross { Cache::Join } else { cache(cx, 7)? };
    if let Some(bias) = cx.inputs[10] {
        if packing == Packing::Apart {
            let sizes = match (size(cx, 0, 2), size(cx, 2, 2)) {
                (Some(h), Some(v)) if !cross => Some([h, h, v]),
                _ => None,
            };
            let parts = split(cx, bias, 0, sizes)?;
            for (i, b) in parts.into_iter().enumerate().take(if cross { 1 } else { 3 }) {
                cx.inputs[i] = Some(add(cx, cx.inputs[i], Some(b))?);
            }
        } else {
            cx.inputs[0] = Some(add(cx, cx.inputs[0], Some(bias))?);
        }
    }
    let (lengths, keys) = key_mask(cx, 3)?;
    ensure!(lengths.is_none(), Unsupported, "{} with a mask of one axis", cx.op_type);
    let i = |k: usize| cx.inputs[k];
    let (past, beams) = if cross { ([None; 2], None) } else { ([i(5), i(6)], i(9)) };
    let length = if cache == Cache::Buffer { i(7) } else { None };
    cx.inputs = vec![i(0), i(1), i(2), i(4), past[0], past[1], length, keys, None, None, beams];
    Ok(Arc::new(Attention {
        heads: Some(n),
        kv_heads: Some(n),
        packing,
        scale: scale(cx)?,
        rows_end: false,
        fill: cx.float_or("mask_filter_value", -10000.0)?,
        cache,
        lengths_past: true,
        scores: Scores::Masked,
        ..Attention::default()
    }))
}

/// What the operators with merged weights have in common once queries, keys and values are one value `x`. Inputs of the
/// model's node: a mask, the past, a bias of the scores, the length of a past that is a buffer, beams.
pub(super) fn merged(
    cx: &mut ParseCtx<'_>,
    x: ValueId,
    hidden: Option<[usize; 3]>,
    [mask, past, bias, length, beams]: [usize; 5],
) -> Result<Arc<dyn Op>> {
    let n = needed(cx, "num_heads")?;
    only(cx, "do_rotary", 0)?;
    let cache = cache(cx, length)?;
    let (mut lengths, keys) = key_mask(cx, mask)?;
    if cache == Cache::Buffer {
        ensure!(lengths.is_none(), Unsupported, "{} with lengths and a past that is a buffer", cx.op_type);
        lengths = cx.inputs[length];
    }
    let i = |k: usize| cx.inputs.get(k).copied().flatten();
    cx.inputs = vec![Some(x), None, None, i(bias), i(past), None, lengths, keys, None, None, i(beams)];
    Ok(Arc::new(Attention {
        heads: Some(n),
        kv_heads: Some(n),
        packing: Packing::Blocks(hidden),
        causal: cx.flag("unidirectional", false)?,
        scale: scale(cx)?,
        rows_end: false,
        fill: cx.float_or("mask_filter_value", -10000.0)?,
        stacked: true,
        cache,
        lengths_past: cache == Cache::Buffer,
        ..Attention::default()
    }))
}

/// An input that no operator has.
pub(super) const NONE: usize = usize::MAX;

pub(super) fn parse_self(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 9)?;
    cx.inputs.resize(9, None);
    let hidden = hidden_sizes(cx)?;
    let x = cx.emit(Arc::new(MatMul::default()), vec![cx.inputs[0], cx.inputs[1]])?;
    let x = add(cx, Some(x), cx.inputs[2])?;
    merged(cx, x, hidden, [3, 4, 5, 6, 8])
}

pub(super) fn parse_quantised(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(5, 9)?;
    cx.inputs.resize(9, None);
    let at = Inputs {
        b: 1,
        bias: Some(2),
        a_scale: Some(3),
        b_scale: Some(4),
        a_zero: Some(6),
        b_zero: Some(7),
        ..Inputs::default()
    };
    let to = Some(DType::F32);
    let product = IntMatMul { form: "MatMulIntegerToFloat", trans: [false; 2], alpha: 1.0, at, to, dynamic: false };
    let mut inputs = cx.inputs.clone();
    inputs[5] = None;
    inputs[8] = None;
    let x = cx.emit(Arc::new(product), inputs)?;
    merged(cx, x, None, [5, 8, NONE, NONE, NONE])
}
