//! The operators of `com.microsoft` that are nobody's transformer: those of images, text, search and linear algebra, and the
//! blocked family of saved optimised models (`com.microsoft.nchwc`).

mod cases;
mod images;
mod matrix;
mod nchwc;
mod search;
mod standard;
mod tokenize;

use super::MS;
use crate::backend::cpu::CpuBindings;
use crate::err;
use crate::error::Result;
use crate::ir::{Op, OpDef, ParseCtx};
use crate::ops::Family;
use std::sync::Arc;

pub(in crate::ops) const FAMILY: Family =
    Family { name: "contrib: general", ops: OPS, cpu, cases: cases::cases, ..Family::EMPTY };

const NCHWC: &str = "com.microsoft.nchwc";

const OPS: &[OpDef] = &[
    OpDef { domain: MS, name: "BifurcationDetector", versions: &[1], parse: search::parse_bifurcation },
    OpDef { domain: MS, name: "CDist", versions: &[1], parse: matrix::parse_distance },
    OpDef { domain: MS, name: "ConvTransposeWithDynamicPads", versions: &[1], parse: standard::conv_transpose },
    OpDef { domain: MS, name: "CropAndResize", versions: &[1], parse: images::parse_crop },
    OpDef { domain: MS, name: "DynamicQuantizeLSTM", versions: &[1], parse: standard::quantised_lstm },
    OpDef { domain: MS, name: "DynamicTimeWarping", versions: &[1], parse: search::parse_warping },
    OpDef { domain: MS, name: "ExpandDims", versions: &[1], parse: standard::expand_dims },
    OpDef { domain: MS, name: "GatherND", versions: &[1], parse: standard::gather_nd },
    OpDef { domain: MS, name: "GridSample", versions: &[1], parse: standard::grid_sample },
    OpDef { domain: MS, name: "Inverse", versions: &[1], parse: matrix::parse_inverse },
    OpDef { domain: MS, name: "MatMulBnb4", versions: &[1], parse: matrix::parse_bnb },
    OpDef { domain: MS, name: "MatMulInteger16", versions: &[1], parse: standard::matmul_16 },
    OpDef { domain: MS, name: "MaxpoolWithMask", versions: &[1], parse: images::parse_masked },
    OpDef { domain: MS, name: "MurmurHash3", versions: &[1], parse: search::parse_hash },
    OpDef { domain: MS, name: "NGramRepeatBlock", versions: &[1], parse: search::parse_repeats },
    OpDef { domain: MS, name: "NhwcMaxPool", versions: &[1], parse: standard::max_pool },
    OpDef { domain: MS, name: "Pad", versions: &[1], parse: standard::pad },
    OpDef { domain: MS, name: "QEmbedLayerNormalization", versions: &[1], parse: standard::quantised_embedding },
    OpDef { domain: MS, name: "Range", versions: &[1], parse: standard::range },
    OpDef { domain: MS, name: "SampleOp", versions: &[1], parse: standard::identity },
    OpDef { domain: MS, name: "ScaledSiLU", versions: &[1], parse: standard::scaled_silu },
    OpDef { domain: MS, name: "SparseToDenseMatMul", versions: &[1], parse: super::pointwise::parse_matmul },
    OpDef { domain: MS, name: "Tokenizer", versions: &[1], parse: tokenize::parse },
    OpDef { domain: MS, name: "Trilu", versions: &[1], parse: standard::trilu },
    OpDef { domain: MS, name: "UnfoldTensor", versions: &[1], parse: images::parse_unfold },
    OpDef { domain: MS, name: "Unique", versions: &[1], parse: search::parse_unique },
    OpDef { domain: MS, name: "WordConvEmbedding", versions: &[1], parse: search::parse_words },
    OpDef { domain: NCHWC, name: "AveragePool", versions: &[1], parse: nchwc::pool },
    OpDef { domain: NCHWC, name: "Conv", versions: &[1], parse: nchwc::conv },
    OpDef { domain: NCHWC, name: "GlobalAveragePool", versions: &[1], parse: nchwc::pool },
    OpDef { domain: NCHWC, name: "GlobalMaxPool", versions: &[1], parse: nchwc::pool },
    OpDef { domain: NCHWC, name: "MaxPool", versions: &[1], parse: nchwc::pool },
    OpDef { domain: NCHWC, name: "ReorderInput", versions: &[1], parse: nchwc::reorder_input },
    OpDef { domain: NCHWC, name: "ReorderOutput", versions: &[1], parse: nchwc::reorder_output },
    OpDef { domain: NCHWC, name: "Upsample", versions: &[1], parse: nchwc::upsample },
];

fn cpu(b: &mut CpuBindings) {
    images::cpu(b);
    matrix::cpu(b);
    search::cpu(b);
    tokenize::cpu(b);
}

/// Reads the node as if it were an operator of the default domain.
fn as_standard(cx: &mut ParseCtx<'_>, name: &'static str, version: u32) -> Result<Arc<dyn Op>> {
    let mut all = crate::ops::FAMILIES.iter().flat_map(|f| f.ops);
    let def = all.find(|d| d.domain.is_empty() && d.name == name);
    let def = def.ok_or_else(|| err!(Internal, "there is no operator {name}"))?;
    (cx.op_type, cx.version) = (name, version);
    (def.parse)(cx)
}
