//! DynamicQuantizeLinear: the scale comes from the numbers themselves.

use crate::backend::Step;
use crate::backend::cpu::CpuCtx;
use crate::backend::step::split;
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op, ParseCtx};
use crate::kernels::isa::Isa;
use crate::kernels::quant::linear::{Params, Range, divide, extent, quantize};
use crate::ops::case::{Case, CaseInput};
use crate::ops::steps::Phases;
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Maps the numbers' extent (zero counted in) to 0..=255. Outputs: the integers, their scale, their zero point.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicQuantize;

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(DynamicQuantize))
}

impl Op for DynamicQuantize {
    fn name(&self) -> &'static str {
        "DynamicQuantizeLinear"
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        4 * cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32])?;
        Ok(vec![cx.like(0, DType::U8)?, Fact::sized(DType::F32, &[]), Fact::sized(DType::U8, &[])])
    }
}

/// Numbers a task.
const GRAIN: usize = 32 * 1024;
/// Numbers at a time.
const CHUNK: usize = 1024;

/// The scale and zero point for numbers from `lo` to `hi`, which zero lies between.
fn scale_of((lo, hi): (f32, f32)) -> (f32, f32) {
    let scale = if lo == hi { 1.0 } else { hi - lo } / 255.0;
    (scale, (0.0 - lo / scale).clamp(0.0, 255.0).round_ties_even())
}

/// Quantising numbers by their extent, in two phases of as many tasks.
#[derive(Clone, Copy)]
pub(super) struct Dynamic {
    isa: Isa,
    n: usize,
    per: usize,
    pub tasks: usize,
}

impl Dynamic {
    /// Bytes of scratch that the second phase needs.
    pub const SCRATCH: usize = CHUNK * 4;

    pub fn new(isa: Isa, n: usize) -> Dynamic {
        let (tasks, per) = split(n, GRAIN);
        Dynamic { isa, n, per, tasks }
    }
    /// Bytes that the phases share.
    pub fn extent_bytes(&self) -> usize {
        self.tasks * size_of::<(f32, f32)>()
    }
    fn of(&self, task: usize) -> (usize, usize) {
        ((task * self.per).min(self.n), self.n.min((task + 1) * self.per))
    }
    /// The first phase: a task's extent.
    /// # Safety
    /// `x` is valid for the numbers, `extents` for as many as there are tasks.
    pub unsafe fn measure(&self, task: usize, x: *const f32, extents: *mut (f32, f32)) {
        let (from, to) = self.of(task);
        // SAFETY: the caller's.
        unsafe { extents.add(task).write(extent(self.isa, x.add(from), to - from)) };
    }
    /// The scale and zero point, after the first phase.
    /// # Safety
    /// All tasks of the first phase have written their extents.
    pub unsafe fn scale(&self, extents: *const (f32, f32)) -> (f32, f32) {
        // SAFETY: the caller's.
        let all = unsafe { std::slice::from_raw_parts(extents, self.tasks) };
        scale_of(all.iter().fold((0.0, 0.0), |a, b| (a.0.min(b.0), a.1.max(b.1))))
    }
    /// The second phase: writes a task's integers.
    /// # Safety
    /// As for the first, whose tasks have ended; `q` is valid for the integers, `scratch` for `SCRATCH` bytes.
    pub unsafe fn write(&self, task: usize, x: *const f32, (scale, zero): (f32, f32), q: *mut u8, scratch: *mut u8) {
        let ((from, to), chunk) = (self.of(task), scratch.cast::<f32>());
        let p = Params { scale: &scale, zero: &zero, each: false };
        for at in (from..to).step_by(CHUNK) {
            let count = CHUNK.min(to - at);
            // SAFETY: the caller's; the scratch holds a chunk.
            unsafe {
                std::ptr::copy_nonoverlapping(x.add(at), chunk, count);
                divide(self.isa, chunk, count, p);
                quantize(self.isa, chunk, count, p, Range { lo: 0.0, hi: 255.0 }, q.add(at));
            }
        }
    }
}

pub(super) fn bind(_: &DynamicQuantize, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let d = Dynamic::new(cx.isa, cx.input(0)?.len());
    let step = Phases::new("dynamic_quantize_linear", d.extent_bytes())
        .then(d.tasks, 0, move |args, task, _| {
            // SAFETY: the input's numbers; the workspace has room for the extents (Step::run).
            unsafe { d.measure(task, args.input(0), args.workspace()) };
            Ok(())
        })
        .then(d.tasks, Dynamic::SCRATCH, move |args, task, scratch| {
            // SAFETY: the phase before wrote the extents; outputs of the input's length and of one element.
            unsafe {
                let (scale, zero) = d.scale(args.workspace::<(f32, f32)>());
                if task == 0 && !args.output::<f32>(1).is_null() {
                    *args.output::<f32>(1) = scale;
                }
                if task == 0 && !args.output::<u8>(2).is_null() {
                    *args.output::<u8>(2) = zero as u8;
                }
                if !args.output::<u8>(0).is_null() {
                    d.write(task, args.input(0), (scale, zero), args.output(0), scratch);
                }
            }
            Ok(())
        });
    Ok(step.boxed())
}

pub(super) fn cases() -> Vec<Case> {
    let x = |shape: &[usize], lo, hi| CaseInput::Random(DType::F32, shape.to_vec(), lo, hi);
    let case = |name, input| Case {
        outputs: vec![true; 3],
        ..Case::new("DynamicQuantizeLinear", 11, name, vec![input]).exact()
    };
    let mut v = vec![
        case("both_signs", x(&[3, 501], -2.0, 5.0)),
        case("all_above_zero", x(&[100_000], 1.0, 5.0)),
        case("all_below_zero", x(&[17], -5.0, -1.0)),
        case("nothing", x(&[0, 3], 0.0, 1.0)),
    ];
    if let (Ok(x), Ok(y)) = (Tensor::from_slice(&[2], &[0.0f32; 2]), Tensor::from_slice(&[2], &[0u8; 2])) {
        v.push(case("zeros", CaseInput::Given(x)).expect(y));
    }
    v
}
