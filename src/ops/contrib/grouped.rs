//! GroupQueryAttention and SparseAttention: grouped heads over a cache that may be a buffer, or quantised.

use super::attention::{needed, scale, split};
use super::cache::{CacheCode, Coding};
use super::sparse::BlockMask;
use super::together::Together;
use super::{only, rank, size, without};
use crate::error::Result;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::kernels::attention::Scores;
use crate::ops::attention::{Attention, Cache, Packing, Positions, RotaryEmbedding};
use crate::ops::movement::Slice;
use crate::ops::norm::LayerNormalization;
use crate::ops::pointwise::{Binary, BinaryFn};
use crate::ops::shape::Reshape;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

/// Queries, keys and values of their own, cut out of one value where they are packed.
fn apart(cx: &mut ParseCtx<'_>, h: usize, g: usize) -> Result<()> {
    if cx.has_input(1) {
        return Ok(());
    }
    let Some(all) = size(cx, 0, 2).filter(|n| n % (h + 2 * g) == 0) else {
        bail!(Unsupported, "{} that changes packed queries of an unknown size", cx.op_type)
    };
    let d = all / (h + 2 * g);
    let Some(x) = cx.inputs[0] else { bail!(InvalidModel, "the query is missing") };
    for (i, v) in split(cx, x, 2, Some([h * d, g * d, g * d]))?.into_iter().enumerate() {
        cx.inputs[i] = Some(v);
    }
    Ok(())
}

fn reshape(cx: &mut ParseCtx<'_>, x: Option<ValueId>, shape: &[i64]) -> Result<ValueId> {
    let shape = cx.constant(Tensor::from_slice(&[shape.len()], shape)?);
    cx.emit(Arc::new(Reshape { allow_zero: false }), vec![x, Some(shape)])
}

/// Input `i` with each head normalised by its root mean square.
fn normalise(cx: &mut ParseCtx<'_>, i: usize, heads: usize, weight: usize, epsilon: f32) -> Result<()> {
    ensure!(epsilon.is_finite() && epsilon > 0.0, InvalidModel, "an epsilon of {epsilon}");
    let x = reshape(cx, cx.inputs[i], &[0, 0, heads as i64, -1])?;
    let norm = LayerNormalization { rms: true, axis: -1, epsilon, stash: DType::F32 };
    let x = cx.emit(Arc::new(norm), vec![Some(x), cx.inputs[weight]])?;
    cx.inputs[i] = Some(reshape(cx, Some(x), &[0, 0, -1])?);
    Ok(())
}

/// Turns queries and keys. `ids`: the input that tells positions, and how.
fn turn(
    cx: &mut ParseCtx<'_>,
    [h, g]: [usize; 2],
    caches: [usize; 2],
    ids: Option<ValueId>,
    p: Positions,
) -> Result<()> {
    let interleaved = cx.flag("rotary_interleaved", false)?;
    for (i, n) in [(0, h), (1, g)] {
        let rotary = RotaryEmbedding { heads: Some(n), size: 0, interleaved, partial: true, positions: p };
        let inputs = vec![cx.inputs[i], cx.inputs[caches[0]], cx.inputs[caches[1]], ids];
        cx.inputs[i] = Some(cx.emit(Arc::new(rotary), inputs)?);
    }
    Ok(())
}

/// How a cache of keys or values is coded, by the attribute that says so.
fn coding(cx: &ParseCtx<'_>, name: &str, cached: usize, scales: usize) -> Result<Option<CacheCode>> {
    match cx.string_or(name, "NONE")?.as_str() {
        "NONE" => {
            without(cx, scales, "a scale of a cache without codes")?;
            return Ok(None);
        }
        "PER_TENSOR" | "PER_CHANNEL" => {}
        x => bail!(Unsupported, "{} with {name} {x}", cx.op_type),
    }
    let bits = match cx.int_or("kv_cache_bit_width", 8)? {
        b @ (4 | 8) => b as usize,
        b => bail!(Unsupported, "{} with kv_cache_bit_width {b}", cx.op_type),
    };
    ensure!(cx.has_input(scales) && cx.has_input(cached), InvalidModel, "{name} without a cache and its scale");
    let (Some(codes), Some(float)) = (cx.input_fact(cached).dtype(), cx.input_fact(0).dtype()) else {
        bail!(Unsupported, "{} of unknown types", cx.op_type)
    };
    let known = codes == if bits == 4 { DType::U8 } else { DType::I8 };
    ensure!(known, Unsupported, "{} with a cache of {bits} bits in {codes}", cx.op_type);
    Ok(Some(CacheCode { way: Coding::Round, bits, codes, float }))
}

