//! Operators with a carried state: LinearAttention and CausalConvWithState.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx};
use crate::kernels::attention::causal_conv::CausalConv;
use crate::kernels::attention::linear::{COLUMNS, Recurrence};
use crate::ops::widen::widened;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::ptr::null;
use std::sync::Arc;

const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// How a token changes the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateRule {
    /// The state decays first.
    pub gated: bool,
    /// What the state already holds of the value is taken off it.
    pub delta: bool,
}

/// ONNX LinearAttention (27). Inputs: query, key, value, past state, decay, beta; outputs: result, present state.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearAttention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, each with a state.
    pub kv_heads: usize,
    /// Scales the result; 1 / sqrt(size) where it is 0.
    pub scale: f32,
    /// The rule.
    pub rule: UpdateRule,
}

pub(in crate::ops) fn parse_linear(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 6)?;
    let rule = match cx.string_or("update_rule", "gated_delta")?.as_str() {
        "linear" => UpdateRule { gated: false, delta: false },
        "gated" => UpdateRule { gated: true, delta: false },
        "delta" => UpdateRule { gated: false, delta: true },
        "gated_delta" => UpdateRule { gated: true, delta: true },
        x => bail!(InvalidModel, "update_rule is '{x}'"),
    };
    ensure!(cx.has_input(4) == rule.gated, InvalidModel, "decay must be given for a gated rule, and only for it");
    ensure!(cx.has_input(5) == rule.delta, InvalidModel, "beta must be given for a delta rule, and only for it");
    let (Some(heads), Some(kv_heads)) = (super::heads(cx, "q_num_heads")?, super::heads(cx, "kv_num_heads")?) else {
        bail!(InvalidModel, "q_num_heads and kv_num_heads must be given");
    };
    ensure!(heads % kv_heads == 0, InvalidModel, "{heads} query heads cannot share {kv_heads} key heads");
    Ok(Arc::new(LinearAttention { heads, kv_heads, scale: cx.float_or("scale", 0.0)?, rule }))
}

impl Op for LinearAttention {
    fn name(&self) -> &'static str {
        "LinearAttention"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        for i in [0, 1, 2, 4, 5] {
            if i < 3 || cx.has(i) {
                cx.expect_dtype(i, &TYPES)?;
                cx.expect_same_dtype(0, i)?;
            }
        }
        let dtype = cx.dtype(0)?;
        let state = match cx.opt_tensor(3)? {
            Some(t) => t.dtype,
            None => dtype,
        };
        let (Some(q), Some(v)) = (&cx.tensor(0)?.dims, &cx.tensor(2)?.dims) else {
            return Ok(vec![Fact::any_tensor(dtype), Fact::any_tensor(state)]);
        };
        ensure!(q.len() == 3 && v.len() == 3, InvalidModel, "queries and values of {} and {} axes", q.len(), v.len());
        let (h, g) = (Dim::of(self.heads), Dim::of(self.kv_heads));
        let (size, value_size) = (q[2].floor_div(&h), v[2].floor_div(&g));
        Ok(vec![
            Fact::tensor(dtype, vec![q[0].clone(), q[1].clone(), h * value_size.clone()]),
            Fact::tensor(state, vec![q[0].clone(), g, size, value_size]),
        ])
    }
}

/// ONNX CausalConvWithState (27). Inputs: X `[batch, channels, length]`, weights `[channels, 1, taps]`, bias, past state
/// `[batch, channels, taps - 1]`; outputs: result, present state.
#[derive(Clone, Debug, PartialEq)]
pub struct CausalConvWithState {
    /// x * sigmoid(x) at the end.
    pub silu: bool,
}

pub(in crate::ops) fn parse_conv(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 4)?;
    let silu = match cx.string_or("activation", "none")?.as_str() {
        "none" => false,
        "silu" | "swish" => true,
        x => bail!(InvalidModel, "CausalConvWithState has no activation '{x}'"),
    };
    Ok(Arc::new(CausalConvWithState { silu }))
}

