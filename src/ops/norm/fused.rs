//! Normalisations between elementwise programs: what is done to each number before and after, some rows at a time, while they
//! are in the cache.

use super::{ChannelNorm, LayerNormalization, LpNormalization};
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{Operand, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Fact, InferCtx, Op, elements};
use crate::kernels::normalise::{GroupNorm, LayerNorm, LayerNormKind, LayerNormPointers, Softmax as SoftmaxKernel};
use crate::kernels::pointwise::Program;
use crate::ops::infer::broadcast_all;
use crate::ops::pointwise::{Bound, MAX_INPUTS, Source, bind_kernel};
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::steps::Phases;
use crate::ops::types::need_elem;
use crate::tensor::DType;
use crate::{ensure, err};
use smallvec::SmallVec;
use std::ops::Range;
use std::ptr::null;

/// What is done to rows that lie together.
#[derive(Clone, Debug, PartialEq)]
pub enum Norm {
    /// Over the last axis, or those that are one.
    Softmax(Softmax),
    /// With a scale and perhaps a shift of the normalised axes' shape.
    Layer(LayerNormalization),
    /// A row is a group of channels; scale and shift have a number a channel.
    Channels(ChannelNorm),
    /// To length 1, over the last axis.
    Length(LpNormalization),
}

impl Norm {
    /// The operator as one of them.
    pub fn of(op: &dyn Op) -> Option<Norm> {
        let softmax = || op.downcast().cloned().map(Norm::Softmax);
        let layer = || op.downcast().cloned().map(Norm::Layer);
        let length = || op.downcast().filter(|l: &&LpNormalization| l.p == 2).cloned().map(Norm::Length);
        softmax().or_else(layer).or_else(length).or_else(|| op.downcast().cloned().map(Norm::Channels))
    }
}

/// Elementwise `before`, a normalisation, elementwise `after`, whose rows are of f32, f16 or bf16.
///
/// Inputs: those of `before` (without it the numbers themselves), broadcast together; scale and shift as the normalisation has
/// them; those of `after` but its first, which is what was normalised. Outputs: the result; what was normalised, before it was.
#[derive(Clone, Debug, PartialEq)]
pub struct FusedNorm {
    /// What makes the rows.
    pub before: Option<Program>,
    /// What is done to them.
    pub norm: Norm,
    /// What becomes of each number then.
    pub after: Option<Program>,
    /// The type of the rows.
    pub dtype: DType,
    /// The type of the result: that of the rows, or of 8 bits after those of f32.
    pub to: DType,
}

impl FusedNorm {
    /// Which of so many inputs are those of `before`, of the normalisation, of `after`.
    pub fn parts(&self, inputs: usize) -> Result<[Range<usize>; 3]> {
        let rows = self.before.as_ref().map_or(1, Program::inputs);
        let rest = self.after.as_ref().map_or(0, |p| p.inputs().saturating_sub(1));
        let lists = inputs.checked_sub(rest).filter(|&l| l >= rows);
        let lists = lists.ok_or_else(|| err!(Internal, "{} of {inputs} inputs", self.name()))?;
        Ok([0..rows, rows..lists, lists..inputs])
    }
}

impl Op for FusedNorm {
    fn name(&self) -> &'static str {
        match &self.norm {
            Norm::Softmax(s) => match s.kind {
                SoftmaxKind::Softmax => "FusedSoftmax",
                SoftmaxKind::Log => "FusedLogSoftmax",
                SoftmaxKind::Hard => "FusedHardmax",
            },
            Norm::Layer(l) if l.rms => "FusedRMSNormalization",
            Norm::Layer(_) => "FusedLayerNormalization",
            Norm::Channels(c) if c.groups.is_some() => "FusedGroupNormalization",
            Norm::Channels(_) => "FusedInstanceNormalization",
            Norm::Length(_) => "FusedLpNormalization",
        }
    }
    fn alias(&self) -> Alias {
        static ALL: [usize; MAX_INPUTS] = [0, 1, 2, 3, 4, 5, 6, 7];
        let rows = self.before.as_ref().map_or(1, Program::inputs);
        let alone = self.after.as_ref().is_none_or(|p| p.inputs() == 1);
        // What is read when the result is written in part must lie elsewhere, scale and shift too.
        match (&self.norm, ALL.get(..rows)) {
            (Norm::Softmax(_), Some(rows)) if self.to == DType::F32 && alone => Alias::InPlace(rows),
            _ => Alias::None,
        }
    }
    fn flops(&self, _: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        let programs = [&self.before, &self.after].into_iter().flatten();
        // Sums of values and squares, difference, two products, sum with the bias.
        elements(&outputs[..1]) * (7 + programs.map(Program::operations).sum::<usize>() as u64)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let [rows, ..] = self.parts(cx.inputs.len())?;
        let shapes = rows.map(|i| Ok(cx.tensor(i)?.dims.as_ref())).collect::<Result<Vec<_>>>()?;
        let dims = broadcast_all(shapes)?;
        let fact = |d| dims.as_ref().map_or(Fact::any_tensor(d), |dims| Fact::tensor(d, dims.clone()));
        Ok(vec![fact(self.to), fact(self.dtype)])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<FusedNorm>(bind);
}