pub(super) fn parse_grouped(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 17)?;
    cx.inputs.resize(17, None);
    ensure!(cx.has_input(5) && cx.has_input(6), InvalidModel, "GroupQueryAttention without lengths");
    ensure!(cx.has_input(1) == cx.has_input(2), InvalidModel, "keys and values must be given together");
    let (h, g) = (needed(cx, "num_heads")?, needed(cx, "kv_num_heads")?);
    only(cx, "sliding_window_cache", 0)?;
    let codings = [coding(cx, "k_quant_type", 3, 12)?, coding(cx, "v_quant_type", 4, 13)?];
    let coded = codings.iter().any(Option::is_some);
    let (turns, norms) = (cx.flag("do_rotary", false)?, cx.has_input(14));
    ensure!(norms == cx.has_input(15), InvalidModel, "weights of queries and keys must be given together");
    if turns || norms || coded {
        apart(cx, h, g)?;
    }
    let packing = if cx.has_input(1) { Packing::Apart } else { Packing::Blocks(None) };
    if norms {
        let both = cx.float_or("qk_norm_epsilon", 1e-6)?;
        normalise(cx, 0, h, 14, cx.float_or("q_norm_epsilon", both)?)?;
        normalise(cx, 1, g, 15, cx.float_or("k_norm_epsilon", both)?)?;
    }
    if turns {
        let (ids, positions) = if cx.has_input(9) {
            (cx.inputs[9], Positions::Rows)
        } else if cx.has_input(16) {
            // The first new row of an item is at its length less its new rows.
            let one = cx.constant(Tensor::from_slice(&[1], &[1i32])?);
            let all = cx.emit(Arc::new(Binary::new(BinaryFn::Add)), vec![cx.inputs[5], Some(one)])?;
            (Some(cx.emit(Arc::new(Binary::new(BinaryFn::Sub)), vec![Some(all), cx.inputs[16]])?), Positions::Starts)
        } else {
            (cx.inputs[5], Positions::Lengths(-1))
        };
        turn(cx, [h, g], [7, 8], ids, positions)?;
    }
    if cx.int_or("smooth_softmax", -1)? == 1 && !cx.has_input(11) {
        let Some(d) = cx.input_fact(0).dtype() else { bail!(Unsupported, "a query of an unknown type") };
        cx.set_constant_input(11, Tensor::zeroed(d, &[h])?);
    }
    let window = cx.int_or("local_window_size", -1)?;
    let left = match window {
        -1 => None,
        n if (1..1 << 40).contains(&n) => Some(n as usize - 1),
        n => bail!(InvalidModel, "local_window_size is {n}"),
    };
    let cap = cx.float_or("softcap", 0.0)?;
    ensure!(cap >= 0.0 && cap.is_finite(), InvalidModel, "softcap is {cap}");
    let scores = match cx.int_or("qk_output", 0)? {
        0 => None,
        1 => Some(Scores::Seen),
        2 => Some(Scores::Softmax),
        n => bail!(InvalidModel, "qk_output is {n}"),
    };
    let asked = |i: usize| cx.outputs.get(i).is_some_and(|&on| on);
    let asked = [true, asked(1), asked(2), asked(3)];
    ensure!(asked[3] == scores.is_some() || !asked[3], InvalidModel, "an output of scores, and qk_output 0");
    // Attention sees what the cache will hold.
    for (i, c) in codings.iter().enumerate() {
        let Some(c) = c else { continue };
        let s = cx.inputs[12 + i];
        cx.inputs[1 + i] = Some(cx.emit(Arc::new(c.clone()), vec![cx.inputs[1 + i], s])?);
        let decode = CacheCode { way: Coding::Decode, ..c.clone() };
        cx.inputs[3 + i] = Some(cx.emit(Arc::new(decode), vec![cx.inputs[3 + i], s])?);
    }
    let i = |k: usize| cx.inputs[k];
    let attention = Arc::new(Attention {
        heads: Some(h),
        kv_heads: Some(g),
        packing,
        causal: cx.flag("causal", true)?,
        left,
        scale: scale(cx)?,
        cap,
        lengths_add: 1,
        cache: Cache::Buffer,
        scores: scores.unwrap_or(Scores::Product),
        ..Attention::default()
    });
    let inputs = vec![i(0), i(1), i(2), i(10), i(3), i(4), i(5), None, i(11), i(6), None, i(16)];
    if !coded && !asked[3] {
        cx.inputs = inputs;
        return Ok(attention);
    }
    let (scales, total) = ([i(12), i(13)], i(6));
    // The length of the present tells how long the cache is.
    let mut out = cx.emit_outputs(attention, inputs, &[true, true, asked[2], asked[3]])?;
    for (k, c) in codings.into_iter().enumerate() {
        if let (Some(c), true) = (c, asked[1 + k]) {
            let encode = CacheCode { way: Coding::Encode, ..c };
            out[1 + k] = Some(cx.emit(Arc::new(encode), vec![out[1 + k], scales[k]])?);
        }
    }
    if asked[3] {
        let (zero, three) = (Tensor::from_slice(&[1], &[0i32])?, Tensor::from_slice(&[1], &[3i32])?);
        let (zero, three) = (cx.constant(zero), cx.constant(three));
        let end = reshape(cx, total, &[1])?;
        out[3] = Some(cx.emit(Arc::new(Slice), vec![out[3], Some(zero), Some(end), Some(three)])?);
    }
    cx.inputs = out;
    Ok(Arc::new(Together))
}

