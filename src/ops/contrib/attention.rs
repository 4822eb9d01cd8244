//! MultiHeadAttention, Attention with packed weights, GroupQueryAttention: ways to write the canonical attention.

use super::decoder::{NONE, merged};
use super::pointwise::add;
use super::{only, rank, size};
use crate::error::Result;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::kernels::attention::Scores;
use crate::ops::attention::{Attention, Cache, Packing, Positions, RotaryEmbedding, heads, recurrent};
use crate::ops::cast::Cast;
use crate::ops::linear::MatMul;
use crate::ops::movement::Split;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) fn needed(cx: &ParseCtx<'_>, name: &str) -> Result<usize> {
    match heads(cx, name)? {
        Some(n) => Ok(n),
        None => bail!(InvalidModel, "attribute '{name}' must be given and positive"),
    }
}

pub(super) fn scale(cx: &ParseCtx<'_>) -> Result<Option<f32>> {
    // 0 stands for the default.
    Ok(cx.float_opt("scale")?.filter(|&s| s != 0.0))
}

/// A mask of keys as canonical inputs: (6: lengths, 7: keys that take part).
pub(super) fn key_mask(cx: &mut ParseCtx<'_>, i: usize) -> Result<(Option<ValueId>, Option<ValueId>)> {
    if !cx.has_input(i) {
        return Ok((None, None));
    }
    let mask = cx.inputs[i];
    match rank(cx, i)? {
        1 => {
            if let (Some(n), Some(b)) = (size(cx, i, 0), size(cx, 0, 0)) {
                ensure!(n == b, Unsupported, "{} with a mask of {n} starts and ends", cx.op_type);
            }
            Ok((mask, None))
        }
        2 | 3 => Ok((None, Some(cx.emit(Arc::new(Cast::new(DType::Bool)), vec![mask])?))),
        r => bail!(Unsupported, "{} with a mask of {r} axes", cx.op_type),
    }
}

pub(super) fn parse_multi_head(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 10)?;
    cx.inputs.resize(10, None);
    let n = needed(cx, "num_heads")?;
    let query = rank(cx, 0)?;
    let packing = match (query, cx.has_input(1), cx.has_input(2)) {
        (5, false, false) => Packing::ByHead,
        (3, true, false) if rank(cx, 1)? == 5 => Packing::PairsByHead,
        (3, true, true) => Packing::Apart,
        _ => bail!(InvalidModel, "MultiHeadAttention with a query of {query} axes and these keys and values"),
    };
    if let Some(bias) = cx.inputs[3] {
        ensure!(packing == Packing::Apart, Unsupported, "MultiHeadAttention with a bias of packed keys");
        let parts = match (size(cx, 0, 2), size(cx, 2, 2)) {
            (Some(h), Some(v)) if rank(cx, 2)? == 3 => Some([h, h, v]),
            _ => None,
        };
        let parts = split(cx, bias, 0, parts)?;
        for (i, b) in parts.into_iter().enumerate() {
            // Keys and values that come by heads have theirs already.
            if rank(cx, i)? == 3 {
                cx.inputs[i] = Some(add(cx, cx.inputs[i], Some(b))?);
            }
        }
    }
    let (mut lengths, keys) = key_mask(cx, 4)?;
    let shared = cx.has_input(8);
    if shared {
        ensure!(lengths.is_none(), Unsupported, "MultiHeadAttention with lengths and a past that is a buffer");
        ensure!(cx.has_input(6), InvalidModel, "MultiHeadAttention has past_sequence_length without a past");
        lengths = cx.inputs[8];
    }
    let i = |k: usize| cx.inputs[k];
    cx.inputs = vec![i(0), i(1), i(2), i(5), i(6), i(7), lengths, keys, None, None, i(9)];
    Ok(Arc::new(Attention {
        heads: Some(n),
        kv_heads: Some(n),
        packing,
        causal: cx.flag("unidirectional", false)?,
        scale: scale(cx)?,
        rows_end: false,
        fill: cx.float_or("mask_filter_value", -10000.0)?,
        cache: if shared { Cache::Buffer } else { Cache::Join },
        lengths_past: shared,
        scores: Scores::Masked,
        ..Attention::default()
    }))
}