/// A normalisation of rows that lie one behind another.
struct Rows {
    kernel: Kernel,
    count: usize,
    len: usize,
}

enum Kernel {
    Softmax(SoftmaxKernel),
    Layer(LayerNorm),
    Channels(GroupNorm),
}

impl Rows {
    fn new(op: &FusedNorm, cx: &CpuCtx<'_>, out: &Operand, lists: Range<usize>) -> Result<Rows> {
        let (shape, elem) = (out.shape.as_slice(), need_elem(op.dtype, op.name())?);
        let long = |n: usize| lists.clone().all(|i| cx.opt_input(i).is_some_and(|o| o.len() == n));
        let (kernel, count, len, fits) = match &op.norm {
            Norm::Softmax(s) => {
                let [outer, len, inner] = s.lines(shape)?;
                let kernel = SoftmaxKernel::new(cx.isa, s.kind, elem, outer, len, inner)?;
                (Kernel::Softmax(kernel), if len == 0 { 0 } else { outer }, len, inner == 1 && lists.is_empty())
            }
            Norm::Layer(l) => {
                let axis = resolve_axis(l.axis, shape.len())?;
                let (rows, len) = (product(&shape[..axis])?, product(&shape[axis..])?);
                let kind = if l.rms { LayerNormKind::Rms } else { LayerNormKind::Layer };
                let kernel = LayerNorm::new(cx.isa, kind, elem, rows, len, f64::from(l.epsilon))?;
                (Kernel::Layer(kernel), rows, len, long(len) && (1..=2).contains(&lists.len()))
            }
            Norm::Length(l) => {
                let axis = resolve_axis(l.axis, shape.len())?;
                let (rows, len) = (product(&shape[..axis])?, product(&shape[axis..])?);
                let kernel = LayerNorm::new(cx.isa, LayerNormKind::Length, elem, rows, len, l.floor)?;
                (Kernel::Layer(kernel), rows, len, axis + 1 == shape.len() && lists.is_empty())
            }
            Norm::Channels(c) => {
                ensure!(shape.len() >= 2, Internal, "no channels in {shape:?}");
                let (n, channels, space) = (shape[0], shape[1], product(&shape[2..])?);
                let groups = c.groups.unwrap_or(channels).max(1);
                let kernel = GroupNorm::new(cx.isa, elem, n, channels, space, groups, f64::from(c.epsilon))?;
                let (count, len) = (kernel.tasks(), channels / groups * space);
                (Kernel::Channels(kernel), count, len, long(channels) && lists.len() == 2 && !c.by_group)
            }
        };
        ensure!(fits, Internal, "{} of {shape:?} with {} lists", op.name(), lists.len());
        Ok(Rows { kernel, count, len })
    }
    fn scratch_bytes(&self) -> usize {
        match &self.kernel {
            Kernel::Softmax(k) => k.scratch_bytes(),
            Kernel::Layer(k) => k.scratch_bytes(),
            Kernel::Channels(_) => 0,
        }
    }
    /// # Safety
    /// `from` and `to` are valid for all rows, and equal or apart; the lists as the kernel was made for them; the scratch memory
    /// is as large as told, and nobody else's.
    unsafe fn run(&self, rows: Range<usize>, from: *const u8, lists: [*const u8; 2], to: *mut u8, scratch: *mut u8) {
        let [scale, bias] = lists;
        // SAFETY: the caller's contract.
        unsafe {
            match &self.kernel {
                Kernel::Softmax(k) => k.run_rows(rows.start, rows.len(), from, to, scratch.cast()),
                Kernel::Layer(k) => {
                    k.run_rows(rows, LayerNormPointers { scale, bias, ..LayerNormPointers::new(from, to) }, scratch)
                }
                Kernel::Channels(k) => rows.for_each(|r| k.run(r, from, scale, bias, to)),
            }
        }
    }
}

