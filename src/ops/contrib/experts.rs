//! Mixtures of experts: MoE, and QMoE with weights of few bits.

use super::{only, without};
use crate::backend::Step;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op, ParseCtx};
use crate::kernels::experts::{Activate, ExpertActivation, Rows, activate, product as multiply, route, scratch_floats};
use crate::kernels::quant::blocks::{self, Blocks, place};
use crate::ops::steps::Phases;
use crate::ops::widen::widened;
use crate::tensor::DType;
use crate::{bail, ensure, err};
use std::ptr::null;
use std::sync::Arc;

/// How the halves of a gated activation lie in the first layer's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// There is none, or it is a third layer.
    Apart,
    /// In turns.
    Interleaved,
    /// One after the other.
    Halves,
}

/// Each row goes through `k` of the experts, which two or three layers make up, and comes out as their weighted sum.
///
/// Inputs: 0 X `[.., hidden]`, 1 logits `[rows, experts]`; weights `[experts, out, in]` and biases of the layers 2, 3; 4, 5; 6, 7; with
/// codes 8 to 10 their scales and 11 to 13 zero points; 14 the weights of the sum, where the logits only choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Experts that a row goes through.
    pub k: usize,
    /// What happens after the first layer.
    pub activation: ExpertActivation,
    /// Where its gate is.
    pub gate: Gate,
    /// The weights of the sum add up to one.
    pub normalise: bool,
    /// Bits of the codes of each layer; none for floats.
    pub bits: Option<[usize; 3]>,
    /// Codes that share a scale; 0 for all of a row.
    pub block: usize,
}

/// Inputs of the weights, biases, scales and zero points of a layer.
fn at(layer: usize) -> [usize; 4] {
    [2 + 2 * layer, 3 + 2 * layer, 8 + layer, 11 + layer]
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let quantised = cx.op_type == "QMoE";
    cx.expect_inputs(3, if quantised { 21 } else { 8 })?;
    cx.inputs.resize(21, None);
    only(cx, "use_sparse_mixer", 0)?;
    let k = cx.int_or("k", 1)?;
    ensure!((1..=1 << 16).contains(&k), InvalidModel, "k is {k}");
    let kind = cx.string_or("activation_type", "relu")?;
    let activation = match kind.as_str() {
        "relu" => ExpertActivation::Relu,
        "relu2" => ExpertActivation::SquaredRelu,
        "gelu" => ExpertActivation::Gelu,
        "silu" => ExpertActivation::Silu,
        "identity" => ExpertActivation::Identity,
        "geglu" => ExpertActivation::GeGlu,
        "swiglu" => ExpertActivation::SwiGlu {
            alpha: cx.float_or("activation_alpha", 1.0)?,
            beta: cx.float_or("activation_beta", 0.0)?,
            limit: cx.float_or("swiglu_limit", f32::INFINITY)?,
            after: cx.flag("swiglu_limit_after_activation", false)?,
        },
        x => bail!(InvalidModel, "{} with activation_type '{x}'", cx.op_type),
    };
    let gated = matches!(activation, ExpertActivation::SwiGlu { .. } | ExpertActivation::GeGlu);
    let gate = match (gated, cx.int_or("swiglu_fusion", 0)?) {
        (false, _) | (true, 0) => Gate::Apart,
        (true, 1) => Gate::Interleaved,
        (true, 2) => Gate::Halves,
        (_, n) => bail!(InvalidModel, "swiglu_fusion is {n}"),
    };
    let mut bits = None;
    let mut block = 0;
    if quantised {
        let kind = cx.string_or("quant_type", "int")?;
        ensure!(kind == "int", Unsupported, "QMoE with quant_type '{kind}'");
        let layout = cx.int_or("weights_prepacked", -1)?;
        ensure!((-1..=0).contains(&layout), Unsupported, "QMoE with weights_prepacked {layout}");
        let all = cx.int_or("expert_weight_bits", 4)?;
        let mut each = [0; 3];
        for (b, name) in each.iter_mut().zip(["fc1", "fc2", "fc3"]) {
            *b = match cx.int_or(&format!("{name}_expert_weight_bits"), all)? {
                n @ (2 | 4 | 8) => n as usize,
                n => bail!(Unsupported, "QMoE with experts of {n} bits"),
            };
        }
        bits = Some(each);
        block = match cx.int_or("block_size", 0)? {
            n if n <= 0 => 0,
            n if (16..=1 << 20).contains(&n) => n as usize,
            n => bail!(InvalidModel, "block_size is {n}"),
        };
        let i = |k: usize| cx.inputs[k];
        let more = ["fc1_global_scale", "fc2_global_scale", "fc1_act_scale", "fc2_act_scale"];
        for (k, name) in more.into_iter().chain(["fc1_act_block_scale", "fc2_act_block_scale"]).enumerate() {
            without(cx, 15 + k, name)?;
        }
        cx.inputs = vec![i(0), i(1), i(2), i(4), i(5), i(7), i(8), i(10), i(3), i(6), i(9), i(11), i(12), i(13), i(14)];
        ensure!(cx.has_input(8) && cx.has_input(9), InvalidModel, "QMoE without scales");
    }
    cx.inputs.truncate(15);
    ensure!(cx.has_input(2) && cx.has_input(4), InvalidModel, "{} without weights", cx.op_type);
    let third = cx.has_input(6);
    let fits = third == (gated && gate == Gate::Apart) || third && !gated;
    ensure!(fits, InvalidModel, "{} of activation '{kind}' whose gate is not where it should be", cx.op_type);
    // onnxruntime's kernel for quantised experts normalises whatever the attribute says, unless the weights are given.
    let normalise = cx.flag("normalize_routing_weights", false)? || quantised && !cx.has_input(14);
    Ok(Arc::new(Experts { k: k as usize, activation, gate, normalise, bits, block }))
}