/// A value in three along an axis; of equal sizes where none are given.
pub(super) fn split(cx: &mut ParseCtx<'_>, x: ValueId, axis: i64, sizes: Option<[usize; 3]>) -> Result<Vec<ValueId>> {
    let sizes = match sizes {
        Some(s) => Some(cx.constant(Tensor::from_slice(&[3], &s.map(|n| n as i64))?)),
        None => None,
    };
    let parts = if sizes.is_none() { Some(3) } else { None };
    let out = cx.emit_outputs(Arc::new(Split { axis, parts }), vec![Some(x), sizes], &[true; 3])?;
    let out: Vec<ValueId> = out.into_iter().flatten().collect();
    ensure!(out.len() == 3, Internal, "Split gave {} parts", out.len());
    Ok(out)
}

/// Attribute `qkv_hidden_sizes`.
pub(super) fn hidden_sizes(cx: &ParseCtx<'_>) -> Result<Option<[usize; 3]>> {
    let Some(v) = cx.ints_opt("qkv_hidden_sizes")? else { return Ok(None) };
    let sizes: Option<Vec<usize>> = v.iter().map(|&x| usize::try_from(x).ok().filter(|&x| x > 0)).collect();
    match sizes.as_deref() {
        Some(&[q, k, v]) => Ok(Some([q, k, v])),
        _ => bail!(InvalidModel, "qkv_hidden_sizes are {v:?}"),
    }
}

pub(super) fn parse_packed(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 7)?;
    cx.inputs.resize(7, None);
    let hidden = hidden_sizes(cx)?;
    let mut x = cx.emit(Arc::new(MatMul::default()), vec![cx.inputs[0], cx.inputs[1]])?;
    if cx.has_input(2) {
        x = add(cx, Some(x), cx.inputs[2])?;
    }
    merged(cx, x, hidden, [3, 4, 5, 6, NONE])
}

pub(super) fn parse_rotary(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(4, 4)?;
    only(cx, "is_packed_batching", 0)?;
    let scale = cx.float_or("scale", 1.0)?;
    ensure!(scale == 1.0, Unsupported, "RotaryEmbedding with scale {scale}");
    let turned = cx.int_or("rotary_embedding_dim", 0)?;
    ensure!((0..1 << 30).contains(&turned) && turned % 2 == 0, InvalidModel, "rotary_embedding_dim is {turned}");
    let mut n = heads(cx, "num_heads")?;
    if n.is_none() && rank(cx, 0)? == 3 {
        // All of a head is turned: the caches tell its size.
        let (Some(all), Some(half)) = (size(cx, 0, 2), size(cx, 2, 1).filter(|&h| h > 0)) else {
            bail!(Unsupported, "RotaryEmbedding of heads of an unknown size")
        };
        n = Some((all / (2 * half)).max(1));
    }
    cx.inputs = vec![cx.inputs[0], cx.inputs[2], cx.inputs[3], cx.inputs[1]];
    Ok(Arc::new(RotaryEmbedding {
        heads: n,
        size: turned as usize,
        interleaved: cx.flag("interleaved", false)?,
        partial: false,
        positions: Positions::Rows,
    }))
}

pub(super) fn parse_linear(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    only(cx, "state_window", 0)?;
    recurrent::parse_linear(cx)
}

pub(super) fn parse_causal_conv(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    for (name, value) in
        [("ndim", 1), ("dilation", 1), ("channels_last", 0), ("state_window", 0), ("state_update_capacity", 0)]
    {
        only(cx, name, value)?;
    }
    recurrent::parse_conv(cx)
}
