//! Attention and what goes with it: rotary embeddings, linear attention, causal convolutions, gated units.

mod bind;
mod cases;
mod core;
mod flex;
pub(super) mod recurrent;
mod rotary;
mod views;

pub use self::core::{Attention, Broadcast, Cache, Packing};
pub use recurrent::{CausalConvWithState, LinearAttention, UpdateRule};
pub use rotary::{Positions, RotaryEmbedding};
pub use views::{Axis, Role, View, Views};

use super::Family;
use crate::backend::cpu::CpuBindings;
use crate::error::Result;
use crate::ir::{Op, OpDef, ParseCtx};
use crate::kernels::attention::Scores;
use crate::ops::pointwise::{Binary, BinaryFn, Unary, UnaryFn};
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "attention", ops: OPS, cpu, cases: cases::cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Attention", versions: &[23, 24, 25], parse },
    OpDef { domain: "", name: "CausalConvWithState", versions: &[27], parse: recurrent::parse_conv },
    OpDef { domain: "", name: "LinearAttention", versions: &[27], parse: recurrent::parse_linear },
    OpDef { domain: "", name: "RotaryEmbedding", versions: &[23], parse: rotary::parse },
    OpDef { domain: "", name: "SwiGLU", versions: &[28], parse: parse_swiglu },
    OpDef { domain: "ai.onnx.preview", name: "FlexAttention", versions: &[1], parse: flex::parse },
];

fn cpu(b: &mut CpuBindings) {
    b.step::<Attention>(bind::bind);
    rotary::cpu(b);
    recurrent::cpu(b);
}

/// A count of heads; none where it is not given.
pub(super) fn heads(cx: &ParseCtx<'_>, name: &str) -> Result<Option<usize>> {
    match cx.int_opt(name)? {
        None | Some(0) => Ok(None),
        Some(n) if (1..=1 << 20).contains(&n) => Ok(Some(n as usize)),
        Some(n) => bail!(InvalidModel, "attribute '{name}' is {n}"),
    }
}

/// A bound of a window; -1 is none.
fn window(cx: &ParseCtx<'_>, name: &str) -> Result<Option<usize>> {
    match cx.int_or(name, -1)? {
        -1 => Ok(None),
        n if (0..=1 << 40).contains(&n) => Ok(Some(n as usize)),
        n => bail!(InvalidModel, "attribute '{name}' must be -1 or more, it is {n}"),
    }
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, if cx.version < 24 { 6 } else { 7 })?;
    let mut precise = false;
    if let Some(p) = cx.int_opt("softmax_precision")? {
        let d = DType::from_onnx(i32::try_from(p).unwrap_or(0))?;
        ensure!(super::norm::FLOATS.contains(&d), InvalidModel, "softmax_precision is {d}");
        precise = d == DType::F64;
    }
    let cap = cx.float_or("softcap", 0.0)?;
    ensure!(cap >= 0.0 && cap.is_finite(), InvalidModel, "softcap is {cap}");
    let windows = cx.version >= 25;
    Ok(Arc::new(Attention {
        heads: heads(cx, "q_num_heads")?,
        kv_heads: heads(cx, "kv_num_heads")?,
        causal: cx.flag("is_causal", false)?,
        left: if windows { window(cx, "left_window_size")? } else { None },
        right: if windows { window(cx, "right_window_size")? } else { None },
        scale: cx.float_opt("scale")?,
        cap,
        precise,
        scores: match cx.int_or("qk_matmul_output_mode", 0)? {
            0 => Scores::Product,
            1 => Scores::Capped,
            2 => Scores::Masked,
            3 => Scores::Softmax,
            n => bail!(InvalidModel, "qk_matmul_output_mode is {n}"),
        },
        ..Attention::default()
    }))
}

/// `swish(A) * B`, which has no broadcasting.
fn parse_swiglu(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let alpha = cx.float_or("alpha", 1.0)?;
    if let (Some(a), Some(b)) = (cx.input_fact(0).shape(), cx.input_fact(1).shape()) {
        ensure!(a == b, InvalidModel, "SwiGLU of shapes {a:?} and {b:?}");
    }
    let gate = cx.emit(Arc::new(Unary { f: UnaryFn::Swish { alpha } }), vec![cx.inputs[0]])?;
    cx.inputs[0] = Some(gate);
    Ok(Arc::new(Binary::new(BinaryFn::Mul)))
}
