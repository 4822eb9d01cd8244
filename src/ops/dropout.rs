//! Dropout as inference has it: the input, and a mask of ones.

use super::Family;
use super::shape::Identity;
use crate::backend::FnStep;
use crate::backend::cpu::CpuBindings;
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "dropout", ops: OPS, cpu, ..Family::EMPTY };

const OPS: &[OpDef] = &[OpDef { domain: "", name: "Dropout", versions: &[1, 6, 7, 10, 12, 13, 22], parse }];

/// The input unchanged, and a mask that keeps everything. Training is not done.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout;

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, if cx.version < 12 { 1 } else { 3 })?;
    // Which parts to drop is random only in training; a ratio of zero drops nothing.
    if cx.has_input(2) {
        let is = |i: usize, f: &dyn Fn(&Tensor) -> bool| cx.input_fact(i).constant().is_some_and(f);
        let off = is(2, &|t| t.as_slice::<bool>().is_ok_and(|v| v.iter().all(|&b| !b)));
        let none = is(1, &|t| t.as_slice::<f32>().is_ok_and(|v| v.iter().all(|&r| r == 0.0)));
        if !(off || none) {
            bail!(Unsupported, "Dropout in training mode");
        }
    }
    cx.inputs.truncate(1);
    if !cx.outputs.iter().skip(1).any(|&o| o) {
        return Ok(Arc::new(Identity));
    }
    ensure!(cx.version >= 10, Unsupported, "the mask of Dropout before version 10");
    Ok(Arc::new(Dropout))
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(0, cx.dtype(0)?)?, cx.like(0, DType::Bool)?])
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Dropout>(|_, cx| {
        let x = cx.input(0)?;
        let (bytes, n) = (x.byte_len()?, x.len());
        let (value, mask) = (cx.has_output(0), cx.has_output(1));
        Ok(FnStep::boxed("dropout", 1, 0, move |args, _, _| {
            // SAFETY: input and output 0 have `bytes` bytes, the mask one for each of the n elements (Step::run).
            unsafe {
                if value {
                    std::ptr::copy_nonoverlapping(args.input::<u8>(0), args.output::<u8>(0), bytes);
                }
                if mask {
                    std::ptr::write_bytes(args.output::<u8>(1), 1, n);
                }
            }
            Ok(())
        }))
    });
}