impl Op for Experts {
    fn name(&self) -> &'static str {
        if self.bits.is_some() { "QMoE" } else { "MoE" }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F16, DType::BF16])?;
        cx.expect_same_dtype(0, 1)?;
        let scales = [DType::F32, DType::F16, DType::BF16];
        for l in 0..3 {
            let [w, b, s, z] = at(l);
            match self.bits {
                _ if !cx.has(w) => {}
                None => cx.expect_same_dtype(0, w)?,
                Some(_) => {
                    cx.expect_dtype(w, &[DType::U8])?;
                    cx.expect_dtype(s, &scales)?;
                }
            }
            if cx.has(b) {
                cx.expect_same_dtype(0, b)?;
            }
            if cx.has(z) {
                cx.expect_dtype(z, &[DType::U8])?;
            }
        }
        if cx.has(14) {
            cx.expect_same_dtype(0, 14)?;
        }
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Experts>(bind);
}

/// A layer of all experts: `n` rows of `k` weights each.
#[derive(Clone, Copy)]
struct Layer {
    n: usize,
    k: usize,
    inputs: [usize; 4],
    codes: Option<Codes>,
}

#[derive(Clone, Copy)]
struct Codes {
    bits: usize,
    block: usize,
    blocks: usize,
    /// Bytes of a row of weights.
    row: usize,
    /// Bytes of zero points of a row, or of all rows of an expert where a row has one.
    zeros: usize,
}