pub(super) fn parse_sparse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(9, 11).or_else(|e| if cx.inputs.len() >= 9 && cx.has_input(0) { Ok(()) } else { Err(e) })?;
    cx.inputs.resize(11, None);
    for i in 3..9 {
        ensure!(cx.has_input(i), InvalidModel, "SparseAttention lacks input {i}");
    }
    ensure!(cx.has_input(1) == cx.has_input(2), InvalidModel, "keys and values must be given together");
    ensure!(rank(cx, 5)? == 2 && rank(cx, 6)? == 2, InvalidModel, "blocks of {} axes", rank(cx, 5)?);
    let (h, g) = (needed(cx, "num_heads")?, needed(cx, "kv_num_heads")?);
    let block = cx.int("sparse_block_size")?;
    ensure!((1..=1 << 20).contains(&block), InvalidModel, "sparse_block_size is {block}");
    let i = |k: usize| cx.inputs[k];
    let blocks = BlockMask { heads: h, block: block as usize };
    let mask = cx.emit(Arc::new(blocks), vec![i(5), i(6), i(8), i(7), i(0)])?;
    if cx.flag("do_rotary", false)? {
        apart(cx, h, g)?;
        turn(cx, [h, g], [9, 10], cx.inputs[8], Positions::Lengths(0))?;
    }
    let packing = if cx.has_input(1) { Packing::Apart } else { Packing::Blocks(None) };
    let i = |k: usize| cx.inputs[k];
    cx.inputs = vec![i(0), i(1), i(2), Some(mask), i(3), i(4), i(8), None, None, i(7)];
    Ok(Arc::new(Attention {
        heads: Some(h),
        kv_heads: Some(g),
        packing,
        causal: true,
        scale: scale(cx)?,
        cache: Cache::Buffer,
        ..Attention::default()
    }))
}
