//! Dropout: the input and a mask of ones at inference; in training, elements dropped at random and the rest scaled.

use super::Family;
use super::case::{Case, CaseInput};
use super::random::{Seed, rounded};
use super::shape::Identity;
use super::types::elem;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{FnStep, Step};
use crate::ensure;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Fact, InferCtx, Op, OpDef, ParseCtx, Spelling};
use crate::kernels::scalar::{load, store};
use crate::tensor::{DType, Tensor, decode_narrow, encode_narrow};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "dropout", ops: OPS, cpu, cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[OpDef { domain: "", name: "Dropout", versions: &[1, 6, 7, 10, 12, 13, 22], parse }];

/// ONNX Dropout. Inputs: data, and, for training, the part to drop (0.5 if it is not given) and whether to.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// For what is dropped: as `numpy.random.RandomState(seed).uniform` has it.
    pub seed: Seed,
    /// The mask is of the data's type, as before version 10.
    pub mask_like_data: bool,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, if cx.version < 12 { 1 } else { 3 })?;
    // Versions 1 and 6 train where `is_test` is missing, which no runtime does: models say so by mistake. From 7 to 10 there
    // is no training. From 12 on, a ratio of zero drops nothing.
    let is = |i: usize, f: &dyn Fn(&Tensor) -> bool| cx.input_fact(i).constant().is_some_and(f);
    let off = is(2, &|t| t.as_slice::<bool>().is_ok_and(|v| v.iter().all(|&b| !b)));
    let none = is(1, &|t| t.as_slice::<f32>().is_ok_and(|v| v.iter().all(|&r| r == 0.0)));
    if !cx.has_input(2) || off || none {
        cx.inputs.truncate(1);
    }
    if cx.inputs.len() == 1 && !cx.outputs.iter().skip(1).any(|&o| o) {
        return Ok(Arc::new(Identity));
    }
    let seed = Seed::of(cx.int_opt("seed")?.map(|n| n as f64))?;
    Ok(Arc::new(Dropout { seed, mask_like_data: cx.version < 10 }))
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }
    fn is_deterministic(&self) -> bool {
        self.seed != Seed::Fresh
    }
    fn to_onnx(&self, version: u32, inputs: usize) -> Option<Spelling> {
        // Without training the ratio does not matter.
        Spelling::since(12, version, "Dropout").filter(|_| inputs == 1 && !self.mask_like_data)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        Ok(vec![cx.like(0, dtype)?, cx.like(0, if self.mask_like_data { dtype } else { DType::Bool })?])
    }
}

/// A type whose elements are numbers, in a byte or more each.
fn number(d: DType) -> Result<DType> {
    ensure!(elem(d).is_some() || d.is_narrow_float() && !d.is_packed(), Unsupported, "Dropout of {d}");
    Ok(d)
}

/// # Safety
/// The tensor has element `i`, of type `d`.
unsafe fn get(d: DType, from: *const u8, i: usize) -> f64 {
    // SAFETY: the caller's; what has no kernel element is a byte.
    unsafe {
        match elem(d) {
            Some(e) => load(e, from, i),
            None => f64::from(decode_narrow(d, *from.add(i))),
        }
    }
}

/// # Safety
/// The tensor has element `i`, of type `d`.
unsafe fn put(d: DType, to: *mut u8, i: usize, x: f64) {
    // SAFETY: as above.
    unsafe {
        match elem(d) {
            Some(e) => store(e, to, i, x),
            None => *to.add(i) = encode_narrow(d, x as f32, true),
        }
    }
}

fn round_to(d: DType, x: f64) -> f64 {
    match elem(d) {
        Some(e) => rounded(e, x),
        None => f64::from(decode_narrow(d, encode_narrow(d, x as f32, true))),
    }
}

fn bind(op: &Dropout, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let (bytes, n, seed) = (x.byte_len()?, x.len(), op.seed);
    let (value, mask) = (cx.has_output(0), cx.has_output(1));
    let mask_type = number(if op.mask_like_data { x.dtype } else { DType::Bool })?;
    // At inference the data's type does not matter.
    let training = cx.opt_input(2).map(|t| t.len() == 1);
    ensure!(training != Some(false), InvalidModel, "training_mode must be one bool");
    let mut elems = None;
    if training.is_some() {
        let ratio = cx.opt_input(1).map(|r| number(r.dtype)).transpose()?;
        ensure!(cx.opt_input(1).is_none_or(|r| r.len() == 1), InvalidModel, "the ratio must be one number");
        elems = Some((number(x.dtype)?, ratio));
    }
    Ok(FnStep::boxed("dropout", 1, 0, move |args, _, _| {
        // SAFETY: the flag and the ratio are one element each; input and outputs have n elements (Step::run).
        unsafe {
            if let Some((data, ratio_type)) = elems.filter(|_| *args.input::<u8>(2) != 0) {
                let ratio = ratio_type.map_or(0.5, |d| get(d, args.input(1), 0));
                ensure!((0.0..1.0).contains(&ratio), Run, "the ratio is {ratio}");
                // NumPy computes the scale in the ratio's type.
                let to = ratio_type.unwrap_or(data);
                let scale = round_to(to, 1.0 / round_to(to, 1.0 - ratio));
                // A ratio of zero drops nothing, whatever the numbers.
                let mut g = seed.start();
                for i in 0..n {
                    let keep = ratio == 0.0 || g.uniform() >= ratio;
                    if value {
                        let y = if keep { get(data, args.input(0), i) * scale } else { 0.0 };
                        put(data, args.output(0), i, y);
                    }
                    if mask {
                        put(mask_type, args.output(1), i, f64::from(u8::from(keep)));
                    }
                }
                return Ok(());
            }
            if value {
                std::ptr::copy_nonoverlapping(args.input::<u8>(0), args.output::<u8>(0), bytes);
            }
            for i in 0..if mask { n } else { 0 } {
                put(mask_type, args.output(1), i, 1.0);
            }
        }
        Ok(())
    }))
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Dropout>(bind);
}

fn cases() -> Vec<Case> {
    let x = |d| CaseInput::Random(d, vec![3, 5], -1.0, 1.0);
    let both = |c: Case| Case { outputs: vec![true, true], ..c };
    let mut all = vec![
        both(Case::new("Dropout", 7, "old_mask", vec![x(DType::F32)])).exact(),
        both(Case::new("Dropout", 22, "inference", vec![x(DType::F64)])).exact(),
    ];
    let inputs = (Tensor::scalar(0.25f32).ok(), Tensor::scalar(true).ok(), Tensor::scalar(false).ok());
    if let (Some(ratio), Some(on), Some(off)) = inputs {
        for (name, flag, dtype) in [("training", on, DType::F32), ("not_training", off, DType::F16)] {
            let inputs = vec![x(dtype), CaseInput::Given(ratio.clone()), CaseInput::Given(flag)];
            all.push(both(Case::new("Dropout", 13, name, inputs)).attr("seed", Attr::Int(4)).exact());
        }
    }
    all
}
