//! Values that different nodes made, as the outputs of one: for operators that are small graphs and have several outputs.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op};
use std::sync::Arc;

/// Each output is the input of its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Together;

impl Op for Together {
    fn name(&self) -> &'static str {
        "Together"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok((0..cx.outputs).map(|i| cx.fact(i).clone()).collect())
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Together>(bind);
}

fn bind(_: &Together, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    const GRAIN: usize = 64 * 1024;
    let mut parts = Vec::new();
    for i in 0..cx.outputs.len() {
        if let Some(o) = cx.opt_output(i) {
            let bytes = o.layout.byte_len(o.dtype, &o.shape)?;
            let (tasks, per) = split(bytes, GRAIN);
            parts.extend((0..tasks).map(|t| (i, t * per, per.min(bytes - (t * per).min(bytes)))));
        }
    }
    let parts: Arc<[(usize, usize, usize)]> = parts.into();
    Ok(FnStep::boxed("copy", parts.len(), 0, move |args, task, _| {
        let (i, at, n) = parts[task];
        // SAFETY: bytes of output i and of the input that it is, which has the same type and shape (Step::run).
        unsafe {
            std::ptr::copy_nonoverlapping(args.input::<u8>(i).add(at), args.output::<u8>(i).add(at), n);
        }
        Ok(())
    }))
}
