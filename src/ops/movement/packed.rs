//! Elements of fewer than 8 bits: unpacked to bytes before a step, packed again behind it.

use super::Bind;
use crate::backend::cpu::CpuCtx;
use crate::backend::step::Place;
use crate::backend::{NodeView, Operand, Step, StepArgs};
use crate::base::alloc::round_up;
use crate::err;
use crate::error::Result;
use crate::ir::Op;
use crate::tensor::{DType, unpack_bits, write_packed};

/// Binds the operator, by way of bytes where an operand is packed.
pub fn bind<T: Op>(op: &T, cx: &CpuCtx<'_>, bind: Bind<T>) -> Result<Box<dyn Step>> {
    let packed = |o: &Option<Operand>| o.as_ref().is_some_and(|o| o.dtype.is_packed());
    if !cx.inputs.iter().chain(cx.outputs).any(packed) {
        return bind(op, cx);
    }
    let mut at = 0usize;
    let mut plan = |list: &[Option<Operand>]| -> Result<(Vec<Option<Operand>>, Vec<Part>)> {
        let mut parts = Vec::new();
        let mut operands = list.to_vec();
        for (index, o) in operands.iter_mut().enumerate() {
            if let Some(o) = o.as_mut().filter(|o| o.dtype.is_packed()) {
                parts.push(Part { index, dtype: o.dtype, n: o.len(), at });
                at = at.checked_add(round_up(o.len(), 64)).ok_or_else(|| err!(OutOfMemory, "unpacked elements"))?;
                *o = Operand::dense(DType::U8, &o.shape);
            }
        }
        Ok((operands, parts))
    };
    let (inputs, ins) = plan(cx.inputs)?;
    let (outputs, outs) = plan(cx.outputs)?;
    let node = NodeView { name: cx.name, op: cx.op, inputs: &inputs, outputs: &outputs };
    let inner = bind(op, &CpuCtx { node: &node, isa: cx.isa, cache: cx.cache })?;
    Ok(Box::new(Unpacked { inner, ins, outs, inner_at: at, inputs: inputs.len(), outputs: outputs.len() }))
}

/// A packed operand and the place of its bytes in the workspace.
struct Part {
    index: usize,
    dtype: DType,
    n: usize,
    at: usize,
}

struct Unpacked {
    inner: Box<dyn Step>,
    ins: Vec<Part>,
    outs: Vec<Part>,
    inner_at: usize,
    inputs: usize,
    outputs: usize,
}

impl Step for Unpacked {
    fn phases(&self) -> usize {
        self.inner.phases() + 2
    }
    fn tasks(&self, phase: usize) -> usize {
        match phase {
            0 => self.ins.len(),
            p if p <= self.inner.phases() => self.inner.tasks(p - 1),
            _ => self.outs.len(),
        }
    }
    fn scratch_bytes(&self) -> usize {
        self.inner.scratch_bytes()
    }
    fn workspace_bytes(&self) -> usize {
        self.inner_at + self.inner.workspace_bytes()
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let w = args.workspace::<u8>();
        if phase == 0 {
            let p = &self.ins[task];
            // SAFETY: the input has n packed elements, its part of the workspace a byte for each.
            unsafe {
                let len = p.dtype.byte_len(p.n)?;
                let bytes: &[u8] =
                    if len == 0 { &[] } else { std::slice::from_raw_parts(args.input::<u8>(p.index), len) };
                unpack_bits(p.dtype, bytes, p.n, |i, b| w.add(p.at + i).write(b));
            }
            return Ok(());
        }
        if phase <= self.inner.phases() {
            let host = |addr: *mut u8| Place { addr, space: 0 };
            let part = |parts: &[Part], i: usize| parts.iter().find(|p| p.index == i).map(|p| p.at);
            let mut places: smallvec::SmallVec<[Place; 8]> = Default::default();
            for i in 0..self.inputs {
                // SAFETY: the part lies within the workspace.
                let at = part(&self.ins, i).map(|at| unsafe { w.add(at) });
                places.push(host(at.unwrap_or(args.input::<u8>(i).cast_mut())));
            }
            for i in 0..self.outputs {
                // SAFETY: the part lies within the workspace.
                let at = part(&self.outs, i).map(|at| unsafe { w.add(at) });
                places.push(host(at.unwrap_or(args.output(i))));
            }
            let index: smallvec::SmallVec<[u32; 8]> = (0..places.len() as u32).collect();
            let (i, o) = index.split_at(self.inputs);
            // SAFETY: the inner step's workspace lies behind the parts; the rest is the caller's contract.
            unsafe {
                let inner = StepArgs::new(&places, &[], i, o, w.add(self.inner_at));
                return self.inner.run(&inner, phase - 1, task, scratch);
            }
        }
        let p = &self.outs[task];
        let len = p.dtype.byte_len(p.n)?;
        if len != 0 && !args.output::<u8>(p.index).is_null() {
            // SAFETY: the output has n packed elements, its part of the workspace a byte for each.
            unsafe {
                let bytes = std::slice::from_raw_parts_mut(args.output::<u8>(p.index), len);
                write_packed(p.dtype, bytes, p.n, |i| *w.add(p.at + i));
            }
        }
        Ok(())
    }
    fn kernel(&self) -> &str {
        self.inner.kernel()
    }
}