/// Numbers a task has, about, and numbers that go through all three at once.
const GRAIN: usize = 16 * 1024;
const AT_ONCE: usize = 4096;

fn bind(op: &FusedNorm, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (out, all, name) = (cx.output(0)?, cx.inputs.len(), op.name());
    let [rows, lists, rest] = op.parts(all)?;
    ensure!(op.before.is_some() || !cx.has_output(1), Internal, "{name}: rows that are an input were asked for");
    let norm = Rows::new(op, cx, out, lists.clone())?;
    let bound = |program: &Option<Program>, to: &Operand, sources: Result<Vec<Source<'_>>>| -> Result<Option<Bound>> {
        let Some(p) = program else { return Ok(None) };
        bind_kernel(cx.isa, name, &[to], &sources?, |b, x| b.inline(p, x)).map(Some)
    };
    let line = Operand { dtype: op.dtype, ..out.clone() };
    let before = bound(&op.before, &line, rows.map(|i| Source::new(cx, i)).collect())?;
    // The normalised rows are what comes after the inputs.
    let own = Source { index: all, operand: &line, shape: out.shape.clone() };
    let after = bound(&op.after, out, std::iter::once(Ok(own)).chain(rest.map(|i| Source::new(cx, i))).collect())?;
    // They lie where the result does, or apart where that is narrower.
    let apart = op.to != op.dtype;
    ensure!(!apart || after.is_some(), Internal, "{name}: rows of {} as {}", op.dtype, op.to);
    let workspace = if apart { line.byte_len()? } else { 0 };
    let programs = [&before, &after].into_iter().flatten();
    let scratch = programs.map(|b| b.kernel.scratch_bytes()).chain([norm.scratch_bytes()]).max().unwrap_or(0);
    let (tasks, per) = split(norm.count, (GRAIN / norm.len.max(1)).max(1));
    let at_once = (AT_ONCE / norm.len.max(1)).max(1);
    let phases = Phases::new(name, workspace).then(tasks, scratch, move |args, task, scratch| {
        let (y, kept) = (args.output::<u8>(0), args.output::<u8>(1));
        let lines = if apart { args.workspace::<u8>() } else { y };
        let operand = |i: usize| if i == all { lines.cast_const() } else { args.input::<u8>(i) };
        let read = |b: &Option<Bound>| -> SmallVec<[*const u8; MAX_INPUTS]> {
            b.iter().flat_map(|b| b.reads.iter().map(|&i| operand(i))).collect()
        };
        let (first_reads, last_reads) = (read(&before), read(&after));
        let list = |i: usize| lists.clone().nth(i).map_or(null(), |i| args.input::<u8>(i));
        let made = if kept.is_null() { lines } else { kept };
        let last = norm.count.min((task + 1) * per);
        for first in (task * per..last).step_by(at_once) {
            let rows = first..last.min(first + at_once);
            let (start, len) = (rows.start * norm.len, rows.len() * norm.len);
            // SAFETY: rows of operands whose shapes all were bound to; tasks have rows of their own (Step::run).
            unsafe {
                let from = match &before {
                    None => args.input(0),
                    Some(b) => {
                        b.kernel.span(start, len, &first_reads, &[made], scratch);
                        made.cast_const()
                    }
                };
                norm.run(rows, from, [list(0), list(1)], lines, scratch);
                if let Some(b) = &after {
                    b.kernel.span(start, len, &last_reads, &[y], scratch);
                }
            }
        }
        Ok(())
    });
    Ok(phases.boxed())
}
