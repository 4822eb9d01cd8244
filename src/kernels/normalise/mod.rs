//! Softmax and its kin, layer and RMS normalisation, group and instance normalisation. Numbers are dense; f16 and bf16 are
//! widened a row at a time.

mod across;
mod channels;
mod layer;
mod softmax;
mod softmax_f32;
mod softmax_f64;
#[cfg(test)]
mod tests;

pub use across::ChannelLayerNorm;
pub use channels::GroupNorm;
pub use layer::{LayerNorm, LayerNormKind, LayerNormPointers};
pub use softmax::{Softmax, SoftmaxKind};

/// Elements a task has, about.
const GRAIN: usize = 16 * 1024;
