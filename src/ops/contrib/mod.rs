//! The operators of `com.microsoft` that transformers carry, as canonical operators or small graphs of them.

mod attention;
mod cache;
mod cases;
mod decoder;
mod experts;
pub mod general;
mod group_norm;
mod grouped;
mod packed;
mod pointwise;
mod sparse;
mod sums;
mod together;

pub use cache::{CacheCode, Coding};
pub use experts::{Experts, Gate};
pub use packed::{PadTokens, TakeTokens};
pub use sparse::BlockMask;
pub use sums::{EmbedNorm, SkipNorm};
pub use together::Together;

use super::Family;
use crate::backend::cpu::CpuBindings;
use crate::bail;
use crate::error::Result;
use crate::ir::{OpDef, ParseCtx};

pub(super) const FAMILY: Family =
    Family { name: "contrib: transformers", ops: OPS, cpu, cases: cases::cases, ..Family::EMPTY };

const MS: &str = "com.microsoft";

const OPS: &[OpDef] = &[
    OpDef { domain: MS, name: "Attention", versions: &[1], parse: self::attention::parse_packed },
    OpDef { domain: MS, name: "BiasAdd", versions: &[1], parse: pointwise::parse_bias_add },
    OpDef { domain: MS, name: "BiasGelu", versions: &[1], parse: pointwise::parse_gelu },
    OpDef { domain: MS, name: "BiasSplitGelu", versions: &[1], parse: pointwise::parse_split_gelu },
    OpDef { domain: MS, name: "CausalConvWithState", versions: &[1], parse: self::attention::parse_causal_conv },
    OpDef { domain: MS, name: "DecoderMaskedMultiHeadAttention", versions: &[1], parse: decoder::parse_multi_head },
    OpDef { domain: MS, name: "DecoderMaskedSelfAttention", versions: &[1], parse: decoder::parse_self },
    OpDef { domain: MS, name: "EmbedLayerNormalization", versions: &[1], parse: sums::parse_embed },
    OpDef { domain: MS, name: "FastGelu", versions: &[1], parse: pointwise::parse_gelu },
    OpDef { domain: MS, name: "FusedConv", versions: &[1], parse: pointwise::parse_fused_conv },
    OpDef { domain: MS, name: "FusedGemm", versions: &[1], parse: pointwise::parse_fused_gemm },
    OpDef { domain: MS, name: "FusedMatMul", versions: &[1], parse: pointwise::parse_matmul },
    OpDef { domain: MS, name: "Gelu", versions: &[1], parse: pointwise::parse_gelu },
    OpDef { domain: MS, name: "GroupNorm", versions: &[1], parse: group_norm::parse },
    OpDef { domain: MS, name: "GroupQueryAttention", versions: &[1], parse: grouped::parse_grouped },
    OpDef { domain: MS, name: "LinearAttention", versions: &[1], parse: self::attention::parse_linear },
    OpDef { domain: MS, name: "MoE", versions: &[1], parse: experts::parse },
    OpDef { domain: MS, name: "MultiHeadAttention", versions: &[1], parse: self::attention::parse_multi_head },
    OpDef { domain: MS, name: "PackedAttention", versions: &[1], parse: packed::parse },
    OpDef { domain: MS, name: "PackedMultiHeadAttention", versions: &[1], parse: packed::parse },
    OpDef { domain: MS, name: "QAttention", versions: &[1], parse: decoder::parse_quantised },
    OpDef { domain: MS, name: "QMoE", versions: &[1], parse: experts::parse },
    OpDef { domain: MS, name: "QuickGelu", versions: &[1], parse: pointwise::parse_quick_gelu },
    OpDef { domain: MS, name: "RotaryEmbedding", versions: &[1], parse: self::attention::parse_rotary },
    OpDef { domain: MS, name: "SimplifiedLayerNormalization", versions: &[1], parse: sums::parse_simplified },
    OpDef { domain: MS, name: "SkipGroupNorm", versions: &[1], parse: group_norm::parse },
    OpDef { domain: MS, name: "SkipLayerNormalization", versions: &[1], parse: sums::parse_skip },
    OpDef { domain: MS, name: "SkipSimplifiedLayerNormalization", versions: &[1], parse: sums::parse_skip },
    OpDef { domain: MS, name: "SparseAttention", versions: &[1], parse: grouped::parse_sparse },
    OpDef { domain: MS, name: "TransposeMatMul", versions: &[1], parse: pointwise::parse_matmul },
    // Exporters write it into the default domain.
    OpDef { domain: "", name: "SimplifiedLayerNormalization", versions: &[1], parse: sums::parse_simplified },
];

fn cpu(b: &mut CpuBindings) {
    cache::cpu(b);
    experts::cpu(b);
    packed::cpu(b);
    sparse::cpu(b);
    sums::cpu(b);
    together::cpu(b);
}

/// Fails where an attribute has another value than the one that is understood.
fn only(cx: &ParseCtx<'_>, name: &str, value: i64) -> Result<()> {
    match cx.int_or(name, value)? {
        n if n == value => Ok(()),
        n => bail!(Unsupported, "{} with {name} {n}", cx.op_type),
    }
}

/// Fails where an input is given.
fn without(cx: &ParseCtx<'_>, i: usize, name: &str) -> Result<()> {
    if cx.has_input(i) {
        bail!(Unsupported, "{} with {name}", cx.op_type);
    }
    Ok(())
}

/// Size of an axis of an input, if known.
fn size(cx: &ParseCtx<'_>, i: usize, axis: usize) -> Option<usize> {
    cx.input_fact(i).as_tensor()?.dims.as_ref()?.get(axis)?.size()
}

/// The rank of an input, which must be known.
fn rank(cx: &ParseCtx<'_>, i: usize) -> Result<usize> {
    match cx.input_fact(i).as_tensor().and_then(|t| t.rank()) {
        Some(r) => Ok(r),
        None => bail!(Unsupported, "{} whose input {i} has no known rank", cx.op_type),
    }
}
