//! Instance and group normalisation.

use super::FLOATS;
use crate::backend::Step;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op, ParseCtx, Spelling};
use crate::kernels::normalise::GroupNorm;
use crate::ops::steps::Phases;
use crate::ops::types::need_elem;
use crate::{bail, ensure, err};
use std::sync::Arc;

/// Each group of channels of each image is brought to mean 0 and variance 1, then scaled and shifted by channel. Inputs X,
/// scale, bias.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelNorm {
    /// How many groups; none for one a channel (instance normalisation).
    pub groups: Option<usize>,
    /// Scale and bias have one number a group (GroupNormalization before version 21).
    pub by_group: bool,
    /// Keeps the root from zero.
    pub epsilon: f32,
}

impl ChannelNorm {
    /// Over so many groups, or each channel on its own.
    pub fn new(groups: Option<usize>, epsilon: f32) -> ChannelNorm {
        ChannelNorm { groups, by_group: false, epsilon }
    }
}

pub(super) fn parse_instance(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    Ok(Arc::new(ChannelNorm::new(None, cx.float_or("epsilon", 1e-5)?)))
}

pub(super) fn parse_group(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    let groups = cx.int("num_groups")?;
    let groups = usize::try_from(groups).ok().filter(|&g| g > 0);
    let groups = groups.ok_or_else(|| err!(InvalidModel, "num_groups must be positive"))?;
    let norm = ChannelNorm::new(Some(groups), cx.float_or("epsilon", 1e-5)?);
    Ok(Arc::new(ChannelNorm { by_group: cx.version < 21, ..norm }))
}

impl Op for ChannelNorm {
    fn name(&self) -> &'static str {
        if self.groups.is_some() { "GroupNormalization" } else { "InstanceNormalization" }
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        // Sums of values and squares, difference, two products, sum with the bias.
        7 * cx.elements(0)
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        let s = match self.groups {
            None => Spelling::since(6, version, "InstanceNormalization")?,
            Some(_) if self.by_group => return None,
            Some(g) => Spelling::since(21, version, "GroupNormalization")?.int("num_groups", g as i64),
        };
        Some(s.float("epsilon", self.epsilon))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &FLOATS)?;
        cx.expect_same_dtype(0, 1)?;
        cx.expect_same_dtype(0, 2)?;
        if let Some(d) = &cx.tensor(0)?.dims {
            ensure!(d.len() >= 2, InvalidModel, "{} needs a channel axis, the rank is {}", self.name(), d.len());
            let numbers = match (self.groups, self.by_group) {
                (Some(g), true) => Some(g as i64),
                _ => d[1].known(),
            };
            for i in 1..3 {
                if let (Some(n), Some(m)) = (numbers, cx.tensor(i)?.count().known()) {
                    ensure!(n == m, InvalidModel, "input {i} has {m} numbers, not {n}");
                }
            }
        }
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<ChannelNorm>(bind);
}

fn bind(op: &ChannelNorm, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    let (n, channels) = (x.shape[0], x.shape[1]);
    let elem = need_elem(x.dtype, op.name())?;
    let space = product(&x.shape[2..])?;
    let groups = op.groups.unwrap_or(channels).max(1);
    if n == 0 || channels == 0 || space == 0 {
        return Ok(Phases::new("group_norm", 0).boxed());
    }
    let kernel = GroupNorm::new(cx.isa, elem, n, channels, space, groups, f64::from(op.epsilon))?;
    let size = elem.size();
    if !op.by_group {
        return Ok(Phases::new("group_norm", 0)
            .then(kernel.tasks(), 0, move |args, task, _| {
                // SAFETY: the kernel was made for these operands' shapes (Step::run).
                unsafe { kernel.run(task, args.input(0), args.input(1), args.input(2), args.output(0)) };
                Ok(())
            })
            .boxed());
    }
    // The kernel wants a number a channel.
    let (list, each) = (product(&[channels, size])?, channels / groups);
    if cx.input(1)?.len() != groups || cx.input(2)?.len() != groups {
        bail!(InvalidModel, "scale and bias need one number a group");
    }
    Ok(Phases::new("group_norm", 2 * list)
        .then(1, 0, move |args, _, _| {
            for (i, to) in [(1, 0), (2, list)] {
                for c in 0..channels {
                    // SAFETY: group c / each exists in the input, channel c in the workspace.
                    unsafe {
                        let from = args.input::<u8>(i).add(c / each * size);
                        std::ptr::copy_nonoverlapping(from, args.workspace::<u8>().add(to + c * size), size);
                    }
                }
            }
            Ok(())
        })
        .then(kernel.tasks(), 0, move |args, task, _| {
            let lists = args.workspace::<u8>().cast_const();
            // SAFETY: the kernel was made for these operands' shapes; the first phase filled the lists.
            unsafe { kernel.run(task, args.input(0), lists, lists.add(list), args.output(0)) };
            Ok(())
        })
        .boxed())
}