impl Layer {
    fn of(op: &Experts, cx: &CpuCtx<'_>, layer: usize, experts: usize, k: usize) -> Result<Layer> {
        let inputs = at(layer);
        let w = cx.input(inputs[0])?;
        let bits = op.bits.map(|b| b[layer]);
        let n = match w.shape.as_slice() {
            &[e, n, row] if e == experts && product(&[row, 8])? == product(&[k, bits.unwrap_or(8)])? => n,
            s => bail!(InvalidModel, "weights of shape {s:?} for {experts} experts and {k} numbers"),
        };
        let expect = |i: usize, want: usize| match cx.opt_input(i) {
            Some(o) if o.len() != want => bail!(InvalidModel, "input {i} of {} has shape {:?}", op.name(), o.shape),
            _ => Ok(()),
        };
        expect(inputs[1], product(&[experts, n])?)?;
        let mut codes = None;
        if let Some(bits) = bits {
            let block = if op.block == 0 { k.max(1) } else { op.block };
            let whole = k.is_multiple_of(block) && (k * bits).is_multiple_of(8);
            ensure!(whole, InvalidModel, "{k} weights in blocks of {block}");
            let blocks = k / block;
            let each = (blocks * bits).div_ceil(8);
            let zeros = if op.block == 0 { (n * bits).div_ceil(8) } else { each };
            ensure!(cx.opt_input(inputs[2]).is_some(), InvalidModel, "{} without scales", op.name());
            expect(inputs[2], product(&[experts, n, blocks])?)?;
            expect(inputs[3], product(&[experts, if op.block == 0 { zeros } else { product(&[n, each])? }])?)?;
            codes = Some(Codes { bits, block, blocks, row: k * bits / 8, zeros });
        }
        Ok(Layer { n, k, inputs, codes })
    }
    /// Blocks whose sums the rows must come with.
    fn blocks(&self) -> usize {
        self.codes.map_or(0, |c| c.blocks)
    }
    fn row(&self) -> usize {
        round_up(self.k, 16)
    }
    /// Brings a row into the order that the codes want, and adds up its blocks. Without codes the row only gets its padding.
    unsafe fn prepare(&self, from: *const f32, to: *mut f32, sums: *mut f32) {
        // SAFETY: the caller's: a row of `k`, room for `row` and `blocks`.
        unsafe {
            match self.codes {
                None => std::ptr::copy_nonoverlapping(from, to, self.k),
                Some(c) => {
                    let bytes = c.block * c.bits / 8;
                    for b in 0..c.blocks {
                        let (from, mut sum) = (from.add(b * c.block), 0.0);
                        for i in 0..c.block {
                            *to.add(b * c.block + place(i, bytes, c.bits)) = *from.add(i);
                            sum += *from.add(i);
                        }
                        *sums.add(b) = sum;
                    }
                }
            }
            for i in self.k..self.row() {
                *to.add(i) = 0.0;
            }
        }
    }
}

/// Some rows of an expert, prepared for a layer.
struct Batch {
    expert: usize,
    x: *const f32,
    sums: *const f32,
    rows: usize,
    out: *mut f32,
    out_row: usize,
}

/// Columns of a layer that a task makes.
const COLUMNS: usize = 64;

impl Layer {
    /// Columns `first..end` of the layer for some rows, biases added.
    unsafe fn run(&self, cx: &Bound, b: &Batch, first: usize, end: usize, scratch: *mut u8) {
        let [w, bias, scale, zero] = self.inputs;
        // SAFETY: the expert's weights and the rows, whose sizes were checked.
        unsafe {
            match self.codes {
                None => {
                    let w = cx.args.input::<f32>(w).add((b.expert * self.n + first) * self.k);
                    let (out, n) = (b.out.add(first), end - first);
                    let (x, x_row, rows, k, out_row) = (b.x, self.row(), b.rows, self.k, b.out_row);
                    multiply(cx.isa, Rows { x, x_row, rows, w, n, k, out, out_row }, scratch.cast());
                }
                Some(c) => {
                    let zeros = scratch.cast::<f32>();
                    for column in first..end {
                        let i = b.expert * self.n + column;
                        let codes = cx.args.input::<u8>(zero);
                        let code = |at: *const u8, i: usize| {
                            let (per, mask) = (8 / c.bits, ((1u16 << c.bits) - 1) as u8);
                            f32::from(*at.add(i / per) >> (i % per * c.bits) & mask)
                        };
                        for k in 0..c.blocks {
                            *zeros.add(k) = match (codes.is_null(), cx.by_row) {
                                (true, _) => (1u32 << (c.bits - 1)) as f32,
                                (_, true) => code(codes.add(b.expert * c.zeros), column),
                                _ => code(codes.add(i * c.zeros), k),
                            };
                        }
                        for row in (0..b.rows).step_by(blocks::ROWS) {
                            let rows = blocks::ROWS.min(b.rows - row);
                            let y = blocks::multiply(
                                cx.isa,
                                Blocks {
                                    x: b.x.add(row * self.row()),
                                    row: self.row(),
                                    sums: b.sums.add(row * c.blocks),
                                    rows,
                                    q: cx.args.input::<u8>(w).add(i * c.row),
                                    blocks: c.blocks,
                                    bytes: c.block * c.bits / 8,
                                    bits: c.bits,
                                    scales: cx.args.input::<f32>(scale).add(i * c.blocks),
                                    zeros,
                                },
                            );
                            for (k, y) in y.iter().enumerate().take(rows) {
                                *b.out.add((row + k) * b.out_row + column) = *y;
                            }
                        }
                    }
                }
            }
            let bias = cx.args.input::<f32>(bias);
            if bias.is_null() {
                return;
            }
            for row in 0..b.rows {
                for column in first..end {
                    *b.out.add(row * b.out_row + column) += *bias.add(b.expert * self.n + column);
                }
            }
        }
    }
}

