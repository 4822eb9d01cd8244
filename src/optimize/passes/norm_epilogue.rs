//! Lets a normalisation by channels apply the activation that follows it, while a channel is in the cache.

use super::activation::{activation_of, take_activation};
use crate::error::Result;
use crate::ops::norm::ChannelNorm;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;

/// GroupNormalization or InstanceNormalization, then an activation. Only f32: narrower types round between the operators.
pub struct NormEpilogue;

impl Pass for NormEpilogue {
    fn name(&self) -> &'static str {
        "norm_epilogue"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            let taken = take_activation::<ChannelNorm>(cx, id, &[DType::F32], |n| &mut n.activation);
            let of = cx.node(id).and_then(|n| n.inputs.first().copied().flatten());
            let (None, Some(x)) = (taken, of) else { continue };
            if activation_of(cx, id).is_some() && cx.maker::<ChannelNorm>(x).is_some() {
                cx.miss(id, || "the normalised values have other users, or are not of float32".into());
            }
        }
        Ok(())
    }
}
