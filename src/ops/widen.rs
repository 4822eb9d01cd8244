//! Steps by way of a wider type: operands are converted into the workspace, a step of that type runs, and its results are
//! rounded once. So f16 and bf16 are computed in f32, and types that mix in the widest of them.

use super::types::need_elem;
use crate::backend::cpu::CpuCtx;
use crate::backend::step::Place;
use crate::backend::{Layout, NodeView, Operand, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::error::Result;
use crate::ir::Op;
use crate::kernels::isa::Isa;
use crate::kernels::nd::dense_strides;
use crate::kernels::pointwise::Cast;
use crate::tensor::{DType, Tensor};
use crate::{bail, err};
use smallvec::SmallVec;
use std::sync::Arc;

/// How a step of an operator is bound.
type Bind<T> = fn(&T, &CpuCtx<'_>) -> Result<Box<dyn Step>>;

/// An operand by its index.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    In(usize),
    Out(usize),
}

/// Binds `op` through f32 if an operand is f16 or bf16; `Ok(None)` if none is.
pub(super) fn widened<T: Op>(op: &T, cx: &CpuCtx<'_>, bind: Bind<T>) -> Result<Option<Box<dyn Step>>> {
    through(op, cx, bind, DType::F32, |_, d| matches!(d, DType::F16 | DType::BF16))
}

/// Binds `op` through f64, or else f32, if its floating-point operands are of several types; `Ok(None)` if they are of one.
pub(super) fn unmixed<T: Op>(op: &T, cx: &CpuCtx<'_>, bind: Bind<T>) -> Result<Option<Box<dyn Step>>> {
    let float = |d: DType| matches!(d, DType::F16 | DType::BF16 | DType::F32 | DType::F64);
    let mut types = cx.inputs.iter().chain(cx.outputs).flatten().map(|o| o.dtype).filter(|&d| float(d));
    let Some(first) = types.next() else { return Ok(None) };
    let (mixed, double) = types.fold((false, first == DType::F64), |(m, f), d| (m || d != first, f || d == DType::F64));
    if !mixed {
        return Ok(None);
    }
    let wide = if double { DType::F64 } else { DType::F32 };
    through(op, cx, bind, wide, |_, d| float(d) && d != wide)
}

/// Binds `op` with the operands that `pick` chooses converted to and from `wide`; `Ok(None)` if it chooses none.
pub(super) fn through<T: Op>(
    op: &T,
    cx: &CpuCtx<'_>,
    bind: Bind<T>,
    wide: DType,
    pick: impl Fn(Side, DType) -> bool,
) -> Result<Option<Box<dyn Step>>> {
    let ins = cx.inputs.iter().enumerate().map(|(i, o)| (Side::In(i), o));
    let outs = cx.outputs.iter().enumerate().map(|(i, o)| (Side::Out(i), o));
    if !ins.chain(outs).any(|(side, o)| o.as_ref().is_some_and(|o| pick(side, o.dtype))) {
        return Ok(None);
    }
    let key = if wide == DType::F64 { "f64" } else { "f32" };
    let mut sources = SmallVec::new();
    let mut ins = Vec::with_capacity(cx.inputs.len());
    let (mut offset, mut jobs_in, mut jobs_out) = (0, Vec::new(), Vec::new());
    for (i, o) in cx.inputs.iter().enumerate() {
        let (source, wide) = match o {
            None => (Source::Direct, None),
            Some(o) => match (pick(Side::In(i), o.dtype), &o.constant) {
                (false, _) => (Source::Direct, Some(o.clone())),
                // One that is turned into another layout has its elements elsewhere.
                (true, Some(t)) if o.layout == Layout::Dense => {
                    let made = cx.cache.converted(t, key, wide, || widen_tensor(cx.isa, wide, t))?;
                    let o = Operand { dtype: wide, constant: Some((*made).clone()), ..o.clone() };
                    (Source::Constant(made), Some(o))
                }
                (true, _) => {
                    let at = place(o, wide, &mut offset)?;
                    jobs_in.push(Job::new(cx.isa, i, at, o, o.dtype, wide)?);
                    (Source::Workspace(at), Some(Operand { dtype: wide, constant: None, ..o.clone() }))
                }
            },
        };
        sources.push(source);
        ins.push(wide);
    }
    let mut results = SmallVec::new();
    let mut outs = Vec::with_capacity(cx.outputs.len());
    for (i, o) in cx.outputs.iter().enumerate() {
        let (result, wide) = match o {
            Some(o) if pick(Side::Out(i), o.dtype) => {
                let at = place(o, wide, &mut offset)?;
                jobs_out.push(Job::new(cx.isa, i, at, o, wide, o.dtype)?);
                (Some(at), Some(Operand { dtype: wide, ..o.clone() }))
            }
            o => (None, o.clone()),
        };
        results.push(result);
        outs.push(wide);
    }
    let node = NodeView { name: cx.name, op: cx.op, inputs: &ins, outputs: &outs };
    let inner = bind(op, &CpuCtx { node: &node, isa: cx.isa, cache: cx.cache })?;
    Ok(Some(Box::new(Widened { inner, sources, results, jobs_in, jobs_out, offset })))
}

/// Room for an operand in the wide type.
fn place(o: &Operand, wide: DType, offset: &mut usize) -> Result<usize> {
    let at = *offset;
    let bytes = o.layout.byte_len(wide, &o.shape)?;
    let end = at.checked_add(bytes).filter(|&e| e < isize::MAX as usize - ALIGN);
    *offset = round_up(end.ok_or_else(|| err!(OutOfMemory, "operands pass the address space"))?, ALIGN);
    Ok(at)
}

fn conversion(isa: Isa, from: DType, to: DType, n: usize) -> Result<Cast> {
    let flat = dense_strides(&[n]);
    Cast::new(isa, need_elem(from, "a conversion")?, need_elem(to, "a conversion")?, &[n], &flat, &flat)
}

fn widen_tensor(isa: Isa, to: DType, t: &Tensor) -> Result<Tensor> {
    let mut wide = Tensor::uninit(to, t.shape())?;
    let Some(out) = wide.data_mut_ptr() else { bail!(Internal, "a new tensor is shared") };
    let from = t.aligned()?;
    let kernel = conversion(isa, t.dtype(), to, t.len())?;
    // SAFETY: both have as many elements, and the target is new.
    (0..kernel.tasks()).for_each(|task| unsafe { kernel.run(task, from.data_ptr(), out) });
    Ok(wide)
}

/// Where the inner step finds an input.
enum Source {
    /// Where it was.
    Direct,
    /// A constant made wide.
    Constant(Arc<Tensor>),
    /// At an offset in the workspace.
    Workspace(usize),
}

/// The conversion of one operand.
struct Job {
    operand: usize,
    offset: usize,
    kernel: Cast,
}

impl Job {
    fn new(isa: Isa, operand: usize, offset: usize, o: &Operand, from: DType, to: DType) -> Result<Job> {
        // Padding lanes of blocked layouts are elements like others.
        let len = o.layout.byte_len(DType::F32, &o.shape)? / 4;
        Ok(Job { operand, offset, kernel: conversion(isa, from, to, len)? })
    }
}

/// The task's job, and the task in it.
fn find(jobs: &[Job], mut task: usize) -> Option<(&Job, usize)> {
    for j in jobs {
        if task < j.kernel.tasks() {
            return Some((j, task));
        }
        task -= j.kernel.tasks();
    }
    None
}

struct Widened {
    inner: Box<dyn Step>,
    sources: SmallVec<[Source; 6]>,
    results: SmallVec<[Option<usize>; 3]>,
    jobs_in: Vec<Job>,
    jobs_out: Vec<Job>,
    /// Where the inner step's workspace begins.
    offset: usize,
}

impl Widened {
    fn first(&self) -> usize {
        usize::from(!self.jobs_in.is_empty())
    }
}

impl Step for Widened {
    fn phases(&self) -> usize {
        self.first() + self.inner.phases() + usize::from(!self.jobs_out.is_empty())
    }
    fn tasks(&self, phase: usize) -> usize {
        let tasks = |jobs: &[Job]| jobs.iter().map(|j| j.kernel.tasks()).sum();
        match phase.checked_sub(self.first()) {
            None => tasks(&self.jobs_in),
            Some(p) if p < self.inner.phases() => self.inner.tasks(p),
            Some(_) => tasks(&self.jobs_out),
        }
    }
    fn scratch_bytes(&self) -> usize {
        self.inner.scratch_bytes()
    }
    fn workspace_bytes(&self) -> usize {
        self.offset.saturating_add(self.inner.workspace_bytes())
    }
    fn reads(&self, input: usize) -> bool {
        match self.sources.get(input) {
            Some(Source::Constant(_)) => false,
            Some(Source::Direct) => self.inner.reads(input),
            _ => true,
        }
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let base = args.workspace::<u8>();
        let Some(p) = phase.checked_sub(self.first()) else {
            if let Some((j, task)) = find(&self.jobs_in, task) {
                // SAFETY: the job's elements lie in the input, and have room in the workspace.
                unsafe { j.kernel.run(task, args.input(j.operand), base.add(j.offset)) };
            }
            return Ok(());
        };
        if p >= self.inner.phases() {
            if let Some((j, task)) = find(&self.jobs_out, task) {
                // SAFETY: as above, the other way.
                unsafe { j.kernel.run(task, base.add(j.offset).cast_const(), args.output(j.operand)) };
            }
            return Ok(());
        }
        let mut places: SmallVec<[Place; 12]> = SmallVec::new();
        let host = |addr: *mut u8| Place { addr, space: 0 };
        for (i, s) in self.sources.iter().enumerate() {
            places.push(host(match s {
                Source::Direct => args.input::<u8>(i).cast_mut(),
                Source::Constant(t) => t.data_ptr().cast_mut(),
                Source::Workspace(at) => base.wrapping_add(*at),
            }));
        }
        for (i, r) in self.results.iter().enumerate() {
            places.push(host(r.map_or(args.output(i), |at| base.wrapping_add(at))));
        }
        let index: SmallVec<[u32; 12]> = (0..places.len() as u32).collect();
        let (ins, outs) = index.split_at(self.sources.len());
        let inner = StepArgs::new(&places, &[], ins, outs, base.wrapping_add(self.offset));
        // SAFETY: the operands are those the inner step was bound for, in the wide type; the rest is the caller's contract.
        unsafe { self.inner.run(&inner, p, task, scratch) }
    }
    fn kernel(&self) -> &str {
        self.inner.kernel()
    }
}