/// The operands of a run.
struct Bound<'a> {
    isa: crate::kernels::isa::Isa,
    args: &'a crate::backend::StepArgs<'a>,
    /// Zero points are packed over an expert's rows.
    by_row: bool,
}

fn bind(op: &Experts, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    let x = cx.input(0)?;
    let Some(&hidden) = x.shape.last() else { bail!(InvalidModel, "experts of a scalar") };
    let rows = product(&x.shape[..x.shape.len() - 1])?;
    let experts = match cx.input(1)?.shape.as_slice() {
        &[.., e] if cx.input(1)?.len() == product(&[rows, e])? && e > 0 => e,
        s => bail!(InvalidModel, "logits of shape {s:?} for {rows} rows"),
    };
    let mixing = cx.opt_input(14);
    if let Some(o) = mixing {
        ensure!(o.len() == rows * experts, InvalidModel, "weights of experts of shape {:?}", o.shape);
    }
    ensure!(op.k <= experts, InvalidModel, "{} of {experts} experts", op.k);
    let first = Layer::of(op, cx, 0, experts, hidden)?;
    let halves = op.gate != Gate::Apart;
    ensure!(!halves || first.n % 2 == 0, InvalidModel, "{} columns do not make halves", first.n);
    let inner = if halves { first.n / 2 } else { first.n };
    let third = if cx.opt_input(6).is_some() { Some(Layer::of(op, cx, 2, experts, hidden)?) } else { None };
    if let Some(l) = &third {
        let same = l.n == inner && l.codes.map(|c| c.bits) == first.codes.map(|c| c.bits);
        ensure!(same, Unsupported, "a gate of {} columns, or of other bits than the first layer's", l.n);
    }
    let second = Layer::of(op, cx, 1, experts, inner)?;
    ensure!(second.n == hidden, InvalidModel, "experts give {} numbers, not {hidden}", second.n);

    let (k, isa) = (op.k, cx.isa);
    let pairs = product(&[rows, k])?;
    ensure!(u32::try_from(pairs).is_ok(), Unsupported, "{rows} rows of {k} experts each");
    let gate_n = third.map_or(0, |l| l.n);
    let wide = first.n + gate_n;
    let mut workspace = 0usize;
    let mut room = |sizes: &[usize]| -> Result<usize> {
        let at = workspace;
        let end = at.checked_add(product(sizes)?.checked_mul(4).ok_or_else(|| err!(OutOfMemory, "too many rows"))?);
        workspace = round_up(
            end.filter(|&e| e < isize::MAX as usize / 2)
                .ok_or_else(|| err!(OutOfMemory, "{rows} rows of experts exceed memory"))?,
            ALIGN,
        );
        Ok(at)
    };
    // Of each pair of row and expert: both, the weight, its place among the expert's; of each place the pair.
    let (chosen, weight, place_at, order) = (room(&[pairs])?, room(&[pairs])?, room(&[pairs])?, room(&[pairs])?);
    let starts = room(&[experts + 1])?;
    let (xs, x_sums) = (room(&[pairs, first.row()])?, room(&[pairs, first.blocks()])?);
    let hs = room(&[pairs, wide])?;
    let (mid, mid_sums) = (room(&[pairs, second.row()])?, room(&[pairs, second.blocks()])?);
    let ys = room(&[pairs, hidden])?;

    let gemm = |l: &Layer| -> Result<usize> {
        let n = if l.codes.is_some() { Some(l.blocks()) } else { scratch_floats(isa, l.k) };
        n.and_then(|n| n.checked_mul(4)).ok_or_else(|| err!(OutOfMemory, "experts exceed memory"))
    };
    let scratch = gemm(&first)?.max(gemm(&second)?);
    let route_scratch = product(&[k, 8])? + experts;
    let (row_tasks, per_row) = split(pairs, (16 * 1024 / hidden.max(wide).max(1)).max(1));
    let chunks = |n: usize| n.div_ceil(COLUMNS);
    let (normalise, activation, gate, by_row) = (op.normalise, op.activation, op.gate, op.block == 0);
    let mixes = mixing.is_some();
    let plain = normalise && !mixes;

    // Some rows of an expert: where its places begin, and how many.
    let range = move |base: *mut u8, e: usize| unsafe {
        // SAFETY: the first phase wrote experts + 1 numbers there.
        let s = base.add(starts).cast::<u32>();
        let (a, b) = (*s.add(e) as usize, *s.add(e + 1) as usize);
        (a, b - a)
    };
    let none = pairs == 0 || hidden == 0;
    let tasks = move |n: usize| if none { 0 } else { n };
    Ok(Phases::new("experts", workspace)
        .then(tasks(1), route_scratch, move |args, _, scratch| {
            let base = args.workspace::<u8>();
            // SAFETY: logits of all rows; the workspace and the scratch have room for what is written (Step::run).
            unsafe {
                let list = std::slice::from_raw_parts_mut(scratch.cast::<(u32, f32)>(), k);
                let used = std::slice::from_raw_parts_mut(scratch.add(k * 8), experts);
                let starts = base.add(starts).cast::<u32>();
                for e in 0..=experts {
                    *starts.add(e) = 0;
                }
                let (chosen, weight) = (base.add(chosen).cast::<u32>(), base.add(weight).cast::<f32>());
                for row in 0..rows {
                    let logits = std::slice::from_raw_parts(args.input::<f32>(1).add(row * experts), experts);
                    list.fill((0, 0.0));
                    route(logits, list, used, plain);
                    if mixes {
                        let given = args.input::<f32>(14).add(row * experts);
                        for s in list.iter_mut() {
                            s.1 = *given.add(s.0 as usize);
                        }
                        let sum: f32 = list.iter().map(|s| s.1).sum();
                        if normalise && sum != 0.0 {
                            list.iter_mut().for_each(|s| s.1 /= sum);
                        }
                    }
                    for (i, &(e, w)) in list.iter().enumerate() {
                        *chosen.add(row * k + i) = e;
                        *weight.add(row * k + i) = w;
                        *starts.add(e as usize + 1) += 1;
                    }
                }
                for e in 0..experts {
                    *starts.add(e + 1) += *starts.add(e);
                }
                // Places in order; the starts move on to the ends meanwhile.
                let (places, order) = (base.add(place_at).cast::<u32>(), base.add(order).cast::<u32>());
                for pair in 0..pairs {
                    let start = starts.add(*chosen.add(pair) as usize);
                    *places.add(pair) = *start;
                    *order.add(*start as usize) = pair as u32;
                    *start += 1;
                }
                for e in (0..experts).rev() {
                    *starts.add(e + 1) = *starts.add(e);
                }
                *starts = 0;
            }
            Ok(())
        })
        .then(tasks(row_tasks), 0, move |args, task, _| {
            let base = args.workspace::<u8>();
            for i in task * per_row..pairs.min((task + 1) * per_row) {
                // SAFETY: place i of the workspace, and its row.
                unsafe {
                    let row = *base.add(order).cast::<u32>().add(i) as usize / k;
                    let to = base.add(xs).cast::<f32>().add(i * first.row());
                    let sums = base.add(x_sums).cast::<f32>().add(i * first.blocks());
                    first.prepare(args.input::<f32>(0).add(row * hidden), to, sums);
                }
            }
            Ok(())
        })
        .then(tasks(product(&[experts, chunks(first.n) + chunks(gate_n)])?), scratch, move |args, task, scratch| {
            let base = args.workspace::<u8>();
            let each = chunks(first.n) + chunks(gate_n);
            let (expert, mut chunk) = (task / each, task % each);
            let (from, count) = range(base, expert);
            let mut layer = &first;
            // SAFETY: the expert's rows, which the phase before prepared; columns that exist.
            unsafe {
                let mut out = base.add(hs).cast::<f32>().add(from * wide);
                if let (Some(l), true) = (&third, chunk >= chunks(first.n)) {
                    chunk -= chunks(first.n);
                    layer = l;
                    out = out.add(first.n);
                }
                let x = base.add(xs).cast::<f32>().add(from * first.row());
                let sums = base.add(x_sums).cast::<f32>().add(from * first.blocks());
                let b = Batch { expert, x, sums, rows: count, out, out_row: wide };
                let end = layer.n.min((chunk + 1) * COLUMNS);
                layer.run(&Bound { isa, args, by_row }, &b, chunk * COLUMNS, end, scratch);
            }
            Ok(())
        })
        .then(tasks(row_tasks), product(&[inner, 12])? + 64, move |args, task, scratch| {
            let base = args.workspace::<u8>();
            let room = scratch.cast::<f32>();
            for i in task * per_row..pairs.min((task + 1) * per_row) {
                // SAFETY: place i of the workspace; the scratch has room for three rows.
                unsafe {
                    let h = base.add(hs).cast::<f32>().add(i * wide).cast_const();
                    let (g, l) = match gate {
                        Gate::Apart if third.is_some() => (h, h.add(inner)),
                        Gate::Apart => (h, null()),
                        Gate::Halves => (h, h.add(inner)),
                        Gate::Interleaved => {
                            for j in 0..inner {
                                *room.add(j) = *h.add(2 * j);
                                *room.add(inner + j) = *h.add(2 * j + 1);
                            }
                            (room.cast_const(), room.add(inner).cast_const())
                        }
                    };
                    let to = room.add(2 * inner);
                    activate(isa, Activate { f: activation, x: g, linear: l, to, n: inner });
                    let sums = base.add(mid_sums).cast::<f32>().add(i * second.blocks());
                    second.prepare(to, base.add(mid).cast::<f32>().add(i * second.row()), sums);
                }
            }
            Ok(())
        })
        .then(tasks(product(&[experts, chunks(hidden)])?), scratch, move |args, task, scratch| {
            let base = args.workspace::<u8>();
            let (expert, chunk) = (task / chunks(hidden), task % chunks(hidden));
            let (from, count) = range(base, expert);
            // SAFETY: as two phases before.
            unsafe {
                let x = base.add(mid).cast::<f32>().add(from * second.row());
                let sums = base.add(mid_sums).cast::<f32>().add(from * second.blocks());
                let out = base.add(ys).cast::<f32>().add(from * hidden);
                let b = Batch { expert, x, sums, rows: count, out, out_row: hidden };
                let end = hidden.min((chunk + 1) * COLUMNS);
                second.run(&Bound { isa, args, by_row }, &b, chunk * COLUMNS, end, scratch);
            }
            Ok(())
        })
        .then(tasks(row_tasks.min(rows)), 0, move |args, task, _| {
            let base = args.workspace::<u8>();
            let per = rows.div_ceil(row_tasks.min(rows).max(1));
            for row in task * per..rows.min((task + 1) * per) {
                // SAFETY: a row of the result, and its experts' rows.
                unsafe {
                    let y = args.output::<f32>(0).add(row * hidden);
                    for i in 0..k {
                        let pair = row * k + i;
                        let w = *base.add(weight).cast::<f32>().add(pair);
                        let from = *base.add(place_at).cast::<u32>().add(pair) as usize;
                        let from = base.add(ys).cast::<f32>().add(from * hidden);
                        for j in 0..hidden {
                            let before = if i == 0 { 0.0 } else { *y.add(j) };
                            *y.add(j) = w * *from.add(j) + before;
                        }
                    }
                }
            }
            Ok(())
        })
        .boxed())
}
