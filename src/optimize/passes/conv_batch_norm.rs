//! Folds a batch normalisation into the weights of the convolution before it.

use crate::error::Result;
use crate::ir::NodeId;
use crate::kernels::gemm::Activation;
use crate::ops::conv::Conv;
use crate::ops::norm::BatchNormalization;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};

/// `BatchNormalization(Conv(x, W, B))` with constant statistics is `Conv(x, W * s, (B - mean) * s + bias)`, where
/// `s = scale / sqrt(var + epsilon)` a channel. Computed in f64, so that each new weight is rounded once. Only f32.
pub struct ConvBatchNorm;

impl Pass for ConvBatchNorm {
    fn name(&self) -> &'static str {
        "conv_batch_norm"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            fold(cx, id)?;
        }
        Ok(())
    }
}

fn fold(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<Option<()>> {
    let Some(norm) = cx.op::<BatchNormalization>(id).filter(|n| !n.training && n.spatial).cloned() else {
        return Ok(None);
    };
    let node = cx.graph().node(id).clone();
    let (&[Some(x), Some(scale), Some(bias), Some(mean), Some(var)], Some(&Some(out))) =
        (&node.inputs[..], node.outputs.first())
    else {
        return Ok(None);
    };
    let Some((conv, op)) = cx.maker::<Conv>(x).map(|(id, op)| (id, op.clone())) else { return Ok(None) };
    let made = cx.graph().node(conv).clone();
    if op.residual || op.activation != Activation::None || !cx.used_once(x) {
        cx.miss(id, || "the convolution has a residual or an activation already, or other users".into());
        return Ok(None);
    }
    let constant = |v| cx.graph().fact(v).constant().filter(|t| t.dtype() == DType::F32).cloned();
    let Some(w) = made.inputs[1].and_then(constant) else { return Ok(None) };
    let old = match made.inputs.get(2).copied().flatten() {
        None => Some(None),
        Some(v) => constant(v).map(Some),
    };
    let (Some(old), Some(statistics)) =
        (old, [scale, bias, mean, var].map(constant).into_iter().collect::<Option<Vec<_>>>())
    else {
        cx.miss(id, || "a bias or a statistic is not constant f32".into());
        return Ok(None);
    };
    let channels = w.shape().first().copied().unwrap_or(0);
    if channels == 0 || statistics.iter().chain(&old).any(|t| t.len() != channels) {
        cx.miss(id, || format!("the statistics are not one value for each of {channels} channels"));
        return Ok(None);
    }
    let [scale, bias, mean, var] = [0, 1, 2, 3].map(|i| statistics[i].as_slice::<f32>());
    let (scale, bias, mean, var) = (scale?, bias?, mean?, var?);
    let factor: Vec<f64> =
        (0..channels).map(|c| f64::from(scale[c]) / (f64::from(var[c]) + f64::from(norm.epsilon)).sqrt()).collect();
    let mut weights = Tensor::uninit(DType::F32, w.shape())?;
    let (from, each) = (w.as_slice::<f32>()?, w.len() / channels);
    for (i, to) in weights.as_mut_slice::<f32>()?.iter_mut().enumerate() {
        *to = (f64::from(from[i]) * factor[i / each.max(1)]) as f32;
    }
    let before = match &old {
        Some(t) => t.as_slice::<f32>()?,
        None => &[],
    };
    let shift: Vec<f32> = (0..channels)
        .map(|c| {
            let b = before.get(c).map_or(0.0, |&b| f64::from(b));
            ((b - f64::from(mean[c])) * factor[c] + f64::from(bias[c])) as f32
        })
        .collect();
    let name = node.name.to_string();
    let w = cx.edit.constant(&format!("{name}.weights"), weights);
    let b = cx.edit.constant(&format!("{name}.bias"), Tensor::from_slice(&[channels], &shift)?);
    cx.absorb(conv, made.op.clone(), vec![made.inputs[0], Some(w), Some(b)], id, out);
    Ok(Some(()))
}