impl Op for CausalConvWithState {
    fn name(&self) -> &'static str {
        "CausalConvWithState"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &TYPES)?;
        for i in 1..4 {
            if i < 2 || cx.has(i) {
                cx.expect_same_dtype(0, i)?;
            }
        }
        let dtype = cx.dtype(0)?;
        let y = cx.like(0, dtype)?;
        let (Some(x), Some(w)) = (&cx.tensor(0)?.dims, &cx.tensor(1)?.dims) else {
            return Ok(vec![y, Fact::any_tensor(dtype)]);
        };
        ensure!(x.len() == 3 && w.len() == 3, InvalidModel, "X and weights of {} and {} axes", x.len(), w.len());
        ensure!(w[2].known().is_none_or(|k| k > 0), InvalidModel, "weights of {} taps", w[2]);
        let state = vec![x[0].clone(), x[1].clone(), w[2].clone() - Dim::Known(1)];
        Ok(vec![y, Fact::tensor(dtype, state)])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<LinearAttention>(bind_linear);
    b.step::<CausalConvWithState>(bind_conv);
}

fn bind_linear(op: &LinearAttention, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_linear)? {
        return Ok(s);
    }
    let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (h, g) = (op.heads, op.kv_heads);
    let (&[batch, tokens, hidden], &[kb, kt, k_hidden], &[vb, vt, v_hidden]) =
        (q.shape.as_slice(), k.shape.as_slice(), v.shape.as_slice())
    else {
        bail!(InvalidModel, "LinearAttention takes 3 axes each of query, key and value");
    };
    ensure!(
        [kb, vb] == [batch; 2] && [kt, vt] == [tokens; 2],
        InvalidModel,
        "query {:?}, key {:?} and value {:?} differ in their items or tokens",
        q.shape,
        k.shape,
        v.shape
    );
    ensure!(hidden % h == 0 && v_hidden % g == 0, InvalidModel, "{hidden} and {v_hidden} do not hold their heads");
    let (size, columns) = (hidden / h, v_hidden / g);
    ensure!(k_hidden == g * size, InvalidModel, "keys of {k_hidden} for {g} heads of {size}");
    if let Some(o) = cx.opt_input(3) {
        let want = [batch, g, size, columns];
        ensure!(o.shape.as_slice() == want, InvalidModel, "a past state of {:?}, not {want:?}", o.shape);
    }
    let last = |i: usize| -> Result<usize> {
        match cx.opt_input(i).map(|o| o.shape.as_slice()) {
            None => Ok(0),
            Some(&[b, t, n]) if b == batch && t == tokens => Ok(n),
            Some(s) => bail!(InvalidModel, "input {i} of shape {s:?} for {batch} items of {tokens} tokens"),
        }
    };
    let (decay, beta) = (last(4)?, last(5)?);
    let by_row = decay == g * size && decay != g;
    ensure!([0, g, g * size].contains(&decay), InvalidModel, "decay of {decay} for {g} heads of {size}");
    ensure!([0, 1, g].contains(&beta), InvalidModel, "beta of {beta} for {g} heads");
    let scale = if op.scale == 0.0 { 1.0 / (size.max(1) as f32).sqrt() } else { op.scale };
    let pieces = columns.div_ceil(COLUMNS);
    let work = tokens.saturating_mul(size).saturating_mul(COLUMNS).saturating_mul(4).max(1);
    let (tasks, per) = split(batch * g * pieces, (200_000 / work).max(1));
    let (isa, group) = (cx.isa, h / g);
    let total = batch * g * pieces;
    let scratch = crate::base::checked::product(&[Recurrence::scratch_len(size), 4])?;
    Ok(FnStep::boxed("linear_attention", tasks, scratch, move |args, task, scratch| {
        for i in task * per..total.min((task + 1) * per) {
            let (b, head, piece) = (i / pieces / g, i / pieces % g, i % pieces);
            let first = piece * COLUMNS;
            // SAFETY: an item's head and columns, all of which exist (Step::run).
            unsafe {
                let at = |p: *const f32, by: usize| if p.is_null() { null() } else { p.add(by) };
                let state = ((b * g + head) * size) * columns + first;
                let out_row = h * columns;
                let present = args.output::<f32>(1);
                let decays = args.input::<f32>(4);
                let r = Recurrence {
                    tokens,
                    size,
                    columns: COLUMNS.min(columns - first),
                    group,
                    scale,
                    q: args.input::<f32>(0).add(b * tokens * hidden + head * group * size),
                    q_row: hidden,
                    k: args.input::<f32>(1).add(b * tokens * k_hidden + head * size),
                    k_row: k_hidden,
                    v: args.input::<f32>(2).add(b * tokens * v_hidden + head * columns + first),
                    v_row: v_hidden,
                    decay: at(decays, b * tokens * decay + head * if by_row { size } else { 1 }),
                    decay_row: decay,
                    decay_step: usize::from(by_row),
                    beta: at(args.input(5), b * tokens * beta + if beta == 1 { 0 } else { head }),
                    beta_row: beta,
                    past: at(args.input(3), state),
                    present: if present.is_null() { present } else { present.add(state) },
                    state_row: columns,
                    out: args.output::<f32>(0).add(b * tokens * out_row + head * group * columns + first),
                    out_row,
                    out_head: columns,
                    scratch: scratch.cast(),
                };
                r.run(isa);
            }
        }
        Ok(())
    }))
}

