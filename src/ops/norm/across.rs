//! Layer normalisation of images over their channels, each place for itself. ONNX has it for the last axis alone; the pass
//! `transposes` makes it of one between two transpositions.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{FnStep, Layout, NodeLayouts, NodeView, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op};
use crate::kernels::normalise::{ChannelLayerNorm as Kernel, LayerNormKind};
use crate::ops::widen::widened;
use crate::tensor::DType;
use crate::{bail, ensure};
use smallvec::smallvec;

/// Axis 1 is brought to mean 0 and variance 1 (RMS: to mean square 1), then scaled and shifted by channel. Inputs
/// X `[N, C, ...]`, scale `[C]`, optionally bias `[C]`; f32, f16 or bf16.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelLayerNorm {
    /// Root mean square instead of mean and variance.
    pub rms: bool,
    /// Keeps the root from zero.
    pub epsilon: f32,
}

impl Op for ChannelLayerNorm {
    fn name(&self) -> &'static str {
        "ChannelLayerNorm"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        ensure!(x.rank().is_none_or(|r| r >= 2), Internal, "no channel axis in {x}");
        Ok(vec![cx.like(0, x.dtype)?])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<ChannelLayerNorm>(bind);
    b.layouts::<ChannelLayerNorm>(layouts);
}

fn layouts(_: &ChannelLayerNorm, node: &NodeView<'_>, _: usize) -> NodeLayouts {
    match node.inputs.first() {
        Some(Some(x)) if x.layout != Layout::Dense => {
            NodeLayouts { inputs: smallvec![x.layout], outputs: smallvec![x.layout] }
        }
        _ => NodeLayouts::dense(),
    }
}

fn bind(op: &ChannelLayerNorm, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    let x = cx.input(0)?;
    if x.dtype != DType::F32 {
        bail!(Unsupported, "layer normalisation over channels of {}", x.dtype);
    }
    let channels = x.shape[1];
    for i in [1, 2] {
        let one_each = cx.opt_input(i).is_none_or(|o| o.len() == channels);
        ensure!(one_each, InvalidModel, "input {i} has not one number for each of {channels} channels");
    }
    let block = match x.layout {
        Layout::Dense => None,
        Layout::Blocked(c) => Some(c),
    };
    let kind = if op.rms { LayerNormKind::Rms } else { LayerNormKind::Layer };
    let shape = [x.shape[0], channels, product(&x.shape[2..])?];
    let kernel = Kernel::new(cx.isa, kind, shape, block, f64::from(op.epsilon))?;
    Ok(FnStep::boxed("channel_layer_norm", kernel.tasks(), 0, move |args, task, _| {
        // SAFETY: the kernel was made for these operands' shapes and layout (Step::run); an input that is not there is null.
        unsafe { kernel.run(task, args.input(0), args.input(1), args.input(2), args.output(0)) };
        Ok(())
    }))
}
