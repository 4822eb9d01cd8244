//! Steps on f16 and bf16 by way of f32: operands are widened into the workspace, an f32 step runs, and its results are
//! rounded once.

use crate::backend::cpu::CpuCtx;
use crate::backend::step::{Place, split};
use crate::backend::{NodeView, Operand, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::error::Result;
use crate::ir::Op;
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::tensor::{DType, Tensor};
use crate::{bail, err};
use smallvec::SmallVec;
use std::sync::Arc;

/// Elements that a conversion task moves.
const GRAIN: usize = 64 * 1024;

fn narrow(d: DType) -> Option<Elem> {
    match d {
        DType::F16 => Some(Elem::F16),
        DType::BF16 => Some(Elem::Bf16),
        _ => None,
    }
}

/// Binds `op` through f32 if an operand is f16 or bf16; `Ok(None)` if none is.
pub(super) fn widened<T: Op>(
    op: &T,
    cx: &CpuCtx<'_>,
    bind: fn(&T, &CpuCtx<'_>) -> Result<Box<dyn Step>>,
) -> Result<Option<Box<dyn Step>>> {
    let operands = || cx.inputs.iter().chain(cx.outputs).flatten();
    if !operands().any(|o| narrow(o.dtype).is_some()) {
        return Ok(None);
    }
    let mut sources = SmallVec::new();
    let mut ins = Vec::with_capacity(cx.inputs.len());
    let (mut offset, mut jobs_in, mut jobs_out) = (0, Vec::new(), Vec::new());
    for (i, o) in cx.inputs.iter().enumerate() {
        let (source, wide) = match o {
            None => (Source::Direct, None),
            Some(o) => match (narrow(o.dtype), &o.constant) {
                (None, _) => (Source::Direct, Some(o.clone())),
                (Some(elem), Some(t)) => {
                    let wide = cx.cache.get(t, "f32", || widen_tensor(cx.isa, elem, t))?;
                    let o = Operand { dtype: DType::F32, constant: Some((*wide).clone()), ..o.clone() };
                    (Source::Constant(wide), Some(o))
                }
                (Some(elem), None) => {
                    let at = place(o, &mut offset)?;
                    jobs_in.push(Job::new(i, elem, at, o)?);
                    (Source::Workspace(at), Some(Operand { dtype: DType::F32, ..o.clone() }))
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
            Some(o) => match narrow(o.dtype) {
                Some(elem) => {
                    let at = place(o, &mut offset)?;
                    jobs_out.push(Job::new(i, elem, at, o)?);
                    (Some(at), Some(Operand { dtype: DType::F32, ..o.clone() }))
                }
                None => (None, Some(o.clone())),
            },
            None => (None, None),
        };
        results.push(result);
        outs.push(wide);
    }
    let node = NodeView { name: cx.name, op: cx.op, inputs: &ins, outputs: &outs };
    let inner = bind(op, &CpuCtx { node: &node, isa: cx.isa, cache: cx.cache })?;
    Ok(Some(Box::new(Widened { isa: cx.isa, inner, sources, results, jobs_in, jobs_out, offset })))
}

/// Room for an operand in f32.
fn place(o: &Operand, offset: &mut usize) -> Result<usize> {
    let at = *offset;
    let bytes = o.layout.byte_len(DType::F32, &o.shape)?;
    let end = at.checked_add(bytes).filter(|&e| e < isize::MAX as usize - ALIGN);
    *offset = round_up(end.ok_or_else(|| err!(OutOfMemory, "operands pass the address space"))?, ALIGN);
    Ok(at)
}

fn widen_tensor(isa: Isa, elem: Elem, t: &Tensor) -> Result<Tensor> {
    let mut wide = Tensor::uninit(DType::F32, t.shape())?;
    let Some(to) = wide.data_mut_ptr() else { bail!(Internal, "a new tensor is shared") };
    let from = t.aligned()?;
    // SAFETY: both have as many elements, and the target is new.
    unsafe { load_strided(isa, elem, from.ptr(), 1, to.cast(), t.len()) };
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
    elem: Elem,
    offset: usize,
    len: usize,
    tasks: usize,
    per: usize,
}

impl Job {
    fn new(operand: usize, elem: Elem, offset: usize, o: &Operand) -> Result<Job> {
        // Padding lanes of blocked layouts are elements like others.
        let len = o.layout.byte_len(DType::F32, &o.shape)? / 4;
        let (tasks, per) = split(len, GRAIN);
        Ok(Job { operand, elem, offset, len, tasks, per })
    }
}

/// The task's job, and its elements in it.
fn find(jobs: &[Job], mut task: usize) -> Option<(&Job, usize, usize)> {
    for j in jobs {
        if task < j.tasks {
            let from = task * j.per;
            return Some((j, from, j.per.min(j.len.saturating_sub(from))));
        }
        task -= j.tasks;
    }
    None
}

struct Widened {
    isa: Isa,
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
        let tasks = |jobs: &[Job]| jobs.iter().map(|j| j.tasks).sum();
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
            if let Some((j, from, n)) = find(&self.jobs_in, task) {
                // SAFETY: the job's elements lie in the input, and have room in the workspace.
                unsafe {
                    let src = args.input::<u8>(j.operand).add(from * 2);
                    load_strided(self.isa, j.elem, src, 1, base.add(j.offset).cast::<f32>().add(from), n);
                }
            }
            return Ok(());
        };
        if p >= self.inner.phases() {
            if let Some((j, from, n)) = find(&self.jobs_out, task) {
                // SAFETY: as above, the other way.
                unsafe {
                    let src = base.add(j.offset).cast::<f32>().add(from);
                    store_strided(self.isa, src, 1, j.elem, args.output::<u8>(j.operand).add(from * 2), 1, n);
                }
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
        // SAFETY: the operands are those the inner step was bound for, in f32; the rest is the caller's contract.
        unsafe { self.inner.run(&inner, p, task, scratch) }
    }
    fn kernel(&self) -> &str {
        self.inner.kernel()
    }
}