fn bind_conv(op: &CausalConvWithState, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind_conv)? {
        return Ok(s);
    }
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let (&[batch, channels, len], &[c, one, taps]) = (x.shape.as_slice(), w.shape.as_slice()) else {
        bail!(InvalidModel, "CausalConvWithState of {:?} by {:?}", x.shape, w.shape);
    };
    ensure!(c == channels && one == 1 && taps > 0, InvalidModel, "weights of {:?} for {channels} channels", w.shape);
    if let Some(o) = cx.opt_input(2) {
        ensure!(o.shape.as_slice() == [channels], InvalidModel, "a bias of {:?} for {channels} channels", o.shape);
    }
    let past = taps - 1;
    if let Some(o) = cx.opt_input(3) {
        let want = [batch, channels, past];
        ensure!(o.shape.as_slice() == want, InvalidModel, "a past state of {:?}, not {want:?}", o.shape);
    }
    let total = batch * channels;
    let (tasks, per) = split(total, (64 * 1024 / (len.saturating_mul(taps)).max(1)).max(1));
    let (isa, silu) = (cx.isa, op.silu);
    let scratch = crate::base::checked::product(&[len + past, 4])?;
    Ok(FnStep::boxed("causal_conv", tasks, scratch, move |args, task, scratch| {
        let padded = scratch.cast::<f32>();
        for i in task * per..total.min((task + 1) * per) {
            let channel = i % channels;
            // SAFETY: a channel of each operand, all of which exist (Step::run); the scratch holds it with its past.
            unsafe {
                let before = args.input::<f32>(3);
                if before.is_null() {
                    std::ptr::write_bytes(padded, 0, past);
                } else {
                    std::ptr::copy_nonoverlapping(before.add(i * past), padded, past);
                }
                std::ptr::copy_nonoverlapping(args.input::<f32>(0).add(i * len), padded.add(past), len);
                let bias = args.input::<f32>(2);
                let y = args.output::<f32>(0);
                if !y.is_null() {
                    let conv = CausalConv {
                        padded,
                        len,
                        weights: args.input::<f32>(1).add(channel * taps),
                        taps,
                        bias: if bias.is_null() { 0.0 } else { *bias.add(channel) },
                        silu,
                        out: y.add(i * len),
                    };
                    conv.run(isa);
                }
                let present = args.output::<f32>(1);
                if !present.is_null() {
                    std::ptr::copy_nonoverlapping(padded.add(len), present.add(i * past), past);
                }
            }
        }
        Ok(())
    }))
}
